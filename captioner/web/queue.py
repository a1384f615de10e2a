"""The one queue to the models, which the page and the API share.

Promises: pictures that arrive together go through the network together; one that is alone waits for company WAIT
seconds at most; nobody's broken picture costs another its caption; a full queue says so at once. It knows captioners,
and nothing of pages and requests.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from captioner.captions import Caption
from captioner.device import prepare
from captioner.errors import BusyError, CaptionerError
from captioner.options import SearchOptions
from captioner.predictor import BATCH, Captioner, Explanation

WAIT = 0.01
"""Longest time, in seconds, that a picture waits for others to come."""

CAPACITY = 256
"""Most pictures that wait: 0.3 MB each, and seconds to minutes of work. More would time out before their turn."""


@dataclass(frozen=True, eq=False)
class _Job:
    captioner: Captioner
    pixels: Tensor
    search: SearchOptions
    explain: bool
    progress: Callable[[str], None] | None
    arrival: float = field(default_factory=time.monotonic)
    answer: "Future[Any]" = field(default_factory=Future)

    def goes_with(self, other: "_Job") -> bool:
        """One pass of one network can serve both."""
        return self.captioner is other.captioner and self.search == other.search and not (self.explain or other.explain)


@dataclass
class Counts:
    """What a queue has done since it began."""

    pictures: int = 0
    batches: int = 0
    failures: int = 0
    refusals: int = 0
    seconds: float = 0.0
    """Time that the models worked."""


def load_models(models: Iterable[str], device: str = "auto", precision: str = "auto") -> dict[str, Captioner]:
    """The captioners by the names that visitors see; errors as `Captioner.load` raises them.

    They are loaded in a thread that ends. OpenMP gives each thread that computes helpers of its own, and while there
    are more of them all than cores, they sleep between their tasks: a photo took 59 ms in place of 28 (measured, two
    cores). The one thread that computes from here on is the queue's.
    """
    prepare(device)  # before there are threads with memory of their own
    with ThreadPoolExecutor(1) as pool:
        return dict(
            pool.map(lambda model: (Path(model).name, Captioner.load(model, device, precision=precision)), models)
        )


class ModelQueue:
    """Pictures in, futures of captions out; one thread works them off. Threads may share it."""

    def __init__(
        self,
        *,
        batch: int = BATCH,
        wait: float = WAIT,
        capacity: int = CAPACITY,
        warm: Iterable[Captioner] = (),
    ) -> None:
        """`batch`: most pictures that go through a network together; 1 turns batching off.

        `warm`: models that caption an empty picture before anybody asks, since a first caption takes twice as long.
        """
        self.batch, self.wait, self.capacity, self.warm = batch, wait, capacity, tuple(warm)
        self.counts = Counts()
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="captioner queue", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many pictures wait."""
        return len(self._jobs)

    @property
    def closed(self) -> bool:
        """No more pictures are taken: whoever works beside the queue should end, too."""
        return self._closed

    def caption(self, captioner: Captioner, pixels: Tensor, search: SearchOptions) -> "Future[Caption]":
        """A picture that `captioner.read` prepared. Raises BusyError where the queue is full."""
        return self._add(_Job(captioner, pixels, search, explain=False, progress=None))

    def explain(
        self,
        captioner: Captioner,
        pixels: Tensor,
        search: SearchOptions,
        progress: Callable[[str], None] | None = None,
    ) -> "Future[Explanation]":
        """The same, for `captioner.explain_pixels`; `progress` is called from the queue's thread."""
        return self._add(_Job(captioner, pixels, search, explain=True, progress=progress))

    def close(self) -> None:
        """Ends the thread after its present work; what still waits is cancelled."""
        with self._changed:
            self._closed = True
            for job in self._jobs:
                job.answer.cancel()
            self._jobs.clear()
            self._changed.notify_all()
        self._thread.join()

    def _add(self, job: _Job) -> "Future[Any]":
        with self._changed:
            if self._closed or len(self._jobs) >= self.capacity:
                self.counts.refusals += 1
                raise BusyError(f"{len(self._jobs)} pictures are waiting already: try again in a moment.")
            self._jobs.append(job)
            self._changed.notify_all()
        return job.answer

    def _work(self) -> None:
        for captioner in self.warm:
            if not self._closed:
                with contextlib.suppress(Exception):  # whoever asks will be told
                    captioner(Image.new("RGB", (1, 1)))
        while jobs := self._next():
            jobs = [job for job in jobs if job.answer.set_running_or_notify_cancel()]
            began = time.perf_counter()
            if jobs:
                self.counts.batches += 1
                self.counts.pictures += len(jobs)
                _answer(jobs)
                self.counts.failures += sum(job.answer.exception() is not None for job in jobs)
            self.counts.seconds += time.perf_counter() - began

    def _next(self) -> list[_Job]:
        """The next jobs that go together, once it is their time; none where the queue was closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            while self._jobs:
                first = self._jobs[0]
                together = [job for job in self._jobs if job is first or job.goes_with(first)][: self.batch]
                left = first.arrival + self.wait - time.monotonic()
                if first.explain or len(together) == self.batch or left <= 0:
                    self._jobs = deque(job for job in self._jobs if job not in together)
                    return together
                self._changed.wait(left)
            return []


def _answer(jobs: list[_Job]) -> None:
    """Sets the answer of each job, or what went wrong with it."""
    first = jobs[0]
    try:
        if first.explain:
            explanation = first.captioner.explain_pixels(first.pixels, search=first.search, progress=first.progress)
            first.answer.set_result(explanation)
        else:
            pixels = [job.pixels for job in jobs]
            for job, caption in zip(jobs, first.captioner.caption_pixels(pixels, search=first.search), strict=True):
                job.answer.set_result(caption)
    except CaptionerError as error:
        if len(jobs) == 1:
            first.answer.set_exception(error)
        else:  # it may be one picture's fault: each on its own
            for job in jobs:
                _answer([job])
    except Exception as error:  # a fault of ours: whoever asked is told, and the thread goes on
        for job in jobs:
            job.answer.set_exception(error)
