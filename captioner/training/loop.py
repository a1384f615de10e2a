"""From what the user asked for to a run: starting one, going on with one, and refusing what cannot be."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from captioner.checkpoint import ModelFile, load_resume
from captioner.datasets.dataset import Dataset
from captioner.device import keep_memory, pick_device, pick_precision
from captioner.encoder import Encoder
from captioner.errors import ModelFileError, OptionError
from captioner.model import CaptionModel, ModelOptions
from captioner.options import flag
from captioner.text import Vocabulary
from captioner.training.resume import fingerprint
from captioner.training.run import Run
from captioner.training.setup import (
    Given,
    Options,
    build_model,
    build_vocabulary,
    load_start,
    load_teachers,
    provenance,
    resolve_options,
)


def say(line: str) -> None:
    """Prints a line, above the progress bar where there is one."""
    tqdm.write(line, file=sys.stdout)


def check_choices(
    data: Dataset,
    *,
    given: Given,
    output: Path,
    resume: bool,
    start_from: str | None = None,
    teachers: Sequence[str] = (),
) -> None:
    """Refuses what `train` would refuse, in a moment: before every picture of a large data set is read.

    Raises OptionError and ModelFileError as `train` does.
    """
    if resume:
        load_resume(output / "resume.pt")
    else:
        _prepare(data, given=given, output=output, start_from=start_from, teachers=teachers)


def _prepare(
    data: Dataset, *, given: Given, output: Path, start_from: str | None, teachers: Sequence[str]
) -> tuple[ModelFile | None, dict[str, ModelFile], Options]:
    """What a new run starts from, who teaches it, and its options; raises as `train` does."""
    if output.exists() and any(output.iterdir()):
        raise OptionError(f"{output} already holds a run: continue it with --resume, or choose another --output.")
    start = load_start(start_from)
    options = resolve_options(given, kind=data.kind, start=start)
    with torch.random.fork_rng(devices=[]):
        encoder = Encoder(options.encoder, image_size=options.image.size)
    encoder.trainable(options.training.fine_tune)
    if teachers and start is None:
        raise OptionError("--teachers teach a trained model: name it with --start-from.")
    return start, load_teachers(teachers, options, start) if start else {}, options


def train(
    data: Dataset,
    *,
    given: Given,
    output: Path,
    features: Path,
    resume: bool = False,
    start_from: str | None = None,
    teachers: Sequence[str] = (),
    final: bool = True,
    device: str = "auto",
    report: Callable[[str], None] = say,
) -> Path | None:
    """Trains on a checked data set; returns the best model's file, or None if someone asked for a stop.

    `given` holds what the user chose, `features` is the folder for cached features, `start_from` a model file or the
    name of a bundled model, and so are the `teachers`. Where the model is `final`, its search is chosen on validation;
    a model that another run goes on from can do without, and saves minutes.

    Raises OptionError for options that do not fit, ModelFileError for files that do not, and TrainingError where the
    loss is not finite.
    """
    place = pick_device(device)
    if place.type == "cpu":
        keep_memory()
    if resume:
        state = load_resume(output / "resume.pt")
        run = _resumed(state, data, given, teachers, output=output, features=features, device=place, report=report)
        done, step = run.progress.epoch, run.progress.step
        report(f"Going on in {output} after {done} epochs and {step} steps.")
    else:
        start, taught_by, options = _prepare(data, given=given, output=output, start_from=start_from, teachers=teachers)
        precision = pick_precision(options.training.precision, place)
        options = replace(options, training=replace(options.training, precision=precision))
        torch.manual_seed(options.training.seed)
        if start and not options.training.new_decoder:
            vocabulary = start.vocabulary
        else:
            vocabulary = build_vocabulary(data, min_count=options.training.min_count)
        model = build_model(options, vocabulary, start)
        origin = provenance(options, data, start=start, teachers=list(taught_by.values()))
        run = Run(
            data,
            options,
            vocabulary,
            model,
            teachers=taught_by,
            output=output,
            features=features,
            origin=origin,
            device=place,
            report=report,
        )
    report(_describe(run))
    if not run.train():
        report(f"Stopped and saved: the same command with --resume goes on from {output}.")
        return None
    return run.choose_search(given.get("SearchOptions", {})) if final else run.output / "best.safetensors"


def _describe(run: Run) -> str:
    """What learns what, in a line."""
    encoder, decoder = (
        sum(parameter.numel() for parameter in part.parameters()) / 1e6 for part in (run.model.encoder, run.decoder)
    )
    rows, columns = run.model.encoder.grid
    options = run.options
    return (
        f"{options.encoder.name} ({encoder:.1f} M parameters, {rows}x{columns} grid of {run.model.encoder.channels}, "
        f"{'learning' if options.training.fine_tune else 'frozen'}) and {options.decoder.cell} with "
        f"{options.decoder.attention} attention ({decoder:.1f} M, {options.training.direction}, "
        f"{options.training.objective}), {len(run.vocabulary):,} words, on {run.device} in "
        f"{options.training.precision}."
    )


def _resumed(
    state: dict[str, Any], data: Dataset, given: Given, teachers: Sequence[str], *, output: Path, **places: Any
) -> Run:
    """The run that a resume file holds; raises OptionError where the user asks for something else now."""
    try:
        decoder = {"normalise": False, **state["options"]["decoder"]}  # earlier decoders did not
        options = Options.from_dict({**state["options"], "decoder": decoder})
        vocabulary = Vocabulary(state["vocabulary"])
        for name, chosen in given.items():
            kept = next(value for value in vars(options).values() if type(value).__name__ == name)
            for option, value in chosen.items():
                if value not in (getattr(kept, option), "auto"):
                    raise OptionError(
                        f"{flag(type(kept), option)} is {value} now, but the run in {output} was started with "
                        f"{getattr(kept, option)}: leave it out, or start a new run with another --output."
                    )
        if state["data"] != fingerprint(data):
            raise OptionError(
                f"The data set, or how captions become tokens, is not what the run in {output} was started with: give "
                "the same data set, or start a new run with another --output."
            )
        taught_by = state.get("teachers", [])
        if teachers and list(teachers) != taught_by:
            raise OptionError(
                f"--teachers are {' '.join(teachers)} now, but the run in {output} was started with "
                f"{' '.join(taught_by) or 'none'}: leave them out, or start a new run with another --output."
            )
        reverse = any(name.startswith("reverse.") for name in state["model"])
        model = CaptionModel(ModelOptions(options.image, options.encoder, options.decoder, len(vocabulary), reverse))
        model.load_state_dict(state["model"])  # before the run is made: cached features depend on the weights
        model.encoder.trusts_statistics = state["trusts_statistics"]
        learner = ModelFile(model, vocabulary, options.search)
        files = load_teachers(taught_by, options, learner)
        run = Run(data, options, vocabulary, model, teachers=files, output=output, origin=state["origin"], **places)
        run.restore(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelFileError(
            f"{output / 'resume.pt'} does not fit this version of captioner ({error}): start a new run."
        ) from error
    return run
