"""Seconds until there is something: the commands beside importing torch, and the page's first caption."""

import base64
import json
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, Setting, fastest

IMPORT = [sys.executable, "-c", "import torch, torchvision"]


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _page(photo: Path, device: str) -> tuple[float, float]:
    """Seconds of the first caption that a fresh server writes, and the median of the next ten."""
    command = [sys.executable, "app.py", "--port", "0", "--device", device]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        address = next(word for word in server.stdout.readline().split() if word.startswith("http"))
        url = f"{address}/api/caption"
        body = json.dumps({"images": [base64.b64encode(photo.read_bytes()).decode()]}).encode()
        times = []
        for _ in range(11):
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            began = time.perf_counter()
            with urllib.request.urlopen(request) as answer:
                answer.read()
            times.append(time.perf_counter() - began)
    finally:
        server.kill()
        server.wait()
    return times[0], statistics.median(times[1:])


def measure(setting: Setting) -> list[Row]:
    """The table."""
    photo, device = str(setting.photos[0]), str(setting.device)
    caption = [sys.executable, "-m", "captioner", "caption", photo, "--device", device]
    commands = {
        "import torch": [sys.executable, "-c", "import torch"],
        "import torch, torchvision": IMPORT,
        "caption one.jpg": caption,
        "caption one.jpg --model fast": [*caption, "--model", "fast"],
        "--help": [sys.executable, "-m", "captioner", "--help"],
    }
    work: dict[Any, Callable[[], Any]] = {
        name: lambda command=command: _run(command)  # type: ignore[misc]
        for name, command in commands.items()
    }
    seconds = fastest(work, setting.device, setting.rounds)
    imports = seconds["import torch, torchvision"]
    rows: list[Row] = [
        {"what": name, "seconds": seconds[name], "of the imports": seconds[name] / imports} for name in commands
    ]
    first, next_ones = map(min, zip(*(_page(setting.photos[0], device) for _ in range(3)), strict=True))
    rows.append({"what": "the page's first caption", "seconds": first, "of the imports": first / imports})
    rows.append({"what": "the page's later captions", "seconds": next_ones, "of the imports": next_ones / imports})
    return rows
