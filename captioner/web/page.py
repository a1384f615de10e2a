"""The page: a photo in, its caption at once.

Promises: whatever file is given, the page answers with a caption or with a sentence and goes on working. It knows
Gradio, and nothing of networks or search.
"""

import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder, is_in_or_equal
from PIL import Image

from captioner.errors import CaptionerError, ImageError, OptionError
from captioner.generation import Caption
from captioner.images import find_images, read_image
from captioner.options import SearchOptions, WebOptions
from captioner.predictor import Captioner

EXAMPLES = 12
"""Most example photos on the page."""

_SHOWN = 1024
"""Longest side, in pixels, of the copies that the page makes: of examples, and of photos no browser can show."""

_CACHE = (600, 3000)
"""Every ten minutes, uploads older than fifty are deleted: none outlives its hour."""

_BROWSERS_SHOW = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM")
"""How files begin that every browser shows; others (HEIC, TIFF ...) are shown as a copy."""

_DATA_SETS = {"flickr8k": "Flickr8k", "flickr30k": "Flickr30k", "coco": "COCO", "table": "its owner's collection"}
"""How a model file's data sets are called on the page."""

_EMPTY = '<p class="waiting">Its caption will appear here.</p>'


class Page(gr.Blocks):
    """Blocks that take no file from a visitor except one that was uploaded.

    Gradio's own rule is looser: an address in place of a path is downloaded, and paths are checked only under
    `launch`, so that on a mounted page any file of the server could be named.
    """

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *rest: Any, **named: Any) -> Any:
        """Refuses other files before anything is done with them."""
        for file in _files(inputs):
            # A client also sends the address at which it shows the upload; with no proxy Gradio does not read it.
            path = file["path"]
            if not isinstance(path, str) or "://" in path or not is_in_or_equal(path, get_upload_folder()):
                raise gr.Error(
                    "Upload the picture: this page takes no web addresses and no paths.", print_exception=False
                )
        return await super().preprocess_data(block_fn, inputs, *rest, **named)


def _files(value: Any) -> Iterable[dict[str, Any]]:
    """Every file that a request names, wherever it names it."""
    if isinstance(value, dict):
        if value.get("path") is not None:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _files(part)


def build_page(captioners: Mapping[str, Captioner], options: WebOptions) -> gr.Blocks:
    """The page of some models, the first chosen. Raises ImageError where `options.examples` is no folder."""
    first = next(iter(captioners))
    with Page(title="captioner", analytics_enabled=False, delete_cache=_CACHE) as page:
        gr.HTML(
            "<h1>captioner</h1><p>Give it a photo, and it describes what it sees in one sentence. "
            "Everything happens on the machine that serves this page.</p>",
            elem_id="head",
        )
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
                _examples(photo, options)
            with gr.Column(scale=1, min_width=300):
                result = gr.HTML(_EMPTY, elem_id="result")
                model = gr.Radio(
                    list(captioners), value=first, label="Model", visible=len(captioners) > 1, elem_id="models"
                )
                with gr.Accordion("Advanced", open=False, elem_id="advanced"):
                    # Each model has sliders of its own, so that they show, and go back to, what was chosen for it.
                    columns, sliders = [], []
                    for name, captioner in captioners.items():
                        with gr.Column(visible=name == first) as column:
                            sliders += _sliders(captioner)
                        columns.append(column)
                line = gr.HTML(_line(captioners[first]), elem_id="model")
        limits = gr.HTML(_limits(captioners[first]), elem_id="limits")

        def caption(file: dict[str, Any] | None, name: Any, *settings: Any) -> tuple[Any, Any]:
            if file is None:  # the photo was taken away, and `clear` or the problem below said what there is to say
                return gr.skip(), gr.skip()
            began = time.perf_counter()
            try:
                captioner, search = _chosen(captioners, name, settings)
                data = _read(file["path"])
                found = captioner.caption_pixels([captioner.read(data)], search=search)[0]
                seconds = time.perf_counter() - began
                change: dict[str, Any] = {"alt_text": found.text}
                if not data.startswith(_BROWSERS_SHOW):
                    change["value"] = _small(read_image(data, at_least=_SHOWN))
            except OptionError as error:  # a slider's box was emptied to type another number, say: the photo stays
                return gr.skip(), _problem(str(error))
            except CaptionerError as error:
                return None, _problem(str(error))
            return gr.update(**change), _result(found, seconds, search)

        gr.on(
            # Not `upload` or `input`: neither comes for a webcam's picture or an example.
            [photo.change, model.change, *(slider.change for slider in sliders)],
            caption,
            inputs=[photo, model, *sliders],
            outputs=[photo, result],
            # Gradio would open the upload to preprocess it, and answer "Error" for every file that it cannot read.
            preprocess=False,
            show_progress="minimal",
            show_progress_on=result,
            trigger_mode="always_last",
            concurrency_limit=1,
            api_name="caption",
            api_visibility="undocumented",
        )

        def choose(name: Any) -> list[Any]:
            if name not in list(captioners):  # a program; `caption` tells it so
                return [gr.skip()] * (len(columns) + 2)
            shown = [gr.update(visible=name == other) for other in captioners]
            return [*shown, _line(captioners[name]), _limits(captioners[name])]

        # Beside the queue: it asks no model anything.
        model.change(
            choose,
            inputs=model,
            outputs=[*columns, line, limits],
            preprocess=False,
            queue=False,
            api_visibility="private",
            show_progress="hidden",
        )
        photo.clear(lambda: _EMPTY, outputs=result, queue=False, api_visibility="private", show_progress="hidden")
    return page


