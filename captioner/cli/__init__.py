"""The command line: caption photos and clips, evaluate captions, look into a model file, export one for shipping.

Standard output carries data only; progress and complaints go to standard error. Exit status: 0 all good, 1 some
pictures or clips failed, 2 wrong use. torch is imported by the command that needs it, so that `--help` answers at once.
"""

import argparse

from captioner.cli import caption, evaluate, model_files, video
from captioner.cli.streams import guarded


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m captioner", description="Captions photos and clips.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (caption, video, evaluate, model_files):
        command.add(commands)

    def run() -> int:
        chosen = parser.parse_args(arguments)
        return int(chosen.run(chosen))

    return guarded(run)
