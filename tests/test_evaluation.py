"""The promises of captioner.evaluation, of the bootstrap, and of what is called degenerate."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from captioner.datasets.dataset import CaptionedImage
from captioner.evaluation import compare, compare_with_people, evaluate
from captioner.metrics.bleu import bleu
from captioner.metrics.bootstrap import SEED, bootstrap, interval
from captioner.metrics.cider import cider, document_frequencies
from captioner.metrics.degeneration import complaint, measure
from captioner.metrics.remarks import marked, unparted
from captioner.metrics.rouge import rouge
from captioner.metrics.statistics import mean
from captioner.report.scores import Report
from captioner.text import tokenise


def image(number, *captions):
    return CaptionedImage(f"{number}.jpg", number, Path("x"), captions, "val")


@pytest.fixture(scope="module")
def dev(flickr8k):
    """The 1,000 dev images of Flickr8k."""
    from captioner.datasets import load_dataset

    return load_dataset(flickr8k).split("val")


def test_each_image_counts_once_against_all_its_references():
    """Two images, five references, tokenised on both sides."""
    images = [image(7, "A dog runs.", "The dog's running", "x"), image(9, "a cat", "Cats!")]
    evaluation = evaluate(images, ["A dog runs", "A dog runs"])
    assert evaluation.references_each == 2.5
    assert (evaluation.exact, evaluation.distinct) == (50.0, 1)
    assert (evaluation.length, evaluation.reference_length) == (3.0, (3 + 4 + 1 + 2 + 1) / 5)
    assert list(evaluation.scores) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "CIDEr-D", "ROUGE-L"]
    assert evaluation.summary()["BLEU-1"] == pytest.approx(evaluation.scores["BLEU-1"], abs=0.01)


def test_small_splits_still_rank():
    """Where no 4-gram matches, all rank as 0, and the lower orders decide; a short caption gains nothing."""
    images = [image(1, "a dog runs on the green grass")]
    worse, better = (evaluate(images, [text]) for text in ("a cat", "a dog sits on the sofa"))
    assert worse.rank[:2] == better.rank[:2] == (0, 0)
    assert better.rank > worse.rank


def test_cider_d_ranks_first():
    """The rare words that people agree on, before the common ones in a row that BLEU-4 counts."""
    images = [image(number, "a man is on the grass with a kite") for number in range(3)]
    images.append(image(3, "a man is on the grass with a zebra"))
    common, rare = (evaluate(images, ["a man"] * 3 + [text]) for text in ("a man is on the grass", "zebra"))
    assert common.scores["BLEU-4"] > rare.scores["BLEU-4"]
    assert rare.rank > common.rank


def test_joined_data_sets_are_scored_each_alone_and_count_the_same():
    """Each part scores what it scores alone; the rank is the mean of the parts', however many images each has."""
    many = [replace(image(number, "a man is on the grass", "a man stands"), origin="many") for number in range(6)]
    few = [replace(image(number, "a red bus in the street"), origin="few") for number in range(10, 12)]
    texts = ["a man is on the grass", "a man", "a dog runs", "a man stands", "a man", "grass", "a red bus", "a bus"]
    together = evaluate([*many, *few], texts)
    alone = {"many": evaluate(many, texts[:6]), "few": evaluate(few, texts[6:])}
    assert {name: part.scores for name, part in together.parts.items()} == {n: e.scores for n, e in alone.items()}
    assert together.rank == tuple((a + b) / 2 for a, b in zip(alone["many"].rank, alone["few"].rank, strict=True))
    assert together.summary()["data_sets"]["few"] == alone["few"].summary()
    assert not alone["few"].parts


def test_captions_and_images_must_pair_up():
    """One caption too few is an error, not a quiet misalignment."""
    with pytest.raises(ValueError, match="1 hypotheses"):
        evaluate([image(1, "a"), image(2, "b")], ["a"])


def test_a_human_scores_what_the_field_says(dev):
    """One person against the other four lies where Flickr8k's humans lie (test split: B1 64.7, B4 21.4, CIDEr-D 82)."""
    people = evaluate(
        [CaptionedImage(one.name, one.name, one.source, one.captions[1:], "val") for one in dev],
        [one.captions[0] for one in dev],
    )
    assert 55 < people.scores["BLEU-1"] < 72
    assert 16 < people.scores["BLEU-4"] < 27
    assert 70 < people.scores["CIDEr-D"] < 95


