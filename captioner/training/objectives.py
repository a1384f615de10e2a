"""What a step of training descends: the loss of a batch of pictures, under either objective."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from captioner.decoder import Decoder, stack_captions
from captioner.device import autocast
from captioner.options import TrainingOptions
from captioner.training.likelihood import caption_loss
from captioner.training.self_critical import NEVER, Sampler


class Objective(Protocol):
    """The loss of a batch, and what the log wants to know of it besides."""

    def __call__(self, decoder: Decoder, features: Tensor, batch: Sequence[int]) -> tuple[Tensor, dict[str, float]]:
        """Features (B, R, C) of the training pictures whose places are in `batch` -> a scalar, and named measures."""


class Likelihood:
    """Makes the references probable, and with teachers what they hold for probable."""

    def __init__(
        self,
        captions: Sequence[Sequence[Sequence[int]]],
        training: TrainingOptions,
        teachers: Sequence[tuple[Decoder, Tensor]] = (),
    ) -> None:
        """`captions` are the training pictures' as `encode_captions` gives them; `training.precision` is chosen.

        Each teacher comes with its features (N, R, C) of those pictures.
        """
        self.captions, self.training, self.teachers = captions, training, teachers

    def __call__(self, decoder: Decoder, features: Tensor, batch: Sequence[int]) -> tuple[Tensor, dict[str, float]]:
        """The mean loss of a word."""
        device = features.device
        tokens = stack_captions([self.captions[index] for index in batch]).to(device)
        teachers = [(teacher, theirs[batch].to(device).float()) for teacher, theirs in self.teachers]
        with autocast(self.training.precision, device):
            loss = caption_loss(
                decoder,
                features,
                tokens,
                smoothing=self.training.label_smoothing,
                teachers=teachers,
                teacher_share=self.training.teacher_share,
            )
        return loss, {}


class SelfCritical:
    """Makes captions that the model draws more or less probable, as they score against the picture's others."""

    def __init__(self, sampler: Sampler, training: TrainingOptions) -> None:
        """`training.precision` is chosen."""
        self.sampler, self.training = sampler, training

    def __call__(self, decoder: Decoder, features: Tensor, batch: Sequence[int]) -> tuple[Tensor, dict[str, float]]:
        """The mean loss of a drawn word; the samples' mean CIDEr-D (0 to 1000) and their length in words."""
        # Under an autocast of its own: its cache of half-precision weights must not hold any without a gradient.
        with autocast(self.training.precision, features.device):
            samples = self.sampler.draw(decoder, features.detach(), batch)
        with autocast(self.training.precision, features.device):
            loss = caption_loss(
                decoder,
                features,
                samples.tokens,
                weights=samples.advantages,
                never=NEVER,
                temperature=self.training.temperature,
            )
        return loss, {"reward": 100 * samples.rewards.mean().item(), "sampled_words": samples.length}
