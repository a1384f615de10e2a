"""The promises of exported models: ONNX Runtime and NumPy write what torch writes, and without torch.

Each family of encoders, each cell and each attention is exported at a small size and held against torch.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gradio
import numpy as np
import pytest
import torch
from torch import nn

from captioner import Captioner, cli
from captioner.captioner import prepare
from captioner.card import BUNDLED_MODELS, read_card
from captioner.checkpoint import ModelFile, load_model, save_model
from captioner.errors import ModelFileError, OptionError
from captioner.generation import caption_features
from captioner.model import CaptionModel
from captioner.network import TorchNetwork, network_of
from captioner.onnx_files import card_path, graph_path, read_grid
from captioner.options import MODELS, DecoderOptions, EncoderOptions, SearchOptions
from captioner.text import END

pytest.importorskip("onnxruntime", reason="the ONNX backend needs onnxruntime")
pytest.importorskip("onnxscript", reason="exporting needs onnxscript")

from captioner.onnx_export import export_onnx
from captioner.onnx_network import OnnxNetwork, load_onnx

ROOT = Path(__file__).parents[1]
PHOTO = Path(gradio.__file__).parent / "media_assets" / "images" / "cheetah1.jpg"
ENCODERS = [  # a small one of each family
    "mobilenet_v2",
    "mobilenet_v3_small",
    "resnet18",
    "resnext50_32x4d",
    "regnet_y_400mf",
    "efficientnet_b0",
    "convnext_tiny",
    "densenet121",
    "inception_v3",
]
DECODERS = [
    {"cell": "lstm", "attention": "dot"},
    {"cell": "gru", "attention": "additive"},
    {"cell": "rnn", "attention": "none"},
    {"cell": "lstm", "attention": "additive", "layers": 2, "normalise": False, "tied": False},
    {"cell": "gru", "attention": "dot", "layers": 2},
]


def sure(model: CaptionModel) -> CaptionModel:
    """The model with weights large enough that its probabilities differ, and with statistics of its own."""
    torch.manual_seed(3)
    for decoder in (model.decoder, model.reverse):
        for parameter in () if decoder is None else decoder.parameters():
            nn.init.normal_(parameter, std=0.4)
    model.decoder.output.bias.data[END] += 2
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


def exported(file: ModelFile, folder: Path) -> tuple[TorchNetwork, OnnxNetwork]:
    """The network of a small file's weights by torch, and by ONNX Runtime."""
    save_model(folder / "given.safetensors", file)
    export_onnx(folder / "given.safetensors", folder / "onnx")
    weights = folder / "onnx" / "given.safetensors"
    return network_of(load_model(weights).model), load_onnx(weights, read_card(weights))


def pictures(count: int, size: int = 64) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 3, size, size), dtype=np.uint8))


