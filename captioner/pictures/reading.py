"""Any path, bytes, PIL image or array as an upright RGB picture, or one ImageError."""

import io
import logging
import os
import re
import warnings

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from captioner.errors import ImageError
from captioner.files import explained, open_ordinary, printable
from captioner.pictures import jpeg, tiff
from captioner.pictures.colours import scaled, to_rgb
from captioner.pictures.shards import Packed

ImageSource = str | os.PathLike[str] | bytes | Image.Image | np.ndarray | Packed
"""What `read_image` takes. An array is (H,W), (H,W,1), (H,W,3) or (H,W,4): bool, uint8, uint16, or float in 0..1."""

MAX_PIXELS = 100_000_000
"""A bigger picture is refused: decoded it takes 300 MB and more, few cameras make one (some phones in their 108 and 200
megapixel modes), and a file of a few kilobytes can claim one (a decompression bomb)."""

MAX_BYTES = 200_000_000
"""A bigger file is refused unread: it is held in memory, and a JPEG of MAX_PIXELS stays below it."""

# Pillow's formats that hold pictures. Left out: those that start other programs (EPS runs Ghostscript), stubs that only
# name a format (GRIB, HDF5, WMF ...), and the formats of old games and paint programs that nobody keeps photos in, each
# of which is one more parser for a stranger's bytes. HEIC is read by pillow-heif.
_FORMATS = (
    "JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "DIB", "TIFF", "JPEG2000", "PPM", "QOI", "TGA", "ICO", "ICNS", "PSD",
    "PCX", "SGI",
)  # fmt: skip

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF 2.32, tag 0x0112

_DAMAGED = ("is damaged or cut short", "fetch it again, or open it in an image viewer and save it as JPEG or PNG")

_SIGNATURES = (
    b"\xff\xd8\xff",
    b"\x89PNG",
    b"GIF8",
    b"RIFF",
    *tiff.SIGNATURES,
    b"BM",
    b"8BPS",
    b"\x00\x00\x01\x00",
)

_PILLOWS_WARNINGS = re.compile(r"PIL\.")


def read_image(source: ImageSource, *, at_least: int | None = None) -> Image.Image:
    """The picture in mode RGB, upright (EXIF), its first frame, transparency over white, 16 bits scaled to 8.

    Its colours are those of its embedded profile (ICC), converted to sRGB; a profile that cannot be used is ignored.

    A PIL image given is left as it was (its current frame is taken) and the answer never shares its pixels. With
    `at_least`, a large JPEG may come 2, 4 or 8 times smaller, with no side below `at_least` pixels: decoding is most
    of the work, and this skips most of it.

    Greyscale beyond 16 bits has no agreed white: integers (mode I) count as 16 bits and floats (mode F) as 0..1 or
    0..255, whichever they fit; values that fit neither are stretched from their least (black) to their greatest.

    Raises ImageError, and nothing else, where the source is missing, damaged, too big or not a picture.
    """
    return read_sized(source, at_least=at_least)[0]


