"""ROUGE-L (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries") as the COCO evaluation computes it.

The longest common subsequence with each reference gives a precision and a recall; the best of each, maybe of different
references, make the score. BETA weighs the recall.
"""

from collections.abc import Sequence

import numpy as np

from captioner.metrics.statistics import Statistics, Tokens, check, mean

BETA = 1.2


def rouge(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> Statistics:
    """ROUGE-L of one tokenised hypothesis an image against its tokenised references: the mean of the images' scores.

    Raises ValueError and TypeError where `statistics.check` does.
    """
    check(hypotheses, references)
    scores = [_score(hypothesis, group) for hypothesis, group in zip(hypotheses, references, strict=True)]
    return mean("ROUGE-L", np.array(scores))


def _score(hypothesis: Tokens, references: Sequence[Tokens]) -> float:
    """Equations 2 to 4 of the paper, 0..1, with the best precision and the best recall over the references.

    The protocol takes an empty caption for one empty word: it equals another empty caption, and nothing else.
    """
    hypothesis = hypothesis or ("",)
    positions: dict[str, int] = {}
    for number, word in enumerate(hypothesis):
        positions[word] = positions.get(word, 0) | 1 << number
    precision = recall = 0.0
    for reference in references:
        reference = reference or ("",)
        common = _longest_common_subsequence(positions, len(hypothesis), reference)
        precision = max(precision, common / len(hypothesis))
        recall = max(recall, common / len(reference))
    if not precision:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _longest_common_subsequence(positions: dict[str, int], length: int, words: Tokens) -> int:
    """Its length. `positions`: for each word of the other caption, of `length` words, its places as bits.

    Hyyrö 2004, "Bit-parallel LCS-length computation revisited": one row of the usual table is one integer, in which bit
    i is 0 where the length grows at the other caption's word i.
    """
    every = row = (1 << length) - 1
    for word in words:
        if matches := row & positions.get(word, 0):
            row = row + matches | row - matches
    return length - (row & every).bit_count()
