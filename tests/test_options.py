"""The promises of captioner.options."""

import argparse

import pytest

from captioner.errors import OptionError
from captioner.options import (
    DecoderOptions,
    EncoderOptions,
    ImageOptions,
    SearchOptions,
    TrainingOptions,
    VideoOptions,
    add_arguments,
    flag,
    from_dict,
    given,
    to_dict,
)

ALL = (ImageOptions, EncoderOptions, DecoderOptions, SearchOptions, TrainingOptions, VideoOptions)


@pytest.mark.parametrize("cls", ALL)
def test_options_survive_json(cls):
    """What a model file carries is what was put in."""
    import json

    assert from_dict(cls, json.loads(json.dumps(to_dict(cls())))) == cls()


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (ImageOptions, {"fit": "stretch"}, "fit is 'stretch': choose one of squash, crop, pad"),
        (ImageOptions, {"size": 3}, "size is 3: it must be at least 16"),
        (SearchOptions, {"beam_size": 0}, "beam_size is 0"),
        (SearchOptions, {"length_penalty": float("nan")}, "length_penalty is nan"),
        (DecoderOptions, {"heads": 3}, "heads is 3"),
        (DecoderOptions, {"hidden_size": 300}, "not a divisor of the hidden size, 300"),
        (VideoOptions, {"longest": 0.5}, "longest is 0.5, less than the shortest scene, 1.0"),
        (TrainingOptions, {"label_smoothing": 1.5}, "at most 0.9"),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(cls, values, message):
    """The message has the field, the value, and what to choose instead; the command line's has the flag."""
    with pytest.raises(OptionError, match=message.replace("(", r"\(")) as caught:
        cls(**values)
    assert "--" not in str(caught.value)
    if caught.value.field in values:
        assert caught.value.told_with_flags().startswith(f"{flag(cls, caught.value.field)} is ")


def test_a_field_from_the_future_is_refused():
    """A model file with an option this version does not know is not silently misread."""
    with pytest.raises(OptionError, match="newer version"):
        from_dict(SearchOptions, {"beam_size": 3, "telepathy": 1.0})


def test_only_what_was_given_counts_as_given():
    """A flag left out leaves no trace, so that recipes and model files can decide; every option has help."""
    parser = argparse.ArgumentParser()
    for cls in ALL:
        add_arguments(parser, cls)
    namespace = parser.parse_args(["--encoder", "resnet50", "--no-tied", "--beam-size", "5"])
    assert given(EncoderOptions, namespace) == {"name": "resnet50"}
    assert given(DecoderOptions, namespace) == {"tied": False}
    assert given(SearchOptions, namespace) == {"beam_size": 5}
    assert given(TrainingOptions, namespace) == {}
    assert "None" not in parser.format_help()
