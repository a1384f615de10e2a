"""One photo: its caption as it is written, where the model looked for each word, how the search went; and a second
opinion beside the first, by another model or another search.

Promises: whatever file is given, the page answers with a caption or with a sentence and goes on working.
"""

import queue as queues
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from captioner.captioner import Captioner, pick_captioner
from captioner.captions import to_dict
from captioner.errors import CaptionerError, ImageError, OptionError
from captioner.options import WebOptions
from captioner.web.examples import build_examples, shown_copy
from captioner.web.html import EASY, EMPTY, explained, growing, problem, searched
from captioner.web.queue import ModelQueue
from captioner.web.settings import Controls, build_settings, chosen

_BROWSERS_SHOW = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM")
"""How files begin that every browser shows; others (HEIC, TIFF ...) are shown as a copy."""

_TOGETHER = 8
"""Visitors whose photos are read at a time; the models' own queue decides who is captioned when."""


def build_photo(captioners: Mapping[str, Captioner], options: WebOptions, queue: ModelQueue) -> None:
    """The controls for one photo, inside the page. Raises ImageError where `options.examples` is no folder."""
    with gr.Row(elem_id="main"):
        with gr.Column(scale=1, min_width=300):
            photo = gr.Image(
                type="filepath",
                format="png",
                sources=["upload", "webcam", "clipboard"],
                label="Photo",
                placeholder="# Drop a photo here\nor choose one, or paste it",
                buttons=["fullscreen"],
                alt_text="The photo to describe",
                height=400,
                elem_id="photo",
            )
            # Gradio's example in its API description is a picture on GitHub.
            photo.example_payload = photo.example_value = lambda: None  # type: ignore[method-assign]
            build_examples(photo, options, next(iter(captioners.values())))
        with gr.Column(scale=1, min_width=300):
            result, tree, settings = _side(captioners, "")
            compare = gr.Checkbox(label="Compare with other settings", elem_id="compare")
        with gr.Column(scale=1, min_width=300, visible=False) as beside:
            # The other model first: a second opinion is worth having.
            other_result, other_tree, other_settings = _side(dict(reversed(list(captioners.items()))), "-beside")

    def show(file: dict[str, Any] | None, *values: Any) -> Iterator[tuple[Any, Any, Any]]:
        yield from _caption(captioners, queue, file, values)

    def show_beside(file: dict[str, Any] | None, comparing: Any, *values: Any) -> Iterator[tuple[Any, Any]]:
        if comparing is True:
            for _, *shown in _caption(captioners, queue, file, values):
                yield shown[0], shown[1]

    _on_change(show, photo, settings, [photo, *settings.inputs], [photo, result, tree])
    others = [photo, compare, *other_settings.inputs]
    _on_change(show_beside, photo, other_settings, others, [other_result, other_tree], also=[compare.input])
    quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    compare.input(lambda on: gr.update(visible=on is True), compare, beside, preprocess=False, **quiet)
    photo.clear(lambda: (EMPTY, "", EMPTY, ""), outputs=[result, tree, other_result, other_tree], **quiet)


def build_client(captioners: Mapping[str, Captioner], queue: ModelQueue) -> None:
    """What Gradio's own client may call, `/caption`: a photo and a model's name in, the caption out.

    The page's own calls change with the page and are nobody else's; this one stays as it is.
    """
    first = next(iter(captioners))
    photo = gr.File(label="photo", visible=False)
    photo.example_payload = photo.example_value = lambda: None  # type: ignore[method-assign]
    model = gr.Textbox(first, label="model", visible=False)
    found = gr.JSON(label="caption", visible=False)

    def caption(file: Any, name: Any) -> dict[str, Any]:
        try:
            captioner = pick_captioner(captioners, name)
            if not isinstance(file, dict):
                raise ImageError("There is no photo: give one with handle_file.")
            answer = queue.caption(captioner, captioner.read(_read(file["path"])), captioner.search).result()
        except CaptionerError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return to_dict(answer)

    gr.on(
        photo.upload,
        caption,
        inputs=[photo, model],
        outputs=found,
        preprocess=False,
        api_name="caption",
        concurrency_limit=_TOGETHER,
    )


