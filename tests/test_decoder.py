"""The promises of captioner.decoder."""

import pytest
import torch

from captioner.decoder import Decoder
from captioner.options import ATTENTIONS, CELLS, DecoderOptions

CASES = [
    DecoderOptions(cell=cell, attention=attention, heads=heads, layers=layers, embedding_size=12, hidden_size=16)
    for cell in CELLS
    for attention, heads in (("additive", 1), ("dot", 1), ("dot", 4), ("none", 1))
    for layers in (1, 2)
]


def make(options, vocabulary=11, channels=6):
    torch.manual_seed(0)
    decoder = Decoder(options, channels=channels, vocabulary_size=vocabulary).double().eval()
    features = torch.randn(3, 5, channels, dtype=torch.float64)
    tokens = torch.randint(0, vocabulary, (3, 4, 7))
    return decoder, features, tokens


@pytest.mark.parametrize("fused", [False, True], ids=["", "fused"])
@pytest.mark.parametrize("options", CASES, ids=lambda o: f"{o.cell}-{o.attention}{o.heads}-{o.layers}")
def test_stepping_and_teacher_forcing_agree(options, fused):
    """`step`, word by word, gives the logits that `forward` gives for whole captions."""
    decoder, features, tokens = make(options)
    expected, attention = decoder(features, tokens)
    if fused:
        decoder.fuse()
    memory = decoder.read(features)
    state = tuple(part.expand(-1, tokens.shape[1], -1, -1) for part in decoder.start(memory))
    for position in range(tokens.shape[2]):
        logits, state = decoder.step(tokens[:, :, position], state, memory)
        torch.testing.assert_close(logits, expected[:, :, position])
    if options.attention == "none":
        assert attention is None
    else:
        assert attention.shape == (3, 4, 7, 5)
        torch.testing.assert_close(attention.sum(-1), torch.ones(3, 4, 7, dtype=torch.float64))


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_captions_of_one_image_do_not_touch_each_other(attention):
    """The K captions of an image score as they would alone; so do the images of a batch."""
    decoder, features, tokens = make(DecoderOptions(attention=attention, embedding_size=12, hidden_size=16))
    together, _ = decoder(features, tokens)
    for image in range(3):
        for caption in range(4):
            alone, _ = decoder(features[image : image + 1], tokens[image : image + 1, caption : caption + 1])
            torch.testing.assert_close(alone[0, 0], together[image, caption])


def test_memory_holds_one_entry_an_image():
    """What depends on the image alone is computed once, however many captions or hypotheses there are."""
    decoder, features, _ = make(DecoderOptions(embedding_size=12, hidden_size=16))
    memory = decoder.read(features)
    assert memory.keys.shape == memory.values.shape == (3, 8, 5, 2)
    assert [part.shape for part in decoder.start(memory)] == [(3, 1, 1, 16)] * 2


def test_dropout_takes_whole_channels_from_what_is_seen_and_nothing_from_where_to_look():
    """In training, cells that are alike stay alike among the values, images differ, and the keys are untouched."""
    decoder, features, _ = make(DecoderOptions(embedding_size=12, hidden_size=16))
    features = features[:1, :1].expand(3, 5, -1)
    keys = decoder.read(features).keys
    memory = decoder.train().read(features)
    assert torch.equal(memory.keys, keys)
    torch.testing.assert_close(memory.values, memory.values[:, :, :1].expand_as(memory.values))
    assert not torch.allclose(memory.values[0], memory.values[1])


def test_later_words_do_not_change_earlier_predictions():
    """Causality: logits at t depend on words up to t alone."""
    decoder, features, tokens = make(DecoderOptions(embedding_size=12, hidden_size=16))
    before, _ = decoder(features, tokens)
    changed = tokens.clone()
    changed[:, :, 4:] = (changed[:, :, 4:] + 1) % 11
    after, _ = decoder(features, changed)
    torch.testing.assert_close(before[:, :, :4], after[:, :, :4])
    assert not torch.allclose(before[:, :, 4:], after[:, :, 4:])


def test_the_plain_rnn_is_tanh_of_input_and_state():
    """h' = tanh(W x + U h + b): the textbook recurrence, its parameters shared over time."""
    decoder, features, tokens = make(DecoderOptions(cell="rnn", attention="none", embedding_size=12, hidden_size=16))
    memory = decoder.read(features)
    _, (state,) = decoder.step(tokens[:, :1, 0], decoder.start(memory), memory)
    cell, inputs = decoder.cell, decoder.embedding(tokens[:, 0, 0])
    expected = torch.tanh(
        inputs @ cell.weight_ih_l0.T
        + cell.bias_ih_l0
        + memory.start[0][:, 0, 0] @ cell.weight_hh_l0.T
        + cell.bias_hh_l0
    )
    torch.testing.assert_close(state[:, 0, 0], expected)


@pytest.mark.parametrize("tied", [True, False])
def test_tied_embeddings_are_one_tensor(tied):
    """Tied: the output layer is the embedding, and learns with it."""
    decoder, _, _ = make(DecoderOptions(tied=tied, embedding_size=12, hidden_size=16))
    assert (decoder.output.weight is decoder.embedding.weight) == tied


@pytest.mark.parametrize("options", CASES[::2], ids=lambda o: f"{o.cell}-{o.attention}{o.heads}")
def test_every_parameter_learns(options):
    """No parameter is left out of the gradient."""
    decoder, features, tokens = make(options)
    decoder(features, tokens)[0].square().mean().backward()
    assert not [name for name, parameter in decoder.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize("options", CASES, ids=lambda o: f"{o.cell}-{o.attention}{o.heads}-{o.layers}")
def test_real_positions_score_as_they_do_among_padding(options):
    """Asking for the real positions alone gives their logits, in order, and their gradients; a caption may have none."""
    decoder, features, tokens = make(options)
    lengths = torch.tensor([[7, 3, 1, 0], [2, 2, 2, 2], [5, 7, 6, 1]])
    real = torch.arange(7) < lengths[..., None]
    expected = decoder(features, tokens)[0][real]
    found, _ = decoder(features, tokens, real)
    torch.testing.assert_close(found, expected)
    parameters = list(decoder.parameters())
    weights = torch.randn_like(found)
    theirs = torch.autograd.grad((expected * weights).sum(), parameters, retain_graph=True, allow_unused=True)
    ours = torch.autograd.grad((found * weights).sum(), parameters, allow_unused=True)
    torch.testing.assert_close(ours, theirs)