def test_people_and_captions_face_the_same_references(dev):
    """A person scored as if a model is level with people; each choice leaves the same reference out for both."""
    images = dev[:200]
    first = evaluate(images, [one.captions[0] for one in images])
    by_hand = []
    for choice in range(5):
        others = [
            CaptionedImage(one.name, one.name, one.source, one.captions[:choice] + one.captions[choice + 1 :], "val")
            for one in images
        ]
        pair = ([one.captions[0] for one in images], [one.captions[choice] for one in images])
        by_hand.append([list(evaluate(others, captions).scores.values()) for captions in pair])
    differences = compare_with_people(first, resamples=50)
    expected = np.mean(by_hand, axis=0)
    assert [one.ours for one in differences] == pytest.approx(expected[0])
    assert [one.theirs for one in differences] == pytest.approx(expected[1])
    assert differences[0].ours > differences[0].theirs  # four times in five it meets a copy of itself


def scores_of_draw(hypotheses, references, draw):
    """Each metric's score of a resample, by scoring its images anew; CIDEr-D with the whole set's frequencies."""
    hypotheses, frequencies = [hypotheses[index] for index in draw], document_frequencies(references)
    references = [references[index] for index in draw]
    metrics = (*bleu(hypotheses, references), cider(hypotheses, references, frequencies), rouge(hypotheses, references))
    return np.array([metric.score for metric in metrics])


def test_intervals_are_those_of_scoring_every_resample_anew(dev):
    """--compare and --human: paired draws, the same for every reference left out, the mean over them."""
    images, count = dev[:60], 30
    ours = evaluate(images, [one.captions[0] for one in images[1:] + images[:1]])
    theirs = evaluate(images, [one.captions[1] for one in images[2:] + images[:2]])
    draws = np.random.default_rng(SEED).integers(len(images), size=(count, len(images)))
    compared, with_people = [], []
    for draw in draws:
        sides = [scores_of_draw(side.hypotheses, side.references, draw) for side in (ours, theirs)]
        compared.append(sides[0] - sides[1])
        choices = []
        for choice in range(5):
            person = [group[choice] for group in ours.references]
            others = [group[:choice] + group[choice + 1 :] for group in ours.references]
            choices.append(scores_of_draw(ours.hypotheses, others, draw) - scores_of_draw(person, others, draw))
        with_people.append(np.mean(choices, axis=0))
    for differences, by_hand in (
        (compare(ours, theirs, resamples=count), compared),
        (compare_with_people(ours, resamples=count), with_people),
    ):
        low, high = np.percentile(by_hand, (2.5, 97.5), axis=0)
        assert [one.low for one in differences] == pytest.approx(low)
        assert [one.high for one in differences] == pytest.approx(high)
        higher = np.where(np.abs(by_hand) < 0.005, 0.5, np.array(by_hand) > 0).mean(axis=0)
        assert [one.higher for one in differences] == pytest.approx(higher)


def test_every_reference_is_left_out_once_by_every_metric():
    """Seven references: seven choices, each for the captions and for the person; what else is measured is among them."""
    calls = []

    def count(hypotheses, references):
        calls.append(list(map(len, references)))
        return mean("words", np.array([float(len(tokens)) for tokens in hypotheses]))

    images = [image(number, *(f"dog {number} {word}" for word in "abcdefg")) for number in range(3)]
    differences = compare_with_people(evaluate(images, ["a dog"] * 3), resamples=10, also=[count])
    assert calls == [[6, 6, 6]] * 14
    assert differences[-1].name == "words"
    assert (differences[-1].ours, differences[-1].theirs) == (200, 300)


def test_noise_is_a_tie():
    """Two captions without a 4-gram in common with anything: neither is higher in BLEU-4."""
    images = [image(number, "a dog runs on the grass") for number in range(3)]
    bleu4 = compare(evaluate(images, ["a cat"] * 3), evaluate(images, ["the cat"] * 3), resamples=50)[3]
    assert bleu4.higher == 0.5


def test_the_worst_image_is_the_one_with_less_in_common():
    """Where CIDEr-D is 0, ROUGE-L decides."""
    report = Report({}, evaluate([image(1, "a dog runs"), image(2, "a cat sits")], ["a man", "zebra"]), resamples=10)
    assert report.evaluation.scores["CIDEr-D"] == 0
    assert report.worst_first == [1, 0]


def test_people_need_two_references():
    """Leaving one out must leave one in."""
    with pytest.raises(ValueError, match="fewer than two"):
        compare_with_people(evaluate([image(1, "a dog")], ["a dog"]), resamples=10)


