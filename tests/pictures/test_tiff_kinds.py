"""Every kind of TIFF is read right or refused by its name: compared with the samples that went in, and with FFmpeg."""

import io
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from captioner.errors import ImageError
from captioner.pictures import read_image
from tests.hostile import noise
from tests.pictures import icc, tiffs
from tests.pictures.tiffs import CMYK, FLOAT, LAB, PALETTE, REDUCED, RGB, SIGNED, UNSIGNED, YCBCR, Page, scaled, tiff

CASES = Path(__file__).parents[3] / "shared" / "cases"
Y, X = np.mgrid[:20, :24]
COLOURS = np.stack([X / 23, Y / 19, (X + Y) / 42], -1)
"""What every file shows, in shares of white; of a grey one the red channel."""
OPAQUE = np.ones((20, 24, 1))
COLOUR_KINDS = {  # photometric interpretation, further channels
    "white is zero": (tiffs.WHITE_IS_ZERO, ()),
    "grey": (tiffs.BLACK_IS_ZERO, ()),
    "grey and alpha": (tiffs.BLACK_IS_ZERO, (2,)),
    "grey and premultiplied alpha": (tiffs.BLACK_IS_ZERO, (1,)),
    "grey and more": (tiffs.BLACK_IS_ZERO, (0,)),
    "palette": (PALETTE, ()),
    "RGB": (RGB, ()),
    "RGBA": (RGB, (2,)),
    "RGBA premultiplied": (RGB, (1,)),
    "RGBX": (RGB, (0,)),
    "CMYK": (CMYK, ()),
    "YCbCr": (YCBCR, ()),
}
NUMBER_KINDS = [
    *((bits, UNSIGNED) for bits in (1, 2, 4, 8, 12, 16, 32, 64)),
    *((bits, SIGNED) for bits in (8, 16, 32)),
    *((bits, FLOAT) for bits in (16, 32, 64)),
]
READ = {  # what nobody should be sent away with
    *itertools.product(("white is zero", "grey", "palette"), [(1, UNSIGNED), (2, UNSIGNED), (4, UNSIGNED), (8, UNSIGNED)]),
    *itertools.product(("grey", "RGB", "RGBA", "RGBA premultiplied", "CMYK"), [(8, UNSIGNED), (16, UNSIGNED)]),
    ("grey and alpha", (8, UNSIGNED)),
}  # fmt: skip


def samples(colours: str, bits: int, kind: int) -> Page | None:
    photometric, extra = COLOUR_KINDS[colours]
    grey = COLOURS[..., :1]
    more: tuple[tuple[int, int, tuple[int, ...]], ...] = ()
    if photometric == PALETTE:
        if (kind, bits) not in [(UNSIGNED, 1), (UNSIGNED, 2), (UNSIGNED, 4), (UNSIGNED, 8)]:
            return None
        ramp = tuple(int(level) for level in np.linspace(0, 65535, 2**bits).round())
        more = ((320, 3, ramp * 3),)
    shares = {
        "white is zero": 1 - grey,
        "CMYK": 1 - np.concatenate([COLOURS, OPAQUE], -1),
        "YCbCr": COLOURS @ np.array([[0.299, -0.1687, 0.5], [0.587, -0.3313, -0.4187], [0.114, 0.5, -0.0813]])
        + [0, 0.5, 0.5],
    }.get(colours, COLOURS if photometric == RGB else grey)
    if colours == "YCbCr":
        more = ((530, 3, (1, 1)),)
    if extra:
        shares = np.concatenate([shares, OPAQUE], -1)
    return Page(scaled(shares, bits, kind), photometric, bits, kind, extra=extra, more=more)


def layouts(page: Page) -> Iterator[tuple[Page, str]]:
    """A page in every layout and byte order."""
    channels = page.samples.shape[2]
    for planar, compression, where, predictor, order in itertools.product(
        (False, True), (tiffs.NONE, tiffs.LZW, tiffs.DEFLATE, tiffs.PACKBITS), ({}, {"rows": 7}, {"tile": 16}), (False, True), "<>"
    ):  # fmt: skip
        if planar and channels == 1:
            continue
        if predictor and (
            compression not in (tiffs.LZW, tiffs.DEFLATE) or page.bits not in (8, 16, 32) or page.kind == FLOAT
        ):
            continue
        if page.bits < 8 and channels > 1:
            continue
        yield replace(page, planar=planar, compression=compression, predictor=predictor, **where), order


def expected(colours: str) -> np.ndarray:
    return 255 * (COLOURS if COLOUR_KINDS[colours][0] in (RGB, CMYK, YCBCR) else np.repeat(COLOURS[..., :1], 3, -1))


