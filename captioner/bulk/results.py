"""What a run leaves: parts of a table, each whole, and what the next run needs to go on behind them.

    OUTPUT/part-000001.parquet       a row a photo (or .jsonl)
    OUTPUT/_captioner/run.json       which model and search wrote them: another one is refused
    OUTPUT/_captioner/shards.json    the shards that were read to their end, with how many rows of theirs are written
    OUTPUT/_captioner/lock           held by the process that writes

Readers of parquet folders pass over names that begin with an underscore. A part is written beside its place and moved
there, and only by the process that holds the lock, which the system takes back from a dead one. So what a task did
twice, or did after its driver had died, is never in two parts.
"""

import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as parquet

from captioner.errors import DataError, OptionError
from captioner.files import check_folder, remove_parts, take_lock, write_atomically

ROWS = 10_000
"""Rows after which a part is written."""

SECONDS = 60.0
"""Seconds after which one is written all the same: at most what so long took is done again after a kill."""

FORMATS = {"parquet": ".parquet", "json": ".jsonl"}
"""Forms of the parts, the default first, and their endings."""

ROW = pa.schema(
    {
        "path": pa.string(),
        "shard": pa.string(),
        "size": pa.int64(),
        "modified_ns": pa.int64(),
        "width": pa.int32(),
        "height": pa.int32(),
        "caption": pa.string(),
        "log_probability": pa.float64(),
        "word_probability": pa.float64(),
        "error": pa.string(),
        "model": pa.string(),
        "model_sha256": pa.string(),
    }
)
"""A row of a part. `size` (bytes) and `modified_ns` are the file's, or the shard's; a row has a caption or an error."""

_KEY = ["path", "shard", "size", "modified_ns"]


class Results:
    """The output folder, held while the block runs; when that ends, however it ends, what waits is written."""

    def __init__(self, folder: Path, form: str, settings: Mapping[str, Any], model: tuple[str, str]) -> None:
        """`settings` is what all parts have in common; `model` is the name and the hash that each row carries.

        Raises OptionError where the folder cannot be written, is another run's at the moment, holds other things, or
        holds parts of other settings.
        """
        self.folder, self._form, self._model = folder, form, model
        check_folder(folder, "--output")
        state = folder / "_captioner"
        self._record, self._shards = state / "run.json", state / "shards.json"
        if not state.is_dir() and any(folder.iterdir()):
            raise OptionError(f"--output is {folder}, which holds other things: name a folder of its own.")
        state.mkdir(exist_ok=True)
        self._lock = _locked(state / "lock", folder)
        try:
            self._check({"format": form, **settings})
            remove_parts(folder, "part-*.part")
            remove_parts(state, "*.part")
            self._waiting: list[pa.Table] = []
            self._since = time.monotonic()
            self.finished: dict[str, int] = self._read(self._shards)
            self._done: set[bytes] = set()
            self._of_shards: dict[str, list[str]] = {}
            for path, shard, size, modified in self._rows():
                self._done.add(_digest(path, size, modified))
                if shard is not None and shard_key(shard, size, modified) not in self.finished:
                    self._of_shards.setdefault(shard_key(shard, size, modified), []).append(path)
            self.before = len(self._done)
            self._next = 1 + max((int(part.stem.removeprefix("part-")) for part in self._parts()), default=0)
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> "Results":
        return self

    def __exit__(self, *failure: object) -> None:
        try:
            self.write()
        finally:
            self._lock.close()

    def claim(self, path: str, size: int | None, modified: int | None) -> bool:
        """Whether a photo has no row yet and was not claimed before; from now on it is."""
        digest = _digest(path, size, modified)
        if digest in self._done:
            return False
        self._done.add(digest)
        return True

    def rows_of(self, shard: str) -> list[str]:
        """The photos that have rows already, of a shard (by its `shard_key`) that is not finished."""
        return self._of_shards.get(shard, [])

    def add(self, rows: pa.Table) -> None:
        """Takes rows, without the model's columns; writes a part of all that waits when that is much, or old."""
        if len(rows):
            name, digest = self._model
            for column, value in (("model", name), ("model_sha256", digest)):
                rows = rows.append_column(column, pa.repeat(pa.scalar(value), len(rows)))
            self._waiting.append(rows.select(ROW.names).cast(ROW))
        if sum(map(len, self._waiting)) >= ROWS or time.monotonic() - self._since >= SECONDS:
            self.write()

    def finish(self, shard: str, photos: int) -> None:
        """Notes that all photos of a shard were given to `add`: later runs need not open it."""
        self.finished[shard] = photos

    def write(self) -> None:
        """Writes what waits. Raises WritingError, and keeps it."""
        if self._waiting:
            table = pa.concat_tables(self._waiting).combine_chunks()
            path = self.folder / f"part-{self._next:06}{FORMATS[self._form]}"
            write_atomically(path, lambda part: _write(table, part))
            self._next += 1
            self._waiting = []
        # After the part: a shard that is noted must have its rows, while one that is not is only opened once more.
        if self.finished != self._read(self._shards):
            _write_json(self._shards, self.finished)
        self._since = time.monotonic()

    def _check(self, settings: Mapping[str, Any]) -> None:
        before = self._read(self._record)
        if not before:
            _write_json(self._record, settings)
        for name, value in settings.items() if before else ():
            if before.get(name) != value:
                raise OptionError(
                    f"--output is {self.folder}, whose captions have another {name} ({before.get(name)}, now {value}): "
                    "give the options of that run, or name another folder."
                )

    def _parts(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if re.fullmatch(r"part-\d+\.(parquet|jsonl)", path.name))

    def _rows(self) -> Iterator[tuple[str, str | None, int | None, int | None]]:
        """Path, shard, size and time stamp of every row that is there."""
        for part in self._parts():
            try:
                if part.suffix == ".parquet":
                    columns = parquet.read_table(part, columns=_KEY).to_pydict()
                    yield from zip(*(columns[name] for name in _KEY), strict=True)
                else:
                    with part.open(encoding="utf-8") as file:
                        for row in map(json.loads, file):
                            yield row["path"], row["shard"], row["size"], row["modified_ns"]
            except (OSError, ValueError, KeyError) as error:
                remedy = "delete it, and its photos are captioned again"
                raise DataError(str(part), f"cannot be read ({error})", remedy) from error

    @staticmethod
    def _read(path: Path) -> dict[str, Any]:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise DataError(str(path), f"cannot be read ({error})", "name another --output") from error
        return found if isinstance(found, dict) else {}


def shard_key(place: str, size: int | None, modified: int | None) -> str:
    """A shard in its present state, as text."""
    return json.dumps([place, size, modified], ensure_ascii=False)


def _locked(path: Path, folder: Path) -> IO[str]:
    lock = path.open("a")
    if take_lock(lock.fileno()) is False:
        lock.close()
        raise OptionError(f"Another run is at work in {folder}: wait until it ends, or choose another --output.")
    return lock


def _digest(path: str, size: int | None, modified: int | None) -> bytes:
    """A photo in its present state, in 16 bytes: a set of paths would take several times the memory."""
    return hashlib.blake2b(f"{path}\0{size}\0{modified}".encode(), digest_size=16).digest()


def _write(table: pa.Table, path: Path) -> None:
    if path.suffix == ".parquet":
        parquet.write_table(table, path)
        return
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in table.to_pylist())


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, ensure_ascii=False, indent=1)
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))
