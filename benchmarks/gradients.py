"""How far back a gradient reaches through a recurrent decoder, and what clipping does to the steps of training.

Back-propagation through time carries the loss of a late word back to the early ones, one step of the recurrence after
the other, and each step multiplies it by that step's Jacobian (Pascanu, Mikolov and Bengio 2013, "On the difficulty of
training recurrent neural networks", equation 5). `gradient_norms` measures what arrives, exactly, with autograd.
`benchmarks.recurrent_cells` runs these on real models and `benchmarks.recurrent_figures` draws them.
"""

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from captioner.decoder import Decoder, stack_captions
from captioner.options import TrainingOptions
from captioner.text import END
from captioner.training.batches import Batch, epoch_batches
from captioner.training.objectives import CrossEntropy
from captioner.training.step import Learner, take_step


class Captions(NamedTuple):
    """N captions of one length, each with the number of its image."""

    images: list[int]
    tokens: Tensor  # (N, words + 2): <start>, the words, <end>


def captions_by_length(
    encoded: Sequence[Sequence[Sequence[int]]], lengths: Iterable[int], *, most: int, seed: int
) -> dict[int, Captions]:
    """By their number of words, `most` captions each (all where there are fewer), drawn from the ids of every image.

    `encoded` is what `encode_captions` returns; a caption that it cut has no <end> and is none. Lengths that no caption
    has are left out.
    """
    whole = [(image, ids) for image, group in enumerate(encoded) for ids in group if ids[-1] == END]
    found: dict[int, Captions] = {}
    for words in lengths:
        pairs = [(image, ids) for image, ids in whole if len(ids) == words + 2]
        pairs = random.Random(seed).sample(pairs, min(most, len(pairs)))
        if pairs:
            found[words] = Captions([image for image, _ in pairs], torch.tensor([ids for _, ids in pairs]))
    return found


def gradient_norms(decoder: Decoder, features: Tensor, tokens: Tensor, *, targets: int = 1) -> Tensor:
    """Features (B, R, C), tokens (B, T) without padding -> (B, T-1): the gradient that reaches each token read.

    Entry t is the Euclidean norm of dL/dx_t, where x_t is the embedding of tokens[:, t] as the recurrence reads it and
    L = -ln p(token | image, all tokens before it), summed over the last `targets` tokens: by default the very last.
    Raises ValueError for a decoder in training mode, whose dropout would be measured too.
    """
    if decoder.training:
        raise ValueError("The decoder is in training mode: call its eval() first.")
    read: list[Tensor] = []
    # The hook sees the words as they are read; the output layer shares their table, but does not call this module.
    hook = decoder.embedding.register_forward_hook(lambda *call: read.append(call[-1]))
    with torch.enable_grad(), hook:
        logits, _ = decoder(features, tokens[:, None, :-1])
        # No caption depends on another, so the gradient of the sum over captions holds each one's own.
        loss = F.cross_entropy(logits[:, 0, -targets:].flatten(0, 1), tokens[:, -targets:].flatten(), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, read)
    return gradient[:, 0].norm(dim=-1)


def reach(decoder: Decoder, features: Tensor, captions: Mapping[int, Captions]) -> dict[str, Any]:
    """How much of the gradient is left on its way back, for features (N, R, C) of all images, as values for JSON.

    The measure is the gradient of the last prediction (<end>) at a word, divided by the same gradient at the last
    word. `distance[d]` is that d words before the last, over all captions longer than d words; `length[n]` is that at
    the first word of captions of n words; `share[n]` is the last prediction's gradient at the first word, divided by
    that of all predictions after it together. Each is a geometric mean with the quartiles over captions.
    """
    left: dict[int, Tensor] = {}
    share: dict[int, Tensor] = {}
    for words, (images, tokens) in captions.items():
        inputs = features[images].float()
        last = gradient_norms(decoder, inputs, tokens)[:, 1:]  # <start> is no word
        left[words] = (last / last[:, -1:]).log().flip(1)
        # The prediction of the first word itself does not depend on having read it: `words` predictions are left.
        together = gradient_norms(decoder, inputs, tokens, targets=words)[:, 1]
        share[words] = (last[:, 0] / together).log()
    return {
        "distance": [
            _spread(torch.cat([logs[:, distance] for words, logs in left.items() if words > distance]))
            for distance in range(max(left))
        ],
        "length": {words: _spread(logs[:, -1]) for words, logs in left.items()},
        "share": {words: _spread(logs) for words, logs in share.items()},
    }


