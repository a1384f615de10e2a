"""The promises of captioner.checkpoint."""

import json
import os
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from captioner.checkpoint import load_model, load_resume, read_header, save_model, save_resume
from captioner.errors import ModelFileError
from captioner.files import write_atomically


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


def test_half_precision_halves_the_file_and_hardly_moves_the_weights(small_file, tmp_path):
    """An exported file is half the size, loads in float32, and each weight is within float16's rounding."""
    save_model(tmp_path / "whole", small_file)
    save_model(tmp_path / "half", small_file, half=True)
    assert (tmp_path / "half").stat().st_size < 0.6 * (tmp_path / "whole").stat().st_size
    expected = small_file.model.state_dict()
    for name, tensor in load_model(tmp_path / "half").model.state_dict().items():
        assert tensor.dtype == expected[name].dtype
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-6)


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
    save_model(tmp_path / "second", load_model(tmp_path / "first"), half=True)
    assert read_header(tmp_path / "second")["tokeniser"] == "ptb-1"
    save_model(tmp_path / "third", replace(small_file, tokeniser="ptb-99"))
    with pytest.raises(ModelFileError, match="tokeniser ptb-99"):
        load_model(tmp_path / "third")


def test_a_model_whose_tensors_do_not_fit_its_options_is_refused(small_file, tmp_path):
    """A header that promises another shape than the tensors have."""
    save_model(tmp_path / "model", small_file)
    header = read_header(tmp_path / "model")
    header["decoder"]["hidden_size"] = 48
    with safe_open(tmp_path / "model", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, tmp_path / "changed", metadata={"captioner": json.dumps(header)})
    with pytest.raises(ModelFileError, match="changed"):
        load_model(tmp_path / "changed")


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
    for name in ("evil.pt", "missing.pt"):
        with pytest.raises(ModelFileError):
            load_resume(tmp_path / name)
