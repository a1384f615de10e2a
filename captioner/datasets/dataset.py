"""What every reader makes, and what readers share: a data set of captioned pictures in splits.

Readers open caption files, never pictures: a `Dataset` may name pictures that are missing or unreadable until
`check_dataset` has looked. Captions are kept as written; tokens are made elsewhere.
"""

import hashlib
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL.Image import Image

from captioner.errors import DataError
from captioner.files import printable
from captioner.formats.rows import SPLITS, Problem, Row, split_name
from captioner.pictures.shards import Packed

ALL = "all"
"""The pictures of every split."""

MISSING = "missing picture"
UNREADABLE = "unreadable picture"
UNCAPTIONED = "picture without captions"
UNPLACED = "picture without a split"
TWO_SPLITS = "picture in two splits"
SAME_BYTES = "same picture under two names in two splits"


@dataclass(frozen=True)
class CaptionedImage:
    """A picture, at least one caption as written, and the split it belongs to.

    `name` is unique within the data set and what messages call the picture; `image_id` is what results files carry
    (COCO's number, elsewhere the name); `source` is a file, a part of a shard, or the picture itself where it was
    drawn; `author` is who wrote the captions ("people", "model"), as far as the data set says; `origin` names the data
    set it came from where several were joined.
    """

    name: str
    image_id: int | str
    source: Path | Image | Packed
    captions: tuple[str, ...]
    split: str
    author: str = ""
    origin: str = ""


