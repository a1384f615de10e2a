"""Greedy, beam and diverse search, and sampling, over any step function; knows no text and no images.

It computes with torch's arrays or with NumPy's, whichever the decoding's state is made of (`arrays`); `samples`, which
training draws, with torch's alone.

Promises of all, each proved in tests/test_search.py: an image's hypotheses do not depend on the other images of its
batch (drawn ones aside); a forbidden token is never produced; where nothing finishes, the best unfinished hypothesis is
the answer.

Their probabilities are the model's own: the softmax runs over all tokens, and only then are forbidden ones ruled out.
What the model computed once per image lives in the step function, indexed by image; only the recurrent state is
reordered.
"""

from collections.abc import Callable

from captioner.errors import OptionError
from captioner.options import SearchOptions
from captioner.search.beam import beam_search
from captioner.search.chains import diverse_search, greedy_search, sampling_search
from captioner.search.decoding import Decoding, Hypothesis, State, Step, Watch, not_finite

__all__ = [
    "METHODS",
    "Decoding",
    "Hypothesis",
    "State",
    "Step",
    "Watch",
    "beam_search",
    "diverse_search",
    "greedy_search",
    "not_finite",
    "sampling_search",
    "search",
]


def _beam_or_greedy(decoding: Decoding, options: SearchOptions, watch: Watch | None) -> list[list[Hypothesis]]:
    method = beam_search if options.beam_size > 1 else greedy_search
    return method(decoding, options, watch)


METHODS: dict[str, Callable[[Decoding, SearchOptions, Watch | None], list[list[Hypothesis]]]] = {
    "beam": _beam_or_greedy,
    "diverse": diverse_search,
    "sample": sampling_search,
}
"""The methods by what `SearchOptions` calls them."""


def search(decoding: Decoding, options: SearchOptions, watch: Watch | None = None) -> list[list[Hypothesis]]:
    """The best hypotheses of each image, best first, by `options.method`; beam search with a beam of 1 is greedy.

    `watch` is shown each step's live hypotheses. An image gets at most `beam_size` hypotheses, at least one, all
    different, and unfinished ones only if none finished.

    Raises OptionError for a method that is none, and ModelFileError where the model's probabilities are not finite
    or leave an image no possible hypothesis.
    """
    if options.method not in METHODS:
        raise OptionError(f"--search is {options.method!r}: choose one of {', '.join(METHODS)}.")
    return METHODS[options.method](decoding, options, watch) if len(decoding.state[0]) else []
