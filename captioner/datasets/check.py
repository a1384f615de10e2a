"""Every problem of a data set, found before training: each picture file is read and decoded once, to its end.

Where a folder is given to keep that in, what was whole is not read again until the file changes.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import captioner
from captioner.datasets.dataset import MISSING, SAME_BYTES, UNREADABLE, CaptionedImage, Dataset
from captioner.errors import DataError, ImageError
from captioner.files import write_atomically
from captioner.formats.rows import SPLITS, Problem, split_name
from captioner.pictures import read_image
from captioner.pictures.shards import Packed
from captioner.telling import OUT, Telling

SHOWN = 10

_Whole: TypeAlias = dict[str, tuple[int, int, int, str]]
"""Of each picture that was whole, by its name: its file's size, mtime and ctime in nanoseconds, and SHA-1."""


def check_dataset(
    dataset: Dataset,
    *,
    splits: Iterable[str] | None = None,
    skip_bad: bool = False,
    pictures: bool = True,
    verdicts: Path | None = None,
    telling: Telling = OUT,
) -> Dataset:
    """The data set without what is missing, unreadable or in two splits; all of it is in `problems`.

    Only the pictures of `splits` (default: all) are opened; those of other splits stay as they are. Byte-identical
    pictures of two of these splits stay in the later one of train, val, test: what is scored must not be trained on.
    Where we held validation out ourselves, such copies are no fault of the data set: they are told and left out.
    Without `pictures`, for captions that are there already, none is opened.

    `verdicts` is a folder that keeps, from run to run, which pictures were whole: one is opened again only when its
    size or times changed. What was bad is always looked at anew.

    Raises:
        DataError: there is any problem, unless `skip_bad`, which reports the problems and goes on.

    """
    wanted = SPLITS if splits is None else tuple(map(split_name, splits))
    images = [image for image in dataset.images if image.split in wanted]
    bad = _bad_pictures(dataset, images, verdicts, telling) if pictures else {}
    problems = (*dataset.problems, *bad.values())
    if not problems:
        return dataset
    found = counted(problems)
    if not skip_bad and not (dataset.held_out and {problem.kind for problem in problems} == {SAME_BYTES}):
        raise DataError(dataset.path, f"{found}\nCorrect them, or leave them out", field="skip_bad")
    kept = tuple(image for image in dataset.images if image.name not in bad)
    left = ", ".join(
        f"{sum(image.split == split for image in kept):,} of {count:,} {split}"
        for split in SPLITS
        if (count := sum(image.split == split for image in images))
    )
    telling.say(f"{dataset.path} {found}\nGoing on with {left} pictures.")
    return replace(dataset, images=kept, problems=problems)


def _bad_pictures(
    dataset: Dataset, images: list[CaptionedImage], verdicts: Path | None, telling: Telling
) -> dict[str, Problem]:
    """What is wrong with these pictures, by name; each file that is not known as whole is decoded to its end."""
    # The same data set at another place, or read by other versions of what reads pictures, is a new one.
    where = json.dumps(
        [os.path.realpath(dataset.path), captioner.__version__, version("pillow"), version("pillow-heif")]
    )
    key = hashlib.sha256(where.encode()).hexdigest()[:16]
    file = verdicts / f"checked-{key}.json" if verdicts else None
    before = _read_verdicts(file)
    whole: _Whole = {}
    bad: dict[str, Problem] = {}
    digests: list[tuple[CaptionedImage, str]] = []
    pool = ThreadPoolExecutor(os.cpu_count() or 1)  # Pillow decodes outside the interpreter's lock
    try:
        results = chain.from_iterable(
            pool.map(lambda some: [_examine(image, before) for image in some], _pieces(images))
        )
        with telling.bar(len(images), "picture", "checking") as bar:
            for image, (kind, verdict) in zip(images, results, strict=True):
                bar.update(1)
                if kind:
                    bad[image.name] = Problem(kind, image.name)
                elif verdict:
                    digests.append((image, verdict[-1]))
                    if verdict[0]:  # read, here or by an earlier check
                        whole[image.name] = verdict
    finally:  # Ctrl-C: what is done is kept, and nothing is waited for
        pool.shutdown(wait=False, cancel_futures=True)
        if file and whole.items() - before.items():
            still = {image.name for image in dataset.images}
            _keep_verdicts(file, {name: verdict for name, verdict in (before | whole).items() if name in still})
    if same := sum(before.get(name) == verdict for name, verdict in whole.items()):
        telling.say(f"{same:,} pictures are as they were when they were last checked, and were not read again.")
    return bad | _repeated(digests)


def _pieces(images: list[CaptionedImage]) -> list[list[CaptionedImage]]:
    """A few pictures each: handing them to a thread one by one takes longer than to see that they did not change."""
    return [images[first : first + 16] for first in range(0, len(images), 16)]


def _read_verdicts(file: Path | None) -> _Whole:
    """What an earlier run kept; nothing where there is none, or it is damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file else {}
        return {name: (size, changed, touched, digest) for name, (size, changed, touched, digest) in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _keep_verdicts(file: Path, whole: _Whole) -> None:
    content = json.dumps(whole, separators=(",", ":"))
    with suppress(OSError):  # a full disk costs the next run some time, and this one nothing
        write_atomically(file, lambda part: part.write_text(content, encoding="utf-8"))


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


def _examine(image: CaptionedImage, before: _Whole) -> tuple[str, tuple[int, int, int, str] | None]:
    """What is wrong with a picture ("": nothing), and what to keep of a whole one (None for drawn pictures)."""
    source = image.source
    if isinstance(source, Packed) and source.digest:  # whoever wrote the index has read it
        return "", (0, 0, 0, source.digest)
    if not isinstance(source, Path | Packed):
        return "", None
    try:
        status = os.stat(source if isinstance(source, Path) else source.shard.address)
    except (OSError, ValueError):
        return MISSING, None
    # Who copies a file over another may keep the size and the time of its content, but not the other time.
    stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    known = before.get(image.name)
    if known and known[:3] == stamp:
        return "", known
    try:
        # A JPEG's whole file is parsed all the same; only pixels nobody looks at are not computed (2.5 times faster).
        read_image(source, at_least=1)
        content = source.read_bytes() if isinstance(source, Path) else source.read()
        return "", (*stamp, hashlib.sha1(content, usedforsecurity=False).hexdigest())
    except (ImageError, OSError):
        return UNREADABLE, None


def _repeated(digests: list[tuple[CaptionedImage, str]]) -> dict[str, Problem]:
    """The pictures whose very bytes are also in a later split, by name."""
    last: dict[str, CaptionedImage] = {}
    for image, digest in digests:
        other = last.setdefault(digest, image)
        if SPLITS.index(image.split) > SPLITS.index(other.split):
            last[digest] = image
    return {
        image.name: Problem(SAME_BYTES, f"{image.name} ({image.split}) = {kept.name} ({kept.split})")
        for image, digest in digests
        if (kept := last[digest]).split != image.split
    }
