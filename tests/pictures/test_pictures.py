"""Any picture becomes upright RGB or one ImageError; and one way leads from there to the encoder's input."""

import io
import os
import random
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as reference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, features

from captioner import pictures
from captioner.errors import ImageError
from captioner.options import FITS, ImageOptions
from captioner.pictures import find_images, fit, normalise, read_image, reading, seen, to_tensor
from tests.hostile import encoded, noise, png, png_chunk, write_hostile_files

COCO = Path(__file__).parents[3] / "shared" / "data" / "coco" / "val2017"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_hostile_files(tmp_path_factory.mktemp("hostile"))


def gradient(width: int = 60, height: int = 40) -> Image.Image:
    """A smooth RGB picture without symmetry, which lossy formats keep to within a few levels."""
    y, x = np.mgrid[:height, :width]
    channels = 255 * x / (width - 1), 255 * y / (height - 1), 127 + 60 * x / width - 60 * y / height
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def array(picture: Image.Image) -> np.ndarray:
    """Pixels as signed numbers, to subtract."""
    return np.asarray(picture).astype(int)


def difference(a: Image.Image | np.ndarray, b: Image.Image | np.ndarray) -> int:
    a, b = np.asarray(a).astype(int), np.asarray(b).astype(int)
    assert a.shape == b.shape
    return int(np.abs(a - b).max())


def has(feature: str) -> bool:
    return bool(features.check(feature))


# Every kind of picture


LOSSLESS = ["PNG", "BMP", "TIFF", "PPM", "TGA", "QOI", "SGI", "PCX", "ICO"]


@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_lossless_file_gives_its_very_pixels(kind: str) -> None:
    """Path and bytes alike give mode RGB and exactly the pixels that were saved."""
    picture = noise(48, 48)
    options = {"sizes": [(48, 48)]} if kind == "ICO" else {}
    got = read_image(encoded(picture, kind, **options))
    assert got.mode == "RGB"
    assert difference(got, picture) == 0


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "JPEG2000", "AVIF", "HEIF", "MPO"])
def test_a_lossy_file_gives_nearly_its_pixels(kind: str) -> None:
    """The common photo formats are read; a phone's HEIC through pillow-heif."""
    if kind == "AVIF" and not has("avif"):
        pytest.skip("this Pillow has no AVIF")
    picture = gradient(64, 48)
    if kind == "HEIF":
        file = io.BytesIO()
        pytest.importorskip("pillow_heif").from_pillow(picture).save(file, quality=95)
        data = file.getvalue()
    else:
        data = encoded(picture, kind, quality=95) if kind != "JPEG2000" else encoded(picture, kind)
    assert np.abs(array(read_image(data)) - array(picture)).mean() < 4


def test_reading_heic_registers_nothing_with_pillow() -> None:
    """Pillow's list of formats belongs to the whole process and stays as it was."""
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    heif.from_pillow(gradient()).save(file)
    read_image(file.getvalue())
    assert "HEIF" not in Image.OPEN


def test_heic_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pillow-heif a HEIC photo is refused with the command that helps."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match="pip install pillow-heif"):
        read_image(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(64))


UPRIGHT = {  # EXIF 2.32, table 6: where the stored row 0 and column 0 are in the scene
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "LZW TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int, kind: str) -> None:
    """Each of the eight orientations comes upright, once, even when what was read is read again."""
    picture = noise(8, 6)
    exif = Image.Exif()
    exif[0x0112] = orientation
    extra = {"WEBP": {"lossless": True}, "LZW TIFF": {"compression": "tiff_lzw"}}.get(kind, {})
    data = encoded(picture, kind.removeprefix("LZW "), exif=exif, **extra)
    expected = UPRIGHT[orientation](np.asarray(picture))
    assert difference(read_image(data), expected) == 0
    assert difference(read_image(Image.open(io.BytesIO(data))), expected) == 0
    assert difference(read_image(read_image(data)), expected) == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_photos(orientation: int) -> None:
    """A phone's JPEG comes upright, in draft mode too."""
    picture = gradient(64, 32)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture, "JPEG", exif=exif, quality=95)
    expected = UPRIGHT[orientation](np.asarray(picture))
    assert np.abs(array(read_image(data)) - expected).mean() < 3
    half = read_image(data, at_least=16)
    assert half.size == (expected.shape[1] // 2, expected.shape[0] // 2)
    assert np.abs(array(half) - expected[::2, ::2]).mean() < 6


def test_orientation_comes_before_transparency_is_lost() -> None:
    """A turned picture with alpha is both turned and laid over white."""
    picture = noise(8, 6).convert("RGBA")
    picture.putalpha(0)
    picture.putpixel((0, 0), (10, 20, 30, 255))
    exif = Image.Exif()
    exif[0x0112] = 6
    got = read_image(encoded(picture, "PNG", exif=exif))
    assert got.size == (6, 8)
    assert got.getpixel((5, 0)) == (10, 20, 30)
    assert got.getpixel((0, 7)) == (255, 255, 255)


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\x00\x00", b"Exif\x00\x00II*\x00\xff\xff\xff\xff", b"Exif\x00\x00garbage!"]
)
def test_damaged_exif_is_no_reason_to_refuse_a_picture(exif: bytes) -> None:
    """The pixels are sound: the picture is read as if it had no EXIF, and nothing is said."""
    picture = gradient()
    assert read_image(encoded(picture, "JPEG", exif=exif, quality=95)).size == picture.size


