"""Tar and parquet files as rows of pictures, whole and damaged."""

import io
import tarfile

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from captioner.bulk.shards import members
from captioner.errors import DataError
from captioner.pictures import MAX_BYTES
from tests.bulk.conftest import picture, write_tar


def test_pictures_of_a_tar(shard):
    """Those files whose ending is a picture's, with their bytes, in order."""
    found = list(members(str(shard), "tar", most=MAX_BYTES))
    assert [(one.name, one.data) for one in found] == [(f"{n:04}.jpg", picture(n)) for n in range(20)]


def test_compressed_tars(shard, tmp_path):
    """By their content."""
    import gzip

    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(shard.read_bytes()))
    assert list(members(str(tmp_path / "a.tar.gz"), "tar", most=MAX_BYTES)) == list(
        members(str(shard), "tar", most=MAX_BYTES)
    )


def test_odd_members(tmp_path):
    """Links, folders, hidden files and second files of a name are passed over; what is too big has a problem and is not read."""
    path = tmp_path / "odd.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (("a.jpg", b"2"), ("b.jpg", b"5"), (".c.jpg", b"0"), ("d.jpg", b"0"), ("d.jpg", b"0")):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.size = kind, "/etc/passwd", 10 if kind == b"0" else 0
            archive.addfile(entry, io.BytesIO(b"0123456789"))
    assert [(one.name, one.data) for one in members(str(path), "tar", most=10)] == [("d.jpg", b"0123456789")]
    (big,) = members(str(path), "tar", most=9)
    assert (big.data, "more than" in big.problem) == (b"", True)


@pytest.mark.parametrize("form", ["bytes", "struct"])
def test_pictures_of_a_parquet_file(tmp_path, form):
    """Bytes, or Hugging Face's struct of bytes and path; named by their rows, and an empty row is a problem."""
    data = [picture(1), None, picture(2)]
    column = data if form == "bytes" else [one and {"bytes": one, "path": "a.jpg"} for one in data]
    parquet.write_table(pa.table({"image": column, "id": [1, 2, 3]}), tmp_path / "a.parquet")
    found = list(members(str(tmp_path / "a.parquet"), "parquet", most=MAX_BYTES))
    assert [(one.name, one.data) for one in found] == [("0", picture(1)), ("1", b""), ("2", picture(2))]
    assert found[1].problem == "has no picture"


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_damaged_shards(tmp_path, kind):
    """Anywhere they are cut: what comes before the damage comes, then one sentence with the name of the shard."""
    path = tmp_path / f"a.{kind}"
    if kind == "tar":
        write_tar(path, range(4))
    else:
        parquet.write_table(pa.table({"image": [picture(n) for n in range(4)]}), path)
    whole = path.read_bytes()
    for cut in (0, 3, 600, len(whole) // 2):
        path.write_bytes(whole[:cut])
        came = []
        with pytest.raises(DataError, match=f"a.{kind}"):
            came.extend(members(str(path), kind, most=MAX_BYTES))
        assert [one.data for one in came] == [picture(n) for n in range(len(came))]
