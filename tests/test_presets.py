"""The promises of captioner.training.presets: recipes of several stages."""

import pytest
import torch
from safetensors.torch import load_file

from captioner.checkpoint import load_model, read_header
from captioner.datasets import load_dataset
from captioner.errors import OptionError
from captioner.options import PRESETS as PRESET_NAMES
from captioner.training.presets import PRESETS, Stage, check_preset, train_preset
from captioner.training.setup import resolve_options
from tests.small_training import SMALL

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
    assert len({stage.name for stage in PRESETS[preset]}) == len(PRESETS[preset])


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
    assert sum(line.startswith("Choosing the search") for line in said) == 1  # of the last stage's model
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
