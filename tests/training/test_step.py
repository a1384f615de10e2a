"""The promises of captioner.training.step: parts of a batch teach what the whole does; the learning rate."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.datasets.dataset import CaptionedImage
from captioner.decoder import Decoder, stack_captions
from captioner.errors import TrainingError
from captioner.model import CaptionModel, ModelOptions
from captioner.options import DecoderOptions, EncoderOptions, ImageOptions, SearchOptions, TrainingOptions
from captioner.telling import SILENT
from captioner.text import END, SPECIAL_WORDS, START, Vocabulary
from captioner.training.batches import Batch
from captioner.training.objectives import CrossEntropy, SelfCritical
from captioner.training.step import Learner, learning_rate, make_optimizer, take_step
from captioner.training.validation import validate

WORDS = Vocabulary([*SPECIAL_WORDS, *"a dog runs on grass".split()])
OPTIONS = ModelOptions(
    ImageOptions(size=32),
    EncoderOptions("resnet18", "layer1"),
    DecoderOptions(embedding_size=8, hidden_size=8, dropout=0.0),
    len(WORDS),
)
CAPTIONS = [  # of very uneven length and number
    [[4, 5, 6], [4]],
    [[5, 6, 7, 4, 8, 5, 6, 7, 4, 8, 5, 6], [4, 5], [6, 7, 8]],
    [[8]],
    [[7, 7, 4, 5, 8, 6], [4, 5, 6, 7]],
    [],  # a picture that nothing is said of
]
CAPTIONS = [[[START, *words, END] for words in group] for group in CAPTIONS]
REFERENCES = [[[WORDS.words[number] for number in ids[1:-1]] + ["<end>"] for ids in group] for group in CAPTIONS[:4]]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = CaptionModel(OPTIONS)
    pixels = torch.randint(0, 256, (len(CAPTIONS), 3, 32, 32), dtype=torch.uint8)
    teacher = Decoder(OPTIONS.decoder, channels=6, vocabulary_size=len(WORDS)).eval()
    torch.nn.init.normal_(teacher.output.weight)
    return model, pixels, teacher, torch.randn(len(CAPTIONS), 4, 6)


def objective_of(kind, network, monkeypatch):
    training = TrainingOptions(precision="float32", fine_tune="all", samples=3)
    if kind == "self-critical":
        # Samples are drawn for a picture whoever is beside it; here they also are the same each time.
        def draw(decoder, features, chances, **how):
            drawn = []
            for picture in features:
                chance = torch.Generator().manual_seed(int(picture.argmax()))
                sizes = torch.randint(1, 9, chances.shape[1:2], generator=chance).tolist()
                drawn.append(
                    [[START, *torch.randint(4, len(WORDS), (size,), generator=chance).tolist(), END] for size in sizes]
                )
            return stack_captions(drawn)

        monkeypatch.setattr("captioner.training.objectives.draw", draw)
        return SelfCritical(REFERENCES, WORDS, training, max_length=9), training
    return CrossEntropy(training, [network[2]] if kind == "taught" else []), training


def learner_of(model, objective, training):
    list(model.encoder.trainable(training.fine_tune))
    return Learner(model.decoder, objective, "float32", model=model).eval()  # batch norms see a whole batch


def batch_of(places, network, kind):
    most = CAPTIONS if kind != "self-critical" else CAPTIONS[:4]
    tokens = stack_captions([most[place] for place in places] + [[[START, 4, END]]])[:-1]
    references = [REFERENCES[place] for place in places] if kind == "self-critical" else ()
    teachers = (network[3][places],) if kind == "taught" else ()
    return network[1][places], Batch(tuple(map(str, places)), tokens, references, teachers, tuple(places))


@pytest.mark.parametrize("kind", ["cross entropy", "taught", "self-critical"])
def test_uneven_parts_give_the_gradient_of_the_whole(network, monkeypatch, kind):
    """However a batch is cut, and with parts that hold no word: the same gradients, losses and measures."""
    model = network[0]
    objective, training = objective_of(kind, network, monkeypatch)
    learner = learner_of(model, objective, training)
    start = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    count = 4 if kind == "self-critical" else 5
    found = []
    for cuts in ([], [1], [2], [3], [1, 2, 3], [count - 1]):
        learner.load_state_dict(start)
        optimizer = torch.optim.SGD(learner.parameters(), lr=1.0)
        parts = [list(range(*pair)) for pair in itertools.pairwise([0, *cuts, count])]
        measured = take_step(learner, optimizer, (batch_of(part, network, kind) for part in parts), clip_norm=0.1)
        found.append((measured, {name: tensor.clone() for name, tensor in learner.state_dict().items()}))
    (whole, moved), *others = found
    assert whole["gradient_norm"] > 0.1  # so that clipping has a say
    assert ("reward" in whole) == (kind == "self-critical")
    assert any(not torch.equal(tensor, start[name]) for name, tensor in moved.items() if name.startswith("encoder"))
    for measured, state in others:
        assert measured == pytest.approx(whole, rel=1e-4)
        for name, tensor in state.items():
            torch.testing.assert_close(tensor, moved[name], rtol=1e-4, atol=1e-6)


def test_a_mean_of_means_would_be_wrong(network, monkeypatch):
    """The test above can fail: the means of two parts lead elsewhere."""
    objective, training = objective_of("cross entropy", network, monkeypatch)
    learner = learner_of(network[0], objective, training)

    def gradient(*parts):
        losses = [learner(*batch_of(part, network, "cross entropy")) for part in parts]
        mean = sum(loss.total / loss.words for loss in losses) / len(losses)
        return torch.cat([part.flatten() for part in torch.autograd.grad(mean, learner.decoder.parameters())])

    whole, halves = gradient([0, 1, 2, 3]), gradient([2], [0, 1, 3])
    assert (whole - halves).norm() > 0.01 * whole.norm()  # float rounding: 1e-6


def test_a_step_without_words_is_refused_and_one_that_is_not_finite_moves_nothing(network, monkeypatch):
    """There would be no mean; and weights that are not finite would never come back."""
    objective, training = objective_of("cross entropy", network, monkeypatch)
    learner = learner_of(network[0], objective, training)
    optimizer = make_optimizer(learner, training)
    with pytest.raises(ValueError, match="no word"):
        take_step(learner, optimizer, [batch_of([4], network, "cross entropy")])
    before = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    features = torch.full((1, 4, network[0].encoder.channels), math.nan)
    measured = take_step(learner, optimizer, [(features, batch_of([0], network, "cross entropy")[1])])
    assert math.isnan(measured["loss"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.state_dict().items())


def test_a_model_that_diverged_is_told_to_learn_slower(network):
    """Drawing captions and validating: no word of a damaged file, for it is the training that went wrong."""
    training = TrainingOptions(precision="float32", fine_tune="all", samples=3)
    learner = learner_of(network[0], SelfCritical(REFERENCES, WORDS, training, max_length=9), training)
    features = torch.full((1, 4, network[0].encoder.channels), math.nan)
    with pytest.raises(TrainingError, match=r"no finite numbers any more.*--learning-rate"):
        learner(features, batch_of([0], network, "self-critical")[1])
    image = CaptionedImage("a", "a", Path("a"), ("a dog",), "val")
    how = {"features": features, "precision": "float32", "telling": SILENT}
    with pytest.raises(TrainingError, match=r"no finite numbers any more.*--learning-rate"):
        validate(network[0], [image], WORDS, SearchOptions(), **how)


@pytest.mark.parametrize("fine_tune", [None, "layer1", "all"])
def test_what_learns_is_moved_and_nothing_else(network, monkeypatch, fine_tune):
    """The encoder from a stage on, or not at all; vectors do not decay."""
    model = network[0]
    training = TrainingOptions(precision="float32", fine_tune=fine_tune)
    learner = learner_of(model, CrossEntropy(training), training)
    optimizer = make_optimizer(learner, training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    take_step(learner, optimizer, [batch_of([0, 1], network, "cross entropy")])
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    stages = {".".join(name.split(".")[:3]) for name in moved if name.startswith("encoder")}
    assert ("encoder.trunk.layer1" in stages) == (fine_tune is not None)
    assert ("encoder.trunk.conv1" in stages) == (fine_tune == "all")
    assert "decoder.combine.weight" in moved
    for group in optimizer.param_groups:
        assert {parameter.ndim > 1 for parameter in group["params"]} == {group["weight_decay"] > 0}
    model.load_state_dict(before)


@settings(deadline=None)
@given(st.integers(1, 500), st.floats(0, 1))
def test_the_learning_rate_rises_then_falls(steps, warmup):
    """Between 0 and 1 of its peak at every step, rising in the warm-up, falling after it."""
    rates = [learning_rate(step, steps, warmup=warmup) for step in range(steps)]
    assert all(0 <= rate <= 1 for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_gradients_beyond_half_precision_move_nothing_and_are_scaled_down(network, monkeypatch):
    """The step is left out and counted; with a smaller scale the next one moves as it would without any."""
    objective, training = objective_of("cross entropy", network, monkeypatch)

    def loud(*given):
        loss = objective(*given)
        return replace(loss, total=1e4 * loss.total)

    learner = learner_of(network[0], loud, training)
    start = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    optimizer = make_optimizer(learner, training)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    part = batch_of([0, 1, 2], network, "cross entropy")
    measured = take_step(learner, optimizer, [part], scaler=scaler)
    assert (measured["skipped"], measured["gradient_norm"]) == (1.0, 0.0)
    assert all(torch.equal(tensor, start[name]) for name, tensor in learner.state_dict().items())
    while "skipped" in measured:
        measured = take_step(learner, optimizer, [part], scaler=scaler)
    assert 1 <= scaler.get_scale() < 2.0**127
    scaled = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    learner.load_state_dict(start)
    plain = take_step(learner, make_optimizer(learner, training), [part])
    assert measured == pytest.approx(plain, rel=1e-4)
    for name, tensor in learner.state_dict().items():
        torch.testing.assert_close(tensor, scaled[name], rtol=1e-4, atol=1e-6)


def test_a_process_without_pictures_adds_nothing(network, monkeypatch):
    """It takes part with any picture, whose words and loss count for nothing."""
    objective, training = objective_of("cross entropy", network, monkeypatch)
    learner = learner_of(network[0], objective, training)
    with pytest.raises(ValueError, match="no word"):
        take_step(learner, make_optimizer(learner, training), [batch_of([0], network, "cross entropy")], counts=False)
    assert all(not parameter.grad.any() for parameter in learner.parameters() if parameter.grad is not None)