def test_a_system_does_not_differ_from_itself(dev):
    """The bootstrap of a comparison is paired: the same draws on both sides, so a copy differs by nothing at all."""
    evaluation = evaluate(dev[:50], [one.captions[0] for one in dev[:50]])
    for one in compare(evaluation, evaluation, resamples=100):
        assert (one.ours - one.theirs, one.low, one.high, one.higher) == (0, 0, 0, 0.5)


def test_a_clear_difference_is_seen(dev):
    """People against captions of other images: each metric, every resample, and the interval holds the difference."""
    images = dev[:100]
    people = evaluate(images, [one.captions[0] for one in images])
    strangers = evaluate(images, [one.captions[0] for one in (*images[1:], images[0])])
    for one in compare(people, strangers, resamples=200):
        assert one.low < one.ours - one.theirs < one.high
        assert one.low > 0
        assert one.higher == 1


def test_the_bootstrap_of_a_mean_is_the_textbook_s():
    """Its spread is the standard error of the mean, and its interval plus or minus 1.96 of those."""
    values = np.random.default_rng(0).normal(0.5, 0.1, 400)
    scores = bootstrap([mean("m", values)], resamples=4000)[0]
    error = 100 * values.std() / 20
    assert scores.std() == pytest.approx(error, rel=0.05)
    assert interval(scores) == pytest.approx(
        (100 * values.mean() - 1.96 * error, 100 * values.mean() + 1.96 * error), abs=0.1 * error
    )


def test_bootstrap_intervals_cover(dev):
    """Of many samples of images, about 95% have an interval for BLEU-1 that holds the score of all images."""
    everything = evaluate(dev, [one.captions[0] for one in dev])
    others = [CaptionedImage(one.name, one.name, one.source, one.captions[1:], "val") for one in dev]
    tokens = evaluate(others, [one.captions[0] for one in dev])
    statistics, truth = tokens.metrics[0], tokens.scores["BLEU-1"]
    generator = np.random.default_rng(5)
    held = 0
    for _ in range(100):
        chosen = generator.choice(1000, 100)
        sample = type(statistics)("BLEU-1", statistics.counts[chosen], statistics.formula)
        low, high = interval(bootstrap([sample], resamples=200)[0])
        held += low <= truth <= high
    assert everything.scores["BLEU-1"] > truth
    assert 86 <= held <= 100


def test_draws_do_not_depend_on_how_memory_is_divided(monkeypatch, dev):
    """The same seed gives the same resamples, in one piece or many."""
    statistics = bleu([["a", "dog"], ["a", "cat"], ["dog"]], [[["a", "dog"]], [["a", "man"]], [["the", "dog"]]])
    whole = bootstrap(statistics, resamples=20)
    monkeypatch.setattr("captioner.metrics.bootstrap._CELLS", 9)
    assert bootstrap(statistics, resamples=20) == pytest.approx(whole)
    assert whole.shape == (4, 20)


SENTENCES = [
    f"a {size} {animal} runs on the grass".split()
    for size in "small big old young tall".split()
    for animal in "dog cat man bird horse".split()
]
REFERENCES = [caption for sentence in SENTENCES for caption in (sentence, ["one", *sentence])]


@pytest.mark.parametrize(
    ("captions", "said"),
    [
        (SENTENCES, ""),
        ([SENTENCES[0]] * 25, "only 1 different caption for 25 images; 25 of 25 images get 'a small dog"),
        ([SENTENCES[0]] * 10 + SENTENCES[10:], "10 of 25 images get 'a small dog runs on the grass'"),
        ([[*sentence, "with", "a"] for sentence in SENTENCES], "100.0% of the captions end in the middle of a phrase"),
        (
            [[*sentence, "grass"] for sentence in SENTENCES],
            "100.0% of the captions repeat themselves (references: 0.0%)",
        ),
        ([[*sentence, *sentence[:3]] for sentence in SENTENCES], "repeat themselves"),
        ([[*words, *words[:3]] for words in SENTENCES[:6]] + SENTENCES[6:] * 5, "5.9% of the captions repeat"),
        ([[*words, *words[:3]] for words in SENTENCES[:5]] + SENTENCES[5:] * 5, ""),
        ([[]] * 5 + SENTENCES[5:], "20.0% of the captions have no word"),
        ([[]] * 4 + SENTENCES[4:], ""),
        ([[*SENTENCES[0], "of"], *SENTENCES[1:]], ""),
    ],
)
def test_a_degenerate_model_is_called_out(captions, said):
    """In one line that says in what, with the share; a sound one is not."""
    line = complaint(captions, measure(captions), measure(REFERENCES))
    assert said in line
    assert bool(line) == bool(said)
    assert "\n" not in line


