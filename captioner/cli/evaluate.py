"""`evaluate`: the scores of a model's captions, or of any system's, against the references of a data set."""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.cli.parser import Commands, add_model
from captioner.errors import DataError, OptionError
from captioner.files import check_output
from captioner.options import MODELS, ImageOptions, SearchOptions, add_arguments, flag, given, merged
from captioner.telling import ERR
from captioner.text import SPECIAL_WORDS

if TYPE_CHECKING:
    from captioner.captioner import Captioner
    from captioner.datasets import CaptionedImage, Dataset
    from captioner.evaluation import Measure
    from captioner.report.scores import Report


_EXAMPLES = """examples:
  %(prog)s data/flickr8k --html report.html
  %(prog)s captions_val2017.json --results ours.json --compare theirs.json

A results file is a JSON list of {"image_id": 391895, "caption": "a man on a bicycle"}, or the same as JSON lines
or csv; the id is COCO's number or, elsewhere, the file's name. Scoring it needs no pictures: DATA may be a caption
file alone."""
_MOST_RESAMPLES = 100_000


def add(commands: Commands) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser(
        "evaluate",
        help="score a model's captions, or any system's, with BLEU, CIDEr-D, ROUGE-L",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "data",
        nargs="+",
        metavar="DATA",
        help="'shapes', or the folder or file of a data set; several are scored each and together (see data/README.md)",
    )
    parser.add_argument(
        "--split",
        help="train, val (or dev), test or all (default: the one --results are of, else val or the only one)",
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FILE",
        help="score this file's captions, in COCO's results format, not a model's",
    )
    parser.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out what the checks find, images with no or several results too, and score the rest",
    )
    against = parser.add_argument_group("What the scores are held against")
    against.add_argument(
        "--compare", type=Path, metavar="FILE", help="another results file: the differences, with a paired bootstrap"
    )
    against.add_argument(
        "--human",
        action="store_true",
        help="leave out one reference of each image, and score it and the captions against the others",
    )
    against.add_argument("--meteor", action="store_true", help="METEOR too: needs `pip install pycocoevalcap` and Java")
    against.add_argument("--spice", action="store_true", help="SPICE too, by the same path; not tested")
    against.add_argument(
        "--resamples", type=int, default=1000, metavar="N", help="draws of the bootstrap (default: %(default)s)"
    )
    output = parser.add_argument_group("Output")
    output.add_argument("--json", action="store_true", help="print one JSON object in place of the table")
    output.add_argument("--predictions", type=Path, metavar="FILE", help="write the captions, in COCO's results format")
    output.add_argument("--per-image", type=Path, metavar="FILE", help="write a JSON line an image, the worst first")
    output.add_argument("--html", type=Path, metavar="FILE", help="write a page with pictures, captions and scores")
    add_model(parser, precision="float32")  # so that the scores are those of any other machine
    add_arguments(parser, SearchOptions, defaults=False)
    add_arguments(parser, ImageOptions, defaults=False)
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Scores the captions; 2 where a file could not be written, after everything else is done."""
    _check(chosen)
    from captioner.datasets.results import ids_of
    from captioner.evaluation import compare, compare_with_people, evaluate
    from captioner.formats import results_of_ids
    from captioner.report.scores import Comparison, Report, table, to_dict, warnings

    also = _also(chosen)
    data, split, entries = _read(chosen)
    captioner = None if chosen.results else _load(chosen)
    images, results = _match(chosen, data, split, entries, check_pictures=captioner is not None)
    ours = _caption(captioner, images) if captioner else results[chosen.results]
    # Before anything else can go wrong: captioning may have taken an hour.
    written = _write(
        chosen.predictions,
        lambda: results_of_ids(zip(ids_of(images), (ours[image.name] for image in images), strict=True)),
    )

    evaluation = evaluate(images, [ours[image.name] for image in images], also=also)
    report = Report(_facts(chosen, captioner, data, split, images), evaluation, chosen.resamples)
    if captioner:
        used = {word for tokens in evaluation.hypotheses for word in tokens}
        words = set(captioner.card.vocabulary) - set(SPECIAL_WORDS)
        report = replace(report, vocabulary=(len(used & words), len(words)))
    if chosen.compare:
        theirs = results[chosen.compare]
        others = evaluate(images, [theirs[image.name] for image in images], also=also)
        differences = compare(evaluation, others, resamples=chosen.resamples)
        report = replace(report, compared=Comparison(str(chosen.compare), others, differences))
    if chosen.human:
        report = replace(report, people=compare_with_people(evaluation, resamples=chosen.resamples, also=also))

    written = _write_report(chosen, report) and written
    if chosen.json:
        for line in warnings(report):
            ERR.say(line)
    print(json.dumps(to_dict(report), allow_nan=False) if chosen.json else table(report))
    return 0 if written else 2


def _check(chosen: argparse.Namespace) -> None:
    """Refuses what does not go together, before anything is read."""
    if not 10 <= chosen.resamples <= _MOST_RESAMPLES:
        raise OptionError(f"--resamples is {chosen.resamples}: it must be from 10 to {_MOST_RESAMPLES:,}.")
    if chosen.results:
        wrong = ["--model"] * bool(chosen.model)
        wrong += [flag(options, name) for options in (SearchOptions, ImageOptions) for name in given(options, chosen)]
        if wrong:
            raise OptionError(f"--results scores captions that are there already: leave {', '.join(wrong)} out.")
    taken = {f"DATA {path}": path for path in chosen.data} if len(chosen.data) > 1 else {"DATA": chosen.data[0]}
    for option in ("results", "compare", "model", "predictions", "per_image", "html"):
        name, path = f"--{option.replace('_', '-')}", getattr(chosen, option)
        if not path or (option == "model" and path in MODELS):
            continue
        if option in ("predictions", "per_image", "html"):
            check_output(path, name, inputs=taken)
        taken[name] = path


def _also(chosen: argparse.Namespace) -> "list[Measure]":
    """The metrics that need Java, where they are asked for."""
    from captioner.metrics.java import meteor, spice

    choices: list[tuple[Measure, bool]] = [(meteor, chosen.meteor), (spice, chosen.spice)]
    also = [measure for measure, wanted in choices if wanted]
    for measure in also:
        measure([["a"]], [[["a"]]])  # what is missing is said now, not after an hour of captioning
    return also


def _read(chosen: argparse.Namespace) -> "tuple[Dataset, str, dict[Path, list[Any]]]":
    """The data set, the split to score, and the entries of the results files."""
    from captioner.datasets import load_datasets
    from captioner.datasets.results import split_of
    from captioner.formats import read_results

    data = load_datasets(chosen.data)
    results = {path: read_results(path) for path in (chosen.results, chosen.compare) if path}
    if chosen.split:
        split = chosen.split
    elif chosen.results:
        split = split_of(results[chosen.results], data)
    else:
        split = data.splits[0] if len(data.splits) == 1 else "val"
    data.split(split)
    return data, split, results


def _load(chosen: argparse.Namespace) -> "Captioner":
    from captioner.captioner import Captioner

    captioner = Captioner.load(chosen.model, chosen.device, backend=chosen.backend, precision=chosen.precision)
    image = merged(captioner.image, given(ImageOptions, chosen))
    return captioner.with_(image=image, search=captioner.search_with(**given(SearchOptions, chosen)))


def _match(
    chosen: argparse.Namespace,
    data: "Dataset",
    split: str,
    entries: "dict[Path, list[Any]]",
    *,
    check_pictures: bool,
) -> "tuple[Sequence[CaptionedImage], dict[Path, dict[str, str]]]":
    """The images to score, and their captions in each results file by the image's name."""
    from captioner.datasets import ALL, check_dataset
    from captioner.datasets.results import match_results

    splits = None if split == ALL else [split]
    told = {"skip_bad": chosen.skip_bad, "telling": ERR}  # what the checks report is not data
    images = check_dataset(data, splits=splits, pictures=check_pictures, **told).split(split)
    results = {path: match_results(path, found, images, **told) for path, found in entries.items()}
    images = tuple(image for image in images if all(image.name in captions for captions in results.values()))
    if not images:
        raise DataError(f"{' and '.join(map(str, results))} have no image in common.")
    few = sum(len(image.captions) < 2 for image in images)
    if chosen.human and few:
        raise DataError(f"{few:,} of {len(images):,} images have fewer than two references: leave --human out.")
    return images, results


