"""Captions in COCO's results format: what a system says of each image, to be scored.

A JSON list of {"image_id": ..., "caption": ...} (https://cocodataset.org/#format-results); the id is COCO's number or,
where a data set has none, the file's name. A number written as text is the same id.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from captioner.datasets.check import summarise
from captioner.datasets.dataset import CaptionedImage, Problem, plain_text, read_json
from captioner.errors import DataError

MISSING = "image without a result"
REPEATED = "image with several results"
UNKNOWN = "result for an image that is not there"
MALFORMED = "malformed result"


def read_results(
    path: Path, images: Sequence[CaptionedImage], *, skip_bad: bool = False, report: Callable[[str], object] = print
) -> dict[str, str]:
    """The caption of each of `images` by the image's name; with `skip_bad`, of those that have exactly one.

    An empty caption is a caption, if a bad one.

    Raises:
        DataError: the file cannot be read or holds no results, or there is any problem and `skip_bad` is not given,
            which reports the problems and goes on.

    """
    entries = read_json(path)
    if not isinstance(entries, list):
        raise DataError(f'{path} holds no results: they are a JSON list of {{"image_id": ..., "caption": ...}}.')
    names = {str(image.image_id): image.name for image in images}
    captions: dict[str, str] = {}
    problems = []
    counts: Counter[str] = Counter()
    for index, entry in enumerate(entries):
        image_id, caption = (entry.get("image_id"), entry.get("caption")) if isinstance(entry, dict) else (None, None)
        if isinstance(image_id, bool) or not isinstance(image_id, int | str):
            problems.append(Problem(MALFORMED, f"[{index}] has no usable image_id"))
        elif str(image_id) not in names:
            problems.append(Problem(UNKNOWN, str(image_id)))
        elif not isinstance(caption, str) or (caption.strip() and not plain_text(caption)):
            problems.append(Problem(MALFORMED, f"the caption of {image_id} is no text"))
            counts[str(image_id)] += 1
        else:
            captions[str(image_id)] = caption
            counts[str(image_id)] += 1
    problems += [Problem(REPEATED, image_id) for image_id, count in counts.items() if count > 1]
    problems += [Problem(MISSING, image_id) for image_id in names if image_id not in counts]
    kept = {names[image_id]: text for image_id, text in captions.items() if counts[image_id] == 1}
    if problems:
        found = f"{path} has {len(problems):,} problem{'s' if len(problems) > 1 else ''}:\n{summarise(problems)}"
        if not counts:
            raise DataError(f"{found}\nNone of its images is among those to score: choose another --split or data set.")
        if not skip_bad:
            raise DataError(
                f"{found}\nMend them, or score the rest, which no other figure compares with: `--skip-bad`."
            )
        if not kept:
            raise DataError(f"{found}\nNothing is left to score: mend the file.")
        report(f"{found}\nGoing on with {len(kept):,} of {len(images):,} images.")
    return kept


def results_text(images: Sequence[CaptionedImage], captions: Mapping[str, str]) -> str:
    """A results file's content: the caption of each image, by the image's name, in the order of `images`."""
    entries = [{"image_id": image.image_id, "caption": captions[image.name]} for image in images]
    return json.dumps(entries, ensure_ascii=False)
