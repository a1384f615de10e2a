"""Serve the page that captions your photos: see `python app.py --help`, or captioner/cli/serve.py."""

import sys

from captioner import cli


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    return cli.door(cli.serve, "app.py", arguments)


if __name__ == "__main__":
    sys.exit(main())
