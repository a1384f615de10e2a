"""`caption`: photos in, one line a photo out."""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioner.cli.parser import Commands, add_model
from captioner.errors import ImageError
from captioner.options import SearchOptions, add_arguments, given

if TYPE_CHECKING:
    from torch import Tensor

    from captioner.generation import Caption
    from captioner.predictor import Captioner


def add(commands: Commands) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser("caption", help="caption photos: one line a photo, path, tab, caption")
    parser.add_argument(
        "photos", nargs="+", metavar="PHOTO|FOLDER", help="a picture, or a folder of pictures at any depth"
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON object a line, with probabilities and alternatives"
    )
    add_model(parser)
    add_arguments(parser, SearchOptions, defaults=False)
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Captions the photos; 1 where some could not be read."""
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
    search.check_model(reverse=captioner.file.model.options.reverse)
    failed = 0
    with tqdm(total=len(photos), unit="photo", disable=None if len(photos) > 1 else True) as bar:
        for first in range(0, len(photos), BATCH):
            group = photos[first : first + BATCH]
            read = list(_read(captioner, group))
            failed += len(group) - len(read)
            captions = captioner.caption_pixels([pixels for _, pixels in read], search=search)
            with bar.external_write_mode(file=sys.stdout):
                for (path, _), caption in zip(read, captions, strict=True):
                    print(json.dumps(_record(path, caption)) if chosen.json else f"{one_line(path)}\t{caption.text}")
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


def one_line(path: str) -> str:
    """The path, with the characters that would break a line of path, tab, caption written as escapes."""
    return path.translate({ord(c): repr(c)[1:-1] for c in "\t\n\r"}).encode(errors="backslashreplace").decode()
