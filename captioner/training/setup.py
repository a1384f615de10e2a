"""From a data set and what the user chose to everything a run starts with: options, vocabulary, model."""

import platform
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import captioner
from captioner.card import read_header
from captioner.checkpoint import BUNDLED_MODELS, ModelFile, load_model, model_path
from captioner.datasets.dataset import Dataset
from captioner.encoder import preprocessing
from captioner.errors import DataError, OptionError
from captioner.model import CaptionModel, ModelOptions
from captioner.options import (
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
from captioner.text import Vocabulary, tokenise

Given = Mapping[str, Mapping[str, Any]]
"""What the user chose: field values by the name of the options class."""

RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    # Steps are small and the policy is kept close to what it samples: the model is trained already.
    "self-critical": {
        "DecoderOptions": {"dropout": 0.2},
        "TrainingOptions": {"learning_rate": 1e-4, "epochs": 10},
    },
    # Drawings need no ImageNet: a ResNet-18 cut early learns them from random weights in minutes.
    "shapes": {
        "ImageOptions": {"size": 72},
        "EncoderOptions": {"name": "resnet18", "stage": "layer2"},
        "DecoderOptions": {"hidden_size": 256, "embedding_size": 128, "dropout": 0.1},
        "TrainingOptions": {
            "encoder_weights": "none",
            "fine_tune": "all",
            "encoder_learning_rate": 1e-3,
            "epochs": 12,
            "label_smoothing": 0.0,
            "min_count": 1,
        },
        "SearchOptions": {"max_length": 40},
    },
}
"""Defaults that differ from the options' own, by the objective or else by the kind of data set."""


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
        return {name: to_dict(getattr(self, name)) for name in _CLASSES}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Options":
        """What `to_dict` wrote; raises OptionError where it does not fit."""
        return cls(**{name: from_dict(kind, values[name]) for name, kind in _CLASSES.items()})


_CLASSES: dict[str, Any] = {
    "image": ImageOptions,
    "encoder": EncoderOptions,
    "decoder": DecoderOptions,
    "training": TrainingOptions,
    "search": SearchOptions,
}


def resolve_options(given: Given, *, kind: str, start: ModelFile | None) -> Options:
    """The user's choices over the recipe over the defaults; a model to start from fixes its own.

    The recipe is that of the data set's kind where training starts from nothing, and that of the objective. Raises
    OptionError where choices contradict each other or the model that training starts from.
    """
    check_groups(given, [cls.__name__ for cls in _CLASSES.values()])
    choices = given.get("TrainingOptions", {})
    _check_stage(choices, start)
    recipe = RECIPES.get(kind, {}) if start is None else RECIPES.get(choices.get("objective", ""), {})
    values: dict[str, Any] = {}
    for name, cls in _CLASSES.items():
        values[name] = {**recipe.get(cls.__name__, {}), **given.get(cls.__name__, {})}
    if start is not None:
        values["search"] = {"max_length": start.search.max_length, **values["search"]}
        model = start.model.options
        values["image"] = {**to_dict(model.image), **given.get("ImageOptions", {})}
        for name, fixed in (("encoder", model.encoder), ("decoder", model.decoder)):
            if name == "decoder" and choices.get("new_decoder"):
                continue
            chosen = given.get(_CLASSES[name].__name__, {})
            for field, value in chosen.items():
                if field != "dropout" and value != getattr(fixed, field):  # dropout shapes no weight
                    raise OptionError(
                        f"{flag(_CLASSES[name], field)} is {value}, but the model to start from has "
                        f"{getattr(fixed, field)}: leave it out, or start without --start-from."
                    )
            free = {field: value for field, value in values[name].items() if field == "dropout"}
            values[name] = {**to_dict(fixed), **free}
        if "encoder_weights" in given.get("TrainingOptions", {}):
            raise OptionError("--encoder-weights does not go with --start-from, whose model brings its encoder.")
    else:
        if values["training"].get("encoder_weights") == "bundled":
            _use_bundled_encoder(values, given)
        values["image"] = {**preprocessing(values["encoder"].get("name", EncoderOptions().name)), **values["image"]}
    if values["training"].get("encoder_weights") == "none" and "fine_tune" not in values["training"]:
        raise OptionError("--encoder-weights none leaves a random, frozen encoder: add --fine-tune all.")
    options = Options.from_dict(values)
    options.search.check_model(reverse=_has_reverse(options.training, start))
    return options


def _check_stage(choices: Mapping[str, Any], start: ModelFile | None) -> None:
    """Refuses an objective or a direction that the model to start from is no ground for."""
    self_critical = choices.get("objective") == "self-critical"
    if choices.get("new_decoder"):
        if start is None:
            raise OptionError("--new-decoder keeps the encoder of a trained model: name one with --start-from.")
        if self_critical or choices.get("direction") == "right-to-left":
            raise OptionError(
                "--new-decoder begins with one that writes, and learns to make captions probable: leave --objective "
                "and --direction out, and go on from its model with them."
            )
    if self_critical and start is None:
        raise OptionError("--objective self-critical improves a trained model: name one with --start-from.")
    if choices.get("direction") != "right-to-left":
        return
    if start is None:
        raise OptionError("--direction right-to-left adds to a trained model: name one with --start-from.")
    if choices.get("fine_tune") is not None:
        raise OptionError("--direction right-to-left leaves the encoder as it is: leave --fine-tune out.")
    if self_critical and not start.model.options.reverse:
        raise OptionError(
            "--objective self-critical improves a trained decoder, and the model to start from has none from right to "
            "left: train that one with --objective likelihood first."
        )


