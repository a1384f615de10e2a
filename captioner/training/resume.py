"""Stopping and going on: signals that ask for a stop, and what a run needs to continue as if it never had."""

import hashlib
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from captioner.datasets.dataset import Dataset
from captioner.text import TOKENISER


class StopRequest:
    """Whether someone asked for a stop. Truthy once asked."""

    def __init__(self) -> None:
        self.asked = False

    def __bool__(self) -> bool:
        return self.asked


@contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turns the first Ctrl-C (or SIGTERM) into a request, so that a step is finished and saved; a second one kills."""
    request = StopRequest()
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, _: FrameType | None) -> None:
        request.asked = True
        signal.signal(number, previous[signal.Signals(number)])

    for number in previous:
        signal.signal(number, ask)
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def random_states() -> dict[str, Any]:
    """The states of torch's random generators, for a resume file."""
    states: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_random_states(states: dict[str, Any]) -> None:
    """Puts the generators back to where `random_states` found them."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])


def fingerprint(data: Dataset) -> str:
    """A hash of the names and captions of the training and validation splits, and of the rules that make tokens."""
    digest = hashlib.sha256(TOKENISER.encode())
    for split in ("train", "val"):
        for image in data.split(split):
            digest.update(repr((split, image.name, image.captions)).encode())
    return digest.hexdigest()
