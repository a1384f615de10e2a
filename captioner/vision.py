"""Picture to features: the one owner of how a picture is fitted, normalised and encoded, and of what was seen of it."""

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from captioner.encoder import Encoder
from captioner.options import ImageOptions
from captioner.pictures import ImageSource, Window, normalise, read_sized, seen, square_pixels


@dataclass(frozen=True)
class Look:
    """A picture, decoded once, as the encoder and whoever shows it want it."""

    pixels: Tensor
    """uint8 (3, size, size): what the encoder takes."""
    size: tuple[int, int]
    """Width and height of the upright picture, in its own pixels."""
    window: Window
    """What of the picture the encoder sees."""
    thumbnail: Image.Image | None = None
    """The whole picture, small, if that was asked for."""


def look(source: ImageSource, image: ImageOptions, *, thumbnail: int | None = None) -> Look:
    """A picture as it is to be encoded, and its thumbnail with no side above `thumbnail` pixels if one is given.

    A thumbnail of more than `image.enough` pixels may have the picture decoded larger, which moves a few pixels by a
    level. Raises ImageError where the picture cannot be read.
    """
    picture, size = read_sized(source, at_least=max(image.enough, thumbnail or 0))
    pixels, small = square_pixels(picture, image), None
    if thumbnail:
        small = picture
        small.thumbnail((thumbnail, thumbnail))
    return Look(pixels, size, seen(size, image), small)


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
        """Pixels (B, 3, size, size), uint8, as `look` gives them, on any device -> features (B, R, C)."""
        features: Tensor = self.encoder(normalise(pixels.to(self.device), self.image))
        return features
