"""What is to be captioned: pictures, and shards with pictures in them, in the order of the sources.

    folder                 its pictures, at any depth
    a/*.jpg, s3://b/*.tar  the pictures and shards that fit the pattern
    list.txt               a path or an address a line
    s3://bucket/folder/    the pictures below it
    *.tar, *.tar.gz        a shard in WebDataset's layout: the pictures among its files
    *.parquet              a shard with a column of pictures; or a list, where the column holds paths
    anything else          a picture

It opens no picture, and lists one source after the other, never all of them at once.
"""

import glob
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from captioner.bulk import addresses
from captioner.errors import CaptionerError, DataError
from captioner.files import is_address, printable

Tell = Callable[[CaptionerError], object]

_LISTS = (".txt", ".list", ".lst")
_TARS = (".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class Source:
    """A picture, or a shard of them, by its absolute path or its address."""

    place: str
    size: int | None = None
    """Bytes; None where nobody said so: a file that is missing, an address in a list."""
    modified: int | None = None
    """Time stamp in nanoseconds since 1970, or None as above."""
    kind: str = "picture"
    """picture, tar or parquet."""

    @property
    def is_shard(self) -> bool:
        """Holds any number of pictures."""
        return self.kind != "picture"


def listed(names: Sequence[str], tell: Tell) -> Iterator[Source]:
    """What the sources hold; a file may come twice where two of them hold it.

    A folder in a folder, and a line of a list, that cannot be read is told to `tell`, and the others come all the same.
    Raises ImageError and DataError for a source that is missing, empty or unreadable.
    """
    for name in names:
        empty = True
        for source in _source(name, tell):
            empty = False
            yield source
        if empty:
            raise DataError(printable(name), "holds no pictures", "name a folder, a pattern or a list with some")


def _source(name: str, tell: Tell) -> Iterator[Source]:
    if is_address(name):
        return _at_address(name)
    if os.path.isdir(name):
        return (_file(str(path)) for path in _pictures(name, tell))
    if glob.has_magic(name) and not os.path.lexists(name):
        return (one for match in sorted(glob.glob(name, recursive=True)) if _wanted(match) for one in _one(match))  # noqa: PTH207 - of a text
    return _lines(name) if name.lower().endswith(_LISTS) else _one(name)


def _one(name: str) -> Iterator[Source]:
    """What a file is: a shard, a list in parquet, or a picture whatever it is called."""
    if _kind(name) == "parquet":
        from captioner.bulk.shards import picture_column

        column = picture_column(name)
        if column.holds_paths:
            return (_named(place) for place in column.paths())
    return iter((_file(name),))


def _wanted(name: str) -> bool:
    """Whether a file that a pattern or a folder found is a picture or a shard, by the ending of its name."""
    from captioner.pictures.finding import SUFFIXES

    return _kind(name) != "picture" or Path(name).suffix.lower() in SUFFIXES


def _pictures(folder: str, tell: Tell) -> Iterator[str]:
    from captioner.pictures.finding import find_images

    yield from map(str, find_images(folder, unreadable=tell))


def _lines(name: str) -> Iterator[Source]:
    """The files that a text file names, a line each; paths are of the working folder, as on the command line."""
    try:
        with open(name, encoding="utf-8-sig", errors="surrogateescape") as file:
            for line in file:
                if place := line.rstrip("\r\n"):
                    yield _named(place)
    except OSError as error:
        raise DataError(printable(name), f"cannot be read ({error.strerror or error})", "check the path") from error


def _named(place: str) -> Source:
    """A file that a list names. An address is not asked for its size: that would be a request for each."""
    return Source(place, kind=_kind(place)) if is_address(place) else _file(place)


def _at_address(address: str) -> Iterator[Source]:
    if not address.endswith("/") and not addresses.has_pattern(address):
        yield Source(address, kind=_kind(address))
        return
    for one in addresses.found(address):
        kind = _kind(one.address)
        if _wanted(one.address) and (kind == "picture" or not address.endswith("/")):
            yield Source(one.address, one.size, one.modified, kind)


def _file(name: str) -> Source:
    """A file on the disk, by its absolute path: another machine's working folder is another one."""
    place = os.path.abspath(name)  # noqa: PTH100 - a link stays the name that the user knows
    try:
        status = os.stat(place)
    except (OSError, ValueError):  # whoever reads it says what is wrong
        return Source(place, kind=_kind(place))
    ordinary = stat.S_ISREG(status.st_mode)
    return Source(place, status.st_size if ordinary else None, status.st_mtime_ns, _kind(place))


def _kind(name: str) -> str:
    name = name.lower()
    if name.endswith(_TARS):
        return "tar"
    return "parquet" if name.endswith((".parquet", ".pq")) else "picture"
