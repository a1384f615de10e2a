"""What a long job tells whoever waits: lines, and bars that say how far it is.

Bars are drawn on standard error where that is a terminal; elsewhere they are a line a minute. Lines go where the teller
was made to write them.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol


class Bar(Protocol):
    """How far something is."""

    def update(self, n: int) -> Any:
        """So many more are done."""

    def set_postfix_str(self, s: str, refresh: bool) -> Any:
        """What is worth knowing besides, behind the numbers."""


EVERY = 60.0
"""Seconds between two lines of a long job where bars cannot be drawn."""


@dataclass(frozen=True)
class Telling:
    """Where lines go, and whether there are bars."""

    say: Callable[[str], object]
    bars: bool = True

    @contextmanager
    def bar(self, total: int, unit: str, what: str = "", *, done: int = 0) -> Iterator[Bar]:
        """A bar for `total` of a unit, `done` of which are done already; it is gone when the work is."""
        from tqdm import tqdm  # late: `--help` shows none

        if self.bars and not sys.stderr.isatty():
            yield _Lines(self.say, total, unit, what, done)
            return
        with tqdm(total=total, unit=unit, desc=what, initial=done, leave=False, disable=not self.bars) as bar:
            yield bar


class _Lines:
    """A bar as lines, for logs: none for what is soon done."""

    def __init__(self, say: Callable[[str], object], total: int, unit: str, what: str, done: int) -> None:
        self._say, self._total, self._unit, self._what = say, total, unit, what
        self._first = self._done = done
        self._postfix = ""
        self._started = self._told = time.monotonic()

    def update(self, n: int) -> None:
        self._done += n
        now = time.monotonic()
        if now - self._told < EVERY:
            return
        from tqdm import tqdm

        self._told = now
        line = tqdm.format_meter(
            self._done,
            self._total,
            now - self._started,
            prefix=f"{self._what}: " if self._what else "",
            unit=self._unit,
            initial=self._first,
            postfix=self._postfix,
            bar_format="{desc}{n_fmt} of {total_fmt} [{elapsed}, {remaining} left, {rate_fmt}{postfix}]",
        )
        self._say(line)

    def set_postfix_str(self, s: str, refresh: bool) -> None:  # noqa: ARG002
        self._postfix = s


def _above_bars(stream: str) -> Callable[[str], None]:
    def say(line: str) -> None:
        from tqdm import tqdm

        file = getattr(sys, stream)
        tqdm.write(line, file=file)
        file.flush()

    return say


OUT = Telling(_above_bars("stdout"))
"""For jobs that have no other output."""

ERR = Telling(_above_bars("stderr"))
"""For jobs whose output is data."""

SILENT = Telling(lambda _: None, bars=False)
