"""Greedy, beam and diverse search, and sampling, over any step function; knows no text and no images.

Promises of all, each proved in tests/test_search.py: an image's hypotheses do not depend on the other images of its
batch (drawn ones aside); a forbidden token is never produced; where nothing finishes, the best unfinished hypothesis is
the answer. Of beam search besides: a beam as wide as the language finds what exhaustive search finds; stopping early
changes no result.

Their probabilities are the model's own: the softmax runs over all tokens, and only then are forbidden ones ruled out.
What the model computed once per image lives in the step function, indexed by image; only the recurrent state is
reordered.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from captioner.errors import CaptionerError
from captioner.options import SearchOptions

State = tuple[torch.Tensor, ...]
"""The recurrent state: at least one tensor, each (B, K, ...) for K hypotheses of each of B images."""

Step = Callable[[torch.Tensor, State], tuple[torch.Tensor, State]]
"""(last tokens (B, K) int64, state) -> (logits (B, K, V) of the next token in any float type, the state after it)."""

Choose = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(log-probabilities (B, K, V), forbidden ones -inf; which chains ended (B, K)) -> each chain's next token (B, K)."""

Watch = Callable[[int, torch.Tensor, torch.Tensor], None]
"""Takes step (from 0), tokens (B, K, step + 1) and log-probabilities (B, K) of the live hypotheses; -inf: none."""


@dataclass(frozen=True)
class Decoding:
    """What a search needs to know of a model that is about to write the captions of B images."""

    step: Step
    state: State
    """The initial one, (B, 1, ...)."""
    start: int
    """The token before the first one."""
    end: int
    never: tuple[int, ...] = ()
    """Tokens that may not be produced; list `start` too."""


@dataclass(frozen=True)
class Hypothesis:
    """A token sequence with its natural log-probability under the model."""

    tokens: tuple[int, ...]
    """Without start and end."""
    log_probabilities: tuple[float, ...]
    """Of each token, and of the end last if finished."""
    finished: bool
    """It reached the end; False: it was cut at the greatest length."""
    score: float
    """What the search ranks it by: log-probability / len(log_probabilities) ** length_penalty."""

    @property
    def log_probability(self) -> float:
        """The sum over its tokens, and its end if finished."""
        return sum(self.log_probabilities)


def search(
    step: Step,
    state: State,
    *,
    start: int,
    end: int,
    never: Iterable[int] = (),
    options: SearchOptions,
    watch: Watch | None = None,
) -> list[list[Hypothesis]]:
    """The best hypotheses of each image, best first, by `options.method`; beam search with a beam of 1 is greedy.

    `state` is the initial one, (B, 1, ...); `never` are tokens that may not be produced (list `start` too); `watch`
    is shown each step's live hypotheses. An image gets at most `beam_size` hypotheses, at least one, all different, and
    unfinished ones only if none finished.

    Raises CaptionerError where the model's probabilities are not finite or leave an image no possible hypothesis.
    """
    methods = {"beam": beam_search if options.beam_size > 1 else greedy_search, "diverse": diverse_search}
    method = methods.get(options.method, sampling_search)
    return method(step, state, start=start, end=end, never=never, options=options, watch=watch)


