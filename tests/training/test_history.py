"""What a run shows of itself: report.html in its folder, and `captioner runs`."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from captioner import cli
from captioner.errors import TrainingError
from captioner.training.events import write_events
from captioner.training.history import History, differing, read_histories, rows, table
from captioner.training.report import to_html
from tests.training.small import SMALL, small_run


def entry(epoch: int, score: float, **others: object) -> dict:
    val = {"BLEU-4": score / 2, "CIDEr-D": score, "distinct": 3, "images": 4, "references": 5.0}
    return {
        "epoch": epoch,
        "loss": 5.0 - epoch,
        "gradient_norm": 1.5,
        "learning_rate": 0.001,
        "val": val,
        "seconds": {"train": 50.0, "validate": 10.0},
        **others,
    }


def written(folder: Path, *entries: dict) -> Path:
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in entries))
    return folder


class Page(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def test_a_run_shows_itself(whole):
    """A page in its folder, written anew each epoch: curves, sample pictures with their captions, options; and offline."""
    folder, _ = whole
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "2 of 2 epochs" in page.words
    for word in ("Loss", "Gradient norm", "Learning rate", "BLEU-4", "CIDEr-D", "A person:", "hidden_size"):
        assert word in page.words
    charts = [name for name, _ in page.elements if name == "polyline"]
    assert len(charts) == 6
    pictures = [attributes["src"] for name, attributes in page.elements if name == "img"]
    assert len(pictures) == 2  # of four validation pictures every second
    assert all(address.startswith("data:image/jpeg;base64,") for address in pictures)
    assert not re.search(r"https?://|<script", text)
    (history,) = read_histories([folder])
    assert [len(one["samples"]) for one in history.epochs] == [2, 2]
    for name, caption, reference in history.epochs[-1]["samples"]:
        assert all(part in page.words for part in (name, caption, reference))


def test_tensorboard_reads_what_the_log_says(whole, tmp_path):
    """By its own reader; an epoch that a killed run computes again has the later value."""
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    shutil.copytree(whole[0], tmp_path / "run")
    folder = tmp_path / "run" / "tensorboard"
    (history,) = read_histories([tmp_path / "run"])
    write_events(folder, {**history.epochs[0], "loss": 7.0})
    write_events(folder, {**history.epochs[1], "loss": 6.0})
    events = reading.EventAccumulator(str(folder)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 7.0), (2, 6.0)]
    scores = [one["val"]["CIDEr-D"] for one in history.epochs]
    assert [event.value for event in events.Scalars("val/CIDEr-D")] == pytest.approx(scores)
    assert {"learning_rate", "gradient_norm", "seconds/train"} <= set(events.Tags()["scalars"])


def test_runs_are_compared_by_their_best_epochs(drawings, whole, tmp_path, capsys):
    """A row a run, with the options in which they differ and no others; a folder of runs stands for each of them."""
    shutil.copytree(whole[0], tmp_path / "runs" / "a")
    small_run(drawings, tmp_path / "runs" / "b", given={**SMALL, "decoder": {"hidden_size": 32, "embedding_size": 16}})
    assert cli.main(["runs", str(tmp_path / "runs"), "--html", str(tmp_path / "page.html")]) == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["run", "epochs", "best"]
    assert head.endswith("decoder hidden_size")
    assert "embedding_size" not in head
    assert first.startswith(str(tmp_path / "runs" / "a"))
    assert (first.split()[-1], second.split()[-1]) == ("16", "32")
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert len([name for name, _ in page.elements if name == "polyline"]) == 12


def test_the_best_epoch_is_the_one_that_the_run_kept(tmp_path):
    """By CIDEr-D; the time is that of all epochs."""
    history = History("a", [entry(1, 10.0), entry(2, 30.0), entry(3, 20.0)])
    head, (row,) = rows([history])
    found = dict(zip(head, row, strict=True))
    assert found == {
        "run": "a",
        "epochs": "3",
        "best": "2",
        "loss": "3.000",
        "BLEU-4": "15.0",
        "CIDEr-D": "30.0",
        "distinct": "3",
        "minutes": "3.0",
    }


def test_the_best_epoch_of_several_data_sets_has_the_best_mean():
    """As in training, where each set counts the same however many pictures it has."""
    sets = [({"a": 80.0, "b": 10.0}, 70.0), ({"a": 60.0, "b": 50.0}, 59.0)]
    entries = [entry(number, together) for number, (_, together) in enumerate(sets, 1)]
    for one, (parts, _) in zip(entries, sets, strict=True):
        one["val"] |= {"data_sets": {name: {"CIDEr-D": score, "BLEU-4": 1.0} for name, score in parts.items()}}
    assert History("run", entries).best["epoch"] == 2


def test_each_data_set_has_a_column_and_a_curve():
    """Where a run learns several."""
    parts = {"coco": {"CIDEr-D": 12.0, "BLEU-4": 6.0}, "mine": {"CIDEr-D": 8.0, "BLEU-4": 4.0}}
    several = entry(1, 10.0)
    several["val"]["data_sets"] = parts
    head, body = rows([History("a", [several]), History("b", [entry(1, 10.0)])])
    assert [row[head.index("CIDEr-D mine")] for row in body] == ["8.0", ""]
    page = Page(to_html([History("a", [several])]))
    assert "mine 8" in page.words


def test_what_strangers_wrote_is_text():
    """Names and captions of pictures come out of files."""
    evil = '<script>alert("1")</script>\udce9'
    history = History(evil, [entry(1, 1.0, samples=[[evil, evil, evil]])], {evil: evil}, {evil: "data:," + evil})
    text = to_html([history])
    text.encode()
    page = Page(text)
    assert not [name for name, _ in page.elements if name == "script"]
    assert '<script>alert("1")</script>' in page.words


def test_options_are_compared_where_a_run_has_none():
    """Its model was moved, or its log comes from an earlier version."""
    assert differing([History("a", [], {"seed": "1", "x": "1"}), History("b", [], {"x": "1"})]) == {"seed": ["1", ""]}
    assert table([History("a", [entry(1, 1.0)], {"seed": "1"}), History("b", [entry(1, 1.0)])]).count("\n") == 2


@pytest.mark.parametrize("content", [None, "", "no json\n", '{"epoch": 1}\n', "[]\n", "3\n"])
def test_what_is_no_run_is_one_sentence(tmp_path, content):
    """With the folder, or the log, in it."""
    if content is not None:
        (tmp_path / "log.jsonl").write_text(content)
    with pytest.raises(TrainingError, match=re.escape(str(tmp_path))):
        read_histories([tmp_path])


def test_a_page_that_cannot_be_written_stops_no_run(drawings, tmp_path, monkeypatch):
    """It is not worth the run."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("captioner.training.report.write_atomically", full)
    best, _ = small_run(drawings, tmp_path / "run")
    assert best is not None
    assert not (tmp_path / "run" / "report.html").exists()