def over_white(rgba: np.ndarray) -> np.ndarray:
    colour, alpha = rgba[..., :3].astype(float), rgba[..., 3:] / 255
    return colour * alpha + 255 * (1 - alpha)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa", "La"])
def test_alpha_is_laid_over_white(mode: str) -> None:
    """Colour * alpha + white * (1 - alpha), to the level, in files and in PIL images."""
    picture = noise(16, 16).convert("RGBA")
    picture.putalpha(Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)))
    if mode in ("RGBa", "La"):
        picture = picture.convert("LA") if mode == "La" else picture
        picture = picture.convert(mode)
    else:
        picture = picture.convert(mode)
    expected = over_white(
        np.asarray(picture.convert("LA").convert("RGBA") if mode == "La" else picture.convert("RGBA"))
    )
    assert np.abs(array(read_image(picture)) - expected).max() <= 1
    if mode in ("RGBA", "LA"):
        assert np.abs(array(read_image(encoded(picture, "PNG"))) - expected).max() <= 1


def test_palette_transparency() -> None:
    """A palette picture's transparency, one index (GIF) or one alpha for each colour (PNG), is laid over white."""
    picture = Image.new("P", (2, 2))
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 200])
    picture.putdata([0, 1, 2, 2])
    one = read_image(encoded(picture, "GIF", transparency=1))
    assert np.asarray(one).tolist() == [[[255, 0, 0], [255, 255, 255]], [[0, 0, 200], [0, 0, 200]]]
    each = read_image(encoded(picture, "PNG", transparency=bytes([255, 0, 128])))
    blue = round(200 * 128 / 255 + 127)
    assert np.asarray(each).tolist() == [[[255, 0, 0], [255, 255, 255]], [[127, 127, blue], [127, 127, blue]]]


@pytest.mark.parametrize(("mode", "key", "others"), [("RGB", (9, 9, 9), (7, 7, 7)), ("L", 9, 7), ("1", 0, 255)])
def test_transparent_colour(mode: str, key: object, others: object) -> None:
    """The one colour that a PNG without alpha declares transparent (tRNS) becomes white."""
    picture = Image.new(mode, (2, 1), others)  # type: ignore[arg-type]
    picture.putpixel((0, 0), key)  # type: ignore[arg-type]
    got = read_image(encoded(picture, "PNG", transparency=key))
    grey = others if isinstance(others, int) else 7
    assert np.asarray(got).tolist() == [[[255, 255, 255], [grey] * 3]]


def test_transparent_level_of_16_bits() -> None:
    """The same in 16-bit greyscale."""
    levels = np.array([[1000, 65535, 0]], dtype=np.uint16)
    data = encoded(Image.fromarray(levels), "PNG")
    data = data[:33] + png_chunk(b"tRNS", (1000).to_bytes(2, "big")) + data[33:]
    assert np.asarray(read_image(data))[0, :, 0].tolist() == [255, 255, 0]


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I", "array", "PNG", "TIFF", "PGM"])
def test_16_bits_are_scaled_not_clipped(mode: str) -> None:
    """Level v of 65535 becomes the 8-bit level nearest to v / 257, wherever the 16 bits come from."""
    levels = np.linspace(0, 65535, 600).round().astype(np.uint16).reshape(20, 30)
    expected = (levels.astype(int) + 128) // 257
    native = Image.fromarray(levels)
    if mode in ("PNG", "TIFF"):
        source: pictures.ImageSource = encoded(native, mode)
    elif mode == "PGM":
        source = b"P5 30 20 65535\n" + levels.astype(">u2").tobytes()
    elif mode == "array":
        source = levels
    elif mode == "I":
        source = Image.fromarray(levels.astype(np.int32))
    else:
        order = ">u2" if mode.endswith("B") else "<u2"
        source = Image.frombytes(mode, (30, 20), levels.astype(order).tobytes())
    got = np.asarray(read_image(source))
    assert (got == expected[..., None]).all()
    assert got.min() == 0
    assert got.max() == 255


