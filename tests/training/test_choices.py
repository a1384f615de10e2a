"""The promises of captioner.training.choices: options resolved, and what is refused."""

import pytest

from captioner.errors import OptionError
from captioner.training.choices import merge, resolve_options


def test_an_unknown_group_of_options_is_refused(small_file):
    """A misspelt one would be passed over in silence, in a recipe or in a program."""
    for start in (None, small_file):
        with pytest.raises(OptionError, match="There are no options DecodrOptions: there are image, encoder"):
            resolve_options({"DecodrOptions": {"hidden_size": 16}}, kind="table", start=start)
    with pytest.raises(OptionError, match="has no field hiden_size"):
        resolve_options({"decoder": {"hiden_size": 16}}, kind="table", start=None)


def test_later_choices_go_over_earlier_ones():
    """Field by field; nothing that was merged changes."""
    recipe = {"training": {"epochs": 3, "seed": 2}}
    assert merge(recipe, {"training": {"seed": 5}, "search": {"beam_size": 4}}) == {
        "image": {},
        "encoder": {},
        "decoder": {},
        "training": {"epochs": 3, "seed": 5},
        "search": {"beam_size": 4},
    }
    assert recipe == {"training": {"epochs": 3, "seed": 2}}


def test_choices_go_over_the_recipe_over_the_defaults():
    """What the user gives wins over the data set's recipe, which wins over the defaults."""
    options = resolve_options({"training": {"epochs": 3}}, kind="shapes", start=None)
    assert (options.training.epochs, options.training.encoder_weights, options.training.batch_size) == (3, "none", 32)
    assert resolve_options({}, kind="table", start=None).training.encoder_weights == "imagenet"
    bicubic = resolve_options({"encoder": {"name": "efficientnet_b0"}}, kind="table", start=None)
    assert bicubic.image.interpolation == "bicubic"


def test_contradictions_are_refused(small_file):
    """A random frozen encoder; a shape that differs from the model to start from."""
    with pytest.raises(OptionError, match="--fine-tune all"):
        resolve_options({"training": {"encoder_weights": "none"}}, kind="table", start=None)
    with pytest.raises(OptionError, match="--start-from"):
        resolve_options({"decoder": {"cell": "gru"}}, kind="table", start=small_file)
    with pytest.raises(OptionError, match="--encoder is resnet18, but"):
        resolve_options({"encoder": {"name": "resnet18"}}, kind="table", start=small_file)
    with pytest.raises(OptionError, match="--start-from"):
        resolve_options({"training": {"encoder_weights": "imagenet"}}, kind="table", start=small_file)
    chosen = {"decoder": {"dropout": 0.2}, "image": {"fit": "pad"}}
    kept = resolve_options(chosen, kind="table", start=small_file)
    assert (kept.decoder.dropout, kept.image.fit, kept.image.size) == (0.2, "pad", 64)
    assert kept.decoder.hidden_size == small_file.model.options.decoder.hidden_size


def test_the_objective_has_a_recipe_of_its_own(small_file):
    """Self-critical training takes smaller steps with less dropout, and a trained model to begin with."""
    chosen = {"training": {"objective": "self-critical"}}
    options = resolve_options(chosen, kind="table", start=small_file)
    plain = resolve_options({}, kind="table", start=small_file)
    assert options.training.learning_rate < plain.training.learning_rate
    assert options.decoder.dropout < plain.decoder.dropout
    chosen["decoder"] = {"dropout": 0.4}
    assert resolve_options(chosen, kind="table", start=small_file).decoder.dropout == 0.4
    with pytest.raises(OptionError, match="self-critical improves a trained model"):
        resolve_options(chosen, kind="table", start=None)


def test_a_second_direction_needs_a_first_and_leaves_the_encoder_alone(small_file):
    """Both are said before anything is trained."""
    chosen = {"training": {"direction": "right-to-left"}}
    with pytest.raises(OptionError, match="--start-from"):
        resolve_options(chosen, kind="table", start=None)
    chosen["training"]["fine_tune"] = "all"
    with pytest.raises(OptionError, match="--fine-tune"):
        resolve_options(chosen, kind="table", start=small_file)


def test_self_critical_needs_a_decoder_of_its_direction(small_file):
    """A right-to-left decoder that was never trained draws nonsense."""
    chosen = {"training": {"direction": "right-to-left", "objective": "self-critical"}}
    with pytest.raises(OptionError, match="likelihood first"):
        resolve_options(chosen, kind="table", start=small_file)


def test_what_starts_from_a_model_leaves_the_kinds_recipe_alone(small_file):
    """Drawn shapes train their encoder from nothing; not where it is trained already. Lengths are the model's."""
    chosen = {"training": {"direction": "right-to-left"}}
    options = resolve_options(chosen, kind="shapes", start=small_file)
    assert options.training.fine_tune is None
    assert options.search.max_length == small_file.search.max_length


def test_a_new_decoder_needs_an_encoder_and_learns_to_write_first(small_file):
    """There is nothing to improve yet, and nothing to add a second direction to."""
    chosen = {"training": {"new_decoder": True}}
    with pytest.raises(OptionError, match="--start-from"):
        resolve_options(chosen, kind="table", start=None)
    for name, value in (("objective", "self-critical"), ("direction", "right-to-left")):
        with pytest.raises(OptionError, match="leave --objective and --direction out"):
            resolve_options({"training": {"new_decoder": True, name: value}}, kind="table", start=small_file)
