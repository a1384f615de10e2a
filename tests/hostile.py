"""Picture files that are no pictures: everything a stranger may upload, or a disk may hand back, made at run time.

`read_image` answers each of them with an ImageError. Files that look odd and still decode belong in test_images.py.
"""

import io
import random
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def noise(width: int = 64, height: int = 48, *, seed: int = 0) -> Image.Image:
    """An RGB picture that no format compresses to nothing, so that half of its file is half of its pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    """The picture as a file of the format `kind`."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """A greyscale PNG that claims a size, with these chunks after its header."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return PNG_SIGNATURE + png_chunk(b"IHDR", header) + b"".join(chunks) + png_chunk(b"IEND", b"")


def bmp(width: int, height: int) -> bytes:
    """A 24-bit BMP that claims a size and holds ten bytes of pixels."""
    return b"BM" + struct.pack("<IHHI", 64, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, *[0] * 6) + b"x" * 10  # fmt: skip


def tiff(*entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    """A little-endian TIFF of one directory: (tag, type, count, value) each, and the offset of the next directory."""
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\x00" + struct.pack("<I", 8) + directory + struct.pack("<I", following) + bytes(64)


def _contents() -> dict[str, bytes]:
    photo = noise()
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(9 * 8)))
    whole = {
        "jpg": encoded(photo, "JPEG", quality=90),
        "progressive.jpg": encoded(photo, "JPEG", progressive=True),
        "png": encoded(photo, "PNG"),
        "gif": encoded(photo, "GIF"),
        "webp": encoded(photo, "WEBP", lossless=True),
        "tiff": encoded(photo, "TIFF"),
        "lzw.tiff": encoded(photo, "TIFF", compression="tiff_lzw"),
        "bmp": encoded(photo, "BMP"),
        "ppm": encoded(photo, "PPM"),
        "tga": encoded(photo, "TGA"),
        "jp2": encoded(photo, "JPEG2000"),
        "ico": encoded(photo, "ICO", sizes=[(48, 48)]),
        "mpo": encoded(photo, "MPO", save_all=True, append_images=[noise(seed=1)]),
    }
    cut = {f"cut.{suffix}": data[: len(data) // (3 if suffix == "mpo" else 2)] for suffix, data in whole.items()}

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("photo.png", whole["png"])
    damaged_header = bytearray(whole["png"])
    damaged_header[18] ^= 0xFF  # the width; the check sum stays
    damaged_pixels = bytearray(whole["png"])
    damaged_pixels[41:61] = b"\xff" * 20  # the start of the compressed stream
    bomb_text = png_chunk(b"zTXt", b"Comment\x00\x00" + zlib.compress(bytes(80_000_000)))
    size = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    return cut | {
        "empty.jpg": b"",
        "one byte.png": b"\x89",
        "spaces.jpg": b" " * 5000,
        "zeros.png": bytes(5000),
        "random.jpg": random.Random(7).randbytes(5000),
        "text.jpg": b"This is not a photo.\n",
        "page.png": b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>\n",
        "answer.webp": b'{"error": "not found"}',
        "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9"/></svg>',
        "drawing.png": b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- a drawing -->\n<svg width="9" height="9"></svg>',
        "document.pdf": b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\nendobj\n%%EOF\n",
        "postscript.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n",
        "postscript.jpg": b"\xc5\xd0\xd3\xc6" + struct.pack("<6I", 32, 60, 0, 0, 0, 0) + b"%!PS-Adobe-3.0 EPSF-3.0\n" * 3,
        "archive.jpg": archive.getvalue(),
        "archive.png": b"photo.png".ljust(257, b"\x00") + b"ustar\x0000" + bytes(1024),
        "archive.gif": b"\x1f\x8b\x08\x00" + bytes(64),
        "film.jpg": b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + bytes(64),
        "film.heic": b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(64),
        "film.avif": b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00avifmif1miaf" + bytes(64),
        "program.jpg": b"\x7fELF" + bytes(500),
        "header only.jpg": whole["jpg"][:20],
        "marker only.jpg": b"\xff\xd8\xff",
        "no picture in it.jpg": b"\xff\xd8\xff\xd9",
        "segment of no length.jpg": b"\xff\xd8\xff\xe1\x00\x00" + bytes(200),
        "sizeless.jpg": b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x00\x00\x00\x01\x01\x11\x00\xff\xd9",
        "damaged header.png": bytes(damaged_header),
        "damaged pixels.png": bytes(damaged_pixels),
        "no width.png": png(0, 8, pixels),
        "no pixels.png": png(8, 8),
        "bomb.png": png(60_000, 60_000, pixels),
        "smaller bomb.png": png(12_000, 10_000, pixels),
        "thin bomb.png": png(2**31 - 1, 1, pixels),
        "text bomb.png": png(8, 8, bomb_text, pixels),
        "long chunk.png": png(8, 8, struct.pack(">I", 2**31 - 1) + b"tEXt" + b"a" * 50),
        "bomb.gif": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02L\x01\x00;",
        "no frame.gif": b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0) + b";",
        "bomb.bmp": bmp(60_000, 60_000),
        "negative.bmp": bmp(-60_000, -2_000_000),
        "short.bmp": bmp(100, 100),
        "loop.tiff": tiff(following=8),
        "far strip.tiff": tiff(*size, (273, 4, 1, 2**31), (278, 4, 1, 8), (279, 4, 1, 2**32 - 1), following=8),
        "many strips.tiff": tiff(*size, (273, 4, 2**31, 8), (278, 4, 1, 8), (279, 4, 2**31, 64)),
        "bomb.tiff": tiff((256, 4, 1, 10**6), (257, 4, 1, 10**6), *size[2:], (273, 4, 1, 8), (279, 4, 1, 64)),
        "bomb.ppm": b"P6 60000 60000 255\n" + bytes(100),
        "negative.ppm": b"P6 -8 8 255\n" + bytes(200),
        "lie.webp": b"RIFF\xff\xff\xff\x7fWEBPVP8L" + struct.pack("<I", 2**31) + bytes(50),
        "corrupt.ico": b"\x00\x00\x01\x00\x01\x00\x10\x10\x00\x00\x01\x00\x20\x00" + struct.pack("<II", 2**31, 22),
        "bomb.ico": b"\x00\x00\x01\x00\x01\x00\x10\x10\x00\x00\x01\x00\x20\x00" + struct.pack("<II", 80, 22) + png(20_000, 20_000, pixels),
        "corrupt.icns": b"icns\x00\x00\x00\x40ic07\x00\x00\x00\x38" + b"\x00" * 48,
        "corrupt.psd": b"8BPS\x00\x01" + bytes(6) + struct.pack(">HIIHH", 3, 8, 8, 8, 3) + b"\xff" * 20,
        "corrupt.qoi": b"qoif" + struct.pack(">IIBB", 64, 64, 3, 0) + b"\xfe\x00",
        "corrupt.pcx": b"\x0a\x05\x01\x08" + struct.pack("<HHHH", 9, 9, 0, 0) + bytes(116),
        "corrupt.sgi": b"\x01\xda\x01\x01" + struct.pack(">HHHH", 3, 64, 64, 3) + bytes(8),
        "two\nlines.jpg": b"no photo",
        "caf\u00e9 \u65e5\u672c \U0001f436.jpg": b"no photo",
    }  # fmt: skip


def write_hostile_files(folder: Path) -> dict[str, Path]:
    """Writes them all into the folder; their paths by name. One is a directory, one leads nowhere, one is sparse."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = _contents()
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    (folder / "directory.jpg").mkdir()
    (folder / "dangling.jpg").symlink_to(folder / "nowhere.jpg")
    with (folder / "huge.jpg").open("wb") as file:
        file.write(contents["cut.jpg"])
        file.truncate(10**9)  # no block of it is on the disk
    return {name: folder / name for name in [*contents, "directory.jpg", "dangling.jpg", "huge.jpg"]}
