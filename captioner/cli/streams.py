"""Standard output and standard error, whatever a shell has made of them: closed, full, or in a narrow encoding.

Promises: what programs read is UTF-8, unless a terminal or PYTHONIOENCODING says otherwise. Standard output that cannot
be written to is one sentence and the status 2, or 0 where its reader has seen enough; what cannot be said on standard
error stays unsaid and stops nothing. Nothing is printed by Python itself.
"""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TextIO

from captioner.backends import lacking
from captioner.errors import CaptionerError


class OutputError(CaptionerError):
    """Standard output cannot be written to."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does, with nothing half written."""

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread: whoever runs us there ends us in another way
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def guarded(run: Callable[[], int]) -> int:
    """Runs a command with the promises above; a CaptionerError is one sentence and status 2, Ctrl-C status 130."""
    with _prepared():
        try:
            return _flushed(run)
        except CaptionerError as error:
            print(error.told_with_flags(), file=sys.stderr)
            return 2
        except ModuleNotFoundError as error:  # an extra that was not installed
            said = lacking(error)
            if said is None:
                raise
            print(said, file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("Stopped.", file=sys.stderr)
            return 130
        except BrokenPipeError:  # the reader of our output has seen enough, as `| head` does
            return 0


def _flushed(run: Callable[[], int]) -> int:
    """What a command returns, once all that it printed is written."""
    try:
        status = run()
    except SystemExit:  # argparse has printed its help
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return status


@contextlib.contextmanager
def _prepared() -> Iterator[None]:
    before = sys.stdout, sys.stderr
    with contextlib.ExitStack() as opened:
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # closed: print would raise, or write complaints to the other one
                setattr(sys, name, opened.enter_context(open(os.devnull, "w", encoding="utf-8")))
        if isinstance(sys.stdout, io.TextIOWrapper):
            plain = not sys.stdout.isatty() and not os.environ.get("PYTHONIOENCODING")
            # A character that the output cannot show must not cost the rest.
            sys.stdout.reconfigure(encoding="utf-8" if plain else None, errors="backslashreplace")
        sys.stdout, sys.stderr = _Output(sys.stdout), _Stream(sys.stderr)
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before


class _Stream:
    """A stream that goes nowhere, in silence, from the moment that it cannot be written to."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError) as error:  # ValueError: closed
            self._fail(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:  # noqa: ARG002 - for those who say it
        _silence(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Output(_Stream):
    """The same, but not in silence."""

    def _fail(self, error: Exception) -> None:
        super()._fail(error)
        if isinstance(error, BrokenPipeError):
            raise error
        said = (error.strerror if isinstance(error, OSError) else None) or error
        raise OutputError(f"The output could not be written: {said}.") from error


def _silence(stream: TextIO) -> None:
    """Sends what a stream still holds nowhere, or Python would complain at the end of the process."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
