"""The promises of captioner.search, against hand-made tables and slow plain-Python oracles that share no code with it.

Every one is kept with torch's arrays and with NumPy's.
"""

import dataclasses
import functools
import itertools
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.errors import CaptionerError, OptionError
from captioner.options import METHODS as ALL_METHODS
from captioner.options import SearchOptions
from captioner.search import METHODS, Decoding, Hypothesis, beam_search, greedy_search, search

START, END, PAD = 0, 1, 2  # words follow
INF = math.inf

# Derandomised: a float32 and a float64 search could part ways at a near-tie, once in many thousand random models.
quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)
seeds = st.integers(0, 10**6)
every_method = pytest.mark.parametrize(
    ("beam", "method"), [(1, "beam"), (3, "beam"), (3, "diverse"), (1, "sample"), (3, "sample")]
)
penalties = st.sampled_from([0.0, 0.3, 0.7, 1.0, 2.0])
rules = st.sampled_from([None, 1, 2])  # how often a word, or a pair of words, may come in a row


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors here are tiny: on a busy machine, threads that wait for each other cost several times the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="module", params=["torch", "numpy"])
def library(request):
    """Which arrays the tables and models below are made of."""
    global array
    array = {"torch": torch.tensor, "numpy": np.array}[request.param]
    return request.param


array = torch.tensor


def joined(parts, axis):
    """Arrays of the library side by side."""
    return (np if isinstance(parts[0], np.ndarray) else torch).concatenate(parts, axis)


def seeded(seed):
    """Both libraries draw the same each time."""
    torch.manual_seed(seed)
    np.random.seed(seed)


class Table:
    """A step function whose next token depends on the last one: rows[last] = {next: probability}."""

    def __init__(self, rows, vocabulary):
        probabilities = torch.zeros(vocabulary, vocabulary)
        for last, row in rows.items():
            assert math.isclose(sum(row.values()), 1, abs_tol=1e-6)
            for token, probability in row.items():
                probabilities[last, token] = probability
        probabilities[probabilities.sum(1) == 0, END] = 1.0
        self.logits = array(probabilities.log().tolist())
        self.calls = 0

    def __call__(self, tokens, state):
        self.calls += 1
        return self.logits[tokens], state

    def state(self, batch=1):
        return (array([[[0.0]]] * batch).reshape(batch, 1, 1),)


@functools.cache
def random_logits(image, history, vocabulary, end_bias):
    """The next token's logits after a whole history (start included): one model for the search and the oracles."""
    rng = random.Random(f"{image} {history}")
    logits = [rng.gauss(0, 2) for _ in range(vocabulary)]
    logits[END] += end_bias
    return logits


def loops(tokens, repeats):
    """The sequence ends in a token, or a pair of tokens, that stands there more than `repeats` times."""
    return repeats is not None and any(
        len(tokens) >= period * (repeats + 1) and tokens[-period * (repeats + 1) :] == tokens[-period:] * (repeats + 1)
        for period in (1, 2)
    )


def random_log_probabilities(image, history, vocabulary, end_bias, never, repeats=None):
    logits = random_logits(image, history, vocabulary, end_bias)
    total = math.log(math.fsum(map(math.exp, logits)))
    return [
        -INF if token in never or loops((*history[1:], token), repeats) else logit - total
        for token, logit in enumerate(logits)
    ]


class RandomModel:
    """A step function that depends on the image and on the whole history.

    The image comes from the closure's own memory, indexed by batch position alone; the history comes from the state.
    """

    def __init__(self, images, vocabulary, end_bias=0.0, dtype="float64"):
        self.images, self.vocabulary, self.end_bias, self.dtype = images, vocabulary, end_bias, dtype
        self.histories = []

    def state(self):
        batch = len(self.images)
        owners = array([[place] for place in range(batch)])
        return owners[..., None][..., :0], owners

    def __call__(self, tokens, state):
        history, owner = state
        assert str(tokens.dtype).removeprefix("torch.") == "int64"
        assert tokens.shape == history.shape[:2] == owner.shape
        assert (owner == array([[place] for place in range(len(self.images))])).all(), "a state went to another image"
        history = joined([history, tokens[..., None]], -1)
        self.histories.append(history)
        logits = [
            [random_logits(image, tuple(row), self.vocabulary, self.end_bias) for row in rows]
            for image, rows in zip(self.images, history.tolist(), strict=True)
        ]
        kind = getattr(torch if array is torch.tensor else np, self.dtype)
        return array(np.array(logits), dtype=kind), (history, owner)

    def search(self, options, method=search, never=(START, PAD), repeats=None, watch=None):
        return method(Decoding(self, self.state(), START, END, never, repeats), options, watch)


