"""The promises of captioner.training and of what feeds it: batches, features, shapes."""

import csv
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

from captioner.checkpoint import BUNDLED_MODELS, load_model, load_resume, read_header, save_model
from captioner.datasets import load_dataset
from captioner.datasets.batches import augment, encode_captions, epoch_batches, load_pixels, stack_captions
from captioner.datasets.dataset import CaptionedImage
from captioner.datasets.features import cached_features
from captioner.datasets.shapes import COLOURS, SIZE, draw, load_shapes
from captioner.decoder import Decoder
from captioner.errors import DataError, OptionError, TrainingError
from captioner.options import PRESETS as PRESET_NAMES
from captioner.options import DecoderOptions, ImageOptions
from captioner.text import END, PAD, START, UNKNOWN, Vocabulary
from captioner.training.likelihood import caption_loss
from captioner.training.loop import train
from captioner.training.presets import PRESETS, Stage, check_preset, train_preset
from captioner.training.run import Run, learning_rate
from captioner.training.self_critical import NEVER, Sampler
from captioner.training.setup import build_model, resolve_options

ROOT = Path(__file__).parents[1]
SMALL = {
    "TrainingOptions": {
        "encoder_weights": "none",
        "fine_tune": "all",
        "epochs": 2,
        "batch_size": 8,
        "min_count": 1,
        "workers": 0,
        "precision": "float32",
    },
    "EncoderOptions": {"name": "resnet18", "stage": "layer1"},
    "DecoderOptions": {"hidden_size": 16, "embedding_size": 16},
    "ImageOptions": {"size": 32},
    "SearchOptions": {},
}
FLAGS = [
    *"--encoder-weights none --fine-tune all --epochs 3 --batch-size 4 --min-count 1 --workers 0".split(),
    *"--encoder resnet18 --encoder-stage layer1 --image-size 32 --hidden-size 16 --embedding-size 16".split(),
]


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    """A folder of 40 drawn pictures with captions.csv, as a user's own would be."""
    folder = tmp_path_factory.mktemp("drawings")
    generator = random.Random(1)
    with (folder / "captions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "caption"])
        for number in range(40):
            picture, caption = draw(generator)
            picture.save(folder / f"{number}.png")
            rows.writerow([f"{number}.png", caption])
    return folder


# --- the loss, the schedule, the batches ------------------------------------------------------------------------------


def small_decoder():
    torch.manual_seed(0)
    decoder = Decoder(DecoderOptions(embedding_size=8, hidden_size=8), channels=3, vocabulary_size=9).eval()
    tokens = torch.randint(4, 9, (2, 3, 6))
    tokens[0, 1, 3:] = PAD
    tokens[1, 2] = PAD
    return decoder, torch.randn(2, 4, 3), tokens


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_a_mean_over_words(smoothing, weighted):
    """Equal to a slow sum over real words with smoothed targets, each times its caption's weight."""
    decoder, features, tokens = small_decoder()
    weights = torch.randn(2, 3) if weighted else None
    logits, _ = decoder(features, tokens[..., :-1])
    losses = []
    for image, caption, place in (tokens[..., 1:] != PAD).nonzero().tolist():
        log_probabilities = logits[image, caption, place].log_softmax(-1)
        smoothed = torch.full((9,), smoothing / 9)
        smoothed[tokens[image, caption, place + 1]] += 1 - smoothing
        weight = 1.0 if weights is None else weights[image, caption]
        losses.append(-(smoothed * log_probabilities).sum() * weight)
    found = caption_loss(decoder, features, tokens, smoothing=smoothing, weights=weights)
    torch.testing.assert_close(found, sum(losses) / len(losses))


def test_padding_changes_no_loss():
    """However much there is of it, in length or in captions; and a batch without any word is refused."""
    decoder, features, tokens = small_decoder()
    padded = F.pad(tokens, (0, 4, 0, 2), value=PAD)
    torch.testing.assert_close(caption_loss(decoder, features, padded), caption_loss(decoder, features, tokens))
    with pytest.raises(ValueError, match="no word"):
        caption_loss(decoder, features, torch.full_like(tokens, PAD))


@given(st.integers(1, 500), st.floats(0, 1))
def test_the_learning_rate_rises_then_falls(steps, warmup):
    """Between 0 and 1 of its peak at every step, rising in the warm-up, falling after it."""
    rates = [learning_rate(step, steps, warmup=warmup) for step in range(steps)]
    assert all(0 <= rate <= 1 for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


@given(st.integers(1, 200), st.integers(1, 50), st.integers(0, 5))
def test_an_epoch_shows_each_picture_once(count, size, epoch):
    """Batches cover every picture once, in an order that the seed and the epoch decide alone."""
    batches = epoch_batches(count, size, seed=1, epoch=epoch)
    assert sorted(index for batch in batches for index in batch) == list(range(count))
    assert all(len(batch) == size for batch in batches[:-1])
    assert batches == epoch_batches(count, size, seed=1, epoch=epoch)
    if count > 20:
        assert batches != epoch_batches(count, size, seed=1, epoch=epoch + 1)


def test_captions_become_ids_with_a_start_and_an_end():
    """A caption cut by `max_words` has no end, since it did not end; one without a word is left out."""
    vocabulary = Vocabulary.build([["a", "dog"]], min_count=1)
    image = CaptionedImage("x", "x", Path("x"), ("A dog!", "a dog a dog", "a yak", "..."), "train")
    ids = encode_captions([image], vocabulary, max_words=3)[0]
    assert ids == [[START, 4, 5, END], [START, 4, 5, 4], [START, 4, UNKNOWN, END]]
    tokens = stack_captions([ids, ids[:1]])
    assert tokens.shape == (2, 3, 4)
    assert tokens[1].tolist() == [[START, 4, 5, END], [PAD] * 4, [PAD] * 4]


def test_augmentation_keeps_left_left():
    """Crops and colours move, sides do not: captions say left and right."""
    picture = Image.new("RGB", (64, 64))
    picture.paste((255, 255, 255), (0, 0, 32, 64))
    for seed in range(20):
        changed = augment(picture, torch.Generator().manual_seed(seed))
        grey = changed.convert("L")
        assert grey.crop((0, 0, 16, 64)).getextrema()[0] > grey.crop((48, 0, 64, 64)).getextrema()[1]
        assert changed.size == picture.size


def test_augmented_pixels_depend_on_seed_epoch_and_picture_alone():
    """However many processes read them, and wherever a run was resumed."""
    images = load_shapes({"train": 6}).images
    options = ImageOptions(size=32)
    plain = list(load_pixels(images, options, [[0, 1], [2, 3]], augmentation=(1, 0)))
    torch.manual_seed(99)
    again = list(load_pixels(images, options, [[2, 3]], augmentation=(1, 0), workers=1))
    assert torch.equal(plain[1], again[0])
    assert not torch.equal(plain[0], next(load_pixels(images, options, [[0, 1]], augmentation=(1, 1))))


# --- shapes ------------------------------------------------------------------------------------------------------------


def test_shapes_are_the_same_every_time_and_splits_differ():
    """The same drawings on every call, and no picture of one split in another."""
    one, two = load_shapes({"train": 30, "val": 30}), load_shapes({"train": 30, "val": 30})
    assert [image.captions for image in one.images] == [image.captions for image in two.images]
    drawn = {image.source.tobytes() for image in one.images}
    assert len(drawn) == 60


def test_a_drawing_holds_the_colours_its_caption_names():
    """The caption's colours, and no others, are in the picture."""
    generator = random.Random(3)
    for _ in range(30):
        picture, caption = draw(generator)
        assert picture.size == (SIZE, SIZE)
        pixels = set(picture.getdata() if not hasattr(picture, "get_flattened_data") else picture.get_flattened_data())
        assert {name for name, colour in COLOURS.items() if colour in pixels} == {
            name for name in COLOURS if name in caption.split()
        }


# --- cached features ---------------------------------------------------------------------------------------------------


def features_of(model, images, folder, said):
    return cached_features(model, images, folder=folder, precision="float32", workers=0, report=said.append)


def test_cached_features_are_the_encoders(small_file, tmp_path):
    """What the cache gives is what the encoder computes, to half precision; the second time it is found."""
    images, said = load_shapes({"train": 5}).images, []
    features = features_of(small_file.model, images, tmp_path, said)
    pixels = next(load_pixels(images, small_file.model.options.image, [list(range(5))]))
    with torch.inference_mode():
        expected = small_file.model.eval().encode(pixels)
    torch.testing.assert_close(features.float(), expected, rtol=1e-3, atol=1e-3)
    assert "MiB" in said[0]
    assert torch.equal(features_of(small_file.model, images, tmp_path, said), features)
    assert "found" in said[1]
    assert len(list(tmp_path.iterdir())) == 1
    features_of(small_file.model, images[:4], tmp_path, said)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_disk_too_small_is_refused_with_the_alternative(small_file, tmp_path, monkeypatch):
    """Before anything is written, with the size and what to do instead."""
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(OptionError, match="--fine-tune all"):
        features_of(small_file.model, load_shapes({"train": 2}).images, tmp_path, [])
    assert not list(tmp_path.iterdir())


# --- options -----------------------------------------------------------------------------------------------------------


def test_choices_go_over_the_recipe_over_the_defaults():
    """What the user gives wins over the data set's recipe, which wins over the defaults."""
    options = resolve_options({"TrainingOptions": {"epochs": 3}}, kind="shapes", start=None)
    assert (options.training.epochs, options.training.encoder_weights, options.training.batch_size) == (3, "none", 32)
    assert resolve_options({}, kind="table", start=None).training.encoder_weights == "imagenet"
    bicubic = resolve_options({"EncoderOptions": {"name": "efficientnet_b0"}}, kind="table", start=None)
    assert bicubic.image.interpolation == "bicubic"


def test_the_objective_has_a_recipe_of_its_own(small_file):
    """Self-critical training takes smaller steps with less dropout, and a trained model to begin with."""
    chosen = {"TrainingOptions": {"objective": "self-critical"}}
    options = resolve_options(chosen, kind="table", start=small_file)
    plain = resolve_options({}, kind="table", start=small_file)
    assert options.training.learning_rate < plain.training.learning_rate
    assert options.decoder.dropout < plain.decoder.dropout
    chosen["DecoderOptions"] = {"dropout": 0.4}
    assert resolve_options(chosen, kind="table", start=small_file).decoder.dropout == 0.4
    with pytest.raises(OptionError, match="self-critical improves a trained model"):
        resolve_options(chosen, kind="table", start=None)


def test_a_second_direction_needs_a_first_and_leaves_the_encoder_alone(small_file):
    """Both are said before anything is trained."""
    chosen = {"TrainingOptions": {"direction": "right-to-left"}}
    with pytest.raises(OptionError, match="--start-from"):
        resolve_options(chosen, kind="table", start=None)
    chosen["TrainingOptions"]["fine_tune"] = "all"
    with pytest.raises(OptionError, match="--fine-tune"):
        resolve_options(chosen, kind="table", start=small_file)


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


def test_contradictions_are_refused(small_file):
    """A random frozen encoder; a shape that differs from the model to start from."""
    with pytest.raises(OptionError, match="--fine-tune all"):
        resolve_options({"TrainingOptions": {"encoder_weights": "none"}}, kind="table", start=None)
    with pytest.raises(OptionError, match="--start-from"):
        resolve_options({"DecoderOptions": {"cell": "gru"}}, kind="table", start=small_file)
    with pytest.raises(OptionError, match="--encoder is resnet18, but"):
        resolve_options({"EncoderOptions": {"name": "resnet18"}}, kind="table", start=small_file)
    with pytest.raises(OptionError, match="--start-from"):
        resolve_options({"TrainingOptions": {"encoder_weights": "imagenet"}}, kind="table", start=small_file)
    chosen = {"DecoderOptions": {"dropout": 0.2}, "ImageOptions": {"fit": "pad"}}
    kept = resolve_options(chosen, kind="table", start=small_file)
    assert (kept.decoder.dropout, kept.image.fit, kept.image.size) == (0.2, "pad", 64)
    assert kept.decoder.hidden_size == small_file.model.options.decoder.hidden_size


# --- whole runs --------------------------------------------------------------------------------------------------------


def small_run(drawings, output, *, given=SMALL, **options):
    said = []
    data = load_dataset(drawings)
    best = train(data, given=given, output=output, features=output.parent / "features", report=said.append, **options)
    return best, said


def test_a_run_leaves_a_model_a_log_and_a_resume_file(drawings, tmp_path):
    """One readable and one JSON line an epoch, samples, and a best model that carries what was chosen on validation."""
    best, said = small_run(drawings, tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"best.safetensors", "last.safetensors", "log.jsonl", "resume.pt"}
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert all(line["gradient_norm"] > 0 and "BLEU-4" in line["val"] for line in lines)
    assert sum(line.startswith("epoch ") for line in said) == 2
    header = read_header(best)
    assert header["provenance"]["pictures"] == {"train": 36, "val": 4}
    assert any(
        line == f"Chosen: beam {header['search']['beam_size']}, length penalty {header['search']['length_penalty']}."
        for line in said
    )
    assert load_model(best).vocabulary.words == load_model(tmp_path / "run" / "last.safetensors").vocabulary.words


def test_a_used_folder_is_refused_and_a_missing_run_too(drawings, tmp_path):
    """Nothing of an earlier run is lost by starting another; --resume says when there is nothing to go on from."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").touch()
    with pytest.raises(OptionError, match="--resume"):
        small_run(drawings, tmp_path / "run")
    with pytest.raises(Exception, match="nothing to resume"):
        small_run(drawings, tmp_path / "other", resume=True)


def test_resuming_as_something_else_is_refused(drawings, tmp_path):
    """Other options or other data are another run; the same ones may be repeated."""
    small_run(drawings, tmp_path / "run")
    other = {**SMALL, "DecoderOptions": {"hidden_size": 32}}
    with pytest.raises(OptionError, match="--hidden-size is 32 now"):
        small_run(drawings, tmp_path / "run", given=other, resume=True)
    with pytest.raises(OptionError, match="data set"):
        train(load_shapes({"train": 8, "val": 4}), given=SMALL, output=tmp_path / "run", features=tmp_path, resume=True)
    before = load_file(tmp_path / "run" / "last.safetensors")
    small_run(drawings, tmp_path / "run", resume=True)
    after = load_file(tmp_path / "run" / "last.safetensors")
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_a_loss_that_is_not_finite_stops_with_the_pictures_named(drawings, tmp_path, small_file):
    """The run stops at once and says where."""
    save_model(tmp_path / "model", small_file)
    broken = load_model(tmp_path / "model")
    broken.model.decoder.combine.weight.data.fill_(math.nan)
    save_model(tmp_path / "broken", broken)
    given = {"TrainingOptions": {"fine_tune": "all", "workers": 0, "precision": "float32", "batch_size": 8}}
    with pytest.raises(TrainingError, match=r"nan.*\.png"):
        small_run(drawings, tmp_path / "run", given=given, start_from=str(tmp_path / "broken"))


def test_a_model_goes_on_from_another_with_its_vocabulary(drawings, tmp_path, small_file):
    """--start-from keeps the words and the shape of the model, and a frozen encoder stays as it was."""
    save_model(tmp_path / "model", small_file)
    given = {"TrainingOptions": {"epochs": 1, "workers": 0, "precision": "float32"}, "SearchOptions": {"beam_size": 2}}
    best, said = small_run(drawings, tmp_path / "run", given=given, start_from=str(tmp_path / "model"))
    file = load_model(best)
    assert file.vocabulary.words == small_file.vocabulary.words
    assert file.search.beam_size == 2
    assert any("Features of 36 pictures" in line for line in said)
    expected = small_file.model.encoder.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in file.model.encoder.state_dict().items())
    assert file.provenance["starting_weights"] == small_file.provenance


def test_self_critical_training_goes_on_from_a_model(drawings, tmp_path):
    """A run of its own, with the reward and the samples' length in its log; references are not imitated any more."""
    first, _ = small_run(drawings, tmp_path / "first")
    training = {"objective": "self-critical", "epochs": 2, "samples": 3, "precision": "float32", "workers": 0}
    given = {"TrainingOptions": training, "SearchOptions": {"max_length": 12}}
    best, said = small_run(drawings, tmp_path / "run", given=given, start_from=str(first))
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert all(line["reward"] >= 0 and 0 <= line["sampled_words"] <= 12 for line in lines)
    assert any("reward" in line for line in said)
    before, after = load_model(first).model.state_dict(), load_model(best).model.state_dict()
    assert not torch.equal(before["decoder.embedding.weight"], after["decoder.embedding.weight"])
    assert read_header(best)["provenance"]["starting_weights"]["data"] == "table"


def test_a_second_direction_is_added_and_the_first_kept(drawings, tmp_path):
    """--direction right-to-left trains a decoder on reversed captions; the other and the encoder stay, bit for bit."""
    first, _ = small_run(drawings, tmp_path / "first")
    training = {"direction": "right-to-left", "epochs": 1, "precision": "float32", "workers": 0}
    best, _ = small_run(drawings, tmp_path / "run", given={"TrainingOptions": training}, start_from=str(first))
    before, after = load_model(first).model.state_dict(), load_model(best).model
    assert after.reverse is not None
    assert all(torch.equal(tensor, after.state_dict()[name]) for name, tensor in before.items())
    assert not torch.equal(after.reverse.embedding.weight, after.decoder.embedding.weight)
    training = {**training, "objective": "self-critical"}
    again, _ = small_run(drawings, tmp_path / "again", given={"TrainingOptions": training}, start_from=str(best))
    final = load_model(again).model
    assert torch.equal(final.decoder.embedding.weight, after.decoder.embedding.weight)
    assert not torch.equal(final.reverse.embedding.weight, after.reverse.embedding.weight)


def test_an_encoder_that_learns_leaves_the_second_direction_behind(drawings, tmp_path):
    """It knew the features of another encoder; a frozen one keeps it."""
    training = {"epochs": 1, "precision": "float32", "workers": 0}
    first, _ = small_run(drawings, tmp_path / "first")
    given = {"TrainingOptions": {**training, "direction": "right-to-left"}}
    both, _ = small_run(drawings, tmp_path / "both", given=given, start_from=str(first))
    for name, kept, more in (("frozen", True, {}), ("learning", False, {"fine_tune": "all"})):
        given = {"TrainingOptions": {**training, **more}}
        best, _ = small_run(drawings, tmp_path / name, given=given, start_from=str(both))
        assert (load_model(best).model.reverse is not None) == kept


STAGES = (
    Stage("1-first", SMALL),
    Stage("2-second", {"TrainingOptions": {"direction": "right-to-left", "epochs": 1, "workers": 0}}),
)


def test_a_preset_goes_through_its_stages_and_on_after_a_stop(drawings, tmp_path, monkeypatch):
    """Each stage starts from the one before; what is done is not done again; the finished model is ready to ship."""
    monkeypatch.setitem(PRESETS, "small", STAGES)
    output, said = tmp_path / "run", []

    def go(*, resume):
        return train_preset(
            load_dataset(drawings),
            preset="small",
            given={"TrainingOptions": {"precision": "float32", "seed": 3}},
            output=output,
            features=tmp_path / "features",
            resume=resume,
            report=said.append,
        )

    finished = go(resume=False)
    assert finished == output / "captioner.safetensors"
    assert load_model(finished).model.reverse is not None
    assert read_header(finished)["provenance"]["training"]["seed"] == 3
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


def test_a_step_follows_the_advantages(drawings, tmp_path, monkeypatch):
    """One step of a self-critical run has the gradient of the loss weighted by advantages, nothing forbidden in it."""
    first, _ = small_run(drawings, tmp_path / "first")
    seen = []

    def watch(decoder, features, tokens, **how):
        seen.append(how)
        return caption_loss(decoder, features, tokens, **how)

    drawn = []
    draw = Sampler.draw
    monkeypatch.setattr("captioner.training.run.caption_loss", watch)
    monkeypatch.setattr(Sampler, "draw", lambda *given: drawn.append(draw(*given)) or drawn[-1])
    training = {"objective": "self-critical", "epochs": 1, "precision": "float32", "workers": 0, "temperature": 0.7}
    small_run(drawings, tmp_path / "run", given={"TrainingOptions": training}, start_from=str(first))
    assert len(seen) == len(drawn) > 0
    for how, samples in zip(seen, drawn, strict=True):
        assert torch.equal(how["weights"], samples.advantages)
        assert (how["never"], how["temperature"], how.get("smoothing", 0.0)) == (NEVER, 0.7, 0.0)


def test_the_second_direction_learns_reversed_captions(drawings, tmp_path):
    """From the end to the start, in the references and in the samples; it begins with the other one's weights."""
    first, _ = small_run(drawings, tmp_path / "first")
    data, start = load_dataset(drawings), load_model(first)
    given = {"TrainingOptions": {"direction": "right-to-left", "precision": "float32"}}
    options = resolve_options(given, kind="table", start=start)
    model = build_model(options, start.vocabulary, start)
    assert all(map(torch.equal, model.reverse.parameters(), model.decoder.parameters()))
    run = Run(
        data,
        options,
        start.vocabulary,
        model,
        output=tmp_path,
        features=tmp_path / "features",
        origin={},
        device=torch.device("cpu"),
        report=str,
    )
    assert run.decoder is model.reverse
    forward = encode_captions(data.split("train"), start.vocabulary, max_words=50)
    for ours, theirs in zip(run.captions, forward, strict=True):
        assert [[START, *ids[-2:0:-1], END] for ids in theirs] == ours
    again = build_model(options, start.vocabulary, replace(start, model=run.model))
    torch.nn.init.zeros_(run.model.reverse.combine.weight)
    again = build_model(options, start.vocabulary, replace(start, model=run.model))
    assert not again.reverse.combine.weight.any()


def test_self_critical_needs_a_decoder_of_its_direction(small_file):
    """A right-to-left decoder that was never trained draws nonsense."""
    chosen = {"TrainingOptions": {"direction": "right-to-left", "objective": "self-critical"}}
    with pytest.raises(OptionError, match="likelihood first"):
        resolve_options(chosen, kind="table", start=small_file)


def test_what_starts_from_a_model_leaves_the_kinds_recipe_alone(small_file):
    """Drawn shapes train their encoder from nothing; not where it is trained already. Lengths are the model's."""
    chosen = {"TrainingOptions": {"direction": "right-to-left"}}
    options = resolve_options(chosen, kind="shapes", start=small_file)
    assert options.training.fine_tune is None
    assert options.search.max_length == small_file.search.max_length


def test_what_is_chosen_of_the_search_stays_and_the_rest_is_tried(drawings, tmp_path):
    """One field given fixes that one alone: a second direction is asked all the same where that does better."""
    first, _ = small_run(drawings, tmp_path / "first")
    training = {"direction": "right-to-left", "epochs": 1, "precision": "float32", "workers": 0}
    given = {"TrainingOptions": training, "SearchOptions": {"max_length": 12, "length_penalty": 0.0}}
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
    one = {**SMALL, "TrainingOptions": {**SMALL["TrainingOptions"], "batch_size": 1, "epochs": 1}}
    first = train(data, given=one, output=tmp_path / "first", features=tmp_path / "features", report=str)
    given = {"TrainingOptions": {"objective": "self-critical", "epochs": 1, "batch_size": 1, "workers": 0}}
    again = {"start_from": str(first), "features": tmp_path / "features", "report": str}
    assert train(data, given=given, output=tmp_path / "again", **again)


def test_a_run_that_gets_no_better_stops_early(drawings, tmp_path):
    """After `patience` epochs without a better score, and the best model is the one that is kept."""
    training = {
        **SMALL["TrainingOptions"],
        "epochs": 9,
        "patience": 2,
        "learning_rate": 0.0,
        "encoder_learning_rate": 0.0,
    }
    best, said = small_run(drawings, tmp_path / "run", given={**SMALL, "TrainingOptions": training})
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 3
    assert any("stopping early" in line for line in said)
    assert read_header(best)["provenance"]["epoch"] == 1


def test_too_few_words_are_explained(drawings, tmp_path):
    """A tiny data set with a high --min-count."""
    given = {**SMALL, "TrainingOptions": {**SMALL["TrainingOptions"], "min_count": 1000}}
    with pytest.raises(DataError, match="--min-count"):
        small_run(drawings, tmp_path / "run", given=given)


# --- the command line, killed and resumed ------------------------------------------------------------------------------


def command(data, output, *flags):
    return [sys.executable, str(ROOT / "train.py"), str(data), "--output", str(output), *FLAGS, *flags]


def run(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(*arguments, capture_output=True, text=True, check=False, timeout=300, env=environment)


def tensors(output):
    return load_file(output / "last.safetensors")


@pytest.fixture(scope="module")
def uninterrupted(drawings, tmp_path_factory):
    """Final tensors of a run that nobody disturbed."""
    output = tmp_path_factory.mktemp("runs") / "whole"
    done = run(command(drawings, output))
    assert done.returncode == 0, done.stderr
    assert f"python app.py --model {output / 'best.safetensors'}" in done.stdout
    return tensors(output)


def interrupt(process, output, number, moment):
    """Sends the signal once the run has saved itself `moment` (epochs, steps) or later."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if (output / "resume.pt").exists():
            progress = load_resume(output / "resume.pt")["progress"]
            if (progress["epoch"], progress["step"]) >= moment:
                process.send_signal(number)
                break
        time.sleep(0.005)
    return process.wait(timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_stopped_ends_as_if_it_never_had(drawings, tmp_path, uninterrupted, number):
    """Killed twice inside an epoch (or stopped by Ctrl-C) and resumed: the same final tensors, bit for bit."""
    output = tmp_path / "run"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for flags, moment in (([], (0, 3)), (["--resume"], (1, 4))):
        flags = [*flags, "--save-minutes", "0"]
        process = subprocess.Popen(
            command(drawings, output, *flags),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        status = interrupt(process, output, number, moment)
        said = process.communicate()[0]
        assert status == (-signal.SIGKILL if number == signal.SIGKILL else 130)
        if number == signal.SIGINT:
            assert "--resume" in said
    assert load_resume(output / "resume.pt")["progress"]["step"] > 0
    done = run(command(drawings, output, "--resume", "--save-minutes", "0"))
    assert done.returncode == 0, done.stderr
    final = tensors(output)
    assert final.keys() == uninterrupted.keys()
    assert all(torch.equal(tensor, uninterrupted[name]) for name, tensor in final.items())
    assert len((output / "log.jsonl").read_text().splitlines()) == 3


@pytest.mark.slow
def test_training_on_ones_own_folder_offline_with_the_bundled_encoder(drawings, tmp_path):
    """--encoder-weights bundled needs no network: the encoder comes out of the shipped model."""
    flags = (
        "--encoder-weights bundled --epochs 1 --min-count 1 --hidden-size 32 --embedding-size 32 --workers 0".split()
    )
    arguments = ["train.py", str(drawings), "--output", str(tmp_path / "run"), "--features", str(tmp_path / "features")]
    done = run([sys.executable, str(ROOT / arguments[0]), *arguments[1:], *flags])
    assert done.returncode == 0, done.stderr
    ours, theirs = (
        load_file(tmp_path / "run" / "best.safetensors"),
        load_model(BUNDLED_MODELS["fast"]).model.state_dict(),
    )
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items() if name.startswith("encoder."))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "There is nothing at nowhere"),
        (["shapes", "--encoder", "resnet19"], "resnet18"),
        (["shapes", "--cell", "transformer"], "rnn, lstm, gru"),
        (["shapes", "--resume", "--output", "nowhere"], "nothing to resume"),
        (["shapes", "--start-from", "nowhere"], "no model file nowhere"),
        (["shapes", "--preset", "flickr8k", "--start-from", "fast"], "--start-from does not go with --preset"),
        (["shapes", "--preset", "flickr8k", "--resume", "--output", "nowhere"], "no preset to resume"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_2(arguments, said, tmp_path, monkeypatch, capsys):
    """No traceback: what was wrong, and what would be right."""
    import train as door

    monkeypatch.chdir(tmp_path)
    assert door.main([*arguments] if "--output" in arguments else [*arguments, "--output", str(tmp_path / "run")]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_shapes_are_learnt(tmp_path):
    """`python train.py shapes` gets at least 95% of 500 held-out drawings exactly right."""
    output = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "shapes", "--output", str(output)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    header = read_header(output / "best.safetensors")
    assert header["provenance"]["val"]["images"] == 500
    assert header["provenance"]["val"]["exact"] >= 95
