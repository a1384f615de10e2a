"""What the sections share: rounds that take turns, the machine's own limits, and memory of a process."""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

PRECISIONS = ("float32", "bfloat16")

Row = dict[str, Any]
"""One line of a table."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Setting:
    """What a section measures with."""

    device: torch.device
    rounds: int
    photos: tuple[Path, ...]
    limits: Mapping[str, float] = field(default_factory=dict)
    """As `limits` gives them."""


def dtype(precision: str) -> torch.dtype:
    """torch's name for it."""
    found = getattr(torch, precision)
    assert isinstance(found, torch.dtype)
    return found


def fastest(work: Mapping[Any, Callable[[], Any]], device: torch.device, rounds: int) -> dict[Any, float]:
    """Seconds of each piece of work, by turns; the first round only warms up, and the fastest of the others counts."""
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
    sides = {name: torch.randn(side, side, device=device, dtype=dtype(name)) for name in PRECISIONS}
    large = torch.empty(2**26, device=device)
    target = torch.empty_like(large)
    work: dict[str, Callable[[], Any]] = {name: lambda matrix=matrix: matrix @ matrix for name, matrix in sides.items()}  # type: ignore[misc]
    work["copy"] = lambda: target.copy_(large)
    seconds = fastest(work, device, 5 * rounds)
    found = {name: 2 * side**3 / seconds[name] / 1e9 for name in PRECISIONS}
    return {**found, "copy": 2 * large.nbytes / seconds["copy"] / 1e9}


def operations(work: Callable[[], Any]) -> float:
    """Floating-point operations of its matrix products and convolutions."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def apart(function: Callable[..., Result], *arguments: Any) -> Result:
    """What the function returns in a process of its own, whose memory nobody else has touched."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def forget_peak(device: torch.device) -> None:
    """`memory` counts from here on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def memory(device: torch.device) -> float:
    """The most memory that this process has had, in 10^6 bytes; on a GPU, that torch has had there."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if sys.platform == "linux":  # where what getrusage says is inherited from the parent
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
