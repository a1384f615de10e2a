"""Files: opened only where they are ordinary ones, written whole or not at all, and named in one line."""

import contextlib
import io
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from captioner.errors import CaptionerError


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
            raise error(f"{printable(path)} is a folder, not a {what}: give the path of a {what} in it.")
        if not stat.S_ISREG(status.st_mode):
            raise error(f"{printable(path)} is a device or a pipe, not a file: save the {what} to a file first.")
        return open(path, "rb", buffering=0)


@contextlib.contextmanager
def explained(path: str | os.PathLike[str], what: str, error: type[CaptionerError]) -> Iterator[None]:
    """Turns what the system says about reading a file into one sentence of the class `error`."""
    name = printable(path)
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as reason:
        if "://" in name:
            raise error(f"{name} is a web address: download the {what} and give the file's path.") from reason
        raise error(f"{name} does not exist: check the path.") from reason
    except PermissionError as reason:
        raise error(f"{name} may not be read by this user: change its permissions.") from reason
    except (OSError, ValueError) as reason:  # ValueError: a zero byte in the path
        said = (reason.strerror if isinstance(reason, OSError) else None) or reason
        raise error(f"{name} cannot be read ({said}): check the path and the disk.") from reason


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary file beside `path`, flushes it to disk, then moves it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        write(part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)  # mkstemp makes it private; what we write is as readable as any file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
