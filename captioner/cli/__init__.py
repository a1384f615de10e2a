"""The command line: caption photos and clips, evaluate captions, look into a model file, export one, fetch data sets.

Standard output carries data only; progress and complaints go to standard error. Exit status: 0 all good, 1 some
pictures or clips failed, 2 wrong use. torch is imported by the command that needs it, so that `--help` answers at once.
"""

import argparse
import io
import os
import sys

from captioner.cli import caption, download, evaluate, model_files, video
from captioner.errors import CaptionerError


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m captioner", description="Captions photos and clips.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (caption, video, evaluate, model_files, download):
        command.add(commands)
    chosen = parser.parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a character that the output cannot show must not cost the rest
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return int(chosen.run(chosen))
    except CaptionerError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
