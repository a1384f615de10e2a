"""What every search works on: a model about to write, and the hypotheses that come of it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from captioner.errors import ModelFileError
from captioner.options import SearchOptions
from captioner.search.arrays import Array, Arrays

State = tuple[Array, ...]
"""The recurrent state: at least one array, each (B, K, ...) for K hypotheses of each of B images.

It decides which library the search computes with: that of its arrays (`search.arrays`).
"""

Step = Callable[[Array, State], tuple[Array, State]]
"""(last tokens (B, K) int64, state) -> (logits (B, K, V) of the next token in any float type, the state after it)."""

Watch = Callable[[int, Array, Array], None]
"""Takes step (from 0), tokens (B, K, step + 1) and log-probabilities (B, K) of the live hypotheses; -inf: none."""

_PERIODS = (1, 2)
"""Lengths, in tokens, of what may be barred from coming again and again."""


@dataclass(frozen=True)
class Decoding:
    """What a search has to know of a model that is about to write the captions of B images."""

    step: Step
    state: State
    """The initial one, (B, 1, ...)."""
    start: int
    """The token before the first one."""
    end: int
    never: tuple[int, ...] = ()
    """Tokens that may not be produced; list `start` too."""
    repeats: int | None = None
    """A token, or a pair of tokens, may come so often in a row (1 or more), and not once more; None: for ever.

    So no caption ends in a loop. A model that leaves nothing else than what is barred has no possible hypothesis.
    """


@dataclass(frozen=True)
class Hypothesis:
    """A token sequence with its natural log-probability under the model."""

    tokens: tuple[int, ...]
    """Without start and end."""
    log_probabilities: tuple[float, ...]
    """Of each token, and of the end last if finished."""
    finished: bool
    """It reached the end; False: it was cut at the greatest length."""
    score: float
    """What it is ranked by: log-probability / len(log_probabilities) ** length_penalty, unless it was judged again."""

    @property
    def log_probability(self) -> float:
        """The sum over its tokens, and its end if finished."""
        return sum(self.log_probabilities)


def bar_loops(log_probabilities: Array, history: Array, repeats: int | None, arrays: Arrays) -> Array:
    """Log-probabilities (B, K, V), -inf where a token would bring the last one, or pair, once more than `repeats`.

    `history` (B, K, T) are the tokens so far. Changes its argument.
    """
    if repeats is None:
        return log_probabilities
    # No loop where the last token is none of the two before it.
    if repeats > 1 and arrays.asks_freely and not (history[..., -1:] == history[..., -3:-1]).any():
        return log_probabilities
    for period in _PERIODS:
        compared = repeats * period - 1  # of the last tokens, with those a period before
        if history.shape[-1] < compared + period:
            break
        last = history[..., history.shape[-1] - compared :]
        before = history[..., history.shape[-1] - compared - period : history.shape[-1] - period]
        looping = (last == before).all(-1)
        batch, chains = looping.shape
        where = arrays.integers(0, batch)[:, None], arrays.integers(0, chains)[None], history[..., -period]
        log_probabilities[where] = arrays.fill(log_probabilities[where], looping, -math.inf)
    return log_probabilities


def hypothesis_of(tokens: list[int], logs: list[float], finished: bool, options: SearchOptions) -> Hypothesis:
    """A hypothesis with its score under `options`; `logs` as in Hypothesis."""
    score = sum(logs) / len(logs) ** options.length_penalty
    return Hypothesis(tuple(tokens), tuple(logs), finished, score)


def not_finite(image: int) -> ModelFileError:
    """What is raised where a model's probabilities for an image, by its place in the batch, are no numbers.

    Its weights are damaged, or so great that their sums are infinite; whoever knows the file says which it is.
    """
    return ModelFileError(
        "The model", f"gives no finite probabilities for image {image} of its batch", "train or copy its file anew"
    )
