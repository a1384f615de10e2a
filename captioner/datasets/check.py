"""Every problem of a data set, found before training: each picture file is read and decoded once, to its end."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from captioner.datasets.dataset import MISSING, SAME_BYTES, UNREADABLE, CaptionedImage, Dataset
from captioner.errors import DataError, ImageError
from captioner.formats.rows import SPLITS, Problem, split_name
from captioner.pictures import read_image
from captioner.telling import OUT, Telling

SHOWN = 10


def check_dataset(
    dataset: Dataset,
    *,
    splits: Iterable[str] | None = None,
    skip_bad: bool = False,
    pictures: bool = True,
    telling: Telling = OUT,
) -> Dataset:
    """The data set without what is missing, unreadable or in two splits; all of it is in `problems`.

    Only the pictures of `splits` (default: all) are opened; those of other splits stay as they are. Byte-identical
    pictures of two of these splits stay in the later one of train, val, test: what is scored must not be trained on.
    Without `pictures`, for captions that are there already, none is opened.

    Raises:
        DataError: there is any problem, unless `skip_bad`, which reports the problems and goes on.

    """
    wanted = SPLITS if splits is None else tuple(map(split_name, splits))
    images = [image for image in dataset.images if image.split in wanted]
    bad = _bad_pictures(images, telling) if pictures else {}
    problems = (*dataset.problems, *bad.values())
    if not problems:
        return dataset
    found = counted(problems)
    if not skip_bad:
        raise DataError(dataset.path, f"{found}\nCorrect them, or leave them out", field="skip_bad")
    kept = tuple(image for image in dataset.images if image.name not in bad)
    left = ", ".join(
        f"{sum(image.split == split for image in kept):,} of {count:,} {split}"
        for split in SPLITS
        if (count := sum(image.split == split for image in images))
    )
    telling.say(f"{dataset.path} {found}\nGoing on with {left} pictures.")
    return replace(dataset, images=kept, problems=problems)


def _bad_pictures(images: list[CaptionedImage], telling: Telling) -> dict[str, Problem]:
    """What is wrong with these pictures, by name; each file is read and decoded to its end."""
    threads = os.cpu_count() or 1  # Pillow decodes outside the interpreter's lock
    examined = []
    with ThreadPoolExecutor(threads) as pool, telling.bar(len(images), "picture", "checking") as bar:
        for image, found in zip(images, pool.map(_examine, images), strict=True):
            examined.append((image, found))
            bar.update(1)
    bad = {image.name: Problem(kind, image.name) for image, (kind, _) in examined if kind}
    bad |= _repeated([(image, digest) for image, (_, digest) in examined if digest])
    return bad


def counted(problems: Sequence[Problem]) -> str:
    """What somebody has who has these problems: how many, and which."""
    return f"has {len(problems):,} problem{'s' if len(problems) > 1 else ''}:\n{summarise(problems)}"


def summarise(problems: Iterable[Problem]) -> str:
    """A line for each kind of problem: how many there are, and the first ten names."""
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        # A name may hold anything, terminal commands included.
        name = problem.name if problem.name.isprintable() else ascii(problem.name)
        kinds.setdefault(problem.kind, []).append(name)
    return "\n".join(
        f"  {kind}: {len(names):,} ({', '.join(names[:SHOWN])}"
        + (f" and {len(names) - SHOWN:,} more)" if len(names) > SHOWN else ")")
        for kind, names in kinds.items()
    )


def _examine(image: CaptionedImage) -> tuple[str, bytes]:
    """What is wrong with a picture ("": nothing), and the digest of its file (empty for drawn pictures)."""
    if not isinstance(image.source, Path):
        return "", b""
    if not os.path.exists(image.source):
        return MISSING, b""
    try:
        # A JPEG's whole file is parsed all the same; only pixels nobody looks at are not computed (2.5 times faster).
        read_image(image.source, at_least=1)
        return "", hashlib.sha1(image.source.read_bytes(), usedforsecurity=False).digest()
    except (ImageError, OSError):
        return UNREADABLE, b""


def _repeated(digests: list[tuple[CaptionedImage, bytes]]) -> dict[str, Problem]:
    """The pictures whose very bytes are also in a later split, by name."""
    last: dict[bytes, CaptionedImage] = {}
    for image, digest in digests:
        other = last.setdefault(digest, image)
        if SPLITS.index(image.split) > SPLITS.index(other.split):
            last[digest] = image
    return {
        image.name: Problem(SAME_BYTES, f"{image.name} ({image.split}) = {kept.name} ({kept.split})")
        for image, digest in digests
        if (kept := last[digest]).split != image.split
    }
