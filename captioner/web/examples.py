"""The example photos beside the place for one's own: a folder's, those that come with Gradio, or drawn shapes for a
model that knows nothing else; and the copies of pictures that a page shows.
"""

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
from PIL import Image

from captioner.captioner import Captioner
from captioner.datasets.shapes import draw
from captioner.errors import ImageError
from captioner.options import WebOptions
from captioner.pictures import ImageSource, find_images, read_image

EXAMPLES = 12
"""Most example photos on the page."""

_SHOWN = 1024
"""Longest side, in pixels, of the copies that the page makes: of examples, and of photos no browser can show."""

_GRADIOS = "These come with Gradio and are not what the bundled models know best: everyday scenes of people and dogs."
_SHAPES = "Drawn like the pictures that this model learnt from, and not among them."


def shown_copy(source: ImageSource) -> Image.Image:
    """A picture as small as the page shows it. Raises ImageError."""
    picture = read_image(source, at_least=_SHOWN)
    picture.thumbnail((_SHOWN, _SHOWN))
    return picture


def build_examples(photo: gr.Image, options: WebOptions, captioner: Captioner) -> None:
    """The example photos, and a word on where they come from; nothing where there are none.

    Raises ImageError where `options.examples` is no folder, or holds no picture that can be read.
    """
    note = ""
    if options.examples is not None:
        pictures = _readable(find_images(options.examples))
    elif captioner.card.provenance.get("data") == "shapes":
        pictures, note = _drawn(), _SHAPES
    else:
        folder = Path(gr.__file__).parent / "media_assets" / "images"
        pictures, note = _readable([folder / name for name in ("cheetah.jpg", "lion.jpg", "tower.jpg")]), _GRADIOS
    with tempfile.TemporaryDirectory() as copies:  # Gradio makes copies of these copies
        samples: list[list[str]] = []
        for name, picture in pictures:
            copy = Path(copies, str(len(samples)), name + ".png")
            copy.parent.mkdir()
            picture.save(copy)
            samples.append([os.fspath(copy)])
            if len(samples) == EXAMPLES:
                break
        if not samples and options.examples is not None:
            raise ImageError(f"There are no pictures in {options.examples} that can be read: name another --examples.")
        if samples:
            gr.Examples(samples, photo, label="Examples", examples_per_page=EXAMPLES, elem_id="examples")
            gr.HTML(f"<p>{note}</p>", elem_id="examples-note", visible=bool(note))


def _readable(paths: list[Path]) -> Iterator[tuple[str, Image.Image]]:
    for path in paths:
        try:
            yield path.stem, shown_copy(path)
        except ImageError:
            continue  # the page is better with the others than not at all


def _drawn() -> Iterator[tuple[str, Image.Image]]:
    generator = random.Random("examples")  # the training's pictures have other seeds
    for _ in range(EXAMPLES // 2):
        picture, caption = draw(generator)
        yield caption, picture.resize((4 * picture.width, 4 * picture.height), Image.Resampling.NEAREST)
