"""What a long job tells whoever waits: lines, and bars that say how far it is.

Bars are drawn on standard error, and only where that is a terminal; lines go where the teller was made to write them.
"""

import sys
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


@dataclass(frozen=True)
class Telling:
    """Where lines go, and whether there are bars."""

    say: Callable[[str], object]
    bars: bool = True

    @contextmanager
    def bar(self, total: int, unit: str, what: str = "", *, done: int = 0) -> Iterator[Bar]:
        """A bar for `total` of a unit, `done` of which are done already; it is gone when the work is."""
        from tqdm import tqdm  # late: `--help` shows none

        disable = None if self.bars else True  # None: where standard error is a terminal
        with tqdm(total=total, unit=unit, desc=what, initial=done, leave=False, disable=disable) as bar:
            yield bar


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
