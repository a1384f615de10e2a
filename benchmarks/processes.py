"""Two processes of one thread each beside one process of two threads: pictures and captions a second, and memory.

    python -m benchmarks.processes DATA [--pictures 512] [--rounds 2]

An epoch on the first training pictures of DATA, 16 others to validate, in both kinds of stage: with the encoder frozen
and its features cached, and with the encoder learning. Each run
is `train.py` for one epoch; what is read of it is its log, so start, cache and validation are not in it. Settings take
turns, and the faster of their rounds counts. Memory is the most that a process had, added up over the processes.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from captioner.datasets import load_dataset

STAGES = {
    "features cached": ("--batch-size", "64"),
    "encoder learning": ("--batch-size", "32", "--fine-tune", "all"),
}
COMMON = (
    *("--encoder-weights", "bundled", "--epochs", "1", "--min-count", "2", "--precision", "float32"),
    *("--workers", "0", "--beam-size", "1", "--length-penalty", "0", "--rerank", "0"),
)
PROCESSES = (1, 2)


def small_copy(data: Path, folder: Path, pictures: int) -> int:
    """Writes a data set of links to the first training pictures of another one; how many captions are learnt."""
    dataset = load_dataset(data)
    chosen = [*dataset.split("train")[:pictures], *dataset.split("val")[:16]]
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption", "split"])
        for number, image in enumerate(chosen):
            if not isinstance(image.source, Path):
                raise SystemExit("the data set must be one of files")
            (folder / f"{number}{image.source.suffix}").symlink_to(image.source.resolve())
            rows.writerows((f"{number}{image.source.suffix}", caption, image.split) for caption in image.captions)
    return sum(len(image.captions) for image in chosen if image.split == "train")


def measure(data: Path, output: Path, stage: str, processes: int, features: Path) -> tuple[float, float]:
    """Seconds of the epoch's steps, and the most memory of its processes together in 10^6 bytes."""
    threads = {"OMP_NUM_THREADS": str(max(PROCESSES) // processes), "OMP_WAIT_POLICY": "PASSIVE"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(torchrun if processes > 1 else []), "train.py", str(data), *COMMON, *STAGES[stage]]
    command += ["--output", str(output), "--features", str(features), "--device", "cpu"]
    peaks: dict[int, float] = {}
    with subprocess.Popen(command, env=os.environ | threads, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as run:
        errors: list[bytes] = []
        reader = threading.Thread(target=lambda: errors.append(run.stderr.read() if run.stderr else b""))
        reader.start()
        while run.poll() is None:
            peaks |= {pid: peak for pid in _family(run.pid) if (peak := _peak(pid))}
            time.sleep(0.2)
        reader.join()
    if run.returncode:
        raise SystemExit(errors[0].decode(errors="replace"))
    if processes > 1:
        peaks.pop(run.pid, None)  # torchrun itself
    entry = json.loads((output / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return entry["seconds"]["train"], sum(peaks.values())


def _family(pid: int) -> list[int]:
    """A process and those that it started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        children = []
    return [pid, *map(int, children)]


def _peak(pid: int) -> float:
    """The most memory that a process has had, in 10^6 bytes; 0 where it ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0.0


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=2)
    chosen = parser.parse_args()
    found: dict[tuple[str, int], tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "data"
        data.mkdir()
        captions = small_copy(chosen.data, data, chosen.pictures)
        for _ in range(chosen.rounds):
            for stage in STAGES:
                for processes in PROCESSES:
                    output = folder / "run"
                    seconds, memory = measure(data, output, stage, processes, folder / "features")
                    best, most = found.get((stage, processes), (seconds, 0.0))
                    found[stage, processes] = (min(seconds, best), max(memory, most))
                    shutil.rmtree(output)
    load = os.getloadavg()[2]
    print(f"{chosen.pictures:,} pictures, {captions:,} captions, {os.cpu_count()} cores, load {load:.1f}\n")
    print("| stage | processes x threads | pictures a second | captions a second | memory |\n|---|---|---|---|---|")
    for (stage, processes), (seconds, memory) in found.items():
        rates = f"{chosen.pictures / seconds:,.1f} | {captions / seconds:,.0f}"
        print(f"| {stage} | {processes} x {max(PROCESSES) // processes} | {rates} | {memory:,.0f} MB |")


if __name__ == "__main__":
    main()
