"""Serve the page that captions your photos.

python app.py                                  at http://127.0.0.1:7860, with the bundled models
python app.py --model runs/a/best.safetensors  with a model of your own
python app.py --host 0.0.0.0 --port 8000       for other machines too
"""

import argparse
import sys
from contextlib import closing

from captioner.cli.parser import add_model
from captioner.errors import CaptionerError
from captioner.options import MODELS, WebOptions, add_arguments, given


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="app.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model(parser, role="the model that the page begins with: ")
    add_arguments(parser, WebOptions)
    chosen = parser.parse_args(arguments)
    try:
        options = WebOptions(**given(WebOptions, chosen))

        from captioner.web.queue import ModelQueue, load_models
        from captioner.web.uploads import uploads_folder

        # All at once: one costs 0.2 s and 60 MB beside the 5 s and 800 MB of torch and Gradio (measured), and in
        # return a damaged file is known before anybody visits, and no visitor waits for one to be loaded.
        own = chosen.model is not None and chosen.model not in MODELS
        names = [chosen.model] if own else sorted(MODELS, key=lambda name: name != chosen.model)
        captioners = load_models(names, chosen.device, chosen.precision)

        with uploads_folder(), closing(ModelQueue(warm=captioners.values(), most_work=options.most_work)) as queue:
            from captioner.web.server import create_app, serve  # Gradio: seconds, while the models write their first

            serve(create_app(captioners, options, queue), options.host, options.port)
    except CaptionerError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass  # the usual way to stop it
    return 0


if __name__ == "__main__":
    sys.exit(main())
