"""What was decoded, in whatever mode and colour space, as 8-bit sRGB."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

_GREYS = ("1", "L", "LA")
_SPACES = {"L": "GRAY", "RGB": "RGB ", "CMYK": "CMYK"}  # what ICC calls the colours of PIL's modes
_MOST_PROFILE = 4_000_000  # bytes; the profiles of presses have one or two million


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture in sRGB, mode RGB, transparency over white; never the very object given."""
    profile = image.info.get("icc_profile")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = Image.fromarray(_grey_levels(image))
    if image.mode == "La":  # premultiplied grey, which Pillow converts to LA alone
        image = image.convert("LA")
    if not image.has_transparency_data:
        return _in_srgb(image, profile)
    image = image.convert("LA" if image.mode in _GREYS else "RGBA")
    picture = Image.new("RGB", image.size, "white")
    picture.paste(_in_srgb(image.convert("L" if image.mode == "LA" else "RGB"), profile), mask=image.getchannel("A"))
    return picture


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """A picture without transparency in sRGB: as its profile says where that is usable, else by its mode alone."""
    mode = "L" if image.mode in _GREYS else "RGB" if image.mode == "P" else image.mode
    transform = _transform(profile, mode) if profile and mode in _SPACES else None
    if transform is None:
        return image.convert("RGB")  # a copy where it is RGB already
    return ImageCms.applyTransform(image if image.mode == mode else image.convert(mode), transform)  # type: ignore[return-value]


@lru_cache(maxsize=32)  # cameras and programs have a few, which they put into every picture
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile's colours to sRGB, relative colorimetric: white stays white, and what sRGB has stays exact.

    None where the profile is broken, is of another kind of colours than the picture, or means what is there already:
    no level would change by more than one.
    """
    if len(profile) > _MOST_PROFILE:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != _SPACES[mode]:
            return None
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB", intent)
        levels = np.linspace(0, 255, 8).round().astype(np.uint8)
        channels = len(Image.new(mode, (1, 1)).getbands())
        grid = np.stack(np.meshgrid(*[levels] * channels), -1).reshape(1, -1, channels)
        probe = Image.frombytes(mode, (grid.shape[1], 1), grid.tobytes())
        found = ImageCms.applyTransform(probe, transform)
        assert found is not None  # it is, unless asked to work in place
    except Exception:  # PyCMSError, and whatever a stranger's bytes lead to: the picture is sound without them
        return None
    away = np.asarray(found).astype(int) - np.asarray(probe.convert("RGB"))
    return None if np.abs(away).max() <= 1 else transform


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
