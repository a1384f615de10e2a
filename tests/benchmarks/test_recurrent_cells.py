"""The promises of the benchmark of the recurrent cells: equal budgets, and gradients that are what they are said to be."""

import json
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch

from benchmarks.gradients import (
    captions_by_length,
    gradient_norms,
    kept_share,
    reach,
    scale_recurrence,
    spectral_radius,
    training_steps,
)
from benchmarks.recurrent_cells import differences, fit_hidden_size, parameters
from captioner.decoder import Decoder
from captioner.options import DecoderOptions
from captioner.text import END, START

SIX = [(cell, attention) for cell in ("rnn", "lstm", "gru") for attention in ("dot", "none")]
WORDS = 7


def make(cell="rnn", attention="none", *, tied=True, dtype=torch.float64):
    """A small decoder, features of three pictures and one caption each, whose tokens are all different."""
    torch.manual_seed(0)
    options = DecoderOptions(cell=cell, attention=attention, heads=1, embedding_size=12, hidden_size=12, tied=tied)
    decoder = Decoder(options, channels=6, vocabulary_size=30).to(dtype).eval()
    features = torch.randn(3, 5, 6, dtype=dtype)
    words = torch.stack([torch.randperm(26)[:WORDS] + 4 for _ in range(3)])
    tokens = torch.cat([torch.full((3, 1), START), words, torch.full((3, 1), END)], 1)
    return decoder, features, tokens


@pytest.mark.parametrize(("cell", "attention"), SIX)
def test_the_six_decoders_have_the_same_number_of_parameters(cell, attention):
    """Within 1% of the budget, and no other hidden size comes closer."""
    sizes = {"channels": 1280, "vocabulary_size": 2541}
    options = fit_hidden_size(cell, attention, 4_000_000, **sizes)
    count = parameters(options, **sizes)
    assert count == sum(parameter.numel() for parameter in Decoder(options, **sizes).parameters())
    assert abs(count - 4_000_000) < 40_000
    for hidden_size in (options.hidden_size - 1, options.hidden_size + 1):
        other = DecoderOptions(cell=cell, attention=attention, heads=1, hidden_size=hidden_size)
        assert abs(parameters(other, **sizes) - 4_000_000) >= abs(count - 4_000_000)


