"""TIFF: which page is the picture, which kinds are read, and what the numbers of the wide ones mean (TIFF 6.0).

A kind is read right or refused by its name, never called damaged. Pillow knows about seventy kinds; what it would
decode to other pixels than the file's is found by `tests/pictures/test_tiff_kinds.py` and refused here.
"""

import io
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from captioner.errors import ImageError

SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")  # the second two: BigTIFF
_MOST_PAGES = 100
"""So many pages are looked at for one that is no smaller copy."""

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL, _SAMPLES = 256, 257, 258, 259, 262, 266, 277
_SUBFILE, _OLD_SUBFILE, _PLANAR, _PARTS, _EXTRA, _FORMAT, _DNG = 254, 255, 284, 330, 338, 339, 50706
_JPEG, _COMMON = 7, (1, 2, 3, 4, 5, 7, 8, 32773, 32946)
_WHITE_IS_ZERO, _YCBCR = 0, 6
_SIGNED, _FLOAT = 2, 3
_PREMULTIPLIED = 1

_COLOURS = {
    0: "grey", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "CIELab", 9: "ICCLab",
    10: "ITULab", 32844: "LogL", 32845: "LogLuv",
}  # fmt: skip
_RAW = (32803, 34892)  # the colours of a sensor
_PACKERS = {
    6: "old JPEG", 32809: "ThunderScan", 33003: "JPEG 2000", 33005: "JPEG 2000", 34676: "SGILog", 34677: "SGILog",
    34712: "JPEG 2000", 34887: "LERC", 34925: "LZMA", 50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL",
}  # fmt: skip


def open_page(data: bytes, name: str) -> Image.Image:
    """The file's first page that is neither a smaller copy of another one nor a mask, not decoded yet.

    Some programs append the picture behind its preview as a TIFF of its own, without a link to it: no chain of pages
    leads there, and it is looked for where the chain has none.

    Raises ImageError where there is none, or it is of a kind that is not read here; and whatever Pillow raises for a
    file without sense.
    """
    is_raw = False
    for offset, tags in _pages(data):
        is_raw = is_raw or _PARTS in tags  # where cameras keep the picture
        if _DNG in tags or tags.get(_PHOTOMETRIC) in _RAW or data[8:10] == b"CR":
            raise ImageError(name, "is a camera's raw file", "save it as JPEG or PNG first")
        if _is_copy(tags):
            continue
        return _open_page(data, name, offset, tags)
    if (appended := data.find(data[:4], 8)) > 0 and not is_raw:
        with suppress(Exception):  # it was no TIFF after all
            return _open_appended(data[appended:], name)
    raise ImageError(
        name,
        "is a TIFF of small copies without their picture, as a camera's raw file is",
        "save the picture itself as JPEG or PNG first",
    )


def _is_copy(tags: TiffImagePlugin.ImageFileDirectory_v2) -> bool:
    """Whether a page is a smaller copy of another one, or a mask."""
    return bool(tags.get(_SUBFILE, 0) & 5) or tags.get(_OLD_SUBFILE) == 2


def _open_appended(data: bytes, name: str) -> Image.Image:
    """The picture of a TIFF behind another one; raises anything where it is no whole one, or raw."""
    offset, tags = next(_pages(data))
    if _is_copy(tags) or _DNG in tags or tags.get(_PHOTOMETRIC) in _RAW:
        raise ValueError("a preview again")
    return _open_page(data, name, offset, tags)


def _open_page(data: bytes, name: str, offset: int, tags: TiffImagePlugin.ImageFileDirectory_v2) -> Image.Image:
    try:
        # The header leads to this page alone: Pillow would want to understand all the pages before it.
        place, kind = (8, "Q") if _is_big(data) else (4, "I")
        start = data[:place] + struct.pack(("<" if data[:1] == b"I" else ">") + kind, offset)
        image = Image.open(io.BytesIO(start + data[len(start) :]), formats=["TIFF"])
    except UnidentifiedImageError:
        if tags[_WIDTH] > 0 and tags[_HEIGHT] > 0 and not _is_known(tags):  # else it is no whole picture
            raise unread(tags, name) from None
        raise
    check(image, name)
    return image


def _is_known(tags: TiffImagePlugin.ImageFileDirectory_v2) -> bool:
    """Whether Pillow can decode such pixels, so that it must be something else that is wrong."""
    samples, bits, kind = _numbers(tags)
    extra = tags.get(_EXTRA, ())
    colours = (tags.get(_PHOTOMETRIC, _WHITE_IS_ZERO), (kind,), tags.get(_FILL, 1))
    planes_too_many = bool(extra) and tags.get(_PLANAR, 1) == 2  # more than its letters for planes
    known = (tags.prefix, *colours, (bits,) * samples, extra) in TiffImagePlugin.OPEN_INFO
    return known and not planes_too_many and tags.get(_COMPRESSION, 1) in _COMMON


