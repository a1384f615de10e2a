"""What sources hold, in which order, and what is said of those that hold nothing."""

import os

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from captioner.bulk.sources import Source, listed
from captioner.errors import CaptionerError, DataError
from tests.bulk.conftest import picture


def places(*names, told=None):
    return [source.place for source in listed([str(name) for name in names], (told or []).append)]


def test_a_folder_is_its_pictures(photos):
    """As `caption` lists them, with size and stamp; by absolute paths, wherever the command is given."""
    found = list(listed([os.path.relpath(photos)], print))
    assert [source.place for source in found] == sorted(map(str, photos.rglob("*.jpg")))
    for source in found:
        status = os.stat(source.place)
        assert (source.size, source.modified, source.kind) == (status.st_size, status.st_mtime_ns, "picture")


def test_patterns(photos, shard):
    """Pictures and shards that fit, at any depth for **; whatever else fits is passed over."""
    assert places(photos / "*") == sorted(map(str, photos.glob("*.jpg")))
    assert places(photos / "**") == sorted(map(str, photos.rglob("*.jpg")))
    assert places(shard.parent / "shard-*.tar") == [str(shard)]


def test_a_file_whose_name_is_a_pattern_is_that_file(tmp_path):
    """`a[1].jpg` is a usual name of a second download."""
    (tmp_path / "a[1].jpg").write_bytes(picture(1))
    assert places(tmp_path / "a[1].jpg") == [str(tmp_path / "a[1].jpg")]


def test_lists(photos, tmp_path, monkeypatch):
    """Paths of the working folder, and addresses, whose size nobody asks for; empty lines are none."""
    monkeypatch.chdir(photos)
    (tmp_path / "list.txt").write_text("00.jpg\r\n\nhttps://example.org/a.jpg\ngone.jpg\ns3://bucket/0.tar\n")
    assert list(listed([str(tmp_path / "list.txt")], print))[1:] == [
        Source("https://example.org/a.jpg"),
        Source(str(photos / "gone.jpg")),
        Source("s3://bucket/0.tar", kind="tar"),
    ]


def test_parquet_of_paths_is_a_list_and_of_bytes_a_shard(photos, tmp_path):
    """By the type of the column `image`, or the only one of bytes."""
    parquet.write_table(pa.table({"image": [str(photos / "00.jpg"), None]}), tmp_path / "paths.parquet")
    parquet.write_table(pa.table({"id": [1], "data": [picture(1)]}), tmp_path / "bytes.parquet")
    assert places(tmp_path / "paths.parquet") == [str(photos / "00.jpg")]
    (source,) = listed([str(tmp_path / "bytes.parquet")], print)
    assert (source.kind, source.is_shard) == ("parquet", True)


def test_a_name_that_is_no_text(photos):
    """Bytes that are no UTF-8 in a file's name, which Linux allows."""
    name = os.fsencode(photos) + b"/\xff.jpg"
    with open(name, "wb") as file:
        file.write(picture(1))
    assert os.fsdecode(name) in places(photos)


@pytest.mark.parametrize("name", ["nothing.parquet", "list.txt", "empty", "*.jpg", "folder/"])
def test_what_holds_nothing_is_one_sentence(name, tmp_path):
    """It names the source, and says what to do."""
    (tmp_path / "empty").mkdir()
    name = "http://example.invalid/folder/" if name == "folder/" else str(tmp_path / name)
    with pytest.raises(DataError) as caught:
        places(name)
    assert name in str(caught.value)
    assert caught.value.remedy


def test_a_parquet_file_without_pictures(tmp_path):
    """The columns that are there are named."""
    parquet.write_table(pa.table({"id": [1], "text": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(CaptionerError, match="id, text"):
        places(tmp_path / "a.parquet")
