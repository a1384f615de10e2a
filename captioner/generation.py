"""Model, search and text together: features in, readable captions with their probabilities out.

Where a model has a second decoder, which reads from right to left, it can have a say in which of the sentences that the
search found is the caption (`SearchOptions.rerank`). It knows how a sentence ends before it judges how it begins.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from captioner.captions import Branch, Caption, Word
from captioner.decoder import Decoder, Memory
from captioner.model import CaptionModel
from captioner.options import SearchOptions
from captioner.search import Hypothesis, Watch, not_finite, search
from captioner.sequences import stack_captions
from captioner.text import END, PAD, START, UNKNOWN, Vocabulary, readable

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
    results = _search(model, features, model.decoder.read(features), options)
    return [_caption(hypotheses, vocabulary) for hypotheses in results]


@torch.inference_mode()
def explain_features(
    model: CaptionModel,
    features: Tensor,
    vocabulary: Vocabulary,
    options: SearchOptions,
    *,
    progress: Callable[[str], None] | None = None,
) -> tuple[Caption, tuple[Branch, ...]]:
    """Features (R, C) of one image -> its caption, with where the model looked for each word, and the search's tree.

    `progress` is told the most probable beginning after each word. Raises what `caption_features` raises.
    """
    met: dict[tuple[int, ...], float] = {}

    def watch(_: int, tokens: Tensor, log_probabilities: Tensor) -> None:
        live: dict[tuple[int, ...], float] = {
            tuple(beginning): total
            for beginning, total in zip(tokens[0].tolist(), log_probabilities[0].tolist(), strict=True)
            if total > -math.inf
        }
        met.update(live)
        if progress and live:
            best = max(live.items(), key=lambda item: item[1])[0]
            progress(readable(vocabulary.decode(best)))

    memory = model.decoder.read(features[None])
    [hypotheses] = _search(model, features[None], memory, options, watch)
    tokens = stack_captions([[[START, *hypothesis.tokens] for hypothesis in hypotheses]]).to(features.device)
    _, attention = model.decoder.follow(tokens, memory, torch.zeros_like(tokens, dtype=torch.bool))  # no logits
    looks: list[list[list[list[float]]]] = []  # of each hypothesis, for each word, the rows of the grid
    if attention is not None:
        looks = attention[0].float().view(*tokens.shape[1:], *model.encoder.grid).tolist()
    return _caption(hypotheses, vocabulary, looks), _tree(met, hypotheses, vocabulary)


def _search(
    model: CaptionModel, features: Tensor, memory: Memory, options: SearchOptions, watch: Watch | None = None
) -> list[list[Hypothesis]]:
    """The hypotheses for features (B, R, C), and what `read` gave for them, best first by the decoders asked."""
    options.check_model(reverse=model.reverse is not None)
    results = search(
        lambda tokens, state: model.decoder.step(tokens, state, memory),
        model.decoder.start(memory),
        start=START,
        end=END,
        never=(PAD, START, UNKNOWN),
        options=options,
        watch=watch,
    )
    if options.rerank and model.reverse is not None and results:
        results = _rerank(results, model.reverse, model.reverse.read(features), options)
    return results


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


def _caption(
    hypotheses: Sequence[Hypothesis], vocabulary: Vocabulary, looks: Sequence[Sequence[Sequence[Sequence[float]]]] = ()
) -> Caption:
    """The first hypothesis as a caption, the others as its alternatives; `looks`: where each looked for each word."""
    first, *others = hypotheses
    words = vocabulary.decode(first.tokens)
    grids = [tuple(map(tuple, rows)) for rows in looks[0]] if looks else [()] * len(words)
    return Caption(
        text=readable(words),
        log_probability=first.log_probability,
        words=tuple(
            Word(word, math.exp(p), grid)
            for word, p, grid in zip(words, first.log_probabilities, grids, strict=False)  # logs: the end's too
        ),
        word_probability=math.exp(first.log_probability / max(1, len(first.log_probabilities))),
        alternatives=tuple(
            _caption([other], vocabulary, looks[place : place + 1]) for place, other in enumerate(others, 1)
        ),
    )


def _tree(
    met: dict[tuple[int, ...], float], hypotheses: Sequence[Hypothesis], vocabulary: Vocabulary
) -> tuple[Branch, ...]:
    """The beginnings that a search met, with their log-probabilities, and the sentences it found -> the first words."""
    totals = dict(met)
    sentences: dict[tuple[int, ...], int] = {}
    for place, hypothesis in enumerate(hypotheses):
        path = hypothesis.tokens + (END,) * hypothesis.finished
        for length in range(1, len(path) + 1):
            totals[path[:length]] = sum(hypothesis.log_probabilities[:length])
            sentences.setdefault(path[:length], place)
    followers: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for beginning in sorted(totals, key=lambda beginning: -totals[beginning]):
        followers.setdefault(beginning[:-1], []).append(beginning)

    def branches(before: tuple[int, ...]) -> tuple[Branch, ...]:
        return tuple(
            Branch(
                word="" if beginning[-1] == END else vocabulary.decode(beginning[-1:])[0],
                probability=math.exp(totals[beginning] - totals.get(before, 0.0)),
                log_probability=totals[beginning],
                sentence=sentences.get(beginning),
                branches=branches(beginning),
            )
            for beginning in followers.get(before, [])
        )

    return branches(())
