"""The index of a set of tar shards: a line of JSON for each, which says what is in it and where, captions included.

    {"shard": "train-00000.tar", "bytes": 99123200, "pictures": 610, "captions": 3050, "samples": [...]}

`shard` is the name of a file beside the index, or an address.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from captioner.errors import DataError

INDEX = "shards.jsonl"
"""The index's name beside its shards."""


@dataclass(frozen=True)
class Sample:
    """A picture in a shard (`size` bytes from `offset` on, with their SHA-1), and what a data set knows of it."""

    offset: int
    size: int
    digest: str
    name: str
    image_id: int | str
    split: str
    author: str
    captions: Sequence[str]


def index_line(shard: str, size: int, samples: Sequence[Sample]) -> str:
    """The line, with its end, of a shard of `size` bytes."""
    counts = {"pictures": len(samples), "captions": sum(len(sample.captions) for sample in samples)}
    fields = {"shard": shard, "bytes": size, **counts, "samples": list(map(astuple, samples))}
    return json.dumps(fields, separators=(",", ":")) + "\n"


def read_index(lines: Iterable[str], name: str) -> Iterator[tuple[str, int, list[Sample]]]:
    """Of each shard its name, its size and its samples; raises DataError for a line that is none of an index."""
    for number, line in enumerate(lines, 1):
        try:
            fields = json.loads(line)
            shard, size = fields["shard"], fields["bytes"]
            samples = [_sample(*one) for one in fields["samples"]]
            if not isinstance(shard, str) or type(size) is not int or len(samples) != fields["pictures"]:
                raise ValueError("its counts are wrong")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DataError(
                f"Line {number} of {name} is no index of a shard ({ascii(str(error))[:80]}): write or fetch it again."
            ) from None
        yield shard, size, samples


def is_index(line: str) -> bool:
    """Whether a file that begins with this is an index."""
    return line.startswith('{"shard":')


def _sample(*values: Any) -> Sample:
    sample = Sample(*values)
    numbers = (sample.offset, sample.size)
    texts = (sample.digest, sample.name, sample.split, sample.author, *sample.captions)
    if not all(type(number) is int and number >= 0 for number in numbers) or not sample.captions:
        raise ValueError("a picture lacks its place or its captions")
    if not all(isinstance(text, str) for text in texts) or type(sample.image_id) not in (int, str):
        raise ValueError("a name or a caption is no text")
    return sample
