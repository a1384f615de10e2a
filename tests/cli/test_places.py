"""Captions where they belong: `caption` with --write, --sidecars, --output, --skip-done, --dry-run and --watch."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner import cli
from captioner.captioner import Captioner
from captioner.cli import arrivals
from captioner.datasets import load_dataset
from captioner.formats.sidecars import xmp_content
from tests.formats.test_embedded import RATED, iptc, xmp

ROOT = Path(__file__).parents[2]
needs_exiftool = pytest.mark.skipif(not shutil.which("exiftool"), reason="exiftool is not installed")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photos at two depths, one of them in a format without a place for captions."""
    folder = tmp_path / "my photos"
    generator = np.random.default_rng(0)
    for name in ("a.jpg", "b.bmp", "deep/-o.png"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever loads one fails."""

    def load(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Captioner, "load", load)


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = cli.main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return status, output.out, output.err


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Into the photos


@needs_exiftool
def test_write_puts_each_caption_into_its_photo(talkative, photos, capsys):
    """The one that is printed; beside the photo where its format has no place for it; and says how many went where."""
    status, out, err = call(capsys, "caption", photos, "--write", "--model", talkative)
    assert status == 0
    said = dict(line.split("\t") for line in out.splitlines())
    assert set(xmp(photos / "a.jpg").values()) == {said[str(photos / "a.jpg")]}
    assert iptc(photos / "a.jpg")[2, 120].decode() == said[str(photos / "a.jpg")]
    assert set(xmp(photos / "deep/-o.png").values()) == {said[str(photos / "deep/-o.png")]}
    assert set(xmp(photos / "b.bmp.xmp").values()) == {said[str(photos / "b.bmp")]}
    assert err == "Captions: 2 in the photo, 1 beside the photo.\n"
    assert set(contents(photos)) == {"a.jpg", "b.bmp", "b.bmp.xmp", "deep/-o.png"}


@needs_exiftool
def test_what_is_there_stays_and_is_told(talkative, photos, capsys):
    """Unless --overwrite; a photo that keeps its description is not captioned."""
    subprocess.run(
        ["exiftool", "-q", "-overwrite_original", "-XMP-dc:Description=Grandma", photos / "a.jpg"], check=True
    )
    status, out, err = call(capsys, "caption", photos, "--write", "--model", talkative)
    assert status == 0
    assert len(out.splitlines()) == 2
    assert f"{photos / 'a.jpg'} keeps its description (Grandma): --overwrite replaces it." in err.splitlines()
    assert err.splitlines()[-1] == "Captions: 1 beside the photo, 1 in the photo, 1 were there already."
    assert xmp(photos / "a.jpg") == {"description": "Grandma"}
    status, out, err = call(capsys, "caption", photos, "--write", "--overwrite", "--model", talkative)
    assert (status, len(out.splitlines())) == (0, 3)
    assert err == "Captions: 2 in the photo, 1 beside the photo.\n"
    assert xmp(photos / "a.jpg")["description"] == out.splitlines()[0].split("\t")[1]


@needs_exiftool
def test_a_folder_that_is_done_needs_no_model(talkative, photos, capsys, monkeypatch, request):
    """--skip-done passes over it without a line a photo."""
    call(capsys, "caption", photos, "--write", "--model", talkative)
    before = contents(photos)
    request.getfixturevalue("no_model")
    assert call(capsys, "caption", photos, "--write", "--skip-done") == (0, "", "Captions: 3 were there already.\n")
    assert contents(photos) == before


@needs_exiftool
@pytest.mark.parametrize("how", [["--write"], ["--sidecars", "txt"], ["--sidecars", "xmp"]])
def test_a_dry_run_writes_nothing(talkative, photos, tmp_path, capsys, how):
    """It says the captions, and where they would go; --output is not begun either."""
    before = contents(photos)
    output = ["--output", tmp_path / "captions.csv"]
    status, out, err = call(capsys, "caption", photos, *how, *output, "--dry-run", "--model", talkative)
    assert (status, len(out.splitlines())) == (0, 3)
    assert err.startswith("Nothing was written; captions would be: ")
    assert contents(photos) == before
    assert not (tmp_path / "captions.csv").exists()


@needs_exiftool
def test_one_photo_that_cannot_be_written_costs_itself_alone(talkative, photos, capsys):
    """It is named, the others get theirs, and the status is 1."""
    (photos / "a.jpg").chmod(0o444)
    (photos / "c.jpg").write_bytes(b"no photo")
    status, out, err = call(capsys, "caption", photos, "--write", "--model", talkative)
    assert (status, len(out.splitlines())) == (1, 3)
    first, second, last = err.splitlines()
    assert first == f"{photos / 'a.jpg'} may not be written to by this user: change its permissions."
    assert second.startswith(f"{photos / 'c.jpg'} is not a picture")
    assert last == "Captions: 1 beside the photo, 1 in the photo."
    assert "description" in xmp(photos / "deep/-o.png")


def test_write_without_exiftool_is_one_sentence(photos, capsys, monkeypatch, no_model):
    """Before any work."""
    monkeypatch.setenv("PATH", "/nonexistent")
    status, out, err = call(capsys, "caption", photos, "--write")
    assert (status, out) == (2, "")
    assert "ExifTool, which writes captions into photos, is not installed" in err


# Beside them


def test_text_files_beside_the_photos(talkative, photos, capsys):
    """photo.txt, or photo.jpg.txt where another picture of the folder would have it too, even one that is not captioned."""
    shutil.copy(photos / "a.jpg", photos / "deep" / "-o.jpg")
    status, out, err = call(capsys, "caption", photos / "a.jpg", photos / "deep/-o.png", "--sidecars", "txt", "--model", talkative)  # fmt: skip
    said = [line.split("\t")[1] for line in out.splitlines()]
    assert status == 0
    assert (photos / "a.txt").read_text() == said[0] + "\n"
    assert (photos / "deep/-o.png.txt").read_text() == said[1] + "\n"
    assert err == "Captions: 2 beside the photo.\n"


@pytest.mark.parametrize(("kind", "name"), [("txt", "a.txt"), ("xmp", "a.jpg.xmp")])
def test_sidecars_that_are_there_stay(talkative, photos, capsys, kind, name):
    """Unless --overwrite."""
    there = "mine\n" if kind == "txt" else xmp_content("mine")
    (photos / name).write_text(there)
    arguments = ["caption", photos / "a.jpg", "--sidecars", kind, "--model", talkative]
    status, out, err = call(capsys, *arguments)
    assert (status, out) == (0, "")
    assert err.splitlines()[0] == f"{photos / 'a.jpg'} keeps {name}: --overwrite replaces it."
    assert (photos / name).read_text() == there
    assert call(capsys, *arguments, "--overwrite")[0] == 0
    assert (photos / name).read_text() != there


def test_sidecars_of_other_programs_keep_what_they_hold(talkative, photos, capsys, monkeypatch):
    """The caption is added by ExifTool; where there is none, a sentence, and the sidecar stays as it is."""
    (photos / "a.jpg.xmp").write_text(RATED)
    arguments = ["caption", photos, "--sidecars", "xmp", "--model", talkative]
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nonexistent")
        status, _, err = call(capsys, *arguments)
    assert status == 1
    assert "ExifTool, which writes captions into photos, is not installed" in err.splitlines()[0]
    assert (photos / "a.jpg.xmp").read_text() == RATED
    if not shutil.which("exiftool"):
        return
    status, out, _ = call(capsys, *arguments)
    assert status == 0
    assert xmp(photos / "a.jpg.xmp")["description"] == out.split("\n")[0].split("\t")[1]
    assert "Rating" in (photos / "a.jpg.xmp").read_text()


def test_a_sidecar_that_cannot_be_written_is_named(talkative, photos, capsys):
    """And costs the others nothing."""
    (photos / "a.txt").mkdir()
    arguments = ["caption", photos, "--sidecars", "txt", "--overwrite", "--model", talkative]
    status, _, err = call(capsys, *arguments)
    assert status == 1
    assert err.splitlines()[0].startswith(f"{photos / 'a.txt'} could not be written (")
    assert (photos / "b.txt").is_file()


# Into a file


NAMES = ["a.jpg", "b\tb.png", 'c "c", d.png', "=e.png", "é.png", os.fsdecode(b"caf\xe9.png"), " f.png", "g\u2028g.png"]


@pytest.fixture
def awkward(tmp_path: Path) -> Path:
    """Photos with names that lines could stumble over."""
    folder = tmp_path / "awkward"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        Image.new("RGB", (20, 20), (30 * number, 20, 200)).save(folder / "new.png")
        (folder / "new.png").rename(folder / name)
    return folder


@pytest.mark.parametrize("form", ["text", "json", "csv"])
def test_a_stopped_output_is_continued(talkative, awkward, tmp_path, capsys, form):
    """Wherever it stopped, in the middle of a line too, what comes out is what one run would have written."""
    output = tmp_path / "captions"
    arguments = ["caption", awkward, "--format", form, "--output", output, "--model", talkative]
    assert call(capsys, *arguments)[:2] == (0, "")
    whole = output.read_bytes()
    assert whole.count(b"\n") == len(NAMES) + (form == "csv")
    for end in (0, 5, len(whole) // 3, whole.index(b"\n") + 1, len(whole) // 2, len(whole) - 1):
        output.write_bytes(whole[:end])
        status, out, _ = call(capsys, *arguments, "--skip-done")
        assert (status, out) == (0, "")
        assert output.read_bytes() == whole, end


def test_an_output_that_is_done_needs_no_model(talkative, awkward, tmp_path, capsys, request):
    """And stays as it is; without --skip-done it is written anew."""
    output = tmp_path / "captions.csv"
    arguments = ["caption", awkward, "--format", "csv", "--output", output]
    call(capsys, *arguments, "--model", talkative)
    whole = output.read_bytes()
    call(capsys, *arguments, "--model", talkative)
    assert output.read_bytes() == whole
    request.getfixturevalue("no_model")
    status, _, err = call(capsys, *arguments, "--skip-done")
    assert (status, err) == (0, f"Captions: {len(NAMES)} were there already.\n")
    assert output.read_bytes() == whole


def test_an_output_is_what_standard_output_would_be(talkative, photos, tmp_path, capsys):
    """In each format; and a csv beside the photos is a data set."""
    for form in ("text", "json", "csv", "coco"):
        _, out, _ = call(capsys, "caption", photos, "--format", form, "--model", talkative)
        call(capsys, "caption", photos, "--format", form, "--output", photos / "captions.csv", "--model", talkative)
        assert (photos / "captions.csv").read_text() == out
        if form == "csv":
            assert len(load_dataset(photos).images) == 3


def test_a_photo_is_done_when_every_place_has_it(talkative, photos, tmp_path, capsys):
    """A line is not written twice because a sidecar was missing, nor the other way round."""
    output = tmp_path / "captions.csv"
    arguments = ["caption", photos, "--format", "csv", "--output", output, "--sidecars", "txt", "--model", talkative]
    call(capsys, *arguments)
    whole = output.read_bytes()
    (photos / "a.txt").unlink()
    (photos / "b.txt").write_text("mine\n")
    output.write_bytes(whole[: whole.rstrip().rindex(b"\n") + 1])
    status, _, _ = call(capsys, *arguments, "--skip-done")
    assert status == 0
    assert output.read_bytes() == whole
    assert (photos / "a.txt").is_file()
    assert (photos / "b.txt").read_text() == "mine\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_output_on_a_full_disk_is_one_sentence(talkative, photos, capsys, monkeypatch):
    """And status 2: nobody must take half of it for the whole."""
    monkeypatch.setattr("captioner.cli.caption.check_output", lambda *_: None)
    status, _, err = call(capsys, "caption", photos, "--output", "/dev/full", "--model", talkative)
    assert (status, err) == (2, "The output could not be written: No space left on device.\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--overwrite"], "--overwrite is about what is written to the photos' folder: add --write or --sidecars."),
        (["--dry-run"], "--dry-run is about"),
        (["--skip-done"], "--skip-done looks at what an earlier run left: add"),
        (["--skip-done", "--overwrite", "--sidecars", "txt"], "--skip-done does not go with --overwrite"),
        (["--skip-done", "--output", "x", "--format", "coco"], "--format coco is one list"),
        (["--watch", "--format", "coco"], "--format coco is one list"),
        (["--watch", "a.jpg"], "--watch waits for pictures in folders, and a.jpg is none: name a folder."),
        (["--output", "PHOTO"], "where there is a file that is no text"),
    ],
)
def test_options_that_do_not_go_together(options, said, photos, capsys, no_model):
    """Are refused before any work."""
    options = [str(photos / "a.jpg") if option == "PHOTO" else option for option in options]
    status, out, err = call(capsys, "caption", *options, photos)
    assert (status, out) == (2, "")
    assert said in err


# What arrives


def looks(folder: Path, failed: dict[str, None], steps: list[object], told: list[str]) -> Iterator[list[str]]:
    """What is given after each step, which stands for the time between two looks."""
    waiting = iter(steps)

    def wait(_: float) -> None:
        step = next(waiting, None)
        if step is None:
            raise KeyboardInterrupt
        step()  # type: ignore[operator]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrivals.time, "sleep", wait)
        try:
            for whole in arrivals.arrivals([str(folder)], failed, lambda error: told.append(str(error))):
                yield [Path(path).name for path in whole]
        except KeyboardInterrupt:
            return


def test_files_arrive_whole_and_once(tmp_path):
    """One that still grows waits; an empty one and a hidden one are nothing; one that failed gets another chance."""
    failed: dict[str, None] = {}
    told: list[str] = []
    path = tmp_path / "a.jpg"

    def nothing() -> None:
        pass

    def changed(content: bytes) -> object:
        return lambda: path.write_bytes(content)

    def fails() -> None:
        failed[str(path)] = None

    path.write_bytes(b"1")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / ".hidden.jpg").write_bytes(b"1")
    steps = [changed(b"12"), changed(b"123"), nothing, nothing, changed(b"1234"), nothing, nothing]
    assert list(looks(tmp_path, failed, steps, told)) == [["a.jpg"]]
    steps = [nothing, nothing, fails, nothing, changed(b"12345"), nothing, nothing, nothing]
    assert list(looks(tmp_path, failed, steps, told)) == [["a.jpg"], ["a.jpg"]]
    assert told == []


def test_a_folder_that_goes_away_may_come_back(tmp_path):
    """As a disk does; it is told once."""
    folder, told = tmp_path / "disk", []

    def back() -> None:
        folder.mkdir()
        (folder / "a.jpg").write_bytes(b"1")

    assert list(looks(folder, {}, [lambda: None, lambda: None, back, lambda: None, lambda: None], told)) == [["a.jpg"]]
    assert len(told) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watch_captions_what_arrives_and_ends_clean(talkative, photos, tmp_path, number):
    """Whole files only; a signal is how it ends: no traceback, nothing half, status 0."""
    command = [sys.executable, "-m", "captioner", "caption", str(photos), "--watch", "--sidecars", "txt", "--model", talkative]  # fmt: skip
    whole = (photos / "a.jpg").read_bytes()

    lines = tmp_path / "lines"

    def arrives(path: Path) -> None:
        """Its line is there: the last that becomes of a photo."""
        until = time.monotonic() + 100
        while f"{path}\t" not in lines.read_text():
            assert time.monotonic() < until, path
            time.sleep(0.1)

    with (
        lines.open("w") as printed,
        subprocess.Popen(command, cwd=ROOT, stdout=printed, stderr=subprocess.PIPE, text=True) as process,
    ):
        try:
            arrives(photos / "deep" / "-o.png")
            with (photos / "new.jpg").open("wb") as file:
                file.write(whole[:100])
                file.flush()
                (photos / "z.jpg").write_bytes(whole)
                arrives(photos / "z.jpg")  # half of it was seen meanwhile
                file.write(whole[100:])
            arrives(photos / "new.jpg")
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode in (0, 1)  # 1 where the half photo stood still for a second and was tried
    assert len({line.split("\t")[0] for line in lines.read_text().splitlines()}) == 5
    assert len([*photos.rglob("*.txt")]) == 5
    assert "Traceback" not in err
    assert err.splitlines()[0] == "Waiting for pictures; Ctrl-C ends it."
    assert err.splitlines()[-1] == "Captions: 5 beside the photo."
    assert not [path for path in photos.rglob("*") if path.suffix == ".part"]
