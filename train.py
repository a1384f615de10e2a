"""Train a captioner: see `python train.py --help`, or captioner/cli/train.py."""

import sys

from captioner import cli


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    return cli.door(cli.train, "train.py", arguments)


if __name__ == "__main__":
    sys.exit(main())
