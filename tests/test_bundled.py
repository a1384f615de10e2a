"""The promises of the models that ship with the package."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gradio
import pytest
import torch
from torch import nn

from captioner import Captioner
from captioner.card import read_header
from captioner.checkpoint import BUNDLED_MODELS, load_model, save_model
from captioner.datasets import load_dataset
from captioner.evaluation import evaluate
from captioner.model import CaptionModel
from captioner.options import MODELS

ROOT = Path(__file__).parents[1]
MOST_BYTES = {"accurate": 40e6, "fast": 25e6}
LEAST_BLEU_4 = {"accurate": 26, "fast": 24}  # on the dev split

pytestmark = pytest.mark.parametrize("name", MODELS)


def test_it_is_one_small_file_that_says_where_it_came_from(name):
    """Encoder included, under 40 or 25 MB, with its data, versions, scores and the search chosen on validation."""
    assert BUNDLED_MODELS[name].stat().st_size < MOST_BYTES[name]
    header = read_header(BUNDLED_MODELS[name])
    origin = header["provenance"]
    assert origin["data"] == "flickr8k"
    assert origin["pictures"] == {"train": 6000, "val": 1000}
    assert origin["val"]["BLEU-4"] >= LEAST_BLEU_4[name]
    assert origin["val"]["distinct"] >= 500
    assert header["image"]["fit"] == "squash"
    assert {"captioner", "torch", "commit", "training"} <= origin.keys()


def test_no_shipped_layer_equals_the_one_it_started_from(imagenet, tmp_path, name):
    """Every convolution differs from ImageNet's, beyond what rounding does to it: the whole encoder learnt."""
    file = load_model(BUNDLED_MODELS[name])
    start = CaptionModel(file.model.options, imagenet=True)
    save_model(tmp_path / "start.safetensors", replace(file, model=start), small=True)
    rounded = load_model(tmp_path / "start.safetensors").model
    trunks = (model.encoder.trunk.modules() for model in (file.model, rounded))
    convolutions = 0
    for ours, theirs in zip(*trunks, strict=True):
        if isinstance(ours, nn.Conv2d):
            convolutions += 1
            assert (ours.weight != theirs.weight).float().mean() > 0.5
        if isinstance(ours, nn.BatchNorm2d):
            assert not torch.equal(ours.bias, theirs.bias)
    assert convolutions >= 52


def test_it_captions_a_real_photo_with_no_network(name):
    """Load, encode, search: nothing opens a connection, and none of it waits for torch's compiler to be imported."""
    script = (
        "import socket, sys\n"
        "def refuse(*arguments): raise AssertionError('the network was touched')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from captioner import Captioner\n"
        "print(Captioner.load(sys.argv[2], 'cpu')(sys.argv[1]).text)\n"
        "assert not {'torch._dynamo', 'sympy'} & set(sys.modules)\n"
    )
    photo = Path(gradio.__file__).parent / "media_assets" / "images" / "cheetah1.jpg"
    environment = {**os.environ, "TORCH_HOME": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(photo), name],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) >= 3


def test_different_photos_get_different_captions(flickr8k, name):
    """It looks at the picture: ten dev photos, hardly a caption twice, and none of blanks."""
    photos = sorted((flickr8k / "images").iterdir())[:10]
    texts = [caption.text for caption in Captioner.load(name)(photos)]
    assert len(set(texts)) >= 7


@pytest.mark.slow
def test_it_scores_on_flickr8k_dev_what_its_file_says(flickr8k, name):
    """`evaluate` on the 1,000 dev pictures: what the README says, within what another machine's rounding may change."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "captioner",
            "evaluate",
            str(flickr8k),
            "--json",
            "--model",
            name,
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    said = read_header(BUNDLED_MODELS[name])["provenance"]["val"]
    for metric in ("BLEU-1", "BLEU-4", "CIDEr-D"):
        assert record["metrics"][metric]["score"] == pytest.approx(said[metric], abs=0.3)
    assert record["metrics"]["BLEU-4"]["score"] >= LEAST_BLEU_4[name]
    assert record["distinct"] >= 500
    assert record["degenerate"] == ""


@pytest.mark.slow
def test_bfloat16_writes_what_float32_writes(flickr8k, name):
    """Nearly always, and it scores the same: what docs/performance.md says, within another machine's rounding."""
    images = load_dataset(flickr8k).split("val")
    captions = {
        precision: [caption.text for caption in Captioner.load(name, precision=precision)([i.source for i in images])]
        for precision in ("float32", "bfloat16")
    }
    same = sum(one == other for one, other in zip(*captions.values(), strict=True))
    assert same / len(images) > 0.85
    ours, theirs = (evaluate(images, texts).scores for texts in captions.values())
    assert ours["BLEU-4"] == pytest.approx(theirs["BLEU-4"], abs=0.5)