def test_colours_of_16_bits() -> None:
    """An array of 16-bit colours is scaled as greys are."""
    levels = np.random.default_rng(0).integers(0, 65536, (5, 4, 3), dtype=np.uint16)
    assert (array(read_image(levels)) == (levels.astype(int) + 128) // 257).all()


def test_levels_beyond_16_bits_are_stretched() -> None:
    """Without an agreed white, the least level is black, the greatest white, and the order stays."""
    for levels in (
        np.array([[-100, 0, 100_000, 2**31 - 1]], dtype=np.int32),
        np.array([[-1, 0, 5e8, 3e38]], np.float32),
    ):
        grey = array(read_image(Image.fromarray(levels)))[0, :, 0]
        assert grey[0] == 0
        assert grey[-1] == 255
        assert (np.diff(grey) >= 0).all()


def test_floats() -> None:
    """Mode F counts as 0..1 where it fits, else as 0..255; what is not a number is black, and nothing is said."""
    unit = np.array([[0, 0.25, 0.5, 1]], dtype=np.float32)
    assert array(read_image(Image.fromarray(unit)))[0, :, 0].tolist() == [0, 64, 128, 255]
    assert array(read_image(Image.fromarray(unit * 200)))[0, :, 0].tolist() == [0, 50, 100, 200]
    odd = np.array([[np.nan, 0.5, np.inf, 1]], dtype=np.float32)
    assert array(read_image(Image.fromarray(odd)))[0, :, 0].tolist() == [0, 128, 0, 255]
    assert array(read_image(Image.fromarray(odd[:, :1])))[0, 0, 0] == 0


@pytest.mark.parametrize("mode", ["1", "L", "P", "YCbCr", "HSV", "CMYK"])
def test_other_colour_modes(mode: str) -> None:
    """Any other mode of PIL is converted, and white stays white."""
    picture = Image.new("RGB", (5, 4), "white").convert(mode)
    assert difference(read_image(picture), np.full((4, 5, 3), 255)) <= 1


def test_lab() -> None:
    """L*a*b* goes through its definition: white, black and a saturated red come back."""
    lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    picture = Image.new("RGB", (3, 1))
    picture.putdata([(255, 255, 255), (0, 0, 0), (220, 30, 40)])
    assert difference(read_image(ImageCms.applyTransform(picture, lab)), picture) <= 4


def test_adobe_cmyk_jpeg_is_not_a_negative() -> None:
    """A print shop's JPEG, whose CMYK is stored inverted, keeps its light and dark."""
    picture = Image.new("RGB", (32, 16), (230, 40, 40))
    picture.paste("white", (0, 0, 16, 16))
    data = encoded(picture.convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data[:400]
    assert difference(read_image(data), picture) <= 8


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    """Also APNG and a TIFF of many pages."""
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    extra = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **extra)
    assert difference(read_image(data), frames[0]) == 0


def test_a_phone_s_double_picture_gives_its_first() -> None:
    """MPO, which many phones write into .jpg files: the first picture, even where the second is cut off."""
    data = encoded(gradient(), "MPO", save_all=True, append_images=[noise(60, 40)], quality=95)
    assert np.abs(array(read_image(data)) - array(gradient())).mean() < 4
    assert np.abs(array(read_image(data[: -len(data) // 8])) - array(gradient())).mean() < 4


def test_one_pixel() -> None:
    """The smallest picture is a picture."""
    for mode in ("RGB", "RGBA", "L", "1", "P"):
        assert read_image(encoded(Image.new(mode, (1, 1)), "PNG")).size == (1, 1)
    assert to_tensor(np.zeros((1, 1), np.uint8), ImageOptions(size=32)).shape == (3, 32, 32)


# Arrays and PIL images


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.bool_, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)])
def test_arrays(channels: tuple[int, ...], dtype: type) -> None:
    """All layouts and number types agree with the 8-bit pixels that they stand for."""
    bits = np.random.default_rng(1).integers(0, 2, (6, 5, *channels)).astype(bool)
    full = {np.uint8: 255, np.uint16: 65535}.get(dtype, 1)
    pixels = (bits * full).astype(dtype)
    eight = bits * 255
    if channels in ((), (1,)):
        expected = np.repeat(eight.reshape(6, 5, 1), 3, axis=2)
    else:
        expected = over_white(eight) if channels == (4,) else eight
    assert difference(read_image(pixels), expected) == 0


def test_array_layouts_in_memory() -> None:
    """Flipped, transposed, read-only and big-endian arrays are read as what they show."""
    pixels = np.asarray(noise(7, 5))
    assert not pixels.flags.writeable
    assert difference(read_image(pixels[::-1, ::-1]), pixels[::-1, ::-1]) == 0
    assert difference(read_image(pixels.transpose(1, 0, 2)), pixels.transpose(1, 0, 2)) == 0
    wide = pixels.astype(">u2") * 257
    assert difference(read_image(wide), pixels) == 0


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.zeros((4, 5, 2), np.uint8), r"\(4, 5, 2\)"),
        (np.zeros((3, 4, 5), np.uint8), r"\(3, 4, 5\)"),
        (np.zeros((1, 4, 5, 3), np.uint8), r"\(1, 4, 5, 3\)"),
        (np.zeros(5, np.uint8), r"\(5,\)"),
        (np.zeros((), np.uint8), r"shape \(\)"),
        (np.zeros((0, 5, 3), np.uint8), r"\(0, 5, 3\)"),
        (np.zeros((4, 5), np.int64), "int64"),
        (np.zeros((4, 5), object), "object"),
        (np.zeros((4, 5), complex), "complex"),
        (np.full((4, 5), 200.0), r"200\.0"),
        (np.full((4, 5), -0.5), r"-0\.5"),
        (np.full((4, 5), np.nan), "nan"),
        (np.broadcast_to(np.uint8(0), (20_000, 10_000)), "10000 x 20000"),
    ],
)
def test_other_arrays_are_refused_by_name(pixels: np.ndarray, said: str) -> None:
    """The message names the shape, the number type or the range that cannot be a picture."""
    with pytest.raises(ImageError, match=said):
        read_image(pixels)


