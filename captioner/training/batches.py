"""From captioned images to the tensors a training step wants.

An image and all its captions stay together: the image is encoded once, and the captions share the result along the K
axis.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from captioner.datasets.dataset import CaptionedImage
from captioner.decoder import stack_captions
from captioner.options import ImageOptions
from captioner.pictures import fit, read_image, to_tensor
from captioner.pictures.shards import Packed, expect
from captioner.text import END, START, Vocabulary, tokenise
from captioner.vision import stacked

MIXED = 16
"""Shards whose pictures are mixed at a time, in all processes together: what other readers call the shuffle buffer."""


@dataclass(frozen=True)
class Batch:
    """Training pictures of a step, or of a part of one, with all that an objective may learn from."""

    names: tuple[str, ...]
    """Of the B pictures, for messages."""
    tokens: Tensor
    """Their captions: (B, K, T) ids from <start> on, <pad> behind the end."""
    references: Sequence[Sequence[Sequence[str]]] = ()
    """Their captions as words, where an objective scores against them."""
    teachers: tuple[Tensor, ...] = ()
    """For each teacher, the features (B, R, C) in which it sees the pictures."""
    seeds: tuple[int, ...] = ()
    """For each picture, what decides about all that is random about it in this epoch."""

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Lessons:
    """What all training pictures have to teach, and from which batches are made."""

    images: Sequence[CaptionedImage]
    captions: Sequence[Sequence[Sequence[int]]]
    """Of each image at least one, as `encode_captions` gives them."""
    references: Sequence[Sequence[Sequence[str]]] = ()
    """Of each image, or none at all."""
    teachers: Sequence[Tensor] = ()
    """For each teacher, the features (N, R, C) in which it sees the images."""

    def batch(self, places: Sequence[int], *, seed: int = 0, epoch: int = 0) -> Batch:
        """The images in these places, as a run of that seed sees them in that epoch (from 0)."""
        return Batch(
            tuple(self.images[place].name for place in places),
            stack_captions([self.captions[place] for place in places]),
            [self.references[place] for place in places] if self.references else (),
            tuple(features[places] for features in self.teachers),
            tuple(picture_seed(seed, epoch, place) for place in places),
        )


def encode_captions(
    images: Sequence[CaptionedImage], vocabulary: Vocabulary, *, max_words: int, reverse: bool = False
) -> list[list[list[int]]]:
    """For each image the ids of its captions, from <start> to <end>; with `reverse` the last word comes first.

    A caption longer than `max_words` is cut there and has no <end>, since it did not end. Captions without a word
    are left out.
    """
    encoded = []
    for image in images:
        captions = []
        for caption in image.captions:
            words = tokenise(caption)
            ids = vocabulary.encode(reversed(words) if reverse else words)
            if ids:
                captions.append([START, *ids, END] if len(ids) <= max_words else [START, *ids[:max_words]])
        encoded.append(captions)
    return encoded


def epoch_batches(
    count: int, batch_size: int, *, seed: int, epoch: int, shards: Sequence[int] = (), processes: int = 1
) -> list[list[int]]:
    """The images 0..count-1 in this epoch's order, cut into batches. The same call gives the same batches.

    `shards` names each image's shard where they lie in such: then their order is one in which a shard is read at once.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    if shards:
        order = _order_of_shards(torch.tensor(shards), generator, processes)
    else:
        order = torch.randperm(count, generator=generator).tolist()
    return [order[first : first + batch_size] for first in range(0, count, batch_size)]


def _order_of_shards(shards: Tensor, generator: torch.Generator, processes: int) -> list[int]:
    """Shards and the images of each in random order, cut into as many lanes of one length as are read side by side:

    neighbours come from different lanes. So MIXED shards, or two more where lanes begin amid one, are mixed at a time.
    A process's images, every so-manieth of a batch, are those of some of the lanes, and so of some of the shards.
    """
    ranks = torch.randperm(int(shards.max()) + 1, generator=generator)
    places = ranks[shards] + torch.rand(len(shards), generator=generator, dtype=torch.float64)
    lanes = torch.tensor_split(places.argsort(), processes * math.ceil(MIXED / processes))
    rows = torch.nn.utils.rnn.pad_sequence(list(lanes), padding_value=-1)  # of an image from each lane
    return [place for place in rows.flatten().tolist() if place >= 0]


def shards_of(images: Sequence[CaptionedImage]) -> list[int]:
    """A number for the shard of each image, for `epoch_batches`; a file is its own. Nothing where there is no shard."""
    if not any(isinstance(image.source, Packed) for image in images):
        return []
    numbers: dict[object, int] = {}
    keys = (image.source.shard if isinstance(image.source, Packed) else at for at, image in enumerate(images))
    return [numbers.setdefault(key, len(numbers)) for key in keys]


def picture_seed(seed: int, epoch: int, index: int) -> int:
    """A seed of its own for each picture in each epoch of a run: what is random about it hangs on nothing else."""
    return (seed * 1_000_003 + epoch) * 10_000_019 + index


def augment(picture: Image.Image, generator: torch.Generator) -> Image.Image:
    """A random crop of 70% of the area or more, resized back, with colours shifted by up to a fifth.

    Never a flip or a rotation: captions say left and right.
    """
    area, x, y, *colours = torch.rand(6, generator=generator).tolist()
    scale = (0.7 + 0.3 * area) ** 0.5
    width, height = picture.width * scale, picture.height * scale
    left, top = x * (picture.width - width), y * (picture.height - height)
    picture = picture.resize(picture.size, Image.Resampling.BILINEAR, (left, top, left + width, top + height))
    for enhance, amount in zip(
        (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), colours, strict=True
    ):
        picture = enhance(picture).enhance(0.8 + 0.4 * amount)
    return picture


def load_pixels(
    images: Sequence[CaptionedImage],
    options: ImageOptions,
    batches: Sequence[Sequence[int]],
    *,
    workers: int = 0,
    augmentation: tuple[int, int] | None = None,
) -> Iterator[Tensor]:
    """The pictures of each batch as uint8 (B, 3, size, size), read by `workers` threads ahead of time.

    `augmentation` is (seed, epoch) where pictures are to be varied. Raises ImageError for one that cannot be read.
    """
    expect(images[index].source for batch in batches for index in batch)

    def load(batch: Sequence[int]) -> list[Tensor]:
        return [_pixels(images[index], options, index, augmentation) for index in batch]

    return stacked(load, batches, workers)


def _pixels(image: CaptionedImage, options: ImageOptions, index: int, augmentation: tuple[int, int] | None) -> Tensor:
    """A picture as uint8 (3, size, size); varied, where an epoch is given, by its number and the picture's alone."""
    if augmentation is None:
        return to_tensor(image.source, options)
    seed, epoch = augmentation
    generator = torch.Generator().manual_seed(picture_seed(seed, epoch, index))
    # What is varied is the small square, where there is one: `to_tensor` enlarges it as it does for everybody.
    small = replace(options, size=options.detail or options.size, detail=None)
    return to_tensor(augment(fit(read_image(image.source), small), generator), options)
