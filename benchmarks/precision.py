"""Does bfloat16 help training here? Pictures a second of a training step, in float32 and in bfloat16, in one run.

    python benchmarks/precision.py [--device cpu] [--steps 8]

Sizes are those of Flickr8k with MobileNetV2: 32 pictures of 224 pixels, five captions of 6 to 24 tokens each.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from captioner.device import autocast, pick_device, pick_precision
from captioner.model import CaptionModel, ModelOptions
from captioner.options import DecoderOptions, EncoderOptions, ImageOptions
from captioner.text import PAD
from captioner.training.likelihood import caption_loss

PICTURES, CAPTIONS, TOKENS, WORDS = 32, 5, 24, 2541


def pictures_a_second(model: CaptionModel, precision: str, device: torch.device, steps: int, *, frozen: bool) -> float:
    """Whole steps: forward, loss, backward, AdamW. The fastest counts, since these machines are noisy."""
    model.train()
    parameters = [*model.decoder.parameters(), *model.encoder.trainable(None if frozen else "all")]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    pixels = torch.randint(0, 256, (PICTURES, 3, 224, 224), dtype=torch.uint8, device=device)
    features = torch.rand(PICTURES, 49, model.encoder.channels, device=device)
    tokens = torch.randint(4, WORDS, (PICTURES, CAPTIONS, TOKENS), device=device)
    lengths = torch.randint(6, TOKENS + 1, (PICTURES, CAPTIONS, 1), device=device)
    tokens.masked_fill_(torch.arange(TOKENS, device=device) >= lengths, PAD)
    best = float("inf")
    for _ in range(steps):
        started = time.perf_counter()
        with autocast(precision, device):
            loss = caption_loss(model.decoder, features if frozen else model.encode(pixels), tokens, smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()  # waits for the device
        best = min(best, time.perf_counter() - started)
    return PICTURES / best


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=8)
    chosen = parser.parse_args()
    device = pick_device(chosen.device)
    print(f"torch {torch.__version__} on {device}, {torch.get_num_threads()} threads; ", end="")
    print(f"--precision auto takes {pick_precision('auto', device)} here")
    print("| step | float32 | bfloat16 | ratio |\n|---|---|---|---|")
    for cell in ("lstm", "gru", "rnn"):
        for frozen in (True, False) if cell == "lstm" else (True,):
            speeds = []
            for precision in ("float32", "bfloat16"):
                options = ModelOptions(ImageOptions(), EncoderOptions(), DecoderOptions(cell=cell), WORDS)
                model = CaptionModel(options).to(device)
                model.encoder.trusts_statistics = True
                speeds.append(pictures_a_second(model, precision, device, chosen.steps, frozen=frozen))
            name = f"{cell}, {'cached features' if frozen else 'everything learns'}"
            print(f"| {name} | {speeds[0]:.0f}/s | {speeds[1]:.0f}/s | {speeds[1] / speeds[0]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
