"""How fast is it, beside what people use and beside what the machine can do? Prints tables and writes JSON.

    python -m benchmarks.speed [--only search ...] [--photos FOLDER] [--device auto] [--threads N] [--json FILE]

Every figure is measured in one run with its reference, by turns, and the fastest round counts, since machines are
noisy. References: the tutorials' attention decoder with its loop over images (benchmarks/speed/peers.py), and where
`transformers` is installed its ViT encoder with a GPT-2 decoder, random weights. Limits: the rate of multiplying large
matrices and of copying memory, measured in the same run.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import Row, Setting, limits
from benchmarks.speed import folder, growth, search, start, training
from captioner.device import prepare
from captioner.pictures import find_images

SECTIONS: dict[str, Callable[[Setting], list[Row]]] = {
    "search": search.measure,
    "folder": folder.measure,
    "training": training.measure,
    "start": start.measure,
    "growth": growth.measure,
}


def table(rows: list[Row]) -> str:
    """Rows of one section as a Markdown table."""
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([_shown(row[name]) for name in head] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return str(value)


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--photos", type=Path, help="a folder of pictures; default: drawn ones of 640 x 480")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="of torch on a CPU; default: torch's own choice")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    device = prepare(chosen.device)  # as training and captioning do
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    with tempfile.TemporaryDirectory() as place:
        photos = chosen.photos or folder.draw(Path(place))
        setting = Setting(
            device, chosen.rounds, tuple(find_images(photos)[: folder.PHOTOS]), limits(device, chosen.rounds)
        )
        about = {
            "command": " ".join([parser.prog, *sys.argv[1:]]),
            "machine": _machine(device),
            "threads": torch.get_num_threads(),
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in ("torch", "torchvision", "pillow")},
            },
            "limits": setting.limits,
        }
        print(f"{about['machine']}; {about['threads']} threads; {about['versions']}")
        print(f"Limits, GFLOP/s and GB/s: {setting.limits}")
        results = {}
        for name in chosen.only:
            results[name] = SECTIONS[name](setting)
            print(f"\n## {name}\n\n{table(results[name])}", flush=True)
            if chosen.json:
                chosen.json.write_text(json.dumps({"about": about, **results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
