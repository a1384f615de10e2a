"""The promises of captioner.training.presets: recipes of several stages."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from captioner.checkpoint import BUNDLED_MODELS, load_model, read_header
from captioner.datasets import load_dataset
from captioner.errors import ModelFileError, OptionError
from captioner.options import MODELS
from captioner.options import PRESETS as PRESET_NAMES
from captioner.training.presets import PRESETS, Stage, check_preset, train_preset
from captioner.training.setup import resolve_options
from captioner.training.validation import validate
from tests.small_training import SMALL, small_run

STAGES = (
    Stage("1-first", SMALL),
    Stage("2-second", {"TrainingOptions": {"direction": "right-to-left", "epochs": 1, "workers": 0}}),
)


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_presets_are_made_of_options_that_exist(preset, small_file):
    """Each stage's options resolve; all but the first go on from a model."""
    first, *others = PRESETS[preset]
    options = resolve_options(first.options, kind="flickr8k", start=None)
    assert options.training.objective == "likelihood"
    for stage in others:
        for name, values in stage.options.items():
            assert name in ("TrainingOptions", "DecoderOptions", "SearchOptions")
            resolve_options({name: values}, kind="flickr8k", start=small_file)
    names = [stage.name for stage in PRESETS[preset]]
    assert len(set(names)) == len(names)
    for number, stage in enumerate(PRESETS[preset]):
        assert {stage.start or names[0], *stage.teachers} <= {*names[: max(1, number)], *MODELS}


def test_a_preset_goes_through_its_stages_and_on_after_a_stop(drawings, tmp_path, monkeypatch):
    """Each stage starts from the one before; what is done is not done again; the finished model is ready to ship."""
    monkeypatch.setitem(PRESETS, "small", STAGES)
    output, said = tmp_path / "run", []

    def go(*, resume):
        return train_preset(
            load_dataset(drawings),
            preset="small",
            given={"TrainingOptions": {"precision": "float32", "seed": 3, "epochs": 1}},
            output=output,
            features=tmp_path / "features",
            resume=resume,
            report=said.append,
        )

    finished = go(resume=False)
    assert finished == output / "captioner.safetensors"
    assert load_model(finished).model.reverse is not None
    assert sum(line.startswith("Choosing the search") for line in said) == 1  # of the finished model
    trained = read_header(finished)["provenance"]["training"]
    assert (trained["seed"], trained["direction"], trained["epochs"]) == (4, "right-to-left", 1)
    first = read_header(output / "1-first.safetensors")["provenance"]["training"]
    assert (first["epochs"], first["batch_size"]) == (1, 8)  # what the user gave, over what the stage says
    assert first["seed"] == 3  # and the next stage another
    assert torch.int8 in {tensor.dtype for tensor in load_file(finished).values()}
    with pytest.raises(OptionError, match="--resume"):
        go(resume=False)
    (output / "2-second.safetensors").unlink()  # as if killed before the stage saved itself for the first time
    (output / "2-second" / "resume.pt").unlink()
    (output / "2-second" / "resume.pt.part").touch()
    said.clear()
    before = finished.read_bytes()
    finished.unlink()
    go(resume=True)
    assert [line for line in said if line.startswith("Stage")] == ["Stage 2 of 2, 2-second:"]
    assert finished.read_bytes() == before


def test_the_recorded_scores_are_those_of_the_weights_that_ship(drawings, tmp_path, monkeypatch):
    """Of the rounded ones, with the search that was chosen for them: here a rounding that leaves nothing."""
    monkeypatch.setitem(PRESETS, "small", STAGES[:1])
    places = {"output": tmp_path / "run", "features": tmp_path / "features", "resume": False, "report": str}
    with monkeypatch.context() as patch:
        patch.setattr("captioner.checkpoint._rounded", lambda name, tensor: {name: torch.zeros_like(tensor)})
        finished = load_model(train_preset(load_dataset(drawings), preset="small", given={}, **places))
    images = load_dataset(drawings).split("val")
    scores, _ = validate(
        finished.model, images, finished.vocabulary, finished.search, features=None, precision="float32"
    )
    assert finished.provenance["val"] == scores.summary()
    assert finished.provenance["val"] != read_header(tmp_path / "run" / "1-first.safetensors")["provenance"]["val"]


def test_a_stage_goes_on_from_an_earlier_one_and_has_teachers(drawings, tmp_path, monkeypatch):
    """Not only from the one before: a decoder trained apart teaches, with a bundled model."""
    training = {"epochs": 1, "workers": 0, "min_count": 1, "learning_rate": 0.0, "encoder_learning_rate": 0.0}
    stages = (
        Stage("1-first", SMALL),
        Stage("2-apart", {"TrainingOptions": {**training, "new_decoder": True}}),
        Stage("3-taught", {"TrainingOptions": training}, start="1-first", teachers=("accurate", "2-apart")),
    )
    monkeypatch.setitem(PRESETS, "small", stages)
    small_run(drawings, tmp_path / "bundled")
    monkeypatch.setitem(BUNDLED_MODELS, "accurate", tmp_path / "bundled" / "best.safetensors")  # with its words
    places = {"output": tmp_path / "run", "features": tmp_path / "features", "resume": False, "report": str}
    train_preset(load_dataset(drawings), preset="small", given={}, **places)
    first, apart, taught = (load_model(tmp_path / "run" / f"{stage.name}.safetensors") for stage in stages)
    weights = [file.model.decoder.combine.weight for file in (first, apart, taught)]
    assert torch.equal(weights[0], weights[2])  # nothing moved: it started from the first
    assert not torch.equal(weights[1], weights[2])
    assert [origin["training"]["seed"] for origin in taught.provenance["teachers"]] == [1, 2]


