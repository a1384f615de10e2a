"""Greedy and diverse search, and sampling: hypotheses that grow side by side, none replaced by another."""

import math
from collections.abc import Callable

from captioner.options import SearchOptions
from captioner.search.arrays import Array, Arrays, arrays_of
from captioner.search.decoding import Decoding, Hypothesis, Watch, bar_loops, hypothesis_of, not_finite

Choose = Callable[[Array, Array], Array]
"""(log-probabilities (B, K, V), forbidden ones -inf; which chains ended (B, K)) -> each chain's next token (B, K)."""


def greedy_search(decoding: Decoding, options: SearchOptions, watch: Watch | None = None) -> list[list[Hypothesis]]:
    """One hypothesis per image: the most probable token at each step; errors as in `search`."""

    def most_probable(log_probabilities: Array, _: Array) -> Array:
        return log_probabilities.argmax(-1)

    return _side_by_side(decoding, most_probable, 1, options, watch)


def diverse_search(decoding: Decoding, options: SearchOptions, watch: Watch | None = None) -> list[list[Hypothesis]]:
    """`beam_size` greedy searches that keep apart; errors as in `search`.

    Each pays `diversity`, in log-probability, for every search before it that takes the same token at the same step
    (Vijayakumar et al. 2018, "Diverse Beam Search", algorithm 1 with groups of one and the Hamming penalty).
    What is paid counts in choosing tokens only: hypotheses are ranked by the model's own probabilities.
    """
    arrays = arrays_of(decoding.state[0])

    def apart(log_probabilities: Array, ended: Array) -> Array:
        batch, chains, vocabulary = log_probabilities.shape
        images, paid = arrays.integers(0, batch), arrays.full((batch, vocabulary), 0)
        tokens = arrays.full((batch, chains), 0, "int64")
        for chain in range(chains):
            tokens[:, chain] = (log_probabilities[:, chain] - paid).argmax(-1)
            paid[images, tokens[:, chain]] += options.diversity * ~ended[:, chain]  # what ended takes no more tokens
        return tokens

    return _side_by_side(decoding, apart, options.beam_size, options, watch)


def sampling_search(decoding: Decoding, options: SearchOptions, watch: Watch | None = None) -> list[list[Hypothesis]]:
    """`beam_size` hypotheses drawn with the global generator of torch or NumPy; errors as in `search`.

    Log-probabilities are divided by `temperature` first; then only the most probable tokens remain, as few as have
    `nucleus` of the probability together (Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration",
    section 3.1). Hypotheses are ranked by the model's own probabilities, and what is drawn twice counts once.
    """
    arrays = arrays_of(decoding.state[0])

    def draw(log_probabilities: Array, _: Array) -> Array:
        return _draw(log_probabilities, arrays, temperature=options.temperature, nucleus=options.nucleus)

    return _side_by_side(decoding, draw, options.beam_size, options, watch)


def grow(
    decoding: Decoding, choose: Choose, chains: int, steps: int, watch: Watch | None = None
) -> tuple[Array, Array]:
    """`chains` sequences for each image that grow side by side, none replaced by another, until all have ended.

    Tokens and their log-probabilities, both (B, chains, T), T at most `steps`. Behind its end a chain repeats it, with
    a log-probability of 0. The last step is not watched where it can only end what is as long as allowed.
    """
    arrays = arrays_of(decoding.state[0])
    state = tuple(arrays.broadcast_to(part, (len(part), chains, *part.shape[2:])) for part in decoding.state)
    shape = len(state[0]), chains
    tokens, forbidden = arrays.full(shape, decoding.start, "int64"), arrays.ids(decoding.never)
    ended = arrays.full(shape, False, "bool")
    history, logs = arrays.full((*shape, 0), 0, "int64"), arrays.full((*shape, 0), 0)
    for index in range(steps):
        logits, state = decoding.step(tokens, state)
        log_probabilities = arrays.log_probabilities(logits, forbidden)
        log_probabilities = bar_loops(log_probabilities, history, decoding.repeats, arrays)
        tokens = arrays.fill(choose(log_probabilities, ended), ended, decoding.end)
        log = arrays.fill(arrays.take(log_probabilities, tokens[..., None]), ended[..., None], 0)
        history = arrays.concatenate([history, tokens[..., None]], -1)
        logs = arrays.concatenate([logs, log], -1)
        ended |= tokens == decoding.end
        if watch:
            watch(index, history, arrays.fill(logs.sum(-1), ended, -math.inf))
        if ended.all():  # the one sync of a step
            break
    return history, logs


def _side_by_side(
    decoding: Decoding, choose: Choose, chains: int, options: SearchOptions, watch: Watch | None
) -> list[list[Hypothesis]]:
    """The hypotheses of `grow`, ranked; what several chains of an image found counts once."""

    def unfinished(index: int, tokens: Array, log_probabilities: Array) -> None:
        if watch and index < options.max_length:  # after that, a hypothesis can only end
            watch(index, tokens, log_probabilities)

    with arrays_of(decoding.state[0]).without_gradients():
        grown = grow(decoding, choose, chains, options.max_length + 1, unfinished if watch else None)
    results = []
    for image, group in enumerate(zip(*(part.tolist() for part in grown), strict=True)):
        found = {}
        for words, logs in zip(*group, strict=True):
            finished = decoding.end in words
            length = words.index(decoding.end) if finished else options.max_length
            counted = logs[: length + finished]
            if not all(map(math.isfinite, counted)) or math.isnan(logs[length]):
                raise not_finite(image)
            found[tuple(words[:length]), finished] = hypothesis_of(words[:length], counted, finished, options)
        finished_ones = [hypothesis for hypothesis in found.values() if hypothesis.finished]
        results.append(sorted(finished_ones or found.values(), key=lambda hypothesis: -hypothesis.score))
    return results


def _draw(log_probabilities: Array, arrays: Arrays, *, temperature: float, nucleus: float = 1.0) -> Array:
    """Log-probabilities (B, K, V) -> tokens (B, K) drawn as `sampling_search` says.

    The largest of log-probability plus Gumbel noise is a draw (Gumbel 1954; Maddison et al. 2014, section 2). Where
    nothing is possible, what is drawn has a logarithm that gives it away.
    """
    logits = log_probabilities / temperature
    if nucleus < 1:
        probabilities = arrays.softmax(logits)
        ordered, places = arrays.largest(probabilities, probabilities.shape[-1])
        beyond = ordered.cumsum(-1) - ordered >= nucleus  # those before it have enough
        logits = arrays.fill(logits, arrays.take(beyond, places.argsort(-1)), -math.inf)
    return (logits - arrays.log(-arrays.log(arrays.uniform(logits.shape)))).argmax(-1)
