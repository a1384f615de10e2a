"""One step of training: what learns, how it is moved, and by how much.

`take_step` is the same for a batch in one part and for one that is too large for the memory and comes in several: the
gradient is that of the mean over all words of the step.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from captioner.decoder import Decoder
from captioner.device import autocast
from captioner.errors import ModelFileError, TrainingError
from captioner.model import CaptionModel
from captioner.options import TrainingOptions
from captioner.training.batches import Batch
from captioner.training.cross_entropy import Loss
from captioner.training.objectives import Objective


class Learner(nn.Module):
    """What learns of a model, with its objective: inputs and a batch in, the loss out, all in one `forward`."""

    def __init__(
        self, decoder: Decoder, objective: Objective, precision: str, *, model: CaptionModel | None = None
    ) -> None:
        """`decoder` is the one that learns; `model` sees the pictures, where they come as pixels, and learns to see
        where its encoder's parameters want gradients. `precision` is float32 or bfloat16.
        """
        super().__init__()
        self.decoder = decoder
        learns = model is not None and any(parameter.requires_grad for parameter in model.encoder.parameters())
        self.encoder = model.encoder if model is not None and learns else None
        self.encode = model.encode if model is not None else None
        self.objective, self.precision = objective, precision

    def forward(self, inputs: Tensor, batch: Batch) -> Loss:
        """The batch's pictures, as features (B, R, C) in any float type or as pixels (B, 3, H, W) uint8 -> its loss."""
        device = self.decoder.embedding.weight.device
        inputs = inputs.to(device)
        with autocast(self.precision, device):
            features = inputs.float() if self.encode is None or inputs.is_floating_point() else self.encode(inputs)
        with finite():
            return self.objective(self.decoder, features, batch)


@contextlib.contextmanager
def finite() -> Iterator[None]:
    """A model that learns and has no finite probabilities has no damaged file: it learnt too fast."""
    try:
        yield
    except ModelFileError as error:
        raise TrainingError(
            "The model's probabilities are no finite numbers any more: start again with a lower --learning-rate or "
            "--precision float32; the last model is kept."
        ) from error


def make_optimizer(learner: Learner, training: TrainingOptions) -> torch.optim.Optimizer:
    """AdamW; vectors (biases, norms) do not decay. Groups know their `peak` learning rate."""
    groups: list[dict[str, Any]] = []
    for part, peak in ((learner.decoder, training.learning_rate), (learner.encoder, training.encoder_learning_rate)):
        parameters = [parameter for parameter in part.parameters() if parameter.requires_grad] if part else []
        matrices = [parameter for parameter in parameters if parameter.ndim > 1]
        vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
        for group, decay in ((matrices, training.weight_decay), (vectors, 0.0)):
            if group:
                groups.append({"params": group, "lr": peak, "peak": peak, "weight_decay": decay})
    return torch.optim.AdamW(groups, fused=True)  # a third of the time on a CPU


def learning_rate(step: int, steps: int, *, warmup: float) -> float:
    """The learning rate at `step` of `steps`, as a share of its peak: a linear rise, then half a cosine to zero."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def take_step(
    learner: nn.Module,
    optimizer: torch.optim.Optimizer,
    parts: Iterable[tuple[Tensor, Batch]],
    *,
    clip_norm: float = 0.0,
) -> dict[str, float]:
    """Moves the learner down the mean loss of a word over all `parts`: the inputs and the batch of each.

    The gradient is scaled down to a norm of `clip_norm`; 0: never. Returns that `loss`, the `gradient_norm` before it
    was clipped, and the objective's measures as means over the pictures. Where one of them is not finite nothing has
    moved. Raises ValueError where there is no word to learn from.
    """
    learning = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    optimizer.zero_grad(set_to_none=True)
    losses: list[Loss] = []
    pictures: list[int] = []
    for inputs, batch in parts:
        loss: Loss = learner(inputs, batch)
        if not losses:  # which makes it the mean where there is one part, and near it where there are more
            share = loss.words.clamp(min=1)
        torch.autograd.backward(loss.total / share)
        losses.append(replace(loss, total=loss.total.detach()))
        pictures.append(len(batch))
    words = sum((loss.words for loss in losses), torch.tensor(0))
    if not words:
        raise ValueError("There is no word to learn from in this batch.")
    if len(losses) > 1:
        for parameter in learning:
            if parameter.grad is not None:
                parameter.grad *= share / words
    norm = nn.utils.clip_grad_norm_(learning, clip_norm or math.inf)
    measured = {
        name: sum(loss.measures[name] * count for loss, count in zip(losses, pictures, strict=True)) / sum(pictures)
        for name in losses[0].measures
    }
    measured |= {"loss": float(sum(loss.total for loss in losses) / words), "gradient_norm": norm.item()}
    if all(map(math.isfinite, measured.values())):
        optimizer.step()
    return measured
