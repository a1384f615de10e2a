"""Every photo has one row, whatever happens on the way. The stages run in this process; test_cluster has real ones."""

import os
from collections import Counter

import pytest

from captioner import Captioner
from captioner.bulk import results, run
from captioner.errors import CaptionerError, DataError, ModelFileError, OptionError
from tests.bulk.conftest import picture, write_tar
from tests.bulk.local import Died, LocalEngine, captioned, rows


def paths(output):
    return Counter(row["path"] for row in rows(output))


def expected(folder):
    return Counter(map(str, folder.rglob("*.jpg")))


def test_a_row_a_photo_says_what_caption_says(talkative, photos, tmp_path):
    """Path, size, stamp, caption, probabilities, width, height, model and hash; a bad photo has its error."""
    totals, told = captioned(photos, tmp_path / "out", talkative)
    assert (totals.done, totals.failed, totals.before, told) == (50, 1, 0, [])
    assert paths(tmp_path / "out") == expected(photos)
    captioner = Captioner.load(talkative, "cpu")
    for row in rows(tmp_path / "out"):
        assert row["size"] == os.stat(row["path"]).st_size
        assert row["modified_ns"] == os.stat(row["path"]).st_mtime_ns
        assert (row["model"], row["model_sha256"]) == ("talkative.safetensors", captioner.card.digest)
        if row["path"].endswith("bad.jpg"):
            assert row["error"].startswith(row["path"])
            assert row["caption"] is row["width"] is row["log_probability"] is None
        else:
            found = captioner(row["path"])
            assert row["caption"] == found.text != ""
            assert row["log_probability"] == pytest.approx(found.log_probability, abs=1e-3)
            assert row["width"] == 40
            assert row["error"] is None


def test_again_it_has_nothing_to_do(model, photos, tmp_path):
    """What has its row is passed over by path, size and stamp, and no engine is started; a changed file has a new row."""
    captioned(photos, tmp_path / "out", model)
    engine = LocalEngine()
    totals, _ = captioned(photos, tmp_path / "out", model, engine)
    assert (totals.done, totals.before, engine.starts) == (0, 50, 0)
    os.utime(photos / "00.jpg", (1, 1))
    (photos / "new.jpg").write_bytes(picture(100))
    totals, _ = captioned(photos, tmp_path / "out", model, engine)
    assert (totals.done, totals.before) == (2, 49)
    assert paths(tmp_path / "out") == expected(photos) + Counter([str(photos / "00.jpg")])


@pytest.mark.parametrize("form", results.FORMATS)
@pytest.mark.parametrize("dies_after", [1, 2, 3])
def test_killed_and_started_again(model, photos, tmp_path, monkeypatch, dies_after, form):
    """Each photo has one row in the end; what a part held when the driver died is not captioned again."""
    monkeypatch.setattr(results, "ROWS", 20)
    monkeypatch.setattr(results.Results, "__exit__", lambda self, *failure: self._lock.close())  # as if killed
    with pytest.raises(Died):
        captioned(photos, tmp_path / "out", model, LocalEngine(dies_after=dies_after), form=form)
    kept = sum(paths(tmp_path / "out").values())
    monkeypatch.undo()
    totals, _ = captioned(photos, tmp_path / "out", model, form=form)
    assert kept == 20 * 0 + {1: 0, 2: 32, 3: 32}[dies_after]
    assert (totals.before, totals.done) == (kept, 50 - kept)
    assert paths(tmp_path / "out") == expected(photos)


def test_stopped_it_keeps_all_that_came(model, photos, tmp_path):
    """Ctrl-C and errors leave a part with every row that had come."""
    with pytest.raises(Died):
        captioned(photos, tmp_path / "out", model, LocalEngine(dies_after=2))
    assert sum(paths(tmp_path / "out").values()) == 32


def test_what_comes_twice_is_written_once(model, photos, shard, tmp_path):
    """As from a task that ran again after its worker had died; and where two sources hold the same file."""
    sources = [photos, photos / "00.jpg", photos / "deep", shard, shard]
    totals, _ = captioned(sources, tmp_path / "out", model, LocalEngine(times=2))
    assert totals.done == 70
    assert set(paths(tmp_path / "out").values()) == {1}


def test_a_photo_that_ends_processes_costs_no_other(model, photos, tmp_path):
    """It is tried again alone, and then has a row with an error; all that went with it the first time has its row."""
    engine = LocalEngine(loses=lambda place: place.endswith("00.jpg"))
    totals, _ = captioned(photos, tmp_path / "out", model, engine)
    assert paths(tmp_path / "out") == expected(photos)
    assert totals.failed == 2
    (row,) = (row for row in rows(tmp_path / "out") if row["path"].endswith("00.jpg"))
    assert "ended the process that read it, 3 times" in row["error"]
    assert max(map(len, engine.asked)) > 1
    assert all(len(numbers) == 1 for numbers in engine.asked[-2:])


