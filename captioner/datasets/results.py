"""The captions of a results file (`formats.coco`) and the images of a data set, brought together to be scored.

The id is COCO's number or, where a data set has none, the file's name; what else may stand for it, `ids` says.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from captioner.datasets.check import counted
from captioner.datasets.dataset import ALL, CaptionedImage, Dataset
from captioner.datasets.ids import image_finder
from captioner.errors import DataError
from captioner.formats.coco import IDS, MALFORMED_RESULT, keys_of
from captioner.formats.rows import Problem, plain_text
from captioner.telling import OUT, Telling

MISSING = "image without a result"
REPEATED = "image with several results"
UNKNOWN = "result for an image that is not among those to score"
AMBIGUOUS = "result that fits several images, so that it is not among those to score"


def split_of(entries: Sequence[Any], data: Dataset) -> str:
    """The split whose images are likest the entries' (overlap over union); ALL where they are of several."""
    find = image_finder(data.images)
    keys = {key for entry in entries if (key := _key(entry))}
    wanted = {data.images[place].name for key in keys for place in find(key)}
    unknown = sum(not find(key) for key in keys)

    def likeness(split: str) -> float:
        there = {image.name for image in data.split(split)}
        return len(wanted & there) / (len(wanted | there) + unknown)

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
    find = image_finder(images)
    captions: dict[str, str] = {}
    counts: Counter[str] = Counter()
    problems = []
    for index, entry in enumerate(entries):
        key = _key(entry)
        places = find(key) if key else []
        if isinstance(entry, Problem):
            problems.append(entry)
        elif not key:
            problems.append(Problem(MALFORMED_RESULT, f"[{index}] has no usable image_id"))
        elif len(places) != 1:
            problems.append(Problem(AMBIGUOUS if places else UNKNOWN, key))
        else:
            name, caption = images[places[0]].name, entry.get("caption")
            counts[name] += 1
            if isinstance(caption, str) and (plain_text(caption) or not caption.strip()):
                captions[name] = caption
            else:
                problems.append(Problem(MALFORMED_RESULT, f"the caption of {key} is no text"))
    if not counts:
        reason = f"{counted(problems)}{_keys(entries)}\nNone of its images is among the {len(images):,} to score"
        raise DataError(str(path), reason, "choose another split or data set")
    problems += [Problem(REPEATED, str(one.image_id)) for one in images if counts[one.name] > 1]
    problems += [Problem(MISSING, str(one.image_id)) for one in images if one.name not in counts]
    kept = {name: caption for name, caption in captions.items() if counts[name] == 1}
    if problems:
        found = counted(problems)
        if not skip_bad:
            reason = f"{found}{_keys(entries)}\nCorrect them, or score the rest, which no other figure compares with"
            raise DataError(str(path), reason, field="skip_bad")
        if not kept:
            raise DataError(str(path), f"{found}\nNothing is left to score", "correct the file")
        telling.say(f"{path} {found}\nGoing on with {len(kept):,} of {len(images):,} images.")
    return kept


def ids_of(images: Sequence[CaptionedImage]) -> list[int | str]:
    """What a results file calls images so that `match_results` finds them: the id, or the name where ids are shared."""
    counts = Counter(str(image.image_id) for image in images)
    return [image.image_id if counts[str(image.image_id)] == 1 else image.name for image in images]


def _key(entry: Any) -> str:
    """An entry's id as text, "" where it has none that could be one."""
    fields = entry if isinstance(entry, dict) else {}
    image_id = next((fields[key] for key in IDS if key in fields), None)
    if isinstance(image_id, float) and image_id.is_integer():  # as pandas writes a column of numbers with a gap
        image_id = int(image_id)
    return "" if isinstance(image_id, bool) or not isinstance(image_id, int | str) else str(image_id)


def _keys(entries: Sequence[Any]) -> str:
    """A line on the first object whose keys are not those of results, "" where there is none."""
    wrong = ((index, keys_of(entry)) for index, entry in enumerate(entries) if isinstance(entry, dict))
    return next((f"\n[{index}] {said}" for index, said in wrong if said), "")
