"""Pictures out of a stranger's zip, one at a time; text files into one.

Promises: a zip is read in memory, a picture at a time, and nothing of it is written to disk. Whatever it declares, no
more is unpacked than the limits below allow. What is left out is told, each in a sentence, and the other pictures come
all the same. Names are relative, with forward slashes, and none leads out of the folder that it is joined to.

Knows no networks, and of pictures the endings of their names alone: what an entry holds, `read_image` finds out.
"""

import io
import os
import re
import stat
import time
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath

from captioner.errors import ArchiveError
from captioner.files import printable, write_atomically
from captioner.pictures import MAX_BYTES, SUFFIXES

MAX_FILES = 20_000
"""A zip of more files is refused: ten thousand photos, each with the companion that a Mac adds."""

MAX_TOTAL = 20_000_000_000
"""Bytes unpacked from one zip, and no more: two thousand photos of 10 MB, and half a minute of unpacking."""

MAX_RATIO = 100
"""Times its size that a zip may unpack to, where that is more than one picture (MAX_BYTES): photos hardly shrink in a
zip, bitmaps of drawings some tenfold; what shrinks a thousandfold is made to cost more than it took to send."""

_CHUNK = 1 << 20
_DIRECTORY = 250 * MAX_FILES  # bytes of a zip's table of files, which Python reads whole and turns into objects
_NAME = 1000  # bytes; file systems stop at 255 for each part of a path
_SHOWN = 10


