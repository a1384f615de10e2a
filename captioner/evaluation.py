"""Scores one caption an image, against its references: for training's validation and `evaluate` alike.

Knows nothing of networks: the captions may be anybody's.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from captioner.datasets.dataset import CaptionedImage
from captioner.metrics.bleu import bleu
from captioner.metrics.bootstrap import bootstrap, interval
from captioner.metrics.cider import cider
from captioner.metrics.degeneration import Degeneration, complaint, measure
from captioner.metrics.remarks import SINGLE, remarks
from captioner.metrics.rouge import rouge
from captioner.metrics.statistics import Array, Statistics, Tokens
from captioner.text import tokenise

Measure: TypeAlias = Callable[[Sequence[Tokens], Sequence[Sequence[Tokens]]], Statistics]
"""Hypotheses, one an image, and the references of each image -> a metric's statistics."""


@dataclass(frozen=True)
class Evaluation:
    """Captions of some images and what they scored."""

    images: tuple[CaptionedImage, ...]
    captions: tuple[str, ...]
    hypotheses: tuple[Tokens, ...]
    """The tokens of `captions`."""
    references: tuple[tuple[Tokens, ...], ...]
    """The tokens of each image's references."""
    metrics: tuple[Statistics, ...]
    """BLEU-1 to BLEU-4, CIDEr-D, ROUGE-L, then what else was asked for."""

    @property
    def scores(self) -> dict[str, float]:
        """The score of each metric by its name, times 100."""
        return {metric.name: metric.score for metric in self.metrics}

    @property
    def rank(self) -> tuple[float, ...]:
        """What decides which of two evaluations is better: CIDEr-D, then BLEU-4, 3, 2 and 1.

        Of several data sets together, it is the mean of theirs: each counts the same, however many images it has.

        CIDEr-D tells late epochs apart, where BLEU-4 moves up and down by more than it grows (measured: see
        docs/experiments.md). On a few validation pictures no 4-gram may match, and on a single one CIDEr-D is 0; the
        lower orders still tell. The protocol's small constants leave a BLEU without matches below 0.1, more where
        captions are shorter: that is no merit.
        """
        if self.parts:
            ranks = [part.rank for part in self.parts.values()]
            return tuple(sum(scores) / len(ranks) for scores in zip(*ranks, strict=True))
        return tuple(metric.score if metric.score > 0.1 else 0.0 for metric in self.metrics[4::-1])

    @cached_property
    def parts(self) -> dict[str, "Evaluation"]:
        """Each data set alone, by its name, where several were joined; with document frequencies of its own."""
        origins = dict.fromkeys(image.origin for image in self.images)
        if len(origins) < 2:
            return {}
        places = {
            origin: [place for place, image in enumerate(self.images) if image.origin == origin] for origin in origins
        }
        return {
            origin: evaluate([self.images[place] for place in own], [self.captions[place] for place in own])
            for origin, own in places.items()
        }

    @property
    def exact(self) -> float:
        """Percentage of captions that equal one of their references, token for token."""
        pairs = zip(self.hypotheses, self.references, strict=True)
        return 100.0 * sum(hypothesis in group for hypothesis, group in pairs) / len(self.captions)

    @property
    def distinct(self) -> int:
        """How many different captions there are."""
        return len(set(map(tuple, self.hypotheses)))

    @property
    def length(self) -> float:
        """Mean number of words of a caption."""
        return sum(map(len, self.hypotheses)) / len(self.hypotheses)

    @property
    def reference_length(self) -> float:
        """Mean number of words of a reference."""
        return sum(len(tokens) for group in self.references for tokens in group) / sum(map(len, self.references))

    @property
    def longest(self) -> int:
        """Words of the longest caption."""
        return max(map(len, self.hypotheses))

    @property
    def length_ratio(self) -> float:
        """The captions' words over those of their closest references: below 1, BLEU's brevity penalty falls."""
        words, closest = self.metrics[0].counts[:, :2].sum(axis=0)
        return float(words / closest) if closest else math.inf

    @property
    def references_each(self) -> float:
        """Mean number of references an image."""
        return sum(map(len, self.references)) / len(self.references)

    @cached_property
    def habits(self) -> tuple[Degeneration, Degeneration]:
        """What the captions, and all references, do that a degenerate model does more."""
        return measure(self.hypotheses), measure(tokens for group in self.references for tokens in group)

    @cached_property
    def complaint(self) -> str:
        """One line that calls out a degenerate model; "" for a sound one."""
        return complaint(self.hypotheses, *self.habits)

    @cached_property
    def remarks(self) -> list[str]:
        """What the scores do not say of themselves, a line each."""
        texts = [caption for image in self.images for caption in image.captions]
        tokens = [tokens for group in self.references for tokens in group]
        alone = ["a single image"] if len(self.images) == 1 else []
        alone += [name for name, part in self.parts.items() if len(part.images) == 1]
        return [
            *remarks(self.captions, self.hypotheses, "captions"),
            *remarks(texts, tokens, "references"),
            *(f"CIDEr-D of {name} {SINGLE}." for name in alone),
        ]

    @property
    def image_ciders(self) -> list[float]:
        """Each image's own CIDEr-D, times 100; of several data sets, with each one's document frequencies."""
        if not self.parts:
            return [float(score) for score in self.metrics[4].images]
        scores = {name: iter(part.image_ciders) for name, part in self.parts.items()}
        return [next(scores[image.origin]) for image in self.images]

    def summary(self) -> dict[str, Any]:
        """The scores by name, rounded for logs and model files; of several data sets, each one's under `data_sets`."""
        parts = {"data_sets": {name: part.summary() for name, part in self.parts.items()}} if self.parts else {}
        scores = {name: round(score, 2) for name, score in self.scores.items()}
        return {
            **scores,
            "exact": round(self.exact, 2),
            "distinct": self.distinct,
            "images": len(self.images),
            "references": round(self.references_each, 2),
            **parts,
        }

    def intervals(self, resamples: int) -> dict[str, tuple[float, float]]:
        """95% bootstrap intervals of the scores, over images, by the metric's name."""
        samples = bootstrap(self.metrics, resamples=resamples)
        return {metric.name: interval(row) for metric, row in zip(self.metrics, samples, strict=True)}


