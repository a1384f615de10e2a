"""The recurrent family on real photographs: rnn, lstm and gru, with and without attention, and how far back they learn.

    python -m benchmarks.recurrent_cells data/flickr8k [--epochs 12] [--output runs/recurrent-cells]

All six decoders have the same number of parameters, as nearly as a whole hidden size allows, and see the same frozen
features in the same batches. Each run is the real `train.py`; the best epoch is then scored on the validation split
with 95% bootstrap intervals. What is measured besides, on the validation captions and on the CPU: how much of the last
word's gradient is left on its way back to the first, before and after training (`benchmarks.gradients`), and what
clipping does to the steps of a plain RNN.

A second call goes on where the first was stopped, and repeats no finished run. Everything measured goes into
results.json in --output, and figures and tables (docs/recurrent-cells.md shows them) into --figures.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gradients import (
    Captions,
    captions_by_length,
    kept_share,
    reach,
    scale_recurrence,
    spectral_radius,
    training_steps,
)
from captioner.checkpoint import ModelFile, load_model
from captioner.datasets import Dataset, load_dataset
from captioner.datasets.dataset import CaptionedImage
from captioner.decoder import Decoder
from captioner.evaluation import Evaluation, compare, evaluate
from captioner.files import write_atomically
from captioner.generation import caption_features
from captioner.model import CaptionModel
from captioner.network import network_of
from captioner.options import CELLS, DecoderOptions
from captioner.telling import OUT
from captioner.training.batches import encode_captions
from captioner.training.features import cached_features
from captioner.training.plan import Plan

ATTENTIONS = ("dot", "none")
LENGTHS = range(6, 25)  # words; Flickr8k's validation split has ten captions or more of each
CAPTIONS_A_LENGTH = 100
RADII = (0.5, 1.0, 1.5, 2.0)
CLIP_NORMS = (0.0, 5.0, 1.0)
CLIPPING = (  # what the panel is called, optimizer, learning rate, spectral radius (None: as torch starts it)
    ("AdamW, learning rate 0.001", torch.optim.AdamW, 1e-3, None),
    ("plain SGD, learning rate 1", torch.optim.SGD, 1.0, None),
    ("the same, spectral radius 2", torch.optim.SGD, 1.0, 2.0),
)
CLIPPING_BATCH = 16
RESAMPLES = 1000


def parameters(options: DecoderOptions, *, channels: int, vocabulary_size: int) -> int:
    """The number of parameters of a decoder with these options; a tied matrix counts once."""
    with torch.device("meta"):  # shapes without numbers
        decoder = Decoder(options, channels=channels, vocabulary_size=vocabulary_size)
    return sum(parameter.numel() for parameter in decoder.parameters())


def fit_hidden_size(cell: str, attention: str, budget: int, *, channels: int, vocabulary_size: int) -> DecoderOptions:
    """The default decoder with this cell and attention, of the hidden size that comes closest to the budget."""

    def options(hidden_size: int) -> DecoderOptions:
        return DecoderOptions(cell=cell, attention=attention, heads=1, hidden_size=hidden_size)  # any size divides by 1

    def count(hidden_size: int) -> int:
        return parameters(options(hidden_size), channels=channels, vocabulary_size=vocabulary_size)

    above = max(2, bisect_left(range(8192), budget, lo=1, key=count))
    return options(min((above - 1, above), key=lambda size: abs(count(size) - budget)))


def train(data: str, options: DecoderOptions, output: Path, chosen: argparse.Namespace) -> None:
    """One run of train.py in a folder of its own; goes on with a stopped one, and leaves a finished one alone."""
    command = [sys.executable, "-m", "captioner", "train", data, "--output", str(output)]
    command += ["--features", str(chosen.features), "--epochs", str(chosen.epochs), "--seed", str(chosen.seed)]
    command += ["--cell", options.cell, "--attention", options.attention, "--hidden-size", str(options.hidden_size)]
    command += ["--heads", str(options.heads), "--patience", "99", "--beam-size", "3", "--length-penalty", "0"]
    if (output / "resume.pt").exists():
        command.append("--resume")
    subprocess.run(command, check=True)


def score(file: ModelFile, images: Sequence[CaptionedImage], features: Tensor) -> Evaluation:
    """The scores of a model's captions of these images, whose features (N, R, C) are given, by its own search."""
    captions = []
    for first in range(0, len(images), 64):
        batch = features[first : first + 64].float()
        captions += caption_features(network_of(file.model), batch, file.vocabulary, file.search)
    return evaluate(images, [caption.text for caption in captions])


