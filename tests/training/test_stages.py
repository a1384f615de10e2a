"""The promises of captioner.training.stages and recipes."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from captioner.card import read_header
from captioner.checkpoint import BUNDLED_MODELS, load_model
from captioner.datasets import load_dataset, load_datasets
from captioner.errors import ModelFileError, OptionError
from captioner.options import MODELS
from captioner.options import PRESETS as PRESET_NAMES
from captioner.telling import SILENT, Telling
from captioner.training.choices import resolve_options
from captioner.training.recipes import PRESETS, Stage
from captioner.training.stages import StagesPlan, run_stages
from captioner.training.validation import validate
from tests.training.small import SMALL

STAGES = (
    Stage("1-first", SMALL),
    Stage("2-second", {"training": {"direction": "right-to-left", "epochs": 1, "workers": 0}}),
)


def train_preset(data, output, *, given=None, resume=False, checked=None):
    """The recipe that tests call "small"; the finished model's file, and what was said."""
    said = []
    if resume:
        plan = StagesPlan.resumed(given or {}, preset="small", output=output)
    else:
        plan = StagesPlan.new(data, given or {}, preset="small", output=output)
    telling = Telling(said.append, bars=False)
    return run_stages(plan, checked or data, features=output.parent / "features", telling=telling), said


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_presets_are_made_of_options_that_exist(preset, small_file):
    """Each stage's options resolve; all but the first, and those that say so, go on from a model."""
    for stage in PRESETS[preset]:
        if stage is PRESETS[preset][0] or stage.start is None:
            options = resolve_options(stage.options, kind="flickr8k", start=None)
            assert options.training.objective == "likelihood"
            continue
        for name, values in stage.options.items():
            assert name in ("training", "decoder", "search")
            resolve_options({name: values}, kind="flickr8k", start=small_file)
    names = [stage.name for stage in PRESETS[preset]]
    assert len(set(names)) == len(names)
    for number, stage in enumerate(PRESETS[preset]):
        assert {stage.start or names[0], *stage.teachers} <= {*names[: max(1, number)], *MODELS}


def test_a_preset_goes_through_its_stages_and_on_after_a_stop(drawings, tmp_path, monkeypatch):
    """Each stage starts from the one before; what is done is not done again; the finished model is ready to ship."""
    monkeypatch.setitem(PRESETS, "small", STAGES)
    output = tmp_path / "run"
    data, given = load_dataset(drawings), {"training": {"precision": "float32", "seed": 3, "epochs": 1}}
    finished, said = train_preset(data, output, given=given)
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
        train_preset(data, output, given=given)
    (output / "2-second.safetensors").unlink()  # as if killed before the stage saved itself for the first time
    (output / "2-second" / "resume.pt").unlink()
    (output / "2-second" / "resume.pt.part").touch()
    before = finished.read_bytes()
    finished.unlink()
    _, said = train_preset(data, output, given=given, resume=True)
    assert [line for line in said if line.startswith("Stage")] == ["Stage 2 of 2, 2-second:"]
    assert finished.read_bytes() == before


def test_the_recorded_scores_are_those_of_the_weights_that_ship(drawings, tmp_path, monkeypatch):
    """Of the rounded ones, with the search that was chosen for them: here a rounding that leaves nothing."""
    monkeypatch.setitem(PRESETS, "small", STAGES[:1])
    with monkeypatch.context() as patch:
        patch.setattr("captioner.checkpoint._rounded", lambda name, tensor: {name: torch.zeros_like(tensor)})
        finished = load_model(train_preset(load_dataset(drawings), tmp_path / "run")[0])
    images = load_dataset(drawings).split("val")
    how = {"features": None, "precision": "float32", "telling": SILENT}
    scores, _ = validate(finished.model, images, finished.vocabulary, finished.search, **how)
    assert finished.provenance["val"] == scores.summary()
    assert finished.provenance["val"] != read_header(tmp_path / "run" / "1-first.safetensors")["provenance"]["val"]


def test_a_stage_goes_on_from_an_earlier_one_and_has_teachers(drawings, tmp_path, monkeypatch, first):
    """Not only from the one before: a decoder trained apart teaches, with a bundled model."""
    training = {"epochs": 1, "workers": 0, "min_count": 1, "learning_rate": 0.0, "encoder_learning_rate": 0.0}
    stages = (
        Stage("1-first", SMALL),
        Stage("2-apart", {"training": {**training, "new_decoder": True}}),
        Stage("3-taught", {"training": training}, start="1-first", teachers=("accurate", "2-apart")),
    )
    monkeypatch.setitem(PRESETS, "small", stages)
    monkeypatch.setitem(BUNDLED_MODELS, "accurate", first)  # with its words
    train_preset(load_dataset(drawings), tmp_path / "run")
    start, apart, taught = (load_model(tmp_path / "run" / f"{stage.name}.safetensors") for stage in stages)
    weights = [file.model.decoder.combine.weight for file in (start, apart, taught)]
    assert torch.equal(weights[0], weights[2])  # nothing moved: it started from the first
    assert not torch.equal(weights[1], weights[2])
    assert [origin["training"]["seed"] for origin in taught.provenance["teachers"]] == [1, 2]


