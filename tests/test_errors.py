"""Errors carry parts, so that each door can say the sentence in its own words."""

import pickle

import pytest

from captioner.errors import CaptionerError, ImageError, OptionError
from captioner.options import SearchOptions, VideoOptions


def test_a_sentence_of_parts():
    """Subject, reason and remedy make one sentence; without a remedy it is one too."""
    assert str(ImageError("a.jpg", "is empty", "fetch it again")) == "a.jpg is empty: fetch it again."
    assert str(ImageError("a.jpg", "is empty")) == "a.jpg is empty."
    assert str(ImageError("There are no pictures here.")) == "There are no pictures here."


def test_a_door_calls_the_subject_by_its_own_name():
    """Only the subject changes; a sentence without parts stays as it is."""
    error = ImageError("/tmp/x/a.jpg", "is empty", "fetch it again")
    assert error.told("holiday.jpg") == "holiday.jpg is empty: fetch it again."
    assert ImageError("There are no pictures here.").told("holiday.jpg") == "There are no pictures here."


def test_options_are_fields_in_python_and_flags_on_the_command_line():
    """Whoever writes Python is told of no flag, whoever types a command of no field."""
    with pytest.raises(OptionError) as caught:
        SearchOptions(temperature=0.0)
    assert str(caught.value) == "temperature is 0.0: it must be at least 0.05."
    assert caught.value.told_with_flags() == "--search-temperature is 0.0: it must be at least 0.05."
    with pytest.raises(OptionError, match=r"^longest is ") as caught:
        VideoOptions(longest=0.5)
    assert caught.value.told_with_flags().startswith("--longest-gap is 0.5, less than")
    assert OptionError("device", "is 'toaster'", field="device").told_with_flags() == "--device is 'toaster'."
    allowed = CaptionerError("a.mp4", "is too long", "allow more", field="max_minutes")
    assert allowed.told_with_flags() == "a.mp4 is too long: allow more (--max-minutes)."


def test_errors_travel_between_processes():
    """A pickled error is the same error."""
    error = OptionError("temperature", "is 0", field="temperature", flag="--search-temperature")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.field, again.flag) == (OptionError, str(error), error.field, error.flag)
