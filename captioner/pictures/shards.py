"""Pictures inside tar shards, on a disk or at an address: some bytes of a shard, which any thread reads at any time.

A shard at an address is fetched whole into a temporary file, and kept while it is likely to be wanted. Whoever knows
the order in which pictures will be read says so (`expect`): the next shards are then fetched ahead. Web addresses are
opened by webdataset, those of other stores by fsspec; neither is needed for shards on a disk.
"""

import importlib
import os
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import IO, Any

from captioner.errors import ImageError
from captioner.files import explained, open_ordinary, printable

AHEAD = 4
"""Shards that are fetched before they are wanted."""

_TRIES = 3
_CHUNK = 1 << 20
_OF_WEBDATASET = ("http", "https", "gs", "hf", "ais", "sftp", "ftps", "scp")
"""What webdataset opens by itself. Its `pipe:` is never given to it: an index may be a stranger's."""


@dataclass(frozen=True)
class Shard:
    """A tar file: its path or address, its size in bytes (0: not known), and for an address where its copies are."""

    address: str
    size: int
    copies: "Copies | None" = field(default=None, compare=False, repr=False)

    @property
    def name(self) -> str:
        """What messages call it."""
        return printable(self.address.rpartition("/")[2])


@dataclass(frozen=True, slots=True)
class Packed:
    """A picture in a shard: `size` bytes from `offset` on; their SHA-1, where an index says it, and its name."""

    shard: Shard
    offset: int
    size: int
    name: str
    digest: str = ""

    @property
    def told(self) -> str:
        """What messages call it."""
        return f"{printable(self.name)} in {self.shard.name}"

    def read(self) -> bytes:
        """Its file's bytes; raises ImageError where they cannot be had."""
        if self.shard.copies:
            data = self.shard.copies.read(self.shard, self.offset, self.size)
        else:
            path = self.shard.address
            with open_ordinary(path, "shard", ImageError) as file, explained(path, "shard", ImageError):
                file.seek(self.offset)
                data = file.read(self.size)
        if len(data) != self.size:
            raise ImageError(self.told, "is cut short", "fetch or write the shard again")
        return data

    def identity(self) -> tuple[Any, ...]:
        """What stays the same as long as the picture does."""
        if self.digest or self.shard.copies:
            return (self.digest or self.shard.address, self.offset, self.size)
        status = os.stat(self.shard.address)
        return (os.path.realpath(self.shard.address), status.st_size, status.st_mtime_ns, self.offset)


class Copies:
    """Copies of shards, in temporary files without a name: some at a time, those used last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._copies: OrderedDict[str, Future[_Copy]] = OrderedDict()
        self._kept = 2 + AHEAD
        self._coming: list[Shard] = []
        self._places: dict[str, int] = {}
        self._reached = -1

    def expect(self, shards: Iterable[Shard]) -> None:
        """These shards are wanted in this order, each for as long as it is named: so many are kept as that takes."""
        spans: dict[Shard, list[int]] = {}
        for at, shard in enumerate(shards):
            spans.setdefault(shard, [at, at])[1] = at
        with self._lock:
            self._kept = 2 * _overlap(spans.values()) + AHEAD  # twice: threads read ahead of the order
            self._coming = list(spans)
            self._places = {shard.address: place for place, shard in enumerate(self._coming)}
            self._reached = -1

    def read(self, shard: Shard, offset: int, size: int) -> bytes:
        """Some bytes of a shard; raises ImageError where it cannot be fetched."""
        with self._lock:
            if shard.address in self._places:
                self._reached = max(self._reached, self._places[shard.address])
            for coming in self._coming[self._reached + 1 : self._reached + 1 + AHEAD]:
                self._begin(coming)
            future = self._begin(shard)
            while len(self._copies) > self._kept:
                self._copies.popitem(last=False)
        try:
            return future.result().read(offset, size)
        except ImageError:
            with self._lock:  # whoever asks again has it tried again
                if self._copies.get(shard.address) is future:
                    del self._copies[shard.address]
            raise

    def _begin(self, shard: Shard) -> "Future[_Copy]":
        future = self._copies.get(shard.address)
        if future is None:
            future = self._copies[shard.address] = Future()
            # Nobody waits for these at the end of the process, as for those of an executor.
            threading.Thread(target=_fetch_into, args=(future, shard), daemon=True).start()
        self._copies.move_to_end(shard.address)
        return future


class _Copy:
    """A temporary file that is closed, and so deleted, when nobody reads it any more."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115
        self._lock = threading.Lock()

    def read(self, offset: int, size: int) -> bytes:
        """Some of its bytes; fewer where it ends before."""
        with self._lock:
            self.file.seek(offset)
            return self.file.read(size)

    def __del__(self) -> None:
        if hasattr(self, "file"):
            self.file.close()