def model_line(captioner: Captioner) -> str:
    """Which model, on which device."""
    parts = captioner.file.model.options
    return f"{captioner.name} ({parts.encoder.name} + {parts.decoder.cell}) on {captioner.device}"


def _line(captioner: Captioner) -> str:
    return f"<p>Captions by {escape(model_line(captioner))}.</p>"


def theme() -> gr.themes.Base:
    """Fonts of the visitor's own system only: none is fetched."""
    return gr.themes.Default(
        primary_hue="teal",
        secondary_hue="teal",
        neutral_hue="stone",
        text_size="md",
        radius_size="lg",
        font=("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif"),
        font_mono=("ui-monospace", "Consolas", "monospace"),
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color_subdued="*neutral_600",  # Gradio's own is too pale to read well
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
    )


def _sliders(captioner: Captioner) -> list[gr.Slider]:
    """The settings of a model's search, in the order of SearchOptions' fields; they begin with what its file says."""
    search = captioner.file.search
    return [
        gr.Slider(
            1,
            max(10, search.beam_size),
            value=search.beam_size,
            step=1,
            label="Beam size",
            info="How many sentences it follows at a time; 1 takes the likeliest word each time.",
            buttons=["reset"],
        ),
        gr.Slider(
            1,
            max(50, search.max_length),
            value=search.max_length,
            step=1,
            label="Longest caption",
            info="In words.",
            buttons=["reset"],
        ),
        gr.Slider(
            0.0,
            max(2.0, search.length_penalty),
            value=search.length_penalty,
            step=0.1,
            label="Length penalty",
            info="0 takes the most probable sentence; higher, a longer one.",
            buttons=["reset"],
        ),
        gr.Slider(
            0.0,
            1.0,
            value=search.rerank,
            step=0.05,
            label="Right to left",
            info="The share of a second decoder, which reads each sentence from its end, in choosing one.",
            buttons=["reset"],
            visible=captioner.file.model.options.reverse,
        ),
    ]


def _search(beam_size: Any, max_length: Any, length_penalty: Any, rerank: Any, *, reverse: bool) -> SearchOptions:
    """The options from whatever the sliders, or a program in their place, sent; `reverse`: it has both decoders."""
    try:
        options = SearchOptions(int(beam_size), int(max_length), float(length_penalty), float(rerank))
    except (OptionError, TypeError, ValueError, OverflowError) as error:
        raise OptionError("The settings are numbers in their sliders' ranges: set them again.") from error
    if options.rerank and not reverse:
        raise OptionError("This model does not read from right to left: set that share to 0.")
    return options


def _chosen(
    captioners: Mapping[str, Captioner], name: Any, settings: tuple[Any, ...]
) -> tuple[Captioner, SearchOptions]:
    """The model of that name and its search; `settings` are what all models' sliders say, one after the other."""
    names = list(captioners)
    if name not in names:
        raise OptionError(f"That model is not here: choose {' or '.join(names)}.")
    each = len(settings) // len(names)
    mine = settings[names.index(name) * each :][:each]
    return captioners[name], _search(*mine, reverse=captioners[name].file.model.options.reverse)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError("the picture is no longer here: upload it again.") from error


