"""`evaluate`: the scores of a model's captions, or of any system's, against the references of a data set."""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.cli.parser import Commands, add_model
from captioner.errors import DataError, OptionError
from captioner.options import ImageOptions, SearchOptions, add_arguments, flag, given
from captioner.text import SPECIAL_WORDS

if TYPE_CHECKING:
    from captioner.datasets import CaptionedImage
    from captioner.evaluation import Measure
    from captioner.predictor import Captioner
    from captioner.report.scores import Report


def add(commands: Commands) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "evaluate", help="score a model's captions, or any system's, with BLEU, CIDEr-D, ROUGE-L"
    )
    parser.add_argument(
        "data", metavar="DATA", help="'shapes', or the folder or file of a data set (see data/README.md)"
    )
    parser.add_argument("--split", help="train, val (or dev) or test (default: val, or the only one there is)")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FILE",
        help="score this file's captions, in COCO's results format, not a model's",
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out what the checks find, and score the rest")
    against = parser.add_argument_group("What the scores are held against")
    against.add_argument(
        "--compare", type=Path, metavar="FILE", help="another results file: the differences, with a paired bootstrap"
    )
    against.add_argument(
        "--human", action="store_true", help="score one person and the captions against the same other references"
    )
    against.add_argument("--meteor", action="store_true", help="METEOR too, through pycocoevalcap and Java")
    against.add_argument("--spice", action="store_true", help="SPICE too, through pycocoevalcap and Java")
    against.add_argument(
        "--resamples", type=int, default=1000, metavar="N", help="draws of the bootstrap (default: %(default)s)"
    )
    output = parser.add_argument_group("Output")
    output.add_argument("--json", action="store_true", help="print one JSON object in place of the table")
    output.add_argument("--predictions", type=Path, metavar="FILE", help="write the captions, in COCO's results format")
    output.add_argument("--per-image", type=Path, metavar="FILE", help="write a JSON line an image, the worst first")
    output.add_argument("--html", type=Path, metavar="FILE", help="write a page with pictures, captions and scores")
    add_model(parser)
    add_arguments(parser, SearchOptions, defaults=False)
    add_arguments(parser, ImageOptions, defaults=False)
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Scores the captions; 2 where a file could not be written, after everything else is done."""
    _check(chosen)
    from captioner.datasets.results import results_text
    from captioner.evaluation import compare, compare_with_people, evaluate
    from captioner.report.scores import Report, record, table

    also = _also(chosen)
    captioner = None if chosen.results else _load(chosen)
    data, images, ours, theirs = _read(chosen, check_pictures=captioner is not None)
    if captioner:
        ours = _caption(captioner, chosen, images)
    # Before anything else can go wrong: captioning may have taken an hour.
    written = _write(chosen.predictions, lambda: results_text(images, ours))

    evaluation = evaluate(images, [ours[image.name] for image in images], also=also)
    report = Report({**_facts(chosen, captioner), "data": data}, evaluation, chosen.resamples)
    if captioner:
        used = {word for tokens in evaluation.hypotheses for word in tokens}
        words = set(captioner.file.vocabulary.words) - set(SPECIAL_WORDS)
        report = replace(report, vocabulary=(len(used & words), len(words)))
    if chosen.compare:
        others = evaluate(images, [theirs[image.name] for image in images], also=also)
        differences = compare(evaluation, others, resamples=chosen.resamples)
        report = replace(report, compared=(str(chosen.compare), differences))
    if chosen.human:
        report = replace(report, people=compare_with_people(evaluation, resamples=chosen.resamples, also=also))

    written = _write_report(chosen, report) and written
    print(json.dumps(record(report), ensure_ascii=False) if chosen.json else table(report))
    return 0 if written else 2


def _check(chosen: argparse.Namespace) -> None:
    """Refuses what does not go together, before anything is read."""
    if chosen.resamples < 10:
        raise OptionError(f"--resamples is {chosen.resamples}: it must be at least 10.")
    if chosen.results:
        wrong = ["--model"] * bool(chosen.model)
        wrong += [flag(options, name) for options in (SearchOptions, ImageOptions) for name in given(options, chosen)]
        if wrong:
            raise OptionError(f"--results scores captions that are there already: leave {', '.join(wrong)} out.")
    for option in ("predictions", "per_image", "html"):
        path = getattr(chosen, option)
        if path and path.is_dir():
            raise OptionError(f"--{option.replace('_', '-')} is {path}, a folder: name a file.")


def _also(chosen: argparse.Namespace) -> "list[Measure]":
    """The metrics that need Java, where they are asked for."""
    from captioner.metrics.java import meteor, spice

    choices: list[tuple[Measure, bool]] = [(meteor, chosen.meteor), (spice, chosen.spice)]
    also = [measure for measure, wanted in choices if wanted]
    for measure in also:
        measure([["a"]], [[["a"]]])  # what is missing is said now, not after an hour of captioning
    return also


def _load(chosen: argparse.Namespace) -> "Captioner":
    from captioner.predictor import Captioner

    captioner = Captioner.load(chosen.model, chosen.device)
    captioner.image = replace(captioner.image, **given(ImageOptions, chosen))
    return captioner


def _read(
    chosen: argparse.Namespace, *, check_pictures: bool
) -> "tuple[str, Sequence[CaptionedImage], dict[str, str], dict[str, str]]":
    """The data set in a line, its images to score, and the captions by image of --results and of --compare."""
    from captioner.datasets import check_dataset, load_dataset
    from captioner.datasets.results import read_results

    with contextlib.redirect_stdout(sys.stderr):  # what the checks report is not data
        data = load_dataset(chosen.data)
        split = chosen.split or (data.splits[0] if len(data.splits) == 1 else "val")
        data.split(split)
        data = check_dataset(data, splits=[split], skip_bad=chosen.skip_bad, pictures=check_pictures)
        images = data.split(split)
        files = [path for path in (chosen.results, chosen.compare) if path]
        results = {path: read_results(path, images, skip_bad=chosen.skip_bad) for path in files}
    images = tuple(image for image in images if all(image.name in captions for captions in results.values()))
    if not images:
        raise DataError(f"{chosen.results or chosen.data} and {chosen.compare} have no image in common.")
    few = sum(len(image.captions) < 2 for image in images)
    if chosen.human and few:
        raise DataError(f"{few:,} of {len(images):,} images have fewer than two references: leave --human out.")
    references = sum(len(image.captions) for image in images)
    line = f"{data.path} ({data.kind}), {split}: {len(images):,} images, {references:,} references"
    line += f" ({references / len(images):.2f} each)"
    return line, images, results.get(chosen.results, {}), results.get(chosen.compare, {})


def _caption(captioner: "Captioner", chosen: argparse.Namespace, images: "Sequence[CaptionedImage]") -> dict[str, str]:
    """The model's caption of each image, by the image's name."""
    from tqdm import tqdm

    from captioner.datasets.batches import load_pixels
    from captioner.predictor import BATCH

    search = replace(captioner.file.search, **given(SearchOptions, chosen))
    captions: list[str] = []
    batches = [list(range(first, min(first + BATCH, len(images)))) for first in range(0, len(images), BATCH)]
    with tqdm(total=len(images), unit="picture", disable=None) as bar:
        for pixels in load_pixels(images, captioner.image, batches):
            captions += [caption.text for caption in captioner.caption_pixels(list(pixels), search=search)]
            bar.update(len(pixels))
    return dict(zip((image.name for image in images), captions, strict=True))


def _facts(chosen: argparse.Namespace, captioner: "Captioner | None") -> dict[str, str]:
    """What made the captions, in a line or two."""
    if captioner is None:
        return {"captions": str(chosen.results)}
    search = replace(captioner.file.search, **given(SearchOptions, chosen))
    penalty, words = search.length_penalty, search.max_length
    return {
        "model": f"{captioner.name}, fit {captioner.image.fit} to {captioner.image.size}",
        "search": f"beam {search.beam_size}, length penalty {penalty}, at most {words} words",
    }


def _write_report(chosen: argparse.Namespace, report: "Report") -> bool:
    """Writes the files that were asked for; False where one could not be, which stops no other."""
    from captioner.report.page import page
    from captioner.report.scores import image_records

    def lines() -> str:
        return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in image_records(report))

    done = [_write(chosen.per_image, lines), _write(chosen.html, lambda: page(report))]
    return all(done)


def _write(path: Path | None, make: Callable[[], str]) -> bool:
    """Writes a file if one is asked for; False where it could not be, which standard error says."""
    from captioner.files import write_atomically

    if path is None:
        return True
    text = make()
    try:
        write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))
    except OSError as error:
        print(f"{path} could not be written: {error.strerror or error}.", file=sys.stderr)
        return False
    print(f"Written: {path}.", file=sys.stderr)
    return True
