"""Captions drawn as given chances decide, for training; torch only."""

import torch
from torch import Tensor

from captioner.search.chains import grow
from captioner.search.decoding import Decoding, not_finite


@torch.no_grad()
def sample(decoding: Decoding, chances: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Tokens (B, K, T), drawn word by word from the model's probabilities as `chances` (B, K, T), 0..1, decide.

    Evenly spread chances give each word its probability: the word is taken at which the sum over the words up to it
    passes the chance (inverse transform sampling). So what an image gets depends on its own chances alone, not on the
    images beside it. Logits are divided by `temperature` first: below 1, likely words become likelier. The forbidden
    tokens' probability goes to the others. A sample is without start and repeats its end behind it; one that has not
    ended after T tokens is cut there. Raises ModelFileError as `search` does.
    """
    steps = iter(chances.unbind(-1))

    def draw(log_probabilities: Tensor, _: Tensor) -> Tensor:
        reached = (log_probabilities / temperature).softmax(-1).cumsum(-1)
        # Of what rounding left of the whole; the smallest chance above it still falls on a word that has some.
        wanted = next(steps)[..., None] * reached[..., -1:]
        return torch.searchsorted(reached, wanted, right=True).squeeze(-1).clamp(max=reached.shape[-1] - 1)

    tokens, log_probabilities = grow(decoding, draw, *chances.shape[1:])
    bad = ~log_probabilities.isfinite().flatten(1).all(1)
    if bad.any():
        raise not_finite(int(bad.nonzero()[0]))
    return tokens
