"""The promises of training that goes on from a model: another objective or direction, a new decoder, teachers."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from captioner.card import read_header
from captioner.checkpoint import load_model, save_model
from captioner.datasets import load_dataset
from captioner.decoder import stack_captions
from captioner.errors import OptionError
from captioner.text import END, PAD, START
from captioner.training.batches import encode_captions, load_pixels
from captioner.training.cross_entropy import caption_loss
from captioner.training.plan import Plan
from captioner.training.self_critical import NEVER, advantages, reward
from captioner.training.validation import validate
from tests.training.small import SMALL, small_run


def test_self_critical_training_goes_on_from_a_model(drawings, tmp_path, first):
    """A run of its own, with the reward and the samples' length in its log; references are not imitated any more."""
    training = {"objective": "self-critical", "epochs": 2, "samples": 3, "precision": "float32", "workers": 0}
    given = {"training": training, "search": {"max_length": 12}}
    best, said = small_run(drawings, tmp_path / "run", given=given, start_from=str(first))
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert all(line["reward"] >= 0 and 0 <= line["sampled_words"] <= 12 for line in lines)
    assert any("reward" in line for line in said)
    before, after = load_model(first).model.state_dict(), load_model(best).model.state_dict()
    assert not torch.equal(before["decoder.embedding.weight"], after["decoder.embedding.weight"])
    assert read_header(best)["provenance"]["starting_weights"]["data"] == "table"


def test_a_second_direction_is_added_and_the_first_kept(drawings, tmp_path, first):
    """--direction right-to-left trains a decoder on reversed captions; the other and the encoder stay, bit for bit."""
    training = {"direction": "right-to-left", "epochs": 1, "precision": "float32", "workers": 0}
    best, _ = small_run(drawings, tmp_path / "run", given={"training": training}, start_from=str(first))
    before, after = load_model(first).model.state_dict(), load_model(best).model
    assert after.reverse is not None
    assert all(torch.equal(tensor, after.state_dict()[name]) for name, tensor in before.items())
    assert not torch.equal(after.reverse.embedding.weight, after.decoder.embedding.weight)
    training = {**training, "objective": "self-critical"}
    again, _ = small_run(drawings, tmp_path / "again", given={"training": training}, start_from=str(best))
    final = load_model(again).model
    assert torch.equal(final.decoder.embedding.weight, after.decoder.embedding.weight)
    assert not torch.equal(final.reverse.embedding.weight, after.reverse.embedding.weight)


@pytest.mark.parametrize(("chosen", "asked"), [({}, 0.5), ({"rerank": 0.25}, 0.25)])
def test_a_second_direction_is_judged_by_what_both_choose(drawings, tmp_path, first, monkeypatch, chosen, asked):
    """Its own captions are never shown to anyone: half the say in validation, or the share that the user gave."""
    shares = []

    def watch(model, images, vocabulary, search, **how):
        shares.append(search.rerank)
        return validate(model, images, vocabulary, search, **how)

    monkeypatch.setattr("captioner.training.run.validate", watch)
    training = {"direction": "right-to-left", "epochs": 1, "precision": "float32", "workers": 0}
    given = {"training": training, "search": chosen}
    small_run(drawings, tmp_path / "run", given=given, start_from=str(first))
    assert shares == [asked]


def test_an_encoder_that_learns_leaves_the_second_direction_behind(drawings, tmp_path, first):
    """It knew the features of another encoder; a frozen one keeps it."""
    training = {"epochs": 1, "precision": "float32", "workers": 0}
    given = {"training": {**training, "direction": "right-to-left"}}
    both, _ = small_run(drawings, tmp_path / "both", given=given, start_from=str(first))
    for name, kept, more in (("frozen", True, {}), ("learning", False, {"fine_tune": "all"})):
        given = {"training": {**training, **more}}
        best, _ = small_run(drawings, tmp_path / name, given=given, start_from=str(both))
        assert (load_model(best).model.reverse is not None) == kept


def test_a_step_follows_the_advantages(drawings, tmp_path, first, monkeypatch):
    """One step of a self-critical run has the gradient of the loss weighted by advantages, nothing forbidden in it."""
    seen = []

    def watch(decoder, features, tokens, **how):
        seen.append(how)
        return caption_loss(decoder, features, tokens, **how)

    earned = []
    monkeypatch.setattr("captioner.training.objectives.caption_loss", watch)
    monkeypatch.setattr(
        "captioner.training.objectives.reward", lambda *what: earned.append(reward(*what)) or earned[-1]
    )
    training = {"objective": "self-critical", "epochs": 1, "precision": "float32", "workers": 0, "temperature": 0.7}
    small_run(drawings, tmp_path / "run", given={"training": training}, start_from=str(first))
    assert len(seen) == len(earned) > 0
    for how, rewards in zip(seen, earned, strict=True):
        assert torch.equal(how["weights"], advantages(rewards))
        assert (how["never"], how["temperature"], how.get("smoothing", 0.0)) == (NEVER, 0.7, 0.0)


