"""What the commands' parsers share."""

import argparse
from typing import TypeAlias

from captioner.options import BACKEND_HELP, BACKENDS, DEVICES_HELP, MODEL_HELP, PRECISION_HELP, PRECISIONS

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_model(parser: argparse.ArgumentParser, *, role: str = "", precision: str = "auto") -> None:
    """Adds the options that choose a model, where it runs, and how: in `precision` unless told otherwise.

    `role` says what the model is for, where the command has more than one.
    """
    parser.add_argument("--model", metavar="MODEL", help=role + MODEL_HELP)
    parser.add_argument("--backend", choices=BACKENDS, default="auto", help=BACKEND_HELP + " (default: %(default)s)")
    parser.add_argument("--device", default="auto", help=DEVICES_HELP + " (default: %(default)s)")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default=precision, help=PRECISION_HELP + " (default: %(default)s)"
    )
