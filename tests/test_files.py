"""Files are opened where they are ordinary, named in one line, and written where nothing else is lost."""

import os
from pathlib import Path

import pytest

from captioner import cli
from captioner.errors import OptionError
from captioner.files import check_output, write_atomically
from tests.hostile import encoded, noise


@pytest.fixture
def folder(tmp_path):
    """Everything that a path may lead to."""
    (tmp_path / "photo.jpg").write_bytes(encoded(noise(), "JPEG"))
    (tmp_path / "old.json").write_text('{"é": 1}' * 100, encoding="utf-8")
    (tmp_path / "model").write_bytes(b"\x10" + bytes(7) + b"{}" + bytes(100))
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for link, goal in {"to json": "old.json", "to photo": "photo.jpg", "to pipe": "pipe", "circle": "circle"}.items():
        (tmp_path / link).symlink_to(tmp_path / goal)
    os.link(tmp_path / "old.json", tmp_path / "twin.json")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("photo.jpg", "there is a file that is no text"),
        ("to photo", "there is a file that is no text"),
        ("model", "there is a file that is no text"),
        ("folder", "a folder: name a file"),
        ("pipe", "no ordinary file"),
        ("to pipe", "no ordinary file"),
        ("circle", "no ordinary file"),
        ("/dev/null", "no ordinary file"),
        ("photo.jpg/x.json", "cannot be written: "),
        ("in/x.json", "in the folder that is DATA"),
        ("in/new/../x.json", "in the folder that is DATA"),
        ("in", "which is DATA too"),
    ],
)
def test_what_must_not_be_written_over_is_refused(folder, name, said):
    """Before any work, by the option's name and the path; nothing is changed."""
    before = (folder / "photo.jpg").read_bytes()
    with pytest.raises(OptionError, match=said) as caught:
        check_output(folder / name, "--html", inputs={"DATA": folder / "in"})
    assert str(caught.value).startswith(f"--html is {folder / name}, ")
    assert (folder / "photo.jpg").read_bytes() == before


@pytest.mark.parametrize("name", ["old.json", "to json", "new.json", "made/for/it.json", "empty"])
def test_what_may_be_written_is_let_through(folder, name):
    """A new file, in a new folder too; a text in place of a text, through a link too."""
    check_output(folder / name, "--html", inputs={"DATA": folder / "photo.jpg"})
    write_atomically(folder / name, lambda part: part.write_text("new"))
    assert (folder / name).read_text() == "new"
    assert (folder / "to json").is_symlink()


def test_an_input_is_not_written_over_under_another_name(folder):
    """Through a link, and as a hard link."""
    for name in ("to json", "twin.json", "folder/../old.json"):
        with pytest.raises(OptionError, match="which is --results too"):
            check_output(folder / name, "--html", inputs={"--results": folder / "old.json"})


def test_a_model_takes_the_place_of_a_model_alone(folder):
    """`export` knows what it writes."""
    check_output(folder / "model", "the output", kind="model")
    for name in ("photo.jpg", "old.json"):
        with pytest.raises(OptionError, match="a file that is no model"):
            check_output(folder / name, "the output", kind="model")


@pytest.mark.parametrize("name", ["photo.jpg", "pipe", "/dev/null", "folder", "itself", "to itself"])
def test_export_replaces_nothing_that_it_should_not(folder, model, name, capsys):
    """A photo, a device, a pipe, a folder and its own input, one sentence each; what was there is still there."""
    own = folder / "itself"
    own.write_bytes(Path(model).read_bytes())
    (folder / "to itself").symlink_to(own)
    before = own.read_bytes()
    assert cli.main(["export", str(own), str(folder / name)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert own.read_bytes() == before
    assert not (folder / "pipe").is_file()


def test_export_through_a_link_keeps_the_link(folder, model):
    """The file that it leads to is the new model."""
    (folder / "old.safetensors").write_bytes(Path(model).read_bytes())
    (folder / "link").symlink_to(folder / "old.safetensors")
    assert cli.main(["export", str(model), str(folder / "link")]) == 0
    assert (folder / "link").is_symlink()
    assert (folder / "old.safetensors").stat().st_size < Path(model).stat().st_size
