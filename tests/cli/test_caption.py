"""The promises of the command line, kept through the real doors."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner import Captioner, cli
from captioner.card import read_header
from captioner.checkpoint import load_model, save_model
from captioner.datasets import load_dataset
from captioner.options import MODELS
from tests.hostile import write_hostile_files
from tests.pictures.test_pictures import locked

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def both_ways(both_ways_file, tmp_path_factory):
    """Where a model with two decoders lies as a file."""
    path = tmp_path_factory.mktemp("model") / "both.safetensors"
    save_model(path, both_ways_file)
    return str(path)


@pytest.fixture
def photos(tmp_path):
    """A folder of three pictures at different depths, a text file and a hidden picture."""
    folder = tmp_path / "photos"
    generator = np.random.default_rng(0)
    for name in ("b.png", "a.jpg", "deep/er/c.webp", ".hidden.png"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)
    (folder / "notes.txt").write_text("no picture")
    return folder


def call(capsys, *arguments):
    status = cli.main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return status, output.out, output.err


def test_a_folder_that_may_not_be_listed_costs_itself_alone(model, photos, capsys, monkeypatch):
    """As `lost+found` on a disk of its own: it is named, the other photos get their captions, and the status is 1."""
    (photos / "lost+found").mkdir()
    locked(monkeypatch, photos / "lost+found")
    status, out, err = call(capsys, "caption", photos, "--model", model)
    assert status == 1
    assert len(out.splitlines()) == 3
    assert err.count("lost+found cannot be listed (Permission denied)") == 1


def test_one_line_a_photo_path_tab_caption(model, photos, capsys):
    """A folder means its pictures at any depth, sorted; standard output is data only; all good is 0."""
    status, out, err = call(capsys, "caption", photos, "--model", model, "--device", "cpu")
    assert status == 0
    lines = [line.split("\t") for line in out.splitlines()]
    assert [Path(path).relative_to(photos).as_posix() for path, _ in lines] == ["a.jpg", "b.png", "deep/er/c.webp"]
    captioner = Captioner.load(model, "cpu")
    for path, text in lines:
        assert text == captioner(path).text
    assert err == ""


def test_json_has_probabilities_and_alternatives(model, photos, capsys):
    """One object a line, with `path`, `caption`, `log_probability` and as many `alternatives` as the beam has left."""
    status, out, _ = call(capsys, "caption", photos, "--json", "--beam-size", "4", "--model", model)
    assert status == 0
    records = [json.loads(line) for line in out.splitlines()]
    assert len(records) == 3
    for record in records:
        assert record.keys() == {"path", "caption", "log_probability", "word_probability", "alternatives"}
        assert len(record["alternatives"]) == 3
        assert all(other["log_probability"] <= record["log_probability"] for other in record["alternatives"])


def test_csv_is_what_the_own_folder_reader_reads(talkative, photos, tmp_path, capsys):
    """Saved anywhere, with the names that were captioned; a bad photo is left out, and status 1."""
    (photos / "aa.jpg").write_bytes(b"no photo")
    (photos / "b.png").rename(photos / '=1, 2 "é".png')
    status, out, err = call(capsys, "caption", photos, "--format", "csv", "--model", talkative)
    assert status == 1
    assert len(err.splitlines()) == 1
    (tmp_path / "captions.csv").write_text(out, encoding="utf-8")
    data = load_dataset(tmp_path / "captions.csv")
    captioner = Captioner.load(talkative, "cpu")
    there = {image.source: image.captions for image in data.images}
    names = ('=1, 2 "é".png', "a.jpg", "deep/er/c.webp")
    assert there == {photos / name: (captioner(photos / name).text,) for name in names}


def test_coco_is_what_evaluate_scores(model, photos, tmp_path, capsys):
    """One JSON list, which `evaluate --results` takes against references of the same pictures."""
    (photos / "captions.csv").write_text("image,caption\na.jpg,A dog.\nb.png,A cat.\ndeep/er/c.webp,Grass.\n")
    status, out, _ = call(capsys, "caption", photos, "--format", "coco", "--model", model)
    assert status == 0
    assert [entry["image_id"] for entry in json.loads(out)] == ["a.jpg", "b.png", "c.webp"]
    (tmp_path / "results.json").write_text(out)
    status, out, _ = call(
        capsys, "evaluate", photos, "--split", "all", "--results", tmp_path / "results.json", "--json"
    )
    assert status == 0
    assert json.loads(out)["images"] == 3


def test_json_is_short_for_format_json(model, photos, capsys):
    """The same lines."""
    short, long = (
        call(capsys, "caption", photos, *how, "--model", model)[1] for how in (["--json"], ["--format", "json"])
    )
    assert short == long != ""


def test_a_bad_photo_is_named_skipped_and_status_1(model, photos, capsys):
    """The others get their captions all the same."""
    (photos / "aa.jpg").write_bytes(b"no photo")
    status, out, err = call(capsys, "caption", photos, photos / "missing.jpg", "--model", model)
    assert status == 1
    assert len(out.splitlines()) == 3
    assert "aa.jpg" in err
    assert "missing.jpg" in err
    assert len(err.splitlines()) == 2


def test_hostile_files_crash_nothing(model, photos, tmp_path, capsys):
    """Every one is named on a line of its own; none stops the good one from getting its caption."""
    hostile = write_hostile_files(tmp_path / "hostile")
    assert len(hostile) >= 25
    files = [path for path in hostile.values() if not path.is_dir()]
    status, out, err = call(capsys, "caption", *files, photos / "a.jpg", "--model", model)
    assert status == 1
    assert len(out.splitlines()) == 1
    assert out.startswith(str(photos / "a.jpg"))
    assert len(err.splitlines()) == len(files)
    assert "Traceback" not in err


def test_names_with_tabs_and_new_lines_stay_on_one_line(model, photos, capsys):
    """A name cannot break the format: one line, one tab."""
    (photos / "a.jpg").rename(photos / "a\t\nb.jpg")
    _, out, _ = call(capsys, "caption", photos / "a\t\nb.jpg", "--model", model)
    assert out.count("\n") == out.count("\t") == 1
    assert r"a\t\nb.jpg" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["caption", "EMPTY"], "no pictures in the folder"),
        (["caption", "x.jpg", "--model", "nowhere"], "no model file nowhere"),
        (["caption", "x.jpg", "--beam-size", "0"], "--beam-size is 0"),
        (["caption", "x.jpg", "--device", "toaster"], "--device is 'toaster'"),
        (["caption", "x.jpg", "--rerank", "1.5"], "--rerank is 1.5: it must be at most 1.0"),
        (["caption", "x.jpg", "--rerank", "0.5"], "no right-to-left decoder"),
        (["evaluate", "shapes", "--rerank", "0.5"], "no right-to-left decoder"),
        (["evaluate", "nowhere"], "nothing at nowhere"),
        (["info", "nowhere"], "no model file nowhere"),
        (["export", "nowhere", "out"], "no model file nowhere"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_2(arguments, said, model, tmp_path, capsys):
    """No traceback, and nothing on standard output."""
    arguments = [str(tmp_path) if argument == "EMPTY" else argument for argument in arguments]
    if arguments[0] in ("caption", "evaluate") and "--model" not in arguments:
        arguments += ["--model", model]
    status, out, err = call(capsys, *arguments)
    assert status == 2
    assert said in err
    assert out == ""


@pytest.mark.parametrize("name", MODELS)
def test_info_is_for_people(name, capsys):
    """The records of the models that a model came from are named, not printed."""
    _, out, _ = call(capsys, "info", name)
    assert "a model trained on flickr8k" in out
    assert "{" not in out
    assert "commit         None" not in out


def test_info_says_what_a_file_holds(model, capsys):
    """Options, vocabulary and provenance, for people and as JSON."""
    _, out, _ = call(capsys, "info", model)
    for part in ("mobilenet_v3_small", "hidden_size 24", "vocabulary", "data           nothing"):
        assert part in out
    _, out, _ = call(capsys, "info", model, "--json")
    assert json.loads(out)["provenance"] == {"data": "nothing"}


def test_bundled_models_go_by_name(model, photos, tmp_path, monkeypatch, capsys):
    """Everywhere a model is chosen; a file of that name in the working folder is ./fast."""
    for name in MODELS:
        assert f"{name}.safetensors" in call(capsys, "info", name)[1]
    assert f"{MODELS[0]}.safetensors" in call(capsys, "info")[1]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fast").write_bytes(Path(model).read_bytes())
    assert "fast.safetensors" in call(capsys, "info", "fast")[1]
    assert "mobilenet_v3_small" in call(capsys, "info", "./fast")[1]
    for name in ("fast", "./fast"):
        _, out, _ = call(capsys, "caption", photos / "a.jpg", "--model", name, "--device", "cpu")
        captioner = Captioner.load(name, "cpu")
        assert out == f"{photos / 'a.jpg'}\t{captioner(photos / 'a.jpg').text}\n"
        assert captioner.name == {"fast": "the bundled model fast", "./fast": "fast"}[name]


def test_a_model_that_reads_both_ways(model, both_ways, photos, tmp_path, capsys):
    """`info` says so, `export` keeps it, and `--rerank` gives the second decoder its share."""
    assert "directions     left to right\n" in call(capsys, "info", model)[1]
    assert "directions     left to right and right to left\n" in call(capsys, "info", both_ways)[1]
    assert call(capsys, "export", both_ways, tmp_path / "half.safetensors")[0] == 0
    assert read_header(tmp_path / "half.safetensors")["reverse"] is True
    assert load_model(tmp_path / "half.safetensors").model.reverse is not None
    arguments = ["caption", photos, "--json", "--beam-size", "5", "--model", both_ways]
    (_, plain, _), (status, reranked, _) = call(capsys, *arguments), call(capsys, *arguments, "--rerank", "1")
    assert status == 0
    sentences = [
        [[r["caption"], *(o["caption"] for o in r["alternatives"])] for r in map(json.loads, out.splitlines())]
        for out in (plain, reranked)
    ]
    assert [sorted(group) for group in sentences[0]] == [sorted(group) for group in sentences[1]]
    assert sentences[0] != sentences[1]


def test_export_writes_half_precision(model, tmp_path, capsys):
    """About half the size, and still a model."""
    status, _, _ = call(capsys, "export", model, tmp_path / "half.safetensors", "--note", "Cats it calls dogs.")
    assert status == 0
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * Path(model).stat().st_size
    assert load_model(tmp_path / "half.safetensors").provenance == {"data": "nothing", "note": "Cats it calls dogs."}


@pytest.mark.parametrize(
    "door",
    [
        ["-m", "captioner"],
        ["-m", "captioner", "caption"],
        ["-m", "captioner", "video"],
        ["-m", "captioner", "train"],
        ["-m", "captioner", "serve"],
        ["train.py"],
        ["app.py"],
    ],
)
def test_help_answers_without_torch(door):
    """--help works at every door, and loads neither torch nor gradio, which would take seconds."""
    script = (
        "import runpy, sys; sys.argv = sys.argv[1:]; "
        "module = sys.argv[0] == '-m'; sys.argv = sys.argv[1:] if module else sys.argv\n"
        "try: runpy.run_module(sys.argv[0], run_name='__main__') if module else runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as stop: print(stop.code, sorted({'torch', 'gradio', 'numpy', 'PIL', 'av'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *door, "--help"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
    assert "usage:" in done.stdout


def test_a_reader_that_stops_early_is_no_error(model, photos):
    """`captioner caption ... | head -1` ends without a traceback."""
    command = f"'{sys.executable}' -m captioner caption '{photos}' --model '{model}' | head -0"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, cwd=ROOT)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
