"""Files: opened only where they are ordinary ones, written whole or not at all, and named in one line."""

import contextlib
import io
import os
import re
import shutil
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from captioner.errors import CaptionerError, OptionError, WritingError

_CHECKSUM = 9  # bytes that `seal` adds


def name_of(path: str | os.PathLike[str]) -> str:
    """A file's name as text, in any locale: its bytes are UTF-8; those that are not are kept as lone surrogates."""
    return os.fsencode(path).decode("utf-8", "surrogateescape")


def printable(path: str | os.PathLike[str]) -> str:
    """A file's name for a message of one line: control characters and undecodable bytes are escaped."""
    text = os.fsdecode(path)
    return text if text.isprintable() and text else repr(text)


def open_ordinary(path: str | os.PathLike[str], what: str, error: type[CaptionerError]) -> io.FileIO:
    """Opens an ordinary file, unbuffered, to read a picture or a clip (`what`) from it.

    Raises `error` where there is none, where it may not be read, and for folders, devices and pipes, which could wait
    for ever.
    """
    with explained(path, what, error):
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise error(printable(path), f"is a folder, not a {what}", f"give the path of a {what} in it")
        if not stat.S_ISREG(status.st_mode):
            raise error(printable(path), "is a device or a pipe, not a file", f"save the {what} to a file first")
        return open(path, "rb", buffering=0)