def test_a_shard_that_never_comes_is_told_and_tried_by_the_next_run(model, shard, tmp_path):
    """It counts as no photo's failure, and is not noted as done."""
    totals, told = captioned(shard, tmp_path / "out", model, LocalEngine(loses=lambda place: True))
    assert totals.done == 0
    assert "could not be read to its end in 3 tries" in told[0]
    totals, told = captioned(shard, tmp_path / "out", model)
    assert (totals.done, told) == (20, [])


def test_half_a_shard_goes_on(model, shard, tmp_path):
    """Its photos that have rows are passed over; one that is done is not opened again."""
    with pytest.raises(Died):
        captioned(shard, tmp_path / "out", model, LocalEngine(dies_after=1))
    assert len(rows(tmp_path / "out")) == 16
    totals, _ = captioned(shard, tmp_path / "out", model)
    assert (totals.before, totals.done) == (16, 4)
    assert paths(tmp_path / "out") == Counter(f"{shard}/{number:04}.jpg" for number in range(20))
    engine = LocalEngine()
    totals, _ = captioned(shard, tmp_path / "out", model, engine)
    assert (totals.before, totals.done, engine.asked) == (20, 0, [])


def test_limit_counts_what_is_written_now(model, photos, shard, tmp_path):
    """Of photos and of shards; the next run goes on behind it."""
    assert captioned([photos, shard], tmp_path / "out", model, limit=7)[0].done == 7
    assert captioned([photos, shard], tmp_path / "out", model, limit=48)[0].done == 48
    assert captioned([photos, shard], tmp_path / "out", model)[0].done == 15
    assert set(paths(tmp_path / "out").values()) == {1}
    assert len(rows(tmp_path / "out")) == 70


def test_a_shard_that_a_limit_cuts_is_not_done(model, tmp_path):
    """The rest of it comes with the next run."""
    shard = write_tar(tmp_path / "a.tar", range(3))
    assert captioned(shard, tmp_path / "out", model, limit=2)[0].done == 2
    assert captioned(shard, tmp_path / "out", model)[0].done == 1
    assert set(paths(tmp_path / "out").values()) == {1}


def test_legs_are_one_run(model, photos, tmp_path, monkeypatch):
    """Listed in pieces, started once, each photo once."""
    monkeypatch.setattr(run, "LEG", 20)
    monkeypatch.setattr(run, "SHARDS", 1)
    shards = [write_tar(tmp_path / f"{name}.tar", range(3)) for name in "ab"]
    engine = LocalEngine()
    totals, _ = captioned([*shards, photos], tmp_path / "out", model, engine)
    assert (totals.done, totals.expected, engine.starts) == (56, 56, 1)
    assert set(paths(tmp_path / "out").values()) == {1}


def test_another_model_or_search_is_refused(model, talkative, photos, tmp_path):
    """The rows of a folder are of one kind; the refusal says what is another one."""
    captioned(photos, tmp_path / "out", model)
    with pytest.raises(OptionError, match="model_sha256"):
        captioned(photos, tmp_path / "out", talkative)
    with pytest.raises(OptionError, match="search"):
        captioned(photos, tmp_path / "out", model, search={"beam_size": 1})
    with pytest.raises(OptionError, match="format"):
        captioned(photos, tmp_path / "out", model, form="json")


def test_wrong_models_are_known_before_anything_is_started(model, photos, tmp_path):
    """No engine, and no folder that a later run would stumble over."""
    engine = LocalEngine()
    for wrong in ({"model": "nowhere"}, {"model": model, "search": {"rerank": 0.5}}):
        with pytest.raises(CaptionerError):
            captioned(photos, tmp_path / "out", engine=engine, **wrong)
    assert engine.starts == 0
    assert not (tmp_path / "out").exists()


def test_a_model_without_numbers_ends_the_run(small_file, photos, tmp_path):
    """It is no photo's fault: no rows that say so a million times."""
    from copy import deepcopy

    from captioner.checkpoint import save_model

    file = deepcopy(small_file)
    file.model.decoder.output.bias.data[:] = float("nan")
    save_model(tmp_path / "nan.safetensors", file)
    with pytest.raises(ModelFileError):
        captioned(photos, tmp_path / "out", str(tmp_path / "nan.safetensors"))
    assert rows(tmp_path / "out") == []


def test_a_list_with_a_missing_file(model, photos, tmp_path):
    """A row with its error, once: the next run does not try it again."""
    listing = tmp_path / "list.txt"
    listing.write_text(f"{photos}/00.jpg\n{photos}/gone.jpg\n")
    assert captioned(listing, tmp_path / "out", model)[0].failed == 1
    assert captioned(listing, tmp_path / "out", model)[0].done == 0
    assert len(rows(tmp_path / "out")) == 2


def test_sources_that_hold_nothing(model, tmp_path):
    """One sentence that names the source."""
    (tmp_path / "empty").mkdir()
    for name in (tmp_path / "empty", tmp_path / "*.png", "http://example.invalid/"):
        with pytest.raises(DataError, match=r"empty|\.png|example"):
            captioned(name, tmp_path / "out", model)
