"""The model file: one safetensors file that holds all a captioner needs, and the resume file of a training run.

Both are written to a temporary file first and then moved into place, so that a reader never sees half of one.
Loading a model file builds the network without downloading anything, and unpickles nothing.
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from captioner.card import BUNDLED as BUNDLED
from captioner.card import BUNDLED_MODELS as BUNDLED_MODELS
from captioner.card import FORMAT, HEADER, ModelCard, read_card, unusable
from captioner.card import model_path as model_path
from captioner.errors import ModelFileError
from captioner.files import write_atomically
from captioner.model import CaptionModel, ModelOptions
from captioner.options import SearchOptions, to_dict
from captioner.tensors import SCALE, load_network, tied
from captioner.text import TOKENISERS, Vocabulary


@dataclass(frozen=True)
class ModelFile:
    """A model with all that belongs to it."""

    model: CaptionModel
    vocabulary: Vocabulary
    search: SearchOptions
    """Chosen on the validation split; every face uses it unless told otherwise."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Where the model came from: versions, commit, starting weights, data set, split, scores. Plain JSON values."""
    tokeniser: str = TOKENISERS[-1]
    """The version of the rules by which its training captions became words."""

    def card(self, name: str) -> ModelCard:
        """The card of a model that users call `name`."""
        options = self.model.options
        return ModelCard(
            name,
            options.image,
            options.encoder,
            options.decoder,
            options.reverse,
            self.search,
            self.vocabulary.words,
            self.tokeniser,
            self.provenance,
        )


def save_model(path: Path, file: ModelFile, *, small: bool = False) -> None:
    """Writes a model file; if `small`, for shipping, at little more than a quarter of the size.

    A small file holds each matrix and kernel as 8-bit integers with a scale for each of its rows (a convolution's
    output channel, a word's embedding): the largest value of a row becomes 127 or -127, the others are rounded. The
    model that is loaded from it computes in float32 all the same. Raises WritingError.
    """
    header = {
        "format": FORMAT,
        **file.model.options.to_dict(),
        "search": to_dict(file.search),
        "tokeniser": file.tokeniser,
        "vocabulary": file.vocabulary.words,
        "provenance": file.provenance,
    }
    tensors = file.model.state_dict()
    for output in tied(file.model.options):
        del tensors[output]
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if small:
        tensors = {name: part for item in tensors.items() for name, part in _rounded(*item).items()}
    metadata = {HEADER: json.dumps(header, ensure_ascii=False)}
    _write(path, lambda part: save_file(tensors, part, metadata=metadata))


def _rounded(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A tensor as a small file holds it: a matrix as integers and scales, anything else as it is."""
    if tensor.ndim < 2:
        return {name: tensor}
    rows = tensor.flatten(1)
    scale = rows.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
    return {name: (rows / scale[:, None]).round().to(torch.int8).view_as(tensor), name + SCALE: scale}


def load_model(path: Path, device: torch.device | str = "cpu") -> ModelFile:
    """Reads a model file; the model is in float32 and in eval mode, on `device`.

    Raises ModelFileError for anything that is not a whole model file.
    """
    return restore(path, read_card(path), device)


def restore(path: Path, card: ModelCard, device: torch.device | str = "cpu") -> ModelFile:
    """`load_model` for a file whose card was read already."""
    if card.tokeniser not in TOKENISERS:
        raise ModelFileError(
            f"{path} was made with tokeniser {card.tokeniser}, this captioner knows {', '.join(TOKENISERS)}: "
            "update captioner, or train the model anew."
        )
    try:
        vocabulary = Vocabulary(card.vocabulary)
        options = ModelOptions(card.image, card.encoder, card.decoder, len(vocabulary), card.reverse)
        model = load_network(path, options)
    except Exception as error:  # whatever a stranger's header and tensors lead to
        raise unusable(path, error) from error
    model.encoder.trusts_statistics = True
    return ModelFile(model.to(device).eval(), vocabulary, card.search, dict(card.provenance), card.tokeniser)


def save_resume(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a resume file: tensors and plain values only. Raises WritingError."""

    def save(part: Path) -> None:
        with part.open("wb") as file:  # of a file, torch says what went wrong with the disk
            torch.save(dict(state), file)

    _write(path, save)


def _write(path: Path, save: Callable[[Path], object]) -> None:
    """`write_atomically`, for writers that say in their own ways what the disk did not take."""

    def write(part: Path) -> None:
        try:
            save(part)
        except (RuntimeError, SafetensorError) as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            code = re.search(r"os error (\d+)", str(error))
            raise (OSError(int(code[1]), os.strerror(int(code[1]))) if code else OSError(str(error))) from error

    write_atomically(path, write)


def load_resume(path: Path) -> dict[str, Any]:
    """Reads a resume file onto the CPU, unpickling nothing but tensors and plain values.

    Raises ModelFileError where it is missing or damaged.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever its parsers raise
        raise ModelFileError(f"{path} cannot be read ({type(error).__name__}): start a new run.") from error
    if not isinstance(state, dict):
        raise ModelFileError(f"{path} holds a {type(state).__name__}, not the state of a run: start a new run.")
    return state