@contextlib.contextmanager
def explained(path: str | os.PathLike[str], what: str, error: type[CaptionerError]) -> Iterator[None]:
    """Turns what the system says about reading a file into one sentence of the class `error`."""
    name = printable(path)
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as reason:
        if "://" in name:
            raise error(name, "is a web address", f"download the {what} and give the file's path") from reason
        raise error(name, "does not exist", "check the path") from reason
    except PermissionError as reason:
        raise error(name, "may not be read by this user", "change its permissions") from reason
    except (OSError, ValueError) as reason:  # ValueError: a zero byte in the path
        said = (reason.strerror if isinstance(reason, OSError) else None) or reason
        raise error(name, f"cannot be read ({said})", "check the path and the disk") from reason


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` make a file, or a folder of files, in a temporary folder beside `path`, flushes it to disk, then
    moves it into place. A folder takes the place of an empty one at most.

    Where `path` is a link, the file that it leads to is replaced, and the link stays. A process that is killed leaves
    the folder, `path`'s name with .part behind it, which `remove_parts` removes. Raises WritingError where the disk
    does not take the file; what was there before stays.
    """
    path = Path(os.path.realpath(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _part(path) as part:
            write(part)
            for each in part.iterdir() if part.is_dir() else [part]:
                with each.open("rb+") as file:
                    os.fsync(file.fileno())
            part.replace(path)
    except OSError as error:
        raise WritingError(printable(path), error) from error


@contextlib.contextmanager
def _part(path: Path) -> Iterator[Path]:
    """A place for a file that becomes `path`, in a folder of its own: some writers make more than one file."""
    while True:
        folder = tempfile.mkdtemp(dir=path.parent, prefix=path.name + ".", suffix=".part")
        with _locked(folder):
            if not os.path.exists(folder):  # taken for a dead one's before it was locked
                continue
            try:
                yield Path(folder, path.name)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            return


def remove_parts(folder: Path, *patterns: str) -> None:
    """Removes what killed processes left half-written in a folder, where its name fits one of `patterns` ("a.*.part").

    What a living process is writing stays, and all of it where the system knows no locks.
    """
    for part in [part for pattern in patterns for part in folder.glob(pattern)]:
        with contextlib.suppress(OSError), _locked(part) as free:
            if free and part.is_dir() and not part.is_symlink():
                shutil.rmtree(part, ignore_errors=True)
            elif free:  # of earlier versions, which wrote no folders
                part.unlink()


@contextlib.contextmanager
def _locked(path: str | os.PathLike[str]) -> Iterator[bool | None]:
    """`take_lock` of a file or folder, and the end of it."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        yield None
        return
    try:
        yield take_lock(descriptor)
    finally:
        os.close(descriptor)


def take_lock(descriptor: int) -> bool | None:
    """Locks an open file until it is closed or the process dies, however it dies; at once or not at all.

    False where another holds the lock already, None where the system (Windows) or the file system knows no locks.
    """
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


def seal(path: Path) -> None:
    """Writes a checksum of a file behind its end, for `is_sealed`."""
    checksum = _checksum(path, path.stat().st_size)
    with path.open("ab") as file:
        file.write(checksum)


def is_sealed(path: Path, size: int) -> bool:
    """Whether a file holds just `size` bytes and the checksum that `seal` wrote of them; reads it once, in order."""
    if not path.is_file() or path.stat().st_size != size + _CHECKSUM:
        return False
    with path.open("rb") as file:
        file.seek(size)
        return file.read() == _checksum(path, size)


def _checksum(path: Path, size: int) -> bytes:
    checksum = 0
    with path.open("rb") as file:
        while size and (part := file.read(min(size, 1 << 22))):
            checksum = zlib.crc32(part, checksum)
            size -= len(part)
    return b"crc32" + checksum.to_bytes(4, "big")


def check_output(
    path: Path, name: str, *, kind: str = "text", inputs: Mapping[str, str | os.PathLike[str]] | None = None
) -> None:
    """Refuses an output path that must not be written to, before any work; makes its folder where there is none.

    A file that is there is replaced only where it is an ordinary one of the `kind` that is to be written ("text" or
    "model"), so that no photo is lost to a slip; a link is followed, and what it leads to is replaced. `name` is the
    option's, for the message; no output may be one of the `inputs`, by their names, nor in one that is a folder.

    Raises OptionError.
    """
    place = os.path.realpath(path)
    for other, source in (inputs or {}).items():
        if place == os.path.realpath(source) or (os.path.exists(place) and _is_same(place, source)):
            raise OptionError(f"{name} is {path}, which is {other} too: name another file.")
        if not os.path.isfile(source) and Path(place).is_relative_to(os.path.realpath(source)):
            raise OptionError(f"{name} is {path}, in the folder that is {other}: name a file elsewhere.")
    if os.path.isdir(place):
        raise OptionError(f"{name} is {path}, a folder: name a file.")
    if os.path.lexists(place) and not os.path.isfile(place):  # a device, a pipe, a link in a circle
        raise OptionError(f"{name} is {path}, which is no ordinary file: name one.")
    folder = Path(place).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.path.exists(place) and not _holds(place, kind):
            raise OptionError(f"{name} is {path}, where there is a file that is no {kind}: name another one.")
    except OSError as error:
        raise OptionError(f"{name} is {path}, which cannot be written: {error.strerror or error}.") from None
    if not os.access(folder, os.W_OK):
        raise OptionError(f"{name} is {path}, which cannot be written: nothing may be written in its folder.")


def check_folder(path: Path, name: str) -> None:
    """Refuses a folder that nothing can be written to, before any work; makes it where there is none.

    `name` is the option's, for the message. Raises OptionError.
    """
    if os.path.exists(path) and not os.path.isdir(path):
        raise OptionError(f"{name} is {path}, which is no folder: name one.")
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        said = (error.strerror if isinstance(error, OSError) else None) or error
        raise OptionError(f"{name} is {path}, where nothing can be written ({said}): name another folder.") from None


def _is_same(place: str, source: str | os.PathLike[str]) -> bool:
    """Whether two names are of one file, as hard links are."""
    return os.path.exists(source) and Path(place).samefile(source)


def _holds(place: str, kind: str) -> bool:
    with open(place, "rb") as file:
        start = file.read(512)
    if not start:
        return True
    if kind == "model":
        return start[8:9] == b"{"  # safetensors: the length of a table, then the table
    return b"\x00" not in start and "\ufffd" not in start[:500].decode("utf-8", "replace").rstrip("\ufffd")


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether it is an address (`https://...`, `s3://...`) and no path."""
    return re.match(r"[a-z][a-z0-9+.-]+://", os.fspath(path), re.IGNORECASE) is not None
