"""Model, search and text together: features in, readable captions with their probabilities out.

Where a model has a second decoder, which reads from right to left, it can have a say in which of the sentences that the
search found is the caption (`SearchOptions.rerank`). It knows how a sentence ends before it judges how it begins.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captioner.datasets.batches import stack_captions
from captioner.decoder import Decoder, Memory
from captioner.model import CaptionModel
from captioner.options import SearchOptions
from captioner.search import Hypothesis, not_finite, search
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
    """Natural logarithm of the probability of the whole sentence, its end included, written from left to right."""
    words: tuple[Word, ...]
    """The sentence's tokens; `text` joins them."""
    word_probability: float
    """Geometric mean of the probabilities of the words and of the sentence's end: how sure the model is, 0..1."""
    alternatives: tuple["Caption", ...] = ()
    """The other sentences the search found, best first; by both decoders where the search was to rerank."""


_ROWS = 8192
"""Most words scored together, where an image has many sequences: the logits are 330 MB at 10,000 words."""


@torch.inference_mode()
def caption_features(
    model: CaptionModel, features: Tensor, vocabulary: Vocabulary, options: SearchOptions
) -> list[Caption]:
    """Features (B, R, C) -> one caption for each of the B images, with its alternatives.

    Raises OptionError where `options.rerank` asks for a decoder that the model does not have, and CaptionerError where
    its probabilities are not finite.
    """
    options.check_model(reverse=model.reverse is not None)
    memory = model.decoder.read(features)
    results = search(
        lambda tokens, state: model.decoder.step(tokens, state, memory),
        model.decoder.start(memory),
        start=START,
        end=END,
        never=(PAD, START, UNKNOWN),
        options=options,
    )
    if options.rerank and model.reverse is not None and results:
        results = _rerank(results, model.reverse, model.reverse.read(features), options)
    return [_caption(hypotheses, vocabulary) for hypotheses in results]


def sequence_log_probabilities(
    decoder: Decoder, memory: Memory, sequences: Sequence[Sequence[Sequence[int]]]
) -> Tensor:
    """What `read` gave for B images, and each one's token sequences -> their log-probabilities (B, K).

    A sequence has neither start nor end; its natural log-probability, in float32, is the sum over its tokens and its
    end, by the decoder's own softmax over all tokens, as in search. K is the most sequences of an image; places without
    one hold 0. A decoder that reads from right to left wants its sequences reversed. Gradients flow.
    """
    tokens = stack_captions([[[START, *sequence, END] for sequence in group] for group in sequences])
    tokens = tokens.to(memory.start[0].device)
    together = max(1, _ROWS // (tokens.shape[0] * tokens.shape[2]))
    parts = []
    for part in torch.split(tokens, together, dim=1):
        targets = part[..., 1:]
        real = targets != PAD
        logits, _ = decoder.follow(part[..., :-1], memory, real)
        chosen = logits.log_softmax(-1, dtype=torch.float32).gather(-1, targets[real].unsqueeze(-1)).squeeze(-1)
        parts.append(chosen.new_zeros(targets.shape).masked_scatter(real, chosen).sum(-1))
    return torch.cat(parts, 1)


def _rerank(
    results: Sequence[Sequence[Hypothesis]], reverse: Decoder, memory: Memory, options: SearchOptions
) -> list[list[Hypothesis]]:
    """Each image's hypotheses, the best first by both decoders: (1 - rerank) * left to right + rerank * right to left.

    Both log-probabilities are divided by length ** length_penalty, as in search. Unfinished hypotheses stay behind, in
    the order they had: what was cut off has no end to read from.
    """
    reversed_tokens = [[hypothesis.tokens[::-1] for hypothesis in hypotheses] for hypotheses in results]
    ranked = []
    for image, (hypotheses, logs) in enumerate(
        zip(results, sequence_log_probabilities(reverse, memory, reversed_tokens).tolist(), strict=True)
    ):
        if not all(map(math.isfinite, logs)):
            raise not_finite(image)
        places = []
        for hypothesis, log_probability in zip(hypotheses, logs, strict=False):
            score = log_probability / len(hypothesis.log_probabilities) ** options.length_penalty
            both = (1 - options.rerank) * hypothesis.score + options.rerank * score
            places.append((hypothesis.finished, both if hypothesis.finished else hypothesis.score))
        order = sorted(range(len(hypotheses)), key=places.__getitem__, reverse=True)
        ranked.append([hypotheses[index] for index in order])
    return ranked


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
