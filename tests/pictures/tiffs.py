"""TIFF files of every kind, written by hand from the samples they are to hold (TIFF 6.0; pages in brackets)."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

UNSIGNED, SIGNED, FLOAT = 1, 2, 3  # SampleFormat [80]
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8  # PhotometricInterpretation [37]
NONE, LZW, DEFLATE, PACKBITS = 1, 5, 8, 32773  # Compression
REDUCED = (254, 4, (1,))  # NewSubfileType [36]: a smaller copy of another page


@dataclass(frozen=True)
class Page:
    samples: np.ndarray
    """(height, width, channels)."""
    photometric: int
    bits: int
    kind: int = UNSIGNED
    planar: bool = False
    compression: int = NONE
    rows: int = 1 << 20
    """Of a strip."""
    tile: int | None = None
    predictor: bool = False
    extra: tuple[int, ...] = ()
    """What the channels behind the colours are: 0 anything, 1 premultiplied alpha, 2 alpha [31]."""
    more: tuple[tuple[int, int, tuple[int, ...]], ...] = ()
    """Further tags: number, type, values."""


def scaled(shares: np.ndarray, bits: int, kind: int = UNSIGNED) -> np.ndarray:
    """Shares of white, 0..1, as samples: the greatest number is white [37], and 1 in floating point."""
    if kind == FLOAT:
        return shares.astype(f"f{bits // 8}")
    greatest = 2.0 ** (bits - (kind == SIGNED)) - 1
    if bits == 64:
        greatest = np.nextafter(greatest, 0)  # the greatest number itself is no float
    width = max(8, 1 << (bits - 1).bit_length())
    return np.rint(shares * greatest).astype(f"{'i' if kind == SIGNED else 'u'}{width // 8}")


def tiff(*pages: Page, order: str = "<") -> bytes:
    """The pages as a file, in the byte order of `struct`."""
    file = bytearray((b"II*\x00" if order == "<" else b"MM\x00*") + bytes(4))
    link = 4
    for page in pages:
        offsets, counts = [], []
        for block in _blocks(page, order):
            offsets.append(len(file))
            counts.append(len(block))
            file += block + bytes(len(block) % 2)
        height, width, channels = page.samples.shape
        tags = [
            (256, 4, (width,)), (257, 4, (height,)), (258, 3, (page.bits,) * channels), (259, 3, (page.compression,)),
            (262, 3, (page.photometric,)), (277, 3, (channels,)), (284, 3, (1 + page.planar,)),
            (339, 3, (page.kind,) * channels), *page.more,
        ]  # fmt: skip
        if page.tile:
            tags += [(322, 4, (page.tile,)), (323, 4, (page.tile,)), (324, 4, tuple(offsets)), (325, 4, tuple(counts))]
        else:
            tags += [(273, 4, tuple(offsets)), (278, 4, (min(page.rows, height),)), (279, 4, tuple(counts))]
        tags += [(317, 3, (2,))] * page.predictor + [(338, 3, page.extra)] * bool(page.extra)
        struct.pack_into(order + "I", file, link, len(file))
        entries, values = b"", b""
        beyond = len(file) + 2 + 12 * len(tags) + 4
        for number, kind, content in sorted(tags):
            value = struct.pack(f"{order}{len(content)}{ {1: 'B', 3: 'H', 4: 'I'}[kind] }".replace(" ", ""), *content)
            if len(value) > 4:
                place = struct.pack(order + "I", beyond + len(values))
                values += value + bytes(len(value) % 2)
                value = place
            entries += struct.pack(order + "HHI", number, kind, len(content)) + value.ljust(4, b"\x00")
        file += struct.pack(order + "H", len(tags)) + entries
        link = len(file)
        file += bytes(4) + values
    return bytes(file)


def _blocks(page: Page, order: str) -> Iterator[bytes]:
    """The strips or tiles, compressed; plane by plane where the page is planar."""
    planes = np.split(page.samples, page.samples.shape[2], axis=2) if page.planar else [page.samples]
    for plane in planes:
        high, wide = (page.tile, page.tile) if page.tile else (page.rows, plane.shape[1])
        for top in range(0, plane.shape[0], high):
            for left in range(0, plane.shape[1], wide):
                block = plane[top : top + high, left : left + wide]
                if page.tile:
                    block = np.pad(block, ((0, high - block.shape[0]), (0, wide - block.shape[1]), (0, 0)))
                if page.predictor:
                    block = np.diff(block, axis=1, prepend=np.zeros_like(block[:, :1]))
                yield _COMPRESS[page.compression](_packed(block, page.bits, order))


def _packed(samples: np.ndarray, bits: int, order: str) -> bytes:
    """Samples as bytes, every row from a byte of its own on; of less than 8 bits the first are the highest."""
    if samples.dtype.itemsize * 8 == bits:
        return samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    rows = samples.reshape(len(samples), -1).astype(np.uint64)
    parted = (rows[..., None] >> np.arange(bits - 1, -1, -1, dtype=np.uint64)) & np.uint64(1)
    return np.packbits(parted.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()


def _lzw(data: bytes) -> bytes:
    """LZW that saves nothing: each byte is its own code, and the table is emptied before the codes grow [58]."""
    codes = [256]
    for start in range(0, len(data), 200):
        codes += [*data[start : start + 200], 256]
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def _packbits(data: bytes) -> bytes:
    chunks = [data[start : start + 128] for start in range(0, len(data), 128)]
    return b"".join(bytes([len(chunk) - 1]) + chunk for chunk in chunks)


_COMPRESS = {NONE: bytes, LZW: _lzw, DEFLATE: zlib.compress, PACKBITS: _packbits}
