"""Recipes of several stages, each a run of its own that goes on from the one before.

`train_preset` goes through them. A stage that is done leaves its model beside its folder, so the same command with
--resume goes on wherever it was stopped.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from captioner.checkpoint import ModelFile, load_model, model_path, save_model
from captioner.datasets.dataset import Dataset
from captioner.device import pick_device
from captioner.errors import ModelFileError, OptionError
from captioner.files import write_atomically
from captioner.options import MODELS, TrainingOptions
from captioner.training.loop import check_choices, say, train
from captioner.training.resume import fingerprint
from captioner.training.setup import Given, build_vocabulary
from captioner.training.validation import choose_search


@dataclass(frozen=True)
class Stage:
    """One run of a preset: its folder's name, and the options that differ from the defaults."""

    name: str
    options: dict[str, dict[str, Any]]
    start: str = ""
    """The stage whose model it goes on from; the one before if none is named."""
    teachers: tuple[str, ...] = ()
    """Who teaches it: models of earlier stages, and bundled ones by their names."""
    runs: int = 1
    """How many runs it is, that differ in their seeds alone: its model has the mean of their last epochs' weights."""


# What was tried for the Flickr8k models, and what is still untried, stands in docs/experiments.md.

# It goes on with the model, but what is new or self-critical has defaults of its own.
_DROPOUT: dict[str, Any] = {"dropout": 0.3}
_STEPS: dict[str, Any] = {"batch_size": 8, "learning_rate": 5e-4}
_SELF_CRITICAL: dict[str, dict[str, Any]] = {
    "DecoderOptions": _DROPOUT,
    "TrainingOptions": {"objective": "self-critical", "batch_size": 16, "epochs": 6},
}


def _frozen(encoder: dict[str, Any], size: int) -> dict[str, dict[str, Any]]:
    """The first stage of a Flickr8k model: a decoder for ImageNet's features of pictures of `size` pixels."""
    return {
        "EncoderOptions": encoder,
        "ImageOptions": {"detail": 224, "size": size},
        "DecoderOptions": _DROPOUT,
        "TrainingOptions": {**_STEPS, "epochs": 8},
    }


def _taught(*, epochs: int, learning_rate: float, encoder_learning_rate: float) -> dict[str, dict[str, Any]]:
    """Encoder and decoder learn, from varied pictures, what their teachers say of the pictures as they are."""
    steps = {"epochs": epochs, "learning_rate": learning_rate, "encoder_learning_rate": encoder_learning_rate}
    return {"TrainingOptions": {"batch_size": 16, "fine_tune": "all", "augment": True, **steps}}


PRESETS: dict[str, tuple[Stage, ...]] = {
    "flickr8k": (
        Stage("1-frozen", _frozen({"name": "inception_v3", "stage": "Mixed_7a"}, 299)),
        Stage(
            "2-fine-tuned",
            {
                "TrainingOptions": {
                    "epochs": 3,
                    "fine_tune": "all",
                    "augment": True,
                    "learning_rate": 3e-4,
                    "encoder_learning_rate": 5e-5,
                    "label_smoothing": 0.0,
                }
            },
        ),
        Stage(
            "3-apart",
            {"DecoderOptions": _DROPOUT, "TrainingOptions": {**_STEPS, "epochs": 6, "new_decoder": True}},
        ),
        Stage(
            "4-distilled",
            {"TrainingOptions": {"batch_size": 16, "learning_rate": 4e-4, "epochs": 5}},
            start="2-fine-tuned",
            teachers=("2-fine-tuned", "3-apart"),
        ),
        Stage("5-self-critical", _SELF_CRITICAL),
        Stage(
            "6-taught",
            _taught(epochs=5, learning_rate=4e-4, encoder_learning_rate=5e-5),
            start="2-fine-tuned",
            teachers=("5-self-critical", "3-apart"),
        ),
        Stage("7-self-critical", _SELF_CRITICAL, runs=2),
        Stage(
            "8-taught",
            _taught(epochs=5, learning_rate=3e-4, encoder_learning_rate=5e-5),
            start="6-taught",
            teachers=("7-self-critical", "5-self-critical"),
        ),
        Stage("9-self-critical", _SELF_CRITICAL, runs=2),
        Stage(
            "10-right-to-left",
            {"TrainingOptions": {"direction": "right-to-left", "batch_size": 16, "learning_rate": 5e-4, "epochs": 4}},
        ),
    ),
    "flickr8k-fast": (
        Stage("1-frozen", _frozen({"name": "mobilenet_v2"}, 256)),
        Stage("2-taught", _taught(epochs=10, learning_rate=4e-4, encoder_learning_rate=1e-4), teachers=("accurate",)),
    ),
    "coco": (
        Stage(
            "1-likelihood",
            {
                "EncoderOptions": {"name": "resnet101"},
                "ImageOptions": {"size": 448},
                "DecoderOptions": {"hidden_size": 1024, "embedding_size": 1024},
                "TrainingOptions": {"epochs": 20},
            },
        ),
        Stage("2-self-critical", {"TrainingOptions": {"objective": "self-critical", "epochs": 20}}),
    ),
}
"""The stages of each recipe, by the names in `options.PRESETS`."""

_RECORD = "preset.json"  # in the output folder: what was started there


