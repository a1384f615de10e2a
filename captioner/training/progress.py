"""How far a run is: what its resume file keeps of that, and the line that people read after an epoch."""

from dataclasses import dataclass, field
from typing import Any

from captioner.telling import Telling


@dataclass
class Progress:
    """Where a run stands: all of it goes into the resume file."""

    epoch: int = 0  # whole epochs done
    step: int = 0  # steps done in the epoch after those
    sums: dict[str, float] = field(default_factory=dict)  # of what these steps measured
    best: list[float] = field(default_factory=list)  # Evaluation.rank of the best epoch; none yet ranks lowest
    best_epoch: int = 0
    log: list[dict[str, Any]] = field(default_factory=list)


def tell_epoch(telling: Telling, entry: dict[str, Any], epochs: int, *, improved: bool) -> None:
    """An epoch's line in the log, for people."""
    scores, seconds = entry["val"], entry["seconds"]
    learnt = f"loss {entry['loss']:.3f}  |gradient| {entry['gradient_norm']:.2f}"
    if "reward" in entry:  # its loss says nothing
        learnt = f"reward {entry['reward']:.1f}  words {entry['sampled_words']:.1f}"
    telling.say(
        f"epoch {entry['epoch']}/{epochs}  {learnt}  "
        f"val BLEU-1 {scores['BLEU-1']:.1f}  BLEU-4 {scores['BLEU-4']:.1f}  CIDEr-D {scores['CIDEr-D']:.1f}  "
        f"({scores['references']:g} references)  exact {scores['exact']:.1f}%  "
        f"distinct {scores['distinct']}/{scores['images']}  "
        f"{seconds['train']:.0f} + {seconds['validate']:.0f} s{'  best' if improved else ''}"
    )
    for name, part in scores.get("data_sets", {}).items():
        telling.say(
            f"  {name}: BLEU-1 {part['BLEU-1']:.1f}  BLEU-4 {part['BLEU-4']:.1f}  CIDEr-D {part['CIDEr-D']:.1f}  "
            f"({part['images']:,} images, {part['references']:g} references)"
        )
