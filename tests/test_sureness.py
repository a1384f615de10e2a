"""A caption is called unsure where the measured share of poor ones says so: captioner.sureness."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.sureness import POOR, choose_threshold

captions = st.lists(st.tuples(st.floats(0.01, 0.99), st.floats(0, 300)), min_size=1, max_size=60)


@given(captions, st.floats(0.5, 1))
def test_what_is_stated_of_the_threshold_is_what_it_does(found, precision):
    """Counted again, one by one: the precision asked for holds, and the stated figures are the captions' own."""
    probabilities, scores = zip(*found, strict=True)
    sureness = choose_threshold(probabilities, scores, precision=precision)
    unsure = [score < POOR for probability, score in found if probability < sureness.unsure_below]
    poor = sum(score < POOR for score in scores)
    if sureness.unsure_below:
        assert sum(unsure) >= precision * len(unsure) - 1e-6
        assert sureness.precision == pytest.approx(sum(unsure) / len(unsure), abs=1e-3)
        assert sureness.recall == pytest.approx(sum(unsure) / poor, abs=1e-3)
    assert sureness.images == len(found)


def test_the_highest_threshold_is_taken_and_none_where_none_holds():
    """As many poor captions as the precision allows are called unsure; a model that is never wrong is never unsure."""
    probabilities = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert choose_threshold(probabilities, [0, 0, 90, 0, 90, 90]).unsure_below == pytest.approx(0.45)
    assert choose_threshold(probabilities, [90] * 6).unsure_below == 0
    assert "never unsure" in choose_threshold(probabilities, [90] * 6).describe()
    assert "75%" in choose_threshold(probabilities, [0, 0, 90, 0, 90, 90]).describe()
