"""How far a run is: what its resume file keeps of that, and what people read before the first epoch and after each."""

from dataclasses import dataclass, field
from typing import Any

from captioner.decoder import Decoder
from captioner.encoder import Encoder
from captioner.telling import Telling
from captioner.training.plan import Plan


@dataclass
class Progress:
    """Where a run stands: all of it goes into the resume file."""

    epoch: int = 0  # whole epochs done
    step: int = 0  # steps done in the epoch after those
    sums: dict[str, float] = field(default_factory=dict)  # of what these steps measured
    best: list[float] = field(default_factory=list)  # Evaluation.rank of the best epoch; none yet ranks lowest
    best_epoch: int = 0
    log: list[dict[str, Any]] = field(default_factory=list)


def describe(plan: Plan, encoder: Encoder, decoder: Decoder) -> str:
    """What learns what, in a line; `decoder` is the one that learns."""
    options, training = plan.options, plan.options.training
    sizes = [sum(parameter.numel() for parameter in part.parameters()) / 1e6 for part in (encoder, decoder)]
    return (
        f"{options.encoder.name} ({sizes[0]:.1f} M parameters, {encoder.grid[0]}x{encoder.grid[1]} grid of "
        f"{encoder.channels}, {'learning' if training.fine_tune else 'frozen'}) and {options.decoder.cell} "
        f"with {options.decoder.attention} attention ({sizes[1]:.1f} M, {training.direction}, {training.objective}), "
        f"{len(plan.vocabulary):,} words, on {plan.device} in {training.precision}."
    )


def tell_epoch(telling: Telling, entry: dict[str, Any], epochs: int, *, improved: bool, complaint: str) -> None:
    """An epoch's line in the log, for people, with the scores of each data set, a `complaint` and samples below it."""
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
    if complaint:
        telling.say(f"  {complaint}")
    for name, text, reference in entry["samples"]:
        telling.say(f"  {name}: {text}   [{reference}]")
