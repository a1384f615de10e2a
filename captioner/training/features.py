"""Features of a frozen encoder, computed once and kept on disk in half precision.

The file's name is a hash of all that the features depend on: the encoder's weights, how pictures are fitted, the
precision, and the pictures themselves. Another run with the same ones finds them there.
"""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from captioner.datasets.dataset import CaptionedImage
from captioner.errors import OptionError
from captioner.files import write_atomically
from captioner.model import CaptionModel
from captioner.options import to_dict

_BATCH = 64
_SPARE = 512 * 2**20  # bytes left free for the checkpoints that follow


def cached_features(
    model: CaptionModel,
    images: Sequence[CaptionedImage],
    *,
    folder: Path,
    precision: str,
    workers: int,
    report: Callable[[str], None],
) -> Tensor:
    """Features (N, R, C) of the images, float16, mapped from a file in `folder` that is made if need be.

    Says the size before it writes. Raises OptionError where the disk is too small for it.
    """
    rows, columns = model.encoder.grid
    shape = (len(images), rows * columns, model.encoder.channels)
    count = shape[0] * shape[1] * shape[2]
    path = folder / f"{_key(model, images, precision)}.f16"
    if path.is_file() and path.stat().st_size == 2 * count:
        report(f"Features of {len(images):,} pictures: found in {path}.")
    else:
        size = _readable(2 * count)
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if 2 * count + _SPARE > free:
            raise OptionError(
                f"The features of {len(images):,} pictures take {size}, and {folder} has {_readable(free)} free: "
                "point --features to a larger disk, or train without them with --fine-tune all."
            )
        report(f"Features of {len(images):,} pictures: {size} into {path}.")
        write_atomically(path, lambda part: _write(part, model, images, precision, workers))
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
        else:
            status = image.source.stat()
            digest.update(repr((str(image.source.resolve()), status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()[:32]


def _write(
    path: Path,
    model: CaptionModel,
    images: Sequence[CaptionedImage],
    precision: str,
    workers: int,
) -> None:
    model.eval()
    sources = [image.source for image in images]
    bar = tqdm(total=len(images), desc="encoding", unit="picture", leave=False, disable=None)
    with path.open("wb") as file, bar:
        for features in model.vision.encode_all(sources, batch=_BATCH, precision=precision, workers=workers):
            # Half precision ends at 65,504; a network whose features go beyond is cut there rather than infinite.
            small = features.clamp(-65_000, 65_000).half().cpu()
            file.write(small.contiguous().view(torch.uint8).numpy().tobytes())
            bar.update(len(features))