def expect(sources: Iterable[object]) -> None:
    """Pictures, of any kind, will be read in this order: shards at addresses are fetched accordingly."""
    wanted: dict[Copies, list[Shard]] = {}
    for source in sources:
        if isinstance(source, Packed) and source.shard.copies:
            wanted.setdefault(source.shard.copies, []).append(source.shard)
    for copies, shards in wanted.items():
        copies.expect(shards)


def expanded(addresses: Iterable[str]) -> list[str]:
    """Addresses whose braces stand for many (`train-{00000..00189}.tar`), each by itself; the others as they are.

    Raises ImageError where webdataset, which knows what braces mean, is not installed.
    """
    return [
        one
        for address in addresses
        for one in (_webdataset(address).shardlists.expand_urls(address) if "{" in address else [address])
    ]


def open_address(address: str) -> IO[bytes]:
    """A stream of what is at an address; what it raises, and later its reads, is the opener's own."""
    scheme = address.partition("://")[0].lower()
    if scheme not in _OF_WEBDATASET:
        opened: IO[bytes] = importlib.import_module("fsspec").open(address, "rb").open()
        return opened
    stream: IO[bytes] = _webdataset(address).gopen(address, "rb")
    return stream


def _webdataset(address: str) -> Any:
    try:
        return importlib.import_module("webdataset")
    except ImportError:
        raise ImageError(
            printable(address), "is an address, and webdataset is not installed", "pip install webdataset"
        ) from None


def fetch(address: str, target: IO[bytes], *, size: int = 0) -> None:
    """Copies what is at an address to an empty file; `size` is how many bytes it must have (0: any).

    Raises ImageError where that fails several times.
    """
    for left in reversed(range(_TRIES)):
        try:
            with open_address(address) as stream:
                shutil.copyfileobj(stream, target, _CHUNK)
            if size in (0, target.tell()):
                target.flush()
                return
            said = f"it has {target.tell():,} bytes, and its index says {size:,}"
        except ImageError:
            raise
        except Exception as error:
            # Anything: OSError of a program that webdataset starts, and what each of fsspec's stores raises.
            said = printable(str(error).strip().partition("\n")[0][:200])
        target.seek(0)
        target.truncate()
        if left:
            time.sleep(1)
    remedy = "check the address, the network and the disk's room"
    raise ImageError(printable(address), f"cannot be fetched ({said})", remedy)


def _fetch_into(future: "Future[_Copy]", shard: Shard) -> None:
    try:
        copy = _Copy()
        fetch(shard.address, copy.file, size=shard.size)
    except OSError as error:  # no temporary file can be made
        future.set_exception(ImageError(shard.name, f"cannot be kept ({error})", "make room, or set TMPDIR"))
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(copy)


def _overlap(spans: Iterable[list[int]]) -> int:
    """How many of these spans (first and last place) are open at once, at most."""
    most = now = 0
    for _, change in sorted([edge for first, last in spans for edge in ((first, 1), (last + 1, -1))]):
        now += change
        most = max(most, now)
    return most
