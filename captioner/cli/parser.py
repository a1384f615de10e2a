"""What the commands' parsers share."""

import argparse
from typing import TypeAlias

from captioner.options import DEVICES_HELP, MODEL_HELP

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds the options that choose a model and where it runs."""
    parser.add_argument("--model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--device", default="auto", help=DEVICES_HELP + " (default: %(default)s)")
