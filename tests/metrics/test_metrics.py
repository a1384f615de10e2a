"""The promises of captioner.metrics: the scores are the field's, to the last digit that is printed and beyond.

The oracle is pycocoevalcap, the field's own code; slow readings of the papers stand in where it is not installed.
"""

import json
import math
import random
import shutil
import socket
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from captioner.datasets import load_dataset
from captioner.errors import OptionError
from captioner.evaluation import evaluate
from captioner.metrics.bleu import bleu
from captioner.metrics.cider import cider, document_frequencies
from captioner.metrics.java import meteor, spice
from captioner.metrics.rouge import rouge
from captioner.text import tokenise

EXACT = 1e-6
METRICS = [bleu, cider, rouge]

CAPTIONS = st.lists(st.sampled_from("abc"), max_size=7)
CORPORA = st.lists(st.tuples(CAPTIONS, st.lists(CAPTIONS, min_size=1, max_size=4)), min_size=1, max_size=5)


def split(corpus):
    return [hypothesis for hypothesis, _ in corpus], [group for _, group in corpus]


def all_of(hypotheses, references, metrics=METRICS):
    """The statistics of several metrics, in a row."""
    answers = (metric(hypotheses, references) for metric in metrics)
    return [one for answer in answers for one in (answer if isinstance(answer, tuple) else (answer,))]


# What the field's code says


def as_the_field_has_it(hypotheses, references):
    """Two dictionaries by image: its one candidate, and its references, as sentences."""
    candidates = {number: [" ".join(hypothesis)] for number, hypothesis in enumerate(hypotheses)}
    return {number: [" ".join(one) for one in group] for number, group in enumerate(references)}, candidates


def oracle(hypotheses, references):
    return pycocoevalcap_scores(*as_the_field_has_it(hypotheses, references))


def pycocoevalcap_scores(*sentences):
    """By metric the corpus score and the images' scores, times 100; `sentences` are references and candidates by image."""
    reason = "pycocoevalcap, which the scores are compared with, is not installed"
    pytest.importorskip("pycocoevalcap.bleu.bleu", reason=reason)
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    scores, images = Bleu(4).compute_score(*sentences, verbose=0)
    answers = dict(zip(("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"), zip(scores, images, strict=True), strict=True))
    answers["CIDEr-D"] = Cider().compute_score(*sentences)
    answers["ROUGE-L"] = Rouge().compute_score(*sentences)
    return {name: (100 * score, 100 * np.array(images)) for name, (score, images) in answers.items()}


def assert_equal_to_the_oracle(hypotheses, references):
    expected = oracle(hypotheses, references)
    statistics = all_of(hypotheses, references)
    assert [one.name for one in statistics] == list(expected)
    for one in statistics:
        score, images = expected[one.name]
        assert one.score == pytest.approx(score, abs=EXACT), one.name
        np.testing.assert_allclose(one.images, images, rtol=0, atol=EXACT, err_msg=one.name)


@pytest.fixture(scope="module")
def coco_references(coco):
    """The five captions (at times more) of each of COCO's 5,000 validation images."""
    annotations = json.loads((coco / "annotations" / "captions_val2017.json").read_text(encoding="utf-8"))
    groups = defaultdict(list)
    for annotation in annotations["annotations"]:
        groups[annotation["image_id"]].append(tokenise(annotation["caption"]))
    assert len(groups) == 5000
    return list(groups.values())


@pytest.fixture(scope="module")
def flickr8k_references(flickr8k):
    from captioner.datasets import load_dataset

    return [[tokenise(text) for text in image.captions] for image in load_dataset(flickr8k).split("val")]


def human(references):
    """The first person against the others."""
    return [group[0] for group in references], [group[1:] for group in references]


def random_image(references):
    chance = random.Random(0)
    return [chance.choice(chance.choice(references)) for _ in references], references


def truncated(references):
    """A person's first words: none, one, two, three, four."""
    hypotheses, rest = human(references)
    return [hypothesis[: number % 5] for number, hypothesis in enumerate(hypotheses)], rest


def empty(references):
    return [[] for _ in references], references


def one_word(references):
    return [["a"] for _ in references], references


def repeated(references):
    return [["a", group[0][0] if group[0] else "a", "a"] * 4 for group in references], references


