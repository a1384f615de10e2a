"""CIDEr-D (Vedantam et al. 2015, "CIDEr: Consensus-based Image Description Evaluation") as the COCO evaluation has it.

A caption is four vectors, one for each n-gram length, with an entry for each n-gram: how often the caption has it,
times how rare it is among images (TF-IDF). A hypothesis scores its mean cosine with the references.

An n-gram is a number here, and sorted arrays of numbers do the counting: five times faster than dictionaries of tuples,
and small enough for hundreds of thousands of captions.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import numpy as np

from captioner.metrics.statistics import Array, Statistics, Tokens, check, mean

Integers: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"

ORDERS = (1, 2, 3, 4)
SIGMA = 6.0
"""How many words of difference in length the penalty forgives, as a standard deviation."""

_PAIR = 32  # bits: two numbers below 2**31 fit into one


@dataclass(frozen=True)
class DocumentFrequencies:
    """In how many images' references each n-gram appears. Learnt once, it scores any number of captions."""

    images: int
    words: dict[str, int]
    """Each word's number."""
    ngrams: tuple[Integers, ...]
    """For n = 1 to 4 (G_n,): the n-grams, sorted. An n-gram is the pair of the place of its first n-1 words among the
    (n-1)-grams and the number of its last word."""
    counts: tuple[Integers, ...]
    """For n = 1 to 4 (G_n,): the number of images."""


def document_frequencies(references: Sequence[Sequence[Tokens]]) -> DocumentFrequencies:
    """The frequencies in the references of a set of images: the sums in equation 1's logarithm.

    Raises ValueError and TypeError where `statistics.check` does.
    """
    check([()] * len(references), references)
    numbers = _numbers({})
    words, lengths = _flatten(list(chain.from_iterable(references)), numbers)
    image = np.repeat(np.arange(len(references)), [len(group) for group in references])
    ngrams, counts = [], []
    for _, caption, ngram, known in _ngrams(words, lengths, [np.zeros(0, np.int64)] * len(ORDERS)):
        # numpy sorts where counts are asked for; its hash table, used otherwise, takes ten times as long on millions.
        appearances, _ = np.unique(image[caption] << _PAIR | ngram, return_counts=True)
        ngrams.append(known)
        counts.append(np.bincount(_second(appearances), minlength=len(known)))
    return DocumentFrequencies(len(references), dict(numbers), tuple(ngrams), tuple(counts))


def cider(
    hypotheses: Sequence[Tokens],
    references: Sequence[Sequence[Tokens]],
    frequencies: DocumentFrequencies | None = None,
) -> Statistics:
    """CIDEr-D of one tokenised hypothesis an image against its tokenised references: the mean of the images' scores.

    The document frequencies come from these references unless given. The score of a single image against frequencies of
    its own is 0: nothing is rare there. Raises ValueError and TypeError where `statistics.check` does.
    """
    check(hypotheses, references)
    return mean("CIDEr-D", _scores(hypotheses, references, frequencies or document_frequencies(references)))


def _scores(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]], frequencies: DocumentFrequencies
) -> Array:
    """Each image's score (N,), 0..10: equations 1 to 3 with CIDEr-D's changes.

    They are: no stemming, no more of an n-gram than the reference has, a penalty on other lengths, and the factor 10.
    """
    groups = np.array([len(group) for group in references])
    image = np.concatenate([np.arange(len(groups)), np.repeat(np.arange(len(groups)), groups)])  # of each caption
    first = len(hypotheses)  # the number of the first reference: captions are the hypotheses, then the references
    words, lengths = _flatten([*hypotheses, *chain.from_iterable(references)], _numbers(frequencies.words))
    similarity = np.zeros(len(image) - first)
    for order, caption, ngram, known in _ngrams(words, lengths, frequencies.ngrams):
        counts = frequencies.counts[order - 1]
        appearances = np.pad(counts, (0, len(known) - len(counts)))
        rarity = np.log(frequencies.images / np.maximum(1, appearances))
        entries, times = np.unique(caption << _PAIR | ngram, return_counts=True)
        caption, ngram = entries >> _PAIR, _second(entries)
        weight = times * rarity[ngram]  # equation 1; its denominator cancels out in the cosine
        norm = np.sqrt(np.bincount(caption, weight**2, minlength=len(image)))

        start = np.searchsorted(caption, first)
        theirs = weight[start:]
        place = _find(image[caption[start:]] << _PAIR | ngram[start:], entries[:start])
        ours = np.append(weight[:start], 0.0)[place]
        product = np.bincount(caption[start:] - first, np.minimum(ours, theirs) * theirs, minlength=len(similarity))
        norms = norm[image[first:]] * norm[first:]
        similarity += np.divide(product, norms, out=np.zeros(len(product)), where=norms > 0)  # equation 2, clipped
    difference = lengths[image[first:]] - lengths[first:]
    similarity *= np.exp(-(difference**2) / (2 * SIGMA**2))
    return 10.0 / len(ORDERS) * np.bincount(image[first:], similarity) / groups  # equation 3


def _numbers(words: dict[str, int]) -> defaultdict[str, int]:
    """A copy of `words` that gives a new word the next number."""
    numbers: defaultdict[str, int] = defaultdict(None, words)
    numbers.default_factory = numbers.__len__
    return numbers


def _flatten(captions: Sequence[Tokens], numbers: defaultdict[str, int]) -> tuple[Integers, Integers]:
    """The numbers of all words of all captions in a row, and the captions' lengths."""
    lengths = np.array([len(caption) for caption in captions])
    return np.fromiter(map(numbers.__getitem__, chain.from_iterable(captions)), np.int64, lengths.sum()), lengths


def _ngrams(
    words: Integers, lengths: Integers, known: Sequence[Integers]
) -> Iterator[tuple[int, Integers, Integers, Integers]]:
    """For n = 1 to 4: n, the caption and the number of every n-gram in it (both (M,)), and the n-grams by number.

    A known n-gram's number is its place in `known` (see `DocumentFrequencies.ngrams`); new ones follow.
    """
    caption = np.repeat(np.arange(len(lengths)), lengths)
    remaining = np.repeat(lengths.cumsum(), lengths) - np.arange(len(words))  # from each word to its caption's end
    number = np.zeros_like(words)  # of the n-gram that starts at each word
    for order, ngrams in zip(ORDERS, known, strict=True):
        starts = np.flatnonzero(remaining >= order)
        pairs = number[starts] << _PAIR | words[starts + order - 1]
        found = _find(pairs, ngrams)
        new, place = np.unique(pairs[found < 0], return_inverse=True)
        found[found < 0] = len(ngrams) + place
        number[starts] = found
        yield order, caption[starts], found, np.append(ngrams, new)


def _find(values: Integers, among: Integers) -> Integers:
    """The place of each value (0 or above) in the sorted array `among`, -1 where it is not there."""
    place = np.searchsorted(among, values)
    return np.where(np.append(among, -1)[place] == values, place, -1)


def _second(pairs: Integers) -> Integers:
    return pairs & ((1 << _PAIR) - 1)
