"""The promises of captioner.training.self_critical, and of search.sample beneath it."""

import itertools
from pathlib import Path

import pytest
import torch

from captioner.datasets.dataset import CaptionedImage
from captioner.decoder import Decoder, stack_captions
from captioner.metrics.cider import cider, document_frequencies
from captioner.network import begin
from captioner.options import DecoderOptions, TrainingOptions
from captioner.search.samples import sample
from captioner.text import END, PAD, SPECIAL_WORDS, START, UNKNOWN, Vocabulary, tokenise
from captioner.training.batches import Batch
from captioner.training.cross_entropy import caption_loss
from captioner.training.objectives import SelfCritical
from captioner.training.self_critical import NEVER, advantages, chances, draw, references_of, reward
from captioner.training.step import Learner, take_step

WORDS = Vocabulary([*SPECIAL_WORDS, "dog", "runs"])
REFERENCES = [("dog runs", "dog"), ("runs",), ("runs dog", "dog runs")]
IMAGES = [
    CaptionedImage(str(number), str(number), Path("nowhere"), group, "train") for number, group in enumerate(REFERENCES)
]


def small_decoder():
    torch.manual_seed(0)
    options = DecoderOptions(cell="gru", heads=2, embedding_size=6, hidden_size=6, dropout=0.3)
    return Decoder(options, channels=4, vocabulary_size=len(WORDS)).double(), torch.randn(3, 2, 4, dtype=torch.double)


def sampled(decoder, features, samples, *, max_length=2, temperature=1.0):
    decide = chances(range(len(features)), samples=samples, max_length=max_length)
    return draw(decoder, features, decide, temperature=temperature)


def rewarded(drawn, places, *, reverse=False):
    references = references_of(IMAGES, reverse=reverse)
    frequencies = document_frequencies(references)
    return reward(drawn, [references[place] for place in places], WORDS, frequencies)


def captions(*groups):
    return stack_captions([[[START, *ids] for ids in group] for group in groups])


def every_caption(decoder, features, max_length=2, temperature=1.0):
    """All captions of at most `max_length` tokens, end included, with their log-probabilities among allowed tokens."""
    never, words_of = [PAD, START], (UNKNOWN, 4, 5)
    found = {}
    for length in range(1, max_length + 1):
        for words in itertools.product(words_of, repeat=length - 1):
            for last in (END, *words_of) if length == max_length else (END,):
                ids = (*words, last)
                logits, _ = decoder(features, torch.tensor([[[START, *ids[:-1]]]]))
                logs = (logits[0, 0] / temperature).index_fill(-1, torch.tensor(never), -torch.inf).log_softmax(-1)
                found[ids] = sum(logs[place, token] for place, token in enumerate(ids))
    return found


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_follow_the_models_probabilities(temperature):
    """Each caption is drawn as often as the model says, forbidden tokens never; an end is repeated, nothing follows."""
    decoder, features = small_decoder()
    decoder.eval()
    drawn = sample(
        begin(decoder, features[:1], never=NEVER),
        chances([7], samples=20_000, max_length=3),
        temperature=temperature,
    )[0]
    captions = every_caption(decoder, features[:1], 3, temperature)
    expected = {ids: log.exp().item() for ids, log in captions.items()}
    assert sum(expected.values()) == pytest.approx(1)
    counts = dict.fromkeys(expected, 0)
    for ids in drawn.tolist():
        length = ids.index(END) + 1 if END in ids else len(ids)
        assert set(ids[length:]) <= {END}
        counts[tuple(ids[:length])] += 1
    for ids, probability in expected.items():
        deviation = (20_000 * probability * (1 - probability)) ** 0.5
        assert abs(counts[ids] - 20_000 * probability) < 5 * deviation