def check(data: bytes, colours: str, bits: int, what: object) -> bool:
    """Whether the file was read, and then right; a refusal must name its kind."""
    coarse = 255 / (2**bits - 1) / 2
    for source in (data, None):
        try:
            got = np.asarray(read_image(source or Image.open(io.BytesIO(data)))).astype(float)
        except ImageError as error:
            said = str(error)
            assert "TIFF" in said, (what, said)
            assert "which is not read: convert it to PNG or JPEG" in said, (what, said)
            assert "damaged" not in said
            return False
        assert np.abs(got - expected(colours)).max() <= coarse + 1, what
    return True


def go_through(every: int) -> int:
    read, number = 0, 0
    for colours, (bits, kind) in itertools.product(COLOUR_KINDS, NUMBER_KINDS):
        page = samples(colours, bits, kind)
        if page is None:
            continue
        for laid, order in layouts(page):
            number += 1
            plain = laid.compression == tiffs.NONE and not laid.planar and not laid.tile
            if number % every and not plain:
                continue
            done = check(tiff(laid, order=order), colours, bits, (colours, bits, kind, order, replace(laid, samples=X)))
            read += done
            if (colours, (bits, kind)) in READ and not laid.planar:
                assert done, (colours, bits, order)
    return read


def test_every_kind_is_read_right_or_named() -> None:
    """Colours, widths, number kinds, in both byte orders, as strips; of the other layouts every eleventh."""
    assert go_through(11) > 150


@pytest.mark.slow
def test_every_layout_of_every_kind_is_read_right_or_named() -> None:
    """Also planes, tiles, four compressions and the predictor: some six thousand files."""
    assert go_through(1) > 1000


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("colours", "bits"),
    [("white is zero", 8), ("white is zero", 16), ("grey", 8), ("grey", 16), ("RGB", 8), ("RGB", 16), ("RGBA", 8), ("palette", 8)],
)  # fmt: skip
def test_ffmpeg_sees_the_same(colours: str, bits: int, order: str) -> None:
    """What this file's writer holds to be a TIFF of a kind, an independent decoder reads so too."""
    page = samples(colours, bits, UNSIGNED)
    assert page
    data = tiff(page, order=order)
    with av.open(io.BytesIO(data), format="tiff_pipe") as file:
        seen = next(file.decode(video=0)).to_ndarray(format="rgb24").astype(float)
    assert np.abs(seen - expected(colours)).max() <= 2
    if check(data, colours, bits, colours):
        assert np.abs(seen - np.asarray(read_image(data))).max() <= 2


def test_lab() -> None:
    """CIELab of 8 bits, by the formulas of CIE 15."""
    lab = np.array([[[100, 0, 0], [50, 0, 0], [53, 80, 67]], [[0, 0, 0], [60, -40, 30], [40, 20, -50]]])
    stored = np.stack([np.rint(lab[..., 0] * 2.55), lab[..., 1], lab[..., 2]], -1).astype(int) & 255
    got = np.asarray(read_image(tiff(Page(stored.astype(np.uint8), LAB, 8)))).astype(float)
    assert np.abs(got - icc.from_xyz(icc.lab_to_xyz(lab))).max() <= 4


def photo(number: int = 0) -> Page:
    return Page(np.asarray(noise(48, 36, seed=number)), RGB, 8)


PREVIEW = Page(np.zeros((12, 16, 3), np.uint8), RGB, 8, more=(REDUCED,))
MASK = Page(np.zeros((36, 48, 1), np.uint8), tiffs.BLACK_IS_ZERO, 8, more=((254, 4, (4,)),))
OLD_PREVIEW = replace(PREVIEW, more=((255, 3, (2,)),))
STRANGE_PREVIEW = Page(scaled(COLOURS, 64, FLOAT), RGB, 64, FLOAT, more=(REDUCED,))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    "before", [[], [PREVIEW], [PREVIEW, PREVIEW], [MASK], [OLD_PREVIEW], [STRANGE_PREVIEW]],
    ids=["none", "one", "two", "a mask", "an old one", "of a kind that is not read"],
)  # fmt: skip
def test_the_first_page_that_is_no_smaller_copy_is_read(before: list[Page], order: str) -> None:
    """Previews and masks before the photo are passed over, and pages behind it are not asked."""
    data = tiff(*before, photo(), photo(1), order=order)
    assert (np.asarray(read_image(data)) == photo().samples).all()


def test_previews_alone_are_refused() -> None:
    """A camera's raw file keeps its picture elsewhere: its preview is not captioned in silence."""
    with pytest.raises(ImageError, match="small copies without their picture"):
        read_image(tiff(PREVIEW, PREVIEW))
    for more in ((50706, 1, (1, 4, 0, 0)),), ((254, 4, (0,)), (50706, 1, (1, 4, 0, 0))):
        with pytest.raises(ImageError, match="camera's raw file"):
            read_image(tiff(replace(photo(), more=more)))
    with pytest.raises(ImageError, match="camera's raw file"):
        read_image(tiff(Page(scaled(COLOURS[..., :1], 16), 32803, 16)))


