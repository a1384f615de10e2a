"""The promises of captioner.training.features."""

from collections import namedtuple

import pytest
import torch

from captioner.datasets import Dataset, load_dataset
from captioner.datasets.shapes import load_shapes
from captioner.datasets.sharding import write_shards
from captioner.errors import OptionError
from captioner.telling import Telling
from captioner.training.batches import load_pixels
from captioner.training.features import cached_features


def features_of(model, images, folder, said):
    return cached_features(
        model, images, folder=folder, precision="float32", workers=0, telling=Telling(said.append, bars=False)
    )


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


def test_features_of_shards_are_those_of_the_files_and_stay_when_shards_move(small_file, drawings, tmp_path):
    """Computed from the shards; found again by the pictures' hashes, wherever the shards lie."""
    said = []
    images = load_dataset(drawings).images[:12]
    files = {
        image.name: row
        for image, row in zip(images, features_of(small_file.model, images, tmp_path / "f", said), strict=True)
    }
    dataset = Dataset("table", "x", images)
    write_shards(dataset, tmp_path / "shards", size=3000, telling=Telling(said.append, bars=False))
    packed = load_dataset(tmp_path / "shards").images
    found = features_of(small_file.model, packed, tmp_path / "f", said)
    for image, row in zip(packed, found, strict=True):
        torch.testing.assert_close(row.float(), files[image.name].float(), rtol=1e-2, atol=1e-2)
    (tmp_path / "shards").rename(tmp_path / "moved")
    features_of(small_file.model, load_dataset(tmp_path / "moved").images, tmp_path / "f", said)
    assert "found" in said[-1]


def test_a_disk_too_small_is_refused_with_the_alternative(small_file, tmp_path, monkeypatch):
    """Before anything is written, with the size and what to do instead."""
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(OptionError, match="--fine-tune all"):
        features_of(small_file.model, load_shapes({"train": 2}).images, tmp_path, [])
    assert not list(tmp_path.iterdir())
