"""How far a score would move had other images been drawn: the bootstrap over images.

Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), percentile intervals; Koehn, "Statistical Significance
Tests for Machine Translation Evaluation" (2004) for its use with corpus scores and pairs of systems. Images are drawn
with replacement, a caption goes with its image, and every score of one call meets the same draws: so the differences of
two systems are paired. CIDEr-D keeps the document frequencies of the whole set, as each image's score has them inside.
"""

from collections.abc import Sequence

import numpy as np

from captioner.metrics.statistics import Array, Statistics

SEED = 1
_CELLS = 4_000_000  # numbers of the resampling matrix in memory at a time: 32 MB


def bootstrap(statistics: Sequence[Statistics], *, resamples: int = 1000, seed: int = SEED) -> Array:
    """(M, S): the scores of M metrics, all counted on the same N images, in S resamples of those images."""
    images = len(statistics[0].counts)
    generator = np.random.default_rng(seed)
    rows = max(1, _CELLS // images)
    scores = []
    for first in range(0, resamples, rows):
        draws = generator.integers(images, size=(min(rows, resamples - first), images))
        weights = np.stack([np.bincount(draw, minlength=images) for draw in draws]).astype(np.float64)
        scores.append([metric.resampled(weights) for metric in statistics])
    return np.concatenate([np.array(part) for part in scores], axis=1)


def interval(scores: Array) -> tuple[float, float]:
    """The middle 95% of resampled scores (S,): their 2.5th and 97.5th percentiles."""
    low, high = np.percentile(scores, (2.5, 97.5))
    return float(low), float(high)
