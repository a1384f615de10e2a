"""What a step of training descends: the loss of a batch of pictures, under either objective."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from torch import Tensor

from captioner.decoder import Decoder
from captioner.device import autocast
from captioner.metrics.cider import document_frequencies
from captioner.options import TrainingOptions
from captioner.text import Vocabulary
from captioner.training.batches import Batch
from captioner.training.cross_entropy import Loss, caption_loss
from captioner.training.self_critical import NEVER, advantages, chances, draw, lengths, reward


class Objective(Protocol):
    """The loss of a batch."""

    def __call__(self, decoder: Decoder, features: Tensor, batch: Batch) -> Loss:
        """Features (B, R, C) of the batch's pictures -> its loss, with what the log wants to know of it besides."""


class CrossEntropy:
    """Makes the references probable, and with teachers what they hold for probable."""

    def __init__(self, training: TrainingOptions, teachers: Sequence[Decoder] = ()) -> None:
        """`training.precision` is chosen; batches hold features for each of the `teachers`."""
        self.training, self.teachers = training, teachers

    def __call__(self, decoder: Decoder, features: Tensor, batch: Batch) -> Loss:
        """The loss of the references' words."""
        device = features.device
        theirs = (part.to(device).float() for part in batch.teachers)
        teachers = list(zip(self.teachers, theirs, strict=True))
        with autocast(self.training.precision, device):
            return caption_loss(
                decoder,
                features,
                batch.tokens.to(device),
                smoothing=self.training.label_smoothing,
                teachers=teachers,
                teacher_share=self.training.teacher_share,
            )


class SelfCritical:
    """Makes captions that the model draws more or less probable, as they score against the picture's others."""

    def __init__(
        self,
        references: Sequence[Sequence[Sequence[str]]],
        vocabulary: Vocabulary,
        training: TrainingOptions,
        *,
        max_length: int,
    ) -> None:
        """Document frequencies come from the `references` of all training pictures; `training.precision` is chosen."""
        self.vocabulary, self.training, self.max_length = vocabulary, training, max_length
        self.frequencies = document_frequencies(references)

    def __call__(self, decoder: Decoder, features: Tensor, batch: Batch) -> Loss:
        """The loss of the drawn words; measures the samples' CIDEr-D (0 to 1000) and their length in words."""
        training, device = self.training, features.device
        # Under an autocast of its own: its cache of half-precision weights must not hold any without a gradient.
        with autocast(training.precision, device):
            decide = chances(batch.seeds, samples=training.samples, max_length=self.max_length).to(device)
            drawn = draw(decoder, features.detach(), decide, temperature=training.temperature)
        rewards = reward(drawn, batch.references, self.vocabulary, self.frequencies)
        with autocast(training.precision, device):
            loss = caption_loss(
                decoder,
                features,
                drawn,
                weights=advantages(rewards),
                never=NEVER,
                temperature=training.temperature,  # what learns is the policy that draws
            )
        measures = {"reward": 100 * rewards.mean().item(), "sampled_words": lengths(drawn).float().mean().item()}
        return replace(loss, measures=measures)
