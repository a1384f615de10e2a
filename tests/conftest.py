"""What several test files share."""

from pathlib import Path

import pytest
import torch

from captioner.checkpoint import ModelFile, save_model
from captioner.model import CaptionModel, ModelOptions
from captioner.options import DecoderOptions, EncoderOptions, ImageOptions, SearchOptions
from captioner.text import SPECIAL_WORDS, Vocabulary

torch.set_num_threads(1)  # small networks; threads that wait for a busy core make the tests ten times slower

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def flickr8k() -> Path:
    folder = SHARED / "data" / "flickr8k"
    if not folder.is_dir():
        pytest.skip(f"the real Flickr8k is not at {folder}")
    return folder


@pytest.fixture(scope="session")
def coco() -> Path:
    folder = SHARED / "data" / "coco"
    if not folder.is_dir():
        pytest.skip(f"the COCO sample is not at {folder}")
    return folder


@pytest.fixture
def imagenet(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's ImageNet weights without the network."""
    home = SHARED / "torch_home"
    if not home.is_dir():
        pytest.skip(f"torchvision's weights are not at {home}")
    monkeypatch.setenv("TORCH_HOME", str(home))


@pytest.fixture(scope="session")
def small_file() -> ModelFile:
    """A whole model of random weights, small enough for a test."""
    torch.manual_seed(0)
    vocabulary = Vocabulary([*SPECIAL_WORDS, *"a dog the 's red cat runs on grass n't".split()])
    options = ModelOptions(
        ImageOptions(size=64),
        EncoderOptions("mobilenet_v3_small"),
        DecoderOptions(embedding_size=16, hidden_size=24),
        len(vocabulary),
    )
    return ModelFile(CaptionModel(options).eval(), vocabulary, SearchOptions(max_length=8), {"data": "nothing"})


@pytest.fixture(scope="session")
def model(small_file: ModelFile, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where that model lies as a file."""
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save_model(path, small_file)
    return str(path)
