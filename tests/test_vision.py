"""The promises of captioner.vision: how pictures become features, whoever asks."""

import itertools
import threading

import numpy as np
import pytest
import torch

from captioner.errors import ImageError
from captioner.options import ImageOptions
from captioner.pictures import look, read_image, seen, to_tensor
from captioner.vision import Vision


def pictures(count):
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (40, 50, 3), dtype=np.uint8) for _ in range(count)]


@pytest.fixture
def vision(small_file):
    return small_file.model.vision


@pytest.mark.parametrize(("batch", "workers"), [(1, 0), (3, 0), (3, 2), (64, 4)])
def test_all_at_once_are_each_alone(vision, batch, workers):
    """Any number of pictures, batches and threads: the features in order, float32, without gradients."""
    sources = pictures(8)
    found = list(vision.encode_all(sources, batch=batch, precision="float32", workers=workers))
    assert [len(part) for part in found] == [len(sources[i : i + batch]) for i in range(0, 8, batch)]
    for source, features in zip(sources, itertools.chain(*found), strict=True):
        with torch.no_grad():
            alone = vision.encode(to_tensor(source, vision.image)[None])[0]
        torch.testing.assert_close(features, alone, rtol=1e-3, atol=1e-3 * float(alone.std()))
        assert not features.requires_grad
    assert list(vision.encode_all([], batch=batch, precision="float32", workers=workers)) == []


def test_half_the_precision_gives_whole_numbers_back(vision):
    """bfloat16 is how it is computed; float32 is what comes, near what float32 computes."""
    [exact] = vision.encode_all(pictures(2), batch=2, precision="float32")
    [rough] = vision.encode_all(pictures(2), batch=2, precision="bfloat16")
    assert rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    torch.testing.assert_close(rough, exact, rtol=0.2, atol=0.2 * float(exact.std()))


def test_reading_ends_where_it_is_left(vision):
    """Nothing goes on reading behind a caller who stopped, or behind an error."""
    next(vision.encode_all(pictures(40), batch=2, precision="float32", workers=2)).sum()
    with pytest.raises(ImageError):
        list(vision.encode_all([*pictures(5), b"no picture"], batch=2, precision="float32", workers=2))
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_a_look_is_what_the_encoder_and_the_page_want(fit):
    """One decoding gives what three gave: pixels, size, what is seen, and a small copy of the whole."""
    picture, image = pictures(1)[0], ImageOptions(fit=fit, size=64)
    found = look(picture, image, thumbnail=20)
    assert torch.equal(torch.from_numpy(found.pixels), to_tensor(picture, image))
    assert found.size == (50, 40)
    assert found.window == seen((50, 40), image)
    assert found.thumbnail.size == (20, 16)
    assert look(picture, image).thumbnail is None
    whole = read_image(picture)
    look(whole, image, thumbnail=20)
    assert whole.size == (50, 40)  # a picture given is left as it was


def test_options_and_encoder_are_all_of_it(vision):
    """Two with the same ones compute the same; other numbers to normalise with give other features."""
    pixels = to_tensor(pictures(1)[0], vision.image)[None]
    with torch.no_grad():
        plain = vision.encode(pixels)
        assert torch.equal(Vision(vision.image, vision.encoder).encode(pixels), plain)
        assert not torch.equal(
            Vision(ImageOptions(size=64, mean=(0.9, 0.1, 0.5)), vision.encoder).encode(pixels), plain
        )
    assert vision.grid == vision.encoder.grid
