"""From what the user chose to the options of a run, and what is refused on the way: nothing is built here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioner.card import read_header
from captioner.checkpoint import BUNDLED_MODELS, ModelFile
from captioner.encoder import preprocessing
from captioner.errors import OptionError
from captioner.options import (
    GROUPS,
    DecoderOptions,
    EncoderOptions,
    ImageOptions,
    SearchOptions,
    TrainingOptions,
    check_groups,
    flag,
    from_dict,
    to_dict,
)
from captioner.training.recipes import DEFAULTS

Given = Mapping[str, Mapping[str, Any]]
"""What a user or a recipe chose: field values by the name of their group in `options.GROUPS`."""


@dataclass(frozen=True)
class Options:
    """All options of a run, resolved."""

    image: ImageOptions
    encoder: EncoderOptions
    decoder: DecoderOptions
    training: TrainingOptions
    search: SearchOptions

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the resume file."""
        return {name: to_dict(getattr(self, name)) for name in GROUPS}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Options":
        """What `to_dict` wrote; raises OptionError where it does not fit."""
        return cls(**{name: from_dict(kind, values[name]) for name, kind in GROUPS.items()})


def merge(*choices: Given) -> dict[str, dict[str, Any]]:
    """Later choices over earlier ones. Raises OptionError for a group of options that there is not."""
    merged: dict[str, dict[str, Any]] = {name: {} for name in GROUPS}
    for chosen in choices:
        check_groups(chosen, GROUPS)
        for name, values in chosen.items():
            merged[name].update(values)
    return merged


def resolve_options(given: Given, *, kind: str, start: ModelFile | None) -> Options:
    """The user's choices over the recipe over the defaults; a model to start from fixes its own.

    The recipe is that of the data set's kind where training starts from nothing, and that of the objective. Raises
    OptionError where choices contradict each other or the model that training starts from.
    """
    chosen = merge(given)
    training = chosen["training"]
    _check_stage(training, start)
    values = merge(DEFAULTS.get(kind if start is None else training.get("objective", ""), {}), given)
    if start is not None:
        model = start.model.options
        values["search"] = {"max_length": start.search.max_length, **values["search"]}
        values["image"] = {**to_dict(model.image), **chosen["image"]}
        values["encoder"] = _fixed("encoder", model.encoder, chosen, values)
        if not training.get("new_decoder"):
            values["decoder"] = _fixed("decoder", model.decoder, chosen, values)
        if "encoder_weights" in training:
            raise OptionError("--encoder-weights does not go with --start-from, whose model brings its encoder.")
    else:
        if values["training"].get("encoder_weights") == "bundled":  # its model decides how pictures are seen
            header = read_header(bundled_with(chosen["encoder"].get("name", EncoderOptions().name)))
            values["encoder"] = {**header["encoder"], **chosen["encoder"]}
            values["image"] = {**header["image"], **chosen["image"]}
        values["image"] = {**preprocessing(values["encoder"].get("name", EncoderOptions().name)), **values["image"]}
    if values["training"].get("encoder_weights") == "none" and "fine_tune" not in values["training"]:
        raise OptionError("--encoder-weights none leaves a random, frozen encoder: add --fine-tune all.")
    options = Options.from_dict(values)
    options.search.check_model(reverse=has_reverse(options.training, start))
    return options


def _fixed(name: str, fixed: Any, chosen: Given, values: Given) -> dict[str, Any]:
    """The options of a group that a model's weights decide; dropout shapes none of them."""
    for field, value in chosen[name].items():
        if field != "dropout" and value != getattr(fixed, field):
            raise OptionError(
                f"{flag(GROUPS[name], field)} is {value}, but the model to start from has {getattr(fixed, field)}: "
                "leave it out, or start without --start-from."
            )
    return {**to_dict(fixed), **{field: value for field, value in values[name].items() if field == "dropout"}}


def _check_stage(training: Mapping[str, Any], start: ModelFile | None) -> None:
    """Refuses an objective or a direction that the model to start from is no ground for."""
    self_critical = training.get("objective") == "self-critical"
    if training.get("new_decoder"):
        if start is None:
            raise OptionError("--new-decoder keeps the encoder of a trained model: name one with --start-from.")
        if self_critical or training.get("direction") == "right-to-left":
            raise OptionError(
                "--new-decoder begins with one that writes, and learns to make captions probable: leave --objective "
                "and --direction out, and go on from its model with them."
            )
    if self_critical and start is None:
        raise OptionError("--objective self-critical improves a trained model: name one with --start-from.")
    if training.get("direction") != "right-to-left":
        return
    if start is None:
        raise OptionError("--direction right-to-left adds to a trained model: name one with --start-from.")
    if training.get("fine_tune") is not None:
        raise OptionError("--direction right-to-left leaves the encoder as it is: leave --fine-tune out.")
    if self_critical and not start.model.options.reverse:
        raise OptionError(
            "--objective self-critical improves a trained decoder, and the model to start from has none from right to "
            "left: train that one with --objective likelihood first."
        )


def check_teaching(training: TrainingOptions, start: ModelFile | None) -> None:
    """Raises OptionError where there is nothing to teach, or nobody to be taught."""
    if start is None:
        raise OptionError("--teachers teach a trained model: name it with --start-from.")
    if training.objective != "likelihood" or training.direction != "left-to-right":
        raise OptionError(
            "--teachers teach how likely each word is, from left to right: leave --objective and --direction out."
        )
    if training.new_decoder:
        raise OptionError("--teachers teach a trained decoder: leave --new-decoder out.")


def check_resumed(given: Given, options: Options, folder: Path) -> None:
    """Raises OptionError where a choice is not what the run in `folder` was started with."""
    for name, chosen in merge(given).items():
        kept = getattr(options, name)
        for field, value in chosen.items():
            if value not in (getattr(kept, field), "auto"):
                raise OptionError(
                    f"{flag(GROUPS[name], field)} is {value} now, but the run in {folder} was started with "
                    f"{getattr(kept, field)}: leave it out, or start a new run with another --output."
                )


def has_reverse(training: TrainingOptions, start: ModelFile | None) -> bool:
    """Whether the model that is trained has a right-to-left decoder.

    Where the encoder learns, the one that the model to start from may have is left behind: it knows another encoder.
    """
    stays = training.fine_tune is None and not training.new_decoder
    kept = start is not None and start.model.options.reverse and stays
    return training.direction == "right-to-left" or kept


def bundled_with(encoder: str) -> Path:
    """The bundled model that has this encoder; raises OptionError where none has."""
    models = {read_header(path)["encoder"]["name"]: path for path in reversed(BUNDLED_MODELS.values())}
    if encoder not in models:
        raise OptionError(
            f"--encoder is {encoder!r} with --encoder-weights bundled, but the bundled models have "
            f"{' and '.join(models)}: choose one of those, or use --encoder-weights imagenet."
        )
    return models[encoder]
