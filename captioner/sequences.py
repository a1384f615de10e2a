"""Captions as tensors of ids, as decoders take them. It knows no data sets."""

from collections.abc import Sequence

import torch
from torch import Tensor

from captioner.text import PAD


def stack_captions(captions: Sequence[Sequence[Sequence[int]]]) -> Tensor:
    """Ids of the captions of B images -> tokens (B, K, T), int64, filled up with <pad>."""
    most = max(map(len, captions))
    longest = max(len(ids) for group in captions for ids in group)
    tokens = torch.full((len(captions), most, longest), PAD)
    for row, group in enumerate(captions):
        for column, ids in enumerate(group):
            tokens[row, column, : len(ids)] = torch.tensor(ids)
    return tokens
