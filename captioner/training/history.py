"""What runs left in their folders, read without torch, and compared in a table."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captioner.card import read_header
from captioner.errors import ModelFileError, TrainingError
from captioner.files import printable
from captioner.training.folder import RunFolder


@dataclass(frozen=True)
class History:
    """A run so far."""

    name: str
    epochs: Sequence[dict[str, Any]]
    """An entry an epoch, as in log.jsonl."""
    options: dict[str, str] = field(default_factory=dict)
    """What was asked for, by its name; empty where no model tells."""
    pictures: dict[str, str] = field(default_factory=dict)
    """The sample pictures as data: addresses, by their names; of a run under way only."""

    @property
    def best(self) -> dict[str, Any]:
        """The entry of the epoch whose model the run kept: best CIDEr-D, then BLEU-4, as means over the sets."""

        def rank(entry: dict[str, Any]) -> tuple[float, ...]:
            parts = [*entry["val"].get("data_sets", {}).values()] or [entry["val"]]
            return tuple(sum(part[name] for part in parts) / len(parts) for name in ("CIDEr-D", "BLEU-4"))

        return max(self.epochs, key=rank)

    @property
    def seconds(self) -> float:
        """How long it took so far, loading and the choice of a search aside."""
        return sum(sum(entry["seconds"].values()) for entry in self.epochs)


def read_histories(folders: Sequence[Path]) -> list[History]:
    """The runs in folders: a run's own, or one of a preset or of several runs, with theirs in it.

    Raises TrainingError where there is none, or a log that cannot be read.
    """
    found = []
    for folder in folders:
        runs = [folder] if RunFolder(folder).log.is_file() else sorted(log.parent for log in folder.glob("*/log.jsonl"))
        if not runs:
            raise TrainingError(
                f"There is no run in {printable(folder)} that has finished an epoch: name the --output of one."
            )
        found += [_read(run) for run in runs]
    return found


def _read(folder: Path) -> History:
    files = RunFolder(folder)
    try:
        epochs = [json.loads(line) for line in files.log.read_text(encoding="utf-8").splitlines() if line.strip()]
        history = History(printable(folder), epochs)
        float(history.best["val"]["CIDEr-D"]), history.seconds, [float(entry["loss"]) for entry in epochs]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{printable(files.log)} cannot be read as a run's log ({type(error).__name__})"
        raise TrainingError(f"{reason}: name another folder.") from error
    try:
        header = read_header(files.best)
    except ModelFileError:  # it has been moved, or is another version's: the log tells the rest
        return history
    return History(history.name, epochs, options_of(header))


def options_of(header: dict[str, Any]) -> dict[str, str]:
    """What a model file's header says of the run: every option by its name, and what it was trained on."""
    origin = header.get("provenance", {})
    groups = [origin.get("training"), *(header.get(group) for group in ("encoder", "decoder", "image"))]
    named = {f"data: {name}": value for name, value in (origin.get("pictures") or {}).items()}
    options = {"data": origin.get("data")} | named
    for title, group in zip(("", "encoder ", "decoder ", "image "), groups, strict=True):
        options |= {f"{title}{name}": value for name, value in (group or {}).items()}
    return {name: str(value) for name, value in options.items() if value is not None}


def differing(histories: Sequence[History]) -> dict[str, list[str]]:
    """The options that are not the same in all runs: name -> its value in each, "" where it has none."""
    names = dict.fromkeys(name for history in histories for name in history.options)
    values = {name: [history.options.get(name, "") for history in histories] for name in names}
    return {name: found for name, found in values.items() if len(set(found)) > 1}


def rows(histories: Sequence[History]) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of the table that compares runs, a row a run."""
    sets = dict.fromkeys(name for history in histories for name in history.best["val"].get("data_sets", {}))
    head = ["run", "epochs", "best", "loss", "BLEU-4", "CIDEr-D", *(f"CIDEr-D {name}" for name in sets)]
    head += ["distinct", "minutes", *(different := differing(histories))]
    table = []
    for number, history in enumerate(histories):
        best, scores = history.best, history.best["val"]
        parts = [scores.get("data_sets", {}).get(name, {}).get("CIDEr-D") for name in sets]
        row = [history.name, str(len(history.epochs)), str(best["epoch"]), f"{best['loss']:.3f}"]
        row += [_score(scores.get(name)) for name in ("BLEU-4", "CIDEr-D")] + [_score(part) for part in parts]
        row += [f"{scores.get('distinct', '')}", f"{history.seconds / 60:.1f}"]
        table.append([*row, *(values[number] for values in different.values())])
    return head, table


def table(histories: Sequence[History]) -> str:
    """The same as text: the scores are those of each run's best epoch on its validation split."""
    head, body = rows(histories)
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *body)]
    return "\n".join(line.rstrip() for line in lines)


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
