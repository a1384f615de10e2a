"""BLEU (Papineni et al. 2002) as the COCO evaluation computes it; nltk counts the n-grams.

All references of an image, closest reference length (ties: the shorter). Instead of smoothing, the protocol adds two
small constants that keep the formula from dividing by zero: a corpus without a matching 4-gram scores a little above 0.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from captioner.metrics.statistics import Array, Statistics, Tokens, check

ORDERS = (1, 2, 3, 4)
TINY, SMALL = 1e-15, 1e-9  # the protocol's: added above and below the line of each fraction


def bleu(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> tuple[Statistics, ...]:
    """BLEU-1 to BLEU-4 of one tokenised hypothesis an image against its tokenised references.

    Raises ValueError and TypeError where `statistics.check` does.
    """
    from nltk.translate.bleu_score import closest_ref_length, modified_precision

    check(hypotheses, references)
    counts = np.zeros((len(hypotheses), 2 + 2 * len(ORDERS)))
    for row, hypothesis, group in zip(counts, hypotheses, references, strict=True):
        length = len(hypothesis)
        row[:2] = length, closest_ref_length(group, length)
        for order in ORDERS[:length]:  # nltk calls the total of shorter hypotheses 1; here it stays 0
            precision = modified_precision(group, hypothesis, order)
            row[2 * order : 2 * order + 2] = precision.numerator, precision.denominator
    return tuple(Statistics(f"BLEU-{order}", counts, partial(_formula, order=order)) for order in ORDERS)


def _formula(sums: Array, order: int) -> Array:
    """Equations 1 to 3 of the paper; (..., 10) -> (...).

    The ten are the lengths of hypotheses and closest references, then matched and all n-grams for n = 1 to 4.
    """
    precisions = (sums[..., 2 : 2 * order + 2 : 2] + TINY) / (sums[..., 3 : 2 * order + 2 : 2] + SMALL)
    ratio = (sums[..., 0] + TINY) / (sums[..., 1] + SMALL)
    penalty = np.exp(np.minimum(0.0, 1.0 - 1.0 / ratio))
    return 100.0 * penalty * precisions.prod(axis=-1) ** (1.0 / order)
