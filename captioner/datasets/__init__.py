"""Data sets of captioned pictures: whatever the user has, recognised, read and checked.

    load_dataset(path) -> Dataset -> check_dataset -> Dataset -> .split("train") -> batches

`dataset` says what a data set is; `coco`, `flickr`, `table` and `sidecars` each read one family of files (`LAYOUTS`),
`finding` knows where pictures lie; `shapes` draws its own; `shards` reads tar files, here or at an address, and
`sharding` writes them.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from captioner.datasets import coco, flickr, shards, sidecars, table
from captioner.datasets.check import check_dataset, summarise
from captioner.datasets.dataset import ALL, CaptionedImage, Dataset, join
from captioner.errors import DataError
from captioner.files import is_address
from captioner.formats.rows import SPLITS, Problem, split_name

__all__ = [
    "ALL",
    "SPLITS",
    "CaptionedImage",
    "Dataset",
    "Problem",
    "check_dataset",
    "join",
    "load_dataset",
    "load_datasets",
    "split_name",
    "summarise",
]

LAYOUTS: tuple[tuple[Callable[[Path], Dataset | None], dict[str, str]], ...] = (
    (
        shards.read,
        {"shards": "train-00000.tar ..., WebDataset's layout (0.jpg with 0.json or 0.txt in it, ...), or shards.jsonl"},
    ),
    (
        coco.read,
        {
            "COCO": "annotations/captions_train2017.json beside train2017/, the same for val2017",
            "Karpathy": "dataset_coco.json, dataset_flickr8k.json or dataset_flickr30k.json beside the images",
        },
    ),
    (
        flickr.read,
        {
            "Flickr8k": "Flickr8k.token.txt or captions.txt, Flickr_8k.trainImages.txt ..., images/",
            "Flickr30k": "results_20130124.token or results.csv, flickr30k_images/, train.txt ... if there are any",
        },
    ),
    (
        table.read,
        {
            "your own": "captions.csv, .tsv, .json, .jsonl or .parquet beside the images; for example\n"
            "                image,caption\n"
            "                dog.jpg,A dog runs across the grass.",
            "imagefolder": "metadata.csv, .jsonl or .parquet beside the images (file_name, text), in train/ ... or not",
            "parquet": "train-00000-of-00001.parquet ..., with the images in it (image, caption or text)",
        },
    ),
    (
        sidecars.read,
        {
            "sidecars": "photo.txt, photo.caption or photo.jpg.xmp beside photo.jpg",
            "inside": "the description in each photo's own metadata (XMP)",
        },
    ),
)
"""Who reads a data set: the first that knows it; and how what it reads is called, and looks."""

_UNDERSTOOD = "\n".join(
    [
        "A data set is one of",
        *(f"  {name:11} {looks}" for _, known in LAYOUTS for name, looks in known.items()),
        "  shapes      the word itself: drawn pictures, nothing to download",
    ]
)


def load_dataset(path: str | Path) -> Dataset:
    """The data set at a folder or caption file of any known form, or of shards at an address; "shapes" is drawn.

    Raises:
        DataError: nothing is there, no form fits, or a caption file cannot be read at all.

    """
    if str(path) == "shapes":
        from captioner.datasets.shapes import load_shapes

        return load_shapes()
    if is_address(path):
        return shards.read_address(str(path))
    path = Path(path).expanduser()
    if not os.path.exists(path):  # pathlib raises for names longer than a file's may be
        raise DataError(f"There is nothing at {path}. {_UNDERSTOOD}")
    try:
        for read, _ in LAYOUTS:
            dataset = read(path)
            if dataset is not None:
                return dataset
    except OSError as error:
        raise DataError(f"{error.filename or path} cannot be read: {error.strerror or error}.") from None
    raise DataError(f"No captions were recognised at {path}. {_UNDERSTOOD}")


def load_datasets(paths: Sequence[str | Path]) -> Dataset:
    """One data set, or several joined (`dataset.join`); raises DataError as `load_dataset` and `join` do."""
    return join([load_dataset(path) for path in paths])
