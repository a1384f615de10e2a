"""Cross entropy under teacher forcing: make captions probable, each word after the words before it.

What is learnt are the references' words, and with teachers also what they hold for probable at each word.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from captioner.decoder import Decoder
from captioner.text import PAD


@dataclass(frozen=True)
class Loss:
    """The loss of a batch, to be divided by the words of all batches of the step: a mean of means would be wrong."""

    total: Tensor
    """The sum over the words, in nats."""
    words: Tensor
    """How many there are."""
    measures: dict[str, float] = field(default_factory=dict)
    """What the log wants to know besides: means over the batch's pictures."""


def caption_loss(
    decoder: Decoder,
    features: Tensor,
    tokens: Tensor,
    *,
    smoothing: float = 0.0,
    weights: Tensor | None = None,
    never: Sequence[int] = (),
    temperature: float = 1.0,
    teachers: Sequence[tuple[Decoder, Tensor]] = (),
    teacher_share: float = 0.0,
) -> Loss:
    """Features (B, R, C), tokens (B, K, T) from <start> on -> the loss of their words; padding does not count.

    `smoothing` is the probability spread evenly over the vocabulary (Szegedy et al. 2016, section 7). `weights` (B, K)
    multiplies the loss of each caption's words; a negative one makes the caption less probable. Logits are divided by
    `temperature`, and tokens in `never` have no probability (which goes with a smoothing of 0 alone). `teacher_share`
    of the loss is the cross entropy with the probabilities that the `teachers` agree on, each with its own features of
    the same images, the rest that with the words (Hinton et al. 2015, "Distilling the Knowledge in a Neural Network",
    section 2, at a temperature of 1).
    """
    targets = tokens[..., 1:]
    real = targets != PAD
    logits, _ = decoder(features, tokens[..., :-1], real)
    logits = (logits.float() / temperature).index_fill(
        -1, torch.tensor(never, dtype=torch.int64, device=logits.device), -math.inf
    )
    losses = F.cross_entropy(logits, targets[real], label_smoothing=smoothing, reduction="none")
    if teachers:
        believed = _agreed(teachers, tokens[..., :-1], real)
        losses = (1 - teacher_share) * losses + teacher_share * F.cross_entropy(logits, believed, reduction="none")
    if weights is not None:
        losses = losses * weights[..., None].expand_as(targets)[real]
    return Loss(losses.sum(), real.sum())


@torch.no_grad()
def _agreed(teachers: Sequence[tuple[Decoder, Tensor]], tokens: Tensor, real: Tensor) -> Tensor:
    """The teachers' normalised geometric mean (M, V): the probabilities that their ensemble searches with."""
    logits = (teacher(features, tokens, real)[0].float() for teacher, features in teachers)
    return torch.stack([part.log_softmax(-1) for part in logits]).mean(0).softmax(-1)
