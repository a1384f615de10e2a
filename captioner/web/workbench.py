"""What the pages for many captions share: files in, a gallery of captions that can be edited, and the captions as files
out; with a button that begins the work and one that stops it.

Promises: what was captioned stays on the page when one stops in the middle. It knows Gradio, and nothing of what the
files are.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import gradio as gr

from captioner.captioner import Captioner, pick_captioner
from captioner.errors import OptionError
from captioner.pictures import SUFFIXES
from captioner.web.gallery import Card
from captioner.web.html import STOPPED, problem


class Upload(NamedTuple):
    """A file that a visitor sent."""

    path: Path
    name: str
    """As the visitor calls it; with its folders, where a folder was chosen."""
    done: int = 0
    """So many of its pictures have their captions already."""


class Shown(NamedTuple):
    """How far the work is."""

    progress: str
    """As HTML."""
    cards: Sequence[Card]
    extra: Any = None
    """For the page's own place above; None leaves that as it is."""
    done: bool = False
    """It was the last word: none of the files waits any more."""


@dataclass(frozen=True)
class Words:
    """What one page says, and what its parts are called in the stylesheet and the script."""

    page: str
    title: str
    drop: str
    """In the place for files, before the buttons that choose some."""
    choose: str
    start: str
    """The button that begins."""
    missing: str
    """What is said where there is no file yet."""
    hint: str = ""
    """Above the gallery, as HTML."""


Works = Generator[Shown, None, None]
Work = Callable[[Captioner, list[Upload], gr.HTML], Works]
"""A captioner, the files and the gallery whose pictures are kept -> how far it is, again and again."""


def build_workbench(
    captioners: Mapping[str, Captioner],
    work: Work,
    words: Words,
    gallery: Callable[[], gr.HTML],
    *,
    several: bool,
    concurrency: int,
) -> None:
    """The controls, inside the page. `several` takes more than one file; otherwise there is a place for a player."""
    with gr.Row(elem_classes="controls"):
        with gr.Column(scale=2, min_width=300):
            files = _chooser(words, several)
        with gr.Column(scale=1, min_width=300):
            model = gr.Radio(list(captioners), value=next(iter(captioners)), label="Model", visible=len(captioners) > 1)
            with gr.Row():
                start = gr.Button(words.start, variant="primary")
                stop = gr.Button("Stop", elem_id=f"{words.page}-stop", elem_classes="stop")
    if words.hint:
        gr.HTML(words.hint, elem_classes="result")
    player = [] if several else [gr.HTML("", elem_id="player")]
    progress = gr.HTML("", elem_id=f"{words.page}-progress", elem_classes="result")
    shown_in = gallery()

    stops: dict[str | None, Event] = {}  # by the visitor's session, while its work goes on

    def show(sent: Any, name: Any, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        nothing = [gr.skip()] * len(player)
        uploads = _uploads(sent)
        if not uploads:
            yield *nothing, problem(words.missing), gr.skip(), gr.skip()
            return
        try:
            captioner = pick_captioner(captioners, name)
        except OptionError as error:
            yield *nothing, problem(str(error)), gr.skip(), gr.skip()
            return
        stop = stops[request.session_hash] = Event()
        try:
            with closing(work(captioner, uploads, shown_in)) as works:
                for shown in works:
                    if stop.is_set() and not shown.done:  # the work says so itself: nothing can come after its word
                        yield *nothing, STOPPED, gr.skip(), gr.skip()
                        return
                    extra = nothing if shown.extra is None else [shown.extra] * len(player)
                    cards = [card.model_dump(exclude_unset=True) for card in shown.cards]
                    done = [str(upload.path) for upload in uploads] if shown.done else gr.skip()
                    yield *extra, shown.progress, cards, done
        finally:
            if stops.get(request.session_hash) is stop:
                del stops[request.session_hash]

    def end(request: gr.Request) -> None:
        if stop := stops.get(request.session_hash):
            stop.set()

    start.click(
        show,
        inputs=[files, model],
        outputs=[*player, progress, shown_in, files],
        js=f"async (_, model) => [await captioner.places.{words.page}.ready(), model]",
        preprocess=False,
        show_progress="minimal",
        show_progress_on=progress,
        concurrency_limit=concurrency,
        api_visibility="private",
    )
    quiet: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    files.upload(lambda: "", outputs=progress, **quiet)
    if player:
        files.clear(lambda: ("", "", []), outputs=[*player, progress, shown_in], **quiet)
    stop.click(end, **quiet)


def _chooser(words: Words, several: bool) -> gr.HTML:
    """The place for files; its value is what the work is done with, by the names that the server gave them."""
    heading = f"{words.page}-files-title"
    folder = "<button type='button' class='choose-folder'>Choose a folder</button>" if several else ""
    inputs = "<input type='file' multiple hidden><input type='file' webkitdirectory hidden>"
    return gr.HTML(
        [],
        html_template=(
            f"<section class='chooser' aria-labelledby='{heading}'><h2 id='{heading}'>{words.title}</h2>"
            f"<p>{words.drop}</p>"
            f"<p class='actions'><button type='button' class='choose'>{words.choose}</button>{folder}</p>"
            f"{inputs if several else '<input type=file hidden>'}<p class='waiting' role='status'></p>"
            "<details hidden><summary>Show them</summary><ul></ul>"
            "<button type='button' class='none'>Remove all</button></details>"
            "<p class='problem' role='alert'></p></section>"
        ),
        js_on_load=f"captioner.chooser('{words.page}', element, props, watch, trigger)",
        elem_id=f"{words.page}-files",
        elem_classes="result",
        suffixes=sorted(SUFFIXES),
    )


def _uploads(sent: Any) -> list[Upload]:
    """The files that the page, or a program in its place, sent, each maybe with how much of it is done."""
    uploads = []
    for one in sent if isinstance(sent, list) else [sent]:
        # Gradio takes away whatever it does not know inside of a file.
        file, done = (one.get("file", one), one.get("done")) if isinstance(one, dict) else (None, None)
        if isinstance(file, dict) and isinstance(file.get("path"), str):
            path = Path(file["path"])
            name = str(file.get("orig_name") or path.name)
            uploads.append(Upload(path, name, max(0, done) if isinstance(done, int) else 0))
    return uploads