def _is_big(data: bytes) -> bool:
    return data[:4] in SIGNATURES[2:]


def _pages(data: bytes) -> Iterator[tuple[int, TiffImagePlugin.ImageFileDirectory_v2]]:
    """Where each page's directory lies, and what it says; the object is the same each time."""
    file = io.BytesIO(data)
    directory = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if _is_big(data) else 8])
    visited: set[int] = set()
    while directory.next and directory.next not in visited and len(visited) < _MOST_PAGES:
        offset = directory.next
        visited.add(offset)
        file.seek(offset)
        directory.load(file)
        yield offset, directory


def check(image: Image.Image, name: str) -> None:
    """Raises ImageError for a TIFF whose pixels Pillow would take for others; any other picture passes."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    tags = image.tag_v2
    _, bits, kind = _numbers(tags)
    packed = tags.get(_COMPRESSION, 1) != 1
    planar = tags.get(_PLANAR, 1) == 2 and tags.get(_SAMPLES, 1) > 1
    if (
        (planar and (bits != 8 or image.mode in ("LA", "PA") or tags.get(_EXTRA, (2,))[0] == _PREMULTIPLIED))
        or (kind == _SIGNED and bits < 32)
        or (kind == _FLOAT and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO)
        or (kind in (_SIGNED, _FLOAT) and packed and tags.prefix == b"MM")
        or (tags.get(_PHOTOMETRIC) == _YCBCR and tags.get(_COMPRESSION) not in (6, _JPEG))
    ):
        raise unread(tags, name)


def refuse_packing(image: Image.Image, name: str) -> None:
    """Raises ImageError for a TIFF that could not be decoded and is compressed in a way that few programs know."""
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(_COMPRESSION, 1) not in _COMMON:
        raise unread(image.tag_v2, name)


def unread(tags: TiffImagePlugin.ImageFileDirectory_v2, name: str) -> ImageError:
    """The error that names the kind of TIFF: "is a float RGB TIFF, which is not read"."""
    samples, bits, kind = _numbers(tags)
    planar = "planar " if tags.get(_PLANAR, 1) == 2 and samples > 1 else ""
    width = f"{bits}-bit "
    numbers = {_SIGNED: f"signed {width}", _FLOAT: "float " if bits == 32 else f"{width}float "}.get(kind, width)
    photometric = tags.get(_PHOTOMETRIC, _WHITE_IS_ZERO)
    colours = _COLOURS.get(photometric, f"colour type {photometric}")
    alpha = " with further channels" if tags.get(_EXTRA) else ""
    compression = tags.get(_COMPRESSION, 1)
    packed = f" in {_PACKERS.get(compression, f'compression {compression}')}" if compression not in _COMMON else ""
    what = f"{planar}{numbers}{colours} TIFF{alpha}{packed}"
    article = "an" if what.startswith("8") else "a"
    return ImageError(name, f"is {article} {what}, which is not read", "convert it to PNG or JPEG")


def _numbers(tags: Any) -> tuple[int, int, int]:
    """How many numbers a pixel has, of how many bits at most, and their kind (SampleFormat)."""
    bits, kinds = tags.get(_BITS, (1,)), tags.get(_FORMAT, (1,))
    return int(tags.get(_SAMPLES, 1)), max(bits), max(kinds)


def corrected(image: Image.Image) -> Image.Image:
    """A decoded grey TIFF of more than 8 bits as 16 bits, black 0 and white 65,535; any other picture as it is."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or image.mode not in ("I", "I;16", "I;16B"):
        return image
    _, bits, kind = _numbers(image.tag_v2)
    values = np.asarray(image)
    if bits == 12:
        values = np.rint(values * (65535 / 4095)).astype(np.uint16)
    elif bits == 32 and kind == 1:
        values = values.view(np.uint32)
        # White is 2**32 - 1 [page 37], but counts are often kept in 32 bits that 16 are enough for.
        values = (values >> 16 if values.max() > 65535 else values).astype(np.uint16)
    elif image.tag_v2.get(_PHOTOMETRIC) != _WHITE_IS_ZERO:
        return image
    if image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        values = 65535 - values.astype(np.uint16)
    better = Image.fromarray(np.ascontiguousarray(values))
    better.info = image.info
    return better
