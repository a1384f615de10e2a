"""Where captions go besides standard output: into the photos, beside them, or into a file that the next run continues.

A place says what it has of a photo already, takes a caption, and says in a few words where that went. It raises a
CaptionerError for a photo that it cannot serve.
"""

import contextlib
import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from captioner.captions import to_dict
from captioner.cli.streams import OutputError
from captioner.errors import ImageError
from captioner.files import name_of, printable, write_atomically
from captioner.formats import coco_results, csv_lines
from captioner.formats.embedded import ExifTool
from captioner.formats.sidecars import is_xmp_of_ours, text_content, text_names, xmp_content

if TYPE_CHECKING:
    from captioner.captions import Caption

INSIDE, BESIDE = "in the photo", "beside the photo"


class Place(Protocol):
    """Where captions go."""

    def has(self, photo: str) -> str:
        """What of a photo's caption is there already, in a few words; "" for nothing."""

    def put(self, photo: str, caption: "Caption", *, dry: bool = False) -> str:
        """Puts a caption there, or would (`dry`); says where that is, "" where nobody wants to know."""


class Inside:
    """The photos' own metadata; beside the photo where its format has no place for a caption."""

    def __init__(self, exiftool: ExifTool) -> None:
        self._exiftool, self._beside = exiftool, Beside("xmp")

    def has(self, photo: str) -> str:
        """Its description, or its sidecar."""
        found = self._exiftool.look(photo)
        return f"its description ({printable(found.description)})" if found.description else self._beside.has(photo)

    def put(self, photo: str, caption: "Caption", *, dry: bool = False) -> str:
        """Embeds it, or writes a sidecar."""
        if not self._exiftool.look(photo).holds:
            return self._beside.put(photo, caption, dry=dry)
        if not dry:
            self._exiftool.embed(photo, caption.text)
        return INSIDE


class Beside:
    """Files beside the photos: `txt`, named as trainers of image generators expect, or `xmp`."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._names: dict[str, str] = {}

    def has(self, photo: str) -> str:
        """Its sidecar; one of another program's counts where it has a description."""
        path = self._path(photo)
        there = os.path.lexists(path) and (self._kind == "txt" or _describes(path))
        return printable(path.name) if there else ""

    def put(self, photo: str, caption: "Caption", *, dry: bool = False) -> str:
        """Writes a sidecar, or adds to the one that another program wrote."""
        path = self._path(photo)
        if dry:
            return BESIDE
        with _explained(path):
            if self._kind == "txt":
                content = text_content(caption.text)
            elif os.path.lexists(path) and not is_xmp_of_ours(path.read_bytes()):
                with ExifTool() as exiftool:  # ratings and edits of another program's, which must stay
                    exiftool.embed(path, caption.text)
                return BESIDE
            else:
                content = xmp_content(caption.text)
            write_atomically(path, lambda part: part.write_text(content, encoding="utf-8", newline=""))
        return BESIDE

    def _path(self, photo: str) -> Path:
        photo = str(Path(photo))
        if self._kind == "xmp":
            return Path(f"{photo}.xmp")
        if photo not in self._names:  # or its folder has got others since
            self._names |= _text_files(photo)
        return Path(self._names[photo])


def _text_files(photo: str) -> dict[str, str]:
    """The pictures of a photo's folder, and their text files: one's name depends on the others'."""
    from captioner.pictures import SUFFIXES

    own = Path(photo)
    with _explained(photo):
        others = [path for path in own.parent.iterdir() if path.suffix.lower() in SUFFIXES]
    names = sorted({own.name, *(path.name for path in others)})
    texts = zip(names, text_names(names), strict=True)
    return {str(own.parent / name): str(own.parent / text) for name, text in texts}


def _describes(path: Path) -> bool:
    """Whether an XMP file may have a description: programs that write one call it so."""
    with _explained(path):
        content = path.read_bytes()
    return b"dc:description" in content or b"AltTextAccessibility" in content


@contextlib.contextmanager
def _explained(path: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"could not be written ({error.strerror or error})"
        raise ImageError(printable(path), reason, "check its folder and the disk") from error


class Lines:
    """Lines of captions in a stream, as text, json or csv; or, when it ends, one list as coco."""

    def __init__(self, stream: IO[str], form: str, *, done: frozenset[str] = frozenset(), begun: bool = False) -> None:
        """`done` are the photos that it has already, as `key` calls them; `begun`: it needs no header."""
        self._stream, self._form, self._done, self._begun = stream, form, done, begun
        self._captions: list[tuple[str, str]] = []

    def has(self, photo: str) -> str:
        """Its line in what an earlier run left."""
        return "its line" if key(self._form, name_of(photo)) in self._done else ""

    def put(self, photo: str, caption: "Caption", *, dry: bool = False) -> str:  # noqa: ARG002 - shown all the same
        """Adds a line."""
        name = name_of(photo)
        if self._form == "coco":
            self._captions.append((name, caption.text))
        elif self._form == "csv":
            header, row = csv_lines([(name, caption.text)])
            self._say(row if self._begun else f"{header}\n{row}")
        elif self._form == "json":
            self._say(json.dumps({"path": name, **to_dict(caption)}))
        else:
            self._say(f"{one_line(name)}\t{caption.text}")
        return ""

    def end(self) -> None:
        """Writes what only the end can."""
        if self._form == "coco":
            self._say(coco_results(self._captions))
        elif self._form == "csv" and not self._begun:
            self._say(next(csv_lines([])))

    def close(self) -> None:
        """Closes the stream; what it would not take was told when it would not."""
        with contextlib.suppress(OSError):
            self._stream.close()

    def _say(self, line: str) -> None:
        self._begun = True
        try:
            print(line, file=self._stream, flush=True)  # whoever stops us keeps what was there
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"The output could not be written: {error.strerror or error}.") from error


def key(form: str, name: str) -> str:
    """What a line begins with, by which a later run knows the photo again."""
    if form == "csv":
        return next(csv.reader([list(csv_lines([(name, "")]))[1]]))[0]
    return json.dumps(name) if form == "json" else one_line(name)


def done_lines(path: Path, form: str) -> frozenset[str]:
    """The photos that a file has lines of; a last line that is not whole is cut off. Raises OSError."""
    content = path.read_bytes()
    if not content.endswith(b"\n"):
        content = content[: content.rfind(b"\n") + 1]
        os.truncate(path, len(content))
    text = content.decode("utf-8", "replace")
    if form == "csv":
        return frozenset(row[0] for row in csv.reader(io.StringIO(text, newline="")) if row)
    lines = text.split("\n")
    if form == "json":
        return frozenset(json.dumps(record["path"]) for record in map(_record, lines) if record)
    return frozenset(line.partition("\t")[0] for line in lines)


def _record(line: str) -> dict[str, str]:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) and "path" in record else {}


def one_line(path: str) -> str:
    """The path, with the characters that would break a line of path, tab, caption written as escapes."""
    return path.translate({ord(c): repr(c)[1:-1] for c in "\t\n\r"}).encode(errors="backslashreplace").decode()
