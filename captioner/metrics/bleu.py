"""BLEU (Papineni et al. 2002) as the COCO evaluation computes it, counted by nltk.

Corpus level, all references of an image, closest reference length (ties: the shorter), no smoothing.
"""

import warnings
from collections.abc import Sequence

WEIGHTS = ((1.0,), (1 / 2,) * 2, (1 / 3,) * 3, (1 / 4,) * 4)


def bleu(hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> tuple[float, ...]:
    """BLEU-1 to BLEU-4, times 100, of one tokenised hypothesis an image against its tokenised references.

    Raises ValueError where the two do not pair up, and TypeError for strings in the place of token lists, which would
    be scored letter by letter without a word of warning.
    """
    from nltk.translate.bleu_score import corpus_bleu

    if any(isinstance(tokens, str) for tokens in hypotheses):
        raise TypeError("BLEU takes lists of tokens, not strings: call text.tokenise first.")
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} hypotheses cannot be scored against {len(references)} sets of references.")
    if not hypotheses:
        raise ValueError("There is nothing to score.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # nltk warns where no 4-gram matches; the score is 0 then
        scores = corpus_bleu(references, hypotheses, weights=list(WEIGHTS))
    return tuple(100.0 * float(score) if score > 1e-12 else 0.0 for score in scores)
