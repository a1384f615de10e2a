"""`download`: a known data set from its addresses, unpacked to where `train.py` finds it."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from captioner.cli.parser import Commands
from captioner.download import SOURCES, Source, download


def add(commands: Commands, sources: Mapping[str, Source] = SOURCES) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser("download", help="fetch a data set: COCO, Karpathy's splits, Flickr8k")
    parser.add_argument("name", choices=sources, help="the data set; the same command again continues after a stop")
    parser.add_argument(
        "--to",
        type=Path,
        default=Path("data"),
        metavar="FOLDER",
        help="the folder that data sets lie in; this one gets a folder of its own there (default: %(default)s)",
    )
    parser.set_defaults(run=run, sources=sources)


def run(chosen: argparse.Namespace) -> int:
    """Downloads the data set; 1 where an archive could not be had."""
    from tqdm import tqdm

    def report(line: str) -> None:
        tqdm.write(line, file=sys.stderr)

    problems = download(chosen.sources[chosen.name], chosen.to.expanduser(), report=report)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0
