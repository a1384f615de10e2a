"""What a metric counts on each image, and the formula that makes a score of the counts.

Every metric here is a function of sums over images: BLEU and METEOR of what they counted, CIDEr-D, ROUGE-L and SPICE of
the images' scores (their mean). So one form serves the score of a corpus, of one image, and of any resample of the
images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"
Tokens: TypeAlias = Sequence[str]
"""A caption as a list of words."""


@dataclass(frozen=True)
class Statistics:
    """One metric on one set of captions."""

    name: str
    """As it is printed: "BLEU-4"."""
    counts: Array
    """(N, k): k numbers for each of N images, which add up."""
    formula: Callable[[Array], Array]
    """Sums of counts (..., k) -> scores (...), times 100."""

    @property
    def score(self) -> float:
        """The score of all images together."""
        return float(self.formula(self.counts.sum(axis=0)))

    @property
    def images(self) -> Array:
        """(N,): the score of each image alone."""
        return self.formula(self.counts)

    def resampled(self, weights: Array) -> Array:
        """(S,): the scores of S resamples; `weights` (S, N) says how often each image is in each."""
        return self.formula(weights @ self.counts)


def mean(name: str, scores: Array) -> Statistics:
    """A metric whose score is the mean of the images' scores (N,), given in 0..1 (CIDEr-D: 0..10)."""
    counts = np.stack([scores, np.ones_like(scores)], axis=1)
    return Statistics(name, counts, lambda sums: 100.0 * sums[..., 0] / sums[..., 1])


def check(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> None:
    """Refuses what no metric can score: one tokenised hypothesis an image, against one or more tokenised references.

    Raises ValueError where the two do not pair up, where there is nothing to score and where an image has no reference,
    and TypeError for strings in the place of token lists, which would be scored letter by letter without a word of
    warning.
    """
    for captions in (hypotheses, *references):
        if isinstance(captions, str) or any(isinstance(caption, str) for caption in captions):
            raise TypeError("Metrics take lists of tokens, not strings: call text.tokenise first.")
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} hypotheses cannot be scored against {len(references)} sets of references.")
    if not hypotheses:
        raise ValueError("There is nothing to score.")
    for number, group in enumerate(references):
        if not group:
            raise ValueError(f"Image {number} has no reference to be scored against.")
