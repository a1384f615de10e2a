"""One step of training: what learns, how it is moved, and by how much.

`take_step` is the same for a batch in one part and for one that is too large for the memory and comes in several: the
gradient is that of the mean over all words of the step.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from captioner.decoder import Decoder
from captioner.device import autocast
from captioner.errors import ModelFileError, TrainingError
from captioner.model import CaptionModel
from captioner.options import TrainingOptions
from captioner.training.batches import Batch
from captioner.training.cross_entropy import Loss
from captioner.training.objectives import Objective
from captioner.training.processes import ALONE, Processes


class Learner(nn.Module):
    """What learns of a model, with its objective: inputs and a batch in, the loss out, all in one `forward`."""

    def __init__(
        self, decoder: Decoder, objective: Objective, precision: str, *, model: CaptionModel | None = None
    ) -> None:
        """`decoder` is the one that learns; `model` sees the pictures, where they come as pixels, and learns to see
        where its encoder's parameters want gradients. `precision` is a chosen one, not auto.
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
    processes: Processes = ALONE,
    counts: bool = True,
    scaler: torch.amp.GradScaler | None = None,
) -> dict[str, float]:
    """Moves the learner down the mean loss of a word over all `parts`, of all processes: the inputs and batch of each.

    The gradient is scaled down to a norm of `clip_norm`; 0: never. A process that has no picture of the step comes with
    any other one, and `counts` is False: processes move together. `scaler` keeps half-precision gradients above zero.
    Returns that `loss`, the `gradient_norm` before it was clipped, and the objective's measures as means over the
    pictures. Where one of them is not finite nothing has moved; where gradients grew beyond half precision nothing has
    either, they are scaled down from the next step on, and `skipped` is 1. Raises ValueError where there is no word to
    learn from.
    """
    scaler = scaler or torch.amp.GradScaler(enabled=False)
    learning = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    optimizer.zero_grad(set_to_none=True)
    losses: list[Loss] = []
    pictures: list[int] = []
    parts = list(parts)
    for number, (inputs, batch) in enumerate(parts, 1):
        # Processes add up their gradients once a step: with those of the last part.
        several = isinstance(learner, DistributedDataParallel) and number < len(parts)
        with learner.no_sync() if several else contextlib.nullcontext():  # type: ignore[operator]
            loss: Loss = learner(inputs, batch)
            if not counts:
                loss = replace(loss, total=0 * loss.total, words=0 * loss.words)
            if not losses:  # which makes it the mean where there is one part, and near it where there are more
                share = processes.sum(loss.words).clamp(min=1) / processes.count
            torch.autograd.backward(scaler.scale(loss.total / share))
        losses.append(replace(loss, total=loss.total.detach()))
        pictures.append(len(batch) if counts else 0)
    sums = torch.stack([*_sums(losses, pictures), torch.tensor(float(sum(pictures)), device=share.device)])
    *measures, total, words, count = processes.sum(sums).tolist()
    if not words:
        raise ValueError("There is no word to learn from in this batch.")
    scaler.unscale_(optimizer)
    if len(losses) > 1:
        for parameter in learning:
            if parameter.grad is not None:  # which the processes' mean is of
                parameter.grad *= processes.count * share / words
    norm = nn.utils.clip_grad_norm_(learning, clip_norm or math.inf).item()
    measured = {name: value / count for name, value in zip(losses[0].measures, measures, strict=True)}
    measured |= {"loss": total / words, "gradient_norm": norm}
    if scaler.is_enabled() and not math.isfinite(norm) and scaler.get_scale() > 1:
        measured |= {"gradient_norm": 0.0, "skipped": 1.0}
    if all(map(math.isfinite, measured.values())):
        scaler.step(optimizer)
        scaler.update()
    return measured


def _sums(losses: Sequence[Loss], pictures: Sequence[int]) -> list[Tensor]:
    """Over the parts: each measure of all pictures, the loss, and the words; as scalars of one type on one device."""
    place = losses[0].total
    measures = [
        place.new_tensor(sum(loss.measures[name] * count for loss, count in zip(losses, pictures, strict=True)))
        for name in losses[0].measures
    ]
    return [
        *measures,
        *(torch.stack([getattr(loss, part) for loss in losses]).float().sum() for part in ("total", "words")),
    ]
