"""Picture to features: the one owner of how pixels are normalised and encoded in torch."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from captioner.device import autocast
from captioner.encoder import Encoder
from captioner.options import ImageOptions
from captioner.pictures import ImageSource, normalise, to_tensor
from captioner.pictures.shards import expect

Item = TypeVar("Item")


@dataclass(frozen=True)
class Vision:
    """An encoder, and the options by which pictures are made ready for it."""

    image: ImageOptions
    encoder: Encoder

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the features."""
        return self.encoder.grid

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.encoder.parameters()).device

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, size, size), uint8, as `pictures.look` gives them, on any device -> features (B, R, C)."""
        features: Tensor = self.encoder(normalise(pixels.to(self.device), self.image))
        return features

    def encode_all(
        self, pictures: Sequence[ImageSource], *, batch: int, precision: str, workers: int = 0
    ) -> Iterator[Tensor]:
        """Any number of pictures -> their features (B, R, C), float32, on its device, `batch` pictures at a time.

        Matrix products run in `precision`, as `autocast` takes it; `workers` threads read ahead of time. It knows no
        gradients, and leaves the encoder's mode as it is. Raises ImageError for a picture that cannot be read.
        """
        expect(pictures)
        batches = [pictures[first : first + batch] for first in range(0, len(pictures), batch)]
        for pixels in stacked(lambda group: [to_tensor(source, self.image) for source in group], batches, workers):
            with torch.inference_mode(), autocast(precision, self.device):
                features = self.encode(pixels).float()
            yield features


def stacked(load: Callable[[Item], list[Tensor]], items: Iterable[Item], workers: int) -> Iterator[Tensor]:
    """What `load` reads for each item, as one tensor; `workers` threads read ahead of time, none if 0."""
    if not workers:
        yield from map(torch.stack, map(load, items))
        return
    # Threads, since Pillow lets others run while it decodes: forked processes would keep a copy of every page of a
    # training run's memory that changes after the fork, and double it. What they read is stacked outside of them, since
    # a thread that calls torch gets helpers of its own (see pictures.square_pixels).
    pool = ThreadPoolExecutor(workers)
    try:
        ahead: deque[Future[list[Tensor]]] = deque()
        for item in items:
            ahead.append(pool.submit(load, item))
            if len(ahead) > 2 * workers:
                yield torch.stack(ahead.popleft().result())
        while ahead:
            yield torch.stack(ahead.popleft().result())
    finally:
        pool.shutdown(cancel_futures=True)
