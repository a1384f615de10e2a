"""What the `coco` preset costs at COCO's counts: the Karpathy split's 113,287 training pictures, five captions each.

    python -m benchmarks.coco_counts captions_val2017.json [--pictures 113287] [--steps 20] [--device auto]

Pictures and their features are not needed: each batch's are made up, in the shape of the preset's (14x14 of 2,048).
Captions are made up too, by a chain that continues any two words as some real caption does: words, lengths and n-grams
grow as real ones do. Everything else is the product's own: the vocabulary, the decoder in the preset's size, document
frequencies, the samples and their rewards, the loss, AdamW. Steps are the median of `--steps`.
"""

import argparse
import math
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks import measure
from captioner.datasets import load_dataset
from captioner.datasets.dataset import CaptionedImage
from captioner.decoder import Decoder
from captioner.device import pick_device, pick_precision
from captioner.options import DecoderOptions, SearchOptions, TrainingOptions
from captioner.text import END, Vocabulary, tokenise
from captioner.training.batches import Lessons, encode_captions, epoch_batches
from captioner.training.objectives import CrossEntropy, Objective, SelfCritical
from captioner.training.recipes import PRESETS
from captioner.training.self_critical import references_of
from captioner.training.step import Learner, make_optimizer, take_step

GRID, CHANNELS, CAPTIONS = 14 * 14, 2048, 5


def made_up(real: Sequence[Sequence[str]], count: int, chance: random.Random) -> Iterator[str]:
    """Captions whose every three words in a row stand in a real one."""
    following: dict[tuple[str, str], list[str]] = defaultdict(list)
    for words in real:
        for before, last, word in zip(["", "", *words], ["", *words, ""], [*words, ""], strict=False):
            following[before, last].append(word)
    for _ in range(count):
        caption, before, last = [], "", ""
        while word := chance.choice(following[before, last]):
            caption.append(word)
            before, last = last, word
        yield " ".join(caption)


@contextmanager
def row(name: str) -> Iterator[None]:
    """Prints how long the block took, and the most memory that the process has had so far."""
    started = time.perf_counter()
    yield
    memory = measure.memory(torch.device("cpu")) * 1e6 / 2**30
    print(f"| {name} | {time.perf_counter() - started:.0f} s | {memory:.1f} GiB |", flush=True)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", type=Path, help="real captions to make others from: a COCO caption file")
    parser.add_argument("--pictures", type=int, default=113_287)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="auto")
    chosen = parser.parse_args()
    device = pick_device(chosen.device)
    training = TrainingOptions(learning_rate=1e-5, precision=pick_precision("auto", device))
    torch.manual_seed(1)
    real = [tokenise(caption) for image in load_dataset(chosen.captions).images for caption in image.captions]
    print(f"torch {torch.__version__} on {device} in {training.precision}, {torch.get_num_threads()} threads")
    print("| | time | most memory so far |\n|---|---|---|")
    with row(f"{chosen.pictures * CAPTIONS:,} captions made up"):
        captions = made_up([words for words in real if words], chosen.pictures * CAPTIONS, random.Random(1))
        images = [
            CaptionedImage(str(number), str(number), Path(), tuple(next(captions) for _ in range(CAPTIONS)), "train")
            for number in range(chosen.pictures)
        ]
    with row("vocabulary"):
        words = (tokenise(caption) for image in images for caption in image.captions)
        vocabulary = Vocabulary.build(words, min_count=5)
    with row("captions to ids"):
        encoded = encode_captions(images, vocabulary, max_words=training.max_words)
    with row("references and document frequencies"):
        references = references_of(images)
        max_length = SearchOptions().max_length
        self_critical = SelfCritical(references, vocabulary, training, max_length=max_length)
    lessons = Lessons(images, encoded, references)
    options = DecoderOptions(**PRESETS["coco"][0].options["decoder"])
    decoder = Decoder(options, channels=CHANNELS, vocabulary_size=len(vocabulary)).to(device)
    # A trained decoder's samples have some ten words; this one's would never end.
    decoder.output.bias.data[END] = training.temperature * math.log(len(vocabulary) / 10)
    batches = epoch_batches(len(images), training.batch_size, seed=1, epoch=0)
    objectives: dict[str, Objective] = {
        "likelihood": CrossEntropy(training),
        "self-critical": self_critical,
    }
    for name, objective in objectives.items():
        learner = Learner(decoder, objective, training.precision)
        optimizer = make_optimizer(learner, training)
        seconds: list[float] = []
        lengths: list[float] = []
        with row(f"{chosen.steps} steps of {name}"):
            for batch in batches[: chosen.steps]:
                features = torch.rand(len(batch), GRID, CHANNELS, device=device)
                started = time.perf_counter()
                parts = [(features, lessons.batch(batch))]
                measured = take_step(learner, optimizer, parts, clip_norm=training.clip_norm)
                seconds.append(time.perf_counter() - started)
                lengths += [measured["sampled_words"]] if "sampled_words" in measured else []
        step = statistics.median(seconds)
        said = f", samples of {statistics.mean(lengths):.1f} words" if lengths else ""
        print(
            f"| an epoch of {name}: {len(batches):,} steps of {1000 * step:.0f} ms{said} "
            f"| {step * len(batches) / 3600:.1f} h | |"
        )
    features_size = len(images) * GRID * CHANNELS * 2 / 2**30
    print(f"\n{len(vocabulary):,} words; cached features take {features_size:.0f} GiB of disk.")


if __name__ == "__main__":
    main()
