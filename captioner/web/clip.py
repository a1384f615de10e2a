"""A clip: its scenes with their captions as they are found, under the player that shows them as subtitles, and the
subtitles as files.

Promises: whatever file is given, the page answers with scenes or with a sentence; a clip that is cut short, too long
or too slow to read shows what could be read of it; nobody's clip keeps the machine busy for longer than PATIENCE.
"""

import queue as queues
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from captioner.errors import CaptionerError, VideoError
from captioner.options import VideoOptions
from captioner.predictor import Captioner
from captioner.video import Scene, caption_video
from captioner.web.downloads import CLIP, buttons
from captioner.web.gallery import build_gallery, keep_picture
from captioner.web.html import problem, stopped
from captioner.web.queue import ModelQueue

MINUTES = 10.0
"""Longest clip on the page, in minutes; the command line takes longer ones."""

PATIENCE = 300.0
"""Longest time, in seconds, that a clip is worked on: large frames may take longer to decode than they last."""


def build_clip(captioners: Mapping[str, Captioner], queue: ModelQueue) -> None:
    """The controls for a clip, inside the page."""
    first = next(iter(captioners))
    with gr.Row(elem_classes="controls"):
        with gr.Column(scale=2, min_width=300):
            clip = gr.File(label="Clip", height=180, elem_id="clip-file")
            # Gradio's example in its API description is a file on GitHub.
            clip.example_payload = clip.example_value = lambda: None  # type: ignore[method-assign]
        with gr.Column(scale=1, min_width=300):
            model = gr.Radio(list(captioners), value=first, label="Model", visible=len(captioners) > 1)
            with gr.Row():
                start = gr.Button("Caption it", variant="primary")
                stop = gr.Button("Stop")
    gr.HTML(
        f"<p class='hint'>It looks where the scene changes, and every few seconds where it does not; neighbours with "
        f"the same caption become one. {MINUTES:g} minutes at most: for more there is python -m captioner video.</p>",
        elem_classes="result",
    )
    player = gr.HTML("", elem_id="player")
    progress = gr.HTML("", elem_id="clip-progress", elem_classes="result")
    downloads = gr.HTML(buttons(CLIP, "scenes"), elem_id="clip-downloads", elem_classes="result", visible=False)
    scenes = build_gallery("scenes")

    def show(file: Any, name: Any) -> Iterator[tuple[Any, Any, Any, Any]]:
        yield from _caption_clip(captioners, queue, scenes, file, name)

    running = start.click(
        show,
        inputs=[clip, model],
        outputs=[player, progress, scenes, downloads],
        preprocess=False,
        show_progress="minimal",
        show_progress_on=progress,
        concurrency_limit=1,  # decoding takes every core
        api_visibility="private",
    )
    clip.upload(lambda: "", outputs=progress, queue=False, api_visibility="private")
    nothing: tuple[Any, ...] = ("", "", [], gr.update(visible=False))
    clip.clear(lambda: nothing, outputs=[player, progress, scenes, downloads], queue=False, api_visibility="private")
    stop.click(
        stopped,
        inputs=progress,
        outputs=progress,
        cancels=[running],
        preprocess=False,
        queue=False,
        api_visibility="private",
    )


def _caption_clip(
    captioners: Mapping[str, Captioner], queue: ModelQueue, gallery: gr.HTML, file: Any, name: Any
) -> Iterator[tuple[Any, Any, Any, Any]]:
    """What the page shows as the scenes are found: the player, how far it is, the timeline, the downloads."""
    if not file:
        yield gr.skip(), problem("There is no clip yet: drop one above."), gr.skip(), gr.skip()
        return
    if name not in list(captioners):
        yield gr.skip(), problem(f"That model is not here: choose {' or '.join(captioners)}."), gr.skip(), gr.skip()
        return
    path = Path(file["path"])
    title = str(file.get("orig_name") or path.name)
    found: list[dict[str, Any]] = []
    share, wrong = 0.0, ""
    player: Any = f"<video controls playsinline src='gradio_api/file={quote(str(path))}'></video>"
    yield "", _progress(share), [], gr.update(visible=False)
    try:
        for news in _scenes(path, captioners[name], queue):
            if isinstance(news, Scene):
                found.append(
                    {
                        "name": f"{_clock(news.start)} to {_clock(news.end)}",
                        "path": keep_picture(gallery, news.thumbnail),
                        "caption": news.caption.text,
                        "file": title,
                        "start": news.start,
                        "end": news.end,
                    }
                )
            else:
                share = news
            yield player, _progress(share), list(found), gr.update(visible=bool(found))
            player = gr.skip()  # once: a new one would begin anew
    except CaptionerError as error:
        wrong = problem(str(error).replace(str(path), title))
    number = f"{len(found):,} scene{'' if len(found) == 1 else 's'}. Click a picture to go there, a caption to edit it."
    said = f"<p class='sure' role='status'>{number}</p>" if found else ""
    yield gr.skip(), said + wrong, found, gr.update(visible=bool(found))


def _scenes(path: Path, captioner: Captioner, queue: ModelQueue) -> Iterator[float | Scene]:
    """The scenes as they are found and, in between, the share of the clip that has been read.

    Raises what `caption_video` raises, and VideoError when PATIENCE is at its end; it stops where it is left, and where
    the queue is closed, for the server stops then.
    """
    news: queues.SimpleQueue[float | Scene | None] = queues.SimpleQueue()
    until = time.monotonic() + PATIENCE
    left = threading.Event()

    def check() -> None:
        if left.is_set() or queue.closed or time.monotonic() > until:
            raise VideoError(
                f"{path} was worked on for {PATIENCE / 60:g} minutes, the longest that this page works on a clip: "
                "caption it with python -m captioner video, or give a smaller copy."
            )

    def work() -> None:
        options = VideoOptions(max_minutes=MINUTES)
        for scene in caption_video(path, captioner, options=options, progress=news.put, check=check):
            news.put(scene)

    worker = ThreadPoolExecutor(1, "captioner clip")
    try:
        future = worker.submit(work)
        future.add_done_callback(lambda _: news.put(None))
        while (one := news.get()) is not None and not queue.closed:  # what came later would be left on the disk
            yield one
        future.result()
    finally:
        left.set()
        worker.shutdown(wait=False)


def _clock(seconds: float) -> str:
    """As players show it: 1:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _progress(share: float) -> str:
    bar = f"<progress max='1' value='{share:.2f}' aria-label='Share of the clip that was read'></progress>"
    return f"<p class='sure'>{bar} {100 * share:.0f}% of the clip</p>"
