"""Self-critical training: captions that the model draws itself, each made more probable as far as it scores above the
picture's others, less probable as far as it scores below.

Rennie et al. 2017, "Self-critical Sequence Training for Image Captioning", with CIDEr-D as the reward, and as the
baseline of each sample the mean reward of the picture's other samples (Luo 2020, "A Better Variant of Self-Critical
Sequence Training", equation 4).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captioner.datasets.dataset import CaptionedImage
from captioner.decoder import Decoder
from captioner.metrics.cider import cider, document_frequencies
from captioner.network import begin
from captioner.search import sample
from captioner.text import END, PAD, START, Vocabulary, tokenise

NEVER = (PAD, START)
"""What is never drawn, and must have no probability in the loss either: only what is drawn can lose probability, so
anything else would gain without end. `<unk>` is drawn, and earns nothing, like every word that no reference has."""

_END = "<end>"
"""Stands at the end of every reference and finished sample that is scored: without it, captions that stop in the middle
of a phrase score as well as whole ones, and the model learns to write them."""


@dataclass(frozen=True)
class Samples:
    """Captions that the model drew for the pictures of a batch."""

    tokens: Tensor
    """(B, K, T) ids from <start> on, <pad> behind the end."""
    rewards: Tensor
    """(B, K) CIDEr-D of each, 0 to 10."""

    @property
    def advantages(self) -> Tensor:
        """(B, K): each sample's reward less the mean of the picture's others; they sum to 0 for a picture."""
        others = (self.rewards.sum(1, keepdim=True) - self.rewards) / (self.rewards.shape[1] - 1)
        return self.rewards - others

    @property
    def length(self) -> float:
        """Mean number of words of a sample."""
        words = (self.tokens != PAD) & (self.tokens != START) & (self.tokens != END)
        return words.sum().item() / (words.shape[0] * words.shape[1])


class Sampler:
    """Draws captions for training pictures and scores them against the pictures' references."""

    def __init__(
        self,
        images: Sequence[CaptionedImage],
        vocabulary: Vocabulary,
        *,
        samples: int,
        max_length: int,
        temperature: float,
        reverse: bool,
    ) -> None:
        """Document frequencies come from the references of `images`: the training split. `reverse`: right to left.

        `temperature` must be that of the loss too: what learns is the policy that draws.
        """
        self.vocabulary, self.samples, self.max_length = vocabulary, samples, max_length
        self.temperature = temperature
        # In the order of writing, so that the end stands where writing stops; CIDEr-D does not mind the direction.
        order = -1 if reverse else 1
        tokenised = ([tokenise(caption)[::order] for caption in image.captions] for image in images)
        self.references = [[[*words, _END] for words in group if words] for group in tokenised]
        self.frequencies = document_frequencies(self.references)

    def draw(self, decoder: Decoder, features: Tensor, batch: Sequence[int]) -> Samples:
        """Features (B, R, C) of the pictures whose places are in `batch` -> their samples.

        The decoder draws without dropout: the samples come from the model that is being improved.
        """
        training = decoder.training
        decoder.eval()
        with torch.no_grad():
            drawn = sample(
                begin(decoder, features, never=NEVER),
                samples=self.samples,
                max_length=self.max_length,
                temperature=self.temperature,
            )
        decoder.train(training)
        after = (drawn == END).cumsum(-1) > 1  # `sample` repeats the end
        tokens = torch.cat([torch.full_like(drawn[..., :1], START), drawn.masked_fill(after, PAD)], -1)
        return Samples(tokens, self._reward(drawn, batch).to(tokens.device))

    def _reward(self, drawn: Tensor, batch: Sequence[int]) -> Tensor:
        hypotheses = [self._words(ids) for group in drawn.tolist() for ids in group]
        references = [self.references[index] for index in batch for _ in range(self.samples)]
        scores = cider(hypotheses, references, self.frequencies).images / 100
        return torch.from_numpy(scores).float().view(len(batch), self.samples)

    def _words(self, ids: list[int]) -> list[str]:
        """Sampled ids -> the words that are scored, in the order they were drawn, with the end if there is one."""
        length = ids.index(END) if END in ids else len(ids)
        return [*self.vocabulary.decode(ids[:length]), *([_END] if length < len(ids) else [])]
