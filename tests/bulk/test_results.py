"""The output folder: whole parts, one writer, and what the next run finds."""

import os

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from captioner.bulk import results
from captioner.bulk.results import FORMATS, ROW, Results
from captioner.bulk.worker import DONE
from captioner.errors import DataError, OptionError, WritingError

SETTINGS = {"model_sha256": "abc"}


def opened(folder, form="parquet", settings=SETTINGS):
    return Results(folder, form, settings, ("fast", "abc"))


def table(*numbers):
    return pa.Table.from_pylist([{"path": f"{n}.jpg", "size": n, "caption": "a dog"} for n in numbers], schema=DONE)


@pytest.mark.parametrize("form", FORMATS)
def test_parts_are_numbered_on(tmp_path, form):
    """Each run writes behind the parts that are there; what they hold is claimed by nobody any more."""
    for number in range(3):
        with opened(tmp_path / "out", form) as found:
            assert not any(found.claim(f"{n}.jpg", n, None) for n in range(number))
            assert found.claim(f"{number}.jpg", number, None)
            assert not found.claim(f"{number}.jpg", number, None)
            assert found.claim("0.jpg", 99, None)
            found.add(table(number))
    assert sorted(path.name for path in (tmp_path / "out").glob("part*")) == [
        f"part-{number:06}{FORMATS[form]}" for number in (1, 2, 3)
    ]


def test_many_rows_are_parts_of_their_own(tmp_path, monkeypatch):
    """So that no more than these wait in memory."""
    monkeypatch.setattr(results, "ROWS", 4)
    with opened(tmp_path / "out") as found:
        for number in range(10):
            found.add(table(number))
        assert len(list((tmp_path / "out").glob("part*"))) == 2
    assert parquet.read_table(tmp_path / "out").num_rows == 10  # the folder is a table: what else lies in it is hidden
    assert parquet.read_schema(tmp_path / "out" / "part-000001.parquet").names == ROW.names


def test_old_rows_are_written(tmp_path, monkeypatch):
    """However few: a kill costs a minute's work."""
    monkeypatch.setattr(results, "SECONDS", 0.0)
    with opened(tmp_path / "out") as found:
        found.add(table(1))
        assert len(list((tmp_path / "out").glob("part*"))) == 1


def test_one_writer(tmp_path):
    """A second run is refused while the first is there, and let in behind it."""
    with opened(tmp_path / "out"), pytest.raises(OptionError, match="Another run"):
        opened(tmp_path / "out")
    with opened(tmp_path / "out"):
        pass


def test_other_settings_are_refused(tmp_path):
    """And the folder is free for the right ones."""
    with opened(tmp_path / "out"):
        pass
    with pytest.raises(OptionError, match="another model_sha256"):
        opened(tmp_path / "out", settings={"model_sha256": "abd"})
    with opened(tmp_path / "out"):
        pass


def test_a_folder_with_other_things_is_refused(tmp_path):
    """Parts amid photos would be photos' neighbours for ever."""
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(OptionError, match="other things"):
        opened(tmp_path)


def test_half_a_part_is_none(tmp_path):
    """What a killed run was writing is removed; a part that somebody damaged is named."""
    with opened(tmp_path / "out") as found:
        found.add(table(1))
    half = tmp_path / "out" / "part-000002.parquet.abc.part"
    half.mkdir()
    (half / "part-000002.parquet").write_bytes(b"PAR1")
    with opened(tmp_path / "out") as found:
        assert found.before == 1
    assert not half.exists()
    (tmp_path / "out" / "part-000001.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="part-000001"):
        opened(tmp_path / "out")


def test_shards_are_noted_behind_their_rows(tmp_path, monkeypatch):
    """Where the part cannot be written, neither is the note; with room again both are."""
    from captioner.files import write_atomically

    def full(path, write):
        if path.name.startswith("part"):
            raise WritingError(str(path), OSError(28, os.strerror(28)))
        write_atomically(path, write)

    with opened(tmp_path / "out") as found:
        found.add(table(1))
        found.finish("shard", 1)
        with monkeypatch.context() as broken:
            broken.setattr(results, "write_atomically", full)
            with pytest.raises(WritingError):
                found.write()
        assert not (tmp_path / "out" / "_captioner" / "shards.json").exists()
    with opened(tmp_path / "out") as found:
        assert (found.finished, found.before) == ({"shard": 1}, 1)
