"""A JPEG that lacks its end marker alone is read; one that lacks a bit of a picture is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner.errors import ImageError
from captioner.pictures import read_image
from tests.hostile import encoded, noise

CASES = Path(__file__).parents[3] / "shared" / "cases" / "jpeg-without-eoi"


def smooth(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 3 % 256, y * 5 % 256, (x + y) % 256], -1).astype(np.uint8))


KINDS = {
    "baseline": encoded(smooth(90, 70), "JPEG", quality=85),
    "noise": encoded(noise(61, 47), "JPEG", quality=95, subsampling=0),
    "black": encoded(Image.new("RGB", (64, 64)), "JPEG"),
    "grey": encoded(smooth(90, 70).convert("L"), "JPEG"),
    "inks": encoded(smooth(90, 70).convert("CMYK"), "JPEG"),
    "progressive": encoded(smooth(90, 70), "JPEG", progressive=True),
    "progressive noise": encoded(noise(61, 47), "JPEG", progressive=True, quality=95),
    "optimised": encoded(smooth(90, 70), "JPEG", optimize=True),
    "restarts": encoded(smooth(90, 70), "JPEG", restart_marker_blocks=2),
    "restarts each block": encoded(noise(64, 48), "JPEG", restart_marker_blocks=1),
    "restarts in rows": encoded(smooth(90, 70), "JPEG", restart_marker_rows=1, progressive=True),
    "one block": encoded(smooth(8, 8), "JPEG"),
}


@pytest.mark.parametrize("at_least", [None, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_without_its_end_marker_is_read(kind: str, at_least: int | None) -> None:
    """Its two bytes, one of them, or both with other bytes in their place: the pixels are those of the whole file."""
    whole = KINDS[kind]
    assert whole.endswith(b"\xff\xd9")
    expected = read_image(whole, at_least=at_least).tobytes()
    for data in (whole[:-2], whole[:-1], whole[:-2] + bytes(600), whole[:-2] + b"\xff" * 600):
        assert read_image(data, at_least=at_least).tobytes() == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_that_lacks_a_part_of_its_picture_is_refused(kind: str) -> None:
    """From the last byte of the picture on, wherever it is cut: at restart markers and between scans too."""
    whole = KINDS[kind]
    start = whole.index(b"\xff\xda")
    cuts = {*range(len(whole) - 40, len(whole) - 2), *np.linspace(start, len(whole) - 3, 40).astype(int)}
    cuts |= {place for place in range(start + 1, len(whole) - 2) if whole[place] == 0xFF and whole[place + 1]}
    for cut in sorted(cut for cut in cuts if cut > start):
        for marker in (b"", b"\xff"):
            with pytest.raises(ImageError, match="cut short"):
                read_image(whole[:cut] + marker)


def test_a_cut_jpeg_as_people_have_it() -> None:
    """A file of another program, and its cut copy."""
    if not CASES.is_dir():
        pytest.skip(f"there are no cases at {CASES}")
    assert read_image(CASES / "no-eoi.jpg").tobytes() == read_image(CASES / "whole.jpg").tobytes()


def test_a_picture_in_several_scans_lacks_one() -> None:
    """Sequential JPEG, a scan for each component: without the last scan its colours would be wrong in silence."""
    grey = encoded(smooth(64, 64).convert("L"), "JPEG")
    frame = grey.index(b"\xff\xc0")
    rest = frame + 2 + int.from_bytes(grey[frame + 2 : frame + 4], "big")
    three = b"\xff\xc0\x00\x11" + grey[frame + 4 : frame + 9] + b"\x03\x01\x11\x00\x02\x11\x00\x03\x11\x00"
    with pytest.raises(ImageError, match="cut short"):
        read_image(grey[:frame] + three + grey[rest:-2])
