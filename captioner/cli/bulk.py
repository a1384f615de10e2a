"""`bulk`: captions of any number of photos into parts of a table, on all cores of this machine or on a Ray cluster."""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.bulk import require
from captioner.cli.parser import Commands, add_model
from captioner.cli.streams import terminable
from captioner.errors import CaptionerError, OptionError
from captioner.options import SearchOptions, add_arguments, given

if TYPE_CHECKING:
    from captioner.bulk.engine import Engine
    from captioner.bulk.run import Totals

_FORMATS = ("parquet", "json")
_LINES = 60.0  # seconds between two lines about the progress, where there is no terminal

_EXAMPLES = """examples:
  %(prog)s ~/Pictures --output captions
  %(prog)s 's3://bucket/shards/*.tar' --output /shared/captions --address auto

A SOURCE is a picture; a folder of pictures, at any depth; a pattern ('photos/*.jpg', in quotes); a text file (.txt,
.list) with a path or an address on each line; an address that ends with / (the pictures below it) or is a pattern; a
tar file in WebDataset's layout; a parquet file with a column of pictures or of their paths. The same command again goes
on after a stop, and passes over what has its row."""


def add(commands: Commands) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "bulk",
        help="caption millions of photos into parquet files, on all cores or a Ray cluster",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="pictures and where they are; see below")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help="a folder of its own, for the parts of the table"
    )
    parser.add_argument(
        "--format",
        choices=_FORMATS,
        default=_FORMATS[0],
        help="of the parts; json: an object a line (default: parquet)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="end after N photos of those that have no row yet")
    parser.add_argument(
        "--address",
        default=os.environ.get("RAY_ADDRESS"),
        help="a running Ray cluster: HOST:PORT, or auto for one on this machine (default: RAY_ADDRESS, else our cores)",
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="models at once, at most (default: one a GPU, or one a core)"
    )
    add_model(parser)
    add_arguments(parser, SearchOptions, defaults=False)
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Captions the photos; 1 where some, or a folder of them, could not be read."""
    for name in ("limit", "workers"):
        value = getattr(chosen, name)
        if value is not None and value < 1:
            raise OptionError(name, f"is {value}", "it must be at least 1", field=name)
    require()
    from captioner.bulk import engine
    from captioner.bulk.run import Job
    from captioner.bulk.run import run as run_job

    left_out: list[str] = []

    def tell(error: CaptionerError) -> None:
        print(error, file=sys.stderr)
        left_out.append(str(error))

    job = Job(
        chosen.sources,
        chosen.output,
        chosen.format,
        chosen.model,
        given(SearchOptions, chosen),
        chosen.precision,
        chosen.device,
        chosen.workers,
        chosen.limit,
    )

    @contextlib.contextmanager
    def start() -> "Iterator[Engine]":
        with engine.cluster(chosen.address) as started, terminable():  # Ray has set its own answer to SIGTERM
            yield started

    with Progress() as progress, terminable():
        totals = run_job(job, start, tell=tell, progress=progress.show)
    print(progress.summary(totals, chosen.output), file=sys.stderr)
    return 1 if totals.failed or left_out else 0


class Progress:
    """How far the run is, on standard error: a bar on a terminal, else a line a minute."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._bar = tqdm(unit="photo", disable=None)
        self._started = self._said = time.monotonic()
        self._begun: tuple[float, int] | None = None  # when the first rows came, and how many: Ray takes time to start

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *failure: object) -> None:
        self._bar.close()

    def show(self, totals: "Totals") -> None:
        """The present state."""
        self._bar.total = totals.expected
        self._bar.set_postfix(failed=totals.failed, refresh=False)
        self._bar.update(totals.done - self._bar.n)
        now = time.monotonic()
        self._begun = self._begun or (now, totals.done)
        if self._bar.disable and now - self._said >= _LINES:
            self._said = now
            print(self._line(totals), file=sys.stderr)

    def summary(self, totals: "Totals", folder: Path) -> str:
        """What the run did."""
        before = f" {totals.before:,} had theirs already." if totals.before else ""
        return f"Rows in {folder}: {self._counts(totals)}.{before}"

    def _line(self, totals: "Totals") -> str:
        since, had = self._begun or (self._started, 0)
        if totals.expected is None or totals.done == had:
            return f"{self._counts(totals)}."
        left = max(0, totals.expected - totals.done) * (time.monotonic() - since) / (totals.done - had)
        return f"{self._counts(totals)}, {left / 3600:.1f} hours left."

    def _counts(self, totals: "Totals") -> str:
        rate = totals.done / max(time.monotonic() - self._started, 1e-9)
        return f"{totals.done:,} photos, {totals.failed:,} of them failed, {rate:.1f} a second"
