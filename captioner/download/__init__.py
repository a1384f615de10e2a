"""Data sets from their addresses into the tree that data/README.md shows.

    download(SOURCES["coco"], Path("data"))

Each archive is fetched, checked, unpacked and deleted, several at once. What is unfinished lies in `.download` below
the folder, with a list of what each finished archive put there: stopped at any moment, even killed, the same call
continues, and one more finds that everything is there.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, NoReturn

from tqdm import tqdm

from captioner.download.sources import SOURCES, Archive, Source
from captioner.download.unpack import Damaged, check, check_space, unpack
from captioner.errors import DataError, OptionError
from captioner.files import write_atomically

if TYPE_CHECKING:
    from captioner.download.fetch import Patience

__all__ = ["SOURCES", "Archive", "Source", "download"]


def download(
    source: Source, folder: Path, *, patience: "Patience | None" = None, report: Callable[[str], object] = print
) -> list[str]:
    """Puts the data set's files below `folder`; answers with a sentence for each archive that could not be had.

    `report` is told the terms before anything is fetched, and how it goes. Raises OptionError where the folder cannot
    be used or the data set must be asked for, and DataError where the disk is too small.
    """
    if not source.archives:
        raise OptionError(source.terms)
    from captioner.download.fetch import Patience, is_whole, length  # and with it httpx

    if folder.exists() and not folder.is_dir():
        raise OptionError(f"--to {folder} is a file: give the folder that data sets lie in.")
    work = folder / ".download"
    wanted = [archive for archive in source.archives if not _is_unpacked(archive, folder, work)]
    report(source.terms)
    needed = sum(
        max(0, (archive.size or archive.unpacked) + archive.unpacked - length(part))
        for archive in wanted
        # What is whole may be half unpacked, so that it needs less; unpacking looks at the disk once more.
        if not is_whole(part := work / f"{archive.name}.part", archive)
    )
    check_space(next(place for place in (folder, *folder.absolute().parents) if place.exists()), needed, "The download")
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(
            f"--to {folder} cannot be written to ({error.strerror}): give a folder that you may change."
        ) from error
    problems = []
    if wanted:
        report(
            f"{len(wanted)} archive{'s' * (len(wanted) > 1)} to fetch and to unpack below {folder}, which takes about "
            f"{needed / 1e9:,.1f} GB of disk on the way."
        )
        with _alone(work):
            problems = asyncio.run(_bring(wanted, folder, work, patience or Patience(), report))
    if not problems:
        report("Everything is there. " + source.afterwards.format(folder=folder))
    return problems


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Keeps a second download, which would write to the same files, out of the folder until this process ends."""
    with (work / "lock").open("w") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OptionError(
                f"Another download into {work.parent} is running: wait until it ends, or stop it."
            ) from None
        except (ImportError, OSError):  # Windows; file systems without locks
            pass
        yield


async def _bring(
    archives: Sequence[Archive], folder: Path, work: Path, patience: "Patience", report: Callable[[str], object]
) -> list[str]:
    """Fetches and unpacks all archives at once."""
    import httpx

    from captioner import __version__
    from captioner.download.fetch import fetch, forget, length

    stop = Event()
    sizes = sum(archive.size or archive.unpacked for archive in archives)
    there = sum(length(work / f"{archive.name}.part") for archive in archives)

    async def bring(archive: Archive) -> str:
        """What went wrong with one of them, or nothing."""
        part = work / f"{archive.name}.part"
        try:
            await fetch(client, archive, part, patience=patience, advance=fetching.update, report=report)
            report(f"{archive.name} came; it is checked and unpacked.")
            await asyncio.to_thread(_settle, part, archive, folder, stop, unpacking.update)
            forget(part)
        except Damaged as error:
            forget(part)
            return str(error)
        except DataError as error:
            return str(error)
        except OSError as error:
            where = error.filename or folder
            return (
                f"{archive.name} cannot be written: {where} ({error.strerror or error}). Put that right, and run the "
                "same command again, which continues."
            )
        return ""

    with (
        _bar("fetching", sizes, 0) as fetching,
        _bar("unpacking", sum(archive.unpacked for archive in archives), 1) as unpacking,
    ):
        fetching.update(there)
        try:
            async with httpx.AsyncClient(
                timeout=patience.timeout, follow_redirects=True, headers={"User-Agent": f"captioner/{__version__}"}
            ) as client:
                problems = await asyncio.gather(*map(bring, archives))
        finally:
            stop.set()  # Ctrl-C: the threads that unpack end after the piece that they are at
    return [problem for problem in problems if problem]


def _bar(what: str, size: int, row: int) -> "tqdm[NoReturn]":
    return tqdm(desc=what, total=size, position=row, unit="B", unit_scale=True, leave=False, disable=None)


def _settle(part: Path, archive: Archive, folder: Path, stop: Event, advance: Callable[[int], object]) -> None:
    """Checks and unpacks an archive that came, and notes what it put where."""
    check(part, archive, stop)
    files = unpack(part, archive, folder, stop=stop, advance=advance)
    content = json.dumps({"address": archive.address, "digest": archive.digest, "files": files})
    write_atomically(_list_file(archive, part.parent), lambda file: file.write_text(content, encoding="utf-8"))


def _is_unpacked(archive: Archive, folder: Path, work: Path) -> bool:
    """Whether all that the archive put below the folder, by its list, is still there."""
    try:
        noted = json.loads(_list_file(archive, work).read_text(encoding="utf-8"))
        return (noted["address"], noted["digest"]) == (archive.address, archive.digest) and all(
            (folder / name).stat().st_size == size for name, size in noted["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # never finished, since deleted, or damaged
        return False


def _list_file(archive: Archive, work: Path) -> Path:
    return work / f"{archive.name}.files.json"