def test_a_stage_of_two_runs_leaves_the_mean_of_their_weights(drawings, tmp_path, monkeypatch):
    """Both go on from the same model, with other seeds; a stop between them costs neither."""
    once_more = {"epochs": 1, "workers": 0, "min_count": 1}
    stages = (
        Stage("1-first", SMALL),
        Stage("2-twice", {"TrainingOptions": once_more}, runs=2),
        Stage("3-last", {"TrainingOptions": {**once_more, "learning_rate": 0.0, "encoder_learning_rate": 0.0}}),
    )
    monkeypatch.setitem(PRESETS, "small", stages)
    data, output, said = load_dataset(drawings), tmp_path / "run", []
    whole = {"preset": "small", "given": {}, "output": output, "features": tmp_path / "features"}
    finished = train_preset(data, resume=False, report=said.append, **whole)
    one, other, both, last = (
        load_model(output / f"{name}.safetensors") for name in ("2-twice-run-1", "2-twice-run-2", "2-twice", "3-last")
    )
    moved = 0
    for name, weight in both.model.state_dict().items():
        parts = [file.model.state_dict()[name] for file in (one, other)]
        if weight.is_floating_point():
            torch.testing.assert_close(weight, (parts[0] + parts[1]) / 2)
        torch.testing.assert_close(weight, last.model.state_dict()[name])  # which started from the mean
        moved += not torch.equal(*parts)
    assert moved
    seeds = [file.provenance["training"]["seed"] for file in (one, other, both)]
    assert seeds[0] != seeds[1]
    assert seeds[2] == seeds[:2]
    assert "val" not in both.provenance  # nobody has scored it
    for name in ("2-twice-run-2", "2-twice", "3-last"):  # as if stopped between the runs
        (output / f"{name}.safetensors").unlink()
        shutil.rmtree(output / name, ignore_errors=True)
    said.clear()
    before = finished.read_bytes()
    train_preset(data, resume=True, report=said.append, **whole)
    stage_lines = [line for line in said if line.startswith("Stage")]
    assert stage_lines == ["Stage 2 of 3, 2-twice-run-2:", "Stage 3 of 3, 3-last:"]
    assert finished.read_bytes() == before


def test_a_bundled_teacher_with_other_words_is_refused_at_once(drawings, tmp_path, monkeypatch):
    """Not when its stage comes, hours later."""
    monkeypatch.setitem(PRESETS, "small", (Stage("1-first", SMALL), Stage("2-taught", {}, teachers=("accurate",))))
    places = {"output": tmp_path / "run", "resume": False}
    with pytest.raises(OptionError, match="taught by the bundled model accurate, whose vocabulary"):
        check_preset(load_dataset(drawings), preset="small", given={}, **places)


def test_a_preset_goes_on_inside_a_stage(drawings, tmp_path, monkeypatch):
    """A stage that has saved itself is resumed where it stood, not begun anew."""
    monkeypatch.setitem(PRESETS, "small", STAGES)
    said = []
    whole = {"preset": "small", "given": {}, "features": tmp_path / "features", "report": said.append}
    train_preset(load_dataset(drawings), output=tmp_path / "run", resume=False, **whole)
    (tmp_path / "run" / "2-second.safetensors").rename(tmp_path / "run" / "2-second" / "best.safetensors")
    said.clear()
    other = {**whole, "given": {"TrainingOptions": {"seed": 7}}}
    with pytest.raises(OptionError, match="repeat that command"):
        train_preset(load_dataset(drawings), output=tmp_path / "run", resume=True, **other)
    train_preset(load_dataset(drawings), output=tmp_path / "run", resume=True, **whole)
    assert any(line.startswith("Going on in") and "after 1 epochs" in line for line in said)


def test_what_a_preset_decides_is_refused_at_once(drawings, tmp_path):
    """Not after the stages that it would not have touched."""
    for name, values in (("TrainingOptions", {"fine_tune": "all"}), ("SearchOptions", {"rerank": 0.5})):
        with pytest.raises(OptionError, match="does not go with --preset"):
            check_preset(
                load_dataset(drawings), preset="flickr8k", given={name: values}, output=tmp_path / "x", resume=False
            )


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_record_that_cannot_be_read_is_one_sentence(drawings, tmp_path, content):
    """`--resume` in a folder whose preset.json a crash or a hand has damaged."""
    (tmp_path / "preset.json").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"preset\.json cannot be read .*: start anew with another --output"):
        check_preset(load_dataset(drawings), preset="flickr8k", given={}, output=tmp_path, resume=True)