class ZippedPictures:
    """The pictures of a zip, to iterate over: (name, bytes), sorted by name; `len` says how many will be tried.

    `problems` has a sentence for each that is left out, and gets more of them as pictures are read. What is no picture
    by its name is counted in one; hidden files and a Mac's `__MACOSX` go without a word.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Reads the zip's table of files; raises ArchiveError where there is none, or one to keep away from."""
        self.path = Path(path)
        self.problems: list[str] = []
        with _opened(self.path) as archive:
            self._size = self.path.stat().st_size
            self._entries = dict(sorted(self._choose(archive.infolist()).items()))

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        left = min(MAX_TOTAL, max(MAX_BYTES, MAX_RATIO * self._size))
        with _opened(self.path) as archive:
            for number, (name, entry) in enumerate(self._entries.items()):
                data, damaged = io.BytesIO(), False
                try:
                    # No more comes than the entry declares, which `_problem` has seen: zipfile cuts off the rest, and
                    # then finds the check sum wrong.
                    with archive.open(entry) as file:
                        while left >= 0 and (chunk := file.read(_CHUNK)):
                            left -= len(chunk)
                            data.write(chunk)
                except Exception:
                    # Anything: BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError, OSError ...
                    damaged = True
                    left -= min(_CHUNK, entry.file_size)  # what the read that failed may have unpacked
                if left < 0:
                    self.problems.append(
                        f"{_shown(self.path.name)} unpacks to more than is allowed: the last {len(self) - number:,} of "
                        f"its pictures, from {_shown(name)} on, are left out; send them in a zip of their own."
                    )
                    return
                if damaged:
                    self._leave_out(name, "is damaged: make the zip again.")
                else:
                    yield name, data.getvalue()

    def _choose(self, entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
        """The entries that seem to be pictures, by their names; what is wrong with the others is told."""
        if len(entries) > MAX_FILES:
            raise _too_many(self.path)
        # The zip bomb without zips in it: each entry is made of the bytes of the next ones (Fifield, "A better zip
        # bomb", 2019). The zipfile of a recent Python looks for it too, an older one does not.
        if sum(entry.compress_size for entry in entries) > self._size:
            raise ArchiveError(
                f"{_shown(self.path.name)} is a zip bomb (its files share their bytes), or damaged: make the zip again."
            )
        chosen: dict[str, zipfile.ZipInfo] = {}
        others = []
        for entry in entries:
            raw = _decoded(entry)
            name = PurePosixPath(raw).as_posix()
            suffix = PurePosixPath(raw).suffix.lower()
            if problem := _problem_of_name(raw):
                self._leave_out(raw, problem)
            elif raw.endswith("/") or any(part.startswith(".") or part == "__MACOSX" for part in name.split("/")):
                continue
            elif suffix == ".zip":
                self._leave_out(name, "is a zip itself, which is not opened: send it alone.")
            elif suffix not in SUFFIXES:
                others.append(_shown(name))
            elif problem := _problem(entry):
                self._leave_out(name, problem)
            elif name in chosen:
                self._leave_out(name, "is there more than once: only the first is read.")
            else:
                chosen[name] = entry
        if others:
            names = ", ".join(others[:_SHOWN]) + (f" and {len(others) - _SHOWN:,} more" * (len(others) > _SHOWN))
            self.problems.append(
                f"{_shown(self.path.name)} holds {len(others):,} file{'s' * (len(others) > 1)} that by name "
                f"{'are no pictures' if len(others) > 1 else 'is no picture'}: {names}."
            )
        return chosen

    def _leave_out(self, name: str, problem: str) -> None:
        self.problems.append(f"{_shown(name)} in {_shown(self.path.name)} {problem}")


def write_zip(path: Path, files: Iterable[tuple[str, str | bytes]]) -> None:
    """Writes files, each a name and its content, into a zip that is there whole or not at all. Bytes are taken for
    photos, which are as small as they can be: only text is compressed.

    Raises ArchiveError for a name that a zip must not hold, and OSError.
    """

    def write(part: Path) -> None:
        with zipfile.ZipFile(part, "w") as archive:
            for name, content in files:
                raw = name.replace("\\", "/")
                if problem := _problem_of_name(raw):
                    raise ArchiveError(f"{_shown(name)} {problem}")
                entry = zipfile.ZipInfo(PurePosixPath(raw).as_posix(), time.localtime()[:6])
                entry.external_attr = (stat.S_IFREG | 0o644) << 16  # without, unzip gives nobody a right to read it
                archive.writestr(entry, content, zipfile.ZIP_DEFLATED if isinstance(content, str) else None)

    write_atomically(path, write)


class _Bounded(io.BufferedReader):
    """A file that refuses to be read in one go where that is as much as a table of too many files."""

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__(io.FileIO(path))

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _DIRECTORY:
            raise _too_many(self._path)
        return super().read(size)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    with ExitStack() as stack:
        try:
            if not path.is_file():  # a pipe would wait for ever
                raise ArchiveError(f"{_shown(os.fspath(path))} is not a file, or is not there: give the path of a zip.")
            file = stack.enter_context(_Bounded(path))
        except OSError as error:
            raise ArchiveError(f"{_shown(os.fspath(path))} cannot be read ({error.strerror or error}).") from error
        try:
            archive = stack.enter_context(zipfile.ZipFile(file))
        except ArchiveError:
            raise
        except Exception as error:  # as above, and UnicodeDecodeError for names
            raise ArchiveError(
                f"{_shown(path.name)} is no zip, or is damaged or cut short: send it again, or make it again."
            ) from error
        yield archive


def _decoded(entry: zipfile.ZipInfo) -> str:
    """An entry's name, with forward slashes."""
    name = entry.orig_filename  # whole, where `filename` ends at a zero byte
    if not entry.flag_bits & 0x800:  # not marked as UTF-8, which Macs and others write all the same
        with suppress(UnicodeDecodeError):
            name = name.encode("cp437").decode()
    return name.replace("\\", "/")


def _problem_of_name(name: str) -> str:
    """What is wrong with a name with forward slashes; "" if nothing is."""
    if name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in name.split("/"):
        return "has a name that leads out of its folder: make the zip again, from the folder itself."
    if not PurePosixPath(name).name or len(name.encode(errors="replace")) > _NAME:
        return "has a name that is empty or too long: rename it."
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        return "has a name with control characters or half characters: rename it."
    return ""


def _problem(entry: zipfile.ZipInfo) -> str:
    """What is wrong with a picture before it is opened; "" if nothing is."""
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        return "is a link or a device, not a file: put the picture itself into the zip."
    if entry.flag_bits & 1:
        return "is encrypted: unpack it with its password, and send the picture."
    # Of bzip2 and LZMA, zipfile unpacks whatever 4 KB of a bomb hold before anybody can count.
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed in an uncommon way: make the zip with the usual one, deflate."
    if entry.file_size > MAX_BYTES:
        megabytes = f"{entry.file_size / 1e6:.0f} MB, more than the {MAX_BYTES // 10**6} MB allowed"
        return f"has {megabytes}: save a smaller copy."
    return ""


def _too_many(path: Path) -> ArchiveError:
    return ArchiveError(
        f"{_shown(path.name)} holds more than the {MAX_FILES:,} files allowed: divide it among several zips."
    )


def _shown(name: str) -> str:
    """A name for a message of one line."""
    name = name if len(name) <= 200 else f"{name[:200]}..."
    return printable(name)
