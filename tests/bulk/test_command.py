"""The command `bulk`, with an engine that is not Ray: what it says, and how it ends."""

import io

import pytest

from captioner import cli
from tests.bulk.local import LocalEngine, rows


@pytest.fixture
def call(model, tmp_path, monkeypatch, capsys):
    """Runs the command; status, standard output and standard error."""
    from captioner.bulk import engine

    monkeypatch.setattr(engine, "cluster", lambda address: LocalEngine().start())

    def run(*arguments, output="out"):
        status = cli.main(["bulk", *map(str, arguments), "--output", str(tmp_path / output), "--model", model])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_summary_and_status(call, photos, tmp_path):
    """1 where photos failed; standard output stays empty; the summary counts rows, failures and what was there."""
    status, out, err = call(photos)
    assert (status, out) == (1, "")
    assert err.startswith(f"Rows in {tmp_path / 'out'}: 50 photos, 1 of them failed, ")
    assert len(err.splitlines()) == 1
    status, _, err = call(photos)
    assert status == 0
    assert err.endswith("50 had theirs already.\n")


def test_options_reach_the_run(call, photos, shard, tmp_path):
    """Format, limit and search."""
    status, _, _ = call(photos, shard, "--limit", "4", "--format", "json", "--max-length", "2")
    assert len(rows(tmp_path / "out")) == 4
    assert not list((tmp_path / "out").glob("*.parquet"))
    assert all(len((row["caption"] or "").split()) <= 2 for row in rows(tmp_path / "out"))
    assert status in (0, 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["EMPTY"], "holds no pictures"),
        (["PHOTOS", "--rerank", "0.5"], "no right-to-left decoder"),
        (["PHOTOS", "--beam-size", "0"], "--beam-size is 0"),
    ],
)
def test_wrong_use(call, photos, tmp_path, arguments, said):
    """One sentence and status 2."""
    (tmp_path / "empty").mkdir()
    names = {"PHOTOS": str(photos), "EMPTY": str(tmp_path / "empty")}
    status, out, err = call(*(names.get(argument, argument) for argument in arguments))
    assert (status, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_folder_that_may_not_be_listed(call, photos, monkeypatch):
    """It is named, and the others are captioned."""
    from captioner.pictures import finding

    def walk(folder, onerror):
        error = PermissionError(13, "Permission denied", f"{folder}/lost+found")
        onerror(error)
        yield from listed(folder)

    listed = finding.os.walk
    monkeypatch.setattr(finding.os, "walk", walk)
    status, _, err = call(photos)
    assert status == 1
    assert "lost+found cannot be listed" in err
    assert "50 photos" in err


def test_a_line_a_minute_without_a_terminal(monkeypatch):
    """Done, failed, photos a second; and the time left once a rate is known."""
    from captioner.bulk.run import Totals
    from captioner.cli import bulk

    said = io.StringIO()
    monkeypatch.setattr("sys.stderr", said)
    monkeypatch.setattr(bulk, "_LINES", 0.0)
    with bulk.Progress() as progress:
        progress.show(Totals(done=100, failed=1, expected=1000))
        progress.show(Totals(done=200, failed=1, expected=1000))
        progress.show(Totals(done=300, failed=2, expected=None))
    first, second, third = said.getvalue().splitlines()
    assert first.startswith("100 photos, 1 of them failed, ")
    assert second.endswith("hours left.")
    assert third.startswith("300 photos, 2 of them failed, ")