def check_preset(data: Dataset, *, preset: str, given: Given, output: Path, resume: bool) -> None:
    """Refuses what `train_preset` would refuse, before every picture is read; raises what `check_choices` raises."""
    chosen = {*given.get("TrainingOptions", {}), *given.get("SearchOptions", {})}
    decided = [name for name in ("objective", "direction", "fine_tune", "encoder_weights", "rerank") if name in chosen]
    if decided:
        raise OptionError(
            f"--{decided[0].replace('_', '-')} does not go with --preset, whose stages decide it: leave it out, or run "
            "the stages one by one."
        )
    if not resume:
        first = _merge(PRESETS[preset][0].options, given)
        check_choices(data, given=first, output=output, resume=False)
        _check_words(data, preset, first)
    elif not (output / _RECORD).exists():
        raise ModelFileError(f"There is no preset to resume in {output}: start without --resume.")
    elif _recorded(output / _RECORD) != _record(data, preset, given):
        raise OptionError(
            f"The preset, its other options or the data set are not what {output} was started with: repeat that "
            "command with --resume, or start anew with another --output."
        )


def _check_words(data: Dataset, preset: str, first: Given) -> None:
    """Refuses a bundled teacher that says other words than the preset's models will, hours before its stage."""
    min_count = first.get("TrainingOptions", {}).get("min_count", TrainingOptions().min_count)
    for name in {name for stage in PRESETS[preset] for name in stage.teachers if name in MODELS}:
        if load_model(model_path(name)).vocabulary.words != build_vocabulary(data, min_count=min_count).words:
            raise OptionError(
                f"--preset {preset} is taught by the bundled model {name}, whose vocabulary is not that of these "
                f"captions with --min-count {min_count}: use another preset, or the data and the --min-count that "
                f"{name} learnt from."
            )


def _recorded(path: Path) -> Any:
    """What `_record` said when the preset began. Raises ModelFileError where the file cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{path} cannot be read ({type(error).__name__}): start anew with another --output."
        ) from error


def _record(data: Dataset, preset: str, given: Given) -> dict[str, Any]:
    """What all stages must have in common, as JSON values."""
    chosen = {name: dict(values) for name, values in given.items() if values}
    return {"preset": preset, "options": chosen, "data": fingerprint(data)}


def train_preset(
    data: Dataset,
    *,
    preset: str,
    given: Given,
    output: Path,
    features: Path,
    resume: bool,
    device: str = "auto",
    report: Callable[[str], None] = say,
) -> Path | None:
    """Goes through the stages of a preset; returns the finished model's file, or None if someone asked for a stop.

    `given` goes over the options of every stage. The finished model lies in `output` with 8-bit weights, ready to ship.
    Raises what `train` raises.
    """
    check_preset(data, preset=preset, given=given, output=output, resume=resume)
    output.mkdir(parents=True, exist_ok=True)
    record = json.dumps(_record(data, preset, given))
    write_atomically(output / _RECORD, lambda part: part.write_text(record, encoding="utf-8"))
    stages = PRESETS[preset]

    def model(name: str) -> Path:
        return output / f"{name}.safetensors"

    first_seed = given.get("TrainingOptions", {}).get("seed", TrainingOptions().seed)
    previous = ""
    for number, stage in enumerate(stages, 1):
        numbered = [f"{stage.name}-run-{run}" for run in range(1, stage.runs + 1)]
        runs = numbered if stage.runs > 1 else [stage.name]
        for index, run in enumerate(runs):
            if model(stage.name).exists() or model(run).exists():
                continue
            report(f"Stage {number} of {len(stages)}, {run}:")
            unfinished = output / run / "resume.pt"
            if not unfinished.exists():  # stopped before its first save, if at all: nothing to go on from
                shutil.rmtree(output / run, ignore_errors=True)
            # A seed of its own for each run, or it would see the order and the crops of the one before.
            seed = first_seed + number - 1 + len(stages) * index
            best = train(
                data,
                given=_merge(_merge(stage.options, given), {"TrainingOptions": {"seed": seed}}),
                output=output / run,
                features=features,
                resume=unfinished.exists(),
                start_from=str(model(stage.start or previous)) if previous else None,
                teachers=[name if name in MODELS else str(model(name)) for name in stage.teachers],
                final=False,
                device=device,
                report=report,
            )
            if best is None:
                return None
            # Of last epochs: the one time that both were measured, the mean of the best ones was no better.
            (best if stage.runs == 1 else best.with_name("last.safetensors")).rename(model(run))
        if not model(stage.name).exists():
            save_model(model(stage.name), _mean([load_model(model(run)) for run in runs]))
        previous = stage.name
    # The search is chosen for the weights that ship: rounded ones may score a point of CIDEr-D less (measured).
    rounded, finished = output / "rounded.safetensors", output / "captioner.safetensors"
    save_model(rounded, load_model(model(stages[-1].name)), small=True)
    file = load_model(rounded, pick_device(device))
    save_model(finished, choose_search(file, data.split("val"), given.get("SearchOptions", {}), report), small=True)
    rounded.unlink()
    return finished


def _mean(files: list[ModelFile]) -> ModelFile:
    """The model with the mean of each weight (Wortsman et al. 2022, "Model soups"), of runs from one start."""
    states = [file.model.state_dict() for file in files]
    mean = {
        name: torch.stack([state[name] for state in states]).mean(0) if weight.is_floating_point() else weight
        for name, weight in states[0].items()
    }
    files[0].model.load_state_dict(mean)
    first = files[0].provenance
    seeds = [file.provenance["training"]["seed"] for file in files]
    origin = {name: value for name, value in first.items() if name != "val"}  # scores of one run
    return replace(files[0], provenance={**origin, "training": {**first["training"], "seed": seeds}})


def _merge(options: Given, given: Given) -> Given:
    return {name: {**options.get(name, {}), **given.get(name, {})} for name in {*options, *given}}
