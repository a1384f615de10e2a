"""The one queue to the models, which the page and the API share.

Promises: pictures that arrive together go through the network together; one that is alone goes at once, and waits only
where company is expected, WAIT seconds at most; nobody's broken picture costs another its caption; a full queue says so
at once, to the whole of a request or to nothing of it; whoever has been given least has the next turn, so that a lone
photo waits for one pass of others at most; a picture that nobody waits for any more leaves at once. It knows
captioners, and nothing of pages and requests.
"""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from captioner.captioner import BATCH, Captioner, prepare
from captioner.captions import Caption, Explanation
from captioner.errors import BusyError, CaptionerError, ModelFileError, OptionError
from captioner.options import MOST_WORK, SearchOptions
from captioner.pictures import Pixels

WAIT = 0.01
"""Longest time, in seconds, that a picture waits for others to come."""

CROWD = 1.0
"""Seconds after a pass of several pictures in which others are expected: whoever got an answer may send the next."""

CAPACITY = 256
"""Most pictures that wait: 0.3 MB each, and seconds to minutes of work. More would time out before their turn."""

WORK = 5_000
"""Most work of a pass of several pictures (`work_of`), so that the next in turn waits seconds for it, not minutes."""

PATIENCE = 30.0
"""Seconds after which a party that had no turn goes before newcomers: else many of them would starve an album."""


def work_of(search: SearchOptions, pictures: int = 1) -> int:
    """What captioning costs, as the search sees it: pictures x beam x words."""
    return pictures * search.beam_size * search.max_length


@dataclass(eq=False)
class Party:
    """Whose turn it is: a request, an album, one photo."""

    places: int = 0
    """Places in the queue that are kept for it."""
    given: int = 0
    """Work that the models did for it."""
    turn: float = field(default_factory=time.monotonic)
    """When it had its last turn, or came."""


@dataclass(frozen=True, eq=False)
class _Job:
    party: Party
    captioner: Captioner
    pixels: Pixels
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


def load_models(
    models: Iterable[str], device: str = "auto", precision: str = "auto", backend: str = "auto"
) -> dict[str, Captioner]:
    """The captioners by the names that visitors see; errors as `Captioner.load` raises them.

    They are loaded in a thread that ends. OpenMP gives each thread that computes helpers of its own, and while there
    are more of them all than cores, they sleep between their tasks: a photo took 59 ms in place of 28 (measured, two
    cores). The one thread that computes from here on is the queue's.
    """
    backend = prepare(device, backend)  # before there are threads with memory of their own

    def load(model: str) -> tuple[str, Captioner]:
        return Path(model).name, Captioner.load(model, device, backend=backend, precision=precision)

    with ThreadPoolExecutor(1) as pool:
        return dict(pool.map(load, models))


