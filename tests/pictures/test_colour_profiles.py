"""A picture looks as its colour profile says; one whose profile says nothing usable looks as it is stored."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from captioner.pictures import read_image
from tests.hostile import encoded, noise
from tests.pictures import icc

CASES = Path(__file__).parents[3] / "shared" / "cases" / "icc-profiles"
QUARTERS = np.array([[[220, 30, 30], [30, 200, 30]], [[30, 30, 220], [240, 240, 240]]])
PROFILES = [(name, gamma) for name in icc.PRIMARIES for gamma in (1.0, 1.8, 2.19921875)]
S_RGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def big(pixels: np.ndarray, mode: str = "RGB") -> Image.Image:
    """Each pixel as a square of 16."""
    return Image.fromarray(
        np.kron(pixels, np.ones((16, 16, 1) if pixels.ndim == 3 else (16, 16))).astype(np.uint8), mode
    )


def quarters(picture: Image.Image) -> np.ndarray:
    """The middles of the four quarters."""
    return np.asarray(picture).astype(int)[8::16, 8::16]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP", "palette", "RGBA", "PIL"])
@pytest.mark.parametrize(("name", "gamma"), PROFILES)
def test_colours_are_what_the_profile_says(name: str, gamma: float, kind: str) -> None:
    """Four sRGB colours, stored under a wider, a linear or a twisted profile, come back within 3 levels.

    What is stored is computed from the primaries, not by a colour library.
    """
    profile = icc.rgb_profile(icc.PRIMARIES[name], gamma)
    picture = big(icc.stored(QUARTERS, icc.PRIMARIES[name], gamma))
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    shown = {"palette": picture.quantize(8), "RGBA": picture.convert("RGBA")}.get(kind, picture)
    data = encoded(shown, kind if kind in ("TIFF", "JPEG", "WEBP") else "PNG", icc_profile=profile, **options)
    # Eight bits of a wide or linear space are coarse, and JPEG's coarser: the light is that of the numbers in the file.
    numbers = quarters(Image.open(io.BytesIO(data)).convert("RGB"))
    expected = icc.from_xyz((numbers / 255) ** gamma @ icc.to_xyz(icc.PRIMARIES[name]).T)
    got = quarters(read_image(Image.open(io.BytesIO(data)) if kind == "PIL" else data))
    assert np.abs(got - expected).max() <= 3
    if gamma > 2 and name != "ProPhoto":
        assert np.abs(got - QUARTERS).max() <= (3 if kind != "JPEG" else 6)


@pytest.mark.parametrize("name", ["display-p3", "linear"])
def test_pictures_with_profiles_as_people_have_them(name: str) -> None:
    """Files that another program wrote."""
    if not CASES.is_dir():
        pytest.skip(f"there are no cases at {CASES}")
    picture = read_image(CASES / f"{name}.png")
    got = np.array([[picture.getpixel((x, y)) for x in (8, 56)] for y in (8, 40)])
    assert np.abs(got - QUARTERS).max() <= 3


def test_srgb_is_left_alone() -> None:
    """A picture that is sRGB already keeps its very pixels, whatever its profile is called."""
    picture = noise()
    assert (np.asarray(read_image(encoded(picture, "PNG", icc_profile=S_RGB))) == np.asarray(picture)).all()


def test_names_of_profiles_are_not_believed() -> None:
    """One that calls itself sRGB and has red and blue swapped is converted all the same."""
    profile = icc.rgb_profile(icc.PRIMARIES["swapped"], 2.2, name="sRGB IEC61966-2.1")
    got = read_image(encoded(Image.new("RGB", (2, 2), (255, 0, 0)), "PNG", icc_profile=profile))
    assert got.getpixel((0, 0)) == (0, 0, 255)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_profiles(mode: str) -> None:
    """A grey of another gamma comes as the sRGB grey of the same light, and transparency stays."""
    gamma, levels = 1.0, np.array([[0, 20], [100, 255]])
    expected = icc.from_xyz((levels / 255)[..., None] ** gamma * icc.D50)
    grey = big(levels, "L")
    picture = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    got = read_image(encoded(picture, "PNG", icc_profile=icc.grey_profile(gamma)))
    assert np.abs(quarters(got) - expected).max() <= 3


def test_print_profiles() -> None:
    """CMYK with a profile of its press has that press's colours, not those of a formula, and JPEG's too."""
    corners = np.random.default_rng(3).uniform([0, -40, -40], [100, 40, 40], (2, 2, 2, 2, 3))
    profile = icc.cmyk_profile(corners)
    inks = np.array([[[0, 0, 0, 0], [255, 0, 0, 0]], [[0, 255, 255, 0], [0, 0, 0, 255]]])
    expected = icc.from_xyz(icc.lab_to_xyz(np.array([[corners[tuple(ink // 255)] for ink in row] for row in inks])))
    picture = big(inks, "CMYK")
    for kind, options in (("TIFF", {}), ("JPEG", {"quality": 100, "subsampling": 0})):
        got = quarters(read_image(encoded(picture, kind, icc_profile=profile, **options)))
        assert np.abs(got - expected).max() <= 4


def damaged_profiles() -> list[bytes]:
    whole = icc.rgb_profile(icc.PRIMARIES["Display P3"], 2.2)
    chance = np.random.default_rng(0)
    return [b"", b"x", b"profile", bytes(500), whole[:100], whole[:140], chance.bytes(484), whole[:200] + bytes(284)]


@pytest.mark.parametrize("profile", damaged_profiles(), ids=len)
def test_a_profile_that_cannot_be_used_is_passed_over(profile: bytes) -> None:
    """Empty, cut and random ones cost the picture nothing."""
    picture = noise()
    picture.info["icc_profile"] = profile
    assert (np.asarray(read_image(picture)) == np.asarray(noise())).all()


@pytest.mark.parametrize(
    ("mode", "profile"),
    [
        ("RGB", icc.grey_profile(1.0)),
        ("RGB", icc.cmyk_profile(np.zeros((2, 2, 2, 2, 3)))),
        ("L", icc.rgb_profile(icc.PRIMARIES["swapped"], 1.0)),
        ("CMYK", icc.rgb_profile(icc.PRIMARIES["swapped"], 1.0)),
    ],
    ids=["grey for colours", "inks for colours", "colours for grey", "colours for inks"],
)
def test_a_profile_of_another_kind_of_colour_is_passed_over(mode: str, profile: bytes) -> None:
    """It says nothing about these numbers."""
    picture = noise().convert(mode)
    expected = np.asarray(read_image(picture))
    picture.info["icc_profile"] = profile
    assert (np.asarray(read_image(picture)) == expected).all()


def test_the_image_given_keeps_its_pixels_and_its_profile() -> None:
    """Reading converts a copy, and one that says nothing of a profile: reading it again changes nothing."""
    picture = noise()
    picture.info["icc_profile"] = icc.rgb_profile(icc.PRIMARIES["ProPhoto"], 1.8)
    before = picture.tobytes()
    got = read_image(picture)
    assert picture.tobytes() == before
    assert "icc_profile" in picture.info
    assert "icc_profile" not in got.info
    assert read_image(got).tobytes() == got.tobytes()
