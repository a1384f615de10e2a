"""The command line: caption photos, evaluate a model, look into a model file, export one for shipping.

Standard output carries data only; progress and complaints go to standard error. Exit status: 0 all good, 1 some
pictures failed, 2 wrong use. torch is imported by the command that needs it, so that `--help` answers at once.
"""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.errors import CaptionerError, ImageError
from captioner.options import DEVICES_HELP, ImageOptions, SearchOptions, add_arguments, given

if TYPE_CHECKING:
    from torch import Tensor

    from captioner.generation import Caption
    from captioner.predictor import Captioner


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    chosen = _parser().parse_args(arguments)
    try:
        return int(chosen.run(chosen))
    except CaptionerError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m captioner", description="Captions photos.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    caption = commands.add_parser("caption", help="caption photos: one line a photo, path, tab, caption")
    caption.add_argument(
        "photos", nargs="+", metavar="PHOTO|FOLDER", help="a picture, or a folder of pictures at any depth"
    )
    caption.add_argument(
        "--json", action="store_true", help="one JSON object a line, with probabilities and alternatives"
    )
    _add_model(caption)
    add_arguments(caption, SearchOptions, defaults=False)
    caption.set_defaults(run=_caption)

    evaluate = commands.add_parser("evaluate", help="caption a split of a data set and score it with BLEU")
    evaluate.add_argument(
        "data", metavar="DATA", help="'shapes', or the folder or file of a data set (see data/README.md)"
    )
    evaluate.add_argument("--split", default="val", help="train, val (or dev) or test (default: %(default)s)")
    evaluate.add_argument(
        "--predictions",
        type=Path,
        default=Path("predictions.json"),
        metavar="FILE",
        help="where the captions go, in COCO's results format (default: %(default)s)",
    )
    evaluate.add_argument(
        "--skip-bad", action="store_true", help="leave out what the data check finds, and score the rest"
    )
    _add_model(evaluate)
    add_arguments(evaluate, SearchOptions, defaults=False)
    add_arguments(evaluate, ImageOptions, defaults=False)
    evaluate.set_defaults(run=_evaluate)

    info = commands.add_parser("info", help="say what a model file holds and where it came from")
    info.add_argument("model", nargs="?", type=Path, help="a model file (default: the bundled model)")
    info.add_argument("--json", action="store_true", help="the whole header as JSON")
    info.set_defaults(run=_info)

    export = commands.add_parser("export", help="copy a model file in half precision, for shipping")
    export.add_argument("model", type=Path, help="a model file, such as best.safetensors of a run")
    export.add_argument("output", type=Path, help="the file to write")
    export.add_argument("--note", help="what whoever uses the model should know: its terms, what it gets wrong")
    export.set_defaults(run=_export)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="FILE", help="a model file (default: the bundled model)")
    parser.add_argument("--device", default="auto", help=DEVICES_HELP + " (default: %(default)s)")


def _caption(chosen: argparse.Namespace) -> int:
    from tqdm import tqdm

    from captioner.images import find_images
    from captioner.predictor import BATCH, Captioner

    photos: list[str] = []
    for name in chosen.photos:
        if Path(name).is_dir():
            found = find_images(name)
            if not found:
                raise ImageError(f"There are no pictures in the folder {name}: name another folder.")
            photos += map(str, found)
        else:
            photos.append(name)
    captioner = Captioner.load(chosen.model, chosen.device)
    search = replace(captioner.file.search, **given(SearchOptions, chosen))
    failed = 0
    with tqdm(total=len(photos), unit="photo", disable=None if len(photos) > 1 else True) as bar:
        for first in range(0, len(photos), BATCH):
            group = photos[first : first + BATCH]
            read = list(_read(captioner, group))
            failed += len(group) - len(read)
            captions = captioner.caption_pixels([pixels for _, pixels in read], search=search)
            with bar.external_write_mode(file=sys.stdout):
                for (path, _), caption in zip(read, captions, strict=True):
                    print(json.dumps(_record(path, caption)) if chosen.json else f"{_one_line(path)}\t{caption.text}")
            bar.update(len(group))
    sys.stdout.flush()
    return 1 if failed else 0


def _read(captioner: "Captioner", photos: list[str]) -> Iterator[tuple[str, "Tensor"]]:
    """The photos that can be read, with their pixels; the others are named on standard error."""
    for path in photos:
        try:
            yield path, captioner.read(path)
        except ImageError as error:
            print(error, file=sys.stderr)


