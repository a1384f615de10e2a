"""`runs`: training runs compared, in a table and in a page of their curves."""

import argparse
from pathlib import Path

from captioner.cli.parser import Commands
from captioner.files import check_output, write_atomically


def add(commands: Commands) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser("runs", help="compare training runs: a table, and a page of their curves")
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="the --output of a run or a preset, or a folder of runs"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with their curves, too")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Prints the table: scores of each run's best epoch, and the options in which the runs differ."""
    if chosen.html:
        check_output(chosen.html, "--html")
    from captioner.training.history import read_histories, table
    from captioner.training.report import to_html

    histories = read_histories(chosen.folders)
    print(table(histories))
    if chosen.html:
        page = to_html(histories)
        write_atomically(chosen.html, lambda part: part.write_text(page, encoding="utf-8"))
    return 0
