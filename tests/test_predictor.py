"""The promises of captioner.predictor and captioner.generation."""

import itertools
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

import captioner
from captioner import Captioner, SearchOptions
from captioner.errors import ImageError, OptionError
from captioner.generation import caption_features
from captioner.predictor import BATCH
from captioner.text import END, START


@pytest.fixture(scope="module")
def model(small_file):
    return Captioner(small_file, torch.device("cpu"))


def pictures(count):
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (40, 50, 3), dtype=np.uint8) for _ in range(count)]


def test_one_in_one_out_lists_in_lists_out(model, tmp_path):
    """A picture gives a Caption, a list gives a list, an empty list gives an empty one; every kind of source works."""
    array = pictures(1)[0]
    Image.fromarray(array).save(tmp_path / "photo.png")
    sources = [array, Image.fromarray(array), tmp_path / "photo.png", str(tmp_path / "photo.png")]
    sources.append((tmp_path / "photo.png").read_bytes())
    one = model(array)
    assert isinstance(one, captioner.Caption)
    assert [caption.text for caption in model(sources)] == [one.text] * 5
    assert model([]) == []


def test_company_does_not_change_a_caption(model):
    """Forty pictures in one call get what each gets alone, though they run in batches."""
    images = pictures(40)
    together = model(images)
    for image, caption in zip(images[::13], together[::13], strict=True):
        alone = model(image)
        assert alone.log_probability == pytest.approx(caption.log_probability, abs=1e-4)


def test_probabilities_are_those_of_the_model(model, small_file):
    """Rescored by teacher forcing, a caption's words have the probabilities it reports."""
    image = pictures(1)[0]
    caption = model(image, search=SearchOptions(beam_size=4, max_length=6))
    ids = small_file.vocabulary.encode([word.text for word in caption.words])
    with torch.inference_mode():
        features = small_file.model.encode(model.read(image)[None])
        logits, _ = small_file.model.decoder(features, torch.tensor([[[START, *ids]]]))
    scores = logits[0, 0].log_softmax(-1)
    expected = [scores[position, word].item() for position, word in enumerate([*ids, END])]
    for word, score in zip(caption.words, expected, strict=False):
        assert word.probability == pytest.approx(math.exp(score), rel=1e-3)
    finished = sum(expected)
    unfinished = sum(expected[:-1])
    assert any(caption.log_probability == pytest.approx(total, abs=1e-3) for total in (finished, unfinished))


def test_alternatives_are_other_sentences_best_first(model):
    """With a beam of 5 there are up to four alternatives, ranked below the caption, none of them twice."""
    caption = model(pictures(1)[0], search=SearchOptions(beam_size=5, max_length=6))
    everything = [caption, *caption.alternatives]
    assert len(everything) == 5
    assert len({c.text for c in everything}) == 5
    for better, worse in itertools.pairwise(everything):
        assert better.log_probability >= worse.log_probability
    assert all(0 < c.word_probability <= 1 for c in everything)
    assert model(pictures(1)[0], search=SearchOptions(beam_size=1)).alternatives == ()


def test_special_words_are_never_written(model):
    """No caption, however the beam goes, holds <pad>, <start>, <end> or <unk>."""
    for caption in model(pictures(5), search=SearchOptions(beam_size=11, max_length=5)):
        for one in (caption, *caption.alternatives):
            assert not any(word.text.startswith("<") for word in one.words)


def test_a_bad_picture_is_an_image_error(model, tmp_path):
    """One clear error, alone or in a list."""
    (tmp_path / "bad.jpg").write_text("no photo")
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        model(tmp_path / "bad.jpg")
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        model([pictures(1)[0], tmp_path / "bad.jpg"])


def test_a_stream_never_ends_early_and_never_runs_ahead(model):
    """Bad pictures leave their errors in their places; the others get what they get alone; few are read ahead."""
    good, asked = pictures(50), []

    def endless():
        for number in itertools.count():
            asked.append(number)
            yield b"no picture" if number % 7 == 3 else good[number % 50]

    found = list(itertools.islice(model.stream(endless()), 40))
    assert len(asked) <= 40 + 3 * BATCH
    assert [isinstance(caption, ImageError) for caption in found] == [number % 7 == 3 for number in range(40)]
    for number in (0, 20, 39):
        assert found[number].log_probability == pytest.approx(model(good[number]).log_probability, abs=1e-4)
    assert not [thread for thread in threading.enumerate() if "reader" in thread.name]


def test_threads_may_share_a_captioner(model):
    """Captions asked for at the same time are those asked for one by one."""
    images = pictures(6)
    expected = [model(image).text for image in images]
    with ThreadPoolExecutor(6) as pool:
        assert [caption.text for caption in pool.map(model, images)] == expected


def test_batches_of_features(small_file):
    """`caption_features` gives one caption for each row of features."""
    features = torch.rand(3, 4, small_file.model.encoder.channels)
    captions = caption_features(small_file.model, features, small_file.vocabulary, SearchOptions(max_length=4))
    assert len(captions) == 3


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_named(device):
    """A wrong --device lists the right ones."""
    with pytest.raises(OptionError, match=f"{device}.*cpu"):
        Captioner.load(device=device)


def test_public_names_are_there():
    """Every name in __all__ can be had from the package, and no other."""
    for name in captioner.__all__:
        assert getattr(captioner, name).__name__ == name
    with pytest.raises(AttributeError, match="Captionist"):
        captioner.Captionist  # noqa: B018
    assert set(captioner.__all__) <= set(dir(captioner))
