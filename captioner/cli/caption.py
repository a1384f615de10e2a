"""`caption`: photos in, captions out, by default one line a photo; or into the photos, or beside them."""

import argparse
import contextlib
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from captioner.cli.parser import Commands, add_model
from captioner.cli.places import Beside, Inside, Lines, Place, done_lines
from captioner.cli.streams import OutputError, terminable
from captioner.errors import CaptionerError, ImageError, ModelFileError, OptionError
from captioner.files import check_output, printable
from captioner.formats.embedded import ExifTool
from captioner.options import SearchOptions, add_arguments, given

if TYPE_CHECKING:
    from captioner.captioner import Captioner

_FORMATS = ("text", "json", "csv", "coco")


def add(commands: Commands) -> None:
    """Adds the command and its options."""
    parser = commands.add_parser("caption", help="caption photos: one line a photo, or into the photos")
    parser.add_argument(
        "photos", nargs="+", metavar="PHOTO|FOLDER", help="a picture, or a folder of pictures at any depth"
    )
    parser.add_argument(
        "--format",
        choices=_FORMATS,
        default="text",
        help="text: path, tab, caption (the default); json: one object a line, with probabilities and alternatives; "
        "csv: image,caption, as train reads it; coco: COCO's results, as evaluate --results reads them",
    )
    parser.add_argument("--json", dest="format", action="store_const", const="json", help="the same as --format json")
    places = parser.add_argument_group("Where the captions go besides")
    places.add_argument(
        "--write",
        action="store_true",
        help="into each photo's own metadata (IPTC, XMP, alt text), through ExifTool, which leaves the picture and all "
        "else as it is; beside it as XMP where its format has no place for it",
    )
    places.add_argument(
        "--sidecars", choices=("txt", "xmp"), help="beside each photo: photo.txt, or photo.jpg.xmp with the alt text"
    )
    places.add_argument(
        "--output", type=Path, metavar="FILE", help="the lines of --format into a file, and not to standard output"
    )
    places.add_argument(
        "--overwrite", action="store_true", help="replace descriptions and sidecars that are there, which else stay"
    )
    places.add_argument(
        "--dry-run", action="store_true", help="print the captions and say where they would go, but write nothing"
    )
    places.add_argument(
        "--skip-done",
        action="store_true",
        help="continue after a stop: pass over photos with a description, a sidecar, or a line in --output",
    )
    places.add_argument(
        "--watch", action="store_true", help="wait for pictures that arrive in the folders, until Ctrl-C"
    )
    add_model(parser)
    add_arguments(parser, SearchOptions, defaults=False)
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Captions the photos; 1 where some, or a folder of them, could not be read or written."""
    _check(chosen)
    failed: dict[str, None] = {}

    def tell(error: CaptionerError, photo: str = "") -> None:
        print(error, file=sys.stderr)
        failed[photo or str(error)] = None

    with contextlib.ExitStack() as opened:
        opened.enter_context(terminable())
        places, lines = _places(chosen, opened)
        job = _Job(chosen, places, lines, tell)
        try:
            for photos in _rounds(chosen, failed, job, tell):
                for photo in photos:
                    failed.pop(photo, None)  # given again, it gets another chance
                job.caption(photos)
        except KeyboardInterrupt:
            if not chosen.watch:
                raise  # else it is how a watch ends
        lines.end()
        sys.stdout.flush()
        if places:
            print(job.summary(), file=sys.stderr)
    return 1 if failed else 0


def _check(chosen: argparse.Namespace) -> None:
    """Refuses options that do not go together."""
    written = chosen.write or chosen.sidecars
    for name, value in (("--overwrite", chosen.overwrite), ("--dry-run", chosen.dry_run)):
        if value and not written:
            raise OptionError(f"{name} is about what is written to the photos' folder: add --write or --sidecars.")
    if chosen.skip_done and not (written or chosen.output):
        raise OptionError(
            "--skip-done looks at what an earlier run left: add --write, --sidecars or --output as there."
        )
    if chosen.skip_done and chosen.overwrite:
        raise OptionError("--skip-done does not go with --overwrite: leave one of them out.")
    if chosen.format == "coco" and (chosen.watch or (chosen.skip_done and chosen.output)):
        raise OptionError("--format coco is one list, written at the end: choose json or csv.")
    for name in chosen.photos if chosen.watch else ():
        if not os.path.isdir(name):
            raise OptionError(f"--watch waits for pictures in folders, and {printable(name)} is none: name a folder.")
    if chosen.output:
        check_output(chosen.output, "--output")


def _places(chosen: argparse.Namespace, opened: contextlib.ExitStack) -> tuple[list[Place], Lines]:
    """Where captions go if they are not there yet, and where lines of them go in any case."""
    places: list[Place] = []
    if chosen.write:
        places.append(Inside(opened.enter_context(ExifTool())))
    if chosen.sidecars:
        places.append(Beside(chosen.sidecars))
    if not chosen.output or chosen.dry_run:
        return places, Lines(sys.stdout, chosen.format)
    try:
        done: frozenset[str] = frozenset()
        if chosen.skip_done and chosen.output.exists():
            done = done_lines(chosen.output, chosen.format)
        stream = chosen.output.open("a" if chosen.skip_done else "w", encoding="utf-8", errors="backslashreplace")
        begun = stream.tell() > 0
    except OSError as error:
        raise OptionError(f"--output is {chosen.output}, which cannot be written: {error.strerror or error}.") from None
    lines = Lines(stream, chosen.format, done=done, begun=begun)
    opened.callback(lines.close)
    return [*places, lines], lines


def _rounds(
    chosen: argparse.Namespace, failed: dict[str, None], job: "_Job", tell: Callable[[CaptionerError], None]
) -> Iterator[list[str]]:
    """The photos to caption: all that are there, or again and again those that have arrived."""
    if chosen.watch:
        from captioner.cli.arrivals import arrivals

        job.captioner()  # a wrong model is known before anybody waits
        print("Waiting for pictures; Ctrl-C ends it.", file=sys.stderr)
        yield from arrivals(chosen.photos, failed, tell)
        return
    from captioner.pictures import find_images

    photos: list[str] = []
    for name in chosen.photos:
        if os.path.isdir(name):
            before = len(failed)
            found = find_images(name, unreadable=tell)
            if not found and len(failed) == before:
                raise ImageError(f"There are no pictures in the folder {name}: name another folder.")
            photos += map(str, found)
        else:
            photos.append(name)
    yield photos


class _Job:
    """What is asked for, and what became of it so far."""

    def __init__(
        self, chosen: argparse.Namespace, places: list[Place], lines: Lines, tell: Callable[..., None]
    ) -> None:
        self._chosen, self._places, self._lines, self._tell = chosen, places, lines, tell
        self._captioner: Captioner | None = None
        self._went: Counter[str] = Counter()
        self._kept = 0

    def captioner(self) -> "Captioner":
        """The model, loaded when it is first needed: a folder that is done needs none."""
        if self._captioner is None:
            from captioner.captioner import Captioner

            chosen = self._chosen
            captioner = Captioner.load(chosen.model, chosen.device, backend=chosen.backend, precision=chosen.precision)
            self._captioner = captioner.with_(search=captioner.search_with(**given(SearchOptions, chosen)))
        return self._captioner

    def caption(self, photos: list[str]) -> None:
        """Captions those that need it; what is wrong with the others is told."""
        from tqdm import tqdm

        several = len(photos) > 1 and not self._chosen.watch
        with tqdm(total=len(photos), unit="photo", disable=None if several else True) as bar:
            todo: deque[list[Place]] = deque()
            wanted = self._wanted(photos, todo, bar.update)
            first = next(wanted, None)
            if first is None:
                return
            for found in self.captioner().stream((photo, photo) for photo in _chain(first, wanted)):
                places = todo.popleft()
                bar.update()
                if isinstance(found.error, ModelFileError):  # no picture's fault: the next ones would say the same
                    raise found.error
                if found.caption is None:
                    assert found.error is not None
                    self._tell(found.error, found.name)
                    continue
                for place in places:
                    try:
                        with bar.external_write_mode(file=sys.stdout):
                            where = place.put(found.name, found.caption, dry=self._chosen.dry_run)
                        self._went[where] += 1
                    except OutputError:
                        raise  # nobody reads what comes after it
                    except CaptionerError as error:
                        self._tell(error, found.name)

    def summary(self) -> str:
        """Where the captions went."""
        went = [f"{count:,} {where}" for where, count in self._went.items() if where]
        would = "Nothing was written; captions would be" if self._chosen.dry_run else "Captions"
        went += [f"{self._kept:,} were there already"] if self._kept else []
        return f"{would}: {', '.join(went) or 'none'}."

    def _wanted(self, photos: Iterable[str], todo: deque[list[Place]], passed: Callable[[], object]) -> Iterator[str]:
        """The photos that need a caption; where each is to go is appended to `todo`."""
        for photo in photos:
            there = [self._has(place, photo) for place in self._places]
            if not there or "" in there:
                lacking = [place for place, what in zip(self._places, there, strict=True) if not what]
                todo.append(lacking if self._lines in self._places else [*lacking, self._lines])
                yield photo
                continue
            self._kept += 1
            passed()
            if not self._chosen.skip_done:
                print(f"{printable(photo)} keeps {there[0]}: --overwrite replaces it.", file=sys.stderr)

    def _has(self, place: Place, photo: str) -> str:
        if self._chosen.overwrite:
            return ""
        try:
            return place.has(photo)
        except CaptionerError:  # the reading or the writing of it will say what is wrong
            return ""


def _chain(first: str, others: Iterator[str]) -> Iterator[str]:
    yield first
    yield from others