def _side(captioners: Mapping[str, Captioner], side: str) -> tuple[gr.HTML, gr.HTML, Controls]:
    """A caption's place, its tree's, and its settings."""
    result = gr.HTML(EMPTY, elem_id=f"result{side}", elem_classes="result")
    settings = build_settings(captioners, side)
    with gr.Accordion("How it searched", open=False, elem_id=f"searched{side}"):
        tree = gr.HTML("", elem_id=f"tree{side}")
        easier = gr.Button(f"Beam {EASY}, easier to read", size="sm", elem_id=f"easier{side}", elem_classes="easier")
        quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        settings.changed.append(easier.click(lambda: EASY, outputs=settings.sliders[0], **quiet))
    return result, tree, settings


def _on_change(
    answer: Callable[..., Any],
    photo: gr.Image,
    settings: Controls,
    inputs: list[Any],
    outputs: list[Any],
    *,
    also: list[Any] | None = None,
) -> None:
    """Has `answer` called whenever the photo or the settings change."""
    how: dict[str, Any] = {
        # Gradio would open the upload to preprocess it, and answer "Error" for every file that it cannot read.
        "preprocess": False,
        "show_progress": "minimal",
        "show_progress_on": outputs[-2],
        "trigger_mode": "always_last",
        "concurrency_limit": _TOGETHER,
        "api_visibility": "private",
    }
    gr.on(
        # Not `upload` or `input` of the photo: neither comes for a webcam's picture or an example.
        [photo.change, settings.again.click, *(slider.input for slider in settings.sliders), *(also or [])],
        answer,
        inputs=inputs,
        outputs=outputs,
        **how,
    )
    for change in settings.changed:
        change.then(answer, inputs=inputs, outputs=outputs, **how)


def _caption(
    captioners: Mapping[str, Captioner], queue: ModelQueue, file: dict[str, Any] | None, values: tuple[Any, ...]
) -> Iterator[tuple[Any, Any, Any]]:
    """What becomes of the photo, its caption's place and its tree's: first the sentence as it grows, then all."""
    if file is None:  # the photo was taken away, and `clear` or the problem below said what there is to say
        yield gr.skip(), gr.skip(), gr.skip()
        return
    began = time.perf_counter()
    try:
        captioner, search = chosen(captioners, values)
        data = _read(file["path"])
        looked = captioner.look(data)
        sentences: queues.SimpleQueue[str | None] = queues.SimpleQueue()
        future = queue.explain(captioner, looked.pixels, search, sentences.put)
        future.add_done_callback(lambda _: sentences.put(None))
        try:
            while (text := sentences.get()) is not None:
                yield gr.skip(), growing(text), gr.skip()
        finally:
            future.cancel()  # who left before it began needs no caption
        found = future.result()
        seconds = time.perf_counter() - began
        change: dict[str, Any] = {"alt_text": found.caption.text}
        if not data.startswith(_BROWSERS_SHOW):
            change["value"] = shown_copy(data)
        name = str(file.get("orig_name") or "photo.jpg")
        shown = explained(
            found,
            by=f"{values[0]}, {values[1].lower()}",
            seconds=seconds,
            search=search,
            window=looked.window,
            name=name,
            unsure=captioner.is_unsure,
        )
        yield gr.update(**change), shown, searched(found, search)
    except OptionError as error:  # a slider's box was emptied to type another number, say: the photo stays
        yield gr.skip(), problem(str(error)), ""
    except ImageError as error:
        yield None, problem(error.told("This file")), ""
    except CaptionerError as error:
        yield gr.skip(), problem(str(error)), ""


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError("the picture", "is no longer here", "upload it again") from error
