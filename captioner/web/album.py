"""Many photos: files or zips in, a gallery of captions that can be edited, and the captions as files out.

Promises: a bad file costs the others nothing, and is named; memory stays level with the number of photos.
"""

import io
import itertools
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

import gradio as gr
from PIL import Image

from captioner.archives import ZippedPictures
from captioner.captioner import Captioner
from captioner.captions import Captioned
from captioner.errors import ArchiveError, ImageError
from captioner.pictures import read_image
from captioner.web.downloads import PHOTOS, buttons, titles
from captioner.web.gallery import MOST, Card, build_gallery, keep_picture
from captioner.web.html import problems
from captioner.web.inside import can_write_inside
from captioner.web.queue import ModelQueue
from captioner.web.queued import Queued
from captioner.web.workbench import Shown, Upload, Words, Works, build_workbench

_THUMBNAIL = 480
"""Longest side, in pixels, of the photos in the gallery: sharp on a phone, and enough to caption one anew."""

_TOLD = 0.5
"""Seconds between two looks at the gallery as it grows."""

_WORDS = Words(
    page="album",
    title="Photos to caption",
    drop="Drop photos, a folder or a zip of them here, or",
    choose="Choose photos",
    start="Caption them",
    missing="There are no new photos yet: drop some, or a zip of them, above.",
)

_TOOLS = (
    "<p class='hint'>{hint}Text files and XMP sidecars are small files to lie beside the photos; unpacked over "
    "sidecars that are there already, they replace them.</p>"
    "<div class='line tools'>"
    "<label>Order <select class='sort'><option value='place'>as they came</option>"
    "<option value='sure'>least sure first</option><option value='name'>by name</option></select></label>"
    "<label>Show <select class='show'><option value='all'>all</option><option value='unsure'>unsure</option>"
    "<option value='unchecked'>not checked</option><option value='edited'>edited</option>"
    "<option value='errors'>errors</option></select></label>"
    "<label>Find <input type='search' class='find'></label>"
    "<button type='button' class='clear'>Clear the album</button></div>"
    "<p class='count' role='status'></p>"
    "<p class='hint keys'>In a caption: Enter goes to the next one, Shift+Enter back, Ctrl+Enter marks it as checked "
    "and goes to the next one, Esc undoes.</p>"
)


_INSIDE = (
    "Photos with captions inside are copies, with the caption where photo programs and search look for it; a photo "
    "whose format holds none comes with an XMP sidecar. "
)


def build_album(captioners: Mapping[str, Captioner], queue: ModelQueue) -> None:
    """The controls for many photos, inside the page."""
    inside, hint = ({"inside": "Photos with captions inside"}, _INSIDE) if can_write_inside() else ({}, "")
    row = buttons({**inside, **titles(PHOTOS)})
    tools = f"<p class='hint kept' role='status'></p>{row}{_TOOLS.format(hint=hint)}"
    gallery = partial(build_gallery, "album", "Album", tools, "album", models=list(captioners))
    build_workbench(captioners, partial(_caption_all, queue), _WORDS, gallery, several=True, concurrency=2)


def _caption_all(queue: ModelQueue, captioner: Captioner, uploads: list[Upload], gallery: gr.HTML) -> Works:
    """What the page shows as the photos get their captions."""
    wrong: list[str] = []
    cards: list[Card] = []
    paths: dict[str, str] = {}
    came_from: dict[str, tuple[str, str]] = {}
    sources, expected = _sources(uploads, wrong)
    enough = max(captioner.image.enough, _THUMBNAIL)

    def pictures() -> Iterator[tuple[str, Image.Image | bytes]]:
        taken: set[str] = set()
        for number, (source, title, data) in enumerate(sources):
            if number == MOST:
                wrong.append(f"Only the first {MOST:,} photos were taken: send the others in a second go.")
                return
            name = _unique(title, taken)
            came_from[name] = source, title
            try:
                picture = read_image(data, at_least=enough)  # once, for the model and for the gallery
            except ImageError:
                yield name, data  # whose error comes in its turn
                continue
            paths[name] = keep_picture(gallery, _thumbnail(picture))
            yield name, picture

    yield Shown(_progress(0, expected, wrong), [])
    told = 0.0
    with closing(Queued(queue, captioner).stream(pictures())) as stream:
        for found in stream:
            card = _card(captioner, found, paths.get(found.name, ""), *came_from[found.name])
            cards.append(card)
            if card.error:
                wrong.append(card.error)
            if time.monotonic() - told >= _TOLD:
                told = time.monotonic()
                yield Shown(_progress(len(cards), expected, wrong), cards)
    yield Shown(_done(sum(not card.error for card in cards), wrong), cards, done=True)


def _card(captioner: Captioner, found: Captioned, path: str, source: str, member: str) -> Card:
    caption, error, key = found.caption, found.error, secrets.token_hex(8)
    if caption is None:
        said = error.told(found.name) if isinstance(error, ImageError) else f"{found.name}: {error}"
        return Card(id=key, source=source, name=found.name, caption="", error=said)
    return Card(
        id=key,
        source=source,
        member=member,
        name=found.name,
        path=path,
        caption=caption.text,
        probability=caption.word_probability,
        alternatives=[other.text for other in caption.alternatives],
        unsure=captioner.is_unsure(caption),
    )


def _sources(uploads: list[Upload], wrong: list[str]) -> tuple[Iterator[tuple[str, str, bytes]], int]:
    """Every picture of the uploads but those that are done, one at a time: where it came from, its name, its bytes.

    And how many there will be, as far as is known.
    """
    opened: list[tuple[Upload, ZippedPictures | None]] = []
    for upload in uploads:
        if upload.name.lower().endswith(".zip"):
            try:
                opened.append((upload, ZippedPictures(upload.path)))
            except ArchiveError as error:
                wrong.append(str(error))
        else:
            opened.append((upload, None))

    def pictures() -> Iterator[tuple[str, str, bytes]]:
        for upload, zipped in opened:
            if zipped is not None:
                for name, data in itertools.islice(zipped, upload.done, None):
                    yield str(upload.path), name, data
                wrong.extend(zipped.problems)
            else:
                try:
                    yield str(upload.path), upload.name, upload.path.read_bytes()
                except OSError:
                    wrong.append(f"{upload.name} is no longer here: upload it again.")

    expected = sum(1 if zipped is None else max(0, len(zipped) - upload.done) for upload, zipped in opened)
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
