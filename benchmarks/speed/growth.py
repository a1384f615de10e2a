"""How time and memory grow: with pictures, beam width, vocabulary, caption length and features."""

import math
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.measure import Row, Setting, apart, fastest, forget_peak, memory
from benchmarks.speed.search import together, without_end
from captioner.decoder import Decoder
from captioner.options import DecoderOptions

USUAL = {"pictures": 16, "beam": 5, "vocabulary": 10_000, "words": 10, "features": 49}
"""Where the others stand while one grows. Pictures: of one batch."""

VALUES = {
    "pictures": (16, 32, 64, 128, 256),
    "beam": (2, 4, 8, 16, 32),
    "vocabulary": (2_500, 5_000, 10_000, 20_000, 40_000),
    "words": (5, 10, 20, 40, 80),
    "features": (49, 98, 196, 392, 784),
}

CHANNELS = 1280


def _work(values: dict[str, int], device: torch.device) -> Callable[[], None]:
    torch.manual_seed(0)
    decoder = Decoder(DecoderOptions(), channels=CHANNELS, vocabulary_size=values["vocabulary"]).to(device).eval()
    without_end(decoder.output)
    decoder.fuse()
    features = torch.rand(values["pictures"], values["features"], CHANNELS, device=device)
    return lambda: together(decoder, features, values["beam"], values["words"])


def _memory(values: dict[str, int], device: torch.device, threads: int) -> float:
    """What a search takes besides its decoder and features, in MB."""
    torch.set_num_threads(threads)
    _work({**USUAL, "pictures": 1, "beam": 1, "words": 1}, device)()  # whatever a first search loads
    work = _work(values, device)
    forget_peak(device)
    before = memory(device)
    work()
    return memory(device) - before


def exponent(values: tuple[int, ...], measured: list[float]) -> float:
    """The slope of the last doublings, log against log: 1 where it grows in proportion, 0 where not at all."""
    return math.log(measured[-1] / measured[-3]) / math.log(values[-1] / values[-3])


def measure(setting: Setting) -> list[Row]:
    """The table."""
    rows = []
    for name, values in VALUES.items():
        cases = {value: {**USUAL, name: value} for value in values}
        work: dict[Any, Callable[[], Any]] = {value: _work(case, setting.device) for value, case in cases.items()}
        seconds = fastest(work, setting.device, setting.rounds)
        times = [seconds[value] for value in values]
        used = [apart(_memory, case, setting.device, torch.get_num_threads()) for case in cases.values()]
        rows.append(
            {
                "what grows": name,
                "from, to": f"{values[0]:,}, {values[-1]:,}",
                "milliseconds": ", ".join(f"{1e3 * time:.0f}" for time in times),
                "time's exponent": exponent(values, times),
                "memory, MB": ", ".join(f"{one:.0f}" for one in used),
                "memory's exponent": exponent(values, [max(1.0, one) for one in used]),
            }
        )
    return rows