def test_stages_may_learn_the_first_data_set_and_then_all(drawings, tmp_path, monkeypatch):
    """The vocabulary grows with the second one; a teacher that began with nothing numbers the same words otherwise."""
    other = tmp_path / "other"
    shutil.copytree(drawings, other)
    captions = (other / "captions.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    said = [captions[0], *(line.replace(",", ",a zebra and ", 1) for line in captions[1:])]
    (other / "captions.csv").write_text("".join(said), encoding="utf-8")
    once_more = {"training": {"epochs": 1, "workers": 0, "min_count": 1}}
    stages = (
        Stage("1-first", SMALL, first_set_alone=True),
        Stage("2-other", SMALL, start=None),
        Stage("3-both", once_more, start="1-first", teachers=("2-other",)),
    )
    monkeypatch.setitem(PRESETS, "small", stages)
    train_preset(load_datasets([drawings, other]), tmp_path / "run")
    first, apart, both = (read_header(tmp_path / "run" / f"{stage.name}.safetensors") for stage in stages)
    assert list(first["provenance"]["data_sets"]) == [drawings.name]
    assert len(both["provenance"]["data_sets"]) == len(apart["provenance"]["data_sets"]) == 2
    assert "zebra" not in first["vocabulary"]
    assert "zebra" in both["vocabulary"]
    assert both["vocabulary"][: len(first["vocabulary"])] == first["vocabulary"]
    assert sorted(apart["vocabulary"]) == sorted(both["vocabulary"])
    assert apart["provenance"]["starting_weights"] == "none encoder"


def test_a_stage_of_two_runs_leaves_the_mean_of_their_weights(drawings, tmp_path, monkeypatch):
    """Both go on from the same model, with other seeds; a stop between them costs neither."""
    once_more = {"epochs": 1, "workers": 0, "min_count": 1}
    stages = (
        Stage("1-first", SMALL),
        Stage("2-twice", {"training": once_more}, runs=2),
        Stage("3-last", {"training": {**once_more, "learning_rate": 0.0, "encoder_learning_rate": 0.0}}),
    )
    monkeypatch.setitem(PRESETS, "small", stages)
    data, output = load_dataset(drawings), tmp_path / "run"
    finished, _ = train_preset(data, output)
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
    before = finished.read_bytes()
    _, said = train_preset(data, output, resume=True)
    stage_lines = [line for line in said if line.startswith("Stage")]
    assert stage_lines == ["Stage 2 of 3, 2-twice-run-2:", "Stage 3 of 3, 3-last:"]
    assert finished.read_bytes() == before


def test_a_bundled_teacher_with_other_words_is_refused_at_once(drawings, tmp_path, monkeypatch):
    """Not when its stage comes, hours later."""
    monkeypatch.setitem(PRESETS, "small", (Stage("1-first", SMALL), Stage("2-taught", {}, teachers=("accurate",))))
    with pytest.raises(OptionError, match="taught by the bundled model accurate, whose vocabulary"):
        StagesPlan.new(load_dataset(drawings), {}, preset="small", output=tmp_path / "run")


def test_a_misspelt_group_in_a_late_stage_is_refused_at_once(drawings, tmp_path, monkeypatch):
    """Not when its stage comes, and not in silence."""
    monkeypatch.setitem(PRESETS, "small", (*STAGES, Stage("3-wrong", {"DecodrOptions": {"dropout": 0.1}})))
    with pytest.raises(OptionError, match="There are no options DecodrOptions"):
        StagesPlan.new(load_dataset(drawings), {}, preset="small", output=tmp_path / "run")


def test_a_preset_goes_on_inside_a_stage(drawings, tmp_path, monkeypatch):
    """A stage that has saved itself is resumed where it stood, not begun anew."""
    monkeypatch.setitem(PRESETS, "small", STAGES)
    data, output = load_dataset(drawings), tmp_path / "run"
    train_preset(data, output)
    (output / "2-second.safetensors").rename(output / "2-second" / "best.safetensors")
    with pytest.raises(OptionError, match="repeat that command"):
        train_preset(data, output, given={"training": {"seed": 7}}, resume=True)
    with pytest.raises(OptionError, match="repeat that command"):
        train_preset(data, output, checked=replace(data, images=data.images[1:]), resume=True)
    _, said = train_preset(data, output, resume=True)
    assert any(line.startswith("Going on in") and "after 1 epochs" in line for line in said)


def test_a_preset_of_earlier_versions_goes_on(drawings, tmp_path, monkeypatch):
    """They called the groups of options by the names of their classes."""
    monkeypatch.setitem(PRESETS, "small", STAGES[:1])
    data, output, given = load_dataset(drawings), tmp_path / "run", {"training": {"seed": 7, "epochs": 1}}
    train_preset(data, output, given=given)
    record = output / "preset.json"
    assert json.loads(record.read_text())["options"] == given
    record.write_text(record.read_text().replace('"training"', '"TrainingOptions"'))
    train_preset(data, output, given=given, resume=True)


def test_a_preset_without_its_bad_pictures_goes_on(drawings, tmp_path, monkeypatch):
    """What counts is the data set that was trained on: a plan for the unchecked one, as --skip-bad makes it, is none."""
    monkeypatch.setitem(PRESETS, "small", STAGES[:1])
    data, output = load_dataset(drawings), tmp_path / "run"
    checked = replace(data, images=data.images[1:])
    train_preset(data, output, checked=checked)
    train_preset(data, output, checked=checked, resume=True)


def test_what_a_preset_decides_is_refused_at_once(drawings, tmp_path):
    """Not after the stages that it would not have touched."""
    for name, values in (("training", {"fine_tune": "all"}), ("search", {"rerank": 0.5})):
        with pytest.raises(OptionError, match="does not go with --preset"):
            StagesPlan.new(load_dataset(drawings), {name: values}, preset="flickr8k", output=tmp_path / "x")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_record_that_cannot_be_read_is_one_sentence(tmp_path, content):
    """`--resume` in a folder whose preset.json a crash or a hand has damaged."""
    (tmp_path / "preset.json").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"preset\.json cannot be read .*: start anew with another --output"):
        StagesPlan.resumed({}, preset="flickr8k", output=tmp_path)
