"""Captions of a clip as subtitles: WebVTT and SRT."""

from collections.abc import Iterable
from typing import Protocol


class Cue(Protocol):
    """What a clip says for a while, as its scenes do."""

    @property
    def start(self) -> float:
        """Seconds from the clip's start."""

    @property
    def end(self) -> float:
        """When it is over, in seconds."""

    @property
    def text(self) -> str:
        """Its caption."""


def to_webvtt(cues: Iterable[Cue]) -> str:
    """The captions as a WebVTT file (W3C, *WebVTT: The Web Video Text Tracks Format*); an empty one is left out."""
    blocks = [
        f"\n{timestamp(cue.start)} --> {timestamp(cue.end)}\n{text}\n"
        for cue in cues
        if (text := _one_line(cue).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
    ]
    return "WEBVTT\n" + "".join(blocks)


def to_srt(cues: Iterable[Cue]) -> str:
    """The captions as an SRT file (SubRip). It knows no escapes: `<` and `>` become `‹` and `›`."""
    said = [(cue, text) for cue in cues if (text := _one_line(cue).replace("<", "‹").replace(">", "›"))]
    blocks = [
        f"{number}\n{timestamp(cue.start)} --> {timestamp(cue.end)}\n".replace(".", ",") + f"{text}\n"
        for number, (cue, text) in enumerate(said, start=1)
    ]
    return "\n".join(blocks)


def timestamp(seconds: float) -> str:
    """Hours, minutes, seconds and thousandths, as subtitles have them: 00:01:05.250."""
    minutes, thousandths = divmod(round(1000 * seconds), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{thousandths // 1000:02}.{thousandths % 1000:03}"


def _one_line(cue: Cue) -> str:
    """The caption's text without the line ends that would end its cue."""
    return " ".join(cue.text.split())
