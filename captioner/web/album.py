"""Many photos: files or zips in, a gallery of captions that can be edited, and the captions as files out.

Promises: a bad file costs the others nothing, and is named; memory stays level with the number of photos.
"""

import io
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

import gradio as gr
from PIL import Image

from captioner.archives import ZippedPictures
from captioner.captioner import Captioner
from captioner.captions import Caption
from captioner.errors import ArchiveError, ImageError
from captioner.pictures import read_image
from captioner.web.downloads import MOST, PHOTOS
from captioner.web.gallery import Card, keep_picture
from captioner.web.html import problems
from captioner.web.queue import ModelQueue
from captioner.web.queued import Queued
from captioner.web.workbench import Shown, Upload, Words, build_workbench

_THUMBNAIL = 320
"""Longest side, in pixels, of the photos in the gallery."""

_TOLD = 0.5
"""Seconds between two looks at the gallery as it grows."""

_WORDS = Words(
    page="album",
    gallery="album",
    upload="Photos, or a zip of them",
    start="Caption them",
    missing="There are no photos yet: drop some, or a zip of them, above.",
    download_hint="<p class='hint'>Sidecars are small files to lie beside the photos; the photos stay as they are. "
    "Unpacked over sidecars that are there already, they replace them.</p>",
)


def build_album(captioners: Mapping[str, Captioner], queue: ModelQueue) -> None:
    """The controls for many photos, inside the page."""
    build_workbench(captioners, partial(_caption_all, queue), _WORDS, PHOTOS, several=True, concurrency=2)


def _caption_all(queue: ModelQueue, captioner: Captioner, uploads: list[Upload], gallery: gr.HTML) -> Iterator[Shown]:
    """What the page shows as the photos get their captions."""
    wrong: list[str] = []
    cards: list[Card] = []
    paths: dict[str, str] = {}
    sources, expected = _sources(uploads, wrong)
    enough = max(captioner.image.enough, _THUMBNAIL)

    def pictures() -> Iterator[tuple[str, Image.Image]]:
        taken: set[str] = set()
        for number, (title, data) in enumerate(sources):
            if number == MOST:
                wrong.append(f"Only the first {MOST:,} photos were taken: send the others in a second go.")
                return
            name = _unique(title, taken)
            try:
                picture = read_image(data, at_least=enough)  # once, for the model and for the gallery
            except ImageError as error:
                wrong.append(error.told(name))
                continue
            paths[name] = keep_picture(gallery, _thumbnail(picture))
            yield name, picture

    yield Shown(_progress(0, expected, wrong), [])
    told = 0.0
    with closing(Queued(queue, captioner).stream(pictures())) as stream:
        for found in stream:
            if found.caption is None:
                wrong.append(f"{found.name}: {found.error}")
            else:
                cards.append(_card(found.name, paths[found.name], found.caption))
            if time.monotonic() - told >= _TOLD:
                told = time.monotonic()
                yield Shown(_progress(len(cards) + len(wrong), expected, wrong), cards)
    yield Shown(_done(len(cards), wrong), cards)


def _card(name: str, path: str, caption: Caption) -> Card:
    alternatives = [other.text for other in caption.alternatives]
    sure = caption.word_probability
    return Card(name=name, path=path, caption=caption.text, probability=sure, alternatives=alternatives)


def _sources(uploads: list[Upload], wrong: list[str]) -> tuple[Iterator[tuple[str, bytes]], int]:
    """Every picture of the uploads, by its name, one at a time; and how many there will be, as far as is known."""
    opened: list[tuple[str, Path | ZippedPictures]] = []
    for path, name in uploads:
        if name.lower().endswith(".zip"):
            try:
                opened.append((name, ZippedPictures(path)))
            except ArchiveError as error:
                wrong.append(str(error))
        else:
            opened.append((name, path))

    def pictures() -> Iterator[tuple[str, bytes]]:
        for name, source in opened:
            if isinstance(source, ZippedPictures):
                yield from source
                wrong.extend(source.problems)
            else:
                try:
                    yield name, source.read_bytes()
                except OSError:
                    wrong.append(f"{name} is no longer here: upload it again.")

    expected = sum(len(source) if isinstance(source, ZippedPictures) else 1 for _, source in opened)
    return pictures(), min(MOST, expected)


def _thumbnail(picture: Image.Image) -> bytes:
    """The picture as a JPEG of at most _THUMBNAIL pixels a side."""
    small = picture.copy()
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    jpeg = io.BytesIO()
    small.save(jpeg, "JPEG")
    return jpeg.getvalue()


def _unique(name: str, taken: set[str]) -> str:
    """The name, with a number where another photo has it already."""
    path, number, unique = Path(name), 2, name
    while unique.casefold() in taken:
        unique = path.with_name(f"{path.stem}-{number}{path.suffix}").as_posix()
        number += 1
    taken.add(unique.casefold())
    return unique


def _progress(done: int, expected: int, wrong: list[str]) -> str:
    bar = f"<progress max='{max(1, expected)}' value='{done}' aria-label='Photos done'></progress>"
    return f"<p class='sure'>{bar} {done:,} of {expected:,} photos</p>{problems(wrong)}"


def _done(captioned: int, wrong: list[str]) -> str:
    said = f"{captioned:,} photo{'' if captioned == 1 else 's'} captioned. Click a caption to edit it."
    return f"<p class='sure' role='status'>{said if captioned else 'No photo was captioned.'}</p>{problems(wrong)}"
