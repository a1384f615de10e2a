"""The promises of captioner.training.cross_entropy."""

import pytest
import torch
from torch.nn import functional as F

from captioner.decoder import Decoder
from captioner.options import DecoderOptions
from captioner.text import PAD
from captioner.training.cross_entropy import caption_loss


def small_decoder():
    torch.manual_seed(0)
    decoder = Decoder(DecoderOptions(embedding_size=8, hidden_size=8), channels=3, vocabulary_size=9).eval()
    tokens = torch.randint(4, 9, (2, 3, 6))
    tokens[0, 1, 3:] = PAD
    tokens[1, 2] = PAD
    return decoder, torch.randn(2, 4, 3), tokens


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_a_sum_over_words(smoothing, weighted):
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
    torch.testing.assert_close(found.total, sum(losses))
    assert found.words == len(losses)


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_teachers_have_their_share_of_the_loss(share):
    """Equal to a slow sum: the words' surprise, and the divergence from the teachers' geometric mean and its entropy."""
    decoder, features, tokens = small_decoder()
    teachers = [Decoder(decoder.options, channels=3, vocabulary_size=9).eval() for _ in range(3)]
    logits, _ = decoder(features, tokens[..., :-1])
    losses = []
    for image, caption, place in (tokens[..., 1:] != PAD).nonzero().tolist():
        student = torch.distributions.Categorical(logits=logits[image, caption, place])
        product = torch.ones(9)
        for teacher in teachers:
            theirs, _ = teacher(features, tokens[..., :-1])
            product = product * theirs[image, caption, place].softmax(-1) ** (1 / 3)
        believed = torch.distributions.Categorical(probs=product / product.sum())
        taught = torch.distributions.kl_divergence(believed, student) + believed.entropy()
        word = -student.log_prob(tokens[image, caption, place + 1])
        losses.append(share * taught + (1 - share) * word)
    found = caption_loss(
        decoder, features, tokens, teachers=[(teacher, features) for teacher in teachers], teacher_share=share
    )
    torch.testing.assert_close(found.total, sum(losses))
    assert found.words == len(losses)
    found.total.backward()
    assert all(parameter.grad is None for teacher in teachers for parameter in teacher.parameters())


def test_padding_changes_no_loss():
    """However much there is of it, in length or in captions; where there is nothing else the loss is 0."""
    decoder, features, tokens = small_decoder()
    padded, plain = (
        caption_loss(decoder, features, given) for given in (F.pad(tokens, (0, 4, 0, 2), value=PAD), tokens)
    )
    torch.testing.assert_close(padded.total, plain.total)
    assert padded.words == plain.words
    nothing = caption_loss(decoder, features, torch.full_like(tokens, PAD))
    assert (nothing.total, nothing.words) == (0, 0)