def every_sentence(image, vocabulary, end_bias, never, options, repeats=None):
    """The score of every finished sequence, by exhaustive enumeration; best first."""
    found = []

    def visit(words, total):
        logs = random_log_probabilities(image, (START, *words), vocabulary, end_bias, never, repeats)
        found.append(((total + logs[END]) / (len(words) + 1) ** options.length_penalty, words))
        if len(words) < options.max_length:
            for word in range(vocabulary):
                if word != END and logs[word] > -INF:
                    visit((*words, word), total + logs[word])

    visit((), 0.0)
    return sorted(found, reverse=True)


def slow_beam_search(image, vocabulary, end_bias, never, options, early_stop=False, repeats=None):
    """Beam search with lists and full sorts; (finished, unfinished) pairs of score and words, and the steps taken."""
    beam, longest = options.beam_size, options.max_length + 1
    live, pool, steps = [(0.0, ())], [], 0
    for length in range(1, longest + 1):
        steps += 1
        candidates = []
        for total, words in live:
            logs = random_log_probabilities(image, (START, *words), vocabulary, end_bias, never, repeats)
            candidates += [(total + logs[token], words, token) for token in range(vocabulary) if logs[token] > -INF]
        candidates.sort(reverse=True)
        for total, words, token in candidates[:beam]:
            if token == END:
                pool.append((total / length**options.length_penalty, words))
        pool = sorted(pool, reverse=True)[:beam]
        if length == longest:
            break
        live = [(total, (*words, token)) for total, words, token in candidates if token != END][:beam]
        best_future = live[0][0] / longest**options.length_penalty if live else -INF
        worst = pool[-1][0] if len(pool) == beam else -INF
        if early_stop and worst >= best_future:
            break
    return pool, [(total / len(words) ** options.length_penalty, words) for total, words in live], steps


def assert_same(hypotheses, expected):
    """Equal scores; equal sequences too where the scores are no tie."""
    assert [h.score for h in hypotheses] == pytest.approx([score for score, _ in expected], abs=1e-4)
    for place, (hypothesis, (score, words)) in enumerate(zip(hypotheses, expected, strict=True)):
        if all(abs(other - score) > 1e-3 for i, (other, _) in enumerate(expected) if i != place):
            assert hypothesis.tokens == words


# ---- hand-made tables ------------------------------------------------------------------------------------------------

THE, A, DOG, CAT, RUNS = 3, 4, 5, 6, 7
GARDEN = {
    START: {THE: 0.4, A: 0.6},
    THE: {DOG: 0.9, CAT: 0.1},
    A: {DOG: 0.4, CAT: 0.35, END: 0.25},
    DOG: {END: 0.75, RUNS: 0.25},
    CAT: {END: 1.0},
}


def run_table(rows, by=search, vocabulary=8, never=(START, PAD), batch=1, **options):
    table = Table(rows, vocabulary)
    return by(Decoding(table, table.state(batch), START, END, tuple(never)), SearchOptions(**options)), table


def test_greedy_follows_the_most_probable_word():
    """Greedy takes "a" and never sees that "the" leads to a better sentence."""
    [[found]], _ = run_table(GARDEN, beam_size=1, max_length=5)
    assert found.tokens == (A, DOG)
    assert found.finished
    assert found.log_probabilities == pytest.approx([math.log(0.6), math.log(0.4), math.log(0.75)], abs=1e-6)
    assert found.score == pytest.approx(math.log(0.6 * 0.4 * 0.75), abs=1e-6)


def test_beam_finds_what_greedy_misses():
    """A beam of 2 keeps "the" alive, and ranks by log-probability at penalty 0."""
    [found], _ = run_table(GARDEN, beam_size=2, max_length=5)
    assert [h.tokens for h in found] == [(THE, DOG), (A, DOG)]
    assert [h.score for h in found] == pytest.approx([math.log(0.27), math.log(0.18)], abs=1e-6)


def test_beam_of_three_with_expected_scores():
    """A beam of 3 meets every good sentence of the table; its three best are returned, best first."""
    [found], _ = run_table(GARDEN, beam_size=3, max_length=5)
    assert [h.tokens for h in found] == [(THE, DOG), (A, CAT), (A, DOG)]
    assert [math.exp(h.log_probability) for h in found] == pytest.approx([0.27, 0.21, 0.18], abs=1e-6)


