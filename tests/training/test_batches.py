"""The promises of captioner.training.batches: what feeds training."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from captioner.datasets.dataset import CaptionedImage
from captioner.datasets.shapes import load_shapes
from captioner.decoder import stack_captions
from captioner.errors import ImageError
from captioner.options import ImageOptions
from captioner.pictures.shards import Packed, Shard
from captioner.text import END, PAD, START, UNKNOWN, Vocabulary
from captioner.training.batches import MIXED, augment, encode_captions, epoch_batches, load_pixels, shards_of


@given(st.integers(1, 200), st.integers(1, 50), st.integers(0, 5))
def test_an_epoch_shows_each_picture_once(count, size, epoch):
    """Batches cover every picture once, in an order that the seed and the epoch decide alone."""
    batches = epoch_batches(count, size, seed=1, epoch=epoch)
    assert sorted(index for batch in batches for index in batch) == list(range(count))
    assert all(len(batch) == size for batch in batches[:-1])
    assert batches == epoch_batches(count, size, seed=1, epoch=epoch)
    if count > 20:
        assert batches != epoch_batches(count, size, seed=1, epoch=epoch + 1)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(1, 4), st.integers(0, 3))
def test_an_epoch_of_shards_shows_each_picture_once_and_few_shards_at_a_time(sizes, quarter, epoch):
    """In an order that mixes shards, and that 1, 2, 4, 8 and 16 processes have in common."""
    shards = [number for number, size in enumerate(sizes) for _ in range(size)]
    how = {"seed": 1, "epoch": epoch, "shards": shards}
    batches = epoch_batches(len(shards), 16 * quarter, **how)
    order = [index for batch in batches for index in batch]
    assert sorted(order) == list(range(len(shards)))
    for processes in (2, 4, 8, 16):
        assert batches == epoch_batches(len(shards), 16 * quarter, processes=processes, **how)
    spans = {}
    for at, index in enumerate(order):
        spans.setdefault(shards[index], [at, at])[1] = at
    # A shard that two lanes share is begun by one and ended by the other, so it may be there from start to end.
    open_at = [sum(first <= at <= last for first, last in spans.values()) for at, _ in spans.values()]
    assert max(open_at) <= 2 * MIXED + 1


def test_processes_share_the_shards_out():
    """Each reads its part of every batch from its part of the shards; but for those amid which a lane begins."""
    sizes = [30 + number % 7 for number in range(200)]
    shards = [number for number, size in enumerate(sizes) for _ in range(size)]
    for processes in (2, 4, 6, 8, 32):
        batches = epoch_batches(len(shards), 96, seed=0, epoch=0, shards=shards, processes=processes)
        reads = [{shards[index] for batch in batches for index in batch[rank::processes]} for rank in range(processes)]
        assert sum(map(len, reads)) <= len(sizes) + max(32, MIXED)
        assert max(map(len, reads)) <= len(sizes) / processes + 2 * 16 / processes + 4
    first = batches[0][:MIXED]
    assert len({shards[index] for index in first}) > MIXED - 3
    plain = [CaptionedImage(str(at), str(at), Path(str(at)), ("A.",), "train") for at in range(3)]
    assert shards_of(plain) == []


def test_pictures_of_shards_and_files_go_through_one_epoch(tmp_path):
    """Where data sets are joined, a file is a shard of its own."""
    one, two = Shard("one.tar", 9), Shard("two.tar", 9)
    sources = [Packed(one, 0, 1, "a"), Path("b"), Packed(two, 0, 1, "c"), Packed(one, 1, 1, "d"), Path("e")]
    images = [CaptionedImage(str(at), at, source, ("A.",), "train") for at, source in enumerate(sources)]
    assert shards_of(images) == [0, 1, 2, 0, 3]


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
