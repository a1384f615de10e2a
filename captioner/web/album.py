"""Many photos: files or zips in, a gallery of captions that can be edited, and the captions as files out.

Promises: a bad file costs the others nothing, and is named; memory stays level with the number of photos; what was
captioned stays on the page when one stops in the middle.
"""

import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from html import escape
from pathlib import Path
from time import sleep
from typing import Any

import gradio as gr
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from gradio.processing_utils import save_pil_to_cache
from pydantic import BaseModel, Field

from captioner.archives import ZippedPictures, write_zip
from captioner.errors import ArchiveError, BusyError, CaptionerError, ImageError
from captioner.formats import CaptionedFile, coco_results, csv_lines, json_lines, text_sidecars, xmp_sidecars
from captioner.generation import Caption
from captioner.images import read_image
from captioner.predictor import BATCH, Captioner
from captioner.web.html import problem
from captioner.web.queue import ModelQueue

MOST = 2000
"""Most photos at a time: more make a page that a phone cannot hold; the command line has no such limit."""

_THUMBNAIL = 320
"""Longest side, in pixels, of the photos in the gallery."""

_AHEAD = 2 * BATCH
"""Photos that are read before their turn, so that the model never waits for a disk."""

FORMATS = {
    "csv": ("CSV", "captions.csv", "text/csv"),
    "jsonl": ("JSON lines", "captions.jsonl", "application/jsonl"),
    "coco": ("COCO results", "captions.json", "application/json"),
    "txt": ("Text files", "captions-txt.zip", "application/zip"),
    "xmp": ("XMP sidecars", "captions-xmp.zip", "application/zip"),
}
"""What the captions can be downloaded as: its name on the page, its file, its type."""


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
    gallery = gr.HTML(
        [],
        html_template="<ol class='album'></ol>",
        js_on_load="captioner.album(element, props, watch)",
        elem_id="album",
    )
    buttons = "".join(
        f"<button type='button' class='download' data-format='{form}'>{title}</button>"
        for form, (title, _, _) in FORMATS.items()
    )
    downloads = gr.HTML(
        f"<p class='actions'>Download the captions, as they are edited: {buttons}</p>"
        "<p class='hint'>Sidecars are small files to lie beside the photos; the photos stay as they are. Unpacked over "
        "sidecars that are there already, they replace them.</p>",
        elem_id="album-downloads",
        elem_classes="result",
        visible=False,
    )

    def show(files: Any, name: Any) -> Iterator[tuple[Any, Any, Any]]:
        yield from _caption_all(captioners, queue, gallery, files, name)

    running = start.click(
        show,
        inputs=[files, model],
        outputs=[progress, gallery, downloads],
        preprocess=False,
        show_progress="hidden",
        concurrency_limit=2,
        api_visibility="private",
    )
    stop.click(None, cancels=[running], api_visibility="private")


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
    problems: list[str] = []
    photos: list[dict[str, Any]] = []
    waiting: deque[tuple[dict[str, Any], Future[Caption]]] = deque()
    taken: set[str] = set()
    uploads = [(Path(file["path"]), str(file.get("orig_name") or Path(file["path"]).name)) for file in files]
    sources, expected = _sources(uploads, problems)

    def finish() -> None:
        photo, future = waiting.popleft()
        try:
            found = future.result()
            photo["caption"], photo["probability"] = found.text, found.word_probability
            photo["alternatives"] = [other.text for other in found.alternatives]
            photos.append(photo)
        except CaptionerError as error:
            problems.append(f"{photo['name']}: {error}")

    yield _progress(0, expected, problems), [], gr.update(visible=False)
    try:
        for number, (title, data) in enumerate(sources):
            if number == MOST:
                problems.append(f"Only the first {MOST:,} photos were taken: send the others in a second go.")
                break
            unique = _unique(title, taken)
            try:
                pixels = captioner.read(data)
                picture = read_image(data, at_least=_THUMBNAIL)
            except ImageError as error:
                problems.append(f"{unique}: {error}")
                continue
            picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
            path = save_pil_to_cache(picture, gallery.GRADIO_CACHE, format="jpeg")
            gallery.temp_files.add(path)  # deleted within the hour, like uploads
            waiting.append(({"name": unique, "path": path}, _submit(queue, captioner, pixels)))
            if len(waiting) > _AHEAD:
                finish()
                if len(photos) % BATCH == 0:
                    yield _progress(len(photos) + len(problems), expected, problems), list(photos), gr.skip()
        while waiting:
            finish()
            if len(photos) % BATCH == 0:
                yield _progress(len(photos) + len(problems), expected, problems), list(photos), gr.skip()
    finally:
        for _, future in waiting:
            future.cancel()
    yield _done(len(photos), problems), photos, gr.update(visible=bool(photos))


