"""The promises of captioner.metrics and captioner.evaluation."""

import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.datasets.dataset import CaptionedImage
from captioner.evaluation import evaluate
from captioner.generation import Caption
from captioner.metrics.bleu import bleu

WORDS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=9)


def slow_bleu(hypotheses, references):
    """Papineni et al. 2002, equations 1 to 3, word by word; closest reference length, ties to the shorter."""
    length = sum(map(len, hypotheses))
    closest = sum(
        min((abs(len(reference) - len(hypothesis)), len(reference)) for reference in group)[1]
        for hypothesis, group in zip(hypotheses, references, strict=True)
    )
    penalty = 1.0 if length > closest else math.exp(1 - closest / length)
    logs, scores = [], []
    for n in range(1, 5):
        matched = total = 0
        for hypothesis, group in zip(hypotheses, references, strict=True):
            grams = Counter(tuple(hypothesis[i : i + n]) for i in range(len(hypothesis) - n + 1))
            most = Counter()
            for reference in group:
                most |= Counter(tuple(reference[i : i + n]) for i in range(len(reference) - n + 1))
            matched += sum(min(count, most[gram]) for gram, count in grams.items())
            total += max(1, sum(grams.values()))  # as nltk: a sentence too short still counts one
        logs.append(math.log(matched / total) if matched else -math.inf)
        scores.append(100 * penalty * math.exp(sum(logs) / n) if min(logs) > -math.inf else 0.0)
    return scores


@settings(max_examples=60)
@given(st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=4)), min_size=1, max_size=6))
def test_bleu_is_papineni_s(pairs):
    """BLEU-1 to BLEU-4 equal a slow reading of the paper's equations."""
    hypotheses, references = [hypothesis for hypothesis, _ in pairs], [group for _, group in pairs]
    assert bleu(hypotheses, references) == pytest.approx(slow_bleu(hypotheses, references), abs=1e-6)


def test_bleu_of_the_references_themselves_is_100():
    """A perfect copy scores 100 at every order."""
    sentence = "a dog runs on the grass".split()
    assert bleu([sentence], [[sentence, ["a", "cat"]]]) == pytest.approx([100.0] * 4)


def test_strings_in_the_place_of_tokens_are_refused():
    """They would be scored letter by letter, and come out high."""
    with pytest.raises(TypeError, match="lists of tokens"):
        bleu(["a dog"], [["a dog"]])
    for hypotheses, references in (([], []), ([["a"]], [])):
        with pytest.raises(ValueError, match="score"):
            bleu(hypotheses, references)


def caption(text):
    return Caption(text, -1.0, (), 0.5)


def image(number, *captions):
    return CaptionedImage(f"{number}.jpg", number, Path("x"), captions, "val")


def test_each_image_counts_once_against_all_its_references():
    """Two images, five references: two predictions, in order, tokenised on both sides."""
    images = [image(7, "A dog runs.", "The dog's running", "x"), image(9, "a cat", "Cats!")]
    evaluation = evaluate(images, [caption("A dog runs"), caption("A dog runs")])
    assert evaluation.results == ({"image_id": 7, "caption": "A dog runs"}, {"image_id": 9, "caption": "A dog runs"})
    assert (evaluation.images, evaluation.references) == (2, 2.5)
    assert (evaluation.exact, evaluation.distinct) == (50.0, 1)
    assert evaluation.summary()["bleu1"] == pytest.approx(evaluation.bleu[0], abs=0.01)


def test_small_splits_still_rank():
    """Where no 4-gram matches, BLEU-4 is 0 for all, and the lower orders decide."""
    images = [image(1, "a dog runs on grass")]
    worse, better = (evaluate(images, [caption(text)]) for text in ("a cat", "a dog"))
    assert worse.bleu[3] == better.bleu[3] == 0
    assert better.rank > worse.rank


def test_captions_and_images_must_pair_up():
    """One caption too few is an error, not a quiet misalignment."""
    with pytest.raises(ValueError, match="1 hypotheses"):
        evaluate([image(1, "a"), image(2, "b")], [caption("a")])


def test_a_human_scores_what_the_field_says(flickr8k):
    """One person against the other four on real captions lies where Flickr8k's humans lie (B1 64.7, B4 21.4 on test)."""
    from captioner.datasets import load_dataset
    from captioner.text import tokenise

    captions = [[tokenise(text) for text in one.captions] for one in load_dataset(flickr8k).split("val")]
    scores = bleu([group[0] for group in captions], [group[1:] for group in captions])
    assert 55 < scores[0] < 72
    assert 16 < scores[3] < 27
