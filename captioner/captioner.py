"""Captioner: what a user holds. Load a model once, then call it on pictures."""

import contextlib
import copy
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

from captioner.backends import check_onnx, pick_backend
from captioner.captions import Caption, Captioned, Explanation
from captioner.card import ModelCard, model_path, read_card
from captioner.errors import CaptionerError, ImageError, ModelFileError, OptionError
from captioner.generation import Network, caption_features, explain_features
from captioner.options import MODELS, ImageOptions, SearchOptions, merged
from captioner.pictures import ImageSource, Look, Pixels, look
from captioner.text import Vocabulary

if TYPE_CHECKING:
    from captioner.checkpoint import ModelFile

BATCH = 16
"""Pictures that go through the network together."""

READERS = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
"""Pictures that are decoded at once: one for each core of ours. The largest allowed take 300 MB each."""


class Captioner:
    """A loaded model on its device.

    >>> captioner = Captioner.load()
    >>> captioner("photo.jpg").text  # doctest: +SKIP
    'A dog runs through the grass'

    Threads may share one, and it never changes: `with_` gives another. The model serves one batch at a time.
    """

    card: ModelCard
    """What the model is and where it came from."""
    image: ImageOptions
    """How pictures are fitted and normalised: as the model learnt them, unless `with_` says otherwise."""
    search: SearchOptions
    """How sentences are found, unless a call says otherwise."""

    def __init__(self, network: Network, card: ModelCard) -> None:
        """For whoever has a network already; `load` and `of` make one."""
        self.card, self.image, self.search = card, card.image, card.search
        self.network, self.vocabulary = network, Vocabulary(card.vocabulary)
        self._called = card.name
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] | None = None,
        device: str = "auto",
        *,
        backend: str = "auto",
        precision: str = "auto",
        image: ImageOptions | None = None,
    ) -> "Captioner":
        """Loads a model file, or a bundled model by its name in `options.MODELS`, None for "accurate". No network.

        Names win over files: "./fast" and Path("fast") are files. `backend` is torch, onnx (ONNX Runtime on the CPU in
        float32, for the bundled models and for what `captioner export --onnx` wrote; no torch is imported), or auto,
        which takes torch where it is installed. `precision` is float32, bfloat16, float16, or auto:
        a half one where the processor multiplies in it, which is faster and changes few captions (docs/performance.md).
        `image` overrides how pictures are fitted, which the model file otherwise decides; keep that unless you are
        measuring its effect. On a CPU the whole process keeps the memory that it frees (`device.prepare`). Raises
        ModelFileError for a file that is no model, and OptionError for a device that is not there or a precision that
        is none.
        """
        backend = prepare(device, backend)
        model = MODELS[0] if model is None else model
        path = model_path(model)
        card = read_card(path, name=path.name if path == Path(model) else f"the bundled model {model}")
        captioner = cls(_network(path, card, backend, device, precision), card)
        captioner._called = str(path) if path == Path(model) else card.name
        return captioner if image is None else captioner.with_(image=image)

    @classmethod
    def of(cls, file: "ModelFile", *, name: str = "captioner", precision: str = "float32") -> "Captioner":
        """A captioner of a model that is loaded already, where that is; `name` is shown to users."""
        from captioner.network import fused

        return cls(fused(file.model, precision), file.card(name))

    def with_(self, *, image: ImageOptions | None = None, search: SearchOptions | None = None) -> "Captioner":
        """Another captioner with other options, which shares the network. Raises OptionError as `search_with` does."""
        other = copy.copy(self)
        if image is not None:
            other.image, other.network = image, self.network.seeing(image)
        if search is not None:
            search.check_model(reverse=self.card.reverse)
            other.search = search
        return other

    def search_with(self, **fields: Any) -> SearchOptions:
        """Its search with some fields changed. Raises OptionError for values that cannot be, or not with this model."""
        search = merged(self.search, fields)
        search.check_model(reverse=self.card.reverse)
        return search

    def is_unsure(self, caption: Caption) -> bool | None:
        """Whether a caption may well be wrong, by the threshold that was measured for the model; None without one."""
        sureness = self.card.sureness
        return None if sureness is None else caption.word_probability < sureness.unsure_below

    @property
    def name(self) -> str:
        """What users call the model."""
        return self.card.name

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the cells between which its attention chooses."""
        return self.network.grid

    @property
    def device(self) -> str:
        """Where it computes: "cpu", "cuda:0"."""
        return self.network.device

    @property
    def precision(self) -> str:
        """What it computes in: "float32", "bfloat16" or "float16"."""
        return self.network.precision

    @overload
    def __call__(self, images: ImageSource, *, search: SearchOptions | None = None) -> Caption: ...  # type: ignore[overload-overlap]  # str is a Sequence
    @overload
    def __call__(self, images: Sequence[ImageSource], *, search: SearchOptions | None = None) -> list[Caption]: ...
    def __call__(
        self, images: ImageSource | Sequence[ImageSource], *, search: SearchOptions | None = None
    ) -> Caption | list[Caption]:
        """One picture in, one Caption out; a list of pictures in, a list of Captions out.

        A picture is a path, the bytes of a file, a PIL image or a NumPy array (see `pictures.read_image`). `search`
        defaults to what the model file carries. Raises ImageError for a picture that cannot be read, and ModelFileError
        where the model's weights give no finite probabilities.
        """
        if not isinstance(images, list | tuple):
            return self.caption_pixels([self.read(cast(ImageSource, images))], search=search)[0]
        captions = []
        for found in self.stream((("", image) for image in images), search=search):
            if found.caption is None:
                raise cast(CaptionerError, found.error)
            captions.append(found.caption)
        return captions

    def stream(
        self, pictures: Iterable[tuple[str, ImageSource]], *, search: SearchOptions | None = None
    ) -> Iterator[Captioned]:
        """Any number of named pictures -> what became of each, in order, as soon as it is there.

        A picture that cannot be read, or that the model fails on, has its error in its place and costs the others
        nothing. BATCH pictures at a time are read, READERS of them at once, and go through the network; do not change
        one before its caption is there. Raises OptionError for a search that this model cannot do.
        """
        search = self.search if search is None else search
        search.check_model(reverse=self.card.reverse)
        return self._stream(iter(pictures), search)

    def _stream(self, pictures: Iterator[tuple[str, ImageSource]], search: SearchOptions) -> Iterator[Captioned]:
        pool = ThreadPoolExecutor(READERS, "captioner reader")

        def begin() -> list[tuple[str, "Future[Look | ImageError]"]]:
            return [(name, pool.submit(self._attempt, source)) for name, source in itertools.islice(pictures, BATCH)]

        try:
            group = begin()
            while group:
                read = [(name, future.result()) for name, future in group]
                # A GPU works while the processor reads. A processor that did both at once would take longer for both.
                ahead = begin() if self.device != "cpu" else None
                answers = iter(self._answers([found.pixels for _, found in read if isinstance(found, Look)], search))
                for name, found in read:
                    if isinstance(found, ImageError):
                        yield Captioned(name, error=found)
                        continue
                    answer = next(answers)
                    if isinstance(answer, Caption):
                        yield Captioned(name, found.size, answer)
                    else:
                        yield Captioned(name, found.size, error=answer)
                group = begin() if ahead is None else ahead
        finally:
            pool.shutdown(cancel_futures=True)

    def _attempt(self, source: ImageSource) -> Look | ImageError:
        try:
            return self.look(source)
        except ImageError as error:
            return error

    def _answers(self, pixels: Sequence[Pixels], search: SearchOptions) -> list[Caption | CaptionerError]:
        try:
            return list(self.caption_pixels(pixels, search=search))
        except CaptionerError as error:
            if len(pixels) == 1:
                return [error]
            return [answer for one in pixels for answer in self._answers([one], search)]  # it may be one's fault

    def look(self, source: ImageSource, *, thumbnail: int | None = None) -> Look:
        """A picture, decoded once: as the encoder wants it, its size, what is seen of it, and a thumbnail if wanted.

        Raises ImageError.
        """
        return look(source, self.image, thumbnail=thumbnail)

    def read(self, image: ImageSource) -> Pixels:
        """A picture as the model's encoder wants it: uint8 (3, size, size). Raises ImageError."""
        return self.look(image).pixels

    def explain(
        self, image: ImageSource, *, search: SearchOptions | None = None, progress: Callable[[str], None] | None = None
    ) -> Explanation:
        """One picture -> its caption, where the model looked for each word, and which sentences it tried.

        `progress` is told the most probable beginning of the caption after each word. Raises ImageError.
        """
        return self.explain_pixels(self.read(image), search=search, progress=progress)

    def explain_pixels(
        self, pixels: Pixels, *, search: SearchOptions | None = None, progress: Callable[[str], None] | None = None
    ) -> Explanation:
        """`explain` for a picture that `look` or `read` prepared."""
        with self._lock, self._named():
            features = self.network.encode([pixels])
            return explain_features(self.network, features, self.vocabulary, search or self.search, progress=progress)

    def caption_pixels(self, pixels: Sequence[Pixels], *, search: SearchOptions | None = None) -> list[Caption]:
        """Pictures that `look` or `read` prepared, as one batch -> their captions. The caller chooses its size."""
        if not pixels:
            return []
        with self._lock, self._named():
            features = self.network.encode(pixels)
            return caption_features(self.network, features, self.vocabulary, search or self.search)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Has what is wrong with the model say which one it is."""
        try:
            yield
        except ModelFileError as error:
            raise ModelFileError(self._called, error.reason, error.remedy) from error


def prepare(device: str = "auto", backend: str = "auto") -> str:
    """Readies the whole process for models on this device, best before there are threads; answers with the backend.

    With torch on a CPU it keeps the memory that it frees from here on (`device.prepare`). Raises OptionError for a
    device or a backend that is not there.
    """
    backend = pick_backend(backend)
    if backend == "torch":
        from captioner import device as devices

        devices.prepare(device)
    return backend


def _network(path: Path, card: ModelCard, backend: str, device: str, precision: str) -> Network:
    """The network of a model file, by torch or by ONNX Runtime; only that library is imported."""
    if backend == "onnx":
        check_onnx(device, precision)
        from captioner.onnx_network import load_onnx

        return load_onnx(path, card)
    from captioner.checkpoint import restore
    from captioner.device import pick_device, pick_precision
    from captioner.network import fused

    place = pick_device(device)
    kind = pick_precision(precision, place)
    return fused(restore(path, card, place).model, kind)


def pick_captioner(captioners: Mapping[str, Captioner], name: object) -> Captioner:
    """The captioner of that name, or of whatever a stranger sent in its place.

    Raises OptionError, with the names that there are.
    """
    if not isinstance(name, str) or name not in captioners:
        raise OptionError(f"There is no model {name!r} here: choose {' or '.join(captioners)}.")
    return captioners[name]
