"""What several test files share."""

import csv
import os
import random
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from captioner.checkpoint import BUNDLED, ModelFile, save_model
from captioner.datasets.shapes import draw
from captioner.model import CaptionModel, ModelOptions
from captioner.options import DecoderOptions, EncoderOptions, ImageOptions, SearchOptions
from captioner.text import END, SPECIAL_WORDS, Vocabulary

pytest.register_assert_rewrite("tests.web.browsing")  # whose assertions say what they found, too
torch.set_num_threads(1)  # small networks; threads that wait for a busy core make the tests ten times slower

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


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
def drawings(tmp_path_factory):
    """A folder of 40 drawn pictures with captions.csv, as a user's own would be."""
    folder = tmp_path_factory.mktemp("drawings")
    generator = random.Random(1)
    with (folder / "captions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption"])
        for number in range(40):
            picture, caption = draw(generator)
            picture.save(folder / f"{number}.png")
            rows.writerow([f"{number}.png", caption])
    return folder


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
def both_ways_file(small_file: ModelFile) -> ModelFile:
    """The same, with a right-to-left decoder beside the other; they are sure enough of themselves to disagree."""
    torch.manual_seed(1)
    model = CaptionModel(replace(small_file.model.options, reverse=True)).eval()
    model.encoder.load_state_dict(small_file.model.encoder.state_dict())
    assert model.reverse is not None
    for decoder in (model.decoder, model.reverse):
        for parameter in decoder.parameters():
            torch.nn.init.normal_(parameter, std=0.6)
        decoder.output.bias.data[END] += 5  # sentences come to an end
    return replace(small_file, model=model)


@pytest.fixture(scope="session")
def model(small_file: ModelFile, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where that model lies as a file."""
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save_model(path, small_file)
    return str(path)


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium of the system's."""
    from playwright.sync_api import sync_playwright

    from tests.web.browsing import CHROMIUM, FLAGS

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def talkative(small_file: ModelFile, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the small model lies as a file, with the end of a sentence made so improbable that it says something."""
    file = deepcopy(small_file)
    file.model.decoder.output.bias.data[END] -= 5
    path = tmp_path_factory.mktemp("model") / "talkative.safetensors"
    save_model(path, file)
    return str(path)


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`python app.py`, ready."""
    with serving(tmp_path_factory.mktemp("server")) as found:
        yield found


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[str]:
    """`python app.py`, ready; stopped with Ctrl-C at the end, which must be quiet and leave nothing of its visitors."""
    pytest.importorskip("gradio", reason="the page needs gradio")
    if not BUNDLED.exists():
        pytest.skip("there is no bundled model")
    log, uploads = folder / "stderr.txt", folder / "uploads"
    uploads.mkdir()
    environment = os.environ | {"GRADIO_TEMP_DIR": str(uploads)}
    command = [sys.executable, "app.py", "--port", "0", "--device", "cpu", *arguments]
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], 120)
            line = process.stdout.readline() if ready else ""
            found = re.match(r"captioner is at (http://127\.0\.0\.1:\d+) \(.* on cpu\)$", line)
            assert found, (line, log.read_text())
            yield found[1]
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
        finally:
            process.kill()
    assert log.read_text() == ""
    assert list(uploads.rglob("*")) == []