class ModelQueue:
    """Pictures in, futures of captions out; one thread works them off. Threads may share it."""

    def __init__(
        self,
        *,
        batch: int = BATCH,
        wait: float = WAIT,
        capacity: int = CAPACITY,
        patience: float = PATIENCE,
        most_work: int = MOST_WORK,
        warm: Iterable[Captioner] = (),
    ) -> None:
        """`batch`: most pictures that go through a network together; 1 turns batching off. `warm`: models that caption
        an empty picture before anybody asks, since a first caption takes twice as long.
        """
        self.batch, self.wait, self.capacity, self.patience = batch, wait, capacity, patience
        self.most_work, self.warm, self.counts = most_work, tuple(warm), Counts()
        self._jobs: list[_Job] = []
        self._kept, self._crowd = 0, -math.inf  # places; when several pictures last went together
        self._changed = threading.Condition()
        self._closed = self._warmed = False
        self._thread = threading.Thread(target=self._work, name="captioner queue", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many pictures wait, or are about to come and have their places."""
        return len(self._jobs) + self._kept

    @property
    def ready(self) -> bool:
        """The models are warm, and pictures are worked off."""
        return self._warmed and self._thread.is_alive() and not self._closed

    @property
    def closed(self) -> bool:
        """No more pictures are taken: whoever works beside the queue should end, too."""
        return self._closed

    @contextlib.contextmanager
    def places(self, count: int, search: SearchOptions) -> Iterator[Party]:
        """Places for a whole request, all at once; those that are not used are given back at the end, and what still
        waits is cancelled. Raises BusyError where so many are not free, and OptionError where it is too much work.
        """
        self._check(search, count)
        party = Party()
        self._keep(party, count)
        try:
            yield party
        finally:
            with self._changed:
                self._kept -= party.places
                party.places = 0
                for job in [job for job in self._jobs if job.party is party]:
                    job.answer.cancel()

    def caption(
        self, captioner: Captioner, pixels: Pixels, search: SearchOptions, party: Party | None = None
    ) -> "Future[Caption]":
        """A picture that `captioner.read` prepared, in the name of a party.

        Raises BusyError where the queue is full, OptionError where the search is too much work.
        """
        self._check(search)
        return self._add(_Job(party or Party(), captioner, pixels, search, explain=False, progress=None))

    def explain(
        self,
        captioner: Captioner,
        pixels: Pixels,
        search: SearchOptions,
        progress: Callable[[str], None] | None = None,
    ) -> "Future[Explanation]":
        """The same, for `captioner.explain_pixels`; `progress` is called from the queue's thread."""
        self._check(search)
        return self._add(_Job(Party(), captioner, pixels, search, explain=True, progress=progress))

    def close(self) -> None:
        """Ends the thread after its present work; what still waits is cancelled."""
        with self._changed:
            self._closed = True
            for job in list(self._jobs):
                job.answer.cancel()
            self._changed.notify_all()
        self._thread.join()

    def _check(self, search: SearchOptions, pictures: int = 1) -> None:
        if work_of(search, pictures) > self.most_work:
            work = f"{pictures:,} pictures x {search.beam_size} sentences x {search.max_length} words"
            reason = f"are too much at once ({self.most_work:,} at most)"
            raise OptionError(work, reason, "send fewer pictures, or take a smaller beam or shorter captions")

    def _keep(self, party: Party, count: int) -> None:
        with self._changed:
            if self._closed or self.waiting + count > self.capacity:
                self.counts.refusals += count
                raise BusyError(f"{self.waiting} pictures are waiting already: try again in a moment.")
            self._kept += count
            party.places += count

    def _add(self, job: _Job) -> "Future[Any]":
        with self._changed:
            if self._closed or not job.party.places:
                self._keep(job.party, 1)
            self._kept -= 1
            job.party.places -= 1
            self._jobs.append(job)
            job.answer.add_done_callback(lambda answer: self._leave(job) if answer.cancelled() else None)
            self._changed.notify_all()
        return job.answer

    def _leave(self, job: _Job) -> None:
        with self._changed, contextlib.suppress(ValueError):
            self._jobs.remove(job)

    def _work(self) -> None:
        for captioner in self.warm:
            if not self._closed:
                with contextlib.suppress(Exception):  # whoever asks will be told
                    captioner(Image.new("RGB", (1, 1)))
        self._warmed = True
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
            while not self._closed:
                if not self._jobs:
                    self._changed.wait()
                    continue
                together = self._together()
                now = time.monotonic()
                left = min(job.arrival for job in together) + self.wait - now
                expected = len(together) > 1 or self._kept or now - self._crowd < CROWD
                if together[0].explain or len(together) == self._most(together[0]) or not expected or left <= 0:
                    self._crowd = now if len(together) > 1 else self._crowd
                    for job in together:
                        self._jobs.remove(job)
                        job.party.given += work_of(job.search)
                        job.party.turn = now
                    return together
                self._changed.wait(left)
            return []

    def _together(self) -> list[_Job]:
        """Whose turn it is, and who goes with it: first those who were given least, one picture of each at a time."""
        now = time.monotonic()
        rank: dict[_Job, tuple[float, int]] = {}
        given: dict[Party, int] = {}
        for place, job in enumerate(self._jobs):
            party = job.party
            before = given.setdefault(party, party.given)
            starved = now - party.turn > self.patience
            rank[job] = (party.turn - now if starved else before, place)  # below 0: before all
            given[party] += work_of(job.search)
        first, *others = sorted(self._jobs, key=rank.__getitem__)
        return [first, *(job for job in others if job.goes_with(first))][: self._most(first)]

    def _most(self, job: _Job) -> int:
        """How many pictures like this one go through a network together."""
        return max(1, min(self.batch, WORK // work_of(job.search)))


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
            if isinstance(error, ModelFileError):  # visitors are not told where the owner keeps it
                error = ModelFileError(first.captioner.name, error.reason, error.remedy)
            first.answer.set_exception(error)
        else:  # it may be one picture's fault: each on its own
            for job in jobs:
                _answer([job])
    except Exception as error:  # a fault of ours: whoever asked is told, and the thread goes on
        for job in jobs:
            job.answer.set_exception(error)
