"""What the pages for many captions share: files in, a gallery of captions that can be edited, and the captions as files
out; with a button that begins the work and one that stops it.

Promises: what was captioned stays on the page when one stops in the middle. It knows Gradio, and nothing of what the
files are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from captioner.captioner import Captioner, pick_captioner
from captioner.errors import OptionError
from captioner.web.downloads import Format, buttons
from captioner.web.gallery import Card, build_gallery
from captioner.web.html import problem, stopped


class Upload(NamedTuple):
    """A file that a visitor sent."""

    path: Path
    name: str
    """As the visitor calls it."""


class Shown(NamedTuple):
    """How far the work is."""

    progress: str
    """As HTML."""
    cards: Sequence[Card]
    extra: Any = None
    """For the page's own place above; None leaves that as it is."""


@dataclass(frozen=True)
class Words:
    """What one page says, and what its parts are called in the stylesheet and the script."""

    page: str
    gallery: str
    upload: str
    """Label of the place for files."""
    start: str
    """The button that begins."""
    missing: str
    """What is said where there is no file yet."""
    hint: str = ""
    """Above the gallery, as HTML."""
    download_hint: str = ""
    """Below the downloads, as HTML."""


Work = Callable[[Captioner, list[Upload], gr.HTML], Iterator[Shown]]
"""A captioner, the files and the gallery whose pictures are kept -> how far it is, again and again."""


def build_workbench(
    captioners: Mapping[str, Captioner],
    work: Work,
    words: Words,
    formats: Mapping[str, Format],
    *,
    several: bool,
    concurrency: int,
) -> None:
    """The controls, inside the page. `several` takes more than one file; otherwise there is a place for a player."""
    with gr.Row(elem_classes="controls"):
        with gr.Column(scale=2, min_width=300):
            files = gr.File(
                file_count="multiple" if several else "single",
                label=words.upload,
                height=180,
                elem_id=f"{words.page}-{'files' if several else 'file'}",
            )
            # Gradio's example in its API description is a file on GitHub.
            files.example_payload = files.example_value = lambda: None  # type: ignore[method-assign]
        with gr.Column(scale=1, min_width=300):
            model = gr.Radio(list(captioners), value=next(iter(captioners)), label="Model", visible=len(captioners) > 1)
            with gr.Row():
                start = gr.Button(words.start, variant="primary")
                stop = gr.Button("Stop")
    if words.hint:
        gr.HTML(words.hint, elem_classes="result")
    player = [] if several else [gr.HTML("", elem_id="player")]
    progress = gr.HTML("", elem_id=f"{words.page}-progress", elem_classes="result")
    offered = buttons(formats, words.gallery) + words.download_hint
    downloads = gr.HTML(offered, elem_id=f"{words.page}-downloads", elem_classes="result", visible=False)
    gallery = build_gallery(words.gallery)

    def show(sent: Any, name: Any) -> Iterator[tuple[Any, ...]]:
        nothing = [gr.skip()] * len(player)
        if not sent:
            yield *nothing, problem(words.missing), gr.skip(), gr.skip()
            return
        try:
            captioner = pick_captioner(captioners, name)
        except OptionError as error:
            yield *nothing, problem(str(error)), gr.skip(), gr.skip()
            return
        uploads = [_upload(file) for file in (sent if several else [sent])]
        for shown in work(captioner, uploads, gallery):
            extra = nothing if shown.extra is None else [shown.extra] * len(player)
            cards = [card.model_dump(exclude_unset=True) for card in shown.cards]
            yield *extra, shown.progress, cards, gr.update(visible=bool(cards))

    running = start.click(
        show,
        inputs=[files, model],
        outputs=[*player, progress, gallery, downloads],
        preprocess=False,
        show_progress="minimal",
        show_progress_on=progress,
        concurrency_limit=concurrency,
        api_visibility="private",
    )
    quiet: dict[str, Any] = {"queue": False, "api_visibility": "private"}
    files.upload(lambda: "", outputs=progress, **quiet)
    empty: tuple[Any, ...] = (*([""] * len(player)), "", [], gr.update(visible=False))
    files.clear(lambda: empty, outputs=[*player, progress, gallery, downloads], **quiet)
    stop.click(stopped, inputs=progress, outputs=progress, cancels=[running], preprocess=False, **quiet)


def _upload(file: dict[str, Any]) -> Upload:
    path = Path(file["path"])
    return Upload(path, str(file.get("orig_name") or path.name))
