"""Captions as files: csv and JSON lines, COCO's results, and sidecar files to lie beside the photos.

Promises: every form takes every name and caption, and what it holds is read back exactly, but for white space around
it: csv and JSON lines by `train.py` and `evaluate` as one's own folder, COCO's results by `evaluate --results`. Photos
are not touched. It makes text: it knows no pictures, no networks and no files.

Why the captions lie beside the photos and not in them: no library that may be used here writes them soundly. Of those
that write XMP and leave the pixels alone, pyexiv2, exiv2 and py3exiv2 are under the GPL, python-xmp-toolkit needs the
library Exempi, which pip does not install, and the others are at their first releases. Pillow compresses a JPEG anew:
with `quality="keep"`, 30 of 30 COCO photos came back with other pixels. And it is no job for a few lines of our own:
cameras and editors leave XMP that would have to be merged, previews and films behind the picture which the metadata
find by counting bytes, and signatures over all of it; a writer that refused such photos would refuse the photographer.
ExifTool knows all that. One command puts the sidecars of `xmp_sidecars` into the photos, pixels untouched:

    exiftool -r -ext jpg -ext png -tagsfromfile %d%f.%e.xmp -xmp:all FOLDER
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath
from typing import Any
from xml.sax.saxutils import escape


@dataclass(frozen=True)
class CaptionedFile:
    """A picture's name and its caption. The name is a path, relative or not; no two pictures share one."""

    name: str
    caption: str
    word_probability: float | None = None
    """How sure the model is of its words, 0..1; None where a person wrote the caption."""
    alternatives: tuple[str, ...] = ()
    """The other captions that there were to choose from, the best first."""


# What neither UTF-8 nor XML 1.0 (section 2.2) can hold: control characters, and the lone surrogates that stand in
# Python for the undecodable bytes of a file's name.
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_FORMULA = re.compile(r"[=+\-@＝＋－＠\s]")  # OWASP, "CSV Injection"; the wide ones may count in East Asia
_COCO_NAME = re.compile(r"(?:COCO_[a-z]+\d{4}_)?(\d{12})\.\w+")

_XMP = """\
<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:Iptc4xmpCore="http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/">
   <dc:description>
    <rdf:Alt><rdf:li xml:lang="x-default">{caption}</rdf:li></rdf:Alt>
   </dc:description>
   <Iptc4xmpCore:AltTextAccessibility>
    <rdf:Alt><rdf:li xml:lang="x-default">{caption}</rdf:li></rdf:Alt>
   </Iptc4xmpCore:AltTextAccessibility>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""


def csv_lines(pictures: Iterable[CaptionedFile]) -> Iterator[str]:
    """The header `image,caption`, then a row a picture; a row holds line breaks where its caption does.

    A spreadsheet runs a cell that starts with = + - or @ as a formula, and names may come out of a stranger's zip. So
    such a name gets `./` before it, and such a caption a space: the reader takes both off again, where it would take
    the usual apostrophe for a part of the text. Saved as "utf-8-sig", the file keeps its accents in Excel too.
    """
    rows = ((_not_formula("./", one.name), _not_formula(" ", one.caption)) for one in pictures)
    text = io.StringIO(newline="")
    # With the writer's own line end: with another it would not quote a carriage return.
    writer = csv.writer(text)
    for row in chain([("image", "caption")], rows):
        writer.writerow(row)
        yield text.getvalue().removesuffix("\r\n")
        text.seek(0)
        text.truncate()


def json_lines(pictures: Iterable[CaptionedFile]) -> Iterator[str]:
    """A JSON object a picture: `image`, `caption` and, where they are known, `word_probability` and `alternatives`."""
    for one in pictures:
        fields: dict[str, Any] = {"image": _writable(one.name), "caption": _writable(one.caption)}
        if one.word_probability is not None:
            fields["word_probability"] = round(one.word_probability, 4)
        if one.alternatives:
            fields["alternatives"] = [_writable(other) for other in one.alternatives]
        yield json.dumps(fields)


def coco_results(pictures: Iterable[CaptionedFile]) -> str:
    """COCO's results format: a JSON list of `image_id` and `caption`.

    The id is COCO's number where the file's name holds one (`000000391895.jpg`, `COCO_val2014_000000391895.jpg`),
    elsewhere the file's name, and the whole path where several pictures have that number or name.
    """
    pictures = list(pictures)
    paths = [PurePosixPath(_writable(one.name).replace("\\", "/")) for one in pictures]
    numbers = [int(match[1]) if (match := _COCO_NAME.fullmatch(path.name)) else None for path in paths]
    counts = Counter([*numbers, *(path.name for path in paths)])
    entries = []
    for number, path, one in zip(numbers, paths, pictures, strict=True):
        names = [name for name in (number, path.name) if name is not None and counts[name] == 1]
        entries.append({"image_id": [*names, path.as_posix()][0], "caption": _writable(one.caption)})
    return json.dumps(entries)


def text_sidecars(pictures: Sequence[CaptionedFile]) -> Iterator[tuple[str, str]]:
    """Names and contents of text files: `photo.txt` for `photo.jpg`, as trainers of image generators expect them.

    Where that would be another picture's too (`photo.png`; `Photo.jpg`, for systems that see no difference), it is
    `photo.jpg.txt`.
    """
    names = [_writable(one.name) for one in pictures]
    short = [PurePosixPath(name).with_suffix(".txt").as_posix() for name in names]
    long = [f"{name}.txt" for name in names]
    # A long name may be another picture's short one: photo.jpg, photo.png and photo.jpg.png.
    counts = Counter(map(str.casefold, [*short, *long]))
    for brief, full, one in zip(short, long, pictures, strict=True):
        yield brief if counts[brief.casefold()] == 1 else full, _writable(one.caption) + "\n"


def xmp_sidecars(pictures: Iterable[CaptionedFile]) -> Iterator[tuple[str, str]]:
    """Names and contents of XMP files, `photo.jpg.xmp` for `photo.jpg`, with the caption as description and alt text.

    The names are those of darktable, digiKam and Immich, and two pictures cannot share one. Adobe's name `photo.xmp`
    would serve nobody: Lightroom and Bridge look for it beside raw files only, and read the metadata of a JPEG from
    within. Who has sidecars with ratings or edits must not unpack these over them.

    The alt text is the IPTC Photo Metadata Standard's of 2021. Its extended description stays empty: that is for what
    the alt text does not say.
    """
    for one in pictures:
        # Without the entity a parser turns a carriage return into a line feed (XML 1.0, section 2.11).
        caption = escape(_writable(one.caption), {"\r": "&#13;"})
        yield f"{_writable(one.name)}.xmp", _XMP.format(caption=caption)


def _not_formula(prefix: str, text: str) -> str:
    return (prefix if _FORMULA.match(text) else "") + _writable(text)


def _writable(text: str) -> str:
    """The text, with numbers for the characters that a file cannot hold."""
    return _UNWRITABLE.sub(lambda character: f"%{ord(character[0]):02X}", text)
