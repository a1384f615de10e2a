"""A run, resolved once: what it learns from, with which options, starting where, taught by whom, and in which folder.

A plan is made before every picture of a large data set is read, and refuses then what can be known then. What it names
is loaded once. It trains nothing; `run` does.
"""

import platform
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import captioner
from captioner.checkpoint import ModelFile, load_model, load_resume, model_path
from captioner.datasets.dataset import Dataset
from captioner.device import pick_precision, prepare
from captioner.encoder import Encoder
from captioner.errors import DataError, ModelFileError, OptionError
from captioner.model import CaptionModel, ModelOptions
from captioner.options import TrainingOptions, to_dict, upgraded
from captioner.text import Vocabulary, tokenise
from captioner.training.choices import (
    Given,
    Options,
    bundled_with,
    check_resumed,
    check_teaching,
    has_reverse,
    merge,
    resolve_options,
)
from captioner.training.folder import RunFolder
from captioner.training.growth import Coverage, grow_model, grow_vocabulary, in_order, usual_min_count
from captioner.training.resume import fingerprint


@dataclass(frozen=True)
class Plan:
    """All that a run is made from."""

    data: Dataset
    options: Options
    """The precision is chosen."""
    vocabulary: Vocabulary
    reverse: bool
    """The model has a right-to-left decoder."""
    folder: RunFolder
    device: torch.device
    fixed: Mapping[str, Any]
    """Fields of the search that are chosen already; the others are, on the validation split, in the end."""
    start: ModelFile | None = None
    """The model that training goes on from."""
    teachers: Mapping[str, ModelFile] = field(default_factory=dict)
    """Models that teach, by the names they were given."""
    coverage: Coverage | None = None
    """What of the training captions the model to start from could write, and which words are new to it."""
    state: Mapping[str, Any] | None = None
    """What a resume file holds, where the run was begun before."""

    @classmethod
    def new(
        cls,
        data: Dataset,
        given: Given,
        *,
        output: Path,
        start_from: str | None = None,
        teachers: Sequence[str] = (),
        device: str = "auto",
    ) -> "Plan":
        """A run that begins. `given` is what the user chose; models are bundled ones by their names, or files.

        Raises OptionError for options that do not fit, ModelFileError for files that do not, and DataError where too
        few words are used often enough.
        """
        folder = RunFolder(output)
        folder.check_new()
        start = load_model(model_path(start_from)) if start_from is not None else None
        options = resolve_options(given, kind=data.kind, start=start)
        _check_encoder(options, start)
        if teachers:
            check_teaching(options.training, start)
        place = prepare(device)
        precision = pick_precision(options.training.precision, place)
        options = replace(options, training=replace(options.training, precision=precision))
        options = _with_min_count(options, data)
        vocabulary, coverage = _vocabulary(data, options.training, start)
        return cls(
            data,
            options,
            vocabulary,
            has_reverse(options.training, start),
            folder,
            place,
            merge(given)["search"],
            start,
            _load_teachers(teachers, vocabulary),
            coverage,
        )

    @classmethod
    def resumed(
        cls, data: Dataset, given: Given, *, output: Path, teachers: Sequence[str] = (), device: str = "auto"
    ) -> "Plan":
        """A run that goes on; raises OptionError where the user asks for something else now."""
        folder = RunFolder(output)
        folder.check_resumable()
        state = load_resume(folder.resume)
        with fitting(folder):
            options = Options.from_dict(upgraded(state["options"]))
            check_resumed(given, options, output)
            taught_by = state.get("teachers", [])
            if teachers and list(teachers) != taught_by:
                raise OptionError(
                    f"--teachers are {' '.join(teachers)} now, but the run in {output} was started with "
                    f"{' '.join(taught_by) or 'none'}: leave them out, or start a new run with another --output."
                )
            vocabulary = Vocabulary(state["vocabulary"])
            # Earlier resume files do not say so.
            reverse = state.get("reverse", any(name.startswith("reverse.") for name in state["model"]))
            return cls(
                data,
                options,
                vocabulary,
                reverse,
                folder,
                prepare(device),
                merge(given)["search"],
                teachers=_load_teachers(taught_by, vocabulary),
                state=state,
            )

    def over(self, data: Dataset) -> "Plan":
        """The same plan for the data set as the check of its pictures left it.

        Raises OptionError where a run that goes on was started with another one.
        """
        if self.state is not None and self.state["data"] != fingerprint(data):
            raise OptionError(
                f"The data set, or how captions become tokens, is not what the run in {self.folder.path} was started "
                "with: give the same data set, or start a new run with another --output."
            )
        if data is self.data or self.state is not None:
            return replace(self, data=data)
        vocabulary, coverage = _vocabulary(data, self.options.training, self.start)
        return replace(self, data=data, vocabulary=vocabulary, coverage=coverage)

    def model(self) -> CaptionModel:
        """The network with the weights that the run starts from, or stopped with, on its device."""
        options = self.options
        weights = options.training.encoder_weights if self.start is None and self.state is None else "none"
        shape = ModelOptions(options.image, options.encoder, options.decoder, len(self.vocabulary), self.reverse)
        model = CaptionModel(shape, imagenet=weights == "imagenet")
        if self.state is not None:
            with fitting(self.folder):
                model.load_state_dict(self.state["model"])
                model.encoder.trusts_statistics = self.state["trusts_statistics"]
        elif self.start is not None:
            grows = not options.training.new_decoder and len(self.vocabulary) > len(self.start.vocabulary)
            start = grow_model(self.start.model, len(self.vocabulary)) if grows else self.start.model
            _take_over(model, start, decoder=not options.training.new_decoder)
        elif weights == "bundled":
            bundled = load_model(bundled_with(options.encoder.name)).model.encoder.state_dict()
            # an encoder cut at an earlier stage takes the tensors it has
            model.encoder.load_state_dict({name: bundled[name] for name in model.encoder.state_dict()})
            model.encoder.trusts_statistics = True
        return model.to(self.device)

    def provenance(self) -> dict[str, Any]:
        """Where the model comes from, for its file: plain JSON values."""
        if self.state is not None:
            return dict(self.state["origin"])
        training, start = self.options.training, self.start
        return {
            "captioner": captioner.__version__,
            "commit": _commit(),
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "torchvision": version("torchvision"),
            "starting_weights": f"{training.encoder_weights} encoder" if start is None else start.provenance,
            "teachers": [teacher.provenance for teacher in self.teachers.values()],
            "data": " and ".join(part.kind for part in self.data.parts) or self.data.kind,
            "data_sets": _data_sets(self.data),
            "pictures": {split: sum(image.split == split for image in self.data.images) for split in ("train", "val")},
            "left_out": dict(Counter(problem.kind for problem in self.data.problems)),
            "training": to_dict(training),
        }


