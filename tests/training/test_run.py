"""The promises of captioner.training.run: whole runs."""

import json
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file

from captioner.card import read_header
from captioner.checkpoint import load_model, save_model
from captioner.datasets import load_dataset
from captioner.datasets.shapes import load_shapes
from captioner.datasets.sharding import write_shards
from captioner.errors import DataError, OptionError, TrainingError
from captioner.telling import SILENT
from captioner.text import tokenise
from captioner.training.plan import build_vocabulary
from captioner.training.step import take_step
from tests.training.small import SMALL, small_run


def test_a_run_leaves_a_model_a_log_and_a_resume_file(whole):
    """One readable and one JSON line an epoch, samples, and a best model that carries what was chosen on validation."""
    folder, said = whole
    names = {path.name for path in folder.iterdir()} - {"tensorboard"}
    assert names == {"best.safetensors", "last.safetensors", "log.jsonl", "resume.pt", "report.html"}
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert all(line["gradient_norm"] > 0 and "BLEU-4" in line["val"] for line in lines)
    assert sum(line.startswith("epoch ") for line in said) == 2
    header = read_header(folder / "best.safetensors")
    assert header["provenance"]["pictures"] == {"train": 36, "val": 4}
    assert any(
        line == f"Chosen: beam {header['search']['beam_size']}, length penalty {header['search']['length_penalty']}."
        for line in said
    )
    one, other = (load_model(folder / f"{name}.safetensors") for name in ("best", "last"))
    assert one.vocabulary.words == other.vocabulary.words


def test_a_used_folder_is_refused_and_a_missing_run_too(drawings, tmp_path):
    """Nothing of an earlier run is lost by starting another; --resume says when there is nothing to go on from."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").touch()
    with pytest.raises(OptionError, match="--resume"):
        small_run(drawings, tmp_path / "run")
    with pytest.raises(Exception, match="nothing to resume"):
        small_run(drawings, tmp_path / "other", resume=True)


def test_resuming_as_something_else_is_refused(drawings, whole, tmp_path):
    """Other options or other data are another run; the same ones may be repeated."""
    shutil.copytree(whole[0], tmp_path / "run")
    other = {**SMALL, "decoder": {"hidden_size": 32}}
    with pytest.raises(OptionError, match="--hidden-size is 32 now"):
        small_run(drawings, tmp_path / "run", given=other, resume=True)
    with pytest.raises(OptionError, match="data set"):
        small_run(load_shapes({"train": 8, "val": 4}), tmp_path / "run", resume=True)
    before = load_file(tmp_path / "run" / "last.safetensors")
    small_run(drawings, tmp_path / "run", resume=True)
    after = load_file(tmp_path / "run" / "last.safetensors")
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_a_loss_that_is_not_finite_stops_with_the_pictures_named(drawings, tmp_path, small_file):
    """The run stops at once and says where."""
    save_model(tmp_path / "model", small_file)
    broken = load_model(tmp_path / "model")
    for tensor in (broken.model.decoder.output.weight, broken.model.decoder.output.bias):
        tensor.data.fill_(3e38)  # finite, or the file would be refused; its logits are not
    save_model(tmp_path / "broken", broken)
    given = {"training": {"fine_tune": "all", "workers": 0, "precision": "float32", "batch_size": 8}}
    with pytest.raises(TrainingError, match=r"(nan|inf).*\.png"):
        small_run(drawings, tmp_path / "run", given=given, start_from=str(tmp_path / "broken"))


def test_a_model_goes_on_from_another_with_its_vocabulary_and_new_words(drawings, tmp_path, small_file):
    """--start-from keeps the words and the shape of the model; new words stand behind, and are said.

    A frozen encoder stays as it was.
    """
    save_model(tmp_path / "model", small_file)
    given = {"training": {"epochs": 1, "workers": 0, "precision": "float32"}, "search": {"beam_size": 2}}
    best, said = small_run(drawings, tmp_path / "run", given=given, start_from=str(tmp_path / "model"))
    file = load_model(best)
    had = small_file.vocabulary.words
    written = {
        word for image in load_dataset(drawings).split("train") for text in image.captions for word in tokenise(text)
    }
    assert file.vocabulary.words[: len(had)] == had
    assert set(file.vocabulary.words) == {*had, *written}
    assert any("of the captions' words already" in line and file.vocabulary.words[len(had)] in line for line in said)
    assert file.search.beam_size == 2
    assert any("Features of 36 pictures" in line for line in said)
    expected = small_file.model.encoder.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in file.model.encoder.state_dict().items())
    assert file.provenance["starting_weights"] == small_file.provenance


def test_a_run_that_gets_no_better_stops_early(drawings, tmp_path):
    """After `patience` epochs without a better score, and the best model is the one that is kept."""
    training = {
        **SMALL["training"],
        "epochs": 9,
        "patience": 2,
        "learning_rate": 0.0,
        "encoder_learning_rate": 0.0,
    }
    best, said = small_run(drawings, tmp_path / "run", given={**SMALL, "training": training})
    epochs = [line for line in said if line.startswith("epoch ")]
    last_better = max(number for number, line in enumerate(epochs, 1) if line.endswith("best"))
    assert len(epochs) == last_better + 2 < 9
    assert any("stopping early" in line for line in said)
    assert read_header(best)["provenance"]["epoch"] == last_better


def test_too_few_words_are_explained(drawings, tmp_path):
    """A tiny data set with a high --min-count."""
    given = {**SMALL, "training": {**SMALL["training"], "min_count": 1000}}
    with pytest.raises(DataError, match="--min-count"):
        small_run(drawings, tmp_path / "run", given=given)


def test_a_run_on_shards_that_is_stopped_in_an_epoch_ends_as_if_it_never_had(drawings, tmp_path, monkeypatch):
    """The same final tensors, bit for bit, also where the shards are at an address when it goes on, and read by
    threads; the words, the pictures and their scores are those of the data set that the shards were written from.
    """
    fsspec = pytest.importorskip("fsspec", reason="needs fsspec")
    write_shards(load_dataset(drawings), tmp_path / "shards", size=4000, telling=SILENT)
    data = load_dataset(tmp_path / "shards")
    given = {**SMALL, "training": {**SMALL["training"], "workers": 2}}
    best, _ = small_run(data, tmp_path / "whole")
    whole = load_file(tmp_path / "whole" / "last.safetensors")
    assert read_header(best)["provenance"]["pictures"] == {"train": 36, "val": 4}
    assert set(load_model(best).vocabulary.words) == set(build_vocabulary(load_dataset(drawings), min_count=1).words)
    steps, take = [], take_step

    def stopping(*arguments, **options):
        steps.append(1)
        if len(steps) == 3:
            signal.raise_signal(signal.SIGTERM)
        return take(*arguments, **options)

    monkeypatch.setattr("captioner.training.run.take_step", stopping)
    stopped, _ = small_run(data, tmp_path / "run", given=given)
    assert (stopped, len(steps)) == (None, 3)
    fsspec.filesystem("memory").put(str(tmp_path / "shards"), "memory://run", recursive=True)
    small_run(load_dataset("memory://run"), tmp_path / "run", given=given, resume=True)
    assert len(steps) == 10
    after = load_file(tmp_path / "run" / "last.safetensors")
    assert all(torch.equal(tensor, after[name]) for name, tensor in whole.items())
