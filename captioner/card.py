"""What a model file says of its model, without the weights and without torch."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from captioner.errors import CaptionerError, ModelFileError
from captioner.header import check_header, parse_header
from captioner.options import (
    MODELS,
    DecoderOptions,
    EncoderOptions,
    ImageOptions,
    SearchOptions,
    from_dict,
    upgraded,
)
from captioner.sureness import Sureness

FORMAT = 2
"""Version of the model file's layout. A reader takes it and all before it, and refuses files of a later one.

2 may hold a second decoder (`reverse` in its header), a decoder that normalises the features, and 8-bit weights; 1 has
none of these.
"""

HEADER = "captioner"
"""Name of the header among the file's metadata."""

BUNDLED_MODELS = {name: Path(__file__).parent / "pretrained" / f"{name}.safetensors" for name in MODELS}
"""The models that ship with the package, by name, the default first."""

BUNDLED = BUNDLED_MODELS[MODELS[0]]


@dataclass(frozen=True)
class ModelCard:
    """A model as it is presented: what it was built from, what it can say, and where it came from."""

    name: str
    """What users call it: "the bundled model fast", or its file's name."""
    image: ImageOptions
    encoder: EncoderOptions
    decoder: DecoderOptions
    reverse: bool
    """It has a second decoder, from right to left, so that `SearchOptions.rerank` may be set."""
    search: SearchOptions
    """Chosen on the validation split; every face uses it unless told otherwise."""
    vocabulary: tuple[str, ...]
    """Every word by its id, the special ones first."""
    tokeniser: str
    """The version of the rules by which its training captions became words."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Where the model came from: versions, commit, starting weights, data set, split, scores. Plain JSON values."""
    digest: str | None = None
    """SHA-256 of the file, in hexadecimal; None for a model that is in no file."""

    @property
    def sureness(self) -> Sureness | None:
        """When to say that a caption may be wrong, as it was measured on validation; None for older files."""
        try:
            return Sureness(**self.provenance["sureness"])
        except (KeyError, TypeError):
            return None


def model_path(model: str | os.PathLike[str] | None) -> Path:
    """The file of a model: of a bundled one for its name, of the default one for None, else the path itself.

    Names win over files of the same name in the working folder; "./fast" and Path("fast") are files.
    """
    if model is None:
        return BUNDLED
    return BUNDLED_MODELS[model] if isinstance(model, str) and model in BUNDLED_MODELS else Path(model)


def read_header(path: Path) -> dict[str, Any]:
    """The header of a model file, without its weights.

    Raises ModelFileError where there is no such file, where it is no model file, and where a later version wrote it.
    """
    if not path.is_file():
        raise ModelFileError(f"There is no model file {path}: check the path.")
    try:
        with safe_open(path, "np") as file:
            text = (file.metadata() or {})[HEADER]
    except (SafetensorError, OSError, KeyError) as error:
        raise ModelFileError(f"{path} is not a captioner model file: choose one that training wrote.") from error
    try:
        header = parse_header(text)
        if header["format"] <= FORMAT:
            check_header(header)
            return header
    except ValueError as error:
        raise ModelFileError(f"{path} is not a captioner model file ({error}): train or copy it anew.") from error
    raise ModelFileError(
        f"{path} has format {header['format']}, this captioner reads up to {FORMAT}: update captioner."
    )


def unusable(path: Path, error: Exception) -> ModelFileError:
    """What to raise for a model file that led to `error`, whatever a stranger's header made it say."""
    said = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    said = said if len(said) <= 300 else f"{said[:300]}..."
    return ModelFileError(f"{path} cannot be loaded: {said}. Train or copy it anew.")


def read_card(path: Path, *, name: str | None = None) -> ModelCard:
    """The card of a model file; `name` is the file's unless given. Raises ModelFileError as `read_header` does.

    ModelFileError too where the header holds what this version cannot use.
    """
    header = read_header(path)
    try:
        header = upgraded(header)
        return ModelCard(
            name=name or path.name,
            image=from_dict(ImageOptions, header["image"]),
            encoder=from_dict(EncoderOptions, header["encoder"]),
            decoder=from_dict(DecoderOptions, header["decoder"]),
            reverse=header.get("reverse", False),
            search=from_dict(SearchOptions, header["search"]),
            vocabulary=tuple(header["vocabulary"]),
            tokeniser=header["tokeniser"],
            provenance=header.get("provenance", {}),
            digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        )
    except (OSError, KeyError, TypeError, ValueError, CaptionerError) as error:
        raise unusable(path, error) from error