def _sources(uploads: list[tuple[Path, str]], problems: list[str]) -> tuple[Iterator[tuple[str, bytes]], int]:
    """Every picture of the uploads, by its name, one at a time; and how many there will be, as far as is known."""
    opened: list[tuple[str, Path | ZippedPictures]] = []
    for path, name in uploads:
        if name.lower().endswith(".zip"):
            try:
                opened.append((name, ZippedPictures(path)))
            except ArchiveError as error:
                problems.append(str(error))
        else:
            opened.append((name, path))

    def pictures() -> Iterator[tuple[str, bytes]]:
        for name, source in opened:
            if isinstance(source, ZippedPictures):
                yield from source
                problems.extend(source.problems)
            else:
                try:
                    yield name, source.read_bytes()
                except OSError:
                    problems.append(f"{name} is no longer here: upload it again.")

    expected = sum(len(source) if isinstance(source, ZippedPictures) else 1 for _, source in opened)
    return pictures(), min(MOST, expected)


def _submit(queue: ModelQueue, captioner: Captioner, pixels: Any) -> Future[Caption]:
    """A place in the queue, as soon as there is one: an album is in no hurry."""
    while True:
        try:
            return queue.caption(captioner, pixels, captioner.file.search)
        except BusyError:
            sleep(0.1)


def _unique(name: str, taken: set[str]) -> str:
    """The name, with a number where another photo has it already."""
    path, number, unique = Path(name), 2, name
    while unique.casefold() in taken:
        unique = path.with_name(f"{path.stem}-{number}{path.suffix}").as_posix()
        number += 1
    taken.add(unique.casefold())
    return unique


def _progress(done: int, expected: int, problems: list[str]) -> str:
    bar = f"<progress max='{max(1, expected)}' value='{done}' aria-label='Photos done'></progress>"
    return f"<p class='sure'>{bar} {done:,} of {expected:,} photos</p>{_problems(problems)}"


def _done(captioned: int, problems: list[str]) -> str:
    said = f"{captioned:,} photo{'' if captioned == 1 else 's'} captioned. Click a caption to edit it."
    return f"<p class='sure' role='status'>{said if captioned else 'No photo was captioned.'}</p>{_problems(problems)}"


_TOLD = 20  # problems that are shown at a time


def _problems(problems: list[str]) -> str:
    if not problems:
        return ""
    rows = "".join(f"<li>{escape(text)}</li>" for text in problems[:_TOLD])
    more = f"<li>and {len(problems) - _TOLD:,} more.</li>" if len(problems) > _TOLD else ""
    return f"<div class='problem' role='alert'><ul>{rows}{more}</ul></div>"


class Captioned(BaseModel):
    """A photo of the gallery, with its caption as it stands there."""

    name: str = Field(max_length=4096)
    caption: str = Field(max_length=10_000)
    probability: float | None = None
    alternatives: list[str] = Field(default=[], max_length=100)


class Export(BaseModel):
    """What the gallery asks to be made a file of."""

    format: str
    photos: list[Captioned] = Field(min_length=1, max_length=MOST)


def add_export(app: FastAPI) -> None:
    """Adds the route that makes files of the gallery's captions: they are on the page, where they were edited."""

    @app.post("/album", include_in_schema=False)
    def export(wanted: Export) -> Response:
        if wanted.format not in FORMATS:
            return JSONResponse({"error": f"format is {wanted.format!r}: choose {', '.join(FORMATS)}."}, 422)
        photos = [
            CaptionedFile(photo.name, photo.caption, photo.probability, tuple(photo.alternatives))
            for photo in wanted.photos
        ]
        _, name, kind = FORMATS[wanted.format]
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(_file(wanted.format, photos), media_type=kind, headers=headers)


def _file(form: str, photos: list[CaptionedFile]) -> bytes:
    if form == "csv":
        return "".join(f"{line}\r\n" for line in csv_lines(photos)).encode("utf-8-sig")  # for Excel
    if form == "jsonl":
        return "".join(f"{line}\n" for line in json_lines(photos)).encode()
    if form == "coco":
        return coco_results(photos).encode()
    sidecars: Iterable[tuple[str, str]] = text_sidecars(photos) if form == "txt" else xmp_sidecars(photos)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "captions.zip")
        write_zip(path, sidecars)
        return path.read_bytes()