def _record(path: str, caption: "Caption") -> dict[str, Any]:
    """A caption as `--json` prints it."""
    alternatives = [_record_of(other) for other in caption.alternatives]
    return {"path": path, **_record_of(caption), "alternatives": alternatives}


def _record_of(caption: "Caption") -> dict[str, Any]:
    return {
        "caption": caption.text,
        "log_probability": round(caption.log_probability, 4),
        "word_probability": round(caption.word_probability, 4),
    }


def _one_line(path: str) -> str:
    """The path, with the characters that would break a line of path, tab, caption written as escapes."""
    return path.translate({ord(c): repr(c)[1:-1] for c in "\t\n\r"}).encode(errors="backslashreplace").decode()


def _evaluate(chosen: argparse.Namespace) -> int:
    from tqdm import tqdm

    from captioner.datasets import check_dataset, load_dataset
    from captioner.datasets.batches import load_pixels
    from captioner.evaluation import evaluate
    from captioner.files import write_atomically
    from captioner.predictor import BATCH, Captioner

    captioner = Captioner.load(chosen.model, chosen.device)
    captioner.image = replace(captioner.image, **given(ImageOptions, chosen))
    search = replace(captioner.file.search, **given(SearchOptions, chosen))
    with contextlib.redirect_stdout(sys.stderr):  # what the check reports is not data
        data = load_dataset(chosen.data)
        data.split(chosen.split)
        data = check_dataset(data, splits=[chosen.split], skip_bad=chosen.skip_bad)
    images = data.split(chosen.split)

    captions: list[Caption] = []
    batches = [list(range(first, min(first + BATCH, len(images)))) for first in range(0, len(images), BATCH)]
    with tqdm(total=len(images), unit="picture", disable=None) as bar:
        for pixels in load_pixels(images, captioner.image, batches):
            captions += captioner.caption_pixels(list(pixels), search=search)
            bar.update(len(pixels))
    evaluation = evaluate(images, captions)
    results = json.dumps(list(evaluation.results), ensure_ascii=False)
    write_atomically(chosen.predictions, lambda part: part.write_text(results, encoding="utf-8"))

    print(f"model       {captioner.name}, fit {captioner.image.fit} to {captioner.image.size}")
    words, penalty = search.max_length, search.length_penalty
    print(f"search      beam {search.beam_size}, length penalty {penalty}, at most {words} words")
    print(f"data        {data.path} ({data.kind}), {chosen.split}: {evaluation.images:,} pictures, ", end="")
    print(f"{evaluation.references:.2f} references each")
    for number, score in enumerate(evaluation.bleu, 1):
        print(f"BLEU-{number}      {score:.2f}")
    print(f"exact       {evaluation.exact:.1f}% equal a reference")
    print(f"distinct    {evaluation.distinct:,} different captions")
    print(f"Captions are in {chosen.predictions}.", file=sys.stderr)
    return 0


def _info(chosen: argparse.Namespace) -> int:
    from captioner.checkpoint import BUNDLED, read_header

    path = chosen.model or BUNDLED
    header = read_header(path)
    if chosen.json:
        print(json.dumps(header, ensure_ascii=False))
        return 0
    print(f"file           {path} ({path.stat().st_size / 1e6:.1f} MB, format {header['format']})")
    for name in ("image", "encoder", "decoder", "search"):
        print(f"{name:14} " + ", ".join(f"{key} {value}" for key, value in header[name].items()))
    print(f"vocabulary     {len(header['vocabulary']):,} words, tokeniser {header['tokeniser']}")
    origin = header["provenance"]
    if isinstance(origin.get("starting_weights"), dict):  # a whole record of its own; --json has it
        origin["starting_weights"] = f"a model trained on {origin['starting_weights'].get('data', 'other data')}"
    for key, value in origin.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {part}" for name, part in value.items()) or "nothing"
        print(f"{key:14} {value}")
    return 0


def _export(chosen: argparse.Namespace) -> int:
    from captioner.checkpoint import load_model, save_model

    file = load_model(chosen.model)
    if chosen.note:
        file = replace(file, provenance={**file.provenance, "note": chosen.note})
    save_model(chosen.output, file, half=True)
    print(f"{chosen.output}: {chosen.output.stat().st_size / 1e6:.1f} MB", file=sys.stderr)
    return 0