def test_a_picture_behind_its_preview_without_a_link_to_it_is_read() -> None:
    """Appended as a TIFF of its own: ffmpeg, given that part, sees the same. Behind a raw file's preview nothing is sought."""
    preview = tiff(PREVIEW) + bytes(8)
    behind = tiff(photo())
    with av.open(io.BytesIO(behind), format="tiff_pipe") as file:
        seen = next(file.decode(video=0)).to_ndarray(format="rgb24")
    assert (np.asarray(read_image(preview + behind)) == seen).all()
    subfolders = tiff(replace(PREVIEW, more=(REDUCED, (330, 4, (8,)))))
    raw = tiff(replace(photo(), more=((50706, 1, (1, 4, 0, 0)),)))
    for refused in (subfolders + behind, preview + raw, preview + b"II*\x00" * 1000, preview + behind[:200]):
        with pytest.raises(ImageError):
            read_image(refused)


def test_the_picture_behind_a_preview_as_people_have_it() -> None:
    """Its preview is black; the photo behind it, to which no page leads, has four colours."""
    file = CASES / "tiff-preview-first" / "preview-first.tif"
    if not file.exists():
        pytest.skip(f"{file} is not there")
    got = read_image(file)
    assert got.size == (64, 48)
    assert [got.getpixel(place) for place in ((16, 12), (48, 12), (16, 36), (48, 36))] == [
        (220, 30, 30), (30, 200, 30), (30, 30, 220), (240, 240, 240),
    ]  # fmt: skip


def test_pages_that_lead_in_a_circle() -> None:
    """Each is looked at once."""
    data = bytearray(tiff(PREVIEW))
    directory = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[directory : directory + 2], "little")
    link = directory + 2 + 12 * count
    data[link : link + 4] = directory.to_bytes(4, "little")
    with pytest.raises(ImageError, match="small copies"):
        read_image(bytes(data))


@pytest.mark.parametrize(
    ("colours", "bits", "kind"), [("RGB", 8, UNSIGNED), ("grey", 16, UNSIGNED), ("grey", 32, FLOAT)]
)
def test_what_is_cut_short_is_still_called_so(colours: str, bits: int, kind: int) -> None:
    """The directory lies behind the pixels or before them; either way half a file is damaged."""
    page = samples(colours, bits, kind)
    assert page
    data = tiff(page)
    early = io.BytesIO()
    Image.open(io.BytesIO(data)).save(early, "TIFF")
    for whole in (data, early.getvalue()):
        with pytest.raises(ImageError, match="damaged or cut short"):
            read_image(whole[: len(whole) // 2])


def test_counts_in_32_bits_stay_visible() -> None:
    """Numbers that fit 16 bits count as 16 bits, as elsewhere; greater ones mean white at 2**32 - 1."""
    levels = scaled(COLOURS[..., :1], 16)
    got = np.asarray(read_image(tiff(Page(levels.astype(np.uint32), tiffs.BLACK_IS_ZERO, 32))))
    assert np.abs(got - expected("grey")).max() <= 1


@pytest.mark.parametrize("big", [False, True])
def test_bigtiff(big: bool) -> None:
    """Files whose offsets have 64 bits."""
    file = io.BytesIO()
    noise().save(file, "TIFF", big_tiff=big)
    assert (file.getvalue()[2] == 43) == big
    assert (np.asarray(read_image(file.getvalue())) == np.asarray(noise())).all()


def test_a_pil_image_s_own_page_is_taken() -> None:
    """Whoever opens a file and goes to a page means that page."""
    image = Image.open(io.BytesIO(tiff(photo(), photo(1))))
    assert isinstance(image, TiffImagePlugin.TiffImageFile)
    image.seek(1)
    assert (np.asarray(read_image(image)) == photo(1).samples).all()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tiff-kinds-called-damaged/float32rgb.tif", "float RGB"),
        ("tiff-kinds-called-damaged/greyalpha16.tif", "16-bit grey"),
        ("tiff-kinds-called-damaged/lab16.tif", "16-bit CIELab"),
        ("tiff-kinds-called-damaged/ycbcr.tif", "8-bit YCbCr"),
    ],
)
def test_files_as_people_have_them(name: str, said: str) -> None:
    """Of other programs."""
    if not (CASES / name).exists():
        pytest.skip(f"{name} is not at {CASES}")
    with pytest.raises(ImageError, match=said):
        read_image(CASES / name)


def test_a_negative_is_turned() -> None:
    """16 bits, white at zero, of another program."""
    path = CASES / "tiff-white-is-zero-16" / "miniswhite16.tif"
    if not path.exists():
        pytest.skip(f"there is no {path}")
    picture = read_image(path)
    greys = [picture.getpixel(place)[0] for place in ((16, 12), (48, 12), (16, 36), (48, 36))]
    assert np.abs(np.array(greys) - [255, 177, 99, 0]).max() <= 1
