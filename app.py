"""Serve the page that captions your photos.

python app.py                                  at http://127.0.0.1:7860, with the bundled models
python app.py --model runs/a/best.safetensors  with a model of your own
python app.py --host 0.0.0.0 --port 8000       for other machines too
"""

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from captioner.cli.parser import add_model
from captioner.errors import CaptionerError
from captioner.options import MODELS, WebOptions, add_arguments, given


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="app.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model(parser)
    add_arguments(parser, WebOptions)
    chosen = parser.parse_args(arguments)
    try:
        options = WebOptions(**given(WebOptions, chosen))

        from captioner.device import keep_memory
        from captioner.predictor import Captioner

        # All at once: one costs 0.2 s and 60 MB beside the 5 s and 800 MB of torch and Gradio (measured), and in
        # return a damaged file is known before anybody visits, and no visitor waits for one to be loaded.
        own = chosen.model is not None and chosen.model not in MODELS
        names = [chosen.model] if own else sorted(MODELS, key=lambda name: name != chosen.model)

        def load() -> dict[str, Captioner]:
            how = {"device": chosen.device, "precision": chosen.precision}
            return {Path(name).name: Captioner.load(name, **how) for name in names}

        # In a thread that ends. OpenMP gives each thread that computes helpers of its own, and while there are more of
        # them all than cores, they sleep between their tasks: a photo took 59 ms in place of 28 (measured). The one
        # thread that computes from here on is the queue's.
        keep_memory()
        with ThreadPoolExecutor(1) as pool:
            captioners = pool.submit(load).result()

        # A folder that only this user can look into, and that is gone when the server stops.
        with TemporaryDirectory(prefix="captioner-", dir=os.environ.get("GRADIO_TEMP_DIR")) as uploads:
            os.environ["GRADIO_TEMP_DIR"] = uploads

            from captioner.web.server import create_app, serve

            serve(create_app(captioners, options), options.host, options.port)
    except CaptionerError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass  # the usual way to stop it
    return 0


if __name__ == "__main__":
    sys.exit(main())
