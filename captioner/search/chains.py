"""Greedy and diverse search, and sampling: hypotheses that grow side by side, none replaced by another."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from captioner.options import SearchOptions
from captioner.search.decoding import (
    Decoding,
    Hypothesis,
    Watch,
    bar_loops,
    hypothesis_of,
    log_probabilities_of,
    not_finite,
)

Choose = Callable[[Tensor, Tensor], Tensor]
"""(log-probabilities (B, K, V), forbidden ones -inf; which chains ended (B, K)) -> each chain's next token (B, K)."""


@torch.inference_mode()
def greedy_search(decoding: Decoding, options: SearchOptions, watch: Watch | None = None) -> list[list[Hypothesis]]:
    """One hypothesis per image: the most probable token at each step; errors as in `search`."""

    def most_probable(log_probabilities: Tensor, _: Tensor) -> Tensor:
        return log_probabilities.argmax(-1)

    return _side_by_side(decoding, most_probable, 1, options, watch)


@torch.inference_mode()
def diverse_search(decoding: Decoding, options: SearchOptions, watch: Watch | None = None) -> list[list[Hypothesis]]:
    """`beam_size` greedy searches that keep apart; errors as in `search`.

    Each pays `diversity`, in log-probability, for every search before it that takes the same token at the same step
    (Vijayakumar et al. 2018, "Diverse Beam Search", algorithm 1 with groups of one and the Hamming penalty).
    What is paid counts in choosing tokens only: hypotheses are ranked by the model's own probabilities.
    """

    def apart(log_probabilities: Tensor, ended: Tensor) -> Tensor:
        paid = torch.zeros_like(log_probabilities[:, 0])
        tokens = torch.empty_like(ended, dtype=torch.int64)
        for chain in range(options.beam_size):
            tokens[:, chain] = (log_probabilities[:, chain] - paid).argmax(-1)
            price = options.diversity * ~ended[:, chain, None]  # what ended takes no more tokens
            paid.scatter_add_(1, tokens[:, chain, None], price)
        return tokens

    return _side_by_side(decoding, apart, options.beam_size, options, watch)


@torch.inference_mode()
def sampling_search(decoding: Decoding, options: SearchOptions, watch: Watch | None = None) -> list[list[Hypothesis]]:
    """`beam_size` hypotheses drawn with torch's global generator; errors as in `search`.

    Log-probabilities are divided by `temperature` first; then only the most probable tokens remain, as few as have
    `nucleus` of the probability together (Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration",
    section 3.1). Hypotheses are ranked by the model's own probabilities, and what is drawn twice counts once.
    """

    def draw(log_probabilities: Tensor, _: Tensor) -> Tensor:
        return _draw(log_probabilities, temperature=options.temperature, nucleus=options.nucleus)

    return _side_by_side(decoding, draw, options.beam_size, options, watch)


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

    tokens, log_probabilities = _grow(decoding, draw, *chances.shape[1:])
    bad = ~log_probabilities.isfinite().flatten(1).all(1)
    if bad.any():
        raise not_finite(int(bad.nonzero()[0]))
    return tokens


def _grow(
    decoding: Decoding, choose: Choose, chains: int, steps: int, watch: Watch | None = None
) -> tuple[Tensor, Tensor]:
    """`chains` sequences for each image that grow side by side, none replaced by another, until all have ended.

    Tokens and their log-probabilities, both (B, chains, T), T at most `steps`. Behind its end a chain repeats it, with
    a log-probability of 0. The last step is not watched where it can only end what is as long as allowed.
    """
    state = tuple(part.expand(-1, chains, *part.shape[2:]) for part in decoding.state)
    tokens = torch.full((len(state[0]), chains), decoding.start, device=state[0].device)
    forbidden = torch.tensor(decoding.never, dtype=torch.int64, device=tokens.device)
    ended = torch.zeros_like(tokens, dtype=torch.bool)
    history, logs = tokens[..., None][..., :0], torch.zeros(*tokens.shape, 0, device=tokens.device)
    for index in range(steps):
        logits, state = decoding.step(tokens, state)
        log_probabilities = bar_loops(log_probabilities_of(logits, forbidden), history, decoding.repeats)
        tokens = choose(log_probabilities, ended).masked_fill(ended, decoding.end)
        log = log_probabilities.gather(-1, tokens[..., None]).masked_fill(ended[..., None], 0)
        history, logs = torch.cat([history, tokens[..., None]], -1), torch.cat([logs, log], -1)
        ended |= tokens == decoding.end
        if watch:
            watch(index, history, logs.sum(-1).masked_fill(ended, -math.inf))
        if ended.all():  # the one sync of a step
            break
    return history, logs


def _side_by_side(
    decoding: Decoding, choose: Choose, chains: int, options: SearchOptions, watch: Watch | None
) -> list[list[Hypothesis]]:
    """The hypotheses of `_grow`, ranked; what several chains of an image found counts once."""

    def unfinished(index: int, tokens: Tensor, log_probabilities: Tensor) -> None:
        if watch and index < options.max_length:  # after that, a hypothesis can only end
            watch(index, tokens, log_probabilities)

    grown = _grow(decoding, choose, chains, options.max_length + 1, unfinished if watch else None)
    results = []
    for image, group in enumerate(zip(*(part.tolist() for part in grown), strict=True)):
        found = {}
        for words, logs in zip(*group, strict=True):
            finished = decoding.end in words
            length = words.index(decoding.end) if finished else options.max_length
            counted = logs[: length + finished]
            if not all(map(math.isfinite, counted)) or math.isnan(logs[length]):
                raise not_finite(image)
            found[tuple(words[:length]), finished] = hypothesis_of(words[:length], counted, finished, options)
        finished_ones = [hypothesis for hypothesis in found.values() if hypothesis.finished]
        results.append(sorted(finished_ones or found.values(), key=lambda hypothesis: -hypothesis.score))
    return results


def _draw(log_probabilities: Tensor, *, temperature: float, nucleus: float = 1.0) -> Tensor:
    """Log-probabilities (B, K, V) -> tokens (B, K) drawn as `sampling_search` says."""
    probabilities = (log_probabilities / temperature).softmax(-1)
    if nucleus < 1:
        ordered, places = probabilities.sort(-1, descending=True)
        beyond = ordered.cumsum(-1) - ordered >= nucleus  # those before it have enough
        probabilities = probabilities.masked_fill(beyond.scatter(-1, places, beyond), 0)
    # Where nothing is possible multinomial would fail; what is drawn there instead has a logarithm that gives it away.
    probabilities = torch.where(probabilities.isfinite(), probabilities, 1)
    return torch.multinomial(probabilities.flatten(0, 1), 1).view(probabilities.shape[:2])