@dataclass(frozen=True)
class Difference:
    """One metric of two sets of captions, on the same images and the same references."""

    name: str
    ours: float
    theirs: float
    low: float
    """`low` to `high`: the 95% bootstrap interval of ours - theirs."""
    high: float
    higher: float
    """Share of the resamples in which ours is the higher, 0..1; a tie counts half."""


def evaluate(images: Sequence[CaptionedImage], captions: Sequence[str], *, also: Sequence[Measure] = ()) -> Evaluation:
    """Scores one caption an image, in the order of `images`, with `also` measured after the usual metrics.

    Raises ValueError where captions and images do not pair up.
    """
    hypotheses = tuple(map(tokenise, captions))
    references = tuple(tuple(map(tokenise, image.captions)) for image in images)
    metrics = _metrics(hypotheses, references, also)
    return Evaluation(tuple(images), tuple(captions), hypotheses, references, metrics)


def _metrics(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]], also: Sequence[Measure] = ()
) -> tuple[Statistics, ...]:
    others = (measure(hypotheses, references) for measure in (cider, rouge, *also))
    return (*bleu(hypotheses, references), *others)


def compare(ours: Evaluation, theirs: Evaluation, *, resamples: int) -> list[Difference]:
    """How two sets of captions of the same images differ, metric by metric, by a paired bootstrap over the images."""
    return _differences([(ours.metrics, theirs.metrics)], resamples)


def compare_with_people(evaluation: Evaluation, *, resamples: int, also: Sequence[Measure] = ()) -> list[Difference]:
    """The captions, and one person's, against the same other references: both face one reference less.

    The person is each image's first reference, then its second, and so on to the smallest number that an image has;
    scores are averaged over these choices. Raises ValueError where an image has fewer than two references.
    """
    choices = min(map(len, evaluation.references))
    if choices < 2:
        raise ValueError("An image has fewer than two references.")
    pairs = []
    for choice in range(choices):
        people = [group[choice] for group in evaluation.references]
        others = [(*group[:choice], *group[choice + 1 :]) for group in evaluation.references]
        pairs.append((_metrics(evaluation.hypotheses, others, also), _metrics(people, others, also)))
    return _differences(pairs, resamples)


def _higher(differences: Array) -> float:
    """The share of differences above 0, a tie counting half; what is printed as 0.00 is a tie."""
    return float((np.sign(np.where(np.abs(differences) < 0.005, 0, differences)).mean() + 1) / 2)


def _differences(
    pairs: Sequence[tuple[Sequence[Statistics], Sequence[Statistics]]], resamples: int
) -> list[Difference]:
    """One difference a metric, the mean over `pairs` of what (ours, theirs) scored."""
    flat = [metric for ours, theirs in pairs for metric in (*ours, *theirs)]
    names = [metric.name for metric in pairs[0][0]]
    shape = (len(pairs), 2, len(names), -1)
    scores = np.array([metric.score for metric in flat]).reshape(shape).mean(axis=(0, 3))
    samples = bootstrap(flat, resamples=resamples).reshape(shape).mean(axis=0)
    differences = samples[0] - samples[1]
    return [
        Difference(name, float(ours), float(theirs), *interval(row), higher=_higher(row))
        for name, ours, theirs, row in zip(names, *scores, differences, strict=True)
    ]
