"""Is this a captioner at all? What a model does that has stopped looking, or was trained into a corner.

It says the same of many pictures, ends in the middle of a phrase ("a man sitting on a"), or repeats itself. People do a
little of each, and drawn shapes more than people, so every measure is held against the references of the same images.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Words that want another behind them. "on", "in", "by" and "her" are not among them: people end captions with those.
_UNFINISHED = frozenset(
    "a an the and or but nor of with from to at into onto as than is are was were be been being has have his its their "
    "my your our that which while who whose this these very".split()
)
_PHRASE = 3
_ENOUGH, _FEWEST = 20, 5
"""Images below which shares say nothing, and captions below which a habit is none."""


@dataclass(frozen=True)
class Degeneration:
    """Shares of a set of captions, all in 0..1."""

    distinct: float
    """Different captions, over captions."""
    commonest: float
    """Captions that are the most frequent one."""
    unfinished: float
    """Captions that end in the middle of a phrase (see `unfinished`)."""
    repeating: float
    """Captions that repeat themselves (see `repeats`)."""
    empty: float
    """Captions without a word."""


def measure(captions: Iterable[Sequence[str]]) -> Degeneration:
    """The shares of tokenised captions, of which there must be one."""
    counts = Counter(map(tuple, captions))
    total = counts.total()

    def share(kind: Iterable[int]) -> float:
        return sum(kind) / total

    return Degeneration(
        distinct=len(counts) / total,
        commonest=max(counts.values()) / total,
        unfinished=share(n for words, n in counts.items() if unfinished(words)),
        repeating=share(n for words, n in counts.items() if repeats(words)),
        empty=counts[()] / total,
    )


def unfinished(words: Sequence[str]) -> bool:
    """Does a caption end in the middle of a phrase, in an article, "of", "with", "is" or the like?"""
    return bool(words) and words[-1] in _UNFINISHED


def repeats(words: Sequence[str]) -> bool:
    """Does a caption say a word or two words twice in a row, or the same three words twice anywhere?"""
    if len(set(words)) == len(words):
        return False
    phrases = list(zip(*(words[i:] for i in range(_PHRASE)), strict=False))
    if len(set(phrases)) < len(phrases):
        return True
    return any(
        words[i : i + n] == words[i + n : i + 2 * n] for n in range(1, _PHRASE) for i in range(len(words) - 2 * n + 1)
    )


def complaint(captions: Sequence[Sequence[str]], ours: Degeneration, people: Degeneration) -> str:
    """One line that says in what captions are degenerate against their references; "" where they are not.

    `ours` and `people` are what `measure` says of the captions and of the references. A share is called out when it is
    far above the references', and made of five captions at least.
    """
    total = len(captions)
    if total < _ENOUGH:
        return ""
    counts = Counter(map(tuple, captions))
    words, count = counts.most_common(1)[0]
    found = []
    if ours.distinct < min(0.1, people.distinct / 2):
        plural = "s" if len(counts) > 1 else ""
        found.append(f"only {len(counts):,} different caption{plural} for {total:,} images")
    if ours.commonest > max(0.1, 2 * people.commonest) and count >= _FEWEST:
        found.append(f"{count:,} of {total:,} images get {' '.join(words)!r}")
    for share, normal, least, what in (
        (ours.unfinished, people.unfinished, 0.02, "end in the middle of a phrase"),
        (ours.repeating, people.repeating, 0.05, "repeat themselves"),
        (ours.empty, people.empty, 0.01, "have no word"),
    ):
        if share > least + 2 * normal and share * total >= _FEWEST:
            found.append(f"{share:.1%} of the captions {what} (references: {normal:.1%})")
    return "Degenerate: " + "; ".join(found) + "." if found else ""
