"""A trained model learns new words and forgets none: the promises of captioner.training.growth."""

import pytest
import torch

from captioner.checkpoint import ModelFile
from captioner.model import CaptionModel, ModelOptions
from captioner.options import DecoderOptions, EncoderOptions, ImageOptions, SearchOptions
from captioner.text import SPECIAL_WORDS, Vocabulary
from captioner.training.growth import grow_model, grow_vocabulary, in_order, usual_min_count

WORDS = ("a", "dog", "runs", "the", "grass", "on", "two", "birds", "sit", "in")


def small(*, tied=True, reverse=False):
    torch.manual_seed(0)
    decoder = DecoderOptions(hidden_size=16, embedding_size=16, heads=2, tied=tied)
    encoder = EncoderOptions(name="resnet18", stage="layer1")
    options = ModelOptions(ImageOptions(size=32), encoder, decoder, len(WORDS) + len(SPECIAL_WORDS), reverse)
    return CaptionModel(options).eval()


def test_new_words_stand_behind_the_old_ones_and_the_captions_are_counted():
    """Old ids mean what they meant; words too seldom used are named, not dropped in silence."""
    old = Vocabulary([*SPECIAL_WORDS, *WORDS])
    captions = [["a", "kingfisher", "sits"], ["a", "kingfisher", "in", "the", "reeds"], ["two", "birds", "sits"]]
    new, coverage = grow_vocabulary(old, captions, min_count=2)
    assert new.words == (*old.words, "kingfisher", "sits")
    assert (coverage.known, coverage.total) == (6, 11)
    assert coverage.left_out == ("reeds",)
    assert "54.5%" in coverage.describe()
    assert "kingfisher, sits are new" in coverage.describe()
    assert "reeds" in coverage.describe()
    same, nothing = grow_vocabulary(old, [["a", "dog"]], min_count=1)
    assert same.words == old.words
    assert "100.0%" in nothing.describe()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_old_words_keep_their_logits(tied, reverse):
    """For captions of old words, a grown model gives them the logits it gave before, in both directions."""
    model = small(tied=tied, reverse=reverse)
    grown = grow_model(model, model.options.vocabulary_size + 3).eval()
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    tokens = torch.randint(4, model.options.vocabulary_size, (2, 3, 5))
    features = model.encode(pixels)
    assert torch.equal(features, grown.encode(pixels))
    for before, after in [(model.decoder, grown.decoder), *([(model.reverse, grown.reverse)] if reverse else [])]:
        old, new = before(features, tokens)[0], after(features, tokens)[0]
        torch.testing.assert_close(new[..., :-3], old)
        assert new.shape[-1] == old.shape[-1] + 3
        assert new.isfinite().all()


def test_a_new_word_starts_improbable():
    """Before it is learnt it takes little from the others: less than its even share."""
    model = small()
    with torch.no_grad():
        model.decoder.output.bias.copy_(torch.linspace(-3, 3, model.options.vocabulary_size))
    grown = grow_model(model, model.options.vocabulary_size + 2).eval()
    features = model.encode(torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8))
    probabilities = grown.decoder(features, torch.full((1, 1, 1), 5))[0].softmax(-1)
    assert probabilities[..., -2:].max() < 1 / (model.options.vocabulary_size + 2)


def test_the_usual_min_count_grows_with_the_set():
    """Never lower for more captions; every word of a very small set, the field's five for Flickr8k's 30,000."""
    counts = [usual_min_count(captions) for captions in (1, 300, 501, 1500, 6_000, 30_000, 600_000)]
    assert counts == sorted(counts)
    assert (counts[0], counts[-2], counts[-1]) == (1, 5, 5)


@pytest.mark.parametrize("tied", [False, True])
def test_words_in_another_order_mean_the_same(tied):
    """A teacher that numbers the words otherwise gives each word the logit it gave before, in both directions."""
    model, words = small(tied=tied, reverse=True), Vocabulary([*SPECIAL_WORDS, *WORDS])
    turned = Vocabulary([*SPECIAL_WORDS, *reversed(WORDS)])
    features = model.encode(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8))
    said = [words.encode(["two", "birds", "sit"]), turned.encode(["two", "birds", "sit"])]
    before = [part(features, torch.tensor([[said[0]]] * 2))[0] for part in (model.decoder, model.reverse)]
    same = in_order(ModelFile(model, words, SearchOptions(), {}), turned)
    assert same.vocabulary.words == turned.words
    places = torch.tensor([words.words.index(word) for word in turned.words])
    for part, logits in zip((same.model.decoder, same.model.reverse), before, strict=True):
        torch.testing.assert_close(part(features, torch.tensor([[said[1]]] * 2))[0], logits[..., places])