def test_a_pil_image_is_left_as_it_was() -> None:
    """Neither reading it nor drawing on the answer changes the image given."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for given_ in (noise(), Image.open(io.BytesIO(encoded(noise(), "PNG", exif=exif)))):
        before, size, info = given_.tobytes(), given_.size, dict(given_.info)
        read_image(given_).paste("black", (0, 0, 10, 10))
        fit(read_image(given_), ImageOptions()).paste("black", (0, 0, 10, 10))
        assert (given_.tobytes(), given_.size, given_.info) == (before, size, info)
        assert given_.getexif().get(0x0112) == (6 if "exif" in info else None)


@pytest.mark.parametrize("source", [None, 3, ["a.jpg"], io.BytesIO(), torch.zeros(3, 4, 5), Image])
def test_other_objects_are_refused(source: object) -> None:
    """Even what is no picture source at all is an ImageError, which says what to give."""
    with pytest.raises(ImageError, match="give a path"):
        read_image(source)  # type: ignore[arg-type]


def test_pil_images_that_cannot_be_read() -> None:
    """A closed file, an unreadable one and an image of no pixels are ImageErrors too."""
    closed = Image.open(io.BytesIO(encoded(noise(), "PNG")))
    closed.close()
    cut = Image.open(io.BytesIO(encoded(noise(), "PNG")[:3000]))
    for picture in (closed, cut, Image.new("RGB", (0, 5))):
        with pytest.raises(ImageError, match="the picture"):
            read_image(picture)


# What is no picture


def test_every_hostile_file_is_one_clear_error(hostile: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    """Each is an ImageError of one line that names the file and says what to do; the console stays silent."""
    assert len(hostile) >= 25
    said = {}
    for name, path in hostile.items():
        for source in (path, str(path)):
            with pytest.raises(ImageError) as error:
                read_image(source)
            said[name] = str(error.value)
            assert repr(path.name)[1:-1] in said[name], name
            assert ": " in said[name], name
            assert said[name].endswith("."), name
            assert said[name].isprintable(), name
    assert tuple(capfd.readouterr()) == ("", "")
    assert "is an SVG drawing, not a photo: export it as PNG or JPEG first." in said["drawing.svg"]
    assert "SVG" in said["drawing.png"]
    assert "web page" in said["page.png"]
    assert "PDF" in said["document.pdf"]
    assert "archive" in said["archive.png"]
    assert "empty" in said["empty.jpg"]
    assert "folder" in said["directory.jpg"]
    assert "does not exist" in said["dangling.jpg"]
    assert "1000 MB" in said["huge.jpg"]
    assert "12000 x 10000" in said["smaller bomb.png"]
    for name, message in said.items():
        if name.startswith(("cut", "damaged")):
            assert "damaged or cut short" in message, name
        if "bomb" in name and name != "text bomb.png":
            assert "pixels" in message, name


def test_bytes_are_called_the_picture(hostile: dict[str, Path]) -> None:
    """The same contents as bytes fail in the same way, under the name that an upload has."""
    for name, path in hostile.items():
        if path.is_file() and name != "huge.jpg":
            with pytest.raises(ImageError, match=r"^the picture "):
                read_image(path.read_bytes())


def test_no_program_is_started_for_a_picture(hostile: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """PostScript, whatever it is called, never reaches Ghostscript."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", fail)
    for name in ("postscript.eps", "postscript.jpg", "document.pdf"):
        with pytest.raises(ImageError, match="PostScript"):
            read_image(hostile[name])
    assert "EPS" not in reading._FORMATS


