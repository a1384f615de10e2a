"""The folder of what visitors send: only this user can look into it, and it is gone when the server stops.

Promises: however the server ends, nothing of its visitors stays: not after a signal, and what a killed one left is
deleted by the next that starts. It knows folders and locks, and nothing of what lies in them.
"""

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import IO

from captioner.errors import OptionError

_PREFIX = "captioner-"

_LOCK = ".lock"
"""A file in the folder that its server holds a lock on, which death releases."""

_STOPS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""What ends the server as Ctrl-C does."""


@contextlib.contextmanager
def uploads_folder() -> Iterator[str]:
    """Makes the folder, in GRADIO_TEMP_DIR or where the system has its temporary files, and tells Gradio of it.

    Everything temporary of this process lies in it. Raises OptionError where there is no place for it.
    """
    with _stopping_cleanly(), _made() as folder:
        uploads, other = folder / "uploads", folder / "other"  # apart: Gradio takes what lies in the first for its own
        uploads.mkdir()
        other.mkdir()
        temporary, environment = tempfile.tempdir, os.environ.get("GRADIO_TEMP_DIR")
        tempfile.tempdir, os.environ["GRADIO_TEMP_DIR"] = str(other), str(uploads)
        try:
            yield str(uploads)
        finally:
            tempfile.tempdir = temporary
            os.environ.pop("GRADIO_TEMP_DIR")
            if environment is not None:
                os.environ["GRADIO_TEMP_DIR"] = environment


@contextlib.contextmanager
def _made() -> Iterator[Path]:
    named = os.environ.get("GRADIO_TEMP_DIR")
    try:
        place = Path(named or tempfile.gettempdir()).absolute()
        _delete_orphans(place)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
        lock = _lock(folder)
    except OSError as error:
        where = f"GRADIO_TEMP_DIR is {named!r}, where" if named else "The system's folder for temporary files is where"
        raise OptionError(
            f"{where} no file can be written ({error.strerror or error}): set GRADIO_TEMP_DIR to a folder with room."
        ) from error
    try:
        yield folder
    finally:
        if lock is not None:
            lock.close()
        shutil.rmtree(folder, ignore_errors=True)


def _delete_orphans(place: Path) -> None:
    """Deletes the folders of servers that are no more: their locks are free."""
    for folder in place.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if (folder / _LOCK).is_file() and not folder.is_symlink() and (lock := _lock(folder, new=False)):
                shutil.rmtree(folder, ignore_errors=True)
                lock.close()


def _lock(folder: Path, *, new: bool = True) -> IO[bytes] | None:
    """The locked file; None where another process holds it, or the system knows no such locks."""
    try:
        import fcntl
    except ImportError:  # Windows, where what a killed server leaves has to be deleted by hand
        return None
    # A new lock is made under another name: between its making and its locking it would look like an orphan's.
    file = (folder / (f"{_LOCK}-new" if new else _LOCK)).open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if new:
            (folder / f"{_LOCK}-new").rename(folder / _LOCK)
    except OSError:
        file.close()
        return None
    return file


@contextlib.contextmanager
def _stopping_cleanly() -> Iterator[None]:
    """Has SIGTERM and SIGHUP raise KeyboardInterrupt, once: what comes after the first does not disturb the end."""
    stopped = False

    def stop(_: int, __: FrameType | None) -> None:
        nonlocal stopped
        if not stopped:
            stopped = True
            raise KeyboardInterrupt

    before = {}
    with contextlib.suppress(ValueError):  # outside the main thread there are no signals
        before = {one: signal.signal(one, stop) for one in _STOPS if signal.getsignal(one) is not signal.SIG_IGN}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