def test_length_penalty_divides_by_tokens_with_the_end_counted():
    """Penalty 0 prefers the short sentence (.5 over .4), penalty 1 the long one (ln .4 / 3 over ln .5 / 2)."""
    rows = {START: {THE: 0.5, A: 0.5}, A: {DOG: 0.8, CAT: 0.2}}
    [short], _ = run_table(rows, beam_size=3, max_length=4, length_penalty=0.0)
    [long], _ = run_table(rows, beam_size=3, max_length=4, length_penalty=1.0)
    assert [h.tokens for h in short] == [(THE,), (A, DOG), (A, CAT)]
    assert [h.score for h in short] == pytest.approx([math.log(0.5), math.log(0.4), math.log(0.1)], abs=1e-6)
    assert [h.tokens for h in long] == [(A, DOG), (THE,), (A, CAT)]
    assert [h.score for h in long] == pytest.approx([math.log(0.4) / 3, math.log(0.5) / 2, math.log(0.1) / 3], abs=1e-6)


def test_only_the_first_candidates_finish():
    """An end outside the best `beam_size` candidates does not finish, even among the 2 * beam_size looked at."""
    rows = {START: {THE: 0.5, A: 0.3, END: 0.2}, A: {A: 1.0}}
    [found], _ = run_table(rows, beam_size=2, max_length=5)
    assert [h.tokens for h in found] == [(THE,)]


def test_a_finished_hypothesis_takes_no_place_from_a_live_one():
    """With one end in the best two candidates, two other hypotheses still live on."""
    rows = {START: {END: 0.5, THE: 0.3, A: 0.2}, THE: {DOG: 0.4, RUNS: 0.6}, A: {CAT: 1.0}}
    [found], _ = run_table(rows, beam_size=2, max_length=5)
    assert [h.tokens for h in found] == [(), (A, CAT)]
    assert [math.exp(h.score) for h in found] == pytest.approx([0.5, 0.2], abs=1e-6)


def test_the_empty_sentence():
    """A model that ends at once gives a finished hypothesis of no words."""
    for beam in (1, 3):
        [found], _ = run_table({START: {END: 1.0}}, beam_size=beam, max_length=5)
        assert found == [Hypothesis(tokens=(), log_probabilities=(0.0,), finished=True, score=0.0)]


@pytest.mark.parametrize("beam", [1, 2])
def test_a_hypothesis_of_the_greatest_length_may_still_end(beam):
    """`max_length` counts words, not the end."""
    [found], table = run_table({START: {A: 1.0}, A: {DOG: 1.0}, DOG: {END: 1.0}}, beam_size=beam, max_length=2)
    assert found[0].tokens == (A, DOG)
    assert found[0].finished
    assert len(found[0].log_probabilities) == 3
    assert table.calls <= 3


@pytest.mark.parametrize(("beam", "words"), [(1, [(A, A, A)]), (2, [(A, A, A), (DOG, A, A)])])
def test_nothing_finishes(beam, words):
    """Without any finished hypothesis the best unfinished ones are the answer, of `max_length` words each."""
    rows = {START: {A: 0.6, DOG: 0.4}, A: {A: 1.0}, DOG: {A: 1.0}}
    [found], _ = run_table(rows, beam_size=beam, max_length=3, length_penalty=1.0)
    assert [h.tokens for h in found] == words
    assert not any(h.finished for h in found)
    assert found[0].log_probabilities == pytest.approx([math.log(0.6), 0, 0], abs=1e-6)
    assert found[0].score == pytest.approx(math.log(0.6) / 3, abs=1e-6)


def test_unfinished_ones_are_dropped_once_one_finished():
    """A finished hypothesis is returned alone, however probable the unfinished ones are."""
    rows = {START: {A: 0.9, THE: 0.1}, A: {A: 1.0}, THE: {END: 1.0}}
    [found], _ = run_table(rows, beam_size=2, max_length=3)
    assert [(h.tokens, h.finished) for h in found] == [((THE,), True)]


# ---- early stop ------------------------------------------------------------------------------------------------------


def test_search_stops_when_nothing_can_win():
    """One step is enough when a beam of 2 has two finished hypotheses above every live one; penalty 0."""
    rows = {START: {A: 0.5, END: 0.5}, A: {END: 0.9, DOG: 0.1}, DOG: {A: 1.0}}
    _, table = run_table(rows, beam_size=2, max_length=50)
    assert table.calls == 2
    _, table = run_table(rows, beam_size=1, max_length=50, never=(START, PAD, A))
    assert table.calls == 1