def test_paths_that_lead_to_no_file(tmp_path: Path) -> None:
    """Missing files, addresses, impossible names and pipes say so; a pipe is not waited for."""
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "file").write_bytes(b"")
    for source, said in {
        tmp_path / "none.jpg": "does not exist",
        tmp_path / "file" / "none.jpg": "does not exist",
        "": "does not exist",
        "https://example.org/a.jpg": "web address",
        "zero\x00byte.jpg": "cannot be read",
        "long" * 2000: "cannot be read",
        tmp_path / "pipe.jpg": "pipe",
        os.fsdecode(b"\xff\xfe.jpg"): "does not exist",
    }.items():
        with pytest.raises(ImageError, match=said) as error:
            read_image(source)
        assert str(error.value).isprintable()


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permission is named as the reason (the refusal is simulated: root may read everything)."""
    path = tmp_path / "secret.jpg"
    path.write_bytes(encoded(noise(), "JPEG"))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", refuse)
        with pytest.raises(ImageError, match=r"secret\.jpg may not be read"):
            read_image(path)
    assert read_image(path).size == (64, 48)


def test_the_limit_on_pixels_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture of just the limit is read, one more column is not, before a pixel is decoded."""
    monkeypatch.setattr(reading, "MAX_PIXELS", 64 * 48)
    assert read_image(encoded(noise(64, 48), "PNG")).size == (64, 48)
    monkeypatch.setattr(ImageFile.ImageFile, "load", None)
    with pytest.raises(ImageError, match="65 x 48"):
        read_image(encoded(noise(65, 48), "PNG"))


@pytest.mark.parametrize("limit", [None, 100])
def test_pillow_s_own_limit_changes_nothing_else(limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a program has lifted or lowered Pillow's limit, bombs are still ImageErrors and nothing leaks."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ImageError, match="pixels"):
        read_image(png(60_000, 60_000))


def test_odd_but_sound_files_are_read_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    """Where Pillow would warn (a malformed APNG, broken EXIF), the picture comes and nothing is printed.

    Here with warnings as errors, and in a fresh process with Python's own filters: what a user sees.
    """
    photo = encoded(gradient(), "PNG")
    odd = photo[:33] + png_chunk(b"acTL", b"\x00" * 8) + photo[33:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="APNG"):
            Image.open(io.BytesIO(odd))
        assert difference(read_image(odd), gradient()) == 0
    code = "import sys; from captioner.pictures import read_image; print(read_image(sys.stdin.buffer.read()).size)"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], input=odd, capture_output=True, cwd=root, check=True)
    assert (done.stdout.decode().strip(), done.stderr.decode()) == ("(60, 40)", "")


def test_many_threads_read_at_once(hostile: dict[str, Path]) -> None:
    """Sound and hostile files together, from eight threads: the same answers as alone, and the filters in order."""
    photo = encoded(gradient(), "PNG")
    expected = read_image(photo).tobytes()
    filters = list(warnings.filters)

    def work(path: Path) -> bool:
        with pytest.raises(ImageError):
            read_image(path)
        return read_image(photo).tobytes() == expected

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, list(hostile.values()) * 2))
    assert warnings.filters == filters


def _samples() -> dict[str, bytes]:
    picture = noise(24, 20)
    samples = {
        "JPEG": encoded(picture, "JPEG", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00"),
        "CMYK": encoded(picture.convert("CMYK"), "JPEG"),
        "PNG": encoded(picture, "PNG"),
        "palette": encoded(picture.quantize(16), "PNG", transparency=bytes(range(16))),
        "16 bits": encoded(Image.fromarray(np.arange(480, dtype=np.uint16).reshape(20, 24)), "PNG"),
        "GIF": encoded(picture, "GIF", save_all=True, append_images=[noise(24, 20, seed=1)]),
        "WEBP": encoded(picture, "WEBP"),
        "TIFF": encoded(picture, "TIFF"),
        "LZW": encoded(picture, "TIFF", compression="tiff_lzw"),
        "BMP": encoded(picture, "BMP"),
        "ICO": encoded(picture, "ICO", sizes=[(16, 16)]),
        "PPM": encoded(picture, "PPM"),
        "TGA": encoded(picture, "TGA", compression="tga_rle"),
        "QOI": encoded(picture, "QOI"),
        "SGI": encoded(picture, "SGI"),
        "PCX": encoded(picture, "PCX"),
        "JPEG2000": encoded(picture, "JPEG2000"),
        "MPO": encoded(picture, "MPO", save_all=True, append_images=[picture]),
        "ICNS": encoded(picture.resize((32, 32)), "ICNS"),
    }  # fmt: skip
    if has("avif"):
        samples["AVIF"] = encoded(picture, "AVIF")
    try:
        import pillow_heif
    except ImportError:
        return samples
    file = io.BytesIO()
    pillow_heif.from_pillow(picture).save(file)
    return samples | {"HEIC": file.getvalue()}


SAMPLES = _samples()


@pytest.mark.parametrize("kind", SAMPLES)
@settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32 - 1))
def test_damaged_bytes_give_a_picture_or_an_error(kind: str, seed: int) -> None:
    """Cut, overwritten, removed or inserted bytes of every format: RGB or ImageError, nothing else, ever."""
    chance = random.Random(seed)
    data = bytearray(SAMPLES[kind])
    for _ in range(chance.choice([1, 1, 3, 20])):
        # Headers are at the start, where a change does most.
        place = chance.randrange(min(len(data), chance.choice([40, 400, len(data)])) or 1)
        kind_of_damage = chance.randrange(4)
        if kind_of_damage == 0:
            data[place : place + 1] = chance.choice([b"\x00", b"\xff", b"\x7f", b"\x80", chance.randbytes(1)])
        elif kind_of_damage == 1:
            data[place : place + 4] = chance.choice([b"\xff" * 4, b"\x00" * 4, chance.randbytes(4)])
        elif kind_of_damage == 2:
            del data[place : place + chance.choice([1, 10, len(data)])]
        else:
            data[place:place] = chance.randbytes(chance.choice([1, 10]))
    try:
        picture = read_image(bytes(data), at_least=chance.choice([None, 4]))
    except ImageError as error:
        assert str(error).isprintable()
    else:
        assert picture.mode == "RGB"


