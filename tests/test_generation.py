"""The promises of captioner.generation: what the right-to-left decoder has a say in, and what it has not."""

import math
from dataclasses import replace

import pytest
import torch

from captioner.decoder import sequence_log_probabilities
from captioner.errors import CaptionerError, OptionError
from captioner.generation import caption_features, explain_features
from captioner.model import CaptionModel
from captioner.network import network_of
from captioner.options import SearchOptions
from captioner.text import END, START

EVERY_METHOD = [SearchOptions(1, 7), SearchOptions(4, 7), SearchOptions(4, 7, method="diverse")]
BEAM = SearchOptions(beam_size=6, max_length=7)


@pytest.fixture
def features(both_ways_file):
    """Of nine images."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(9, 4, both_ways_file.model.encoder.channels, generator=generator)


@pytest.fixture
def ask(both_ways_file, features):
    """All sentences of each image, best first, as one flat list each."""

    def ask(options, features=features):
        captions = caption_features(network_of(both_ways_file.model), features, both_ways_file.vocabulary, options)
        return [[replace(caption, alternatives=()), *caption.alternatives] for caption in captions]

    return ask


@torch.inference_mode()
def slow_log_probability(decoder, features, tokens):
    """One sequence under one image's features (R, C), a step at a time."""
    memory = decoder.read(features[None])
    state, last, total = decoder.start(memory), START, 0.0
    for token in [*tokens, END]:
        logits, state = decoder.step(torch.tensor([[last]]), state, memory)
        total += logits[0, 0].double().log_softmax(-1)[token].item()
        last = token
    return total


def judged(file, features, captions):
    """For each sentence of an image: its own log-probability, that of it reversed, and its length with the end."""
    for caption in captions:
        tokens = file.vocabulary.encode([word.text for word in caption.words])
        backwards = slow_log_probability(file.model.reverse, features, tokens[::-1])
        yield caption, caption.log_probability, backwards, len(tokens) + 1


def test_without_a_share_nothing_changes_and_the_second_decoder_never_runs(both_ways_file, features, monkeypatch):
    """A share of 0 gives the very captions of the same model without that decoder."""
    alone = CaptionModel(replace(both_ways_file.model.options, reverse=False)).eval()
    alone.decoder.load_state_dict(both_ways_file.model.decoder.state_dict())
    expected = caption_features(network_of(alone), features, both_ways_file.vocabulary, BEAM)
    for name in ("read", "follow", "step"):
        monkeypatch.setattr(both_ways_file.model.reverse, name, None)
    assert caption_features(network_of(both_ways_file.model), features, both_ways_file.vocabulary, BEAM) == expected


def test_the_features_are_read_once_by_each_decoder(both_ways_file, ask, monkeypatch):
    """However many sentences there are."""
    for decoder in (both_ways_file.model.decoder, both_ways_file.model.reverse):
        reads, read = [], decoder.read
        monkeypatch.setattr(decoder, "read", lambda features, reads=reads, read=read: reads.append(0) or read(features))
        ask(replace(BEAM, rerank=0.5))
        assert len(reads) == 1


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("rerank", [0.4, 1.0])
def test_sentences_are_ranked_by_both_decoders(both_ways_file, features, ask, rerank, penalty):
    """(1 - share) of the left-to-right and share of the right-to-left log-probability, over length ** penalty each.

    A share of 1 thus ranks by the second decoder alone. The sentences are those the search found, and keep the
    probabilities that it gave them.
    """
    options = replace(BEAM, length_penalty=penalty)
    before, after = ask(options), ask(replace(options, rerank=rerank))
    moved = without_length = 0
    for image, found, ranked in zip(features, before, after, strict=True):
        assert sorted(found, key=str) == sorted(ranked, key=str)
        both = {
            caption.text: ((1 - rerank) * forwards + rerank * backwards) / length**penalty
            for caption, forwards, backwards, length in judged(both_ways_file, image, found)
        }
        assert len(both) == len(ranked)
        scores = [both[caption.text] for caption in ranked]
        assert scores == pytest.approx(sorted(scores, reverse=True), abs=1e-4)
        assert [caption.score for caption in ranked] == pytest.approx(scores, abs=1e-4)  # which whoever asks can see
        moved += ranked != found
        other = {
            caption.text: (1 - rerank) * forwards / length**penalty + rerank * backwards
            for caption, forwards, backwards, length in judged(both_ways_file, image, found)
        }
        without_length += [c.text for c in ranked] != sorted(other, key=other.__getitem__, reverse=True)
    assert moved > 3  # else this test would say nothing
    assert without_length > 0 or penalty == 0 or rerank == 1


