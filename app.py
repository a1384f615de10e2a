"""Serve the page that captions your photos.

python app.py                                  at http://127.0.0.1:7860, with the bundled model
python app.py --model runs/a/best.safetensors  with a model of your own
python app.py --host 0.0.0.0 --port 8000       for other machines too
"""

import argparse
import sys

from captioner.errors import CaptionerError
from captioner.options import DEVICES_HELP, WebOptions, add_arguments, given


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="app.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", metavar="PATH", help="a model file that train.py wrote (default: the bundled model)")
    parser.add_argument("--device", default="auto", help=DEVICES_HELP)
    add_arguments(parser, WebOptions)
    chosen = parser.parse_args(arguments)
    try:
        options = WebOptions(**given(WebOptions, chosen))

        from captioner.predictor import Captioner

        captioner = Captioner.load(chosen.model, chosen.device)

        from captioner.web.server import create_app, serve

        serve(create_app(captioner, options), options.host, options.port)
    except CaptionerError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass  # the usual way to stop it
    return 0


if __name__ == "__main__":
    sys.exit(main())