@settings(max_examples=100, deadline=None, database=None)
@given(st.binary(max_size=200), st.sampled_from([b"", *(data[:12] for data in SAMPLES.values())]))
def test_random_bytes_give_a_picture_or_an_error(data: bytes, beginning: bytes) -> None:
    """Also behind the first bytes of each format."""
    try:
        assert read_image(beginning + data).mode == "RGB"
    except ImageError as error:
        assert str(error).startswith("the picture")


# Fitting


SIZES = st.tuples(st.integers(1, 90), st.integers(1, 90)) | st.sampled_from([(1, 5000), (5000, 1), (3, 4000), (64, 64)])


@settings(max_examples=60, deadline=None, database=None)
@given(SIZES, st.sampled_from(["squash", "crop", "pad"]), st.sampled_from(["bilinear", "bicubic"]))
def test_any_picture_fits_the_square(size: tuple[int, int], how: str, interpolation: str) -> None:
    """Every size and aspect ratio gives the square, and a plain picture stays plain where it is not padded."""
    got = fit(Image.new("RGB", size, (9, 99, 199)), ImageOptions(fit=how, size=64, interpolation=interpolation))
    assert (got.mode, got.size) == ("RGB", (64, 64))
    if how != "pad":
        assert got.getcolors() == [(64 * 64, (9, 99, 199))]


def resized(picture: Image.Image, size: list[int], interpolation: str) -> torch.Tensor:
    """Torchvision's antialiased resizing of tensors, which shares no code with PIL's."""
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    return reference.resize(pixels, size, getattr(reference.InterpolationMode, interpolation.upper()), antialias=True)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(200, 120), (120, 200), (40, 30), (128, 128)])
def test_squash_and_crop_agree_with_torchvision(size: tuple[int, int], interpolation: str) -> None:
    """Squash is its Resize((s, s)); crop is its Resize(s) and CenterCrop(s)."""
    y, x = np.mgrid[: size[1], : size[0]]
    waves = [np.sin(x / 9 + c) * np.cos(y / 7 - c) * 110 + 128 for c in range(3)]
    picture = Image.fromarray(np.stack(waves, axis=-1).astype(np.uint8))
    for how in ("squash", "crop"):
        got = to_tensor(picture, ImageOptions(fit=how, size=64, interpolation=interpolation))
        if how == "squash":
            expected = resized(picture, [64, 64], interpolation)
            assert (got.int() - expected.int()).abs().max() <= 2
        else:
            expected = reference.center_crop(resized(picture, [64], interpolation), [64])
            # The crop may lie a fraction of a pixel beside torchvision's, which rounds the resized size first.
            assert (got.float() - expected.float()).abs().mean() < 5


def test_crop_keeps_the_middle_and_squash_the_whole() -> None:
    """A picture in three stripes: crop shows the middle one, squash all of them."""
    picture = Image.new("RGB", (90, 30), "red")
    picture.paste("white", (30, 0, 60, 30))
    picture.paste("blue", (60, 0, 90, 30))
    crop = fit(picture, ImageOptions(fit="crop", size=30))
    assert crop.getcolors() == [(30 * 30, (255, 255, 255))]
    squash = fit(picture, ImageOptions(fit="squash", size=33))
    assert [squash.getpixel((x, 16)) for x in (5, 16, 27)] == [(255, 0, 0), (255, 255, 255), (0, 0, 255)]


@pytest.mark.parametrize("how", ["squash", "crop", "pad"])
def test_a_large_photo_and_its_small_copy_look_the_same_with_detail(how: str) -> None:
    """`detail` reduces both to the copy's side first, so a model that learnt from copies serves photos as sharp."""
    y, x = np.mgrid[:300, :400]
    photo = Image.fromarray(np.stack([(x * 7 + y * c) % 256 for c in (3, 5, 11)], axis=-1).astype(np.uint8))
    copy = fit(photo, ImageOptions(fit=how, size=64))
    options = ImageOptions(fit=how, detail=64, size=96)
    assert torch.equal(to_tensor(photo, options), to_tensor(copy, options))
    assert to_tensor(photo, options).shape == (3, 96, 96)
    assert not torch.equal(to_tensor(photo, options), to_tensor(photo, ImageOptions(fit=how, size=96)))


