"""`bulk` beside `caption FOLDER` on one machine, by turns; its memory; and whether a killed run loses a photo.

    python -m benchmarks.bulk [--files 2000] [--model fast] [--rounds 2] [--kills 3] [--memory 50000]

The files are small JPEGs, made for it: copies of a few drawn ones, each with a name of its own. Printed are photos a
second of each command without its start (a run over a few photos, taken off), the ratio of each round, and the most
memory that all processes of `bulk` had together in each tenth of a run over `--memory` files (shared pages are divided
among those that share them). With `--kills` a run is killed so often with SIGKILL, driver and all, then ends by itself;
then every file must have one row. 0 leaves a section out.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as parquet

from benchmarks.speed.folder import draw
from captioner.options import MODELS

FEW = 16
"""Photos of the run that only starts and ends."""

SIDE = 320
"""Pixels of the longer side of the files."""


def fill(folder: Path, count: int) -> Path:
    """Makes `count` JPEG files there, links to a few real ones and no more on the disk than those."""
    from PIL import Image

    originals = folder.parent / "originals"
    if not originals.is_dir():
        originals.mkdir()
        for path in draw(originals).iterdir():
            with Image.open(path) as picture:
                picture.thumbnail((SIDE, SIDE))
                picture.save(path, quality=85)
    sources = sorted(originals.iterdir())
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:07}.jpg").hardlink_to(sources[number % len(sources)])
    return folder


def command(name: str, photos: Path, output: Path, model: str) -> list[str]:
    """`caption` or `bulk`, as a user gives it."""
    return [sys.executable, "-m", "captioner", name, str(photos), "--model", model, "--output", str(output)]


def seconds(arguments: Sequence[str]) -> float:
    """How long a command takes."""
    began = time.perf_counter()
    subprocess.run(arguments, check=True, capture_output=True)
    return time.perf_counter() - began


def compare(home: Path, files: int, model: str, rounds: int) -> None:
    """Prints photos a second of both, and the ratio of each round."""
    few, many = fill(home / "few", FEW), fill(home / "many", files)
    for number in range(rounds):
        rates = {}
        for name in ("caption", "bulk"):
            start = seconds(command(name, few, home / f"{name}-few-{number}", model))
            whole = seconds(command(name, many, home / f"{name}-{number}", model))
            rates[name] = (files - FEW) / (whole - start)
            print(f"{name:8} {rates[name]:6.1f} photos a second, started and ended in {start:.0f} s", flush=True)
        print(f"bulk / caption: {rates['bulk'] / rates['caption']:.2f}", flush=True)


def family(pid: int) -> Iterator[int]:
    """A process and all that descend from it."""
    yield pid
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from family(int(child))


def memory_of(pid: int) -> float:
    """What a process and its descendants have in memory, in 10^9 bytes; shared pages count once."""
    total = 0
    for one in family(pid):
        with suppress(OSError, StopIteration):
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            total += int(next(line.split()[1] for line in lines if line.startswith("Pss:")))
    return total * 1024 / 1e9


def watch(home: Path, files: int, model: str) -> None:
    """Prints how much memory a run had, tenth by tenth."""
    photos = fill(home / "long", files)
    process = subprocess.Popen(
        command("bulk", photos, home / "long-out", model), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    seen = []
    while process.poll() is None:
        seen.append(memory_of(process.pid))
        time.sleep(1)
    assert process.stderr is not None
    print(process.stderr.read().splitlines()[-1])
    parts = [max(seen[len(seen) * tenth // 10 : max(len(seen) * (tenth + 1) // 10, 1)] or [0.0]) for tenth in range(10)]
    print(f"most memory of each tenth of {files:,} files: {' '.join(f'{part:.2f}' for part in parts)} GB", flush=True)


def kill(home: Path, files: int, model: str, kills: int) -> None:
    """Kills a run again and again, lets it end, and says whether each file has one row."""
    photos, output = fill(home / "killed", files), home / "killed-out"
    arguments = command("bulk", photos, output, model)
    chance = random.Random(1)
    for _ in range(kills):
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = len(list(output.glob("part-*")))
        while process.poll() is None and len(list(output.glob("part-*"))) == before:
            time.sleep(0.5)
        time.sleep(chance.uniform(0, 20))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        rows = sum(parquet.read_metadata(part).num_rows for part in output.glob("part-*"))
        print(f"killed with {rows:,} rows written", flush=True)
    subprocess.run(arguments, check=True)
    found = Counter(parquet.read_table(output, columns=["path"])["path"].to_pylist())
    once = found == Counter(map(str, photos.iterdir()))
    print(f"{files:,} files, killed {kills} times: {'each has one row' if once else 'ROWS ARE MISSING OR DOUBLE'}")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000, help="of the comparison, and of the run that is killed")
    parser.add_argument("--model", default="fast", help=f"{' or '.join(MODELS)}, or a model file")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--memory", type=int, default=50_000, metavar="FILES")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if chosen.rounds:
            compare(home, chosen.files, chosen.model, chosen.rounds)
        if chosen.kills:
            kill(home, chosen.files, chosen.model, chosen.kills)
        if chosen.memory:
            watch(home, chosen.memory, chosen.model)


if __name__ == "__main__":
    main()