@pytest.mark.parametrize("candidates", [human, pytest.param(random_image, marks=pytest.mark.slow)])
def test_coco_scores_are_the_field_s(coco_references, candidates):
    """On all of COCO's validation captions every score, of the corpus and of each image, is pycocoevalcap's."""
    assert_equal_to_the_oracle(*candidates(coco_references))


@pytest.mark.parametrize("candidates", [human, random_image, truncated, empty, one_word, repeated])
def test_flickr8k_scores_are_the_field_s(flickr8k_references, candidates):
    """Good, wrong and broken captions score what pycocoevalcap says."""
    assert_equal_to_the_oracle(*candidates(flickr8k_references))


@settings(max_examples=200, deadline=None)
@given(CORPORA)
def test_small_corpora_score_as_in_the_field(corpus):
    """Down to empty captions, equal captions and a single image."""
    assume(any(any(group) for _, group in corpus))  # without a word in any reference pycocoevalcap fails
    assert_equal_to_the_oracle(*split(corpus))


# What the papers say


def grams(caption, order):
    return Counter(tuple(caption[start : start + order]) for start in range(len(caption) - order + 1))


def slow_bleu(hypotheses, references):
    """Papineni et al. 2002, equations 1 to 3; closest reference length, ties to the shorter; the protocol's constants."""
    tiny, small = 1e-15, 1e-9
    length = sum(map(len, hypotheses))
    closest = sum(
        min((abs(len(reference) - len(hypothesis)), len(reference)) for reference in group)[1]
        for hypothesis, group in zip(hypotheses, references, strict=True)
    )
    penalty = math.exp(min(0, 1 - (closest + small) / (length + tiny)))
    product, scores = 1, []
    for order in range(1, 5):
        matched = total = 0
        for hypothesis, group in zip(hypotheses, references, strict=True):
            most = Counter()
            for reference in group:
                most |= grams(reference, order)
            matched += (grams(hypothesis, order) & most).total()
            total += grams(hypothesis, order).total()
        product *= (matched + tiny) / (total + small)
        scores.append(100 * penalty * product ** (1 / order))
    return scores


def slow_cider(hypothesis, references, corpus):
    """Vedantam et al. 2015, equations 1 to 3 with CIDEr-D's changes; `corpus`: the groups that frequencies come from."""

    def vector(caption, order):
        def appearances(gram):
            return sum(any(gram in grams(one, order) for one in group) for group in corpus)

        counts = grams(caption, order)
        return {gram: times * math.log(len(corpus) / max(1, appearances(gram))) for gram, times in counts.items()}

    def length(vector):
        return math.sqrt(sum(weight**2 for weight in vector.values()))

    total = 0
    for reference in references:
        for order in range(1, 5):
            ours, theirs = vector(hypothesis, order), vector(reference, order)
            product = sum(min(ours[gram], theirs[gram]) * theirs[gram] for gram in ours.keys() & theirs.keys())
            if product:
                penalty = math.exp(-((len(hypothesis) - len(reference)) ** 2) / (2 * 6.0**2))
                total += penalty * product / (length(ours) * length(theirs))
    return 100 * 10 * total / 4 / len(references)


def slow_rouge(hypothesis, references):
    """Lin 2004, equations 2 to 4, with the best precision and the best recall; an empty caption is an empty word."""

    def common(first, second):
        table = np.zeros((len(first) + 1, len(second) + 1), dtype=int)
        for i, j in np.ndindex(len(first), len(second)):
            equal = first[i] == second[j]
            table[i + 1, j + 1] = table[i, j] + 1 if equal else max(table[i, j + 1], table[i + 1, j])
        return table[-1, -1]

    hypothesis, references = hypothesis or [""], [reference or [""] for reference in references]
    precision = max(common(hypothesis, reference) / len(hypothesis) for reference in references)
    recall = max(common(hypothesis, reference) / len(reference) for reference in references)
    return 100 * (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision) if precision else 0.0


@settings(max_examples=100, deadline=None)
@given(CORPORA)
def test_bleu_is_papineni_s(corpus):
    """BLEU-1 to BLEU-4 equal a slow reading of the paper's equations, for the corpus and for each image."""
    hypotheses, references = split(corpus)
    statistics = bleu(hypotheses, references)
    assert [one.score for one in statistics] == pytest.approx(slow_bleu(hypotheses, references), abs=EXACT)
    images = [slow_bleu([hypothesis], [group]) for hypothesis, group in corpus]
    np.testing.assert_allclose(np.stack([one.images for one in statistics], axis=1), images, rtol=0, atol=EXACT)