def same_captions(file: ModelFile, ours: OnnxNetwork, theirs: TorchNetwork, options: SearchOptions) -> None:
    """Both write the same sentences with the same probabilities, from features of their own."""
    pixels = pictures(3, file.model.options.image.size)
    found, wanted = (caption_features(n, n.encode(pixels), file.vocabulary, options) for n in (ours, theirs))
    for one, other in zip(found, wanted, strict=True):
        assert one.text == other.text
        assert one.log_probability == pytest.approx(other.log_probability, abs=2e-3)
        assert one.score == pytest.approx(other.score, abs=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_every_family_of_encoders_gives_the_same_features(small_file, tmp_path, name):
    """Pixels in, features out, batch norms and all, for any number of pictures."""
    size = 96 if name == "inception_v3" else 64
    options = small_file.model.options
    options = replace(options, encoder=EncoderOptions(name), image=replace(options.image, size=size))
    file = replace(small_file, model=sure(CaptionModel(options)))
    theirs, ours = exported(file, tmp_path)
    assert ours.grid == theirs.grid
    for count in (1, 3):
        wanted = theirs.encode(pictures(count, size)).numpy()
        found = ours.encode(pictures(count, size))
        assert np.abs(found - wanted).max() <= 1e-3 * max(1, np.abs(wanted).max())


@pytest.mark.slow
@pytest.mark.parametrize("fields", DECODERS, ids=lambda fields: f"{fields['cell']}-{fields['attention']}")
def test_every_cell_and_attention_writes_the_same(small_file, tmp_path, fields):
    """Captions, scores by both directions, and where it looked for each word."""
    options = small_file.model.options
    decoder = DecoderOptions(embedding_size=16, hidden_size=24, **fields)
    file = replace(small_file, model=sure(CaptionModel(replace(options, decoder=decoder, reverse=True))))
    theirs, ours = exported(file, tmp_path)
    assert ours.reads_backwards
    for beam, rerank in ((1, 0.0), (3, 0.0), (4, 0.5)):
        same_captions(file, ours, theirs, SearchOptions(beam, 8, 0.5, rerank=rerank))
    sequences = [[4, 5, 6], [7], []]
    pixels = pictures(1)
    looks = [network.attention(network.encode(pixels), sequences) for network in (ours, theirs)]
    if fields["attention"] == "none":
        assert looks == [None, None]
    else:
        np.testing.assert_allclose(*looks, atol=1e-4)
        assert np.asarray(looks[0]).shape == (3, 4, *theirs.grid)


@pytest.fixture(scope="module")
def small_export(both_ways_file, tmp_path_factory) -> Path:
    """A small model of both directions, exported; the path of its weights."""
    folder = tmp_path_factory.mktemp("exported")
    save_model(folder / "given.safetensors", both_ways_file)
    export_onnx(folder / "given.safetensors", folder / "onnx")
    return folder / "onnx" / "given.safetensors"


@pytest.mark.slow
def test_it_captions_as_torch_does(both_ways_file, small_export):
    """Right-to-left decoder included; the weights are one file, which both read."""
    theirs, ours = network_of(load_model(small_export).model), load_onnx(small_export, read_card(small_export))
    same_captions(both_ways_file, ours, theirs, SearchOptions(3, 8, 0.5, rerank=0.5))
    groups = [[[4, 5], [6]], [[7, 8, 9]], [[]]]
    features = np.random.default_rng(0).random((3, 4, both_ways_file.model.encoder.channels), dtype=np.float32)
    for found, wanted in zip(
        ours.score(features, groups), theirs.score(torch.from_numpy(features), groups), strict=True
    ):
        assert found == pytest.approx(wanted, abs=1e-3)


@pytest.mark.slow
def test_a_graph_holds_no_weights(small_export):
    """They are in the model file, rounded to 8 bits, once; a graph is small whatever the model's size."""
    assert small_export.stat().st_size > 900_000
    for part in ("encoder", "read", "step", "reverse-read", "reverse-step"):
        assert graph_path(small_export, part).stat().st_size < 250_000


@pytest.mark.slow
def test_a_file_exported_into_its_own_folder_stays_as_it_is(both_ways_file, tmp_path):
    """Float32 weights included: the graphs read that very file."""
    weights = tmp_path / "given.safetensors"
    save_model(weights, both_ways_file)
    before = weights.read_bytes()
    export_onnx(weights, tmp_path)
    assert weights.read_bytes() == before
    ours = load_onnx(weights, read_card(weights))
    same_captions(both_ways_file, ours, network_of(both_ways_file.model), SearchOptions(3, 8, 0.5, rerank=0.5))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "export writes either a file or, with --onnx, a folder: name one of them."),
        (["a.safetensors", "--onnx", "b"], "export writes either a file or, with --onnx, a folder: name one of them."),
        (["--onnx", __file__], f"--onnx is {__file__}, which is a file: name a folder."),
        (
            ["--onnx", "b", "--note", "x"],
            "--note goes into a model file: export to a file first, then that with --onnx.",
        ),
    ],
)
def test_export_that_makes_no_sense_is_one_sentence(capsys, arguments, said):
    """With the status for wrong use."""
    assert cli.main(["export", "fast", *arguments]) == 2
    assert capsys.readouterr().err == said + "\n"


@pytest.mark.slow
def test_the_json_card_says_what_the_model_is(small_export, both_ways_file):
    """Vocabulary, options and digest, for programs that know nothing of captioner."""
    card = json.loads(card_path(small_export).read_text())
    assert card["vocabulary"] == list(both_ways_file.vocabulary.words)
    assert card["digest"] == read_card(small_export).digest
    assert card["weights"] == small_export.name
    assert {"image", "search", "provenance", "grid"} <= card.keys()


@pytest.mark.slow
def test_graphs_of_other_weights_are_refused(small_export, tmp_path, small_file):
    """A sentence says so, and what to do: the graphs name places in a file that is another one now."""
    copies = {path.name: path.read_bytes() for path in small_export.parent.iterdir()}
    for name, content in copies.items():
        (tmp_path / name).write_bytes(content)
    weights = tmp_path / small_export.name
    save_model(weights, small_file)
    with pytest.raises(ModelFileError, match=r"is another file than its ONNX graphs .* --onnx FOLDER"):
        Captioner.load(weights, backend="onnx")
    card_path(weights).unlink()
    with pytest.raises(ModelFileError, match=r"has no ONNX graphs beside it: .*captioner export"):
        Captioner.load(weights, backend="onnx")


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x0a" * 500])
def test_a_damaged_graph_is_one_sentence(small_export, tmp_path, content):
    """It names the file."""
    for path in small_export.parent.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = tmp_path / small_export.name
    graph_path(weights, "step").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"given\.step\.onnx cannot be loaded .*: export the model anew"):
        Captioner.load(weights, backend="onnx")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "cuda"}, "runs on the CPU: choose cpu"),
        ({"precision": "bfloat16"}, "computes in float32"),
        ({"precision": "int3"}, "choose auto"),
        ({"backend": "jax"}, "choose auto, torch, onnx"),
    ],
)
def test_what_it_cannot_do_is_one_sentence(small_export, options, said):
    """And no traceback."""
    with pytest.raises(OptionError, match=said):
        Captioner.load(small_export, **{"backend": "onnx", **options})


