"""Beam search: hypotheses that are kept while they are among the best of their image.

Promises, proved in tests/test_search.py: a beam as wide as the language finds what exhaustive search finds; stopping
early changes no result.
"""

import math

from captioner.options import SearchOptions
from captioner.search.arrays import Array, Arrays, arrays_of
from captioner.search.decoding import Decoding, Hypothesis, Watch, bar_loops, hypothesis_of, not_finite


def beam_search(decoding: Decoding, options: SearchOptions, watch: Watch | None = None) -> list[list[Hypothesis]]:
    """The best `beam_size` hypotheses that a beam search meets; errors as in `search`.

    At each step all continuations of the live hypotheses are candidates. Those among the best `beam_size` that end
    compete in the image's pool, ranked by log-probability / length ** length_penalty, the end counted (Wu et al. 2016,
    section 7, the form before their equation 14; with a penalty of 1, Graves 2012, algorithm 1). The best `beam_size`
    that do not end live on, so a finished hypothesis takes no place from a live one (fairseq's rule).

    A beam of 1 equals greedy search where the penalty is 0; a higher one may rank a longer hypothesis above it.
    """
    arrays = arrays_of(decoding.state[0])
    with arrays.without_gradients():
        return _beam_search(decoding, options, watch, arrays)


def _beam_search(
    decoding: Decoding, options: SearchOptions, watch: Watch | None, arrays: Arrays
) -> list[list[Hypothesis]]:
    """`beam_search`, with the library of its arrays."""
    state, end, beam = decoding.state, decoding.end, options.beam_size
    batch = len(state[0])
    images, forbidden = arrays.integers(0, batch)[:, None], arrays.ids(decoding.never)
    tokens = arrays.full((batch, 1), decoding.start, "int64")
    history = arrays.full((batch, 1, 0), 0, "int64")
    # Candidates are the nodes of a tree, numbered through all steps; hypotheses are read off it once, at the end.
    tree: list[tuple[Array, Array, Array]] = []  # parents, tokens, their log-probabilities
    nodes = 0
    live, live_nodes = arrays.full((batch, 1), 0), arrays.full((batch, 1), -1, "int64")
    pool, pool_nodes = arrays.full((batch, beam), -math.inf), arrays.full((batch, beam), -1, "int64")
    broken = arrays.full((batch,), False, "bool")
    longest = (options.max_length + 1) ** options.length_penalty

    for length in range(1, options.max_length + 2):  # with the candidates' own token, an end included
        logits, state = decoding.step(tokens, state)
        log_probabilities = arrays.log_probabilities(logits, forbidden)
        log_probabilities = bar_loops(log_probabilities, history, decoding.repeats, arrays)
        width, vocabulary = log_probabilities.shape[1:]
        totals = (live[..., None] + log_probabilities).reshape(batch, -1)
        best, places = arrays.largest(totals, min(2 * beam, width * vocabulary))  # at most `width` of them end
        broken |= best[:, 0] != best[:, 0]  # NaN comes first
        parents, chosen = places // vocabulary, places % vocabulary
        own = arrays.take(log_probabilities.reshape(batch, -1), places)
        tree.append((arrays.take(live_nodes, parents), chosen, own))
        numbers = arrays.broadcast_to(arrays.integers(nodes, nodes + best.shape[1]), best.shape)
        nodes += best.shape[1]

        ends = chosen == end
        scores = arrays.fill(best / length**options.length_penalty, ~ends, -math.inf)[:, :beam]
        pool, places = arrays.largest(arrays.concatenate([pool, scores], 1), beam)
        pool_nodes = arrays.take(arrays.concatenate([pool_nodes, numbers[:, :beam]], 1), places)
        if length > options.max_length:
            break

        living = arrays.fill(best, ends, -math.inf)
        live, places = arrays.largest(living, max(1, min(beam, width * (vocabulary - 1))))
        live_nodes, parents, tokens = (arrays.take(x, places) for x in (numbers, parents, chosen))
        history = arrays.concatenate([history[images, parents], tokens[..., None]], -1)
        if watch:
            watch(length - 1, history, live)
        # Log-probabilities only fall, so no live hypothesis can end above the best one's, divided for the longest end
        # (a bound as in Huang, Zhao and Ma 2017). The one sync of a step.
        if (pool[:, -1] >= live[:, 0] / longest).all():
            break
        state = tuple(x[images, parents] for x in state)

    node_parents, node_tokens, node_logs = (arrays.concatenate(part, 1).tolist() for part in zip(*tree, strict=True))
    in_pool, in_beam = _occupied(pool, pool_nodes), _occupied(live, live_nodes)
    results = []
    for image, failed in enumerate(broken.tolist()):
        # A finished hypothesis, however improbable, goes before an unfinished one.
        ranked = [(node, True) for node in in_pool[image]] or [(node, False) for node in in_beam[image]]
        if failed or not ranked:
            raise not_finite(image)
        nodes_of_image = node_parents[image], node_tokens[image], node_logs[image]
        hypotheses = [_read_off(node, is_finished, nodes_of_image, options) for node, is_finished in ranked]
        results.append(sorted(hypotheses, key=lambda hypothesis: -hypothesis.score))
    return results


def _read_off(
    node: int, finished: bool, nodes: tuple[list[int], list[int], list[float]], options: SearchOptions
) -> Hypothesis:
    """The hypothesis that ends in a node, from the parents, tokens and log-probabilities of an image's nodes."""
    parents, tokens, logs = nodes
    trail = []
    while node >= 0:
        trail.append(node)
        node = parents[node]
    trail.reverse()
    words = [tokens[n] for n in (trail[:-1] if finished else trail)]
    return hypothesis_of(words, [logs[n] for n in trail], finished, options)


def _occupied(scores: Array, nodes: Array) -> list[list[int]]:
    """Each image's nodes without the empty places, which score -inf."""
    pairs = zip(scores.tolist(), nodes.tolist(), strict=True)
    return [[node for score, node in zip(*pair, strict=True) if score > -math.inf] for pair in pairs]
