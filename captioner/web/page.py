"""The page: a photo in, its caption at once.

Promises: whatever file is given, the page answers with a caption or with a sentence and goes on working. It knows
Gradio, and nothing of networks or search.
"""

from collections.abc import Iterable, Mapping
from html import escape
from importlib.resources import files
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder, is_in_or_equal

from captioner.captioner import Captioner
from captioner.options import WebOptions
from captioner.web.album import build_album
from captioner.web.clip import build_clip
from captioner.web.photo import build_client, build_photo
from captioner.web.queue import ModelQueue

_CACHE = (600, 3000)
"""Every ten minutes, uploads older than fifty are deleted: none outlives its hour."""

_DATA_SETS = {
    "flickr8k": "Flickr8k",
    "flickr30k": "Flickr30k",
    "coco": "COCO",
    **dict.fromkeys(("table", "imagefolder", "parquet", "sidecars", "inside"), "its owner's collection"),
}
"""How a model file's data sets are called on the page."""

_FILES = files("captioner.web")
CSS = (_FILES / "page.css").read_text(encoding="utf-8")
_SCRIPTS = ("page.js", "kept.js", "files.js", "scenes.js", "album.js")
"""The later ones use what the earlier ones define."""
HEAD = '<meta name="description" content="Describes a photo in one sentence.">' + "".join(
    f"<script>{(_FILES / name).read_text(encoding='utf-8')}</script>" for name in _SCRIPTS
)


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
                raise gr.Error("Upload the file: this page takes no web addresses and no paths.", print_exception=False)
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


def build_page(captioners: Mapping[str, Captioner], options: WebOptions, queue: ModelQueue) -> gr.Blocks:
    """The page of some models, the first chosen. Raises ImageError where `options.examples` is no folder."""
    with Page(title="captioner", analytics_enabled=False, delete_cache=_CACHE) as page:
        gr.HTML(
            "<h1>captioner</h1><p>Give it a photo, an album or a clip, and it says in one sentence what it sees. "
            "Everything happens on the machine that serves this page.</p>",
            elem_id="head",
        )
        with gr.Tab("One photo", elem_id="tab-photo"):
            build_photo(captioners, options, queue)
        with gr.Tab("Many photos", elem_id="tab-album"):
            build_album(captioners, queue)
        with gr.Tab("A clip", elem_id="tab-clip"):
            build_clip(captioners, queue)
        build_client(captioners, queue)
        gr.HTML(_about(captioners), elem_id="limits")
    return page


def _about(captioners: Mapping[str, Captioner]) -> str:
    """What to expect of the models, what holds for several said once; and, folded, what they are made of."""
    said: dict[str, list[str]] = {}
    for name, captioner in captioners.items():
        said.setdefault(_limits(captioner), []).append(escape(name))
    made = "<br>".join(f"<b>{escape(name)}</b>: {escape(_made(captioner))}" for name, captioner in captioners.items())
    title = "About this model" if len(captioners) == 1 else "About these models"
    several = len(said) > 1
    limits = "".join((f"<p><b>{' and '.join(names)}</b></p>" if several else "") + text for text, names in said.items())
    return f"{limits}<details><summary>{title}</summary><p>{made}</p></details>"


def _made(captioner: Captioner) -> str:
    """A model in the field's own words."""
    sureness = captioner.card.sureness
    described = f"; {sureness.describe()}" if sureness else ""
    return f"{_parts(captioner)}, {len(captioner.card.vocabulary):,} words{described}."


def model_line(captioner: Captioner) -> str:
    """Which model, on which device."""
    return f"{captioner.name} ({_parts(captioner)}) on {captioner.device}"


def _parts(captioner: Captioner) -> str:
    return f"{captioner.card.encoder.name} + {captioner.card.decoder.cell}"


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
        button_primary_background_fill="*primary_700",  # as are white on its bright green, and that on white
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        color_accent="*primary_700",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_400",
    )


def _limits(captioner: Captioner) -> str:
    """What the model learnt from, where its file says so, and what to expect of it, as a paragraph."""
    origin = captioner.card.provenance
    data, pictures = origin.get("data"), origin.get("pictures")
    learnt = ""
    if isinstance(data, str) and data:
        count = pictures.get("train") if isinstance(pictures, dict) else None
        amount = f"{count:,} pictures of " if isinstance(count, int) else ""
        learnt = f"Learnt from {amount}{escape(_DATA_SETS.get(data, data))}. "
    note = origin.get("note")
    expect = (
        escape(note)
        if isinstance(note, str) and note
        else "It says what its training pictures would have made likely, and it can be wrong with confidence, "
        "above all about text, numbers, rare things and who people are: check before you rely on it."
    )
    return f"<p>{learnt}{expect}</p>"