def _has_reverse(training: TrainingOptions, start: ModelFile | None) -> bool:
    """Whether the model that is trained has a right-to-left decoder.

    Where the encoder learns, the one that the model to start from may have is left behind: it knows another encoder.
    """
    stays = training.fine_tune is None and not training.new_decoder
    kept = start is not None and start.model.options.reverse and stays
    return training.direction == "right-to-left" or kept


def _use_bundled_encoder(values: dict[str, Any], given: Given) -> None:
    """The bundled model with that encoder decides where it is cut and how pictures are fitted, unless the user did."""
    header = read_header(_bundled_with(given.get("EncoderOptions", {}).get("name", EncoderOptions().name)))
    values["encoder"] = {**header["encoder"], **given.get("EncoderOptions", {})}
    values["image"] = {**header["image"], **given.get("ImageOptions", {})}


def _bundled_with(encoder: str) -> Path:
    """The bundled model that has this encoder; raises OptionError where none has."""
    models = {read_header(path)["encoder"]["name"]: path for path in reversed(BUNDLED_MODELS.values())}
    if encoder not in models:
        raise OptionError(
            f"--encoder is {encoder!r} with --encoder-weights bundled, but the bundled models have "
            f"{' and '.join(models)}: choose one of those, or use --encoder-weights imagenet."
        )
    return models[encoder]


def build_vocabulary(data: Dataset, *, min_count: int) -> Vocabulary:
    """The vocabulary of the training split; raises DataError where too few words are used often enough."""
    captions = (tokenise(caption) for image in data.split("train") for caption in image.captions)
    vocabulary = Vocabulary.build(captions, min_count=min_count)
    if len(vocabulary) < 6:
        raise DataError(
            f"Hardly a word is used {min_count} times in the training captions: lower --min-count or add captions."
        )
    return vocabulary


def build_model(options: Options, vocabulary: Vocabulary, start: ModelFile | None) -> CaptionModel:
    """The network with the weights that training starts from.

    A new right-to-left decoder starts from the other one's weights: words and pictures mean the same both ways.
    """
    reverse = _has_reverse(options.training, start)
    model_options = ModelOptions(options.image, options.encoder, options.decoder, len(vocabulary), reverse)
    weights = options.training.encoder_weights if start is None else "none"
    model = CaptionModel(model_options, imagenet=weights == "imagenet")
    if start is not None:
        model.encoder.load_state_dict(start.model.encoder.state_dict())
        if not options.training.new_decoder:
            model.decoder.load_state_dict(start.model.decoder.state_dict())
        if model.reverse:
            model.reverse.load_state_dict((start.model.reverse or start.model.decoder).state_dict())
        model.encoder.trusts_statistics = True
    elif weights == "bundled":
        bundled = load_model(_bundled_with(options.encoder.name)).model.encoder.state_dict()
        # an encoder cut at an earlier stage takes the tensors it has
        model.encoder.load_state_dict({name: bundled[name] for name in model.encoder.state_dict()})
        model.encoder.trusts_statistics = True
    return model


def load_start(model: str | None) -> ModelFile | None:
    """The model that training starts from: a bundled one by its name, a model file, or none."""
    return load_model(model_path(model)) if model is not None else None


def load_teachers(teachers: Sequence[str], options: Options, learner: ModelFile) -> dict[str, ModelFile]:
    """The models that teach, by the names they were given; `learner` is what the run starts from or goes on from.

    Raises OptionError where there is nothing to teach, and for a model that says other words than the learner.
    """
    training = options.training
    if teachers and (training.objective != "likelihood" or training.direction != "left-to-right"):
        raise OptionError(
            "--teachers teach how likely each word is, from left to right: leave --objective and --direction out."
        )
    if teachers and training.new_decoder:
        raise OptionError("--teachers teach a trained decoder: leave --new-decoder out.")
    files = {teacher: load_model(model_path(teacher)) for teacher in teachers}
    for teacher, file in files.items():
        if file.vocabulary.words != learner.vocabulary.words:
            raise OptionError(
                f"The teacher {teacher} has another vocabulary than the model to start from: train both on the same "
                "data, with the same --min-count."
            )
    return files


def provenance(
    options: Options, data: Dataset, *, start: ModelFile | None, teachers: Sequence[ModelFile] = ()
) -> dict[str, Any]:
    """Where the model comes from, for its file: plain JSON values."""
    left_out = Counter(problem.kind for problem in data.problems)
    return {
        "captioner": captioner.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": version("torchvision"),
        "starting_weights": f"{options.training.encoder_weights} encoder" if start is None else start.provenance,
        "teachers": [teacher.provenance for teacher in teachers],
        "data": data.kind,
        "pictures": {split: sum(image.split == split for image in data.images) for split in ("train", "val")},
        "left_out": dict(left_out),
        "training": to_dict(options.training),
    }


def _commit() -> str | None:
    """The commit of the source tree, if it is one and git is there."""
    try:
        command = ["git", "-C", str(Path(captioner.__file__).parent), "rev-parse", "--short=12", "HEAD"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None