@settings(max_examples=60, deadline=None)
@given(CORPORA, st.lists(st.lists(st.lists(st.sampled_from("bcd"), max_size=6), min_size=1, max_size=2), min_size=1))
def test_cider_is_vedantam_s(corpus, others):
    """CIDEr-D equals a slow reading of the paper's equations, with frequencies of its own or learnt elsewhere."""
    hypotheses, references = split(corpus)
    learnt = document_frequencies(others)
    words = dict(learnt.words)
    for statistics, groups in (
        (cider(hypotheses, references), references),
        (cider(hypotheses, references, learnt), others),
    ):
        expected = [slow_cider(hypothesis, group, groups) for hypothesis, group in corpus]
        np.testing.assert_allclose(statistics.images, expected, rtol=0, atol=EXACT)
        assert statistics.score == pytest.approx(np.mean(expected), abs=EXACT)
    assert learnt.words == words  # scoring teaches nothing


@settings(max_examples=100, deadline=None)
@given(CORPORA)
def test_rouge_is_lin_s(corpus):
    """ROUGE-L equals a slow reading of the paper's equations."""
    expected = [slow_rouge(hypothesis, group) for hypothesis, group in corpus]
    statistics = rouge(*split(corpus))
    np.testing.assert_allclose(statistics.images, expected, rtol=0, atol=EXACT)
    assert statistics.score == pytest.approx(np.mean(expected), abs=EXACT)


def test_long_captions_keep_every_word():
    """Captions longer than a machine word lose nothing in ROUGE-L's bits."""
    chance = random.Random(0)
    hypothesis, reference = ([chance.choice("abcdefgh") for _ in range(length)] for length in (150, 200))
    assert rouge([hypothesis], [[reference]]).score == pytest.approx(slow_rouge(hypothesis, [reference]), abs=EXACT)


def test_the_references_themselves_score_the_most():
    """A perfect copy scores 100, and 1000 in CIDEr-D where it is the only reference."""
    sentences = ["a dog runs on the grass".split(), "two people sit at a table".split()]
    scores = [one.score for one in all_of(sentences, [[sentence] for sentence in sentences])]
    assert scores == pytest.approx([100, 100, 100, 100, 1000, 100], abs=1e-5)


# What holds for each


@settings(max_examples=50, deadline=None)
@given(CORPORA, st.randoms(use_true_random=False))
def test_a_resample_scores_as_the_repeated_images(corpus, chance):
    """Each image once is the score; each image a few times is the score of the corpus in which it is repeated."""
    hypotheses, references = split(corpus)
    times = [chance.randint(0, 3) for _ in corpus]
    times[0] += 1
    again = [pair for pair, count in zip(corpus, times, strict=True) for _ in range(count)]
    learnt = document_frequencies(references)
    for metric in (bleu, rouge, lambda *captions: cider(*captions, learnt)):
        for one, repeated in zip(
            all_of(hypotheses, references, [metric]), all_of(*split(again), [metric]), strict=True
        ):
            scores = one.resampled(np.array([[1] * len(corpus), times], dtype=np.float64))
            assert scores == pytest.approx([one.score, repeated.score], abs=EXACT), one.name


def test_frequencies_outlive_their_images(flickr8k_references):
    """Some of the images, scored with the frequencies of all, score what they do among all."""
    hypotheses, references = human(flickr8k_references)
    whole = cider(hypotheses, references).images
    part = cider(hypotheses[::7], references[::7], document_frequencies(references)).images
    np.testing.assert_allclose(part, whole[::7], rtol=0, atol=EXACT)


@pytest.mark.parametrize("metric", [*METRICS, meteor, spice])
def test_wrong_captions_are_refused(metric):
    """Strings would be scored letter by letter, and come out high; captions that do not pair up would be misaligned."""
    for hypotheses, references in ((["a dog"], [["a dog"]]), ([["a"]], [["a dog"]]), ([["a"]], ["a dog"])):
        with pytest.raises(TypeError, match="lists of tokens"):
            metric(hypotheses, references)
    with pytest.raises(ValueError, match=r"2 hypotheses .* 1 sets"):
        metric([["a"], ["b"]], [[["a"]]])
    with pytest.raises(ValueError, match="nothing to score"):
        metric([], [])
    with pytest.raises(ValueError, match="Image 1 has no reference"):
        metric([["a"], ["b"]], [[["a"]], []])