@pytest.mark.parametrize("how", FITS)
@pytest.mark.parametrize("size", [(80, 40), (40, 80), (90, 90), (97, 31)])
@settings(max_examples=20, deadline=None)
@given(x=st.floats(0.1, 0.9), y=st.floats(0.1, 0.9))
def test_what_the_square_shows_is_where_it_is_said_to_be(how, size, x, y):
    """A spot of the square lies where `seen` puts it on the picture, or the spot is padding."""
    ramp = np.zeros((size[1], size[0], 3), np.uint8)
    ramp[..., 0] = np.linspace(0, 255, size[0])[None]
    ramp[..., 1] = np.linspace(0, 255, size[1])[:, None]
    options = ImageOptions(fit=how, size=64)
    square = np.asarray(fit(Image.fromarray(ramp), options))
    left, top, right, bottom = seen(size, options)
    across, down = left + x * (right - left), top + y * (bottom - top)
    red, green, _ = square[int(y * 64), int(x * 64)]
    if all(0.05 < share < 0.95 for share in (across, down)):
        assert red / 255 == pytest.approx(across, abs=0.05)
        assert green / 255 == pytest.approx(down, abs=0.05)
    elif not all(-0.05 < share < 1.05 for share in (across, down)):
        assert square[int(y * 64), int(x * 64)].tolist() == [round(255 * mean) for mean in options.mean]


@pytest.mark.parametrize("size", [(80, 40), (40, 80)])
def test_pad_centres_the_whole_picture_on_the_mean(size: tuple[int, int]) -> None:
    """The picture keeps its aspect ratio, and what is beside it becomes nearly zero when it is normalised."""
    options = ImageOptions(fit="pad", size=64)
    got = to_tensor(Image.new("RGB", size, "white"), options)
    got = got if size[0] > size[1] else got.transpose(1, 2)
    assert (got[:, 16:48] == 255).all()
    assert normalise(got[None], options)[0, :, :16].abs().max() < 0.01
    assert normalise(got[None], options)[0, :, 48:].abs().max() < 0.01


@pytest.mark.parametrize("how", ["squash", "crop", "pad"])
def test_no_resampling_without_need(how: str) -> None:
    """A picture that has the size already keeps its very pixels, and so does a crop of one that has the height."""
    options = ImageOptions(fit=how, size=64, interpolation="bicubic")
    picture = noise(64, 64)
    assert fit(picture, options) is picture
    if how == "crop":
        assert difference(fit(noise(97, 64), options), np.asarray(noise(97, 64))[:, 16:80]) == 0
    if how == "pad":
        assert difference(np.asarray(fit(noise(64, 40), options))[12:52], noise(64, 40)) == 0


def test_normalise_is_the_formula() -> None:
    """(x / 255 - mean) / std for each channel, in float32, for any numbers that a model file carries."""
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(2, 3, 1, 1)
    for options in (ImageOptions(), ImageOptions(mean=(0.5, 0.4, 0.3), std=(0.5, 1.0, 0.25))):
        got = normalise(pixels, options)
        assert got.dtype == torch.float32
        assert got.shape == pixels.shape
        mean, std = np.reshape(options.mean, (3, 1, 1)), np.reshape(options.std, (3, 1, 1))
        np.testing.assert_allclose(got, (pixels.numpy() / 255 - mean) / std, atol=1e-5)


def test_normalise_agrees_with_torchvision_s_weights() -> None:
    """The default numbers are those that torchvision trained its networks with."""
    picture = noise(64, 64)
    expected = reference.normalize(
        reference.to_dtype(reference.to_image(picture), torch.float32, scale=True),
        [0.485, 0.456, 0.406],
        [0.229, 0.224, 0.225],
    )
    options = ImageOptions(size=64)
    torch.testing.assert_close(normalise(to_tensor(picture, options)[None], options)[0], expected)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's list of threads")
def test_a_thread_that_reads_has_no_helpers() -> None:
    """Teams of OpenMP threads, one for each reader, would slow the network down for as long as the process lives."""
    script = (
        "import os, threading, time, torch\n"
        "from PIL import Image\n"
        "from captioner.pictures import to_tensor\n"
        "from captioner.options import ImageOptions\n"
        "torch.set_num_threads(2)\n"
        "def read():\n"
        "    before = len(os.listdir('/proc/self/task'))\n"
        "    to_tensor(Image.new('RGB', (640, 480)), ImageOptions(size=512))\n"
        "    print(len(os.listdir('/proc/self/task')) - before)\n"
        "thread = threading.Thread(target=read)\n"
        "thread.start()\n"
        "thread.join()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout == "0\n"


def test_to_tensor_layout() -> None:
    """(3, size, size) uint8, contiguous, channels in the order red, green, blue; a new tensor each time."""
    picture = Image.new("RGB", (10, 20), (1, 2, 3))
    got = to_tensor(picture, ImageOptions(size=32))
    assert (got.shape, got.dtype, got.is_contiguous()) == ((3, 32, 32), torch.uint8, True)
    assert got[:, 0, 0].tolist() == [1, 2, 3]
    got.zero_()
    assert to_tensor(picture, ImageOptions(size=32))[:, 0, 0].tolist() == [1, 2, 3]


@settings(max_examples=30, deadline=None, database=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 300))
def test_draft_never_falls_below_what_was_asked(width: int, height: int, at_least: int) -> None:
    """No side of a reduced JPEG is below `at_least`, and one with a side below it already is not reduced."""
    got = read_image(encoded(Image.new("RGB", (width, height)), "JPEG"), at_least=at_least)
    if min(width, height) < at_least:
        assert got.size == (width, height)
    else:
        assert min(got.size) >= at_least
        assert max(width, height) / max(got.size) <= 8


