"""The model file: one safetensors file that holds all a captioner needs, and the resume file of a training run.

Both are written to a temporary file first and then moved into place, so that a reader never sees half of one.
Loading a model file builds the network without downloading anything, and unpickles nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from captioner.errors import CaptionerError, ModelFileError
from captioner.files import write_atomically
from captioner.model import CaptionModel, ModelOptions
from captioner.options import DecoderOptions, EncoderOptions, ImageOptions, SearchOptions, from_dict, to_dict
from captioner.text import TOKENISERS, Vocabulary

FORMAT = 1
"""Version of the model file's layout. A reader refuses files of a later one."""

BUNDLED = Path(__file__).parent / "pretrained" / "captioner.safetensors"
"""The model that ships with the package."""

_HEADER = "captioner"
_TIED = "decoder.output.weight"  # the same tensor as the embedding where they are tied: stored once


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


def save_model(path: Path, file: ModelFile, *, half: bool = False) -> None:
    """Writes a model file, its weights in float16 if `half` (for shipping), otherwise as they are."""
    header = {
        "format": FORMAT,
        "image": to_dict(file.model.options.image),
        "encoder": to_dict(file.model.options.encoder),
        "decoder": to_dict(file.model.options.decoder),
        "search": to_dict(file.search),
        "tokeniser": file.tokeniser,
        "vocabulary": file.vocabulary.words,
        "provenance": file.provenance,
    }
    tensors = file.model.state_dict()
    if file.model.options.decoder.tied:
        del tensors[_TIED]
    tensors = {name: _for_disk(tensor, half) for name, tensor in tensors.items()}
    metadata = {_HEADER: json.dumps(header, ensure_ascii=False)}
    write_atomically(path, lambda part: save_file(tensors, part, metadata=metadata))


def _for_disk(tensor: Tensor, half: bool) -> Tensor:
    dtype = torch.float16 if half and tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to("cpu", dtype).contiguous()


def read_header(path: Path) -> dict[str, Any]:
    """The header of a model file, without its weights.

    Raises ModelFileError where there is no such file, where it is no model file, and where a later version wrote it.
    """
    if not path.is_file():
        raise ModelFileError(f"There is no model file {path}: check the path.")
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
        version = header["format"]
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise ModelFileError(f"{path} is not a captioner model file: choose one that train.py wrote.") from error
    if version > FORMAT:
        raise ModelFileError(f"{path} has format {version}, this captioner reads up to {FORMAT}: update captioner.")
    return header


def load_model(path: Path, device: torch.device | str = "cpu") -> ModelFile:
    """Reads a model file; the model is in float32 and in eval mode, on `device`.

    Raises ModelFileError for anything that is not a whole model file.
    """
    header = read_header(path)
    if header.get("tokeniser") not in TOKENISERS:
        raise ModelFileError(
            f"{path} was made with tokeniser {header.get('tokeniser')}, this captioner knows {', '.join(TOKENISERS)}: "
            "update captioner, or train the model anew."
        )
    try:
        vocabulary = Vocabulary(header["vocabulary"])
        options = ModelOptions(
            image=from_dict(ImageOptions, header["image"]),
            encoder=from_dict(EncoderOptions, header["encoder"]),
            decoder=from_dict(DecoderOptions, header["decoder"]),
            vocabulary_size=len(vocabulary),
        )
        search = from_dict(SearchOptions, header["search"])
        model = CaptionModel(options)
        tensors = load_file(path)
        if options.decoder.tied:
            tensors[_TIED] = tensors["decoder.embedding.weight"]
        model.load_state_dict(tensors)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError, CaptionerError) as error:
        raise ModelFileError(f"{path} cannot be loaded: {str(error).splitlines()[0]} Train or copy it anew.") from error
    model.encoder.trusts_statistics = True
    return ModelFile(model.to(device).eval(), vocabulary, search, header.get("provenance", {}), header["tokeniser"])


def save_resume(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a resume file: tensors and plain values only."""
    write_atomically(path, lambda part: torch.save(dict(state), part))


def load_resume(path: Path) -> dict[str, Any]:
    """Reads a resume file onto the CPU, unpickling nothing but tensors and plain values.

    Raises ModelFileError where it is missing or damaged.
    """
    if not path.is_file():
        raise ModelFileError(f"There is nothing to resume in {path.parent}: start without --resume.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever its parsers raise
        raise ModelFileError(f"{path} cannot be read ({type(error).__name__}): start a new run.") from error
    return dict(state)
