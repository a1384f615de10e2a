"""When to say that a caption may be wrong: the probability of its words, held against a threshold chosen on validation.

A model's probabilities are no measure of truth by themselves; below some of them, though, captions are mostly wrong.
Where that begins is measured, once, on pictures the model did not learn from, and goes into its file.
"""

from collections.abc import Sequence
from dataclasses import dataclass

POOR = 30.0
"""CIDEr-D of a single caption below which it counts as poor: it shares hardly a telling word with any reference."""
PRECISION = 0.75
"""Share of the captions called unsure that are to be poor, at least."""


@dataclass(frozen=True)
class Sureness:
    """Below which word probability a caption is called unsure, and what that was worth where it was chosen."""

    unsure_below: float
    """`Caption.word_probability` under which the model is unsure, 0..1; 0: never."""
    precision: float
    """Of the validation captions called unsure, the share that is poor, 0..1."""
    recall: float
    """Of the poor validation captions, the share that is called unsure, 0..1."""
    poor_below: float
    """The CIDEr-D (times 100) below which a caption counted as poor."""
    images: int
    """How many validation pictures it was chosen on."""

    def describe(self) -> str:
        """One sentence for `info`."""
        if not self.unsure_below:
            return f"never unsure: no threshold was right often enough on {self.images:,} validation pictures"
        return (
            f"unsure below a word probability of {self.unsure_below:.2f}: on {self.images:,} validation pictures "
            f"{100 * self.precision:.0f}% of the captions below it were poor (CIDEr-D under {self.poor_below:g}), and "
            f"{100 * self.recall:.0f}% of the poor ones were below it"
        )


def choose_threshold(
    probabilities: Sequence[float], scores: Sequence[float], *, poor: float = POOR, precision: float = PRECISION
) -> Sureness:
    """The highest threshold below which at least `precision` of the captions are poor.

    `probabilities` are the captions' word probabilities, `scores` their CIDEr-D times 100. Where no threshold holds,
    nothing is ever unsure. Raises ValueError where the two do not pair up.
    """
    order = sorted(zip(probabilities, scores, strict=True))
    all_poor = sum(score < poor for _, score in order)
    best, found, below = 0.0, 0, 0
    count = 0
    for place, (probability, score) in enumerate(order, 1):
        found += score < poor
        following = order[place][0] if place < len(order) else 1.0
        if following > probability and found >= precision * place:
            best, below, count = (probability + following) / 2, found, place
    return Sureness(
        unsure_below=best,
        precision=round(below / count, 4) if count else 0.0,
        recall=round(below / all_poor, 4) if all_poor and count else 0.0,
        poor_below=poor,
        images=len(order),
    )