@pytest.mark.parametrize("how", ["squash", "crop", "pad"])
def test_draft_changes_the_encoder_s_input_hardly(how: str) -> None:
    """A large JPEG, decoded at a fraction of its size, gives the input of its full decoding to about one level."""
    y, x = np.mgrid[:600, :800]
    waves = [np.sin(x / (25 + 9 * c)) * np.cos(y / (33 - 7 * c)) * 110 + 128 for c in range(3)]
    data = encoded(Image.fromarray(np.stack(waves, axis=-1).astype(np.uint8)), "JPEG", quality=90)
    options = ImageOptions(fit=how, size=64)
    assert min(read_image(data, at_least=128).size) < 600
    full = to_tensor(read_image(data), options)
    assert (to_tensor(data, options).float() - full.float()).abs().mean() < 1


# Folders


def test_find_images(tmp_path: Path) -> None:
    """Pictures by suffix in any case and depth, sorted; hidden ones, other files and loops of links left out."""
    wanted = ["B.JPG", "a.jpeg", "b/c/d.PnG", "b/e.heic", "b/f.webp", "linked.jpg"]
    for name in [*wanted[:-1], "notes.txt", ".hidden.jpg", ".git/x.jpg", "b/._d.png", "jpg", "noext", "a.jpg.part"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "linked.jpg").symlink_to(tmp_path / "B.JPG")
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    assert find_images(tmp_path) == sorted(tmp_path / name for name in wanted)


def test_find_images_in_no_folder(tmp_path: Path) -> None:
    """A folder that is missing or is a file is an error, not an empty list; an empty folder is an empty list."""
    (tmp_path / "file.jpg").write_bytes(b"")
    for wrong in ("missing", "file.jpg"):
        with pytest.raises(ImageError, match=f"{wrong} is not a folder"):
            find_images(tmp_path / wrong)
    (tmp_path / "empty").mkdir()
    assert find_images(tmp_path / "empty") == []


def locked(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Makes a folder one that may not be listed (simulated: root may list everything)."""
    scan = os.scandir

    def scandir(path: str) -> object:
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)


def test_a_folder_that_may_not_be_listed_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, and what lies beside it is found; without somebody to tell it is an error, as the whole folder is."""
    for name in ("a/1.jpg", "lost+found/2.jpg", "z/3.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    locked(monkeypatch, tmp_path / "lost+found")
    told: list[ImageError] = []
    assert find_images(tmp_path, unreadable=told.append) == [tmp_path / "a/1.jpg", tmp_path / "z/3.jpg"]
    assert [str(error) for error in told] == [
        f"{tmp_path}/lost+found cannot be listed (Permission denied): give a folder that you may read."
    ]
    with pytest.raises(ImageError, match="lost\\+found cannot be listed"):
        find_images(tmp_path)
    with pytest.raises(ImageError, match="lost\\+found cannot be listed"):
        find_images(tmp_path / "lost+found", unreadable=told.append)


def test_suffixes_are_those_that_can_be_read() -> None:
    """No suffix is promised whose format is not read: each is one of Pillow's for those formats, or HEIC's."""
    Image.init()
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in (*reading._FORMATS, "MPO")}
    assert known | {".heic", ".heif", ".hif", ".avif"} >= pictures.SUFFIXES


# Real photos


@pytest.mark.skipif(not COCO.is_dir(), reason="needs COCO's val2017 photos beside the repository")
def test_coco_photos() -> None:
    """Real photos, colour and grey, that nothing is to be done to are read as Pillow reads them, bytes and paths alike."""
    photos = find_images(COCO)[:8]
    assert photos
    options = ImageOptions()
    for path in photos:
        with Image.open(path) as photo:
            plain = not {"exif", "icc_profile"} & photo.info.keys()
            expected = photo.convert("RGB")
        got = read_image(path)
        if plain:
            assert difference(got, expected) == 0
        pixels = to_tensor(path, options)
        assert torch.equal(pixels, to_tensor(path.read_bytes(), options))
        assert normalise(pixels[None], options).abs().max() < 3
