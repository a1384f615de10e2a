"""Every cell with every attention on the drawn shapes: the same pictures, encoder, sizes and epochs for all nine.

    python -m benchmarks.cells [--epochs 8] [--output runs/cells]

Each run is the real `train.py shapes`; the table is made from what the runs wrote, so a second call goes on where the
first was stopped. Scores are of the best epoch on the 500 validation drawings.
"""

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from captioner.captioner import Captioner
from captioner.datasets.shapes import load_shapes
from captioner.options import ATTENTIONS, CELLS


def exact_by_count(path: Path) -> dict[int, float]:
    """Percentage of validation drawings captioned exactly, by the number of shapes in them."""
    captioner = Captioner.load(path, "cpu", precision="float32")
    images = load_shapes().split("val")
    hits: dict[int, list[bool]] = defaultdict(list)
    for image, caption in zip(images, captioner([image.source for image in images]), strict=True):
        reference = image.captions[0]
        hits[reference.count(" and ") + 1].append(caption.text.lower() == reference)
    return {count: 100 * sum(found) / len(found) for count, found in sorted(hits.items())}


def main() -> None:
    """Trains what is not trained yet, then prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", default="8")
    parser.add_argument("--output", type=Path, default=Path("runs/cells"))
    chosen = parser.parse_args()
    rows = []
    for attention in ATTENTIONS:
        for cell in CELLS:
            output = chosen.output / f"{cell}-{attention}"
            command = [sys.executable, "-m", "captioner", "train", "shapes", "--output", str(output)]
            command += ["--cell", cell, "--attention", attention, "--epochs", chosen.epochs, "--patience", "99"]
            if (output / "resume.pt").exists():
                command.append("--resume")
            subprocess.run([*command, "--beam-size", "3", "--length-penalty", "0"], check=True)
            log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
            best = max(log, key=lambda line: line["val"]["BLEU-4"])
            rows.append((cell, attention, best["val"], exact_by_count(output / "best.safetensors")))
    print("| cell | attention | BLEU-4 | exact | 1 shape | 2 | 3 | 4 |")
    print("|---|---|---|---|---|---|---|---|")
    for cell, attention, scores, counts in rows:
        exact = " | ".join(f"{counts[count]:.0f}%" for count in (1, 2, 3, 4))
        print(f"| {cell} | {attention} | {scores['BLEU-4']:.1f} | {scores['exact']:.1f}% | {exact} |")


if __name__ == "__main__":
    main()