def read_sized(source: ImageSource, *, at_least: int | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """As `read_image`, with the width and height that the upright picture has when it is decoded in full."""
    if isinstance(source, Image.Image):
        picture = _rgb_or_error(source, "the picture")
        return picture, picture.size
    if isinstance(source, np.ndarray):
        picture = _from_array(source)
        return picture, picture.size
    if isinstance(source, bytes):
        data, name = source, "the picture"
    elif isinstance(source, Packed):
        name = source.told
        _check_bytes(source.size, name)
        data = source.read()
    elif isinstance(source, str | os.PathLike):
        name = printable(source)
        data = _read_file(source, name)
    else:
        raise ImageError(
            "the picture", f"is a {type(source).__name__}", "give a path, bytes, a PIL image or a numpy array instead"
        )
    return _decode(data, name, at_least)


def _read_file(path: str | os.PathLike[str], name: str) -> bytes:
    file = io.BufferedReader(open_ordinary(path, "picture", ImageError))
    with file, explained(path, "picture", ImageError):
        size = os.fstat(file.fileno()).st_size
        _check_bytes(size, name)
        return file.read(size)


def _check_bytes(size: int, name: str) -> None:
    if size > MAX_BYTES:
        raise ImageError(
            name, f"has {size / 1e6:.0f} MB, more than the {MAX_BYTES // 10**6} MB allowed", "save a smaller copy"
        )


def _check_pixels(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width * height == 0:
        raise ImageError(name, f"has {width} x {height} pixels, that is none", "give another picture")
    if width * height > MAX_PIXELS:
        raise ImageError(
            name,
            f"has {width} x {height} pixels, more than the {MAX_PIXELS // 10**6} million allowed",
            "save a smaller copy",
        )


def _decode(data: bytes, name: str, at_least: int | None) -> tuple[Image.Image, tuple[int, int]]:
    _check_bytes(len(data), name)
    _quieten_pillow()
    try:
        image, size = _open(data, name, at_least)
        try:
            image.load()
        except OSError:
            tiff.refuse_packing(image, name)
            mended = jpeg.completed(data) if image.format == "JPEG" else None
            if mended is None:
                raise
            image, size = _open(mended, name, at_least)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        # Pillow's own limit (about 179 million pixels, never below ours unless somebody lowered it).
        raise ImageError(
            name, f"has more than the {MAX_PIXELS // 10**6} million pixels allowed", "save a smaller copy"
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(name, *_what_it_is(data)) from error
    except Exception as error:
        raise ImageError(name, *_DAMAGED) from error
    picture = _rgb_or_error(image, name)
    if size is None:
        return picture, picture.size
    return picture, (size[1], size[0]) if _orientation(image) in (5, 6, 7, 8) else size


def _open(data: bytes, name: str, at_least: int | None) -> tuple[Image.Image, tuple[int, int] | None]:
    """The picture as it is about to be decoded, its size checked; and that size where it will come smaller."""
    image = _recognise(data, name)
    size = image.size
    _check_pixels(size, name)  # of the header: nothing is decoded yet
    if at_least is None or image.format not in ("JPEG", "MPO"):  # a HEIC photo's draft is its embedded thumbnail
        return image, None
    image.draft(None, (at_least, at_least))
    return image, size


def _recognise(data: bytes, name: str) -> Image.Image:
    if data[4:8] == b"ftyp" and data[8:11] in (b"hei", b"hev", b"mif", b"msf") and b"avi" not in data[12:64]:
        try:
            from pillow_heif import HeifImageFile  # asked by name: nothing is registered with Pillow
        except ImportError as error:
            raise ImageError(
                name, "is an HEIC photo, which needs one more package", "pip install pillow-heif"
            ) from error
        return HeifImageFile(io.BytesIO(data))  # type: ignore[no-any-return, no-untyped-call, unused-ignore]
    if data.startswith(tiff.SIGNATURES):
        return tiff.open_page(data, name)
    Image.init()  # once in a process; until then Image.open does not know every format
    return Image.open(io.BytesIO(data), formats=[name for name in _FORMATS if name in Image.OPEN])


def _rgb_or_error(image: Image.Image, name: str) -> Image.Image:
    _quieten_pillow()
    try:
        _check_pixels(image.size, name)
        tiff.check(image, name)
        image.load()
        _check_pixels(image.size, name)  # an icon holds a picture of any size behind its own header
        orientation = _orientation(image)  # after loading, which turns TIFFs itself and says so here
        picture = to_rgb(tiff.corrected(image))
        if orientation in _UPRIGHT:
            picture = picture.transpose(_UPRIGHT[orientation])
        picture.info = {}  # with the orientation, or a second reading would turn it again
        return picture
    except ImageError:
        raise
    except Exception as error:
        # Anything: Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, EOFError,
        # IndexError, KeyError, TypeError, OverflowError, MemoryError, RuntimeError ... for a stranger's bytes.
        raise ImageError(name, *_DAMAGED) from error


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # EXIF that cannot be read turns nothing; the picture itself may be whole
        return 1


def _from_array(array: np.ndarray) -> Image.Image:
    shape = array.shape
    if len(shape) == 3 and shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and shape[2] in (3, 4))) or 0 in shape:
        raise ImageError(
            "the picture",
            f"is an array of shape {shape}",
            "give (height, width), or (height, width, 1, 3 or 4 channels)",
        )
    _check_pixels((shape[1], shape[0]), "the picture")
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype == np.uint16:
        array = scaled(array, 65535)
    elif array.dtype.kind == "f":
        low, high = array.min(), array.max()
        if not (low >= 0 and high <= 1):  # not a number fails both
            raise ImageError(
                "the picture", f"is an array of {array.dtype} from {low} to {high}", "scale it to 0..1, or give uint8"
            )
        array = scaled(array, 1)
    elif array.dtype != np.uint8:
        raise ImageError(
            "the picture", f"is an array of {array.dtype}", "give uint8, uint16, bool, or floating point in 0..1"
        )
    return to_rgb(Image.fromarray(np.ascontiguousarray(array)))


def _what_it_is(data: bytes) -> tuple[str, str]:
    """What a file that is no picture seems to be, and what to do about it."""
    start = data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not data:
        return "is empty (0 bytes)", "fetch it again"
    if start.startswith(b"<svg") or (start.startswith((b"<?xml", b"<!doctype svg", b"<!--")) and b"<svg" in start):
        return "is an SVG drawing, not a photo", "export it as PNG or JPEG first"
    if start.startswith((b"<!doctype html", b"<html")):
        return "is a web page, not a picture", "download the picture itself"
    if start.startswith((b"%pdf", b"%!ps", b"\xc5\xd0\xd3\xc6")):
        return "is a PDF or PostScript document, not a picture", "export it as PNG or JPEG first"
    if data.startswith((b"PK\x03\x04", b"\x1f\x8b", b"Rar!", b"7z\xbc\xaf")) or data[257:262] == b"ustar":
        return "is an archive, not a picture", "unpack it first"
    if data.startswith(_SIGNATURES) or data[4:12] in (b"ftypavif", b"ftypavis"):
        return _DAMAGED
    if data[4:8] == b"ftyp" or data.startswith(b"\x1aE\xdf\xa3"):
        return "is a video (for the command `video`) or a camera's raw file", "save it as JPEG or PNG first"
    return "is not a picture in a format known here", "open it in an image viewer and save it as JPEG or PNG"


def _quieten_pillow() -> None:
    """Keeps Pillow's remarks on odd files (bombs, broken EXIF, malformed APNG) off the console.

    They say nothing that the picture or the ImageError does not. warnings.catch_warnings would be the local way, but
    it swaps the process's filters there and back, which two threads do in the wrong order sooner or later. So one
    narrow filter goes in and stays: the one thing that reading a picture leaves behind. It is looked for first, because
    adding one makes Python forget which of the other libraries' warnings were shown. (libtiff's remarks on a damaged
    compressed TIFF still reach stderr: they are printed in C.)
    """
    if not any(rule[0] == "ignore" and rule[3] == _PILLOWS_WARNINGS for rule in warnings.filters):
        warnings.filterwarnings("ignore", module=_PILLOWS_WARNINGS.pattern)
        logging.getLogger("PIL").addHandler(logging.NullHandler())