def _data_sets(data: Dataset) -> dict[str, dict[str, Any]]:
    """Of each data set by its name: how many pictures are learnt from and validate, and who wrote their captions."""
    found: dict[str, dict[str, Any]] = {}
    for image in data.images:
        if image.split == "test":
            continue
        part = found.setdefault(image.origin or data.kind, {"train": 0, "val": 0, "captions_by": {}})
        part[image.split] += 1
        author = image.author or "unsaid"
        part["captions_by"][author] = part["captions_by"].get(author, 0) + 1
    return found


@contextmanager
def fitting(folder: RunFolder) -> Iterator[None]:
    """What goes wrong in here is a resume file that does not fit: raises ModelFileError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelFileError(
            f"{folder.resume} does not fit this version of captioner ({error}): start a new run."
        ) from error


def _check_encoder(options: Options, start: ModelFile | None) -> None:
    """Raises OptionError for an unknown stage and for pictures too small to leave a grid."""
    if start is not None and start.model.options.image.size == options.image.size:
        encoder = start.model.encoder
    else:
        with torch.random.fork_rng(devices=[]):
            encoder = Encoder(options.encoder, image_size=options.image.size)
    encoder.trainable(options.training.fine_tune)


def _with_min_count(options: Options, data: Dataset) -> Options:
    """The options with a least count of a word that suits the size of the data set, where none was chosen."""
    if options.training.min_count is not None:
        return options
    captions = sum(len(image.captions) for image in data.split("train"))
    return replace(options, training=replace(options.training, min_count=usual_min_count(captions)))


def _vocabulary(
    data: Dataset, training: TrainingOptions, start: ModelFile | None
) -> tuple[Vocabulary, Coverage | None]:
    """The words of the training captions; those of the model to start from first, where its decoder goes on.

    Only what is learnt by likelihood, from left to right, can learn new ones: captions that a model draws hold none.
    """
    assert training.min_count is not None  # `_with_min_count` chose one
    least = training.min_count
    if start is None or training.new_decoder:
        return build_vocabulary(data, min_count=least), None
    if training.objective != "likelihood" or training.direction != "left-to-right":
        return start.vocabulary, None
    captions = [tokenise(caption) for image in data.split("train") for caption in image.captions]
    return grow_vocabulary(start.vocabulary, captions, min_count=least)


def build_vocabulary(data: Dataset, *, min_count: int) -> Vocabulary:
    """The vocabulary of the training split; raises DataError where too few words are used often enough."""
    captions = (tokenise(caption) for image in data.split("train") for caption in image.captions)
    vocabulary = Vocabulary.build(captions, min_count=min_count)
    if len(vocabulary) < 6:
        raise DataError(
            f"Hardly a word is used {min_count} times in the training captions: lower --min-count or add captions."
        )
    return vocabulary


def _load_teachers(teachers: Sequence[str], vocabulary: Vocabulary) -> dict[str, ModelFile]:
    """The models that teach, by the names they were given; raises OptionError for one that says other words."""
    files = {teacher: load_model(model_path(teacher)) for teacher in teachers}
    for teacher, file in files.items():
        if set(file.vocabulary.words) != set(vocabulary.words):
            raise OptionError(
                f"The teacher {teacher} has another vocabulary than the model to start from: train both on the same "
                "data, with the same --min-count."
            )
    return {teacher: in_order(file, vocabulary) for teacher, file in files.items()}


def _take_over(model: CaptionModel, start: CaptionModel, *, decoder: bool) -> None:
    """Gives a model the weights of another one; a new right-to-left decoder begins with those of the one that writes:

    words and pictures mean the same both ways.
    """
    model.encoder.load_state_dict(start.encoder.state_dict())
    model.encoder.trusts_statistics = True
    if decoder:
        model.decoder.load_state_dict(start.decoder.state_dict())
    if model.reverse is not None:
        model.reverse.load_state_dict((start.reverse or start.decoder).state_dict())


def _commit() -> str | None:
    """The commit of the source tree, if it is one and git is there."""
    try:
        own = Path(captioner.__file__).parents[1] / ".git"  # not that of a project whose .venv we are installed in
        command = ["git", f"--git-dir={own}", "rev-parse", "--short=12", "HEAD"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None
