"""Captioner: what a user holds. Load a model once, then call it on pictures."""

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast, overload

import torch
from torch import Tensor

from captioner.captions import Branch, Caption
from captioner.checkpoint import ModelFile, load_model, model_path
from captioner.device import pick_precision, prepare
from captioner.errors import ImageError
from captioner.generation import caption_features, explain_features
from captioner.images import ImageSource, to_tensor
from captioner.options import MODELS, ImageOptions, SearchOptions

BATCH = 16
"""Pictures that go through the network together."""

READERS = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
"""Pictures that are decoded at once: one for each core of ours. The largest allowed take 300 MB each."""


@dataclass(frozen=True)
class Explanation:
    """A caption, and how it came about."""

    caption: Caption
    """Its words, and those of its alternatives, say where the model looked."""
    tree: tuple[Branch, ...]
    """The first words that the search tried, and what it went on with."""


class Captioner:
    """A loaded model on its device.

    >>> captioner = Captioner.load()
    >>> captioner("photo.jpg").text  # doctest: +SKIP
    'A dog runs through the grass'

    Threads may share one: the model serves one batch at a time.
    """

    def __init__(
        self, file: ModelFile, device: torch.device, *, name: str = "captioner", image: ImageOptions | None = None
    ) -> None:
        """`file` as checkpoint.load_model returns it, its model already on `device`; `name` is shown to users."""
        self.file = file
        self.device = device
        self.name = name
        self.image = image or file.model.options.image
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] | None = None,
        device: str = "auto",
        *,
        precision: str = "auto",
        image: ImageOptions | None = None,
    ) -> "Captioner":
        """Loads a model file, or a bundled model by its name in `options.MODELS`, None for "accurate". No network.

        Names win over files: "./fast" and Path("fast") are files. `precision` is float32, bfloat16, or auto: bfloat16
        where the processor multiplies in it, which is faster and changes few captions (docs/performance.md). `image`
        overrides how pictures are fitted, which the model file otherwise decides; keep that unless you are measuring
        its effect. On a CPU the whole process keeps the memory that it frees (`device.prepare`), and the model is
        fused: it can be neither trained nor saved. Raises ModelFileError for a file that is no model, and OptionError
        for a device that is not there or a precision that is none.
        """
        place = prepare(device)
        kind = getattr(torch, pick_precision(precision, place))
        model = MODELS[0] if model is None else model
        path = model_path(model)
        bundled = path != Path(model)
        name = f"the bundled model {model}" if bundled else path.name
        file = load_model(path, place)
        file.model.fuse()
        file.model.to(kind)
        return cls(file, place, name=name, image=image)

    @property
    def precision(self) -> str:
        """What it computes in: "float32" or "bfloat16"."""
        return str(next(self.file.model.parameters()).dtype).removeprefix("torch.")

    @overload
    def __call__(self, images: ImageSource, *, search: SearchOptions | None = None) -> Caption: ...  # type: ignore[overload-overlap]  # str is a Sequence
    @overload
    def __call__(self, images: Sequence[ImageSource], *, search: SearchOptions | None = None) -> list[Caption]: ...
    def __call__(
        self, images: ImageSource | Sequence[ImageSource], *, search: SearchOptions | None = None
    ) -> Caption | list[Caption]:
        """One picture in, one Caption out; a list of pictures in, a list of Captions out.

        A picture is a path, the bytes of a file, a PIL image or a NumPy array (see `images.read_image`). `search`
        defaults to what the model file carries. Raises ImageError for a picture that cannot be read.
        """
        if not isinstance(images, list | tuple):
            return self.caption_pixels([self.read(cast(ImageSource, images))], search=search)[0]
        captions = []
        for caption in self.stream(images, search=search):
            if isinstance(caption, ImageError):
                raise caption
            captions.append(caption)
        return captions

    def stream(
        self, images: Iterable[ImageSource], *, search: SearchOptions | None = None
    ) -> Iterator[Caption | ImageError]:
        """Any number of pictures, a list or any other iterable -> their captions, in order, as soon as they are there.

        Where a picture cannot be read its place holds the error. BATCH pictures at a time are read, READERS of them at
        once, and go through the network; do not change one before its caption is there.
        """
        sources = iter(images)
        pool = ThreadPoolExecutor(READERS, "captioner reader")

        def begin() -> list["Future[Tensor | ImageError]"]:
            return [pool.submit(self._attempt, image) for image in itertools.islice(sources, BATCH)]

        try:
            group = begin()
            while group:
                read = [future.result() for future in group]
                # A GPU works while the processor reads. A processor that did both at once would take longer for both.
                ahead = begin() if self.device.type != "cpu" else None
                pixels = [found for found in read if isinstance(found, Tensor)]
                captions = iter(self.caption_pixels(pixels, search=search))
                yield from (next(captions) if isinstance(found, Tensor) else found for found in read)
                group = begin() if ahead is None else ahead
        finally:
            pool.shutdown(cancel_futures=True)

    def _attempt(self, image: ImageSource) -> Tensor | ImageError:
        try:
            return self.read(image)
        except ImageError as error:
            return error

    def read(self, image: ImageSource) -> Tensor:
        """A picture as the model's encoder wants it: uint8 (3, size, size). Raises ImageError."""
        return to_tensor(image, self.image)

    def explain(
        self, image: ImageSource, *, search: SearchOptions | None = None, progress: Callable[[str], None] | None = None
    ) -> Explanation:
        """One picture -> its caption, where the model looked for each word, and which sentences it tried.

        `progress` is told the most probable beginning of the caption after each word. Raises ImageError.
        """
        return self.explain_pixels(self.read(image), search=search, progress=progress)

    def explain_pixels(
        self, pixels: Tensor, *, search: SearchOptions | None = None, progress: Callable[[str], None] | None = None
    ) -> Explanation:
        """`explain` for a picture that `read` prepared."""
        with self._lock, torch.inference_mode():
            features = self.file.model.encode(pixels[None].to(self.device))[0]
            options = search or self.file.search
            found = explain_features(self.file.model, features, self.file.vocabulary, options, progress=progress)
        return Explanation(*found)

    def caption_pixels(self, pixels: Sequence[Tensor], *, search: SearchOptions | None = None) -> list[Caption]:
        """Pictures that `read` prepared, as one batch -> their captions. The caller chooses the size of the batch."""
        if not pixels:
            return []
        with self._lock, torch.inference_mode():
            features = self.file.model.encode(torch.stack(list(pixels)).to(self.device))
            return caption_features(self.file.model, features, self.file.vocabulary, search or self.file.search)
