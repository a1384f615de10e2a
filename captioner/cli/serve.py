"""Serve the page that captions your photos.

%(prog)s                                  at http://127.0.0.1:7860, with the bundled models
%(prog)s --model runs/a/best.safetensors  with a model of your own
%(prog)s --host 0.0.0.0 --port 8000       for other machines too
"""

import argparse
import contextlib

from captioner.cli.parser import add_model
from captioner.options import MODELS, WebOptions, add_arguments, given


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    add_model(parser, role="the model that the page begins with: ")
    add_arguments(parser, WebOptions)


def run(chosen: argparse.Namespace) -> int:
    """Loads the models and serves until Ctrl-C, the usual way to stop it."""
    options = WebOptions(**given(WebOptions, chosen))

    from captioner.web.queue import ModelQueue, load_models
    from captioner.web.uploads import uploads_folder

    # All at once: one costs 0.2 s and 60 MB beside the 5 s and 800 MB of torch and Gradio (measured), and in
    # return a damaged file is known before anybody visits, and no visitor waits for one to be loaded.
    own = chosen.model is not None and chosen.model not in MODELS
    names = [chosen.model] if own else sorted(MODELS, key=lambda name: name != chosen.model)
    with contextlib.suppress(KeyboardInterrupt):
        captioners = load_models(names, chosen.device, chosen.precision, chosen.backend)

        # A thread inside of torch when Python ends would abort the process, so the queue is closed in any case.
        closing, work = contextlib.closing, options.most_work
        with uploads_folder(), closing(ModelQueue(warm=captioners.values(), most_work=work)) as queue:
            from captioner.web.server import create_app, serve  # Gradio: seconds, while the models write their first

            serve(create_app(captioners, options, queue), options.host, options.port)
    return 0