def test_frequencies_are_not_learnt_from_letters():
    """Strings in the place of token lists are refused where frequencies are learnt, too."""
    with pytest.raises(TypeError, match="lists of tokens"):
        document_frequencies([["a dog"]])
    with pytest.raises(ValueError, match="nothing to score"):
        document_frequencies([])


# The programs written in Java


@pytest.fixture
def package():
    return pytest.importorskip("pycocoevalcap.meteor.meteor", reason="pycocoevalcap is not installed")


@pytest.fixture
def java(package):
    if not shutil.which("java"):
        pytest.skip("METEOR needs Java, and there is none")


@pytest.mark.parametrize(("split", "exact"), [("flickr8k", EXACT), ("coco", 1e-3)])
def test_scores_are_the_field_s_from_the_first_letter_on(java, request, monkeypatch, split, exact):
    """Captions as written, through each side's own tokeniser and metrics, come to the same scores.

    COCO has one caption whose tokens depend on the next caption there, and a space that only ROUGE-L takes for a letter.
    """
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Dfile.encoding=UTF-8")
    folder = request.getfixturevalue(split)
    data = load_dataset(folder / "annotations" / "captions_val2017.json" if split == "coco" else folder)
    images = data.split("test" if split == "coco" else "val")
    captions = [image.captions[0] for image in images]
    random.Random(3).shuffle(captions)
    texts = {image.name: [{"caption": text} for text in image.captions] for image in images}
    candidates = {image.name: [{"caption": text}] for image, text in zip(images, captions, strict=True)}
    references, candidates = PTBTokenizer().tokenize(texts), PTBTokenizer().tokenize(candidates)
    ours = evaluate(images, captions).scores
    assert ours == pytest.approx(
        {name: score for name, (score, _) in pycocoevalcap_scores(references, candidates).items()}, abs=exact
    )


@pytest.fixture
def pretended_java(package, tmp_path, monkeypatch):
    """Puts a program of the test's own in the place of Java."""

    def pretend(source):
        program = tmp_path / "java"
        program.write_text(f"#!{sys.executable}\n{source}\n", encoding="utf-8")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return pretend


@pytest.mark.slow
def test_meteor_is_the_field_s(java, package, flickr8k_references):
    """METEOR of people, of nothing and of bars that divide: corpus and images are pycocoevalcap's."""
    hypotheses, references = human(flickr8k_references[:200])
    odd = [
        ([], [["a", "dog"], ["x"]]),
        ([], [[]]),
        (["dog"], [[], ["dog"]]),
        ("a dog ||| runs".split(), [["a", "dog", "runs"]]),
        (["|||"], [["a", "b"]]),
        ("café dogs do n't 's 1,000 t-shirt".split(), [["café", "dogs"], ["naïve", "dog"]]),
        (["a"], [["a"]]),
        (references[0][0], references[0]),
    ]
    hypotheses, references = hypotheses + split(odd)[0], references + split(odd)[1]
    scorer = package.Meteor()
    try:
        score, images = scorer.compute_score(*as_the_field_has_it(hypotheses, references))
    finally:
        scorer.meteor_p.stdout.close()
        scorer.meteor_p.stderr.close()
    statistics = meteor(hypotheses, references)
    assert statistics.name == "METEOR"
    assert statistics.score == pytest.approx(100 * score, abs=EXACT)
    assert abs(statistics.score - statistics.images.mean()) > 0.1  # the corpus is not the mean
    np.testing.assert_allclose(statistics.images, 100 * np.array(images), rtol=0, atol=EXACT)
    once = np.ones((1, len(hypotheses)))
    assert statistics.resampled(once) == pytest.approx([statistics.score], abs=EXACT)


def test_meteor_s_formula(pretended_java):
    """Recorded counts and scores of the program: two captions of people, a whole match and an empty caption."""
    rows = {
        "13 16 7 10 1 1 4 4 0 0 0 0 0 0 0 0 2 2 1 2 5 8 9": 19.577292884385125,
        "12 18 6 8 3 3 6 6 0 0 0 0 0 0 0 0 1 1 0 0 4 10 10": 23.420233062365237,
        "3 3 1 1 2 2 1 1" + 12 * " 0" + " 1 3 3": 100.0,
        "0 3 0 1" + 19 * " 0": 0.0,
    }
    pretended_java(f"import sys; sys.stdin.read(); print({chr(10).join(rows)!r})")
    assert meteor([["a"]] * 4, [[["a"]]] * 4).images == pytest.approx(list(rows.values()), abs=EXACT)


