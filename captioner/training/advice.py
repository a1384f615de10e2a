"""What whoever trains may want to do next: said before a run that has little to learn from, and at the end of each."""

from collections.abc import Mapping
from typing import Any

from captioner.options import MODELS

FEW = 3_000
"""Training pictures: with fewer, a decoder that begins with nothing writes worse than one that was trained before."""


def before(origin: Mapping[str, Any]) -> str:
    """A sentence where a decoder begins with nothing and has few training pictures; "" elsewhere.

    `origin` is the provenance that the model will have. Drawings, whose encoder begins with nothing too, are enough.
    """
    pictures = origin["pictures"]["train"]
    if origin["starting_weights"] != "imagenet encoder" or pictures >= FEW:
        return ""
    return (
        f"{pictures:,} training pictures are few to learn to write from: the same DATA with --start-from {MODELS[-1]} "
        "--fine-tune all begins with a trained model, and adds the words that are new to it."
    )


def after(origin: Mapping[str, Any], *, best: str, sound: bool) -> list[str]:
    """What was reached, and what may reach more: a line each.

    `origin` is the provenance of the best model, whose file `best` is; `sound`: its captions are not degenerate.
    """
    scores, training = origin["val"], origin["training"]
    lines = [
        f"The best model is that of epoch {origin['epoch']}: BLEU-4 {scores['BLEU-4']:.1f}, CIDEr-D "
        f"{scores['CIDEr-D']:.1f} on {scores['images']:,} validation pictures, with {scores['distinct']:,} different "
        "captions."
    ]
    if not sound:
        return [*lines, before(origin) or "More epochs, more pictures or more captions may help."]
    if origin["epoch"] == training["epochs"]:
        lines.append(f"No earlier epoch was as good: more --epochs than {training['epochs']} may be better still.")
    if training["objective"] == "likelihood":
        lines.append(f"Next: the same DATA with --start-from {best} --objective self-critical learns what is scored.")
    return lines
