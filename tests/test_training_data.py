"""The promises of what feeds training: batches, augmentation, drawn shapes, cached features."""

import random
import threading
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from captioner.datasets.batches import augment, encode_captions, epoch_batches, load_pixels, stack_captions
from captioner.datasets.dataset import CaptionedImage
from captioner.datasets.features import cached_features
from captioner.datasets.shapes import COLOURS, SIZE, draw, load_shapes
from captioner.errors import ImageError, OptionError
from captioner.options import ImageOptions
from captioner.text import END, PAD, START, UNKNOWN, Vocabulary


@given(st.integers(1, 200), st.integers(1, 50), st.integers(0, 5))
def test_an_epoch_shows_each_picture_once(count, size, epoch):
    """Batches cover every picture once, in an order that the seed and the epoch decide alone."""
    batches = epoch_batches(count, size, seed=1, epoch=epoch)
    assert sorted(index for batch in batches for index in batch) == list(range(count))
    assert all(len(batch) == size for batch in batches[:-1])
    assert batches == epoch_batches(count, size, seed=1, epoch=epoch)
    if count > 20:
        assert batches != epoch_batches(count, size, seed=1, epoch=epoch + 1)


def test_captions_become_ids_with_a_start_and_an_end():
    """A caption cut by `max_words` has no end, since it did not end; one without a word is left out."""
    vocabulary = Vocabulary.build([["a", "dog"]], min_count=1)
    image = CaptionedImage("x", "x", Path("x"), ("A dog!", "a dog a dog", "a yak", "..."), "train")
    ids = encode_captions([image], vocabulary, max_words=3)[0]
    assert ids == [[START, 4, 5, END], [START, 4, 5, 4], [START, 4, UNKNOWN, END]]
    tokens = stack_captions([ids, ids[:1]])
    assert tokens.shape == (2, 3, 4)
    assert tokens[1].tolist() == [[START, 4, 5, END], [PAD] * 4, [PAD] * 4]


def test_augmentation_keeps_left_left():
    """Crops and colours move, sides do not: captions say left and right."""
    picture = Image.new("RGB", (64, 64))
    picture.paste((255, 255, 255), (0, 0, 32, 64))
    for seed in range(20):
        changed = augment(picture, torch.Generator().manual_seed(seed))
        grey = changed.convert("L")
        assert grey.crop((0, 0, 16, 64)).getextrema()[0] > grey.crop((48, 0, 64, 64)).getextrema()[1]
        assert changed.size == picture.size


def test_augmented_pixels_depend_on_seed_epoch_and_picture_alone():
    """However many threads read them, and wherever a run was resumed."""
    images = load_shapes({"train": 6}).images
    options = ImageOptions(size=32)
    batches = [[0, 1], [2, 3], [4], [5]]
    plain = list(load_pixels(images, options, batches, augmentation=(1, 0)))
    torch.manual_seed(99)
    for workers, first in ((1, 1), (1, 0), (3, 0)):
        again = list(load_pixels(images, options, batches[first:], augmentation=(1, 0), workers=workers))
        assert len(again) == len(batches) - first
        assert all(map(torch.equal, plain[first:], again))
    assert not torch.equal(plain[0], next(load_pixels(images, options, [[0, 1]], augmentation=(1, 1))))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_vanished_is_named_and_leaves_no_thread_behind(tmp_path, workers):
    """Deleted after the data check, in the middle of an epoch."""
    shape = load_shapes({"train": 1}).images[0]
    images = [shape, shape, replace(shape, name="gone.jpg", source=tmp_path / "gone.jpg"), shape]
    before = threading.active_count()
    batches = load_pixels(images, ImageOptions(size=32), [[0], [1], [2], [3]], workers=workers)
    next(batches), next(batches)
    with pytest.raises(ImageError, match=r"gone\.jpg"):
        next(batches)
    assert threading.active_count() == before


# --- shapes ------------------------------------------------------------------------------------------------------------


def test_shapes_are_the_same_every_time_and_splits_differ():
    """The same drawings on every call, and no picture of one split in another."""
    one, two = load_shapes({"train": 30, "val": 30}), load_shapes({"train": 30, "val": 30})
    assert [image.captions for image in one.images] == [image.captions for image in two.images]
    drawn = {image.source.tobytes() for image in one.images}
    assert len(drawn) == 60


def test_a_drawing_holds_the_colours_its_caption_names():
    """The caption's colours, and no others, are in the picture."""
    generator = random.Random(3)
    for _ in range(30):
        picture, caption = draw(generator)
        assert picture.size == (SIZE, SIZE)
        pixels = set(picture.getdata() if not hasattr(picture, "get_flattened_data") else picture.get_flattened_data())
        assert {name for name, colour in COLOURS.items() if colour in pixels} == {
            name for name in COLOURS if name in caption.split()
        }


# --- cached features ---------------------------------------------------------------------------------------------------


def features_of(model, images, folder, said):
    return cached_features(model, images, folder=folder, precision="float32", workers=0, report=said.append)


def test_cached_features_are_the_encoders(small_file, tmp_path):
    """What the cache gives is what the encoder computes, to half precision; the second time it is found."""
    images, said = load_shapes({"train": 5}).images, []
    features = features_of(small_file.model, images, tmp_path, said)
    pixels = next(load_pixels(images, small_file.model.options.image, [list(range(5))]))
    with torch.inference_mode():
        expected = small_file.model.eval().encode(pixels)
    torch.testing.assert_close(features.float(), expected, rtol=1e-3, atol=1e-3)
    assert "MiB" in said[0]
    assert torch.equal(features_of(small_file.model, images, tmp_path, said), features)
    assert "found" in said[1]
    assert len(list(tmp_path.iterdir())) == 1
    features_of(small_file.model, images[:4], tmp_path, said)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["zeros", "NaN", "a bit", "cut", "longer", "of an earlier version"])
def test_damaged_features_are_computed_anew(small_file, tmp_path, damage):
    """Training would learn from them in silence, or blame the learning rate."""
    images, said = load_shapes({"train": 3}).images, []
    expected = features_of(small_file.model, images, tmp_path, said).clone()
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    size = 2 * expected.numel()
    if damage == "zeros":
        data[: size // 2] = bytes(size // 2)
    elif damage == "NaN":
        data[100:102] = b"\x00\x7e"
    elif damage == "a bit":
        data[size - 1] ^= 1
    data = {"cut": data[:-1], "longer": data + b"x", "of an earlier version": data[:size]}.get(damage, data)
    path.write_bytes(data)
    assert torch.equal(features_of(small_file.model, images, tmp_path, said), expected)
    assert "found" not in said[-1]
    features_of(small_file.model, images, tmp_path, said)
    assert "found" in said[-1]


def test_a_disk_too_small_is_refused_with_the_alternative(small_file, tmp_path, monkeypatch):
    """Before anything is written, with the size and what to do instead."""
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(OptionError, match="--fine-tune all"):
        features_of(small_file.model, load_shapes({"train": 2}).images, tmp_path, [])
    assert not list(tmp_path.iterdir())
