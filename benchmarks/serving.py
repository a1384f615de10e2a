"""What batching brings under load: `POST /api/caption` with 32 clients at once, batching on against off, by turns.

    python -m benchmarks.serving PHOTOS [--model fast] [--clients 32] [--seconds 20] [--rounds 3] [--soak 5000]

PHOTOS is a folder of pictures. Two servers run, the whole application each, alike but for the most pictures that go
through the model together (16 and 1); the clients, processes of their own on the same machine, send one picture a
request and the next when the answer is there. Printed: requests a second, the median and the 95th percentile of the
answer's time, the ratio of each round, and a lone client's figures. `--soak` sends so many more to the first server and
prints how its memory grows.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import httpx

from captioner.options import MODELS
from captioner.pictures import find_images


class Load(NamedTuple):
    """What clients saw: answers a second, and seconds an answer took."""

    rate: float
    median: float
    slowest: float  # 95th percentile

    def __str__(self) -> str:
        return f"{self.rate:6.1f} /s   median {self.median:6.3f} s   95% within {self.slowest:6.3f} s"


def serve(model: str, batch: int) -> None:
    """The application on a free port, until it is killed."""
    from captioner.options import WebOptions
    from captioner.web.queue import ModelQueue, load_models
    from captioner.web.server import create_app, serve

    options = WebOptions(port=0)
    captioners = load_models([model])
    with closing(ModelQueue(batch=batch, warm=captioners.values())) as queue:
        serve(create_app(captioners, options, queue), options.host, options.port)


def start(model: str, batch: int) -> tuple[subprocess.Popen[str], str]:
    """A server as a process, and its address."""
    command = [sys.executable, "-m", "benchmarks.serving", "--serve", str(batch), "--model", model, "."]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().split()[3]


async def _clients(
    address: str, photos: list[bytes], clients: int, enough: Callable[[int, float], bool]
) -> list[float]:
    began, times = time.perf_counter(), list[float]()

    async def client(number: int, http: httpx.AsyncClient) -> None:
        sent = number
        while not enough(len(times), time.perf_counter() - began):
            asked = time.perf_counter()
            answer = await http.post("/api/caption", files={"files": ("a.jpg", photos[sent % len(photos)])})
            answer.raise_for_status()
            times.append(time.perf_counter() - asked)
            sent += clients

    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits) as http:
        await asyncio.gather(*(client(number, http) for number in range(clients)))
    return times


def load(address: str, photos: list[bytes], *, clients: int, seconds: float) -> Load:
    """So many clients for so long."""
    began = time.perf_counter()
    times = asyncio.run(_clients(address, photos, clients, lambda _, passed: passed > seconds))
    passed = time.perf_counter() - began
    return Load(len(times) / passed, statistics.median(times), statistics.quantiles(times, n=20)[-1])


def resident(process: subprocess.Popen[str]) -> float:
    """A process' memory in MB."""
    line = next(row for row in Path(f"/proc/{process.pid}/status").read_text().splitlines() if row.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", default="fast", choices=MODELS)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--soak", type=int, default=0)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.model, chosen.serve)
        return
    photos = [path.read_bytes() for path in find_images(chosen.photos)[:200]]
    servers = {f"batches of {batch}": start(chosen.model, batch) for batch in (16, 1)}
    try:
        for _, address in servers.values():  # warm
            load(address, photos, clients=4, seconds=3)
        for name, (_, address) in servers.items():
            print(f"one client, {name:14} {load(address, photos, clients=1, seconds=chosen.seconds / 2)}", flush=True)
        ratios = []
        for _ in range(chosen.rounds):
            found = {
                name: load(address, photos, clients=chosen.clients, seconds=chosen.seconds)
                for name, (_, address) in servers.items()
            }
            for name, one in found.items():
                print(f"{chosen.clients} clients, {name:14} {one}", flush=True)
            on, off = found.values()
            ratios.append(on.rate / off.rate)
        print(f"batching on / off: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
        process, address = next(iter(servers.values()))
        for tenth in range(10 if chosen.soak else 0):
            asyncio.run(_clients(address, photos, chosen.clients, lambda done, _: done >= chosen.soak // 10))
            print(f"after {(tenth + 1) * chosen.soak // 10:,} more requests: {resident(process):,.0f} MB", flush=True)
    finally:
        for process, _ in servers.values():
            process.kill()


if __name__ == "__main__":
    main()