@pytest.mark.parametrize("targets", [1, WORDS])
@pytest.mark.parametrize(("cell", "attention"), SIX)
def test_gradients_equal_finite_differences(cell, attention, targets):
    """Each word's embedding nudged in each direction, and the loss of the last words taken again, step by step."""
    decoder, features, tokens = make(cell, attention, tied=False)

    @torch.no_grad()
    def losses():
        memory = decoder.read(features)
        state, lost = decoder.start(memory), []
        for position in range(tokens.shape[1] - 1):
            logits, state = decoder.step(tokens[:, position, None], state, memory)
            lost.append(-logits[:, 0].log_softmax(-1).gather(1, tokens[:, position + 1, None])[:, 0])
        return torch.stack(lost[-targets:]).sum(0)

    measured, nudge = gradient_norms(decoder, features, tokens, targets=targets), 1e-6
    assert measured.shape == (3, WORDS + 1)
    for caption in (0, 2):
        for position in (0, 1, WORDS):
            slopes = []
            # the tokens of a caption are all different, so this row is read at this position only
            row = decoder.embedding.weight.data[tokens[caption, position]]
            for direction in range(12):
                row[direction] += nudge
                above = losses()[caption]
                row[direction] -= 2 * nudge
                slopes.append((above - losses()[caption]) / (2 * nudge))
                row[direction] += nudge
            torch.testing.assert_close(torch.stack(slopes).norm(), measured[caption, position], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("radius", [0.5, 1.0, 1.5])
def test_without_saturation_the_gradient_is_a_power_of_the_radius(radius):
    """Tiny states leave tanh a straight line; with rotations for matrices, each step then scales by the radius."""
    decoder, features, tokens = make()
    torch.nn.init.orthogonal_(decoder.cell.weight_hh_l0)
    torch.nn.init.orthogonal_(decoder.cell.weight_ih_l0)
    scale_recurrence(decoder, radius)
    assert spectral_radius(decoder) == pytest.approx(radius)
    with torch.no_grad():
        decoder.embedding.weight.mul_(1e-5)
        for parameter in (*decoder.start_state.parameters(), decoder.cell.bias_ih_l0, decoder.cell.bias_hh_l0):
            parameter.zero_()
    norms = gradient_norms(decoder, features, tokens).flip(1)
    expected = radius ** torch.arange(WORDS + 1.0, dtype=torch.float64)
    torch.testing.assert_close(norms / norms[:, :1], expected.expand(3, -1), rtol=1e-5, atol=0)


def test_dropout_is_never_measured():
    """A decoder in training mode is refused."""
    decoder, features, tokens = make()
    with pytest.raises(ValueError, match="eval"):
        gradient_norms(decoder.train(), features, tokens)


def test_captions_are_grouped_by_length():
    """At most so many of each length, each with its own picture; missing lengths and cut captions are left out."""
    encoded = [[[START, 5, END], [START, 6, 7, END]], [[START, 8, END]], [[START, 9, END], [START, 5, 6, 7, 8]]]
    groups = captions_by_length(encoded, range(1, 4), most=2, seed=1)
    assert {words: len(group.images) for words, group in groups.items()} == {1: 2, 2: 1}
    for group in groups.values():
        for image, ids in zip(group.images, group.tokens.tolist(), strict=True):
            assert ids in encoded[image]


def test_reach_is_one_at_the_last_word():
    """Distances count from the last word, where all of the gradient is left; the first word is the farthest."""
    decoder, features, tokens = make("gru", "dot", dtype=torch.float32)
    groups = captions_by_length([[ids] for ids in tokens.tolist()], [WORDS], most=3, seed=1)
    found = reach(decoder, features, groups)
    assert found["distance"][0] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert len(found["distance"]) == WORDS
    assert found["length"][WORDS] == found["distance"][-1]
    norms = gradient_norms(decoder, features, tokens)
    assert found["length"][WORDS]["mean"] == pytest.approx((norms[:, 1] / norms[:, -1]).log().mean().exp().item())
    together = gradient_norms(decoder, features, tokens, targets=WORDS)
    assert found["share"][WORDS]["mean"] == pytest.approx((norms[:, 1] / together[:, 1]).log().mean().exp().item())


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_gate_that_keeps_everything_freezes_the_state(cell):
    """The gate that is measured as wide open is the one that carries the state on."""
    decoder, features, tokens = make(cell, dtype=torch.float32)
    groups = captions_by_length([[ids] for ids in tokens.tolist()], [WORDS], most=3, seed=1)
    assert 0.2 < kept_share(decoder, features, groups) < 0.8
    with torch.no_grad():
        decoder.cell.bias_ih_l0[12:24] = 50  # rows of the second gate: the LSTM's f, the GRU's z
        if cell == "lstm":
            decoder.cell.bias_ih_l0[:12] = -50  # the input gate lets nothing in
    assert kept_share(decoder, features, groups) == pytest.approx(1)
    memory = decoder.read(features)
    before = decoder.start(memory)
    _, after = decoder.step(tokens[:, 1:2], before, memory)
    torch.testing.assert_close(after[-1], before[-1])


def test_a_plain_rnn_has_no_gate():
    """None, rather than a number that means nothing."""
    decoder, features, tokens = make()
    assert kept_share(decoder, features, captions_by_length([tokens[:1].tolist()], [WORDS], most=1, seed=1)) is None


def test_clipping_bounds_the_step_and_nothing_else():
    """With plain gradient descent a step is as long as the clipped gradient; loss and norm come from before it."""
    first = {}
    for clip_norm in (0.0, 0.01):
        decoder, features, tokens = make(dtype=torch.float32)
        before = torch.nn.utils.parameters_to_vector(decoder.parameters()).detach()
        optimizer = torch.optim.SGD(decoder.parameters(), lr=1.0)
        captions = [[ids] for ids in tokens.tolist()]
        sizes = {"steps": 1, "batch_size": 2, "seed": 1}
        (first[clip_norm],) = training_steps(decoder, features, captions, optimizer, clip_norm=clip_norm, **sizes)
        moved = (torch.nn.utils.parameters_to_vector(decoder.parameters()) - before).norm().item()
        assert moved == pytest.approx(clip_norm or first[clip_norm][1], rel=1e-3)
    assert first[0.0] == first[0.01]


def test_training_ends_where_the_loss_is_no_number():
    """A run that blew up is reported to the step where it did."""
    decoder, features, tokens = make(dtype=torch.float32)
    optimizer = torch.optim.SGD(decoder.parameters(), lr=1e38)
    captions = [[ids] for ids in tokens.tolist()]
    taken = list(training_steps(decoder, features, captions, optimizer, clip_norm=0, steps=50, batch_size=2, seed=1))
    assert 1 < len(taken) < 50
    assert all(map(math.isfinite, taken[-2]))
    assert not all(map(math.isfinite, taken[-1]))


def test_figures_and_tables_are_made_of_results(tmp_path):
    """Every figure is well-formed SVG that knows dark pages, and the same results give the same files."""
    figures = pytest.importorskip("benchmarks.recurrent_figures", reason="needs matplotlib", exc_type=ImportError)
    score = {"score": 20.0, "low": 19.0, "high": 21.0}
    models = []
    for cell, attention in SIX:
        decoder, features, tokens = make(cell, attention, dtype=torch.float32)
        groups = captions_by_length([[ids] for ids in tokens.tolist()], [WORDS], most=3, seed=1)
        stage = {**reach(decoder, features, groups), "kept": kept_share(decoder, features, groups), "radius": None}
        model = {"cell": cell, "attention": attention, "hidden_size": 12, "parameters": 1234, "best_epoch": 2}
        model |= {"scores": {"BLEU-4": score, "CIDEr-D": score}, "distinct": 3, "seconds": {"median": 60.0}}
        models.append({**model, "gradient_norm": [1.0, 0.5], "reach": {"start": stage, "trained": stage}})
    settings = ("one", "two")
    results = {
        "models": models,
        "differences": [
            {"ours": "lstm-dot", "theirs": "rnn-dot", **dict.fromkeys(("BLEU-4", "CIDEr-D"), score | {"difference": 1})}
        ],
        "radius": [{"radius": radius, "distance": stage["distance"]} for radius in (0.5, 1.0, 1.5, 2.0)],
        "clipping": [
            {"setting": setting, "clip_norm": clip_norm, "loss": [8.0, 7.0], "norm": [1.0, 30.0]}
            for setting in settings
            for clip_norm in (0.0, 5.0, 1.0)
        ],
    }
    results = json.loads(json.dumps(results))  # as the command reads them
    for name in ("first", "second"):
        figures.write_all(results, tmp_path / name, back=3)
    files = sorted((tmp_path / "first").iterdir())
    assert [file.name for file in files] == ["clipping.svg", "distance.svg", "length.svg", "radius.svg", "tables.md"]
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert text == (tmp_path / "second" / file.name).read_text(encoding="utf-8")
        if file.suffix == ".svg":
            ElementTree.fromstring(text)
            assert "prefers-color-scheme: dark" in text
    assert "| lstm | dot | 12 | 1,234 | 20.0 (19.0 to 21.0)" in text
    assert "| lstm-dot | rnn-dot | +1.0 (+19.0 to +21.0)" in text


def test_differences_pair_cells_and_attentions():
    """Every two cells under the same attention, and each cell with and without."""
    from captioner.datasets.dataset import CaptionedImage
    from captioner.evaluation import evaluate

    images = [CaptionedImage("a", "a", None, ("a dog runs in the grass",), "val")] * 3
    evaluations = {name: evaluate(images, ["a dog runs in the sun"] * 3) for name in SIX}
    evaluations[("lstm", "dot")] = evaluate(images, ["a dog runs in the grass"] * 3)
    pairs = {(pair["ours"], pair["theirs"]): pair["BLEU-4"]["difference"] for pair in differences(evaluations)}
    assert len(pairs) == 9
    assert pairs["lstm-dot", "rnn-dot"] > 0
    assert pairs["lstm-dot", "lstm-none"] > 0
    assert pairs["gru-none", "lstm-none"] == 0


def test_the_document_shows_the_tables_that_were_measured():
    """Number for number what the benchmark wrote beside the figures."""
    docs = Path(__file__).parents[2] / "docs"
    page = (docs / "recurrent-cells.md").read_text(encoding="utf-8")
    for table in (docs / "recurrent-cells" / "tables.md").read_text(encoding="utf-8").strip().split("\n\n"):
        assert table in page
