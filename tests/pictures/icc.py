"""Colour profiles (ICC.1:2010) written by hand, and the arithmetic that they stand for."""

import struct

import numpy as np

D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

D65_WHITE, D50_WHITE = (0.3127, 0.3290), (0.34567, 0.35850)
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), D65_WHITE)
PRIMARIES = {  # x, y of red, green, blue and white
    "Display P3": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65_WHITE),
    "Adobe RGB": ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), D65_WHITE),
    "ProPhoto": ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001), D50_WHITE),
    "swapped": ((0.15, 0.06), (0.30, 0.60), (0.64, 0.33), D65_WHITE),
}


def to_xyz(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """The matrix from linear RGB to XYZ under D50, the white of every profile."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    white = columns[:, 3]
    matrix = columns[:, :3] * np.linalg.solve(columns[:, :3], white)
    gains = (_BRADFORD @ D50) / (_BRADFORD @ white)
    return np.linalg.inv(_BRADFORD) @ np.diag(gains) @ _BRADFORD @ matrix


def linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB in 0..255 as light in 0..1 (IEC 61966-2-1)."""
    share = np.asarray(srgb) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def stored(srgb: np.ndarray, primaries: tuple[tuple[float, float], ...], gamma: float) -> np.ndarray:
    """The numbers that stand for these sRGB colours under a profile of such primaries and gamma, 0..255."""
    light = linear(srgb) @ to_xyz(SRGB).T @ np.linalg.inv(to_xyz(primaries)).T
    return np.rint(255 * light.clip(0, 1) ** (1 / gamma)).astype(np.uint8)


def rgb_profile(primaries: tuple[tuple[float, float], ...], gamma: float, name: str = "made by hand") -> bytes:
    tags = {f"{c}XYZ".encode(): _xyz(column) for c, column in zip("rgb", to_xyz(primaries).T, strict=True)}
    return _profile(b"RGB ", b"XYZ ", tags | {f"{c}TRC".encode(): _curve(gamma) for c in "rgb"}, name)


def grey_profile(gamma: float) -> bytes:
    return _profile(b"GRAY", b"XYZ ", {b"kTRC": _curve(gamma)}, "grey")


def cmyk_profile(corners: np.ndarray) -> bytes:
    """`corners` (2,2,2,2,3): L*a*b* of each full or empty cyan, magenta, yellow, black."""
    table = np.rint(corners.reshape(16, 3) * [2.55, 1, 1] + [0, 128, 128]).clip(0, 255).astype(np.uint8)
    ramp = bytes(range(256))
    unit = b"".join(struct.pack(">i", 65536 * (i % 4 == 0)) for i in range(9))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + unit + ramp * 4 + table.tobytes() + ramp * 3
    return _profile(b"CMYK", b"Lab ", {b"A2B0": lut, b"A2B1": lut, b"A2B2": lut}, "print", device=b"prtr")


def lab_to_xyz(lab: np.ndarray) -> np.ndarray:
    """CIE 15, under D50."""
    y = (lab[..., 0] + 16) / 116
    f = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], -1)
    return np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * D50


def from_xyz(xyz: np.ndarray) -> np.ndarray:
    """sRGB, 0..255."""
    light = (xyz @ np.linalg.inv(to_xyz(SRGB)).T).clip(0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(65536 * value)) for value in values)


def _curve(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(256 * gamma))


def _profile(space: bytes, connection: bytes, tags: dict[bytes, bytes], name: str, device: bytes = b"mntr") -> bytes:
    text = name.encode()
    described = b"desc" + bytes(4) + struct.pack(">I", len(text) + 1) + text + bytes(1 + 4 + 4 + 2 + 1 + 67)
    tags = {b"desc": described, b"wtpt": _xyz(D50), b"cprt": b"text" + bytes(4) + b"none\x00"} | tags
    header = bytes(4) + bytes(4) + struct.pack(">I", 0x02400000) + device + space + connection
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _xyz(D50)[8:] + bytes(48)
    table, data = struct.pack(">I", len(tags)), b""
    place = 128 + 4 + 12 * len(tags)
    for tag, content in tags.items():
        table += tag + struct.pack(">II", place + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    whole = header + table + data
    return struct.pack(">I", len(whole)) + whole[4:]