def test_the_second_direction_learns_reversed_captions(drawings, tmp_path, first, monkeypatch):
    """From the end to the start, in the references and in the samples; it begins with the other one's weights."""
    data, start = load_dataset(drawings), load_model(first)
    taught = []

    def watch(decoder, features, tokens, **how):
        taught.append((decoder, {tuple(ids) for group in tokens.tolist() for ids in group}))
        return caption_loss(decoder, features, tokens, **how)

    monkeypatch.setattr("captioner.training.objectives.caption_loss", watch)
    given = {"training": {"direction": "right-to-left", "precision": "float32", "epochs": 1, "batch_size": 100}}
    plan = Plan.new(data, given, output=tmp_path / "run", start_from=str(first))
    model = plan.model()
    assert all(map(torch.equal, model.reverse.parameters(), model.decoder.parameters()))
    best, _ = small_run(data, tmp_path / "run", given=given, start_from=str(first))
    forward = encode_captions(data.split("train"), start.vocabulary, max_words=50)
    longest = max(len(ids) for group in forward for ids in group)
    expected = {(START, *ids[-2:0:-1], END, *[PAD] * (longest - len(ids))) for group in forward for ids in group}
    assert [tokens for _, tokens in taught] == [expected]

    file = load_model(best)
    torch.nn.init.zeros_(file.model.reverse.combine.weight)
    save_model(tmp_path / "zero", file)
    again = Plan.new(data, given, output=tmp_path / "again", start_from=str(tmp_path / "zero")).model()
    assert not again.reverse.combine.weight.any()  # not from the other one, where there is one already


def test_what_is_chosen_of_the_search_stays_and_the_rest_is_tried(drawings, tmp_path, first):
    """One field given fixes that one alone: a second direction is asked all the same where that does better."""
    training = {"direction": "right-to-left", "epochs": 1, "precision": "float32", "workers": 0}
    given = {"training": training, "search": {"max_length": 12, "length_penalty": 0.0}}
    best, said = small_run(drawings, tmp_path / "run", given=given, start_from=str(first))
    tried = [line for line in said if line.startswith("  beam")]
    assert len(tried) == len(set(tried)) > 3
    assert all("length penalty 0.0" in line for line in tried)
    assert any("right-to-left share" in line for line in tried)
    assert load_model(best).search.max_length == 12


def test_pictures_that_no_word_is_said_of_are_passed_over(drawings, tmp_path):
    """A caption of dots teaches nothing and stops nothing, in either objective."""
    data = load_dataset(drawings)
    images = [replace(image, captions=("...",)) if number % 2 else image for number, image in enumerate(data.images)]
    data = replace(data, images=tuple(images))
    one = {**SMALL, "training": {**SMALL["training"], "batch_size": 1, "epochs": 1}}
    first, _ = small_run(data, tmp_path / "first", given=one)
    given = {"training": {"objective": "self-critical", "epochs": 1, "batch_size": 1, "workers": 0}}
    assert small_run(data, tmp_path / "again", given=given, start_from=str(first))[0]


# --- teachers ----------------------------------------------------------------------------------------------------------

PLAIN = {"epochs": 1, "precision": "float32", "workers": 0, "min_count": 1}


def test_a_new_decoder_keeps_the_encoder_alone(drawings, tmp_path, first):
    """Its shape is free, its words are those of its own data, and it writes in one direction."""
    data = load_dataset(drawings)
    images = [
        replace(image, captions=tuple(f"{caption} indeed" for caption in image.captions)) for image in data.images
    ]
    given = {
        "training": {**PLAIN, "new_decoder": True},
        "decoder": {"cell": "gru", "hidden_size": 24, "embedding_size": 24},
    }
    best, _ = small_run(replace(data, images=tuple(images)), tmp_path / "run", given=given, start_from=str(first))
    before, after = load_model(first), load_model(best)
    assert after.model.options.decoder.cell == "gru"
    assert "indeed" in after.vocabulary.words
    assert "indeed" not in before.vocabulary.words
    kept = after.model.encoder.state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in before.model.encoder.state_dict().items())


