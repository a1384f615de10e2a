"""How fast is it, beside what people use and beside what the machine can do? Prints tables and writes JSON.

    python benchmarks/speed.py [--only search ...] [--photos FOLDER] [--device auto] [--threads N] [--json FILE]

Every figure is measured in one run with its reference, by turns, and the fastest round counts, since machines are
noisy. References: the tutorials' attention decoder with its loop over images (benchmarks/peers.py). Limits: the rate of
multiplying large matrices and of copying memory, measured in the same run.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.peers import InTheirLoop, Sizes, TutorialDecoder, Writer, caption_alone
from captioner.checkpoint import load_model, model_path
from captioner.decoder import Decoder
from captioner.device import autocast, pick_device
from captioner.options import DecoderOptions, SearchOptions
from captioner.search import search
from captioner.text import END, PAD, START, UNKNOWN

WORDS = 11
"""Words of every caption: ends are made impossible, so that both sides write as much."""

PRECISIONS = ("float32", "bfloat16")

Row = dict[str, Any]


def fastest(work: Mapping[Any, Callable[[], Any]], device: torch.device, rounds: int) -> dict[Any, float]:
    """Seconds of each piece of work, by turns; the first round only warms up."""
    best: dict[Any, float] = {}
    for number in range(rounds + 1):
        for name, piece in work.items():
            started = time.perf_counter()
            piece()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds = time.perf_counter() - started
            if number:
                best[name] = min(seconds, best.get(name, seconds))
    return best


def limits(device: torch.device, rounds: int) -> dict[str, float]:
    """What the machine can do: 10^9 floating-point operations a second in each precision, and 10^9 bytes copied."""
    side = 4096 if device.type == "cuda" else 1024
    sides = {name: torch.randn(side, side, device=device, dtype=getattr(torch, name)) for name in PRECISIONS}
    large = torch.empty(2**26, device=device)
    target = torch.empty_like(large)
    work: dict[str, Callable[[], Any]] = {name: lambda matrix=matrix: matrix @ matrix for name, matrix in sides.items()}  # type: ignore[misc]
    work["copy"] = lambda: target.copy_(large)
    seconds = fastest(work, device, 5 * rounds)
    found = {name: 2 * side**3 / seconds[name] / 1e9 for name in PRECISIONS}
    return {**found, "copy": 2 * large.nbytes / seconds["copy"] / 1e9}


# --- search ----------------------------------------------------------------------------------------------------


def together(decoder: Decoder, features: Tensor, beam_size: int) -> None:
    """Our search, for all images (B, R, C) at once."""
    with torch.inference_mode():
        memory = decoder.read(features)
        search(
            lambda tokens, state: decoder.step(tokens, state, memory),
            decoder.start(memory),
            start=START,
            end=END,
            never=(PAD, START, UNKNOWN),
            options=SearchOptions(beam_size=beam_size, max_length=WORDS),
        )


def operations(work: Callable[[], Any], device: torch.device) -> float:
    """Floating-point operations of its matrix products, counted in float32."""
    with torch.autocast(device.type, enabled=False), FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def measure_search(device: torch.device, rounds: int, machine: dict[str, float]) -> list[Row]:
    """Captions a second: one decoder in both loops, and then what a user gains."""
    sizes = Sizes()
    torch.manual_seed(0)
    tutorial = TutorialDecoder(sizes).to(device).eval()
    like = DecoderOptions(attention="additive", heads=1)
    same = Decoder(like, channels=sizes.channels, vocabulary_size=sizes.vocabulary).to(device).eval()
    fast = load_model(model_path("fast"), device).model
    for output in (tutorial.output, same.output, fast.decoder.output):
        torch.nn.init.constant_(output.bias[END : END + 1], -1e4)
    rows = []
    cases: list[tuple[str, Decoder, tuple[int, int], Writer]] = [
        ("one decoder, two loops", same, (196, sizes.channels), InTheirLoop(same)),
        ("the bundled fast, and theirs", fast.decoder, (fast.encoder.grid[0] ** 2, fast.encoder.channels), tutorial),
    ]
    for what, decoder, shape, theirs in cases:
        for precision in PRECISIONS:
            for beam in (1, 3, 5):
                with autocast(precision, device):
                    alone = torch.rand(196, sizes.channels, device=device)
                    work: dict[Any, Callable[[], Any]] = {
                        "theirs": lambda theirs=theirs, beam=beam, alone=alone: caption_alone(  # type: ignore[misc]
                            theirs, alone, start=START, end=END, beam_size=beam, max_length=WORDS
                        )
                    }
                    for batch in (1, 16, 64):
                        features = torch.rand(batch, *shape, device=device)
                        work[batch] = lambda decoder=decoder, features=features, beam=beam: together(  # type: ignore[misc]
                            decoder, features, beam
                        )
                    seconds = fastest(work, device, rounds)
                    for batch in (1, 16, 64):
                        rate = batch / seconds[batch]
                        counted = operations(work[batch], device) / seconds[batch] / 1e9
                        rows.append(
                            {
                                "what": what,
                                "precision": precision,
                                "beam": beam,
                                "batch": batch,
                                "captions/s": rate,
                                "theirs": 1 / seconds["theirs"],
                                "ratio": rate * seconds["theirs"],
                                "of the limit": counted / machine[precision],
                            }
                        )
    return rows


# --- the whole -------------------------------------------------------------------------------------------------

SECTIONS: dict[str, Callable[[torch.device, int, dict[str, float]], list[Row]]] = {"search": measure_search}


def table(rows: list[Row]) -> str:
    """Rows of one section as a Markdown table."""
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([_shown(row[name]) for name in head] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shown(value: Any) -> str:
    return (
        f"{value:.3g}"
        if isinstance(value, float) and value < 100
        else f"{value:.0f}"
        if isinstance(value, float)
        else str(value)
    )


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, help="of torch on a CPU; default: torch's own choice")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    device = pick_device(chosen.device)
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    place = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU"
    machine = limits(device, chosen.rounds)
    about = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": place,
        "threads": torch.get_num_threads(),
        "limits": machine,
    }
    print(f"torch {torch.__version__} on {place}, {torch.get_num_threads()} threads")
    print(f"limits: {machine['float32']:.0f} GFLOP/s in float32, {machine['bfloat16']:.0f} in bfloat16, ", end="")
    print(f"{machine['copy']:.1f} GB/s copied")
    results = {}
    for name in chosen.only:
        results[name] = SECTIONS[name](device, chosen.rounds, machine)
        print(f"\n## {name}\n\n{table(results[name])}", flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps({"about": about, **results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
