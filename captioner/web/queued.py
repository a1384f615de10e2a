"""A captioner whose pictures go through the queue: what an album and a clip hold in the place of a `Captioner`."""

import time
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future
from dataclasses import dataclass

from captioner.captioner import BATCH, Captioner
from captioner.captions import Caption, Captioned
from captioner.errors import BusyError, CaptionerError, ImageError
from captioner.options import ImageOptions, SearchOptions
from captioner.pictures import ImageSource, Pixels
from captioner.web.queue import ModelQueue, Party

AHEAD = 2 * BATCH
"""Pictures of a stream that wait at most: enough that the model never waits for a disk."""


@dataclass(frozen=True)
class Queued:
    """A captioner behind the queue: its pictures take their turn among everybody's."""

    queue: ModelQueue
    captioner: Captioner

    @property
    def image(self) -> ImageOptions:
        """How its pictures are fitted."""
        return self.captioner.image

    def stream(
        self, pictures: Iterable[tuple[str, ImageSource]], *, search: SearchOptions | None = None
    ) -> Generator[Captioned, None, None]:
        """As `Captioner.stream`, but a picture waits where the queue is full, for a stream is in no hurry.

        Raises BusyError where the queue was closed.
        """
        waiting: deque[tuple[str, tuple[int, int] | None, Future[Caption]]] = deque()
        party = Party()

        def first() -> Captioned:
            name, size, future = waiting.popleft()
            try:
                return Captioned(name, size, future.result())
            except CaptionerError as error:
                return Captioned(name, size, error=error)

        try:
            for name, source in pictures:
                try:
                    look = self.captioner.look(source)
                except ImageError as error:
                    unread: Future[Caption] = Future()
                    unread.set_exception(error)
                    waiting.append((name, None, unread))
                else:
                    waiting.append((name, look.size, self._submit(look.pixels, search or self.captioner.search, party)))
                while waiting and (len(waiting) > AHEAD or waiting[0][2].done()):
                    yield first()
            while waiting:
                yield first()
        finally:
            for *_, future in waiting:
                future.cancel()

    def _submit(self, pixels: Pixels, search: SearchOptions, party: Party) -> "Future[Caption]":
        while True:
            try:
                return self.queue.caption(self.captioner, pixels, search, party)
            except BusyError:
                if self.queue.closed:
                    raise
                time.sleep(0.1)
