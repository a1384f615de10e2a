"""A whole model by a recipe of several stages: each is a run of its own that goes on from the model of another one.

A stage that is done leaves its model beside its folder, so the same command with --resume goes on wherever it was
stopped.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from captioner.card import read_header
from captioner.checkpoint import ModelFile, load_model, model_path, save_model
from captioner.datasets.dataset import Dataset
from captioner.device import prepare
from captioner.errors import ModelFileError, OptionError
from captioner.files import write_atomically
from captioner.options import GROUPS, MODELS, TrainingOptions, flag
from captioner.telling import OUT, Telling
from captioner.training.choices import Given, merge
from captioner.training.folder import RecipeFolder, held
from captioner.training.plan import Plan
from captioner.training.processes import ALONE, Processes
from captioner.training.recipes import PRESETS, Stage
from captioner.training.resume import fingerprint
from captioner.training.run import train
from captioner.training.validation import choose_search

_DECIDED = {"training": ("objective", "direction", "fine_tune", "encoder_weights"), "search": ("rerank",)}
"""What stages decide."""


@dataclass(frozen=True)
class StagesPlan:
    """A recipe and what is chosen over it, resolved as far as it can be before its first run."""

    preset: str
    given: Given
    folder: RecipeFolder
    device: str
    first: Plan | None
    """The first stage's run; None where the stages were begun before."""

    @classmethod
    def new(cls, data: Dataset, given: Given, *, preset: str, output: Path, device: str = "auto") -> "StagesPlan":
        """Stages that begin; `given` goes over the options of each. Raises what `Plan.new` raises."""
        _check_given(given)
        folder = RecipeFolder(output)
        folder.check_new()
        stages = PRESETS[preset]
        # All of them: what is misspelt in the last one is said now, not hours later.
        (name, chosen), *_ = [next(_runs(stages, number, given)) for number in range(len(stages))]
        first = Plan.new(_lessons(data, stages[0]), chosen, output=folder.run(name).path, device=device)
        for teacher in {name for stage in stages for name in stage.teachers if name in MODELS}:
            if set(read_header(model_path(teacher))["vocabulary"]) != set(first.vocabulary.words):
                min_count = first.options.training.min_count
                raise OptionError(
                    f"--preset {preset} is taught by the bundled model {teacher}, whose vocabulary is not that of "
                    f"these captions with --min-count {min_count}: use another preset, or the data and the --min-count "
                    f"that {teacher} learnt from."
                )
        return cls(preset, given, folder, device, first)

    @classmethod
    def resumed(cls, given: Given, *, preset: str, output: Path, device: str = "auto") -> "StagesPlan":
        """Stages that go on; raises OptionError where the user asks for something else now."""
        _check_given(given)
        plan = cls(preset, given, RecipeFolder(output), device, None)
        plan.folder.check_resumable()
        plan.check_record({})
        return plan

    def record(self) -> dict[str, Any]:
        """What all stages have in common, as JSON values."""
        return {"preset": self.preset, "options": {name: dict(chosen) for name, chosen in self.given.items() if chosen}}

    def check_record(self, also: dict[str, Any]) -> None:
        """Raises OptionError where this, and what is known `also`, is not what was started in the folder.

        ModelFileError where that cannot be read.
        """
        try:
            kept = json.loads(self.folder.record.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ModelFileError(
                f"{self.folder.record} cannot be read ({type(error).__name__}): start anew with another --output."
            ) from error
        formerly = {kind.__name__: name for name, kind in GROUPS.items()}
        kept["options"] = {formerly.get(name, name): chosen for name, chosen in kept["options"].items()}
        now = {**self.record(), **also}
        if {name: kept.get(name) for name in now} != now:
            raise OptionError(
                f"The preset, its other options or the data set are not what {self.folder.path} was started with: "
                "repeat that command with --resume, or start anew with another --output."
            )


def _check_given(given: Given) -> None:
    """Refuses what is no user's choice in a recipe."""
    for group, names in _DECIDED.items():
        for name in names:
            if name in given.get(group, {}):
                raise OptionError(
                    f"{flag(GROUPS[group], name)} does not go with --preset, whose stages decide it: leave it out, or "
                    "run the stages one by one."
                )


def run_stages(
    plan: StagesPlan, data: Dataset, *, features: Path, telling: Telling = OUT, processes: Processes = ALONE
) -> Path | None:
    """Goes through the stages; returns the finished model's file, or None if someone asked for a stop.

    `data` is the plan's data set after the check of its pictures. The finished model has 8-bit weights, ready to ship.
    Raises what `run` raises.
    """
    folder, stages = plan.folder, PRESETS[plan.preset]
    known = {"data": fingerprint(data)}
    if plan.first is None:
        plan.check_record(known)
    record = json.dumps({**plan.record(), **known})
    if processes.leads:
        write_atomically(folder.record, lambda part: part.write_text(record, encoding="utf-8"))
    how: dict[str, Any] = {"features": features, "telling": telling, "processes": processes}
    for number, stage in enumerate(stages):
        names = []
        for name, given in _runs(stages, number, plan.given):
            names.append(name)
            if folder.model(stage.name).exists() or folder.model(name).exists():
                continue
            telling.say(f"Stage {number + 1} of {len(stages)}, {name}:")
            learnt = _lessons(data, stage)
            with held(folder.run(name).path, telling) if processes.leads else nullcontext():
                best = train(_plan_run(plan, learnt, number, name, given), learnt, **how)
                if best is None:
                    return None
                if processes.leads:
                    # Of last epochs: the one time that both were measured, the mean of the best ones was no better.
                    (best if stage.runs == 1 else folder.run(name).last).rename(folder.model(name))
            processes.wait()
        if processes.leads and not folder.model(stage.name).exists():
            save_model(folder.model(stage.name), _mean([load_model(folder.model(name)) for name in names]))
        processes.wait()
    if processes.leads:
        _finish(plan, data, telling)
    processes.wait()
    return folder.finished


def _runs(stages: Sequence[Stage], number: int, given: Given) -> Iterator[tuple[str, Given]]:
    """The names and choices of a stage's runs."""
    stage = stages[number]
    first_seed = given.get("training", {}).get("seed", TrainingOptions().seed)
    for index in range(stage.runs):
        name = f"{stage.name}-run-{index + 1}" if stage.runs > 1 else stage.name
        # A seed of its own for each run, or it would see the order and the crops of the one before.
        seed = first_seed + number + len(stages) * index
        yield name, merge(stage.options, given, {"training": {"seed": seed}})


def _lessons(data: Dataset, stage: Stage) -> Dataset:
    """What a stage learns: all data sets, or the first one, whose pictures keep their names among the others."""
    if not (stage.first_set_alone and data.parts):
        return data
    first = data.images[0].origin
    return replace(data, images=tuple(image for image in data.images if image.origin == first), parts=data.parts[:1])


def _plan_run(plan: StagesPlan, data: Dataset, number: int, name: str, given: Given) -> Plan:
    """A stage's run, which may have been begun before."""
    folder, stages = plan.folder, PRESETS[plan.preset]
    run, stage = folder.run(name), stages[number]
    if run.resume.exists():
        return Plan.resumed(data, given, output=run.path, device=plan.device)
    run.clear()  # stopped before its first save, if at all: nothing to go on from
    if number == 0 and plan.first is not None and plan.first.folder.path == run.path:
        return plan.first
    start = (stage.start or stages[number - 1].name) if number and stage.start is not None else ""
    return Plan.new(
        data,
        given,
        output=run.path,
        start_from=str(folder.model(start)) if start else None,
        teachers=[teacher if teacher in MODELS else str(folder.model(teacher)) for teacher in stage.teachers],
        device=plan.device,
    )


def _finish(plan: StagesPlan, data: Dataset, telling: Telling) -> None:
    """Makes the last stage's model ready to ship."""
    folder, given = plan.folder, plan.given
    # The search is chosen for the weights that ship: rounded ones may score a point of CIDEr-D less (measured).
    save_model(folder.rounded, load_model(folder.model(PRESETS[plan.preset][-1].name)), small=True)
    file = load_model(folder.rounded, prepare(plan.device))
    finished, _ = choose_search(file, data.split("val"), given.get("search", {}), telling)
    save_model(folder.finished, finished, small=True)
    folder.rounded.unlink()


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
