"""Captions every picture of a split once and scores the captions: for training's validation and `evaluate` alike."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from captioner.datasets.dataset import CaptionedImage
from captioner.generation import Caption
from captioner.metrics.bleu import bleu
from captioner.text import tokenise


@dataclass(frozen=True)
class Evaluation:
    """What captions of a split scored."""

    bleu: tuple[float, ...]
    """BLEU-1 to BLEU-4, times 100."""
    exact: float
    """Percentage of captions that equal one of their references, token for token."""
    distinct: int
    """How many different captions there are."""
    images: int
    references: float
    """Mean number of references an image."""
    results: tuple[dict[str, int | str], ...]
    """COCO's results format: one {"image_id", "caption"} an image, in the order of the split."""

    @property
    def rank(self) -> tuple[float, ...]:
        """What decides which of two evaluations is better: BLEU-4, then 3, 2 and 1.

        On a few validation pictures BLEU-4 is often 0; the lower orders still tell.
        """
        return self.bleu[::-1]

    def summary(self) -> dict[str, float]:
        """The scores by name, rounded for logs and model files."""
        scores = {f"bleu{n}": round(score, 2) for n, score in enumerate(self.bleu, 1)}
        return {
            **scores,
            "exact": round(self.exact, 2),
            "distinct": self.distinct,
            "images": self.images,
            "references": round(self.references, 2),
        }


def evaluate(images: Sequence[CaptionedImage], captions: Iterable[Caption]) -> Evaluation:
    """Scores one caption an image, in the order of `images`; raises ValueError where they do not pair up."""
    texts = [caption.text for caption in captions]
    hypotheses = [tokenise(text) for text in texts]
    references = [[tokenise(reference) for reference in image.captions] for image in images]
    scores = bleu(hypotheses, references)
    exact = sum(hypothesis in against for hypothesis, against in zip(hypotheses, references, strict=True))
    return Evaluation(
        bleu=scores,
        exact=100.0 * exact / len(texts),
        distinct=len(set(texts)),
        images=len(texts),
        references=sum(map(len, references)) / len(texts),
        results=tuple({"image_id": image.image_id, "caption": text} for image, text in zip(images, texts, strict=True)),
    )
