"""The promises of captioner.captioner and captioner.generation."""

import hashlib
import itertools
import math
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import captioner
from captioner import Captioner, SearchOptions
from captioner.captioner import BATCH, pick_captioner
from captioner.captions import Captioned
from captioner.card import read_card
from captioner.checkpoint import save_model
from captioner.errors import CaptionerError, ImageError, OptionError
from captioner.generation import caption_features
from captioner.model import CaptionModel
from captioner.network import network_of
from captioner.text import END, START


@pytest.fixture(scope="module")
def model(small_file):
    return Captioner.of(small_file)


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
        features = small_file.model.encode(torch.from_numpy(model.read(image)[None]))
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
            yield str(number), b"no picture" if number % 7 == 3 else good[number % 50]

    found = list(itertools.islice(model.stream(endless()), 40))
    assert len(asked) <= 40 + 3 * BATCH
    assert [one.name for one in found] == list(map(str, range(40)))
    assert [isinstance(one.error, ImageError) for one in found] == [number % 7 == 3 for number in range(40)]
    assert [one.size for one in found] == [None if number % 7 == 3 else (50, 40) for number in range(40)]
    for number in (0, 20, 39):
        expected = model(good[number]).log_probability
        assert found[number].caption.log_probability == pytest.approx(expected, abs=1e-4)
    assert not [thread for thread in threading.enumerate() if "reader" in thread.name]


def test_a_picture_that_the_model_fails_on_costs_the_others_nothing(both_ways_file):
    """It has its error in its place; in a list, the first one is raised."""
    captioner = Captioner.of(both_ways_file)
    images, encode = pictures(5), captioner.network.vision.encode
    bad = captioner.read(images[2])

    class Failing:
        def __getattr__(self, name):
            return getattr(captioner.network, name)

        def encode(self, pixels):
            features = encode(torch.from_numpy(np.stack(pixels)))
            for place, one in enumerate(pixels):
                if np.array_equal(one, bad):
                    features[place] = math.nan
            return features

    failing = Captioner(Failing(), captioner.card)
    found = list(failing.stream(zip("abcde", images, strict=True)))
    assert [one.error is not None for one in found] == [False, False, True, False, False]
    assert "no finite probabilities" in str(found[2].error)
    assert found[2].size == (50, 40)
    assert [one.caption.text for one in found if one.caption] == [captioner(images[n]).text for n in (0, 1, 3, 4)]
    with pytest.raises(CaptionerError, match="no finite"):
        failing(images)


def test_a_picture_has_a_caption_or_an_error():
    """Never both, never neither."""
    caption = captioner.Caption("a dog", -1.0, (), 0.5)
    for wrong in ({}, {"caption": caption, "error": ImageError("a.jpg is damaged.")}):
        with pytest.raises(ValueError, match="or an error"):
            Captioned("a.jpg", **wrong)


def test_the_size_of_a_picture_is_its_own(model, tmp_path):
    """Upright, though a large JPEG is decoded smaller."""
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (1603, 1200), "blue").save(tmp_path / "turned.jpg", exif=exif)
    look = model.look(tmp_path / "turned.jpg", thumbnail=100)
    assert look.size == (1200, 1603)
    assert max(look.thumbnail.size) == 100
    assert look.thumbnail.height > look.thumbnail.width
    assert np.array_equal(look.pixels, model.read(tmp_path / "turned.jpg"))


def test_another_search_leaves_the_first_captioner_as_it_was(model):
    """`search_with` merges and checks, and `with_` gives a copy that shares the network."""
    wide = model.with_(search=model.search_with(beam_size=5))
    assert wide.search == replace(model.search, beam_size=5)
    assert model.search == model.card.search
    assert wide.network is model.network
    image = pictures(1)[0]
    assert wide(image) == model(image, search=wide.search)
    for wrong in ({"beam_size": 0}, {"rerank": 0.5}, {"beams": 3}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            model.search_with(**wrong)
    with pytest.raises(OptionError, match="right-to-left"):
        model.with_(search=SearchOptions(rerank=0.5))
    with pytest.raises(OptionError, match="right-to-left"):
        model.stream([], search=SearchOptions(rerank=0.5))


@pytest.mark.parametrize("changed", [{"mean": (0.9, 0.1, 0.5)}, {"std": (0.5, 0.1, 1.0)}, {"fit": "pad"}, {"size": 96}])
def test_other_image_options_hold_from_the_file_to_the_features(model, small_file, changed):
    """`image=` means all of them: the features are those of a model that was made with these options."""
    image, picture = replace(model.image, **changed), pictures(1)[0]
    other = model.with_(image=image)
    made = CaptionModel(replace(small_file.model.options, image=image)).eval()
    made.load_state_dict(small_file.model.state_dict())
    expected = Captioner.of(replace(small_file, model=made))
    assert np.array_equal(other.read(picture), expected.read(picture))
    plain = model.network.encode([model.read(picture)])
    unit = plain.std()  # random weights make small numbers
    features = other.network.encode([other.read(picture)]) / unit
    torch.testing.assert_close(features, expected.network.encode([expected.read(picture)]) / unit, rtol=0, atol=1e-3)
    assert plain.shape != features.shape or not torch.allclose(plain / unit, features, rtol=0, atol=0.1)


def test_a_card_says_what_the_file_says(model, small_file, tmp_path):
    """From the header alone, without torch, and with the file's digest."""
    save_model(tmp_path / "small.safetensors", small_file)
    card = read_card(tmp_path / "small.safetensors")
    digest = hashlib.sha256((tmp_path / "small.safetensors").read_bytes()).hexdigest()
    assert card == replace(model.card, name="small.safetensors", digest=digest)
    assert Captioner.load(tmp_path / "small.safetensors").card == card
    code = "import sys, captioner.card; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_a_model_that_is_not_there_is_named(model):
    """Whatever a stranger sends in a name's place, with the names that there are."""
    captioners = {"first": model, "second": model}
    assert pick_captioner(captioners, "second") is model
    for name in ("third", None, 3, ["first"], {}):
        with pytest.raises(OptionError, match=r"There is no model .* here: choose first or second\."):
            pick_captioner(captioners, name)


def test_threads_may_share_a_captioner(model):
    """Captions asked for at the same time are those asked for one by one."""
    images = pictures(6)
    expected = [model(image).text for image in images]
    with ThreadPoolExecutor(6) as pool:
        assert [caption.text for caption in pool.map(model, images)] == expected


def test_batches_of_features(small_file):
    """`caption_features` gives one caption for each row of features."""
    features = torch.rand(3, 4, small_file.model.encoder.channels)
    captions = caption_features(
        network_of(small_file.model), features, small_file.vocabulary, SearchOptions(max_length=4)
    )
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
