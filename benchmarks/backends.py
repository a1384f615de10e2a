"""torch beside ONNX Runtime: one photo from a cold process, and a folder. Prints a table.

    python -m benchmarks.backends PHOTOS [--model fast] [--rounds 3] [--threads 1]

The backends take turns, both in float32, and the fastest round of each counts. The processor's time is that of all
threads; on a machine with other work to do it says more than the wall clock.
"""

import argparse
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from captioner.options import MODELS
from captioner.pictures import find_images

BACKENDS = ("torch", "onnx")
PHOTOS = 80


def cold(backend: str, model: str, photo: Path, threads: int) -> dict[str, float]:
    """`caption photo` in a process of its own: seconds of the clock and the processor, and megabytes at most."""
    command = [sys.executable, "-m", "captioner", "caption", str(photo), "--model", model]
    command += ["--backend", backend, "--precision", "float32"]
    if hasattr(os, "sched_setaffinity"):  # as many cores as threads, for either backend
        cores = sorted(os.sched_getaffinity(0))[:threads]
        command = ["taskset", "-c", ",".join(map(str, cores)), *command]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    megabytes = used.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return {
        "seconds": time.perf_counter() - began,
        "processor": used.ru_utime + used.ru_stime,
        "megabytes": megabytes,
    }


def folder(backend: str, model: str, photos: list[Path], rounds: int, threads: int) -> dict[str, float]:
    """Photos a second of the clock and the processor by `Captioner.stream`, after a first batch, in this process."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    if backend == "torch":
        import torch

        torch.set_num_threads(threads)
    from captioner import Captioner

    captioner = Captioner.load(model, "cpu", backend=backend, precision="float32")
    captioner(list(photos[:16]))
    best = {"photos/s": 0.0, "photos/s of the processor": 0.0}
    for _ in range(rounds):
        began, used = time.perf_counter(), time.process_time()
        captioner(list(photos))
        seconds, processor = time.perf_counter() - began, time.process_time() - used
        best["photos/s"] = max(best["photos/s"], len(photos) / seconds)
        best["photos/s of the processor"] = max(best["photos/s of the processor"], len(photos) / processor)
    best["megabytes of the folder"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return best


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.backends", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", choices=MODELS, default="fast")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    photos = find_images(chosen.photos)[:PHOTOS]
    found: dict[str, dict[str, float]] = {backend: {} for backend in BACKENDS}
    for _ in range(chosen.rounds):
        for backend in BACKENDS:
            for name, value in cold(backend, chosen.model, photos[0], chosen.threads).items():
                found[backend][name] = min(value, found[backend].get(name, value))
    for backend in BACKENDS:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            asked = pool.submit(folder, backend, chosen.model, photos, chosen.rounds, chosen.threads)
            found[backend] |= asked.result()
    print(f"| `{chosen.model}` | torch | onnx | onnx of torch |\n| --- | --- | --- | --- |")
    for name in found["torch"]:
        theirs, ours = (found[backend][name] for backend in BACKENDS)
        print(f"| {name} | {theirs:.3g} | {ours:.3g} | {ours / theirs:.2f} |")


if __name__ == "__main__":
    main()
