"""Files that hold many pictures: tar files in WebDataset's layout, and parquet files with a column of pictures.

Nothing of a tar is ever written to the disk, and no more than a picture of it is in memory.
"""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from captioner.errors import DataError
from captioner.files import printable
from captioner.formats.fields import listed, picture_key
from captioner.formats.rows import writable

_BATCH = 16  # rows of a parquet file in memory together, with their pictures


class Member(NamedTuple):
    """A picture of a shard."""

    name: str
    """Its name in the tar; its row's number in the parquet file, from 0. No two have the same."""
    data: bytes
    problem: str = ""
    """Why there are no data."""


def members(path: str, kind: str, *, most: int) -> Iterator[Member]:
    """The pictures of a shard, in its order; of the files in a tar those with the endings of pictures.

    One of more than `most` bytes has a problem in place of its data. Raises DataError where the shard cannot be read to
    its end, after what came before.
    """
    try:
        yield from _tar(path, most) if kind == "tar" else _parquet(path, most)
    except DataError:
        raise
    except Exception as error:  # tarfile, zlib, pyarrow and the disk each have their own
        said = " ".join(str(error).split())[:200] or type(error).__name__
        remedy = "fetch or write it again; the pictures before the damage have their rows"
        raise DataError(printable(path), f"is damaged or cut short ({writable(said)})", remedy) from error


def _tar(path: str, most: int) -> Iterator[Member]:
    from captioner.pictures.finding import SUFFIXES

    seen: set[str] = set()
    with tarfile.open(path, "r|*") as archive:  # as a stream: no seeking, compressed or not
        for entry in archive:
            name = PurePosixPath(writable(entry.name))
            hidden = any(part.startswith(".") for part in name.parts)
            if not entry.isfile() or hidden or name.suffix.lower() not in SUFFIXES or str(name) in seen:
                continue
            seen.add(str(name))
            if problem := _too_big(entry.size, most):
                yield Member(str(name), b"", problem)
                continue
            file = archive.extractfile(entry)
            assert file is not None
            yield Member(str(name), file.read())


def _parquet(path: str, most: int) -> Iterator[Member]:
    column = picture_column(path)
    if column.holds_paths:
        raise DataError(printable(path), "holds paths, not pictures", "copy it to this machine, and name the copy")
    for number, value in enumerate(column.values()):
        data = (value.get("bytes") if isinstance(value, dict) else value) or b""
        problem = _too_big(len(data), most) if data else "has no picture"
        yield Member(str(number), b"" if problem else data, problem)


def _too_big(size: int, most: int) -> str:
    return f"has {size / 1e6:.0f} MB, more than the {most / 1e6:.0f} MB allowed" if size > most else ""


@dataclass(frozen=True)
class Column:
    """The column of a parquet file that holds pictures, or paths of them."""

    file: str
    name: str
    holds_paths: bool

    def values(self) -> Iterator[Any]:
        """What its rows hold: bytes, a dictionary with `bytes`, or text; None for nothing."""
        import pyarrow.parquet as parquet

        with parquet.ParquetFile(self.file) as content:
            for batch in content.iter_batches(batch_size=1000 if self.holds_paths else _BATCH, columns=[self.name]):
                yield from batch.column(0).to_pylist()

    def paths(self) -> Iterator[str]:
        """The paths in it; raises DataError where the file is damaged."""
        try:
            yield from (os.fspath(value) for value in self.values() if value)
        except (OSError, ValueError) as error:
            raise DataError(printable(self.file), f"is damaged ({error})", "write it again") from error


def picture_column(path: str) -> Column:
    """Which column of a parquet file holds the pictures: `image`, `path` and the like, else the only one of bytes.

    Raises DataError where none does, or where the file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        schema = parquet.read_schema(path)
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise DataError(printable(path), f"cannot be read as parquet ({said})", "fetch or write it again") from error
    bytes_of = [
        field.name for field in schema if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)
    ]
    name = picture_key(schema.names) or (bytes_of[0] if len(bytes_of) == 1 else None)
    if name is None:
        said = f"has the columns {listed(schema.names)}, and none that is called image, file_name or path"
        raise DataError(printable(path), said, "rename the one with the pictures")
    kind = schema.field(name).type
    return Column(path, name, pa.types.is_string(kind) or pa.types.is_large_string(kind))