@pytest.mark.parametrize("reverse", [False, True])
def test_the_reward_is_cider_d_with_the_end_as_a_word(reverse):
    """Against the picture's own references, in the direction of writing; cut captions have no end."""
    decoder, features = small_decoder()
    tokens = sampled(decoder, features[[2, 0]], 8)
    rewards = rewarded(tokens, [2, 0], reverse=reverse)
    order = -1 if reverse else 1
    references = [[[*tokenise(caption)[::order], "<end>"] for caption in group] for group in REFERENCES]
    frequencies = document_frequencies(references)
    assert tokens[..., 0].eq(START).all()
    assert END in tokens
    for row, index in enumerate([2, 0]):
        for ids, found in zip(tokens[row].tolist(), rewards[row].tolist(), strict=True):
            words = [WORDS.words[number] for number in ids[1:] if number >= UNKNOWN]
            words += ["<end>"] if END in ids else []
            expected = cider([words], [references[index]], frequencies).score / 100
            assert found == pytest.approx(expected)


def test_a_caption_that_stops_in_the_middle_earns_less():
    """The end is part of the reward: the same words without it score lower."""
    whole, cut = captions([[4, 5, END], [4, 5, 4]]), captions([[4, 5, END], [4, 5, 5]])
    rewards = rewarded(whole, [0])[0].tolist()
    assert rewards[0] > rewards[1]
    assert rewarded(cut, [0])[0, 1] < rewards[0]


def test_each_sample_is_compared_with_the_others_of_its_picture():
    """Reward less the mean of the others; so nothing is learnt from a picture whose samples are equally good."""
    decoder, features = small_decoder()
    rewards = rewarded(sampled(decoder, features, 4), [0, 1, 2])
    found = advantages(rewards)
    for theirs, ours in zip(rewards, found, strict=True):
        for place in range(4):
            others = [theirs[other] for other in range(4) if other != place]
            torch.testing.assert_close(ours[place], theirs[place] - sum(others) / 3)
    torch.testing.assert_close(found.sum(1), torch.zeros(3))


def test_drawing_leaves_the_decoder_in_training_and_itself_uses_no_dropout():
    """The samples are the model's own, not those of a model with holes."""
    decoder, features = small_decoder()
    decoder.train()
    torch.manual_seed(5)
    noisy = sampled(decoder, features, 50)
    assert decoder.training
    decoder.eval()
    torch.manual_seed(5)
    assert torch.equal(sampled(decoder, features, 50), noisy)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_gradient_is_that_of_the_expected_reward(temperature):
    """Many samples' gradient comes close to the exact one, from all captions there are (Williams 1992, REINFORCE).

    Also where tokens that are never drawn would be probable.
    """
    decoder, features = small_decoder()
    decoder.eval()
    decoder.output.bias.data[list(NEVER)] = 5.0
    features = features[:1]
    parameters = [parameter for parameter in decoder.parameters() if parameter.requires_grad]

    every = every_caption(decoder, features, temperature=temperature)
    rewards = rewarded(captions(every), [0])[0].double()
    expected_reward = sum(log.exp() * earned for log, earned in zip(every.values(), rewards, strict=True))
    exact = torch.cat([part.flatten() for part in torch.autograd.grad(expected_reward, parameters)])

    torch.manual_seed(1)
    drawn = sampled(decoder, features, 20_000, temperature=temperature)
    how = {"weights": advantages(rewarded(drawn, [0])), "never": NEVER, "temperature": temperature}
    loss = caption_loss(decoder, features, drawn, **how).total / drawn.shape[1]
    ours = -torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])
    assert torch.cosine_similarity(ours, exact, dim=0) > 0.99
    assert ours.norm() == pytest.approx(exact.norm().item(), rel=0.1)


def test_it_learns_to_earn_more():
    """Sixty steps raise the reward of a tiny model on three pictures by a lot."""
    decoder, features = small_decoder()
    features = features.float()
    decoder = decoder.float().train()
    training = TrainingOptions(objective="self-critical", samples=10, temperature=1.0, precision="float32")
    references = references_of(IMAGES)
    learner = Learner(decoder, SelfCritical(references, WORDS, training, max_length=4), "float32")
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.02)
    torch.manual_seed(0)
    batches = (
        Batch(("a", "b", "c"), captions([[]]), references, seeds=(step, step + 100, step + 200)) for step in range(60)
    )
    earned = [take_step(learner, optimizer, [(features, batch)])["reward"] for batch in batches]
    assert sum(earned[-10:]) > 2 * sum(earned[:10])