def test_varied_pictures_do_not_need_an_encoder_that_learns(drawings, tmp_path, first):
    """The encoder stays as it is, and what it sees changes from epoch to epoch: nothing is kept of it."""
    given = {"training": {**PLAIN, "augment": True}}
    best, _ = small_run(drawings, tmp_path / "run", given=given, start_from=str(first))
    assert not (tmp_path / "features").exists()
    before, after = (load_model(path).model for path in (first, best))
    kept = after.encoder.state_dict()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in before.encoder.state_dict().items())
    assert not torch.equal(before.decoder.output.weight, after.decoder.output.weight)


@pytest.fixture(scope="module")
def family(drawings, first, tmp_path_factory):
    """Two models with one encoder and decoders of their own."""
    folder = tmp_path_factory.mktemp("family")
    given = {
        "training": {**PLAIN, "new_decoder": True, "seed": 5},
        "decoder": {"hidden_size": 24, "heads": 8},
    }
    second, _ = small_run(drawings, folder / "second", given=given, start_from=str(first))
    return str(first), str(second)


@pytest.fixture(scope="module")
def stranger(drawings, tmp_path_factory):
    """A model of the same words that sees larger pictures through an encoder of its own."""
    given = {**SMALL, "image": {"size": 96}, "encoder": {"name": "mobilenet_v2"}}
    given["training"] = {**SMALL["training"], "seed": 5}
    return str(small_run(drawings, tmp_path_factory.mktemp("stranger") / "run", given=given)[0])


@pytest.mark.parametrize(
    ("kind", "eyes"),
    [("relative", {}), ("stranger", {}), ("stranger", {"fine_tune": "all", "augment": True})],
    ids=["relative", "stranger", "learning to see"],
)
def test_a_student_comes_closer_to_its_teachers(drawings, tmp_path, family, stranger, kind, eyes):
    """Taught by nobody but another model, the probabilities of its words approach that model's, whatever its eyes."""
    first, second = family
    teacher = {"relative": second, "stranger": stranger}[kind]
    training = {**PLAIN, **eyes, "epochs": 3, "learning_rate": 3e-3, "teacher_share": 1.0, "patience": 9}
    given = {"training": training}
    best, _ = small_run(drawings, tmp_path / "run", given=given, start_from=first, teachers=[teacher])
    images = load_dataset(drawings).split("train")[:8]
    ids = encode_captions(images, load_model(best).vocabulary, max_words=50)

    @torch.no_grad()
    def said_by(path):
        model = load_model(Path(path)).model.eval()
        pixels = next(load_pixels(images, model.options.image, [range(len(images))]))
        return model(pixels, stack_captions(ids))[0].log_softmax(-1)

    believed = said_by(teacher)
    last = tmp_path / "run" / "last.safetensors"
    before, after = ((believed.exp() * (believed - said_by(path))).sum(-1).mean() for path in (first, last))
    assert after < 0.8 * before
    started, learnt = (load_model(Path(path)).model.encoder.state_dict() for path in (first, last))
    assert any(not torch.equal(tensor, learnt[name]) for name, tensor in started.items()) == bool(eyes)
    origin = read_header(best)["provenance"]
    assert [teacher["training"]["seed"] for teacher in origin["teachers"]] == [5]


def test_teachers_must_fit_the_learner(drawings, tmp_path, family, small_file):
    """Other words; nothing to teach; or nobody to be taught."""
    first, second = family
    save_model(tmp_path / "other.safetensors", small_file)
    given = {"training": PLAIN}
    with pytest.raises(OptionError, match="another vocabulary"):
        small_run(
            drawings, tmp_path / "a", given=given, start_from=first, teachers=[str(tmp_path / "other.safetensors")]
        )
    with pytest.raises(OptionError, match="name it with --start-from"):
        small_run(drawings, tmp_path / "c", teachers=[second])
    for name, value in (
        ("objective", "self-critical"),
        ("direction", "right-to-left"),
        ("new_decoder", True),
    ):
        refused = {"training": {**PLAIN, name: value}}
        with pytest.raises(OptionError, match="--teachers"):
            small_run(drawings, tmp_path / "d", given=refused, start_from=first, teachers=[second])


def test_a_taught_run_goes_on_with_its_teachers(drawings, tmp_path, family):
    """They are named in the resume file; others are refused."""
    first, second = family
    given = {"training": PLAIN}
    small_run(drawings, tmp_path / "run", given=given, start_from=first, teachers=[second])
    with pytest.raises(OptionError, match=r"--teachers are .* now"):
        small_run(drawings, tmp_path / "run", given=given, resume=True, teachers=[first])
    for again in ([], [second]):
        assert small_run(drawings, tmp_path / "run", given=given, resume=True, teachers=again)[0]