@dataclass(frozen=True)
class Dataset:
    """Captioned pictures, the problems found so far, and the decisions worth telling (`notes`).

    A joined data set names its `parts` (`join`), and each of its pictures the one it came from. `held_out`: all
    its splits are ours, and not by whoever made the data set.
    """

    kind: str
    path: str
    images: tuple[CaptionedImage, ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    parts: tuple["Dataset", ...] = ()
    held_out: bool = False

    def split(self, name: str) -> tuple[CaptionedImage, ...]:
        """The pictures of one split ("dev" means "val"), or "all" pictures.

        Raises:
            DataError: there is no split of that name, or it holds no picture.

        """
        if name == ALL and self.images:
            return self.images
        counts = self._counts()
        there = ", ".join(f"{split} ({count:,} images)" for split, count in counts.items()) or "no images at all"
        try:
            wanted = split_name(name)
        except DataError as error:
            raise DataError(f"{error} {self.path} has {there}.") from None
        if wanted not in counts:
            raise DataError(f"{self.path} has no images in its {wanted} split; it has {there}.")
        return tuple(image for image in self.images if image.split == wanted)

    def describe(self) -> str:
        """What was found, in a line for the counts and a line for each note."""
        captions = sum(len(image.captions) for image in self.images)
        splits = ", ".join(f"{split} {count:,}" for split, count in self._counts().items())
        first = f"{self.kind} at {self.path}: {len(self.images):,} images, {captions:,} captions ({splits or 'empty'})"
        if self.parts:
            first = f"together: {len(self.images):,} images, {captions:,} captions ({splits or 'empty'})"
        authors = Counter(image.author for image in self.images)
        theirs = (f"{printable(who)} ({count:,} images)" for who, count in authors.most_common() if who)
        by = [f"captions by {' and '.join(theirs)}"]
        lines = [] if self.parts else [*self.notes, *(by if set(authors) - {"", "people"} else [])]
        return "\n".join([*(part.describe() for part in self.parts), first, *(f"  {line}" for line in lines)])

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that hold a picture."""
        return tuple(self._counts())

    def _counts(self) -> dict[str, int]:
        counts = Counter(image.split for image in self.images)
        return {split: counts[split] for split in SPLITS if counts[split]}


def join(datasets: Sequence[Dataset]) -> Dataset:
    """Several data sets as one: every picture is called by its data set's name and its own; one alone stays as it is.

    A data set's name is its folder's; where two have the same one, the later ones are numbered. Raises DataError for
    one that is named twice.
    """
    if len(datasets) == 1:
        return datasets[0]
    paths = [os.path.realpath(dataset.path) for dataset in datasets]
    if twice := [path for path, count in Counter(paths).items() if count > 1]:
        raise DataError(f"{twice[0]} is given twice: name each data set once.")
    names: list[str] = []
    for dataset in datasets:
        name = Path(dataset.path).stem or dataset.kind
        names.append(f"{name}-{len(names) + 1}" if name in names else name)
    images = tuple(
        replace(image, name=f"{name}/{image.name}", origin=name)
        for name, dataset in zip(names, datasets, strict=True)
        for image in dataset.images
    )
    problems = tuple(
        replace(problem, name=f"{name}/{problem.name}")
        for name, dataset in zip(names, datasets, strict=True)
        for problem in dataset.problems
    )
    path = " ".join(dataset.path for dataset in datasets)
    return Dataset("joined", path, images, problems, (), tuple(datasets))


def hold_out(names: Iterable[str], share: float) -> set[str]:
    """About `share` (0..1) of the names, chosen by hash: the same ones in any order and on any machine.

    A name is held out when its hash lies in the lowest `share` of all hashes, so adding pictures never moves others
    between splits. Only in a small set, where that gives fewer than `share` and fewer than four names, are the next
    lowest taken too; and at least one name always stays.
    """

    def place(name: str) -> float:
        return int.from_bytes(hashlib.sha1(name.encode(), usedforsecurity=False).digest()[:8], "big") / 2**64

    ordered = sorted(set(names), key=lambda name: (place(name), name))
    count = sum(place(name) < share for name in ordered)
    fewest = min(4, math.ceil(len(ordered) * share))
    return set(ordered[: min(max(count, fewest), len(ordered) - 1)]) if ordered else set()


@dataclass
class Draft:
    """One picture while its files are being read; `finish` makes a `CaptionedImage` of it."""

    image_id: int | str
    source: Path
    captions: list[str] = field(default_factory=list)
    splits: set[str] = field(default_factory=set)
    author: str = ""


def gather(rows: Iterable[Row | Problem], find: Callable[[Row], Path]) -> tuple[dict[str, Draft], list[Problem]]:
    """Brings the rows of each picture together, also where they call it by several names; `find` finds its file."""
    drafts: dict[str, Draft] = {}
    names: dict[Path, str] = {}
    problems = []
    for row in rows:
        if isinstance(row, Problem):
            problems.append(row)
            continue
        draft = drafts.get(row.name)
        if draft is None:
            source = find(row)
            name = names.setdefault(source, row.name)
            draft = drafts[row.name] = drafts.get(name) or Draft(name, source)
        draft.captions.append(row.caption)
        draft.splits |= {row.split} - {""}
        draft.author = row.author or draft.author
    return {name: draft for name, draft in drafts.items() if name == draft.image_id}, problems


def finish(
    kind: str,
    path: Path,
    drafts: dict[str, Draft],
    problems: Sequence[Problem],
    notes: Sequence[str] = (),
    *,
    held_out: float = 0.0,
    author: str = "",
) -> Dataset:
    """The data set of `drafts`, each of which names its split; `held_out` is the share of train that validates.

    `author` wrote the captions of the pictures whose draft names nobody.
    """
    captions = {name: tuple(filter(None, map(str.strip, draft.captions))) for name, draft in drafts.items()}
    # A picture in two splits stays where it is scored: what is trained on must not be what is scored.
    splits = {name: max(draft.splits, key=SPLITS.index) for name, draft in drafts.items() if captions[name]}
    found = [Problem(UNCAPTIONED, name) for name in drafts if not captions[name]]
    found += [Problem(TWO_SPLITS, name) for name in splits if len(drafts[name].splits) > 1]
    train = [name for name, split in splits.items() if split == "train"]
    if held_out and train:
        chosen = hold_out(train, held_out)
        splits |= dict.fromkeys(chosen, "val")
        share = f"1 in {round(1 / held_out)}, chosen by hash of the name"
        notes = [*notes, f"validation is held out of train: {len(chosen):,} of {len(train):,} images ({share})"]
    images = (
        CaptionedImage(name, draft.image_id, draft.source, captions[name], split, draft.author or author)
        for name, split in splits.items()
        for draft in (drafts[name],)
    )
    ours = bool(held_out) and "test" not in splits.values()
    return Dataset(kind, str(path), tuple(images), (*problems, *found), tuple(notes), held_out=ours)