def test_search_goes_on_while_a_longer_hypothesis_can_win():
    """With a penalty, a hypothesis below the pool today may be above it at the greatest length: it is waited for."""
    rows = {
        START: {A: 0.4, END: 0.6},
        A: {DOG: 0.5, END: 0.5},
        DOG: {CAT: 1.0},
        CAT: {RUNS: 1.0},
        RUNS: {END: 1.0},
    }
    [found], _ = run_table(rows, by=beam_search, beam_size=1, max_length=6, length_penalty=1.0)
    assert found[0].tokens == (A, DOG, CAT, RUNS)
    assert found[0].score == pytest.approx(math.log(0.2) / 5, abs=1e-6)


@quick
@given(seeds, st.integers(1, 5), st.integers(1, 5), st.integers(1, 7), penalties, st.sampled_from([0.0, 2.0, 5.0]))
def test_early_stop_is_exact_and_early(seed, words, beam, longest, penalty, end_bias):
    """Results equal a search that never stops early, and no step is taken once nothing can change."""
    options, never = SearchOptions(beam, longest, penalty), (START, PAD)
    model = RandomModel([seed], words + 3, end_bias)
    [found] = model.search(options, beam_search)
    finished, unfinished, _ = slow_beam_search(seed, words + 3, end_bias, never, options)
    assert_same(found, finished or unfinished)
    assert len(model.histories) == slow_beam_search(seed, words + 3, end_bias, never, options, early_stop=True)[2]


# ---- oracles ---------------------------------------------------------------------------------------------------------


@quick
@given(
    seeds,
    st.sampled_from([(1, 1), (1, 6), (2, 2), (2, 5), (3, 2), (4, 2)]),
    penalties,
    st.sampled_from([-4.0, 0.0, 3.0]),
    rules,
)
def test_a_beam_as_wide_as_the_language_is_exhaustive(seed, size, penalty, end_bias, repeats):
    """Every returned hypothesis is the one exhaustive enumeration puts in its place; none is missing."""
    words, longest = size
    options = SearchOptions(min(100, max(2, words**longest * (words + 1))), longest, penalty)
    [found] = RandomModel([seed], words + 3, end_bias).search(options, repeats=repeats)
    expected = every_sentence(seed, words + 3, end_bias, (START, PAD), options, repeats)
    assert_same(found, expected[: options.beam_size])
    assert all(h.finished for h in found)


@quick
@given(
    seeds,
    st.integers(1, 8),
    st.integers(1, 6),
    st.integers(1, 7),
    penalties,
    st.sampled_from([-9.0, -1.0, 2.0]),
    rules,
    st.data(),
)
def test_beam_search_equals_a_slow_one(seed, words, beam, longest, penalty, end_bias, repeats, data):
    """Vectorised search over a batch gives what sorted Python lists give, image by image, finished or not."""
    never = tuple(data.draw(st.sets(st.sampled_from([START, PAD, *range(4, words + 3)]))))
    options, images = SearchOptions(beam, longest, penalty), [seed, seed + 1, seed + 2]
    results = RandomModel(images, words + 3, end_bias).search(options, beam_search, never, repeats)
    for image, found in zip(images, results, strict=True):
        finished, unfinished, _ = slow_beam_search(image, words + 3, end_bias, never, options, repeats=repeats)
        assert_same(found, finished or unfinished)
        assert {h.finished for h in found} == {bool(finished)}
        assert not {token for h in found for token in h.tokens} & {*never, END}, "a forbidden token was produced"


@quick
@given(seeds, st.integers(1, 8), st.integers(1, 7), penalties, st.sampled_from([-9.0, 0.0, 2.0]), rules)
def test_greedy_equals_a_slow_one(seed, words, longest, penalty, end_bias, repeats):
    """Greedy search takes the most probable allowed token until the end or `max_length` words."""
    options, never = SearchOptions(1, longest, penalty), (START, PAD)
    for image, [found] in zip(
        [seed, seed + 1],
        RandomModel([seed, seed + 1], words + 3, end_bias).search(options, repeats=repeats),
        strict=True,
    ):
        chosen, logs = [], []
        while END not in chosen and len(chosen) <= longest:
            step = random_log_probabilities(image, (START, *chosen), words + 3, end_bias, never, repeats)
            logs.append(max(step))
            chosen.append(step.index(logs[-1]))
        finished = chosen[-1] == END
        assert found.tokens == tuple(chosen[:-1])
        assert found.finished == finished
        assert found.log_probabilities == pytest.approx(logs if finished else logs[:-1], abs=1e-4)
        assert found.score == pytest.approx(found.log_probability / len(found.log_probabilities) ** penalty)


