"""torch's arrays, for `arrays`."""

import math
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor


class TorchArrays:
    """As `arrays.Arrays` says, on one device."""

    concatenate = staticmethod(torch.cat)
    broadcast_to = staticmethod(torch.broadcast_to)

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.asks_freely = device.type == "cpu"

    def without_gradients(self) -> AbstractContextManager[object]:
        """As in Arrays."""
        return torch.inference_mode()

    def integers(self, start: int, stop: int) -> Tensor:
        """As in Arrays."""
        return torch.arange(start, stop, device=self.device)

    def full(self, shape: tuple[int, ...], value: float, kind: str = "float32") -> Tensor:
        """As in Arrays."""
        return torch.full(shape, value, dtype=getattr(torch, kind), device=self.device)

    def fill(self, values: Tensor, mask: Tensor, value: float) -> Tensor:
        """As in Arrays."""
        return values.masked_fill(mask, value)

    def largest(self, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """As in Arrays."""
        found: Any = values.topk(count)
        return found

    def take(self, values: Tensor, places: Tensor) -> Tensor:
        """As in Arrays."""
        return values.gather(-1, places)

    def softmax(self, values: Tensor) -> Tensor:
        """As in Arrays."""
        return values.softmax(-1)

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """As in Arrays."""
        return torch.rand(shape, device=self.device)

    def log(self, values: Tensor) -> Tensor:
        """As in Arrays."""
        return values.log()

    def ids(self, tokens: tuple[int, ...]) -> Tensor:
        """As in Arrays."""
        return torch.tensor(tokens, dtype=torch.int64, device=self.device)

    def log_probabilities(self, logits: Tensor, forbidden: Tensor) -> Tensor:
        """As in Arrays."""
        return torch.log_softmax(logits, -1, dtype=torch.float32).index_fill_(-1, forbidden, -math.inf)
