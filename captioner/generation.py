"""Model, search and text together: features in, readable captions with their probabilities out.

Where a model has a second decoder, which reads from right to left, it can have a say in which of the sentences that the
search found is the caption (`SearchOptions.rerank`). It knows how a sentence ends before it judges how it begins.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from captioner.captions import Branch, Caption, Explanation, Word
from captioner.options import ImageOptions, SearchOptions
from captioner.search import Decoding, Hypothesis, Watch, not_finite, search
from captioner.text import END, Vocabulary, readable


class Network(Protocol):
    """What captioning asks of a network: whatever can answer, in torch or not, can caption.

    Its features are its own affair: they come from `encode` and go back to the others, some images together.
    """

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the cells between which its attention chooses."""

    @property
    def device(self) -> str:
        """Where it computes: "cpu", "cuda:0"."""

    @property
    def precision(self) -> str:
        """What it computes in: "float32", "bfloat16" or "float16"."""

    @property
    def reads_backwards(self) -> bool:
        """It has a right-to-left decoder, so that `score` can be asked."""

    def seeing(self, image: ImageOptions) -> "Network":
        """The same network, for pictures that are fitted and normalised in another way."""

    def encode(self, pixels: Sequence[Any]) -> Any:
        """Pictures, each uint8 (3, size, size) as `pictures.look` prepares them -> their features, together."""

    def begin(self, features: Any) -> Decoding:
        """What a search for the captions of these images needs."""

    def score(self, features: Any, sequences: Sequence[Sequence[Sequence[int]]]) -> list[list[float]]:
        """The right-to-left decoder's log-probability of each of each image's sequences, ids from left to right."""

    def attention(self, features: Any, sequences: Sequence[Sequence[int]]) -> list[list[list[list[float]]]] | None:
        """Where it looks in one image for each token of each sequence: shares of the grid's cells, in rows; or None."""


def caption_features(network: Network, features: Any, vocabulary: Vocabulary, options: SearchOptions) -> list[Caption]:
    """The features of B images -> one caption for each, with its alternatives.

    Raises OptionError where `options.rerank` asks for a decoder that the network does not have, and ModelFileError
    where its probabilities are not finite.
    """
    return [_caption(hypotheses, vocabulary) for hypotheses in _search(network, features, options)]


def explain_features(
    network: Network,
    features: Any,
    vocabulary: Vocabulary,
    options: SearchOptions,
    *,
    progress: Callable[[str], None] | None = None,
) -> Explanation:
    """The features of one image -> its caption, with where the model looked for each word, and the search's tree.

    `progress` is told the most probable beginning after each word. Raises what `caption_features` raises.
    """
    met: dict[tuple[int, ...], float] = {}

    def watch(_: int, tokens: Any, log_probabilities: Any) -> None:
        live: dict[tuple[int, ...], float] = {
            tuple(beginning): total
            for beginning, total in zip(tokens[0].tolist(), log_probabilities[0].tolist(), strict=True)
            if total > -math.inf
        }
        met.update(live)
        if progress and live:
            best = max(live.items(), key=lambda item: item[1])[0]
            progress(readable(vocabulary.decode(best)))

    [hypotheses] = _search(network, features, options, watch)
    looks = network.attention(features, [hypothesis.tokens for hypothesis in hypotheses])
    return Explanation(_caption(hypotheses, vocabulary, looks or []), _tree(met, hypotheses, vocabulary))


def _search(
    network: Network, features: Any, options: SearchOptions, watch: Watch | None = None
) -> list[list[Hypothesis]]:
    """The hypotheses for the features of B images, best first by the decoders asked."""
    options.check_model(reverse=network.reads_backwards)
    results = search(network.begin(features), options, watch)
    return _rerank(results, network, features, options) if options.rerank and results else results


def _rerank(
    results: Sequence[Sequence[Hypothesis]], network: Network, features: Any, options: SearchOptions
) -> list[list[Hypothesis]]:
    """Each image's hypotheses, best first by a score of both: (1 - rerank) * left to right + rerank * right to left.

    Both log-probabilities are divided by length ** length_penalty, as in search. Unfinished hypotheses stay behind, in
    the order they had: what was cut off has no end to read from.
    """
    scores = network.score(features, [[hypothesis.tokens for hypothesis in hypotheses] for hypotheses in results])
    ranked = []
    for image, (hypotheses, logs) in enumerate(zip(results, scores, strict=True)):
        if not all(map(math.isfinite, logs)):
            raise not_finite(image)
        places = []
        for hypothesis, log_probability in zip(hypotheses, logs, strict=True):
            score = log_probability / len(hypothesis.log_probabilities) ** options.length_penalty
            both = (1 - options.rerank) * hypothesis.score + options.rerank * score
            places.append((hypothesis.finished, both if hypothesis.finished else hypothesis.score))
        order = sorted(range(len(hypotheses)), key=places.__getitem__, reverse=True)
        ranked.append([replace(hypotheses[index], score=places[index][1]) for index in order])
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
        score=first.score,
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
