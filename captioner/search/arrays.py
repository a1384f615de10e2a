"""The arrays that a search computes with: torch's or NumPy's, one search for both.

`arrays_of` chooses by the state that it is handed, so that NumPy's need no torch. Both classes promise the same of each
method; the searches use them for what the two libraries call or do differently, and else what they share: indexing,
comparisons, arithmetic, `tolist`.
"""

import math
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias

import numpy as np

Array: TypeAlias = Any
"""A torch.Tensor or a numpy.ndarray."""


class Arrays(Protocol):
    """What a search asks of a library of arrays, beside what all share."""

    concatenate: Any
    """Arrays in a list or tuple, and the axis."""
    broadcast_to: Any
    """An array and a shape."""
    asks_freely: bool
    """Asking an array for a value waits for nobody, as it would on a GPU."""

    def without_gradients(self) -> AbstractContextManager[object]:
        """The context to search in."""

    def integers(self, start: int, stop: int) -> Array:
        """start, ..., stop - 1, int64."""

    def full(self, shape: tuple[int, ...], value: float, kind: str = "float32") -> Array:
        """An array of one value; `kind` is int64, bool or float32."""

    def fill(self, values: Array, mask: Array, value: float) -> Array:
        """The values, with another one where the mask, which may be narrower, is true."""

    def largest(self, values: Array, count: int) -> tuple[Array, Array]:
        """The `count` largest along the last axis, the largest first, and their places; NaN is above all."""

    def take(self, values: Array, places: Array) -> Array:
        """What stands at these places of the last axis; the other axes of both are alike."""

    def softmax(self, values: Array) -> Array:
        """Along the last axis."""

    def uniform(self, shape: tuple[int, ...]) -> Array:
        """Numbers from 0 to below 1, float32, drawn with the library's global generator."""

    def log(self, values: Array) -> Array:
        """Natural logarithms; that of 0 is -inf."""

    def ids(self, tokens: tuple[int, ...]) -> Array:
        """Token ids, int64."""

    def log_probabilities(self, logits: Array, forbidden: Array) -> Array:
        """The model's own log-probabilities in float32, and -inf for tokens (ids) that may not be produced."""


class NumpyArrays:
    """NumPy's."""

    concatenate = staticmethod(np.concatenate)
    broadcast_to = staticmethod(np.broadcast_to)
    asks_freely = True

    def without_gradients(self) -> AbstractContextManager[object]:
        """As in Arrays: NumPy knows none, and what is no number is found where it matters."""
        return np.errstate(all="ignore")

    def integers(self, start: int, stop: int) -> Array:
        """As in Arrays."""
        return np.arange(start, stop)

    def full(self, shape: tuple[int, ...], value: float, kind: str = "float32") -> Array:
        """As in Arrays."""
        return np.full(shape, value, dtype=kind)

    def fill(self, values: Array, mask: Array, value: float) -> Array:
        """As in Arrays."""
        return np.where(mask, value, values).astype(values.dtype, copy=False)

    def largest(self, values: Array, count: int) -> tuple[Array, Array]:
        """As in Arrays."""
        ranks = np.where(np.isnan(values), -math.inf, -values)
        places = np.argpartition(ranks, count - 1, axis=-1)[..., :count] if count < ranks.shape[-1] else None
        if places is None:
            places = np.argsort(ranks, axis=-1, kind="stable")
        else:
            order = np.argsort(np.take_along_axis(ranks, places, -1), axis=-1, kind="stable")
            places = np.take_along_axis(places, order, -1)
        return np.take_along_axis(values, places, -1), places

    def take(self, values: Array, places: Array) -> Array:
        """As in Arrays."""
        return np.take_along_axis(values, places, -1)

    def softmax(self, values: Array) -> Array:
        """As in Arrays."""
        powers = np.exp(values - values.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)

    def uniform(self, shape: tuple[int, ...]) -> Array:
        """As in Arrays."""
        # Rounded to float32, the largest are 1.
        return np.minimum(np.random.random(shape).astype(np.float32), 1 - np.finfo(np.float32).epsneg)

    def log(self, values: Array) -> Array:
        """As in Arrays."""
        return np.log(values)

    def ids(self, tokens: tuple[int, ...]) -> Array:
        """As in Arrays."""
        return np.array(tokens, dtype=np.int64)

    def log_probabilities(self, logits: Array, forbidden: Array) -> Array:
        """As in Arrays."""
        logits = logits.astype(np.float32)
        logits -= logits.max(-1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        logits[..., forbidden] = -math.inf
        return logits


def arrays_of(example: Array) -> Arrays:
    """The library that an array is of, computing where it lies."""
    if isinstance(example, np.ndarray):
        return NumpyArrays()
    from captioner.search.torch_arrays import TorchArrays  # whoever has a tensor has torch

    return TorchArrays(example.device)
