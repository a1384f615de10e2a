"""A zip that came whole, checked and unpacked to where its files belong.

Promises: nothing is unpacked before the checksum is right, where one is known; a file is there whole or not at all; no
file that was there before is overwritten; none is written outside the folder. Stopped at any moment, the next run
keeps what is right and unpacks the rest.
"""

import hashlib
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from threading import Event

from captioner.download.sources import Archive
from captioner.errors import DataError

_CHUNK = 1 << 20
_SHOWN = 3


class Stopped(Exception):  # noqa: N818  # not an error
    """Whoever waits for the work wants it no more."""


class Damaged(DataError):  # noqa: N818  # a kind of DataError
    """The zip is not what it should be, and must be fetched anew."""


def check(file: Path, archive: Archive, stop: Event) -> None:
    """Raises Damaged where the file has not the size and checksum that the archive is known to have."""
    size = file.stat().st_size
    if archive.size is not None and size != archive.size:
        raise Damaged(f"{archive.address} gave {size:,} bytes instead of {archive.size:,}: {_ANEW}.")
    if not archive.digest:
        return
    algorithm, _, expected = archive.digest.partition(":")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK):
            _unless(stop)
            digest.update(chunk)
    if digest.hexdigest() != expected:
        raise Damaged(
            f"{archive.address} gave other bytes than expected ({algorithm} {digest.hexdigest()} instead of "
            f"{expected}): {_ANEW}."
        )


_ANEW = "it was damaged on the way, or is another file by now; what came was deleted, so run the same command again"


def unpack(
    file: Path, archive: Archive, folder: Path, *, stop: Event, advance: Callable[[int], object]
) -> dict[str, int]:
    """Unpacks the members of a zip below `folder`; answers with their paths below it and their sizes in bytes.

    `advance` is told how many bytes are there. Raises Damaged for a zip that is not whole, DataError where other files
    are in the way or the disk is too small, Stopped, and OSError.
    """
    try:
        with zipfile.ZipFile(file) as opened:
            entries = _chosen(opened.infolist(), archive)
            missing = {}
            for target, entry in entries.items():
                _unless(stop)
                if not _is_there(folder / target, entry, stop):
                    missing[target] = entry
            if taken := [target for target in missing if _is_taken(folder / target)]:
                names = ", ".join(taken[:_SHOWN]) + f" and {len(taken) - _SHOWN:,} more" * (len(taken) > _SHOWN)
                raise DataError(
                    f"{folder} holds other files where those of {archive.name} belong ({names}): move them away, or "
                    "choose another folder with --to."
                )
            check_space(folder, sum(entry.file_size for entry in missing.values()), archive.name)
            advance(sum(entry.file_size for target, entry in entries.items() if target not in missing))
            for parent in {(folder / target).parent for target in missing}:
                parent.mkdir(parents=True, exist_ok=True)
            for target, entry in missing.items():
                _unless(stop)
                _write(opened, entry, folder / target)
                advance(entry.file_size)
            return {target: entry.file_size for target, entry in entries.items()}
    except (OSError, DataError, Stopped):
        raise
    except Exception as error:  # BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError ...
        raise Damaged(f"{archive.address} gave no whole zip ({error}): {_ANEW}.") from error


def check_space(folder: Path, needed: int, what: str) -> None:
    """Raises DataError where fewer than `needed` bytes are free in `folder`."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{what} needs {needed / 1e9:,.1f} GB more, and {folder} has {free / 1e9:,.1f} GB free: choose a folder on "
            "a larger disk with --to."
        )


def _chosen(entries: list[zipfile.ZipInfo], archive: Archive) -> dict[str, zipfile.ZipInfo]:
    """The files to unpack, by their paths below the folder."""
    chosen = {}
    for entry in entries:
        match = re.fullmatch(archive.members, entry.filename)
        if not match or entry.is_dir():
            continue
        target = match.expand(archive.target)
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if not _stays_inside(target) or kind not in (0, stat.S_IFREG):
            raise Damaged(
                f"{archive.address} holds {entry.filename!r}, which leads out of its folder or is no file: {_ANEW}."
            )
        chosen[target] = entry
    if not chosen:
        raise Damaged(f"{archive.address} holds none of the files that it should: {_ANEW}.")
    return chosen


def _stays_inside(target: str) -> bool:
    windows = PureWindowsPath(target)  # parts at both slashes, and knows drives
    return not (windows.drive or windows.root or ".." in windows.parts) and PurePosixPath(target).name != ""


def _is_there(target: Path, entry: zipfile.ZipInfo, stop: Event) -> bool:
    """Whether the very file lies there; its bytes are read, since a size alone says little."""
    if not target.is_file() or target.stat().st_size != entry.file_size:
        return False
    checksum = 0
    with target.open("rb") as content:
        while chunk := content.read(_CHUNK):
            _unless(stop)
            checksum = zlib.crc32(chunk, checksum)
    return checksum == entry.CRC


def _is_taken(target: Path) -> bool:
    """Whether something lies there; an empty file counts as nothing, since that is what a power cut leaves."""
    return os.path.lexists(target) and not (target.is_file() and target.stat().st_size == 0)


def _write(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    part = target.with_name(f".{target.name}.part")
    try:
        with opened.open(entry) as source, part.open("wb") as file:
            shutil.copyfileobj(source, file, _CHUNK)  # reads no more than declared, and checks the CRC at the end
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _unless(stop: Event) -> None:
    if stop.is_set():
        raise Stopped