def test_every_caption_is_one_line_for_meteor(pretended_java):
    """Line breaks and dividing bars within words cannot shift the captions that follow."""
    lines = ["SCORE ||| a dog ||| x ||| a b", "SCORE ||| c ||| "]
    pretended_java(
        f"import sys; assert sys.stdin.read() == {''.join(line + chr(10) for line in lines)!r}; print('0 ' * 23)"
    )
    with pytest.raises(OptionError, match="1 answers for 2 captions"):
        meteor([["a\n", "|||", "b"], []], [[["a", "|||dog"], ["x\r\n"]], [["c"]]])


def test_an_answer_that_is_none_is_one_sentence(pretended_java):
    """METEOR's program may end well and have said something else."""
    pretended_java("print('Error: specify SCORE or EVAL')")
    with pytest.raises(OptionError, match="did not answer with counts: 'Error"):
        meteor([["a"]], [[["a"]]])


def test_a_failing_program_is_one_sentence(pretended_java):
    """What went wrong in Java is told without its stack of calls."""
    pretended_java("import sys; sys.exit('Exception in thread main: out of memory\\n  at x\\n  at y')")
    with pytest.raises(OptionError, match=r"METEOR's program failed with exit status 1: Exception .* memory$"):
        meteor([["a"]], [[["a"]]])


@pytest.mark.parametrize(("metric", "name"), [(meteor, "METEOR"), (spice, "SPICE")])
def test_what_is_missing_is_said(metric, name, monkeypatch, request):
    """Without the package or without Java one sentence says what to install."""
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    monkeypatch.delitem(sys.modules, f"pycocoevalcap.{name.lower()}", raising=False)
    with pytest.raises(OptionError, match=f"{name} needs the package pycocoevalcap: pip install pycocoevalcap"):
        metric([["a"]], [[["a"]]])
    monkeypatch.undo()
    request.getfixturevalue("package")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(OptionError, match=f"{name} needs Java"):
        metric([["a"]], [[["a"]]])


def test_a_download_that_fails_is_one_sentence(package, pretended_java, monkeypatch, capfd):
    """SPICE without its parser and without a network says so, and standard output stays clean."""
    import pycocoevalcap.spice.get_stanford_models as parser

    folder = Path(parser.__file__).parent / "lib"
    if any(folder.glob("stanford-corenlp-*.jar")):
        pytest.skip("SPICE's parser is here already")

    def unreachable(*_, **__):
        raise socket.gaierror("no network")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    pretended_java("")
    with pytest.raises(OptionError, match=r"parser that could not be downloaded .*no network.*leave SPICE out"):
        spice([["a"]], [[["a"]]])
    assert capfd.readouterr().out == ""


def test_spice_is_the_mean_of_the_images(package, pretended_java, monkeypatch, capfd):
    """Each image is asked about once, answers come in any order, and what the program prints is not ours."""
    monkeypatch.setattr("pycocoevalcap.spice.get_stanford_models.get_stanford_models", lambda: print("Downloading"))
    pretended_java(
        "import json, sys\n"
        "arguments = sys.argv[1:]\n"
        "captions = json.load(open(arguments[arguments.index('spice-1.0.jar') + 1]))\n"
        "assert captions[1] == {'image_id': 1, 'test': 'b c', 'refs': ['b', 'c é']}, captions\n"
        "answers = [{'image_id': one['image_id'], 'scores': {'All': {'f': 0.5 * one['image_id']}}} for one in captions]\n"
        "json.dump(answers[::-1], open(arguments[arguments.index('-out') + 1], 'w'))\n"
        "print('SPICE evaluation took: 5.0 s')"
    )
    statistics = spice([["a"], ["b", "c"]], [[["a"]], [["b"], ["c", "é"]]])
    assert (statistics.name, statistics.score, list(statistics.images)) == ("SPICE", 25.0, [0.0, 50.0])
    assert capfd.readouterr().out == ""