def describe(file: ModelFile, output: Path, evaluation: Evaluation) -> dict[str, Any]:
    """What a trained model is, what it scored, and what its log says, as values for JSON."""
    options = file.model.options.decoder
    log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    seconds = [line["seconds"]["train"] for line in log]
    intervals = evaluation.intervals(RESAMPLES)
    return {
        "cell": options.cell,
        "attention": options.attention,
        "hidden_size": options.hidden_size,
        "parameters": sum(parameter.numel() for parameter in file.model.decoder.parameters()),
        "best_epoch": file.provenance["epoch"],
        "precision": file.provenance["training"]["precision"],
        "scores": {
            name: {"score": value, "low": intervals[name][0], "high": intervals[name][1]}
            for name, value in evaluation.scores.items()
        },
        "distinct": evaluation.distinct,
        # An epoch that was stopped and resumed counts from the resumption only: the median passes over it.
        "seconds": {"median": statistics.median(seconds), "least": min(seconds), "most": max(seconds)},
        "loss": [line["loss"] for line in log],
        "gradient_norm": [line["gradient_norm"] for line in log],
        "BLEU-4": [line["val"]["BLEU-4"] for line in log],
    }


def start_of(plan: Plan, seed: int) -> CaptionModel:
    """The very network that train.py starts from, before its first step."""
    torch.manual_seed(seed)
    return plan.model().eval()


def look_back(decoder: Decoder, features: Tensor, captions: dict[int, Captions]) -> dict[str, Any]:
    """All that is measured of the way back through a decoder's recurrence."""
    return {
        **reach(decoder, features, captions),
        "kept": kept_share(decoder, features, captions),
        "radius": spectral_radius(decoder) if decoder.options.cell == "rnn" else None,
    }


def by_radius(plan: Plan, features: Tensor, captions: dict[int, Captions], seed: int) -> list[dict[str, Any]]:
    """The way back through a plain RNN before training, its recurrent matrix scaled to each spectral radius."""
    entries = []
    for radius in RADII:
        decoder = start_of(plan, seed).decoder
        scale_recurrence(decoder, radius)
        entries.append({"radius": radius, **reach(decoder, features, captions)})
    return entries


def by_clipping(
    plan: Plan, images: Sequence[CaptionedImage], features: Tensor, steps: int, seed: int
) -> list[dict[str, Any]]:
    """Short trainings of the plain RNN in every setting with every way of clipping: loss and norm of each step."""
    encoded = encode_captions(images, plan.vocabulary, max_words=plan.options.training.max_words)
    runs = []
    for setting, optimizer, learning_rate, radius in CLIPPING:
        for clip_norm in CLIP_NORMS:
            decoder = start_of(plan, seed).decoder
            if radius is not None:
                scale_recurrence(decoder, radius)
            taken = training_steps(
                decoder,
                features,
                encoded,
                optimizer(decoder.parameters(), lr=learning_rate),
                clip_norm=clip_norm,
                steps=steps,
                batch_size=CLIPPING_BATCH,
                seed=seed,
            )
            losses, norms = zip(*taken, strict=True)
            print(f"{setting}, clip norm {clip_norm:g}: largest norm {max(norms):.3g}, last loss {losses[-1]:.3g}")
            runs.append({"setting": setting, "clip_norm": clip_norm, "loss": losses, "norm": norms})
    return runs


def differences(evaluations: dict[tuple[str, str], Evaluation]) -> list[dict[str, Any]]:
    """Cells against each other under the same attention, and attention against none: paired over the images."""
    pairs = [((one, kind), (other, kind)) for kind in ATTENTIONS for other, one in combinations(CELLS, 2)]
    pairs += [((cell, "dot"), (cell, "none")) for cell in CELLS]
    return [
        {
            "ours": "-".join(ours),
            "theirs": "-".join(theirs),
            **{
                difference.name: {
                    "difference": difference.ours - difference.theirs,
                    "low": difference.low,
                    "high": difference.high,
                }
                for difference in compare(evaluations[ours], evaluations[theirs], resamples=RESAMPLES)
            },
        }
        for ours, theirs in pairs
    ]