@quick
@given(seeds, st.integers(1, 8), st.integers(1, 7), penalties, st.sampled_from([-9.0, 0.0, 2.0]))
def test_a_beam_of_one_is_greedy(seed, words, longest, penalty, end_bias):
    """`search` at beam 1 is greedy search; so is `beam_search` at penalty 0, and at others it never ranks lower."""
    model = RandomModel([seed, seed + 1, seed + 2], words + 3, end_bias)
    for options in (SearchOptions(1, longest, 0.0), SearchOptions(1, longest, penalty)):
        greedy = model.search(options, greedy_search)
        assert model.search(options) == greedy
        for [wide], [narrow] in zip(model.search(options, beam_search), greedy, strict=True):
            if options.length_penalty == 0:
                assert wide == narrow
            assert wide.finished >= narrow.finished
            assert wide.score >= narrow.score or wide.finished > narrow.finished


@quick
@given(seeds, st.integers(2, 8), st.integers(1, 5), penalties, st.permutations(range(5)), st.sampled_from([0.0, 2.0]))
def test_companions_change_nothing(seed, words, beam, penalty, order, end_bias):
    """A batch of N equals N batches of one, in any order."""
    options, images = SearchOptions(beam, 6, penalty), [seed + i for i in order]
    together = RandomModel(images, words + 3, end_bias).search(options)
    for image, found in zip(images, together, strict=True):
        [alone] = RandomModel([image], words + 3, end_bias).search(options)
        assert [h.tokens for h in found] == [h.tokens for h in alone]
        assert [h.score for h in found] == pytest.approx([h.score for h in alone], abs=1e-6)


@quick
@given(seeds, st.integers(1, 8), st.integers(1, 6), penalties, st.sampled_from([-9.0, 0.0, 2.0]))
def test_rescoring_agrees(seed, words, beam, penalty, end_bias):
    """Feeding a hypothesis' tokens through the step function one by one gives its log-probabilities and its score."""
    [found] = RandomModel([seed], words + 3, end_bias).search(SearchOptions(beam, 5, penalty))
    assert 1 <= len(found) <= beam
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    assert len({h.tokens for h in found}) == len(found)
    for hypothesis in found:
        model, logs = RandomModel([seed], words + 3, end_bias), []
        state, last = model.state(), START
        for token in hypothesis.tokens + (END,) * hypothesis.finished:
            logits, state = model(array([[last]]), state)
            logs.append(torch.tensor(logits[0, 0].tolist()).log_softmax(-1)[token].item())
            last = token
        assert hypothesis.log_probabilities == pytest.approx(logs, abs=1e-4)
        assert hypothesis.log_probability == pytest.approx(sum(logs), abs=1e-4)
        assert hypothesis.score == pytest.approx(sum(logs) / len(logs) ** penalty, abs=1e-4)


# ---- diverse search and sampling ---------------------------------------------------------------------------------------


def slow_diverse_search(image, vocabulary, end_bias, never, options, repeats):
    """Words and natural logs of each of the searches, one step of all of them at a time."""
    chains = [((), []) for _ in range(options.beam_size)]
    for _ in range(options.max_length + 1):
        taken, after = [], []
        for words, logs in chains:
            if words[-1:] != (END,):
                step = random_log_probabilities(image, (START, *words), vocabulary, end_bias, never, repeats)
                prices = [log - options.diversity * taken.count(token) for token, log in enumerate(step)]
                token = prices.index(max(prices))
                taken.append(token)
                words, logs = (*words, token), [*logs, step[token]]
            after.append((words, logs))
        chains = after
    return chains


@quick
@given(
    seeds,
    st.integers(1, 8),
    st.integers(1, 5),
    st.integers(1, 6),
    penalties,
    st.sampled_from([0.0, 0.5, 2.0, 50.0]),
    st.sampled_from([-9.0, 0.0, 2.0]),
    rules,
)
def test_diverse_search_equals_a_slow_one(seed, words, beam, longest, penalty, diversity, end_bias, repeats):
    """Each search pays for the words that those before it take at the same place; what is found is ranked without."""
    options = SearchOptions(beam, longest, penalty, method="diverse", diversity=diversity)
    never, images = (START, PAD), [seed, seed + 1]
    results = RandomModel(images, words + 3, end_bias).search(options, repeats=repeats)
    for image, found in zip(images, results, strict=True):
        expected = {}
        for chain, logs in slow_diverse_search(image, words + 3, end_bias, never, options, repeats):
            finished = END in chain
            logs = logs if finished else logs[:longest]
            key = tuple(token for token in chain if token != END)[:longest], finished
            expected[key] = sum(logs) / len(logs) ** penalty
        best = {key: score for key, score in expected.items() if key[1]} or expected
        assert_same(found, sorted(((score, key[0]) for key, score in best.items()), reverse=True))


