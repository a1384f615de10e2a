"""A run's epochs as TensorBoard events, where tensorboard is installed."""

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def write_events(folder: Path, entry: Mapping[str, Any]) -> None:
    """The numbers of an epoch's log entry, at the epoch's number; later ones in the folder, which a run that was killed
    and resumed computes again, count no more. Does nothing without tensorboard.
    """
    if not importlib.util.find_spec("tensorboard"):
        return
    from torch.utils.tensorboard import SummaryWriter

    epoch = entry["epoch"]
    with SummaryWriter(str(folder), purge_step=epoch) as writer:
        for name, value in _numbers(entry):
            writer.add_scalar(name, value, epoch)


def _numbers(entry: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    """Each number with its path: loss, val/CIDEr-D, val/data_sets/flickr8k/BLEU-4."""
    for name, value in entry.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{before}{name}/")
        elif isinstance(value, int | float) and name != "epoch":
            yield before + name, value