@pytest.mark.slow
def test_other_fits_are_served_and_other_sizes_refused(small_export):
    """How a picture is fitted is done before the graph; its size and its numbers are in it."""
    captioner = Captioner.load(small_export, backend="onnx")
    other = captioner.with_(image=replace(captioner.image, fit="crop"))
    theirs = Captioner.load(small_export, backend="torch", precision="float32", image=other.image)
    assert other(PHOTO).log_probability == pytest.approx(theirs(PHOTO).log_probability, abs=2e-3)
    with pytest.raises(OptionError, match="choose the backend torch"):
        captioner.with_(image=replace(captioner.image, size=128))


@pytest.mark.parametrize("name", MODELS)
def test_the_bundled_graphs_belong_to_the_bundled_weights(name):
    """Else write them anew: python -m captioner export captioner/pretrained/NAME.safetensors --onnx captioner/pretrained"""
    path = BUNDLED_MODELS[name]
    assert read_grid(path, read_card(path)) == network_of(load_model(path).model).grid


WITHOUT_TORCH = """
import sys
for name in ("torch", "torchvision", "onnx", "onnxscript", "onnx_ir"):
    sys.modules[name] = None  # cannot be imported, and is not found
"""


def without_torch(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A script where torch cannot be imported, nor found."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH + script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize("name", MODELS)
def test_a_bundled_model_captions_a_photo_without_torch(name):
    """By the command, with what is installed: nothing imports torch or torchvision, and nothing asks for them."""
    script = "from captioner.cli import main; sys.exit(main(sys.argv[1:]))"
    done = without_torch(script, "caption", PHOTO, "--model", name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\t")[1].strip() == Captioner.load(name, precision="float32")(PHOTO).text


def test_the_page_and_the_api_are_served_without_torch():
    """Their whole application: a picture sent to the API gets its caption, and the page is there."""
    script = """
import asyncio
from fastapi.testclient import TestClient
from captioner.options import WebOptions
from captioner.web.queue import ModelQueue, load_models
from captioner.web.server import create_app

async def make(captioners, queue):
    return create_app(captioners, WebOptions(), queue)

captioners = load_models(["fast"])
queue = ModelQueue()
app = asyncio.run(make(captioners, queue))
with TestClient(app, base_url="http://127.0.0.1:7860") as client, open(sys.argv[1], "rb") as photo:
    assert "captioner" in client.get("/").text
    answer = client.post("/api/caption", files={"files": photo})
    assert "onnxruntime" in client.get("/metrics").text
queue.close()
print(answer.json()["captions"][0]["caption"])
"""
    done = without_torch(script, PHOTO)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == Captioner.load("fast", precision="float32")(PHOTO).text


def test_auto_takes_what_is_installed(monkeypatch):
    """torch, else ONNX Runtime; with neither, one sentence says how to install either."""
    from captioner import backends

    there = {"torch", "torchvision", "onnxruntime"}
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: name if name in there else None)
    assert backends.pick_backend() == "torch"
    there -= {"torchvision"}
    assert backends.pick_backend() == "onnx"
    with pytest.raises(OptionError, match="torch and torchvision must be installed"):
        backends.pick_backend("torch")
    there.clear()
    with pytest.raises(OptionError, match=r"captioner\[onnx\].*captioner\[torch\]"):
        prepare()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_bundled_model_writes_what_torch_writes(flickr8k, coco, name):
    """On 1,000 Flickr8k dev pictures and 80 of COCO: 99.5% the same, scores within 0.1, and the others near ties."""
    names = (flickr8k / "Flickr_8k.devImages.txt").read_text().split()
    photos = [flickr8k / "images" / photo for photo in names] + sorted((coco / "val2017").glob("*.jpg"))
    theirs, ours = (
        Captioner.load(name, backend=backend, precision="float32").stream((str(photo), photo) for photo in photos)
        for backend in ("torch", "onnx")
    )
    different = []
    for one, other in zip(theirs, ours, strict=True):
        assert one.caption is not None
        assert other.caption is not None
        assert one.caption.score == pytest.approx(other.caption.score, abs=0.1)
        if one.caption.text != other.caption.text:
            different.append((one.name, one.caption, other.caption))
    for photo, caption, instead in different:
        print(photo, caption.text, caption.score, instead.text, instead.score)
        assert abs(caption.score - instead.score) < 0.02  # a near tie
    assert len(different) <= 0.005 * len(photos)


@pytest.mark.parametrize(
    ("command", "absent", "extra"),
    [
        (("train", "shapes"), "torch", "torch"),
        (("serve", "--model", "fast"), "gradio", "web"),
        (("video", "no.mp4"), "av", "video"),
    ],
)
def test_an_extra_that_is_not_installed_is_one_sentence(command, absent, extra):
    """It says what to install, with the status for wrong use."""
    script = f"sys.modules['{absent}'] = None\nfrom captioner.cli import main; sys.exit(main(sys.argv[1:]))"
    done = without_torch(script, *command)
    assert done.returncode == 2, done.stderr
    assert done.stderr == f"This needs {absent}, which is not installed: pip install 'captioner[{extra}]'.\n"