@quick
@given(seeds, st.integers(1, 5), penalties)
def test_diverse_search_without_a_price_is_greedy_search(seed, beam, penalty):
    """All its searches then find the same, which counts once."""
    model = RandomModel([seed, seed + 1], 8)
    options = SearchOptions(beam, 6, penalty, method="diverse", diversity=0.0)
    assert model.search(options) == model.search(replace(options, method="beam", beam_size=1))


def test_a_high_price_makes_every_first_word_another():
    """As many searches as there are words: each begins with a word of its own."""
    rows = {START: {THE: 0.7, A: 0.2, DOG: 0.06, CAT: 0.04}}
    [found], _ = run_table(rows, beam_size=4, method="diverse", diversity=9.0)
    assert [h.tokens for h in found] == [(THE,), (A,), (DOG,), (CAT,)]
    assert [math.exp(h.score) for h in found] == pytest.approx([0.7, 0.2, 0.06, 0.04], abs=1e-6)


def draws(model, count, **options):
    """The shares of the sentences that `count` draws find, one an image."""
    table = Table(model, 8)
    seeded(5)
    options = SearchOptions(1, 5, method="sample", **options)
    found = search(Decoding(table, table.state(count), START, END, (START, PAD)), options)
    tokens = [hypotheses[0].tokens for hypotheses in found]
    return {sentence: tokens.count(sentence) / count for sentence in set(tokens)}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sampling_follows_the_models_probabilities(temperature):
    """At a temperature of 1; at others each word's probability to the power of 1 / temperature, made to sum to 1."""
    row = {THE: 0.5, A: 0.3, DOG: 0.2}
    total = sum(probability ** (1 / temperature) for probability in row.values())
    shares = draws({START: row}, 20_000, temperature=temperature)
    expected = {(word,): probability ** (1 / temperature) / total for word, probability in row.items()}
    assert shares == pytest.approx(expected, abs=0.015)  # four standard deviations


@pytest.mark.parametrize(
    ("nucleus", "expected"),
    [
        (0.45, {THE: 1.0}),
        (0.55, {THE: 5 / 8, A: 3 / 8}),
        (0.75, {THE: 5 / 8, A: 3 / 8}),
        (0.85, {THE: 0.5, A: 0.3, DOG: 0.2}),
    ],
)
def test_the_nucleus_is_the_fewest_words_with_that_probability(nucleus, expected):
    """They keep their proportions; the others are never drawn."""
    shares = draws({START: {THE: 0.5, A: 0.3, DOG: 0.2}}, 20_000, nucleus=nucleus)
    assert shares == pytest.approx({(word,): share for word, share in expected.items()}, abs=0.015)


@quick
@given(seeds, st.integers(1, 8), st.integers(1, 6), penalties, st.sampled_from([-9.0, 0.0, 2.0]))
def test_what_is_drawn_has_the_models_own_probabilities(seed, words, beam, penalty, end_bias):
    """Whatever temperature and nucleus: different sentences, best first, no forbidden token, unfinished ones only alone."""
    options = SearchOptions(beam, 5, penalty, method="sample", temperature=1.7, nucleus=0.9)
    images = [seed, seed + 1]
    for image, found in zip(images, RandomModel(images, words + 3, end_bias).search(options), strict=True):
        assert len({h.tokens for h in found}) == len(found) <= beam
        assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
        assert len({h.finished for h in found}) == 1
        for hypothesis in found:
            assert not {START, PAD, END} & set(hypothesis.tokens)
            logs = [
                random_log_probabilities(image, (START, *hypothesis.tokens[:i]), words + 3, end_bias, ())[token]
                for i, token in enumerate(hypothesis.tokens + (END,) * hypothesis.finished)
            ]
            assert hypothesis.log_probabilities == pytest.approx(logs, abs=1e-4)
            assert hypothesis.score == pytest.approx(sum(logs) / len(logs) ** penalty, abs=1e-4)


