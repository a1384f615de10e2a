"""Features of a frozen encoder, computed once and kept on disk in half precision.

The file's name is a hash of all that the features depend on: the encoder's weights, how pictures are fitted, the
precision, and the pictures themselves. Another run with the same ones finds them there. A checksum at the file's end is
compared on opening: what a disk has damaged is computed anew, and training never learns from it in silence.
"""

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from captioner.datasets.dataset import CaptionedImage
from captioner.errors import OptionError
from captioner.files import is_sealed, seal, write_atomically
from captioner.model import CaptionModel
from captioner.options import to_dict
from captioner.pictures.shards import Packed
from captioner.telling import Bar, Telling
from captioner.training.processes import ALONE, Processes

BATCH = 64
"""Pictures that are encoded together."""

_SPARE = 512 * 2**20  # bytes left free for the checkpoints that follow


def cached_features(
    model: CaptionModel,
    images: Sequence[CaptionedImage],
    *,
    folder: Path,
    precision: str,
    workers: int,
    telling: Telling,
    processes: Processes = ALONE,
) -> Tensor:
    """Features (N, R, C) of the images, float16, mapped from a file in `folder` that is made if need be.

    Says the size before it writes. What is there and not whole is made anew. Several processes compute a part each, and
    the leader makes one file of them, which all read. Raises OptionError where the disk is too small for it, and where
    processes have no folder in common.
    """
    rows, columns = model.encoder.grid
    shape = (len(images), rows * columns, model.encoder.channels)
    count = shape[0] * shape[1] * shape[2]
    path = folder / f"{_key(model, images, precision)}.f16"
    (missing,) = processes.any(not is_sealed(path, 2 * count))
    if not missing:
        telling.say(f"Features of {len(images):,} pictures: found in {path}.")
    else:
        size = _readable(2 * count)
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if 2 * count + _SPARE > free:
            raise OptionError(
                f"The features of {len(images):,} pictures take {size}, and {folder} has {_readable(free)} free: "
                "point --features to a larger disk, or train without them with --fine-tune all."
            )
        telling.say(f"Features of {len(images):,} pictures: {size} into {path}.")
        bounds = [len(images) * rank // processes.count for rank in range(processes.count + 1)]
        mine = images[bounds[processes.rank] : bounds[processes.rank + 1]]
        features = encoded(model, mine, precision=precision, workers=workers)
        with telling.bar(len(mine), "picture", "encoding") as bar:
            if processes.count == 1:

                def whole(part: Path) -> None:
                    _write(part, features, bar)
                    seal(part)

                write_atomically(path, whole)
            else:
                _write_together(path, features, bar, processes)
        if not is_sealed(path, 2 * count):
            raise OptionError(f"{path}, which another process wrote, is not here: point --features to a shared folder.")
    return torch.from_file(str(path), shared=False, size=count, dtype=torch.float16).view(shape)


def _readable(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def _key(model: CaptionModel, images: Sequence[CaptionedImage], precision: str) -> str:
    digest = hashlib.sha256(repr((to_dict(model.options.image), to_dict(model.options.encoder), precision)).encode())
    for name, tensor in model.encoder.state_dict().items():
        digest.update(name.encode() + tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    for image in images:
        if isinstance(image.source, Image.Image):
            digest.update(image.source.tobytes())
        elif isinstance(image.source, Packed):
            digest.update(repr(image.source.identity()).encode())
        else:
            status = image.source.stat()
            digest.update(repr((str(image.source.resolve()), status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()[:32]


def encoded(
    model: CaptionModel, images: Sequence[CaptionedImage], *, precision: str, workers: int = 0
) -> Iterator[Tensor]:
    """The features (B, R, C) of the images, float32, some at a time and in their order; the model is in eval mode."""
    model.eval()
    sources = [image.source for image in images]
    return model.vision.encode_all(sources, batch=BATCH, precision=precision, workers=workers)


def _write_together(path: Path, features: Iterable[Tensor], bar: Bar, processes: Processes) -> None:
    """Each process writes a part beside `path`, and the leader puts them one after the other."""
    parts = [path.with_name(f"{path.name}.{rank}.part") for rank in range(processes.count)]
    _write(parts[processes.rank], features, bar)
    processes.wait()

    def joined(whole: Path) -> None:
        with whole.open("wb") as file:
            for part in parts:
                with part.open("rb") as some:
                    shutil.copyfileobj(some, file)
        seal(whole)

    if processes.leads:
        write_atomically(path, joined)
    processes.wait()
    parts[processes.rank].unlink(missing_ok=True)


def _write(path: Path, features: Iterable[Tensor], bar: Bar) -> None:
    with path.open("wb") as file:
        for part in features:
            # Half precision ends at 65,504; a network whose features go beyond is cut there rather than infinite.
            file.write(part.clamp(-65_000, 65_000).half().cpu().contiguous().view(torch.uint8).numpy().tobytes())
            bar.update(len(part))
