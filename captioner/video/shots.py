"""Frames in, shots out: where a clip's picture changes at once, and one picture for every piece between.

A cut is a frame that is unlike the one before by the mean absolute difference of their small copies, and unlike it by
much more than the other frames around it are unlike theirs: so a camera that swings is no cut. That is the test of Yeo
and Liu (1995, *Rapid scene analysis on compressed video*, IEEE TCSVT 5 (6)), a little changed, see `_begins_shot`. It
finds cuts alone; what a slow dissolve or a pan brings is seen when a shot that goes on is looked at again.

Knows nothing of files and captions.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from captioner.options import VideoOptions
from captioner.video.clip import Moment

LEAST_CHANGE = 10.0
"""Mean difference of a cut, of 255. Small copies of two unrelated photos differ by 22 and more, most of them by 55 and
more (400 of Flickr8k); those of neighbouring frames by 0 to 4 in a quiet shot and by up to 18 in a bicycle race."""

TIMES_OTHERS = 2.0
"""How many times as great as the changes around it the change at a cut is."""

AROUND = 0.5
"""Seconds before and after a frame that count as around it."""


@dataclass(frozen=True)
class Shot:
    """A piece of a clip that one picture stands for: from cut to cut, or a part of that."""

    start: float
    """Seconds from the clip's start."""
    end: float
    picture: Image.Image
    """Taken half a second after the start at most, where a flash or a quick dissolve is over."""


@dataclass
class _Beginning:
    start: float
    looked: float
    """Later than `start` where the first pieces were too short; the picture is from within reach of it."""
    cut: bool
    """Or else the shot only went on for so long that it is looked at again."""
    picture: Image.Image


class _Frame(NamedTuple):
    time: float
    small: np.ndarray
    change: float
    """Its difference from the frame before."""


def find_shots(moments: Iterable[Moment], options: VideoOptions | None = None) -> Iterator[Shot]:
    """The shots of a clip, without gaps, from its first frame to its end.

    None is shorter than `options.shortest`, but where the whole clip is. Only the last frame and two pictures are
    held, and a shot comes out as soon as what follows it is sure.
    """
    options = options or VideoOptions()
    begun: list[_Beginning] = []
    end = 0.0
    reach = min(AROUND, options.shortest / 2)
    shortest, longest = options.shortest - 0.001, options.longest - 0.001  # a clock's ticks are a little off
    for time, cut, moment in _judged(moments, reach):
        start, end = time, moment.end
        if cut:
            while begun and (time - begun[-1].start < shortest or time - begun[-1].looked <= reach):
                short = begun.pop()
                if short.cut:  # what follows takes its place; a mere look is forgotten
                    start = short.start
        elif time - begun[-1].looked < longest:
            continue
        begun.append(_Beginning(start, time, cut, moment.picture()))
        if len(begun) > 2:  # the last may still turn out too short, the one before cannot
            first = begun.pop(0)
            yield Shot(first.start, begun[0].start, first.picture)
    if len(begun) > 1 and end - begun[-1].start < shortest:
        begun.pop()
    ends = [*(following.start for following in begun[1:]), end]
    for beginning, until in zip(begun, ends, strict=False):
        yield Shot(beginning.start, until, beginning.picture)


def _judged(moments: Iterable[Moment], reach: float) -> Iterator[tuple[float, bool, Moment]]:
    """For each frame its time, whether a shot begins with it, and the last frame within `reach` seconds after it."""
    around: deque[_Frame] = deque()  # those within reach of the next to be judged, and the one before it
    at = 0  # which is next
    last: Moment | None = None
    for moment in itertools.chain(moments, (None,)):
        while last and at < len(around) and (moment is None or around[at].time < moment.time - reach):
            while at > 1 and around[0].time < around[at].time - reach:
                around.popleft()
                at -= 1
            yield around[at].time, _begins_shot(around, at), last
            at += 1
        if moment:
            change = _difference(moment.small, last.small) if last else 0.0
            around.append(_Frame(moment.time, moment.small, change))
            last = moment


def _begins_shot(around: Sequence[_Frame], at: int) -> bool:
    """Whether the frame with that index is the first of a shot; the others are those within reach of it.

    Yeo and Liu ask that its change be 2 to 3 times the second greatest within reach. Here it is the third greatest of
    the others: two cuts within reach would hide each other. And it has to be new: after a photographer's flash the
    picture is as it was before.
    """
    if at == 0:
        return True
    before, frame = around[at - 1], around[at]
    if frame.change < LEAST_CHANGE:
        return False
    others = heapq.nlargest(3, (other.change for other in around if other is not frame))
    if len(others) == 3 and frame.change < TIMES_OTHERS * others[2]:
        return False
    pairs = [(before, later) for later in itertools.islice(around, at + 1, None)]
    pairs += [(earlier, frame) for earlier in itertools.islice(around, at - 1)]
    return all(_difference(one.small, other.small) >= LEAST_CHANGE for one, other in pairs)


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    """The mean absolute difference of two small copies, 0 to 255."""
    return float(np.abs(one.astype(np.int16) - other).mean())