# ---- loops -----------------------------------------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_no_sentence_goes_in_a_loop(beam, method, repeats):
    """A model that says one word, or a pair, for ever says it as often as is allowed; what follows is its second best."""
    again = {START: {A: 1.0}, A: {A: 0.9, DOG: 0.1}, DOG: {THE: 0.9, RUNS: 0.1}, THE: {DOG: 0.9, CAT: 0.1}}
    table = Table(again, 8)
    seeded(0)
    options = SearchOptions(beam, 30, method=method)
    [found] = search(Decoding(table, table.state(), START, END, (START, PAD), repeats), options)
    for hypothesis in found:
        assert not any(loops(hypothesis.tokens[:length], repeats) for length in range(len(hypothesis.tokens) + 1))
    if (beam, method) == (1, "beam"):
        assert found[0].tokens == (A,) * repeats + (DOG, THE) * repeats + (DOG, RUNS)
        assert found[0].finished


def test_without_the_rule_a_model_may_repeat_itself():
    """To the greatest length: whoever searches says whether it may."""
    [[found]], _ = run_table({START: {A: 1.0}, A: {A: 0.9, DOG: 0.1}}, beam_size=1, max_length=30)
    assert found.tokens == (A,) * 30


# ---- shapes, state, watching -----------------------------------------------------------------------------------------


@quick
@given(seeds, st.integers(1, 6), st.integers(1, 6), st.integers(1, 6))
def test_the_state_follows_its_hypothesis(seed, words, beam, longest):
    """The history that a state recorded is the history of the hypothesis it is used for, at every step."""
    seen = []
    model = RandomModel([seed, seed + 1], words + 3)
    watched = model.search(
        SearchOptions(beam, longest), watch=lambda i, tokens, scores: seen.append((i, tokens, scores))
    )
    assert watched == RandomModel([seed, seed + 1], words + 3).search(SearchOptions(beam, longest))
    assert [i for i, _, _ in seen] == list(range(len(seen)))
    for history, (_, tokens, _) in zip(model.histories[1:], seen, strict=False):
        assert (history[..., 0] == START).all()
        assert history[..., 1:].tolist() == tokens.tolist()


@quick
@given(seeds, st.integers(1, 6), st.integers(1, 6))
def test_watch_sees_live_hypotheses_with_their_log_probabilities(seed, words, beam):
    """Each is shown with its words so far and its log-probability; -inf marks a place where nothing lives."""

    def watch(index, tokens, scores):
        assert tokens.shape == (*scores.shape, index + 1)
        for image, rows, totals in zip([seed, seed + 1], tokens.tolist(), scores.tolist(), strict=True):
            for row, total in zip(rows, totals, strict=True):
                if total > -INF:
                    assert END not in row
                    assert not {START, PAD} & set(row)
                    logs = [
                        random_log_probabilities(image, (START, *row[:i]), words + 3, 0.0, ())[token]
                        for i, token in enumerate(row)
                    ]
                    assert total == pytest.approx(sum(logs), abs=1e-4)
                    lived.append(index)

    lived = []
    RandomModel([seed, seed + 1], words + 3).search(SearchOptions(beam, 4), watch=watch)
    assert lived or beam == 1


def test_step_is_called_beam_shaped():
    """The first step expands one hypothesis; the beam then widens as far as there are hypotheses to keep."""
    model = RandomModel([1, 2, 3], vocabulary=4, end_bias=-9.0)
    model.search(SearchOptions(beam_size=20, max_length=4))
    assert [tuple(h.shape) for h in model.histories] == [(3, 1, 1), (3, 3, 2), (3, 9, 3), (3, 20, 4), (3, 20, 5)]
    model = RandomModel([1, 2, 3], vocabulary=4, end_bias=-9.0)
    model.search(SearchOptions(beam_size=1, max_length=4))
    assert [tuple(h.shape) for h in model.histories] == [(3, 1, t) for t in range(1, 6)]


def test_a_recurrent_network_and_its_memory():
    """With a GRU and float weights: the memory stays in the closure, and rescoring in one pass gives the scores."""
    torch.manual_seed(0)
    batch, vocabulary, size = 3, 30, 8
    embed, cell, out = (
        torch.nn.Embedding(vocabulary, size),
        torch.nn.GRUCell(size, size),
        torch.nn.Linear(size, vocabulary),
    )
    memory = torch.randn(batch, size)

    def step(tokens, state):
        [hidden] = state
        x = embed(tokens) + memory[:, None]
        hidden = cell(x.flatten(0, 1), hidden.flatten(0, 1)).unflatten(0, tokens.shape)
        return out(hidden) * 3, (hidden,)

    results = search(Decoding(step, (memory[:, None] * 2,), START, END, (START, PAD)), SearchOptions(4, 8, 0.7))
    with torch.no_grad():
        for image, found in enumerate(results):
            for hypothesis in found:
                hidden, total = memory[image : image + 1] * 2, 0.0
                sequence = (START, *hypothesis.tokens, *(END,) * hypothesis.finished)
                for last, token in itertools.pairwise(sequence):
                    hidden = cell(embed(torch.tensor([last])) + memory[image], hidden)
                    total += (out(hidden) * 3).log_softmax(-1)[0, token].item()
                assert hypothesis.log_probability == pytest.approx(total, abs=1e-4)