def _caption(captioner: "Captioner", images: "Sequence[CaptionedImage]") -> dict[str, str]:
    """The model's caption of each image, by the image's name."""
    ERR.say(f"Captioning {len(images):,} pictures.")
    captions: dict[str, str] = {}
    stream = captioner.stream((image.name, image.source) for image in images)
    with ERR.bar(len(images), "picture", "captioning") as bar:
        for found in stream:
            if found.error is not None:
                raise found.error
            if found.caption is not None:
                captions[found.name] = found.caption.text
            bar.update(1)
    return captions


def _facts(
    chosen: argparse.Namespace,
    captioner: "Captioner | None",
    data: "Dataset",
    split: str,
    images: "Sequence[CaptionedImage]",
) -> dict[str, str]:
    """What was scored and on what, a line each."""
    if captioner is None:
        facts = {"captions": str(chosen.results)}
    else:
        search = captioner.search
        penalty, words = search.length_penalty, search.max_length
        facts = {
            "model": f"{captioner.name}, fit {captioner.image.fit} to {captioner.image.size}, {captioner.precision}",
            "search": f"beam {search.beam_size}, length penalty {penalty}, at most {words} words"
            + (f", right to left {search.rerank}" if search.rerank else ""),
        }
    references = sum(len(image.captions) for image in images)
    facts |= {"data": f"{data.path} ({data.kind})", "split": split}
    plural = "s" if references > 1 else ""
    facts["images"] = f"{len(images):,}, with {references:,} reference{plural} ({references / len(images):.2f} each)"
    return facts


def _write_report(chosen: argparse.Namespace, report: "Report") -> bool:
    """Writes the files that were asked for; False where one could not be, which stops no other."""
    from captioner.report.page import to_html
    from captioner.report.scores import per_image

    def lines() -> str:
        return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in per_image(report))

    done = [_write(chosen.per_image, lines), _write(chosen.html, lambda: to_html(report))]
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
        ERR.say(f"{path} could not be written: {error.strerror or error}.")
        return False
    ERR.say(f"Written: {path}.")
    return True
