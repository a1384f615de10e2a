"""A picture decoded once, for the encoder and for whoever shows it."""

from dataclasses import dataclass

from PIL import Image

from captioner.options import ImageOptions
from captioner.pictures.fitting import Pixels, Window, seen, square_pixels
from captioner.pictures.reading import ImageSource, read_sized


@dataclass(frozen=True)
class Look:
    """A picture, decoded once, as the encoder and whoever shows it want it."""

    pixels: Pixels
    """What the encoder takes: uint8 (3, size, size)."""
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
