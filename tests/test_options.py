"""The promises of captioner.options."""

import argparse
import dataclasses
import re
import typing

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
    check_groups,
    flag,
    from_dict,
    given,
    merged,
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
        (SearchOptions, {"beam_size": 2.5}, "beam_size is 2.5: it must be a whole number."),
        (SearchOptions, {"beam_size": True}, "beam_size is True: it must be a whole number."),
        (SearchOptions, {"beam_size": "3"}, "beam_size is '3': it must be a whole number."),
        (SearchOptions, {"beam_size": None}, "beam_size is None: it must be a whole number."),
        (SearchOptions, {"length_penalty": "1"}, "length_penalty is '1': it must be a number."),
        (SearchOptions, {"length_penalty": False}, "length_penalty is False: it must be a number."),
        (SearchOptions, {"method": ["beam"]}, r"method is ['beam']: it must be text."),
        (SearchOptions, {"method": "luck"}, "method is 'luck': choose one of beam, diverse, sample."),
        (DecoderOptions, {"tied": 1}, "tied is 1: it must be true or false."),
        (EncoderOptions, {"name": None}, "name is None: it must be text."),
        (EncoderOptions, {"stage": 3}, "stage is 3: it must be text."),
        (ImageOptions, {"detail": 99.0}, "detail is 99.0: it must be a whole number."),
        (
            ImageOptions,
            {"mean": [0.5, 0.5, 0.5]},
            "mean is [0.5, 0.5, 0.5]: it must be a tuple of three finite numbers.",
        ),
        (ImageOptions, {"mean": (0.5, 0.5)}, "mean is (0.5, 0.5): it must be a tuple"),
        (ImageOptions, {"mean": (0.5, 0.5, "0.5")}, "it must be a tuple of three finite numbers."),
        (ImageOptions, {"mean": (0.5, 0.5, float("nan"))}, "it must be a tuple of three finite numbers."),
        (ImageOptions, {"mean": 0.5}, "mean is 0.5: it must be a tuple of three finite numbers."),
        (ImageOptions, {"std": (0.5, 0.5, 0.0)}, "it must be a tuple of three finite numbers above 0."),
        (ImageOptions, {"std": None}, "std is None: it must be a tuple of three finite numbers above 0."),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(cls, values, message):
    """The message has the field, the value, and what to choose instead; the command line's has the flag."""
    with pytest.raises(OptionError, match=re.escape(message)) as caught:
        cls(**values)
    assert "--" not in str(caught.value)
    if caught.value.field in values:
        assert caught.value.told_with_flags().startswith(f"{flag(cls, caught.value.field)} is ")


@pytest.mark.parametrize("cls", ALL)
def test_every_field_refuses_what_is_not_of_its_type(cls):
    """A value of another type, in a program or in a file, never gets past the options."""
    for field in dataclasses.fields(cls):
        for wrong in (object(), [], {}, b"3", 1j):
            with pytest.raises(OptionError, match=re.escape(repr(wrong))):
                cls(**{field.name: wrong})
        optional = "None" in str(typing.get_type_hints(cls)[field.name])
        if optional:
            assert getattr(cls(**{field.name: None}), field.name) is None
        else:
            with pytest.raises(OptionError, match="is None"):
                cls(**{field.name: None})


def test_a_whole_number_is_a_number():
    """As people write it: --length-penalty 1."""
    assert SearchOptions(length_penalty=1).length_penalty == 1


def test_options_with_some_changed_are_checked_like_new_ones():
    """A wrong value and an unknown field are refused, the latter with those there are."""
    assert merged(SearchOptions(), {"beam_size": 5}) == SearchOptions(beam_size=5)
    with pytest.raises(OptionError, match="beam_size is 0"):
        merged(SearchOptions(), {"beam_size": 0})
    with pytest.raises(OptionError, match="SearchOptions has no field beams: it has beam_size, max_length"):
        merged(SearchOptions(), {"beams": 5})


def test_a_group_of_options_that_there_is_not_is_refused():
    """A misspelt group is no group without effect."""
    check_groups(["a", "b"], ("a", "b", "c"))
    with pytest.raises(
        OptionError, match="There are no options DecodrOptions: there are DecoderOptions, SearchOptions"
    ):
        check_groups({"DecodrOptions": {}}, ("DecoderOptions", "SearchOptions"))


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
