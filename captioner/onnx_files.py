"""What `captioner export --onnx` leaves beside a model file, and what both sides call it: files, inputs and outputs.

Graphs hold no weights: theirs lie in the model file itself, at places that ONNX's external data names. So both backends
read one file, and a graph belongs to that very file, which the card's digest says.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioner.card import ModelCard
from captioner.errors import ModelFileError
from captioner.options import DecoderOptions

PARTS = ("encoder", "read", "step")
"""Pixels to features; features to memory and first state; one more word. A second decoder adds the REVERSE ones."""

REVERSE = ("reverse-read", "reverse-step")


@dataclass(frozen=True)
class Names:
    """Inputs and outputs of a decoder's graphs."""

    state: tuple[str, ...]
    """The recurrent state, (B, K, layers, hidden) each; behind the step "next " stands before them."""
    memory: tuple[str, ...]
    """What attention compares with and averages, (B, heads, R, hidden / heads) each; none without attention."""
    attention: tuple[str, ...]
    """Where it looked, (B, K, R); none without attention."""

    @property
    def after(self) -> tuple[str, ...]:
        """The state after a step."""
        return tuple(f"next_{name}" for name in self.state)


def names_of(options: DecoderOptions) -> Names:
    """The names for a decoder of these options."""
    looks = options.attention != "none"
    return Names(
        state=("hidden", "cell") if options.cell == "lstm" else ("hidden",),
        memory=("keys", "values") if looks else (),
        attention=("attention",) if looks else (),
    )


def graph_path(model: Path, part: str) -> Path:
    """Where a part's graph of this model file lies: beside it, for ONNX lets external data lie nowhere above."""
    return model.with_name(f"{model.stem}.{part}.onnx")


def card_path(model: Path) -> Path:
    """Where the JSON card lies."""
    return model.with_name(f"{model.stem}.onnx.json")


def read_grid(model: Path, card: ModelCard) -> tuple[int, int]:
    """Rows and columns of the features, from the JSON card of a model file whose own card was read.

    Raises ModelFileError where there are no graphs beside it, or where they belong to another file.
    """
    path = card_path(model)
    remedy = f"write them where torch is installed: captioner export {model} --onnx FOLDER"
    if not path.is_file():
        raise ModelFileError(str(model), "has no ONNX graphs beside it", remedy)
    try:
        written: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        digest, (rows, columns) = written["digest"], written["grid"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFileError(str(path), "is no card of ONNX graphs", remedy) from error
    if digest != card.digest:
        raise ModelFileError(str(model), "is another file than its ONNX graphs were written for", remedy)
    if not all(isinstance(side, int) and 0 < side <= 4096 for side in (rows, columns)):
        raise ModelFileError(str(path), "has no grid of rows and columns", remedy)
    return rows, columns
