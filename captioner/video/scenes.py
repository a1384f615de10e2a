"""Shots in, scenes out: each with its caption, neighbours of one caption joined; and the subtitles made of them.

Knows nothing of how a clip is decoded or a caption is found.
"""

import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from captioner.captions import Caption, record
from captioner.errors import VideoError
from captioner.options import SearchOptions, VideoOptions
from captioner.predictor import BATCH, Captioner
from captioner.video.clip import Clip, Moment, open_clip
from captioner.video.shots import Shot, find_shots

THUMBNAIL = 320
"""Longest side of a scene's thumbnail, in pixels."""


@dataclass(frozen=True)
class Scene:
    """A piece of a clip that one caption describes."""

    start: float
    """Seconds from the clip's start."""
    end: float
    caption: Caption
    thumbnail: bytes = field(repr=False)
    """The picture that was captioned, as a JPEG of at most THUMBNAIL pixels a side: some ten kilobytes."""


def caption_video(
    path: str | os.PathLike[str],
    captioner: Captioner,
    *,
    options: VideoOptions | None = None,
    search: SearchOptions | None = None,
    progress: Callable[[float], object] | None = None,
    check: Callable[[], object] | None = None,
) -> Iterator[Scene]:
    """The scenes of a clip with their captions, one after the other, from its start to its end.

    The clip is read as the scenes are asked for, BATCH pictures ahead; memory does not grow with its length. `progress`
    is called with the share of the clip that has been read, from 0 to 1, a hundred times at most; `check` is called
    before each of the clip's packets, and what it raises ends the work.

    Raises VideoError at once where the clip cannot be read, and **after the last scene** where it is damaged, breaks
    off or is longer than allowed: what could be read has been given by then.
    """
    options = options or VideoOptions()
    with open_clip(path, options, check=check) as clip:
        at_least = 2 * (captioner.image.detail or captioner.image.size)  # as pictures.to_tensor does
        moments = clip.frames(at_least=at_least)
        shots = find_shots(_watched(moments, clip, progress) if progress else moments, options)
        yield from merge_repeats(_captioned(shots, captioner, search))
        if clip.damage:
            raise VideoError(clip.damage)


def merge_repeats(scenes: Iterable[Scene]) -> Iterator[Scene]:
    """The scenes, those that follow each other with the same text joined to one, which keeps the surest caption."""
    joined: Scene | None = None
    for scene in scenes:
        if joined and joined.caption.text == scene.caption.text:
            surest = max(joined, scene, key=lambda scene: scene.caption.word_probability)
            joined = replace(surest, start=joined.start, end=scene.end)
        else:
            if joined:
                yield joined
            joined = scene
    if joined:
        yield joined


def to_records(scenes: Iterable[Scene]) -> list[dict[str, Any]]:
    """The scenes as plain values for JSON, without their pictures."""
    return [
        {
            "start": round(scene.start, 3),
            "end": round(scene.end, 3),
            **record(scene.caption),
            "alternatives": [record(other) for other in scene.caption.alternatives],
        }
        for scene in scenes
    ]


def to_webvtt(scenes: Iterable[Scene]) -> str:
    """The captions as a WebVTT file (W3C, *WebVTT: The Web Video Text Tracks Format*); an empty one is left out."""
    cues = [
        f"\n{timestamp(scene.start)} --> {timestamp(scene.end)}\n{text}\n"
        for scene in scenes
        if (text := _one_line(scene).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
    ]
    return "WEBVTT\n" + "".join(cues)


def to_srt(scenes: Iterable[Scene]) -> str:
    """The captions as an SRT file (SubRip). It knows no escapes: `<` and `>` become `‹` and `›`."""
    said = [(scene, text) for scene in scenes if (text := _one_line(scene).replace("<", "‹").replace(">", "›"))]
    cues = [
        f"{number}\n{timestamp(scene.start)} --> {timestamp(scene.end)}\n".replace(".", ",") + f"{text}\n"
        for number, (scene, text) in enumerate(said, start=1)
    ]
    return "\n".join(cues)


def timestamp(seconds: float) -> str:
    """Hours, minutes, seconds and thousandths, as subtitles have them: 00:01:05.250."""
    minutes, thousandths = divmod(round(1000 * seconds), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{thousandths // 1000:02}.{thousandths % 1000:03}"


def _captioned(shots: Iterator[Shot], captioner: Captioner, search: SearchOptions | None) -> Iterator[Scene]:
    """The shots with their captions, a batch of them at a time."""
    while batch := list(itertools.islice(shots, BATCH)):
        captions = captioner.caption_pixels([captioner.read(shot.picture) for shot in batch], search=search)
        for shot, caption in zip(batch, captions, strict=True):
            yield Scene(shot.start, shot.end, caption, _thumbnail(shot.picture))


def _watched(moments: Iterable[Moment], clip: Clip, progress: Callable[[float], object]) -> Iterator[Moment]:
    """The same moments; `progress` hears of every hundredth of the clip."""
    told = -1.0
    for moment in moments:
        yield moment
        if clip.share >= told + 0.01 or clip.share == 1.0 > told:
            told = clip.share
            progress(told)


def _thumbnail(picture: Image.Image) -> bytes:
    small = picture.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80)
    return file.getvalue()


def _one_line(scene: Scene) -> str:
    """The caption's text without the line ends that would end its cue."""
    return " ".join(scene.caption.text.split())