# ---- edges -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beam", [1, 4])
def test_a_vocabulary_of_the_end_alone(beam):
    """A beam wider than the whole vocabulary, even of one token, is no error."""

    def step(tokens, state):
        return torch.zeros(*tokens.shape, 1), state

    [found] = search(Decoding(step, (torch.zeros(1, 1, 1),), start=0, end=0), SearchOptions(beam, 5))
    assert [(h.tokens, h.finished) for h in found] == [((), True)]


@every_method
def test_every_token_may_be_forbidden_but_the_end(beam, method):
    """The one possible sentence is then the empty one, with the model's own probability; one step finds it."""
    never = (0, 2, 3, 4, 5, 6, 7)
    [found], table = run_table({START: {END: 0.25, A: 0.75}}, beam_size=beam, method=method, never=never)
    assert [h.tokens for h in found] == [()]
    assert math.exp(found[0].score) == pytest.approx(0.25)
    assert table.calls == 1


@every_method
def test_the_end_may_be_forbidden(beam, method):
    """Nothing can finish then, and the unfinished hypotheses are returned."""
    found = RandomModel([7, 8], 6).search(SearchOptions(beam, 4, method=method), never=(START, END, PAD))
    assert all(len(h.tokens) == 4 and not h.finished for image in found for h in image)
    assert method != "beam" or [len(image) for image in found] == [beam, beam]


def test_an_unknown_method_is_an_error():
    """It is not sampled, and the ones there are are those that options allow."""
    options = SearchOptions()
    object.__setattr__(options, "method", "luck")
    table = Table(GARDEN, 8)
    with pytest.raises(OptionError, match=r"--search is 'luck': choose one of beam, diverse, sample\."):
        search(Decoding(table, table.state(), START, END), options)
    assert tuple(METHODS) == ALL_METHODS


@every_method
def test_no_images(beam, method):
    """A batch of zero images gives an empty list, and the step function is not called."""
    assert run_table({}, beam_size=beam, method=method, batch=0)[0] == []
    assert run_table({}, beam_size=beam, method=method, batch=0)[1].calls == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("beam", [1, 4])
def test_half_precision_logits(beam, dtype, library):
    """Half-precision logits are searched in float32: the same as those very logits handed over in float32."""
    if library == "numpy" and dtype == "bfloat16":
        pytest.skip("NumPy has no bfloat16")

    class Widened(RandomModel):
        def __call__(self, tokens, state):
            logits, state = super().__call__(tokens, state)
            return (logits.float() if library == "torch" else logits.astype(np.float32)), state

    options = SearchOptions(beam, 8, 0.7)
    assert RandomModel([1, 2], 40, dtype=dtype).search(options) == Widened([1, 2], 40, dtype=dtype).search(options)


@every_method
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [0, 1, 4])
def test_broken_probabilities_are_an_error(beam, method, bad, at):
    """Logits that are not numbers give a sentence that names the image, at whichever step they come."""
    model = RandomModel([1, 2, 3], 6, end_bias=-9.0)

    def step(tokens, state):
        logits, state = model(tokens, state)
        if len(model.histories) == at + 1:
            logits[1] = bad
        return logits, state

    with pytest.raises(CaptionerError, match="no finite probabilities for image 1 of"):
        search(Decoding(step, model.state(), START, END), SearchOptions(beam, 4, method=method))


@every_method
def test_no_possible_hypothesis_is_an_error(beam, method):
    """Where every token is forbidden there is nothing to return, and that is said."""
    with pytest.raises(CaptionerError, match="no finite probabilities"):
        run_table(GARDEN, beam_size=beam, method=method, never=range(8))


def test_a_hypothesis_is_a_value():
    """Hypotheses are frozen, compare by value and hold plain Python numbers."""
    [[found, *_]] = RandomModel([1], 6).search(SearchOptions(3, 4))
    assert all(type(token) is int for token in found.tokens)
    assert all(type(value) is float for value in (*found.log_probabilities, found.score, found.log_probability))
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.score = 0.0
