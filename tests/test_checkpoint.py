"""The promises of captioner.checkpoint."""

import copy
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from captioner import Captioner
from captioner.card import read_header
from captioner.checkpoint import (
    BUNDLED_MODELS,
    load_model,
    load_resume,
    model_path,
    save_model,
    save_resume,
)
from captioner.errors import ModelFileError
from captioner.files import write_atomically
from captioner.model import CaptionModel
from captioner.options import MODELS, DecoderOptions, SearchOptions


def test_a_model_file_gives_back_the_whole_model(small_file, tmp_path):
    """Weights, vocabulary, options, search and provenance come back as they were; tied weights are stored once."""
    path = tmp_path / "model.safetensors"
    save_model(path, small_file)
    loaded = load_model(path)
    assert loaded.model.options == small_file.model.options
    assert loaded.vocabulary.words == small_file.vocabulary.words
    assert (loaded.search, loaded.provenance) == (small_file.search, small_file.provenance)
    expected = small_file.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.model.state_dict().items())
    with safe_open(path, "pt") as file:
        assert "decoder.output.weight" not in file.keys()  # noqa: SIM118 - not a mapping
    assert not loaded.model.training
    assert loaded.model.decoder.output.weight is loaded.model.decoder.embedding.weight


def test_a_model_that_reads_both_ways_comes_back_whole(both_ways_file, tmp_path):
    """Both decoders, each with its own tied embedding stored once; a half-precision copy has both too."""
    for decoder in (both_ways_file.model.options.decoder, DecoderOptions(tied=False, hidden_size=8, embedding_size=8)):
        options = replace(both_ways_file.model.options, decoder=decoder)
        model = both_ways_file.model if decoder.tied else CaptionModel(options)
        save_model(tmp_path / "whole", replace(both_ways_file, model=model, search=SearchOptions(rerank=0.25)))
        loaded = load_model(tmp_path / "whole")
        assert loaded.model.options == options
        assert loaded.search.rerank == 0.25
        expected, found = model.state_dict(), loaded.model.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
        with safe_open(tmp_path / "whole", "pt") as file:
            stored = {name for name in file.keys() if name.endswith("output.weight")}  # noqa: SIM118
        assert len(stored) == (0 if decoder.tied else 2)
        reverse = loaded.model.reverse
        assert (reverse.output.weight is reverse.embedding.weight) == decoder.tied
        assert not torch.equal(reverse.embedding.weight, loaded.model.decoder.embedding.weight)
        save_model(tmp_path / "small", loaded, small=True)
        small = load_model(tmp_path / "small").model.state_dict()
        assert all((small[name] - whole).abs().max() <= 0.005 * whole.abs().max() for name, whole in expected.items())


def rewritten(path, other, change):
    """The same tensors under a changed header."""
    header = read_header(path)
    change(header)
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, other, metadata={"captioner": json.dumps(header)})


def test_files_of_format_1_still_load(small_file, tmp_path):
    """They know of no second decoder and of no share for it; what is written now is format 2."""

    def age(header):
        assert header["format"] == 2
        header["format"] = 1
        del header["reverse"], header["search"]["rerank"]

    save_model(tmp_path / "new", small_file)
    rewritten(tmp_path / "new", tmp_path / "old", age)
    loaded = load_model(tmp_path / "old")
    assert loaded.model.reverse is None
    assert (loaded.model.options, loaded.search) == (small_file.model.options, small_file.search)
    expected = small_file.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.model.state_dict().items())


@pytest.mark.parametrize("reverse", [True, False])
def test_a_header_that_is_wrong_about_the_second_decoder_is_refused(small_file, both_ways_file, tmp_path, reverse):
    """It promises a decoder that is not there, or forgets one that is."""
    save_model(tmp_path / "model", small_file if reverse else both_ways_file)
    rewritten(tmp_path / "model", tmp_path / "changed", lambda header: header.update(reverse=reverse))
    with pytest.raises(ModelFileError, match="changed cannot be loaded"):
        load_model(tmp_path / "changed")


def test_a_small_file_hardly_moves_the_weights(small_file, tmp_path):
    """Less than a third of the size, loaded in float32; each weight within half a 127th of its row's largest."""
    save_model(tmp_path / "whole", small_file)
    save_model(tmp_path / "small", small_file, small=True)
    assert (tmp_path / "small").stat().st_size < 0.33 * (tmp_path / "whole").stat().st_size
    expected = small_file.model.state_dict()
    for name, tensor in load_model(tmp_path / "small").model.state_dict().items():
        assert tensor.dtype == expected[name].dtype
        if tensor.ndim < 2:
            assert torch.equal(tensor, expected[name])
        else:
            rows = expected[name].flatten(1)
            away = (tensor.flatten(1) - rows).abs().amax(1)
            assert torch.all(away <= 0.5001 * rows.abs().amax(1) / 127)


def test_a_small_copy_of_a_small_file_is_the_same(small_file, tmp_path):
    """Rounding twice is rounding once; a row of zeros stays one."""
    file = replace(small_file, model=copy.deepcopy(small_file.model))
    torch.nn.init.zeros_(file.model.decoder.embedding.weight[0])
    save_model(tmp_path / "first", file, small=True)
    once = load_model(tmp_path / "first")
    save_model(tmp_path / "second", once, small=True)
    twice = load_model(tmp_path / "second").model.state_dict()
    assert not once.model.decoder.embedding.weight[0].any()
    for name, tensor in once.model.state_dict().items():
        torch.testing.assert_close(twice[name], tensor, rtol=1e-6, atol=0)


