"""Cross entropy: make the references' words probable, each after the words before it."""

import torch
from torch import Tensor
from torch.nn import functional as F

from captioner.text import PAD


def cross_entropy(logits: Tensor, targets: Tensor, *, smoothing: float) -> Tensor:
    """Logits (..., V), targets (...) of ids -> the mean loss of a word, in nats; padding does not count.

    `smoothing` is the probability spread evenly over the vocabulary (Szegedy et al. 2016, section 7). Raises
    ValueError where there is no word at all.
    """
    real = targets != PAD
    if not torch.any(real):
        raise ValueError("There is no word to learn from in this batch.")
    # Words first, then the loss: more than half of a batch of captions is padding.
    return F.cross_entropy(logits[real].float(), targets[real], label_smoothing=smoothing)
