"""The command line: caption photos (in bulk, too) and clips, evaluate, train, serve, look into and export model files,
fetch and pack data.

Standard output carries data only; progress and complaints go to standard error. Exit status: 0 all good, 1 some
pictures or clips failed, 2 wrong use. torch is imported by the command that needs it, so that `--help` answers at once.
"""

import argparse
from types import ModuleType

from captioner.cli import bulk, caption, download, evaluate, model_files, runs, serve, shards, train, video
from captioner.cli.streams import guarded

_RAW = argparse.RawDescriptionHelpFormatter


def main(arguments: list[str] | None = None, *, program: str = "captioner") -> int:
    """Runs a command; returns the exit status. `program` is what its user typed to get here."""
    parser = argparse.ArgumentParser(prog=program, description="Captions photos and clips.")
    parser.set_defaults(program=program, page=f"{program} serve")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (caption, bulk, video, evaluate):
        command.add(commands)
    for name, door, what in (("train", train, "train a model"), ("serve", serve, "serve the page and the API")):
        described = commands.add_parser(name, help=what, description=door.__doc__, formatter_class=_RAW)
        door.add_options(described)
        described.set_defaults(run=door.run)
    for command in (runs, model_files, download, shards):
        command.add(commands)
    return _answer(parser, arguments)


def door(command: ModuleType, script: str, arguments: list[str] | None = None) -> int:
    """Runs one command as a script of the source tree; returns the exit status."""
    parser = argparse.ArgumentParser(prog=f"python {script}", description=command.__doc__, formatter_class=_RAW)
    command.add_options(parser)
    parser.set_defaults(run=command.run, program="python -m captioner", page="python app.py")
    return _answer(parser, arguments)


def _answer(parser: argparse.ArgumentParser, arguments: list[str] | None) -> int:
    def run() -> int:
        chosen = parser.parse_args(arguments)
        return int(chosen.run(chosen))

    return guarded(run)
