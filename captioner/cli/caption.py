"""`caption`: photos in, captions out, by default one line a photo."""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NoReturn

from captioner.captions import to_dict
from captioner.cli.parser import Commands, add_model
from captioner.errors import ImageError, ModelFileError
from captioner.files import name_of
from captioner.formats import coco_results, csv_lines
from captioner.options import SearchOptions, add_arguments, given

if TYPE_CHECKING:
    from tqdm import tqdm

    from captioner.captioner import Captioner
    from captioner.captions import Caption

_FORMATS = ("text", "json", "csv", "coco")


def add(commands: Commands) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser("caption", help="caption photos: one line a photo, path, tab, caption")
    parser.add_argument(
        "photos", nargs="+", metavar="PHOTO|FOLDER", help="a picture, or a folder of pictures at any depth"
    )
    parser.add_argument(
        "--format",
        choices=_FORMATS,
        default="text",
        help="text: path, tab, caption (the default); json: one object a line, with probabilities and alternatives; "
        "csv: image,caption, as train.py reads it; coco: COCO's results, as evaluate --results reads them",
    )
    parser.add_argument("--json", dest="format", action="store_const", const="json", help="the same as --format json")
    add_model(parser)
    add_arguments(parser, SearchOptions, defaults=False)
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Captions the photos; 1 where some, or a folder of them, could not be read."""
    from tqdm import tqdm

    from captioner.captioner import Captioner
    from captioner.pictures import find_images

    photos: list[str] = []
    failed: list[str] = []

    def unreadable(error: ImageError) -> None:
        print(error, file=sys.stderr)
        failed.append(str(error))

    for name in chosen.photos:
        if os.path.isdir(name):
            before = len(failed)
            found = find_images(name, unreadable=unreadable)
            if not found and len(failed) == before:
                raise ImageError(f"There are no pictures in the folder {name}: name another folder.")
            photos += map(str, found)
        else:
            photos.append(name)
    captioner = Captioner.load(chosen.model, chosen.device, precision=chosen.precision)
    captioner = captioner.with_(search=captioner.search_with(**given(SearchOptions, chosen)))
    with tqdm(total=len(photos), unit="photo", disable=None if len(photos) > 1 else True) as bar:
        for line in _lines(chosen.format, _captions(captioner, photos, failed, bar)):
            with bar.external_write_mode(file=sys.stdout):
                print(line)
    sys.stdout.flush()
    return 1 if failed else 0


def _captions(
    captioner: "Captioner", photos: list[str], failed: list[str], bar: "tqdm[NoReturn]"
) -> "Iterator[tuple[str, Caption]]":
    """The names and captions of the photos that can be read; the others are named on standard error and in `failed`."""
    for found in captioner.stream((path, path) for path in photos):
        if isinstance(found.error, ModelFileError):  # no picture's fault: the next ones would say the same
            raise found.error
        if found.caption is None:
            print(found.error, file=sys.stderr)
            failed.append(found.name)
        else:
            yield name_of(found.name), found.caption
        bar.update()


def _lines(form: str, captions: "Iterable[tuple[str, Caption]]") -> Iterator[str]:
    """What is printed, as soon as it can be."""
    if form == "text":
        return (f"{one_line(path)}\t{caption.text}" for path, caption in captions)
    if form == "json":
        return (json.dumps({"path": path, **to_dict(caption)}) for path, caption in captions)
    texts = ((path, caption.text) for path, caption in captions)
    return csv_lines(texts) if form == "csv" else iter([coco_results(texts)])


def one_line(path: str) -> str:
    """The path, with the characters that would break a line of path, tab, caption written as escapes."""
    return path.translate({ord(c): repr(c)[1:-1] for c in "\t\n\r"}).encode(errors="backslashreplace").decode()