def test_company_does_not_change_how_sentences_are_ranked(features, ask):
    """A batch of nine images is nine batches of one, although its sentences are padded to one length."""
    options = replace(BEAM, length_penalty=0.5, rerank=0.5)
    for index, together in enumerate(ask(options)):
        (alone,) = ask(options, features[index : index + 1])
        assert [caption.text for caption in alone] == [caption.text for caption in together]


@pytest.mark.parametrize("rows", [1, 20, 8192])
def test_log_probabilities_of_sequences_are_those_of_single_steps(both_ways_file, features, monkeypatch, rows):
    """Many at once, of different lengths and numbers, an empty one and an image without any among them."""
    monkeypatch.setattr("captioner.decoder._ROWS", rows)
    decoder = both_ways_file.model.reverse
    sequences = [[[4, 5, 6], [7], [3, 9, 9, 9, 8]], [[]], [], [[10, 4], [4, 10]]]
    found = sequence_log_probabilities(decoder, decoder.read(features[:4]), sequences)
    assert found.shape == (4, 3)
    assert found.dtype == torch.float32
    for image, group, row in zip(features[:4], sequences, found.tolist(), strict=True):
        expected = [slow_log_probability(decoder, image, tokens) for tokens in group]
        assert row == pytest.approx([*expected, *[0.0] * (3 - len(group))], abs=1e-4)


def test_log_probabilities_can_be_learnt_from(both_ways_file, features):
    """Gradients flow to every parameter."""
    decoder = both_ways_file.model.reverse
    total = sequence_log_probabilities(decoder, decoder.read(features[:1]), [[[4, 5], [6]]]).sum()
    gradients = torch.autograd.grad(total, list(decoder.parameters()))
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_what_was_cut_off_is_not_read_from_its_end(both_ways_file, features):
    """Where no sentence comes to an end, the search's own order stands."""
    model = CaptionModel(both_ways_file.model.options).eval()
    model.load_state_dict(both_ways_file.model.state_dict())
    model.decoder.output.bias.data[END] = -math.inf
    plain, ranked = (
        caption_features(network_of(model), features, both_ways_file.vocabulary, replace(BEAM, rerank=rerank))
        for rerank in (0, 1)
    )
    assert plain == ranked
    assert all(len(caption.words) == BEAM.max_length for caption in plain)


def test_no_image_no_caption(ask, features):
    """An empty batch has none."""
    assert ask(replace(BEAM, rerank=0.5), features[:0]) == []


def test_a_model_that_reads_one_way_cannot_be_asked_for_the_other(small_file):
    """One sentence that says which option it is and what to do."""
    features = torch.randn(1, 4, small_file.model.encoder.channels)
    with pytest.raises(OptionError, match=r"^rerank is 0\.5, but the model has no right-to-left decoder: .*\.$"):
        caption_features(network_of(small_file.model), features, small_file.vocabulary, SearchOptions(rerank=0.5))


def test_a_damaged_second_decoder_is_noticed(both_ways_file, features):
    """Its probabilities are no numbers: an error that says so, not some order."""
    model = CaptionModel(both_ways_file.model.options).eval()
    model.load_state_dict(both_ways_file.model.state_dict())
    model.reverse.combine.weight.data.fill_(math.nan)
    with pytest.raises(CaptionerError, match="no finite probabilities for image 0"):
        caption_features(network_of(model), features, both_ways_file.vocabulary, replace(BEAM, rerank=0.1))


# ---- how a caption came about ----------------------------------------------------------------------------------------


@pytest.fixture
def talkative(both_ways_file):
    """The same model in no hurry to end its sentences."""
    model = CaptionModel(both_ways_file.model.options).eval()
    model.load_state_dict(both_ways_file.model.state_dict())
    model.decoder.output.bias.data[END] -= 4
    return replace(both_ways_file, model=model)


def everything(tree, before=()):
    """All beginnings of a search's tree, as (words, branch)."""
    for branch in tree:
        words = (*before, branch.word)
        yield words, branch
        yield from everything(branch.branches, words)


@pytest.mark.parametrize("options", [*EVERY_METHOD, replace(BEAM, length_penalty=1.0, rerank=0.5)])
def test_an_explained_caption_is_the_caption(talkative, features, options):
    """Looking on changes neither the sentence nor its probabilities, nor what else was found."""
    captions = caption_features(network_of(talkative.model), features, talkative.vocabulary, options)
    for image, expected in zip(features, captions, strict=True):
        found = explain_features(network_of(talkative.model), image[None], talkative.vocabulary, options).caption
        for one, other in zip((found, *found.alternatives), (expected, *expected.alternatives), strict=True):
            assert one.text == other.text
            assert one.log_probability == pytest.approx(other.log_probability, rel=5e-5)
            assert [word.text for word in one.words] == [word.text for word in other.words]


