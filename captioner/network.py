"""What `generation` asks of a network, answered by torch.

`TorchNetwork` is a CaptionModel seen from there. `fused` makes the one that serves: nobody trains or saves it, for it
is no CaptionModel any more, and the model that it was made from stays as it was.
"""

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from captioner.captions import REPEATS
from captioner.decoder import Decoder, sequence_log_probabilities, stack_captions
from captioner.model import CaptionModel
from captioner.options import ImageOptions
from captioner.pictures import Pixels
from captioner.search import Decoding
from captioner.text import END, PAD, START, UNKNOWN
from captioner.vision import Vision

_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True)
class TorchNetwork:
    """A `generation.Network` whose features are tensors (B, R, C)."""

    vision: Vision
    decoder: Decoder
    reverse: Decoder | None

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the features."""
        return self.vision.grid

    @property
    def reads_backwards(self) -> bool:
        """`score` can be asked."""
        return self.reverse is not None

    @property
    def device(self) -> str:
        """Where it computes: "cpu", "cuda:0"."""
        return str(self.vision.device)

    @property
    def precision(self) -> str:
        """What it computes in: "float32", "bfloat16" or "float16"."""
        return str(next(self.decoder.parameters()).dtype).removeprefix("torch.")

    def seeing(self, image: ImageOptions) -> "TorchNetwork":
        """The same network, for pictures that are fitted and normalised in another way."""
        return replace(self, vision=replace(self.vision, image=image))

    @torch.inference_mode()
    def encode(self, pixels: Sequence[Pixels]) -> Tensor:
        """Pictures as `pictures.look` prepares them -> features (B, R, C)."""
        return self.vision.encode(torch.from_numpy(np.stack(pixels)))

    @torch.inference_mode()
    def begin(self, features: Tensor) -> Decoding:
        """Features (B, R, C) -> what a search for their captions needs."""
        return begin(self.decoder, features, never=(PAD, START, UNKNOWN), repeats=REPEATS)

    @torch.inference_mode()
    def score(self, features: Tensor, sequences: Sequence[Sequence[Sequence[int]]]) -> list[list[float]]:
        """The right-to-left decoder's log-probability of each of an image's sequences, which are left to right."""
        assert self.reverse is not None
        backwards = [[tokens[::-1] for tokens in group] for group in sequences]
        found = sequence_log_probabilities(self.reverse, self.reverse.read(features), backwards).tolist()
        return [row[: len(group)] for row, group in zip(found, sequences, strict=True)]

    @torch.inference_mode()
    def attention(self, features: Tensor, sequences: Sequence[Sequence[int]]) -> list[list[list[list[float]]]] | None:
        """Where the decoder looks, in features (1, R, C), for each token of each sequence: the rows of the grid.

        None for a decoder without attention.
        """
        tokens = stack_captions([[[START, *sequence] for sequence in sequences]]).to(features.device)
        nothing = torch.zeros_like(tokens, dtype=torch.bool)  # no logits
        _, attention = self.decoder.follow(tokens, self.decoder.read(features), nothing)
        if attention is None:
            return None
        looks: list[list[list[list[float]]]] = attention[0].float().view(*tokens.shape[1:], *self.grid).tolist()
        return looks


def begin(decoder: Decoder, features: Tensor, *, never: tuple[int, ...], repeats: int | None = None) -> Decoding:
    """Features (B, R, C) -> what a search for their captions needs; `never` and `repeats` as in `search.Decoding`."""
    memory = decoder.read(features)
    return Decoding(
        step=lambda tokens, state: decoder.step(tokens, state, memory),
        state=decoder.start(memory),
        start=START,
        end=END,
        never=never,
        repeats=repeats,
    )


def network_of(model: CaptionModel) -> TorchNetwork:
    """A model as it is: what it learns later shows."""
    return TorchNetwork(model.vision, model.decoder, model.reverse)


def fused(model: CaptionModel, precision: str = "float32") -> TorchNetwork:
    """A copy for inference, in which what can be is multiplied beforehand: the same captions, faster.

    It shares the numbers that it does not change, so it is of no use once the model has gone on learning.
    """
    kind = getattr(torch, precision)
    encoder, decoder = _copy(model.encoder), _copy(model.decoder)
    reverse = None if model.reverse is None else _copy(model.reverse).to(kind)
    encoder.fuse()
    decoder.fuse()  # not the second decoder, which never takes single steps
    return TorchNetwork(Vision(model.options.image, encoder.to(kind)), decoder.to(kind), reverse)


def _copy(module: _Module) -> _Module:
    """A copy in eval mode that shares the tensors' numbers, and takes others without the first's notice."""
    shared = {
        id(tensor): nn.Parameter(tensor.detach(), requires_grad=False) if isinstance(tensor, nn.Parameter) else tensor
        for tensor in itertools.chain(module.parameters(), module.buffers())
    }
    return copy.deepcopy(module, shared).eval()
