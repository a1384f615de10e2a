"""Self-critical training: captions that the model draws itself, each made more probable as far as it scores above the
picture's others, less probable as far as it scores below.

Rennie et al. 2017, "Self-critical Sequence Training for Image Captioning", with CIDEr-D as the reward, and as the
baseline of each sample the mean reward of the picture's other samples (Luo 2020, "A Better Variant of Self-Critical
Sequence Training", equation 4).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from captioner.datasets.dataset import CaptionedImage
from captioner.decoder import Decoder
from captioner.metrics.cider import DocumentFrequencies, cider
from captioner.network import begin
from captioner.search.samples import sample
from captioner.text import END, PAD, START, Vocabulary, tokenise

NEVER = (PAD, START)
"""What is never drawn, and must have no probability in the loss either: only what is drawn can lose probability, so
anything else would gain without end. `<unk>` is drawn, and earns nothing, like every word that no reference has."""

_END = "<end>"
"""Stands at the end of every reference and finished sample that is scored: without it, captions that stop in the middle
of a phrase score as well as whole ones, and the model learns to write them."""


def references_of(images: Sequence[CaptionedImage], *, reverse: bool = False) -> list[list[list[str]]]:
    """What samples for these images are scored against: words in the order of writing, and the end where it stops.

    `reverse`: from right to left. CIDEr-D does not mind the direction.
    """
    order = -1 if reverse else 1
    tokenised = ([tokenise(caption)[::order] for caption in image.captions] for image in images)
    return [[[*words, _END] for words in group if words] for group in tokenised]


def chances(seeds: Sequence[int], *, samples: int, max_length: int) -> Tensor:
    """For each image's seed the numbers (B, K, T), 0..1, that decide about its samples."""
    generators = (torch.Generator().manual_seed(seed) for seed in seeds)
    return torch.stack([torch.rand(samples, max_length, generator=generator) for generator in generators])


def draw(decoder: Decoder, features: Tensor, chances: Tensor, *, temperature: float) -> Tensor:
    """Features (B, R, C), `chances` (B, K, T) as `sample` wants them -> captions that the decoder draws, (B, K, T):

    ids from <start> on, <pad> behind the end. It draws without dropout: the samples come from the model that is being
    improved.
    """
    training = decoder.training
    decoder.eval()
    with torch.no_grad():
        drawn = sample(begin(decoder, features, never=NEVER), chances, temperature=temperature)
    decoder.train(training)
    after = (drawn == END).cumsum(-1) > 1  # `sample` repeats the end
    return torch.cat([torch.full_like(drawn[..., :1], START), drawn.masked_fill(after, PAD)], -1)


def reward(
    drawn: Tensor,
    references: Sequence[Sequence[Sequence[str]]],
    vocabulary: Vocabulary,
    frequencies: DocumentFrequencies,
) -> Tensor:
    """Captions as `draw` gives them, and each picture's references -> their CIDEr-D (B, K), 0 to 10."""
    hypotheses = [_words(ids, vocabulary) for group in drawn[..., 1:].tolist() for ids in group]
    theirs = [group for group in references for _ in range(drawn.shape[1])]
    scores = cider(hypotheses, theirs, frequencies).images / 100
    return torch.from_numpy(scores).float().view(drawn.shape[:2]).to(drawn.device)


def _words(ids: list[int], vocabulary: Vocabulary) -> list[str]:
    """Sampled ids -> the words that are scored, in the order they were drawn, with the end if there is one."""
    length = ids.index(END) if END in ids else len(ids)
    return [*vocabulary.decode(ids[:length]), *([_END] if length < len(ids) else [])]


def advantages(rewards: Tensor) -> Tensor:
    """Rewards (B, K) -> each sample's less the mean of the picture's others; they sum to 0 for a picture."""
    others = (rewards.sum(1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
    return rewards - others


def lengths(drawn: Tensor) -> Tensor:
    """Captions as `draw` gives them -> how many words each has, (B, K)."""
    return ((drawn != PAD) & (drawn != START) & (drawn != END)).sum(-1)
