"""What is said to whoever trains: the promises of captioner.training.advice."""

import pytest

from captioner.training import advice
from tests.training.small import SMALL, small_run


def origin(*, weights="imagenet encoder", train=300, epoch=3, objective="likelihood"):
    """A provenance as a model's file has it."""
    scores = {"BLEU-4": 12.3, "CIDEr-D": 45.6, "distinct": 40, "images": 52}
    training = {"objective": objective, "epochs": 5}
    pictures = {"train": train, "val": 52}
    return {"starting_weights": weights, "pictures": pictures, "epoch": epoch, "training": training, "val": scores}


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ({}, True),
        ({"train": advice.FEW}, False),
        ({"weights": "none encoder"}, False),
        ({"weights": {"data": "flickr8k"}}, False),
    ],
)
def test_few_pictures_are_better_learnt_from_a_trained_model(case, said):
    """Said to those alone whom it concerns: few pictures, a decoder that begins with nothing, an encoder that sees."""
    assert ("--start-from fast" in advice.before(origin(**case))) == said


def test_a_degenerate_model_gets_no_next_stage():
    """What repeats itself would be drawn and rewarded: the way out comes first, and it alone."""
    lines = advice.after(origin(), best="runs/a/best.safetensors", sound=False)
    assert "--start-from fast" in lines[-1]
    assert not any("self-critical" in line for line in lines)
    assert "may help" in advice.after(origin(train=9_000), best="x", sound=False)[-1]


def test_a_sound_model_is_told_what_comes_next():
    """More epochs where the last one was the best; the other objective where it has not been."""
    lines = advice.after(origin(epoch=5), best="runs/a/best.safetensors", sound=True)
    assert "epoch 5: BLEU-4 12.3, CIDEr-D 45.6 on 52 validation pictures" in lines[0]
    assert "more --epochs than 5" in lines[1]
    assert "--start-from runs/a/best.safetensors --objective self-critical" in lines[2]
    assert len(advice.after(origin(objective="self-critical"), best="x", sound=True)) == 1


def test_a_run_ends_with_a_summary(drawings, tmp_path):
    """With the scores that the file carries, after the search was chosen."""
    _, said = small_run(drawings, tmp_path / "run", given={**SMALL, "training": {**SMALL["training"], "epochs": 1}})
    assert any(line.startswith("The best model is that of epoch 1: BLEU-4 ") for line in said)
    assert not any("are few to learn" in line for line in said)  # drawings' encoder begins with nothing
