"""A clip: its scenes with their captions as they are found, under the player that shows them as subtitles, and the
subtitles as files.

Promises: whatever file is given, the page answers with scenes or with a sentence; a clip that is cut short, too long
or too slow to read shows what could be read of it; nobody's clip keeps the machine busy for longer than PATIENCE. Its
pictures go through the page's one queue, like everybody else's.
"""

import queue as queues
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import quote

import gradio as gr

from captioner.captioner import Captioner
from captioner.errors import CaptionerError, VideoError
from captioner.options import VideoOptions
from captioner.video import Scene, caption_video
from captioner.web.downloads import CLIP, buttons, titles
from captioner.web.gallery import Card, build_gallery, keep_picture
from captioner.web.html import problem
from captioner.web.queue import ModelQueue
from captioner.web.queued import Queued
from captioner.web.workbench import Shown, Upload, Words, Works, build_workbench

MINUTES = 10.0
"""Longest clip on the page, in minutes; the command line takes longer ones."""

PATIENCE = 300.0
"""Longest time, in seconds, that a clip is worked on: large frames may take longer to decode than they last."""

_WORDS = Words(
    page="clip",
    title="Clip to caption",
    drop="Drop a clip here, or",
    choose="Choose a clip",
    start="Caption it",
    missing="There is no clip yet: drop one above.",
    hint="<p class='hint'>It looks where the scene changes, and every few seconds where it does not; neighbours with "
    f"the same caption become one. {MINUTES:g} minutes at most: for more there is python -m captioner video.</p>",
)


def build_clip(captioners: Mapping[str, Captioner], queue: ModelQueue) -> None:
    """The controls for a clip, inside the page."""
    # One at a time: decoding takes every core.
    gallery = partial(build_gallery, "scenes", "Scenes", buttons(titles(CLIP)), "scenes")
    build_workbench(captioners, partial(_caption_clip, queue), _WORDS, gallery, several=False, concurrency=1)


def _caption_clip(queue: ModelQueue, captioner: Captioner, uploads: list[Upload], gallery: gr.HTML) -> Works:
    """What the page shows as the scenes are found."""
    path, title, _ = uploads[0]
    cards: list[Card] = []
    share, wrong = 0.0, ""
    player: str | None = f"<video controls playsinline src='gradio_api/file={quote(str(path))}'></video>"
    yield Shown(_progress(share), cards, "")
    try:
        for news in _scenes(path, Queued(queue, captioner)):
            if isinstance(news, Scene):
                cards.append(_card(news, title, keep_picture(gallery, news.thumbnail)))
            else:
                share = news
            yield Shown(_progress(share), cards, player)
            player = None  # once: a new one would begin anew
    except CaptionerError as error:
        wrong = problem(error.told(title))
    number = f"{len(cards):,} scene{'' if len(cards) == 1 else 's'}. Click a picture to go there, a caption to edit it."
    said = f"<p class='sure' role='status'>{number}</p>" if cards else ""
    yield Shown(said + wrong, cards)


def _card(scene: Scene, title: str, path: str) -> Card:
    name = f"{_clock(scene.start)} to {_clock(scene.end)}"
    return Card(name=name, path=path, caption=scene.text, file=title, start=scene.start, end=scene.end)


def _scenes(path: Path, captioner: Queued) -> Iterator[float | Scene]:
    """The scenes as they are found and, in between, the share of the clip that has been read.

    Raises what `caption_video` raises, and VideoError when PATIENCE is at its end; it stops where it is left, and where
    the queue is closed, for the server stops then.
    """
    news: queues.SimpleQueue[float | Scene | None] = queues.SimpleQueue()
    until = time.monotonic() + PATIENCE
    left = threading.Event()

    def check() -> None:
        if left.is_set() or captioner.queue.closed or time.monotonic() > until:
            reason = f"was worked on for {PATIENCE / 60:g} minutes, the longest that this page works on a clip"
            remedy = "caption it with python -m captioner video, or give a smaller copy"
            raise VideoError(str(path), reason, remedy)

    def work() -> None:
        options = VideoOptions(max_minutes=MINUTES)
        for scene in caption_video(path, captioner, options=options, progress=news.put, check=check):
            news.put(scene)

    worker = ThreadPoolExecutor(1, "captioner clip")
    try:
        future = worker.submit(work)
        future.add_done_callback(lambda _: news.put(None))
        # What came after the queue was closed would be left on the disk.
        while (one := news.get()) is not None and not captioner.queue.closed:
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
