"""Many photos: files or zips in, a gallery of captions that can be edited, and the captions as files out.

Promises: a bad file costs the others nothing, and is named; memory stays level with the number of photos; what was
captioned stays on the page when one stops in the middle.
"""

import io
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import gradio as gr

from captioner.archives import ZippedPictures
from captioner.captions import Caption
from captioner.errors import ArchiveError, BusyError, CaptionerError, ImageError
from captioner.images import read_image
from captioner.predictor import BATCH, Captioner
from captioner.web.downloads import MOST, PHOTOS, buttons
from captioner.web.gallery import build_gallery, keep_picture
from captioner.web.html import named, problem, problems, stopped
from captioner.web.queue import ModelQueue, Party

_THUMBNAIL = 320
"""Longest side, in pixels, of the photos in the gallery."""

_AHEAD = 2 * BATCH
"""Photos that are read before their turn, so that the model never waits for a disk."""

_TOLD = 0.5
"""Seconds between two looks at the gallery as it grows."""


def build_album(captioners: Mapping[str, Captioner], queue: ModelQueue) -> None:
    """The controls for many photos, inside the page."""
    first = next(iter(captioners))
    with gr.Row(elem_classes="controls"):
        with gr.Column(scale=2, min_width=300):
            files = gr.File(file_count="multiple", label="Photos, or a zip of them", height=180, elem_id="album-files")
            # Gradio's example in its API description is a file on GitHub.
            files.example_payload = files.example_value = lambda: None  # type: ignore[method-assign]
        with gr.Column(scale=1, min_width=300):
            model = gr.Radio(list(captioners), value=first, label="Model", visible=len(captioners) > 1)
            with gr.Row():
                start = gr.Button("Caption them", variant="primary")
                stop = gr.Button("Stop")
    progress = gr.HTML("", elem_id="album-progress", elem_classes="result")
    downloads = gr.HTML(
        f"{buttons(PHOTOS, 'album')}"
        "<p class='hint'>Sidecars are small files to lie beside the photos; the photos stay as they are. Unpacked over "
        "sidecars that are there already, they replace them.</p>",
        elem_id="album-downloads",
        elem_classes="result",
        visible=False,
    )
    gallery = build_gallery("album")

    def show(files: Any, name: Any) -> Iterator[tuple[Any, Any, Any]]:
        yield from _caption_all(captioners, queue, gallery, files, name)

    running = start.click(
        show,
        inputs=[files, model],
        outputs=[progress, gallery, downloads],
        preprocess=False,
        show_progress="minimal",
        show_progress_on=progress,
        concurrency_limit=2,
        api_visibility="private",
    )
    files.upload(lambda: "", outputs=progress, queue=False, api_visibility="private")
    nothing: tuple[Any, ...] = ("", [], gr.update(visible=False))
    files.clear(lambda: nothing, outputs=[progress, gallery, downloads], queue=False, api_visibility="private")
    stop.click(
        stopped,
        inputs=progress,
        outputs=progress,
        cancels=[running],
        preprocess=False,
        queue=False,
        api_visibility="private",
    )


def _caption_all(
    captioners: Mapping[str, Captioner], queue: ModelQueue, gallery: gr.HTML, files: Any, name: Any
) -> Iterator[tuple[Any, Any, Any]]:
    """What the page shows as the photos get their captions: how far it is, the gallery, the downloads."""
    if not files:
        yield problem("There are no photos yet: drop some, or a zip of them, above."), gr.skip(), gr.skip()
        return
    if name not in list(captioners):
        yield problem(f"That model is not here: choose {' or '.join(captioners)}."), gr.skip(), gr.skip()
        return
    captioner = captioners[name]
    wrong: list[str] = []
    photos: list[dict[str, Any]] = []
    waiting: deque[tuple[dict[str, Any], Future[Caption]]] = deque()
    taken: set[str] = set()
    party = Party()
    uploads = [(Path(file["path"]), str(file.get("orig_name") or Path(file["path"]).name)) for file in files]
    sources, expected = _sources(uploads, wrong)
    told = 0.0

    def finish() -> None:
        photo, future = waiting.popleft()
        try:
            found = future.result()
            photo["caption"], photo["probability"] = found.text, found.word_probability
            photo["alternatives"] = [other.text for other in found.alternatives]
            photos.append(photo)
        except CaptionerError as error:
            wrong.append(f"{photo['name']}: {error}")

    def grown() -> Iterator[tuple[Any, Any, Any]]:
        nonlocal told
        if time.monotonic() - told >= _TOLD:
            told = time.monotonic()
            yield _progress(len(photos) + len(wrong), expected, wrong), list(photos), gr.update(visible=bool(photos))

    yield _progress(0, expected, wrong), [], gr.update(visible=False)
    try:
        for number, (title, data) in enumerate(sources):
            if number == MOST:
                wrong.append(f"Only the first {MOST:,} photos were taken: send the others in a second go.")
                break
            unique = _unique(title, taken)
            try:
                pixels = captioner.read(data)
                picture = read_image(data, at_least=_THUMBNAIL)
            except ImageError as error:
                wrong.append(named(error, unique))
                continue
            future = _submit(queue, captioner, pixels, party)
            picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
            jpeg = io.BytesIO()
            picture.save(jpeg, "JPEG")
            path = keep_picture(gallery, jpeg.getvalue())
            waiting.append(({"name": unique, "path": path}, future))
            while waiting and (len(waiting) > _AHEAD or waiting[0][1].done()):
                finish()
            yield from grown()
        while waiting:
            finish()
            yield from grown()
    finally:
        for _, future in waiting:
            future.cancel()
    yield _done(len(photos), wrong), photos, gr.update(visible=bool(photos))


def _sources(uploads: list[tuple[Path, str]], wrong: list[str]) -> tuple[Iterator[tuple[str, bytes]], int]:
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


def _submit(queue: ModelQueue, captioner: Captioner, pixels: Any, party: Party) -> Future[Caption]:
    """A place in the queue, as soon as there is one: an album is in no hurry. Raises BusyError where it was closed."""
    while True:
        try:
            return queue.caption(captioner, pixels, captioner.file.search, party)
        except BusyError:
            if queue.closed:
                raise
            time.sleep(0.1)


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