@pytest.mark.parametrize("options", EVERY_METHOD)
def test_where_the_model_looked_is_what_teacher_forcing_says(talkative, features, options):
    """Of every word of every sentence: shares of the grid's cells in their places, that sum to 1."""
    decoder, (rows, columns) = talkative.model.decoder, talkative.model.encoder.grid
    for image in features[:3]:
        found = explain_features(network_of(talkative.model), image[None], talkative.vocabulary, options).caption
        for caption in (found, *found.alternatives):
            ids = talkative.vocabulary.encode([word.text for word in caption.words])
            with torch.inference_mode():
                _, attention = decoder(image[None], torch.tensor([[[START, *ids]]]))
            for place, word in enumerate(caption.words):
                assert sum(map(sum, word.attention)) == pytest.approx(1, abs=1e-5)
                seen = torch.tensor(word.attention)
                assert seen.shape == (rows, columns)
                torch.testing.assert_close(seen.flatten(), attention[0, 0, place], atol=1e-5, rtol=0)


def test_a_model_without_attention_looks_nowhere(small_file, features):
    """Its words say nothing of it, and its tree is there all the same."""
    options = replace(small_file.model.options, decoder=replace(small_file.model.options.decoder, attention="none"))
    torch.manual_seed(0)
    model = CaptionModel(options).eval()
    model.decoder.output.bias.data[END] -= 9  # it says something
    explanation = explain_features(network_of(model), features[:1], small_file.vocabulary, BEAM)
    caption, tree = explanation.caption, explanation.tree
    assert caption.words
    assert tree
    assert all(word.attention == () for word in caption.words)


@pytest.mark.parametrize("options", EVERY_METHOD)
def test_the_tree_holds_what_the_search_met(talkative, features, options):
    """Every beginning with the model's own probability, and the sentences found as paths from the root to an end."""
    decoder, vocabulary = talkative.model.decoder, talkative.vocabulary
    for image in features[:4]:
        explanation = explain_features(network_of(talkative.model), image[None], vocabulary, options)
        found, tree = explanation.caption, explanation.tree
        sentences = [tuple(word.text for word in caption.words) for caption in (found, *found.alternatives)]
        ends = {}
        for words, branch in everything(tree):
            beginning = [word for word in words if word]
            ids = vocabulary.encode(beginning) + ([END] if not branch.word else [])
            memory = decoder.read(image[None])
            with torch.inference_mode():
                logits, _ = decoder.follow(torch.tensor([[[START, *ids[:-1]]]]), memory)
            logs = logits[0, 0].log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)]
            assert branch.log_probability == pytest.approx(logs.sum().item(), abs=1e-3)
            assert branch.probability == pytest.approx(logs[-1].exp().item(), abs=1e-4)
            together = [branch.log_probability for branch in branch.branches]
            assert together == sorted(together, reverse=True)
            begun = [place for place, sentence in enumerate(sentences) if sentence[: len(beginning)] == words]
            if branch.word:
                assert branch.sentence == (begun[0] if begun else None)
            else:
                assert not branch.branches
                ends[words[:-1]] = branch.sentence
        short = {place for place, sentence in enumerate(sentences) if len(sentence) < options.max_length}
        finished = short | {*ends.values()}
        assert ends == {sentence: place for place, sentence in enumerate(sentences) if place in finished}
        assert {*sentences} - {()} <= {words for words, _ in everything(tree)}
        by_length = [len(words) for words, branch in everything(tree) if branch.word]
        assert max(map(by_length.count, by_length)) <= options.beam_size + len(sentences)


def test_progress_tells_the_best_beginning_so_far(talkative, features):
    """After each word, as readable text; greedy search's beginnings are those of its one sentence."""
    said = []
    found = explain_features(
        network_of(talkative.model), features[:1], talkative.vocabulary, SearchOptions(1, 7), progress=said.append
    ).caption
    assert [len(text.split()) for text in said] == sorted(len(text.split()) for text in said)
    assert said[-1] == found.text
    assert len(said) >= len(found.words) - 1
    wide = []
    explain_features(network_of(talkative.model), features[:1], talkative.vocabulary, BEAM, progress=wide.append)
    assert wide
