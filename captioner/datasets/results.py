"""The captions of a results file (`formats.coco`) and the images of a data set, brought together to be scored.

The id is COCO's number or, where a data set has none, the file's name; a number may be written as text, and COCO's
pictures by their file's name.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from captioner.datasets.check import counted
from captioner.datasets.dataset import ALL, CaptionedImage, Dataset
from captioner.errors import DataError
from captioner.formats.rows import Problem, plain_text
from captioner.telling import OUT, Telling

MISSING = "image without a result"
REPEATED = "image with several results"
UNKNOWN = "result for an image that is not among those to score"
MALFORMED = "malformed result"


def split_of(entries: Sequence[Any], data: Dataset) -> str:
    """The split whose images are likest the entries' (overlap over union); ALL where they are of several."""
    names = _names(data.images)
    wanted = {names.get(key, key) for entry in entries if (key := _key(entry))}

    def likeness(split: str) -> float:
        there = {image.name for image in data.split(split)}
        return len(wanted & there) / len(wanted | there)

    return max((*data.splits, ALL), key=likeness)


def match_results(
    path: Path,
    entries: Sequence[Any],
    images: Sequence[CaptionedImage],
    *,
    skip_bad: bool = False,
    telling: Telling = OUT,
) -> dict[str, str]:
    """The caption of each of `images` by the image's name; with `skip_bad`, of those that have exactly one.

    `entries` are what `read_results` found at `path`. An empty caption is a caption, if a bad one.

    Raises:
        DataError: there is any problem, unless `skip_bad`, which reports the problems and goes on.

    """
    names = _names(images)
    captions: dict[str, str] = {}
    counts: Counter[str] = Counter()
    problems = []
    for index, entry in enumerate(entries):
        key = _key(entry)
        if not key:
            problems.append(Problem(MALFORMED, f"[{index}] has no usable image_id"))
        elif key not in names:
            problems.append(Problem(UNKNOWN, key))
        else:
            counts[names[key]] += 1
            caption = entry.get("caption")
            if isinstance(caption, str) and (plain_text(caption) or not caption.strip()):
                captions[names[key]] = caption
            else:
                problems.append(Problem(MALFORMED, f"the caption of {key} is no text"))
    if not counts:
        reason = f"{counted(problems)}\nNone of its images is among the {len(images):,} to score"
        raise DataError(str(path), reason, "choose another split or data set")
    problems += [Problem(REPEATED, str(one.image_id)) for one in images if counts[one.name] > 1]
    problems += [Problem(MISSING, str(one.image_id)) for one in images if one.name not in counts]
    kept = {name: caption for name, caption in captions.items() if counts[name] == 1}
    if problems:
        found = counted(problems)
        if not skip_bad:
            reason = f"{found}\nCorrect them, or score the rest, which no other figure compares with"
            raise DataError(str(path), reason, field="skip_bad")
        if not kept:
            raise DataError(str(path), f"{found}\nNothing is left to score", "correct the file")
        telling.say(f"{path} {found}\nGoing on with {len(kept):,} of {len(images):,} images.")
    return kept


def _key(entry: Any) -> str:
    """An entry's image_id as text, "" where it has none that could be one."""
    image_id = entry.get("image_id") if isinstance(entry, dict) else None
    if isinstance(image_id, float) and image_id.is_integer():  # as pandas writes a column of numbers with a gap
        image_id = int(image_id)
    return "" if isinstance(image_id, bool) or not isinstance(image_id, int | str) else str(image_id)


def _names(images: Sequence[CaptionedImage]) -> dict[str, str]:
    """The images' names by what a results file may call them: the id, or the file's name where one image has it."""
    files = [PurePosixPath(image.name).name for image in images]
    counts = Counter(files)
    names = {file: image.name for file, image in zip(files, images, strict=True) if counts[file] == 1}
    return names | {str(image.image_id): image.name for image in images}
