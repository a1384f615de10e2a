"""COCO's results format: what a system says of each image, a JSON list of {"image_id": ..., "caption": ...}
(https://cocodataset.org/#format-results).
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from captioner.errors import DataError
from captioner.formats.rows import read_json, writable

_COCO_NAME = re.compile(r"(?:COCO_[a-z]+\d{4}_)?(\d{12})\.\w+")


def coco_results(captions: Iterable[tuple[str, str]]) -> str:
    """Names and captions of pictures -> a results file's content.

    The id is COCO's number where the file's name holds one (`000000391895.jpg`, `COCO_val2014_000000391895.jpg`),
    elsewhere the file's name, and the whole path where several pictures have that number or name.
    """
    captions = list(captions)
    paths = [PurePosixPath(writable(name).replace("\\", "/")) for name, _ in captions]
    numbers = [int(match[1]) if (match := _COCO_NAME.fullmatch(path.name)) else None for path in paths]
    counts = Counter([*numbers, *(path.name for path in paths)])
    ids = []
    for number, path in zip(numbers, paths, strict=True):
        short = [name for name in (number, path.name) if name is not None and counts[name] == 1]
        ids.append([*short, path.as_posix()][0])
    return results_of_ids(zip(ids, (caption for _, caption in captions), strict=True))


def results_of_ids(captions: Iterable[tuple[int | str, str]]) -> str:
    """The same where the ids are known: ids and captions -> a results file's content."""
    return json.dumps([{"image_id": one, "caption": writable(caption)} for one, caption in captions])


def read_results(path: Path) -> list[Any]:
    """The entries of a results file, as they are; raises DataError where it holds none."""
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise DataError(f'{path} holds no results: they are a JSON list of {{"image_id": ..., "caption": ...}}.')
    return entries
