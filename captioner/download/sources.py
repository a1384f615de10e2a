"""Where the known data sets lie, what they must hold, and on what terms they are given.

Nothing here came from a live request. Where sizes and checksums come from:

COCO publishes none. SHA-256: torchvision's prototype datasets (pytorch/vision, `prototype/datasets/_builtin/coco.py`).
The sizes, and the same checksums, are noted by many who have the archives. COCO's host has no certificate of its own:
the addresses are plain HTTP, and the checksum is what makes them safe.

Karpathy publishes none. Size and SHA-256: the same in several public repositories that fetch this address.

Flickr8k's authors publish none. MD5 of these very addresses: torchvision for R (mlverse, `R/dataset-flickr.R`).
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Archive:
    r"""A zip at an address, and which of its files go where.

    `members` is a regular expression for the whole name of a file in the zip; all other files stay in it. `target` is
    where such a file goes below the folder of data sets, with `\g<0>` for its name. `unpacked` is about how many bytes
    these files have; `size` how many the zip has, and `digest` its checksum ("sha256:..." or "md5:..."), where known.
    """

    address: str
    members: str
    target: str
    unpacked: int
    size: int | None = None
    digest: str = ""

    @property
    def name(self) -> str:
        """The zip's file name."""
        return self.address.rpartition("/")[2]


@dataclass(frozen=True)
class Source:
    """A data set's archives, the terms it is given on, and what to do once it is there.

    Where its authors want to be asked, there are no archives, and `terms` says where to ask.
    """

    terms: str
    archives: tuple[Archive, ...] = ()
    afterwards: str = ""


_COCO = "http://images.cocodataset.org"
_FLICKR8K = "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k"

SOURCES: Mapping[str, Source] = {
    "coco": Source(
        "The captions of COCO are given under Creative Commons Attribution 4.0. Its pictures belong to those who took "
        "them; their use must abide by Flickr's terms (https://cocodataset.org/#termsofuse).",
        (
            Archive(
                f"{_COCO}/annotations/annotations_trainval2017.zip",
                r"annotations/captions_(?:train|val)2017\.json",
                r"coco/\g<0>",
                95_737_588,
                252_907_541,
                "sha256:113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
            ),
            Archive(
                f"{_COCO}/zips/val2017.zip",
                r"val2017/\d+\.jpg",
                r"coco/\g<0>",
                820_000_000,
                815_585_330,
                "sha256:4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
            ),
            Archive(
                f"{_COCO}/zips/train2017.zip",
                r"train2017/\d+\.jpg",
                r"coco/\g<0>",
                19_400_000_000,
                19_336_861_798,
                "sha256:69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
            ),
        ),
        "Train on {folder}/coco now.",
    ),
    "karpathy": Source(
        "Karpathy and Fei-Fei (2015) publish their splits without terms of their own; the captions in them are those "
        "of COCO, Flickr8k and Flickr30k, on the terms of these.",
        (
            Archive(
                "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
                r"(?:[^/]+/)?dataset_(coco|flickr8k|flickr30k)\.json",
                r"\1/dataset_\1.json",
                191_540_365,
                36_745_453,
                "sha256:4cfd70132527b80933105e5829dc9034eaab9573482e2e680abbab6130244817",
            ),
        ),
        "They decide captions and splits of {folder}/coco, {folder}/flickr8k and {folder}/flickr30k from now on.",
    ),
    "flickr8k": Source(
        "The authors of Flickr8k (Hodosh, Young and Hockenmaier, 2013) give it for non-commercial research and "
        "education only, and ask for a form (https://forms.illinois.edu/sec/1713398): fill it in. Its pictures belong "
        "to those who took them. The files come from a public copy, https://github.com/jbrownlee/Datasets.",
        (
            Archive(
                f"{_FLICKR8K}/Flickr8k_text.zip",
                r"Flickr8k\.token\.txt|Flickr_8k\.(?:train|dev|test)Images\.txt",
                r"flickr8k/\g<0>",
                4_000_000,
                digest="md5:bf6c1abcb8e4a833b7f922104de18627",
            ),
            Archive(
                f"{_FLICKR8K}/Flickr8k_Dataset.zip",
                r"Flicker8k_Dataset/[^/]+\.jpg",
                r"flickr8k/\g<0>",
                1_150_000_000,
                digest="md5:f18a1e2920de5bd84dae7cf08ec78978",
            ),
        ),
        "Train on {folder}/flickr8k now.",
    ),
    "flickr30k": Source(
        "Flickr30k is given to those who ask for it: fill in the form at "
        "https://shannon.cs.illinois.edu/DenotationGraph/ and unpack what you get as data/README.md shows."
    ),
}