@torch.inference_mode()
def greedy_search(
    step: Step,
    state: State,
    *,
    start: int,
    end: int,
    never: Iterable[int] = (),
    options: SearchOptions,
    watch: Watch | None = None,
) -> list[list[Hypothesis]]:
    """One hypothesis per image: the most probable token at each step; arguments and errors as in `search`."""

    def most_probable(log_probabilities: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return log_probabilities.argmax(-1)

    return _follow(
        step, state, most_probable, chains=1, start=start, end=end, never=never, options=options, watch=watch
    )


@torch.inference_mode()
def diverse_search(
    step: Step,
    state: State,
    *,
    start: int,
    end: int,
    never: Iterable[int] = (),
    options: SearchOptions,
    watch: Watch | None = None,
) -> list[list[Hypothesis]]:
    """`beam_size` greedy searches that keep apart; arguments and errors as in `search`.

    Each pays `diversity`, in log-probability, for every search before it that takes the same token at the same step
    (Vijayakumar et al. 2018, "Diverse Beam Search", algorithm 1 with groups of one and the Hamming penalty).
    What is paid counts in choosing tokens only: hypotheses are ranked by the model's own probabilities.
    """

    def apart(log_probabilities: torch.Tensor, ended: torch.Tensor) -> torch.Tensor:
        paid = torch.zeros_like(log_probabilities[:, 0])
        tokens = torch.empty_like(ended, dtype=torch.int64)
        for chain in range(options.beam_size):
            tokens[:, chain] = (log_probabilities[:, chain] - paid).argmax(-1)
            price = options.diversity * ~ended[:, chain, None]  # what ended takes no more tokens
            paid.scatter_add_(1, tokens[:, chain, None], price)
        return tokens

    return _follow(
        step, state, apart, chains=options.beam_size, start=start, end=end, never=never, options=options, watch=watch
    )


@torch.inference_mode()
def sampling_search(
    step: Step,
    state: State,
    *,
    start: int,
    end: int,
    never: Iterable[int] = (),
    options: SearchOptions,
    watch: Watch | None = None,
) -> list[list[Hypothesis]]:
    """`beam_size` hypotheses drawn with torch's global generator; arguments and errors as in `search`.

    Log-probabilities are divided by `temperature` first; then only the most probable tokens remain, as few as have
    `nucleus` of the probability together (Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration",
    section 3.1). Hypotheses are ranked by the model's own probabilities, and what is drawn twice counts once.
    """

    def draw(log_probabilities: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        return _draw(log_probabilities, temperature=options.temperature, nucleus=options.nucleus)

    return _follow(
        step, state, draw, chains=options.beam_size, start=start, end=end, never=never, options=options, watch=watch
    )


def _follow(
    step: Step,
    state: State,
    choose: Choose,
    *,
    chains: int,
    start: int,
    end: int,
    never: Iterable[int],
    options: SearchOptions,
    watch: Watch | None,
) -> list[list[Hypothesis]]:
    """Hypotheses that grow side by side, none replaced by another: `chains` of them for each image."""
    if not len(state[0]):
        return []
    state = tuple(part.expand(-1, chains, *part.shape[2:]) for part in state)
    tokens = torch.full((len(state[0]), chains), start, device=state[0].device)
    forbidden = torch.tensor(list(never), dtype=torch.int64, device=tokens.device)
    ended = torch.zeros_like(tokens, dtype=torch.bool)
    path: list[torch.Tensor] = []
    log_path: list[torch.Tensor] = []
    for index in range(options.max_length + 1):
        logits, state = step(tokens, state)
        log_probabilities = _log_probabilities(logits, forbidden)
        tokens = choose(log_probabilities, ended)
        path.append(tokens)
        log_path.append(log_probabilities.gather(-1, tokens.unsqueeze(-1)).squeeze(-1))
        ended |= tokens == end
        if watch and index < options.max_length:
            live = torch.stack(log_path, -1).sum(-1).masked_fill(ended, -math.inf)
            watch(index, torch.stack(path, -1), live)
        if ended.all():  # the one sync of a step
            break
    results = []
    for image, group in enumerate(zip(torch.stack(path, -1).tolist(), torch.stack(log_path, -1).tolist(), strict=True)):
        found = {}
        for words, logs in zip(*group, strict=True):
            finished = end in words
            length = words.index(end) if finished else options.max_length
            counted = logs[: length + finished]
            if not all(map(math.isfinite, counted)) or math.isnan(logs[length]):
                raise not_finite(image)
            found[tuple(words[:length]), finished] = _hypothesis(words[:length], counted, finished, options)
        finished_ones = [hypothesis for hypothesis in found.values() if hypothesis.finished]
        results.append(sorted(finished_ones or found.values(), key=lambda hypothesis: -hypothesis.score))
    return results


@torch.inference_mode()
def beam_search(
    step: Step,
    state: State,
    *,
    start: int,
    end: int,
    never: Iterable[int] = (),
    options: SearchOptions,
    watch: Watch | None = None,
) -> list[list[Hypothesis]]:
    """The best `beam_size` hypotheses that a beam search meets; arguments and errors as in `search`.

    At each step all continuations of the live hypotheses are candidates. Those among the best `beam_size` that end
    compete in the image's pool, ranked by log-probability / length ** length_penalty, the end counted (Wu et al. 2016,
    section 7, the form before their equation 14; with a penalty of 1, Graves 2012, algorithm 1). The best `beam_size`
    that do not end live on, so a finished hypothesis takes no place from a live one (fairseq's rule).

    A beam of 1 equals greedy search where the penalty is 0; a higher one may rank a longer hypothesis above it.
    """
    batch, beam, device = len(state[0]), options.beam_size, state[0].device
    if not batch:
        return []
    images = torch.arange(batch, device=device)[:, None]
    forbidden = torch.tensor(list(never), dtype=torch.int64, device=device)
    tokens = torch.full((batch, 1), start, device=device)
    history = tokens.new_zeros(batch, 1, 0)
    # Candidates are the nodes of a tree, numbered through all steps; hypotheses are read off it once, at the end.
    tree: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []  # parents, tokens, their log-probabilities
    nodes = 0
    live, live_nodes = torch.zeros(batch, 1, device=device), torch.full((batch, 1), -1, device=device)
    pool = torch.full((batch, beam), -math.inf, device=device)
    pool_nodes = torch.full((batch, beam), -1, device=device)
    broken = torch.zeros(batch, dtype=torch.bool, device=device)
    longest = (options.max_length + 1) ** options.length_penalty

    for length in range(1, options.max_length + 2):  # with the candidates' own token, an end included
        logits, state = step(tokens, state)
        log_probabilities = _log_probabilities(logits, forbidden)
        width, vocabulary = log_probabilities.shape[1:]
        totals = (live[..., None] + log_probabilities).flatten(1)
        best, places = totals.topk(min(2 * beam, width * vocabulary))  # at most `width` of them end
        broken |= best[:, 0].isnan()  # topk puts NaN first
        parents, chosen = places // vocabulary, places % vocabulary
        tree.append((live_nodes.gather(1, parents), chosen, log_probabilities.flatten(1).gather(1, places)))
        numbers = torch.arange(nodes, nodes + best.shape[1], device=device).expand(batch, -1)
        nodes += best.shape[1]

        ends = chosen == end
        scores = (best / length**options.length_penalty).masked_fill(~ends, -math.inf)[:, :beam]
        pool, places = torch.cat([pool, scores], 1).topk(beam)
        pool_nodes = torch.cat([pool_nodes, numbers[:, :beam]], 1).gather(1, places)
        if length > options.max_length:
            break

        live, places = best.masked_fill(ends, -math.inf).topk(max(1, min(beam, width * (vocabulary - 1))))
        live_nodes, parents, tokens = (x.gather(1, places) for x in (numbers, parents, chosen))
        if watch:
            history = torch.cat([history[images, parents], tokens[..., None]], -1)
            watch(length - 1, history, live)
        # Log-probabilities only fall, so no live hypothesis can end above the best one's, divided for the longest end
        # (a bound as in Huang, Zhao and Ma 2017). The one sync of a step.
        if (pool[:, -1] >= live[:, 0] / longest).all():
            break
        state = tuple(x[images, parents] for x in state)

    node_parents, node_tokens, node_logs = (torch.cat(column, 1).tolist() for column in zip(*tree, strict=True))
    in_pool, in_beam = _occupied(pool, pool_nodes), _occupied(live, live_nodes)
    results = []
    for image, failed in enumerate(broken.tolist()):
        # A finished hypothesis, however improbable, goes before an unfinished one.
        ranked = [(node, True) for node in in_pool[image]] or [(node, False) for node in in_beam[image]]
        if failed or not ranked:
            raise not_finite(image)
        hypotheses = []
        for node, is_finished in ranked:
            trail = []
            while node >= 0:
                trail.append(node)
                node = node_parents[image][node]
            trail.reverse()
            words = [node_tokens[image][n] for n in (trail[:-1] if is_finished else trail)]
            hypotheses.append(_hypothesis(words, [node_logs[image][n] for n in trail], is_finished, options))
        results.append(sorted(hypotheses, key=lambda hypothesis: -hypothesis.score))
    return results


@torch.no_grad()
def sample(
    step: Step,
    state: State,
    *,
    start: int,
    end: int,
    never: Iterable[int] = (),
    samples: int,
    max_length: int,
    temperature: float = 1.0,
) -> torch.Tensor:
    """Tokens (B, samples, T), drawn word by word from the model's probabilities with torch's global generator.

    Logits are divided by `temperature` first: below 1, likely words become likelier. `state` and `never` as in
    `search`; the forbidden tokens' probability goes to the others. A sample is without start and repeats its end behind
    it; one that has not ended after `max_length` tokens is cut there. Raises CaptionerError as `search` does.
    """
    state = tuple(part.expand(-1, samples, *part.shape[2:]) for part in state)
    tokens = torch.full((len(state[0]), samples), start, device=state[0].device)
    forbidden = torch.tensor(list(never), dtype=torch.int64, device=tokens.device)
    ended = torch.zeros_like(tokens, dtype=torch.bool)
    path = []
    for _ in range(max_length):
        logits, state = step(tokens, state)
        if not logits.isfinite().all():
            raise not_finite(int((~logits.isfinite()).flatten(1).any(1).nonzero()[0]))
        tokens = _draw(_log_probabilities(logits, forbidden), temperature=temperature).masked_fill(ended, end)
        path.append(tokens)
        ended |= tokens == end
        if ended.all():  # the one sync of a step
            break
    return torch.stack(path, -1)


def _draw(log_probabilities: torch.Tensor, *, temperature: float, nucleus: float = 1.0) -> torch.Tensor:
    """Log-probabilities (B, K, V) -> tokens (B, K) drawn as `sampling_search` says."""
    probabilities = (log_probabilities / temperature).softmax(-1)
    if nucleus < 1:
        ordered, places = probabilities.sort(-1, descending=True)
        beyond = ordered.cumsum(-1) - ordered >= nucleus  # those before it have enough
        probabilities = probabilities.masked_fill(beyond.scatter(-1, places, beyond), 0)
    # Where nothing is possible multinomial would fail; what is drawn there instead has a logarithm that gives it away.
    probabilities = torch.where(probabilities.isfinite(), probabilities, 1)
    return torch.multinomial(probabilities.flatten(0, 1), 1).view(probabilities.shape[:2])


def _log_probabilities(logits: torch.Tensor, forbidden: torch.Tensor) -> torch.Tensor:
    """The model's own log-probabilities in float32, and -inf for tokens that may not be produced."""
    return torch.log_softmax(logits, -1, dtype=torch.float32).index_fill_(-1, forbidden, -math.inf)


def _occupied(scores: torch.Tensor, nodes: torch.Tensor) -> list[list[int]]:
    """Each image's nodes without the empty places, which score -inf."""
    pairs = zip(scores.tolist(), nodes.tolist(), strict=True)
    return [[node for score, node in zip(*pair, strict=True) if score > -math.inf] for pair in pairs]


def _hypothesis(tokens: list[int], logs: list[float], finished: bool, options: SearchOptions) -> Hypothesis:
    score = sum(logs) / len(logs) ** options.length_penalty
    return Hypothesis(tuple(tokens), tuple(logs), finished, score)


def not_finite(image: int) -> CaptionerError:
    """What is raised where a model's probabilities for an image, by its place in the batch, are no numbers."""
    return CaptionerError(
        f"The model produced no finite probabilities for image {image} of its batch: "
        "its file may be damaged, so try another model file or train it again."
    )
