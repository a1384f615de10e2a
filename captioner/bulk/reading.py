"""The tables on the way, and their first stage: what is to be done -> pictures as the model's encoder takes them.

Runs in tasks of their own, which know the options of pictures and no model.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa

from captioner.bulk import addresses
from captioner.bulk.shards import members
from captioner.errors import CaptionerError, DataError, ImageError
from captioner.files import is_address, name_of
from captioner.formats.rows import writable
from captioner.options import ImageOptions

WORK = pa.schema(
    {
        "number": pa.int64(),  # of the picture or the shard in this leg
        "kind": pa.string(),  # as of a Source
        "place": pa.binary(),
        "size": pa.int64(),
        "modified_ns": pa.int64(),
        "skip": pa.list_(pa.string()),  # pictures of a shard that have their rows
    }
)

READ = pa.schema(
    {
        "number": pa.int64(),
        "index": pa.int64(),  # of a picture in its shard; -1 for the row that ends a shard
        "photos": pa.int64(),  # of that row alone: how many pictures came before it
        "path": pa.string(),
        "shard": pa.string(),
        "size": pa.int64(),
        "modified_ns": pa.int64(),
        "width": pa.int32(),
        "height": pa.int32(),
        "error": pa.string(),
        "pixels": pa.binary(),  # uint8 (3, size, size); null where there is an error
    }
)

BATCH = 16
"""Pictures that are read and captioned together, as `caption` does."""

_FETCHERS = 16
"""Pictures that a task fetches from addresses at once: each waits, and takes no core."""


def path_of(place: str) -> str:
    """A path or an address as tables can hold it."""
    return writable(name_of(place))


def read(table: pa.Table, image: ImageOptions) -> Iterator[pa.Table]:
    """Rows of WORK -> tables of READ, of at most BATCH pictures each.

    Whatever is wrong with a picture is the error in its row; a shard that breaks off has a row with an error too, by
    the path of the shard.
    """
    pictures = [row for row in table.to_pylist() if row["kind"] == "picture"]
    for first in range(0, len(pictures), BATCH):
        yield _table(_look(one, image) for one in _fetched(pictures[first : first + BATCH]))
    for row in table.to_pylist():
        if row["kind"] != "picture":
            yield from _shard(row, image)


def _fetched(rows: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """The rows with what is to be decoded (`source`: a path or bytes), or with an error."""
    remote = [row for row in rows if is_address(os.fsdecode(row["place"]))]
    if not remote:
        return [_begun(row) | {"source": os.fsdecode(row["place"])} for row in rows]
    with ThreadPoolExecutor(_FETCHERS) as pool:
        return list(pool.map(_fetch, rows))


def _fetch(row: dict[str, Any]) -> dict[str, Any]:
    from captioner.pictures import MAX_BYTES

    place = os.fsdecode(row["place"])
    if not is_address(place):
        return _begun(row) | {"source": place}
    try:
        return _begun(row) | {"source": addresses.read(place, most=MAX_BYTES)}
    except ImageError as error:
        return _begun(row) | {"error": writable(str(error))}


def _begun(row: dict[str, Any]) -> dict[str, Any]:
    """What a picture's row knows of it before it is decoded."""
    place = path_of(os.fsdecode(row["place"]))
    return {"number": row["number"], "index": 0, "path": place, "size": row["size"], "modified_ns": row["modified_ns"]}


def _look(row: dict[str, Any], image: ImageOptions) -> dict[str, Any]:
    """A row with its picture's pixels and size, or with its error."""
    from captioner.pictures import look

    if "error" in row:
        return row
    try:
        found = look(row.pop("source"), image)
    except ImageError as error:
        return row | {"error": writable(error.told(row["path"]))}
    except Exception as error:  # ours to mend, but no reason to lose the pictures beside it
        return row | {"error": writable(f"{row['path']} could not be read ({type(error).__name__}: {error}).")}
    return row | {"width": found.size[0], "height": found.size[1], "pixels": found.pixels.tobytes()}


def _shard(row: dict[str, Any], image: ImageOptions) -> Iterator[pa.Table]:
    """The pictures of a shard that have no rows yet, and the row that ends it."""
    from captioner.pictures import MAX_BYTES

    place, skip = os.fsdecode(row["place"]), set(row["skip"] or ())
    base = _begun(row)
    waiting: list[dict[str, Any]] = []
    photos = 0

    def of(name: str, **others: Any) -> dict[str, Any]:
        nonlocal photos
        photos += 1
        return base | {"index": photos - 1, "path": name, "shard": base["path"], **others}

    try:
        with tempfile.TemporaryDirectory() as folder:
            if is_address(place):
                # Copied whole, so that a connection that breaks is tried again and is no damage of the shard.
                copied = Path(folder, "shard")
                addresses.copy(place, copied)
                place = str(copied)
            for member in members(place, row["kind"], most=MAX_BYTES):
                path = f"{base['path']}/{member.name}"
                if path in skip:
                    continue
                if member.problem:
                    waiting.append(of(path, error=f"{path} {member.problem}."))
                else:
                    waiting.append(_look(of(path, source=member.data), image))
                if len(waiting) == BATCH:
                    yield _table(waiting)
                    waiting = []
    except (CaptionerError, OSError) as error:
        told = (
            error.told(base["path"]) if isinstance(error, DataError) else f"{base['path']} could not be read ({error})."
        )
        if base["path"] not in skip:
            waiting.append(of(base["path"], error=writable(told)))
    yield _table([*waiting, base | {"index": -1, "photos": photos, "shard": base["path"]}])


def _table(rows: Iterable[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=READ)