def test_what_the_references_do_is_not_degenerate():
    """Drawn shapes repeat themselves and so do captions of them; ten images prove nothing."""
    shapes = ["a red circle at the top left and a blue square at the top right".split()] * 30
    assert complaint(shapes, measure(shapes), measure(shapes)) == ""
    same = [SENTENCES[0]] * 10
    assert complaint(same, measure(same), measure(REFERENCES)) == ""


def test_people_are_hardly_ever_degenerate(dev):
    """Of 5,000 captions that people wrote, a handful ends in the middle or repeats; none is empty."""
    people = evaluate(dev, [one.captions[0] for one in dev])
    _, habits = people.habits
    assert habits.distinct > 0.9
    assert habits.unfinished < 0.005
    assert habits.repeating < 0.01
    assert habits.empty == 0
    assert people.complaint == ""


def test_habits_are_shares():
    """Each measure on captions made for it."""
    habits = measure([["a", "a", "dog"], ["a", "dog", "and", "a"], [], ["a", "dog"], ["a", "dog"]])
    assert (habits.repeating, habits.unfinished, habits.empty) == (0.2, 0.2, 0.2)
    assert (habits.distinct, habits.commonest) == (0.8, 0.4)


@pytest.mark.parametrize(
    ("captions", "said"),
    [
        (["<start> a dog <end>"] * 6, "6 of 6 captions begin with <start> and end with <end>: such marks"),
        (["[CLS] a dog [SEP]", "a cat"], "1 of 2 captions begin with [CLS] and end with [SEP]"),
        (["<s>a dog</s>", "<s>a cat", "a cow"], "2 of 3 captions begin with <s> and 1 end with </s>"),
        (["a dog <|endoftext|> ."], "1 of 1 captions end with <|endoftext|>"),
        (["startseq a dog endseq"], "begin with startseq and end with endseq"),
        (["a dog"], ""),
        (["<unk> dog"], ""),
        (["a shirt with [NASA] on it"], ""),
        (["<3 a dog", "a > b", "x <y"], ""),
        (["the startsequence"], ""),
        ([""], ""),
    ],
)
def test_marks_around_captions_are_said(captions, said):
    """What models put around a sentence is scored as words, here as by the field's own tools; whoever scores is told."""
    line = marked(captions, "captions")
    assert said in line
    assert bool(line) == bool(said)


@pytest.mark.parametrize(
    ("sentence", "is_said"),
    [
        ("一只狗在草地上奔跑", True),
        ("一只狗，在草地上奔跑。", True),
        ("犬が芝生の上を走っている。", True),
        ("เด็กผู้ชายกำลังเล่นฟุตบอล", True),
        ("一 只 狗 在 草地 上 奔跑", False),
        ("犬 が 芝生 の 上 を 走っ て いる", False),
        ("เด็กผู้ชาย กำลัง เล่น ฟุตบอล", False),
        ("개가 잔디 위를 달린다", False),  # Korean has spaces
        ("a dog with a 犬 sign", False),
        ("Собака бежит по траве", False),
        ("", False),
    ],
)
def test_languages_without_spaces_are_said(sentence, is_said):
    """Chinese, Japanese and Thai count as a word a sentence until somebody parts them; what is parted is sound."""
    assert bool(unparted([tokenise(sentence)] * 3, "captions")) == is_said
    if is_said:
        assert "3 of 4 references" in unparted([tokenise(sentence)] * 3 + [["a"]], "references")
        assert not unparted([tokenise(sentence)] + [["a"]] * 3, "references")


def test_an_image_alone_is_said():
    """Its CIDEr-D is 0 by definition; of two it is not, and of a data set of one among others it is."""
    image = CaptionedImage("a", "a", Path("a"), ("a dog runs",), "val", origin="x")
    others = [replace(image, name=str(n), captions=(f"cat {n} sleeps",), origin="y") for n in range(3)]
    alone, with_others = (evaluate(images, ["a dog"] * len(images)) for images in ([image], [image, *others]))
    assert [line for line in alone.remarks if line.startswith("CIDEr-D of a single image is 0")]
    assert [line for line in with_others.remarks if line.startswith("CIDEr-D of x is 0")]
    assert not evaluate(others, ["a cat"] * 3).remarks