def measure(data: Dataset, chosen: argparse.Namespace) -> dict[str, Any]:
    """Trains what is not trained yet and measures everything."""
    base = Plan.new(data, {}, output=chosen.output / "none", device="cpu")
    vocabulary = base.vocabulary
    channels = base.model().encoder.channels
    budget: dict[str, int] = {"channels": channels, "vocabulary_size": len(vocabulary)}
    decoders = {
        (cell, attention): fit_hidden_size(cell, attention, chosen.budget, **budget)
        for attention in ATTENTIONS
        for cell in CELLS
    }
    for name, options in decoders.items():
        print(f"{'-'.join(name)}: hidden size {options.hidden_size}, {parameters(options, **budget):,} parameters")
    folders = {name: chosen.output / "-".join(name) for name in decoders}
    for name, options in decoders.items():
        train(chosen.data, options, folders[name], chosen)

    def cached(model: CaptionModel, split: str, precision: str) -> Tensor:
        places = {"folder": chosen.features, "workers": base.options.training.workers, "telling": OUT}
        return cached_features(model, data.split(split), precision=precision, **places)

    images = data.split("val")
    captions = captions_by_length(
        encode_captions(images, vocabulary, max_words=max(LENGTHS)), LENGTHS, most=CAPTIONS_A_LENGTH, seed=chosen.seed
    )
    models, evaluations = [], {}
    for name, options in decoders.items():
        plan = replace(base, options=replace(base.options, decoder=options))
        start = start_of(plan, chosen.seed)
        file = load_model(folders[name] / "best.safetensors")
        features = cached(file.model, "val", "float32")  # as `evaluate` does
        evaluations[name] = score(file, images, features)
        stages = {"start": start.decoder, "trained": file.model.decoder}
        found = describe(file, folders[name], evaluations[name])
        models.append(found | {"reach": {stage: look_back(it, features, captions) for stage, it in stages.items()}})
        if name == ("rnn", "none"):
            radius = by_radius(plan, features, captions, chosen.seed)
            learnt = cached(file.model, "train", plan.options.training.precision)  # the file that train.py made
            clipping = by_clipping(plan, data.split("train"), learnt, chosen.clipping_steps, chosen.seed)
    return {
        "pictures": {split: len(data.split(split)) for split in ("train", "val")},
        "vocabulary": len(vocabulary),
        "budget": chosen.budget,
        "epochs": chosen.epochs,
        "seed": chosen.seed,
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "captions": {words: len(group.images) for words, group in captions.items()},
        "models": models,
        "differences": differences(evaluations),
        "radius": radius,
        "clipping": clipping,
    }


def rounded(value: Any) -> Any:
    """The same values with every float cut to five significant digits, so that the file stays readable."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def main() -> None:
    """Measures, then writes the results, the tables and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DATA", help="the folder of a data set (see data/README.md)")
    parser.add_argument("--epochs", type=int, default=12, help="for each run (default: %(default)s)")
    parser.add_argument("--budget", type=int, default=4_000_000, help="parameters of a decoder (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of everything random (default: %(default)s)")
    parser.add_argument("--clipping-steps", type=int, default=100, help="of the short trainings (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("runs/recurrent-cells"))
    parser.add_argument("--features", type=Path, default=Path("runs/features"), help="train.py's --features")
    parser.add_argument("--figures", type=Path, help="folder of figures and tables (default: figures in --output)")
    chosen = parser.parse_args()
    from benchmarks.recurrent_figures import write_all  # before hours of training: is matplotlib there?

    results = json.loads(json.dumps(rounded(measure(load_dataset(chosen.data), chosen))))
    write_atomically(chosen.output / "results.json", lambda part: part.write_text(json.dumps(results, indent=1)))
    folder = chosen.figures or chosen.output / "figures"
    write_all(results, folder)
    print((folder / "tables.md").read_text(encoding="utf-8"), end="")
    print(f"Figures are in {os.path.relpath(folder)}, all numbers in {os.path.relpath(chosen.output)}/results.json.")


if __name__ == "__main__":
    main()
