"""Model, search and text together: features in, readable captions with their probabilities out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captioner.decoder import Decoder
from captioner.options import SearchOptions
from captioner.search import Hypothesis, search
from captioner.text import END, PAD, START, UNKNOWN, Vocabulary, readable


@dataclass(frozen=True)
class Word:
    """A word of a caption, with the probability the model gave it after the words before it."""

    text: str
    probability: float


@dataclass(frozen=True)
class Caption:
    """A sentence about a picture."""

    text: str
    log_probability: float
    """Natural logarithm of the probability of the whole sentence, its end included."""
    words: tuple[Word, ...]
    """The sentence's tokens; `text` joins them."""
    word_probability: float
    """Geometric mean of the probabilities of the words and of the sentence's end: how sure the model is, 0..1."""
    alternatives: tuple["Caption", ...] = ()
    """The other sentences the search found, best first."""


@torch.inference_mode()
def caption_features(
    decoder: Decoder, features: Tensor, vocabulary: Vocabulary, options: SearchOptions
) -> list[Caption]:
    """Features (B, R, C) -> one caption for each of the B images, with its alternatives."""
    memory = decoder.read(features)
    results = search(
        lambda tokens, state: decoder.step(tokens, state, memory),
        decoder.start(memory),
        start=START,
        end=END,
        never=(PAD, START, UNKNOWN),
        options=options,
    )
    return [_caption(hypotheses, vocabulary) for hypotheses in results]


def _caption(hypotheses: Sequence[Hypothesis], vocabulary: Vocabulary) -> Caption:
    """The first hypothesis as a caption, the others as its alternatives."""
    first, *others = hypotheses
    words = vocabulary.decode(first.tokens)
    return Caption(
        text=readable(words),
        log_probability=first.log_probability,
        words=tuple(Word(word, math.exp(p)) for word, p in zip(words, first.log_probabilities, strict=False)),
        word_probability=math.exp(first.log_probability / max(1, len(first.log_probabilities))),
        alternatives=tuple(_caption([other], vocabulary) for other in others),
    )
