"""What was decoded, in whatever mode, as 8-bit RGB."""

import numpy as np
from PIL import Image


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture in mode RGB, transparency over white; never the very object given."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_grey_levels(image)).convert("RGB")
    if image.mode == "La":  # premultiplied grey, which Pillow converts to LA alone
        image = image.convert("LA")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        picture = Image.new("RGB", over.size, "white")
        picture.paste(over, mask=over.getchannel("A"))
        return picture
    return image.convert("RGB")  # a copy where it is RGB already


def _grey_levels(image: Image.Image) -> np.ndarray:
    """A picture of wide integers or floats, (H,W), as uint8."""
    values = np.asarray(image)
    finite = np.isfinite(values)
    low, high = (float(values[finite].min()), float(values[finite].max())) if finite.any() else (0.0, 0.0)
    for white in (1, 255) if image.mode == "F" else (65535,):
        if low >= 0 and high <= white:
            levels = scaled(np.where(finite, values, 0), white)
            break
    else:
        levels = np.interp(np.where(finite, values, low), (low, high), (0, 255)).round().astype(np.uint8)
    if isinstance(image.info.get("transparency"), int):  # a 16-bit PNG's transparent level
        levels[values == image.info["transparency"]] = 255
    return levels


def scaled(values: np.ndarray, white: int) -> np.ndarray:
    """Numbers from 0 to `white` as uint8, 0 to 255."""
    return (values.astype(np.float32) * (255 / white)).round().astype(np.uint8)