def _small(picture: Image.Image) -> Image.Image:
    picture.thumbnail((_SHOWN, _SHOWN))
    return picture


def _examples(photo: gr.Image, options: WebOptions) -> None:
    """The example photos, and a word on where they come from; nothing where there are none."""
    if options.examples is None:
        folder = Path(gr.__file__).parent / "media_assets" / "images"
        paths = [folder / name for name in ("cheetah1.jpg", "lion.jpg", "tower.jpg")]
        note = (
            "These come with Gradio and are not what the bundled models know best: everyday scenes of people and dogs."
        )
    else:
        paths = find_images(options.examples)
        note = ""
    with tempfile.TemporaryDirectory() as copies:  # Gradio makes copies of these copies
        samples: list[list[str]] = []
        for path in paths:
            if len(samples) == EXAMPLES:
                break
            copy = Path(copies, str(len(samples)), path.stem + ".png")
            try:
                picture = _small(read_image(path, at_least=_SHOWN))
            except ImageError:
                continue  # the page is better with the others than not at all
            copy.parent.mkdir()
            picture.save(copy)
            samples.append([os.fspath(copy)])
        if not samples and options.examples is not None:
            raise ImageError(f"There are no pictures in {options.examples} that can be read: name another --examples.")
        if samples:
            gr.Examples(samples, photo, label="Examples", examples_per_page=EXAMPLES, elem_id="examples")
            gr.HTML(f"<p>{note}</p>", elem_id="examples-note", visible=bool(note))


