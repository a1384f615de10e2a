"""Shots in, scenes out: each with its caption, neighbours of one caption joined.

Knows nothing of how a clip is decoded or a caption is found.
"""

import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from PIL import Image

from captioner.captions import Caption, Captioned, to_dict
from captioner.options import ImageOptions, SearchOptions, VideoOptions
from captioner.pictures import ImageSource
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

    @property
    def text(self) -> str:
        """What the scene's subtitle says."""
        return self.caption.text


class Streams(Protocol):
    """What captions named pictures as they come: a `Captioner`, or one that waits its turn among others."""

    @property
    def image(self) -> ImageOptions:
        """How pictures are fitted."""

    def stream(
        self, pictures: Iterable[tuple[str, ImageSource]], *, search: SearchOptions | None = None
    ) -> Iterator[Captioned]:
        """As `Captioner.stream`."""


def caption_video(
    path: str | os.PathLike[str],
    captioner: Streams,
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
        moments = clip.frames(at_least=captioner.image.enough)
        shots = find_shots(_watched(moments, clip, progress) if progress else moments, options)
        yield from merge_repeats(_captioned(shots, captioner, search))
        if clip.damage:
            raise clip.damage


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
    return [{"start": round(scene.start, 3), "end": round(scene.end, 3), **to_dict(scene.caption)} for scene in scenes]


def _captioned(shots: Iterator[Shot], captioner: Streams, search: SearchOptions | None) -> Iterator[Scene]:
    """The shots with their captions, a batch of them at a time."""
    shots, pictures = itertools.tee(shots)
    stream = captioner.stream((("", shot.picture) for shot in pictures), search=search)
    for found, shot in zip(stream, shots, strict=True):  # in this order: a stream that ends has taken no shot
        if found.error is not None:
            raise found.error
        if found.caption is not None:
            yield Scene(shot.start, shot.end, found.caption, _thumbnail(shot.picture))


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
