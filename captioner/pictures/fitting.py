"""RGB pictures of any size as the encoder's square, and its numbers."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from captioner.options import ImageOptions
from captioner.pictures.reading import ImageSource, read_image

if TYPE_CHECKING:
    import torch

Window = tuple[float, float, float, float]
"""A piece of a picture: left, top, right and bottom, in shares of its width and height."""

Pixels = npt.NDArray[np.uint8]
"""What a network takes of a picture: RGB in 0..255, (3, size, size), contiguous."""

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def fit(picture: Image.Image, options: ImageOptions) -> Image.Image:
    """An RGB picture as an RGB square of `options.size`; the very picture given where it is that square already.

    squash: the whole picture, its aspect ratio lost. crop: the shorter side becomes `size` and the longer loses both
    ends. pad: the longer side becomes `size`, centred on `options.mean`, which `normalise` turns into zeros. Where
    `detail` is set the picture becomes a square of that side first, and that one a square of `size`.
    """
    size, resampling = options.size, _FILTERS[options.interpolation]
    if options.detail is not None:
        small = fit(picture, replace(options, size=options.detail, detail=None))
        return small if small.size == (size, size) else small.resize((size, size), resampling)
    width, height = picture.size
    if (width, height) == (size, size):
        return picture
    if options.fit == "squash":
        return picture.resize((size, size), resampling)
    if options.fit == "crop":
        # One resampling of the middle square, not a resize and then a cut. Whole pixels: half a pixel's shift would
        # blur a picture that needs no scaling.
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        return picture.resize((size, size), resampling, box=(left, top, left + side, top + side))
    scale = size / max(width, height)
    inner = picture.resize((max(1, round(width * scale)), max(1, round(height * scale))), resampling)
    red, green, blue = (round(255 * mean) for mean in options.mean)
    square = Image.new("RGB", (size, size), (red, green, blue))
    square.paste(inner, ((size - inner.width) // 2, (size - inner.height) // 2))
    return square


def seen(size: tuple[int, int], options: ImageOptions) -> Window:
    """Where the square that `fit` makes lies on a picture of `size` (width, height): left, top, right, bottom.

    In shares of the picture's width and height: 0, 0, 1, 1 is the whole picture; below 0 and above 1 is padding.
    """
    width, height = size
    if options.fit == "squash":
        return 0.0, 0.0, 1.0, 1.0
    side = min(size) if options.fit == "crop" else max(size)
    x, y = (1 - side / width) / 2, (1 - side / height) / 2
    return x, y, 1 - x, 1 - y


def to_tensor(source: ImageSource, options: ImageOptions) -> "torch.Tensor":
    """The picture as (3, size, size) uint8, RGB in 0..255, contiguous; raises ImageError as `read_image` does."""
    import torch  # here alone, so that what only reads pictures starts in a moment

    return torch.from_numpy(square_pixels(read_image(source, at_least=options.enough), options))


def square_pixels(picture: Image.Image, options: ImageOptions) -> Pixels:
    """`to_tensor` of an RGB picture that was read already, as a NumPy array."""
    # Turned by NumPy: torch would do it with all its threads, and a team of threads for each reader makes those of the
    # network sleep between their tasks, for as long as the process lives (a fifth of the speed on two cores, measured).
    return np.ascontiguousarray(np.array(fit(picture, options)).transpose(2, 0, 1))


def normalise(pixels: "torch.Tensor", options: ImageOptions) -> "torch.Tensor":
    """Pixels (B,3,H,W) uint8 as float32 (x / 255 - mean) / std, on the same device."""
    import torch

    mean = torch.tensor(options.mean, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(options.std, device=pixels.device).view(3, 1, 1)
    return (pixels.float() / 255 - mean) / std