def _spread(logs: Tensor) -> dict[str, float]:
    """Logarithms (N,) -> the geometric mean and the quartiles of what they are logarithms of."""
    low, high = logs.quantile(torch.tensor([0.25, 0.75])).exp().tolist()
    return {"mean": logs.mean().exp().item(), "low": low, "high": high}


def kept_share(decoder: Decoder, features: Tensor, captions: Mapping[int, Captions]) -> float | None:
    """The mean share, 0..1, of its state that a gated cell carries on unchanged at a word; None for a plain RNN.

    An LSTM's forget gate f in c' = f c + i g, a GRU's update gate z in h' = z h + (1 - z) n. One layer is read.
    """
    options, cell = decoder.options, decoder.cell
    if options.cell == "rnn":
        return None
    gate = slice(options.hidden_size, 2 * options.hidden_size)  # torch's order: i f g o, and r z n
    values = []
    with torch.no_grad():
        for images, tokens in captions.values():
            states: list[Tensor] = []
            hook = cell.register_forward_hook(lambda *call, states=states: states.append(call[-1][0]))
            with hook:
                decoder(features[images].float(), tokens[:, None, :-1])
            before, inputs = states[0][:, :-1], decoder.embedding(tokens[:, 1:-1])
            inner = F.linear(inputs, cell.weight_ih_l0[gate], cell.bias_ih_l0[gate])
            inner = inner + F.linear(before, cell.weight_hh_l0[gate], cell.bias_hh_l0[gate])
            values.append(inner.sigmoid().flatten())
    return torch.cat(values).mean().item()


def spectral_radius(decoder: Decoder) -> float:
    """The largest absolute eigenvalue of a plain RNN's recurrent matrix, U in h' = tanh(W x + U h + b)."""
    return float(torch.linalg.eigvals(decoder.cell.weight_hh_l0.detach()).abs().max())


@torch.no_grad()
def scale_recurrence(decoder: Decoder, radius: float) -> None:
    """Scales a plain RNN's recurrent matrix to that spectral radius."""
    decoder.cell.weight_hh_l0.mul_(radius / spectral_radius(decoder))


def training_steps(
    decoder: Decoder,
    features: Tensor,
    captions: Sequence[Sequence[Sequence[int]]],
    optimizer: torch.optim.Optimizer,
    *,
    clip_norm: float,
    steps: int,
    batch_size: int,
    seed: int,
) -> Iterator[tuple[float, float]]:
    """A short training on features (N, R, C) of N images and the ids of their captions.

    Yields each step's loss in nats a word and the norm of its gradient before clipping to `clip_norm` (0: never), and
    ends with the first step where one of them is not finite. Batches and dropout depend on `seed` alone.
    """
    learner = Learner(decoder, CrossEntropy(TrainingOptions(label_smoothing=0.0, precision="float32")), "float32")
    learner.train()
    torch.manual_seed(seed)
    batches = (
        batch for epoch in range(steps) for batch in epoch_batches(len(captions), batch_size, seed=seed, epoch=epoch)
    )
    for _, batch in zip(range(steps), batches, strict=False):
        taught = Batch(tuple(map(str, batch)), stack_captions([captions[index] for index in batch]))
        measured = take_step(learner, optimizer, [(features[batch], taught)], clip_norm=clip_norm)
        values = measured["loss"], measured["gradient_norm"]
        yield values
        if not all(map(math.isfinite, values)):
            return