def test_batch_norms_of_a_loaded_model_keep_their_statistics(small_file, tmp_path):
    """Whoever fine-tunes a loaded model does not overwrite what its batch norms learnt."""
    save_model(tmp_path / "model", small_file)
    model = load_model(tmp_path / "model").model.train()
    assert not any(m.training for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))


def damaged_files(whole, folder):
    header = {"captioner": json.dumps({"format": 99})}
    save_file({"x": torch.zeros(1)}, folder / "future", metadata=header)
    save_file({"x": torch.zeros(1)}, folder / "other")
    save_file({"x": torch.zeros(1)}, folder / "header", metadata={"captioner": "{"})
    (folder / "empty").write_bytes(b"")
    (folder / "text").write_text("a photo")
    data = whole.read_bytes()
    (folder / "cut").write_bytes(data[: len(data) // 2])
    (folder / "longer").write_bytes(data + b"x")
    torch.save({"evil": print}, folder / "pickle")
    (folder / "folder").mkdir()
    return [*(path for path in folder.iterdir() if path != whole), folder / "missing"]


def test_files_that_are_no_model_are_refused_with_a_sentence(small_file, tmp_path):
    """Missing, empty, cut, foreign, pickled or newer: one ModelFileError that names the file, nothing else."""
    whole = tmp_path / "whole"
    save_model(whole, small_file)
    paths = damaged_files(whole, tmp_path)
    assert len(paths) == 10
    for path in paths:
        with pytest.raises(ModelFileError) as caught:
            load_model(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelFileError, match="update captioner"):
        read_header(tmp_path / "future")


def test_a_model_keeps_the_tokeniser_it_was_trained_with(small_file, tmp_path):
    """Files of earlier versions of the rules load, and a copy says which they were; an unknown version is refused."""
    save_model(tmp_path / "first", replace(small_file, tokeniser="ptb-1"))
    save_model(tmp_path / "second", load_model(tmp_path / "first"), small=True)
    assert read_header(tmp_path / "second")["tokeniser"] == "ptb-1"
    save_model(tmp_path / "third", replace(small_file, tokeniser="ptb-99"))
    with pytest.raises(ModelFileError, match="tokeniser ptb-99"):
        load_model(tmp_path / "third")


def test_a_model_whose_tensors_do_not_fit_its_options_is_refused(small_file, tmp_path):
    """A header that promises another shape than the tensors have."""
    save_model(tmp_path / "model", small_file)
    rewritten(tmp_path / "model", tmp_path / "changed", lambda header: header["decoder"].update(hidden_size=48))
    with pytest.raises(ModelFileError, match="changed"):
        load_model(tmp_path / "changed")


def test_names_of_bundled_models_win_over_files(tmp_path, monkeypatch):
    """In a folder with a file called "fast", the word means the bundled model, and ./fast or a Path the file."""
    monkeypatch.chdir(tmp_path)
    assert model_path(None) == model_path(MODELS[0]) == BUNDLED_MODELS[MODELS[0]]
    assert model_path("fast") == BUNDLED_MODELS["fast"]
    assert model_path("./fast") == model_path(Path("fast")) == Path("fast")
    assert model_path("fast.safetensors") == Path("fast.safetensors")
    assert list(BUNDLED_MODELS) == list(MODELS)


def test_a_file_is_whole_or_not_there(tmp_path):
    """Writing that fails half-way leaves the old file and no litter."""
    path = tmp_path / "file"
    path.write_text("old")

    def fail(part):
        part.write_text("half of the n")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


def test_a_resume_file_holds_tensors_and_plain_values(tmp_path):
    """What goes in comes out; anything that would need unpickling code is refused."""
    save_resume(tmp_path / "resume.pt", {"model": {"a": torch.ones(2)}, "progress": {"epoch": 3}})
    state = load_resume(tmp_path / "resume.pt")
    assert state["progress"] == {"epoch": 3}
    assert torch.equal(state["model"]["a"], torch.ones(2))
    torch.save({"evil": print}, tmp_path / "evil.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    (tmp_path / "text.pt").write_text("no state")
    for name in ("evil.pt", "missing.pt", "list.pt", "tensor.pt", "text.pt"):
        with pytest.raises(ModelFileError):
            load_resume(tmp_path / name)


def test_a_captioner_leaves_its_model_as_it_was(both_ways_file, tmp_path):
    """What is multiplied beforehand for it, or made half as precise, is its own: the model can be trained and saved."""
    before = copy.deepcopy(both_ways_file.model.state_dict())
    captioner = Captioner.of(both_ways_file, precision="bfloat16")
    captioner(Image.new("RGB", (30, 20), "red"))
    save_model(tmp_path / "copy", both_ways_file)
    for found in (both_ways_file.model, load_model(tmp_path / "copy").model):
        for name, tensor in found.state_dict().items():
            assert tensor.dtype == before[name].dtype
            assert torch.equal(tensor, before[name]), name
    assert all(parameter.requires_grad for parameter in both_ways_file.model.parameters())
    assert not isinstance(captioner.network, torch.nn.Module)