def _result(caption: Caption, seconds: float, search: SearchOptions) -> str:
    text = escape(caption.text) or "(It found no words.)"
    rows = "".join(
        f"<tr><td>{escape(other.text)}</td><td>{_percent(other.word_probability)}</td></tr>"
        for other in caption.alternatives
    )
    order = "Best first, read both ways" if search.rerank else "Most probable as a whole first"
    table = (
        "<table><caption>It also considered</caption>"
        f"<thead><tr><th scope='col'>{order}</th><th scope='col'>Per word</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )
    return (
        f"<div role='status'><p class='sentence'>{text}</p>"
        f"<p class='sure'>{_percent(caption.word_probability)} mean probability per word, in {seconds:.2f} s</p></div>"
        + (table if rows else "")
    )


def _percent(probability: float) -> str:
    return f"{100 * probability:.0f}%"


def _problem(message: str) -> str:
    if message.startswith("the picture "):  # "The picture is not a picture" would be an odd thing to read
        message = message.replace("the picture", "This file", 1)
    return f"<p class='problem' role='alert'>{escape(message)}</p>"


def _limits(captioner: Captioner) -> str:
    """What the model learnt from, where its file says so, and what to expect of it, as a paragraph."""
    origin = captioner.file.provenance
    data, pictures = origin.get("data"), origin.get("pictures")
    learnt = ""
    if isinstance(data, str) and data:
        count = pictures.get("train") if isinstance(pictures, dict) else None
        amount = f"{count:,} pictures of " if isinstance(count, int) else ""
        learnt = f"This model learnt from {amount}{escape(_DATA_SETS.get(data, data))}. "
    note = origin.get("note")
    expect = (
        escape(note)
        if isinstance(note, str) and note
        else "It says what its training pictures would have made likely, and it can be wrong with confidence, "
        "above all about text, numbers, rare things and who people are: check before you rely on it."
    )
    return f"<p>{learnt}{expect}</p>"


HEAD = """
<meta name="description" content="Describes a photo in one sentence.">
<script>
// The server judges what is a picture, not the file's name: whatever is chosen, dropped or pasted gets there, and the
// answer is a caption or a sentence that says what is wrong. Gradio would refuse a HEIC photo that the system has no
// type for, and says only "Invalid file type" to others.
(() => {
  const typed = (files) => {
    const transfer = new DataTransfer();
    for (const file of files)
      transfer.items.add(/^image\\//.test(file.type) ? file : new File([file], file.name, { type: "image/x-unknown" }));
    return transfer;
  };
  const pictures = (files) => [...files].every((file) => /^image\\//.test(file.type));
  const input = () => document.querySelector("#photo input[type=file]");
  document.addEventListener("click", () => {
    if (input()) input().accept = "image/*,.heic,.heif,.hif,.avif,.jp2,.psd,.tga";
  }, true);
  document.addEventListener("change", (event) => {
    if (event.target === input() && !pictures(event.target.files)) event.target.files = typed(event.target.files).files;
  }, true);
  document.addEventListener("drop", (event) => {
    if (!event.target.closest("#photo") || pictures(event.dataTransfer.files)) return;
    event.preventDefault();
    event.stopPropagation();
    const dataTransfer = typed(event.dataTransfer.files);
    event.target.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
  }, true);
  // Gradio gives its examples no name that a screen reader could say.
  new MutationObserver(() => {
    for (const button of document.querySelectorAll("#examples button.gallery-item:not([aria-label])")) {
      const file = button.querySelector("img")?.src.split("/").pop();
      if (file) button.setAttribute("aria-label", "Example: " + decodeURIComponent(file).slice(0, -".png".length));
    }
  }).observe(document, { childList: true, subtree: true });
  document.addEventListener("paste", (event) => {
    if (!event.clipboardData.files.length || !input()) return;
    event.preventDefault();
    input().files = typed([event.clipboardData.files[0]]).files;
    input().dispatchEvent(new Event("change", { bubbles: true }));
  });
})();
</script>
"""

CSS = """
.gradio-container { max-width: 1080px !important; margin: 0 auto !important; }
.gradio-container main { padding-top: 2rem; }
#head, #result, #model, #limits, #examples-note { padding: 0; }
:is(#head, #result, #model, #limits, #examples-note) .html-container { padding: 0 !important; }
#head h1 { font-size: 1.9rem; font-weight: 650; letter-spacing: -0.02em; line-height: 1.2; margin: 0 0 .35rem; }
#head p { color: var(--body-text-color-subdued); font-size: 1.05rem; margin: 0; max-width: 46rem; }
#main { gap: 2.5rem; margin-top: 1rem; align-items: flex-start; }
#result { min-height: 9rem; }
#result p { margin: 0; }
#result .waiting { color: var(--body-text-color-subdued); font-size: 1.1rem; }
#result .sentence { font-size: clamp(1.5rem, 1.1rem + 1.6vw, 2.1rem); font-weight: 600; line-height: 1.25;
  letter-spacing: -0.015em; text-wrap: balance; overflow-wrap: anywhere; color: var(--body-text-color); }
#result .sure { color: var(--body-text-color-subdued); margin-top: .6rem; }
#result .problem { border-left: 4px solid #d97706; padding: .5rem 0 .5rem 1rem; font-size: 1.15rem; line-height: 1.45;
  color: var(--body-text-color); }
#result table { width: 100%; margin: 1.5rem 0 0; border-collapse: collapse; border: 0; }
#result tr { border: 0; background: none; }
#result caption { text-align: left; font-weight: 600; padding-bottom: .25rem; color: var(--body-text-color); }
#result th { font-weight: 400; color: var(--body-text-color-subdued); text-align: left; font-size: .85rem; }
#result th, #result td { padding: .45rem 0; border: 0; border-bottom: 1px solid var(--border-color-primary); }
#result th:last-child, #result td:last-child { text-align: right; padding-left: 1rem; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
#advanced .form { border: 0; box-shadow: none; }
#examples img { width: 100%; height: 100%; object-fit: cover; }
#examples button.gallery-item { width: 5rem; height: 5rem; }
#model p, #limits p, #examples-note p { color: var(--body-text-color-subdued); font-size: .9rem; margin: 0; }
#limits { border-radius: 0; border-top: 1px solid var(--border-color-primary); margin-top: 1rem; padding-top: 1rem; }
#limits p { max-width: 50rem; }
@media (max-width: 700px) {  /* one column: the caption right under the photo, the examples after it */
  .gradio-container main { padding-top: 1rem; }
  #main { flex-direction: column; align-items: stretch; gap: 1.25rem; }
  #main > .column { display: contents; }
  #photo { height: 300px !important; flex: none; }
  #examples, #examples-note { order: 1; }
  #result { min-height: 5rem; }
}
"""
