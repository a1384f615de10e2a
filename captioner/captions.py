"""What captioning a picture gives: a sentence with its words' probabilities, and the tree of the search for it.

Values, and their plain form for JSON. They know no torch.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from captioner.errors import CaptionerError

REPEATS = 2
"""A caption says a word, or a pair of words, twice in a row at most: young models end in "striped striped striped"."""


@dataclass(frozen=True)
class Word:
    """A word of a caption, with the probability the model gave it after the words before it."""

    text: str
    probability: float
    attention: tuple[tuple[float, ...], ...] = ()
    """Where the model looked to write it, if that was asked for: the share of each cell of the grid, in rows from the
    top; they sum to 1. Empty for a model without attention."""


@dataclass(frozen=True)
class Caption:
    """A sentence about a picture."""

    text: str
    log_probability: float
    """Natural logarithm of the probability of the whole sentence, its end included, written from left to right."""
    words: tuple[Word, ...]
    """The sentence's tokens; `text` joins them."""
    word_probability: float
    """Geometric mean of the probabilities of the words and of the sentence's end: how sure the model is, 0..1."""
    alternatives: tuple["Caption", ...] = ()
    """The other sentences the search found, best first; by both decoders where the search was to rerank."""
    score: float = field(default=math.nan, compare=False, repr=False)
    """What it was ranked by among them: a log-probability over its length ** length_penalty, of both decoders where the
    search was to rerank. It belongs to the ranking, not to the sentence."""


@dataclass(frozen=True)
class Captioned:
    """What became of a named picture: a caption or an error, exactly one of them."""

    name: str
    size: tuple[int, int] | None = None
    """Width and height of the upright picture in pixels; None where it could not be read."""
    caption: Caption | None = None
    error: CaptionerError | None = None

    def __post_init__(self) -> None:
        if (self.caption is None) == (self.error is None):
            raise ValueError("A captioned picture has a caption or an error, and not both.")


def to_dict(caption: Caption) -> dict[str, Any]:
    """A caption as plain values for JSON."""
    return {**_sentence(caption), "alternatives": [_sentence(other) for other in caption.alternatives]}


def _sentence(caption: Caption) -> dict[str, str | float]:
    return {
        "caption": caption.text,
        "log_probability": round(caption.log_probability, 4),
        "word_probability": round(caption.word_probability, 4),
    }


@dataclass(frozen=True)
class Explanation:
    """A caption, and how it came about."""

    caption: Caption
    """Its words, and those of its alternatives, say where the model looked."""
    tree: tuple["Branch", ...]
    """The first words that the search tried, and what it went on with."""


@dataclass(frozen=True)
class Branch:
    """A beginning of a sentence that the search had among its hypotheses: a node of the search's tree."""

    word: str
    """The last word of the beginning; empty for the end of a sentence."""
    probability: float
    """Of that word, or of the end, after the words before it."""
    log_probability: float
    """Natural logarithm of the probability of the whole beginning."""
    sentence: int | None
    """Among the sentences found, the place of the best one that begins so; None: all that began so were given up."""
    branches: tuple["Branch", ...] = ()
    """What the search went on with, the most probable beginning first."""
