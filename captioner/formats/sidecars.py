"""Files that lie beside the photos: a text, or XMP with the caption as description and alt text.

Why no code of ours puts captions into the photos: no library that may be used here writes them soundly. Of those
that write XMP and leave the pixels alone, pyexiv2, exiv2 and py3exiv2 are under the GPL, python-xmp-toolkit needs the
library Exempi, which pip does not install, and the others are at their first releases. Pillow compresses a JPEG anew:
with `quality="keep"`, 30 of 30 COCO photos came back with other pixels. And it is no job for a few lines of our own:
cameras and editors leave XMP that would have to be merged, previews and films behind the picture which the metadata
find by counting bytes, and signatures over all of it; a writer that refused such photos would refuse the photographer.
ExifTool knows all that, and `embedded` lets it. One command puts the sidecars of `xmp_sidecars` into the photos, too:

    exiftool -r -ext jpg -ext png -tagsfromfile %d%f.%e.xmp -xmp:all FOLDER
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from captioner.errors import DataError
from captioner.files import explained, open_ordinary
from captioner.formats.rows import plain_text, read_text, writable

KINDS = (".txt", ".caption", ".xmp")
"""Endings of the files that are read, the first that a photo has: ours, and what other programs call a text."""

_END = 1 << 19
_LINE_END = re.compile(r"\s*[\r\n]\s*")
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_CAPTIONS = (
    "{http://purl.org/dc/elements/1.1/}description",
    "{http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/}AltTextAccessibility",
)
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


def text_sidecars(captions: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Names and captions of pictures -> names and contents of text files, `photo.txt` for `photo.jpg`.

    So trainers of image generators expect them, one caption a line, so that one of several lines becomes one line.
    Where the name would be another picture's too (`photo.png`; `Photo.jpg`, for systems that see no difference), it is
    `photo.jpg.txt`.
    """
    for name, (_, caption) in zip(text_names([writable(name) for name, _ in captions]), captions, strict=True):
        yield name, text_content(caption)


def text_names(names: Sequence[str]) -> list[str]:
    """Names of pictures -> those of their text files."""
    short = [PurePosixPath(name).with_suffix(".txt").as_posix() for name in names]
    long = [f"{name}.txt" for name in names]
    # A long name may be another picture's short one: photo.jpg, photo.png and photo.jpg.png.
    counts = Counter(map(str.casefold, [*short, *long]))
    return [brief if counts[brief.casefold()] == 1 else full for brief, full in zip(short, long, strict=True)]


def text_content(caption: str) -> str:
    """A caption -> what its text file holds."""
    return " ".join(_LINE_END.split(writable(caption))) + "\n"


def xmp_sidecars(captions: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Names and captions of pictures -> names and contents of XMP files, `photo.jpg.xmp` for `photo.jpg`.

    The names are those of darktable, digiKam and Immich, and two pictures cannot share one. Adobe's name `photo.xmp`
    would serve nobody: Lightroom and Bridge look for it beside raw files only, and read the metadata of a JPEG from
    within. Who has sidecars with ratings or edits must not unpack these over them.

    The alt text is the IPTC Photo Metadata Standard's of 2021. Its extended description stays empty: that is for what
    the alt text does not say.
    """
    for name, caption in captions:
        yield f"{writable(name)}.xmp", xmp_content(caption)


def xmp_content(caption: str) -> str:
    """A caption -> what its XMP file holds."""
    # Without the entity a parser turns a carriage return into a line feed (XML 1.0, section 2.11).
    return _XMP.format(caption=escape(writable(caption), {"\r": "&#13;"}))


def is_xmp_of_ours(content: bytes) -> bool:
    """Whether an XMP file holds a caption as we write it, and nothing besides that could be lost."""
    ours = re.escape(_XMP.encode()).replace(re.escape(b"{caption}"), b"[^<]*")
    return re.fullmatch(ours, content) is not None


def sidecar_names(name: str) -> list[str]:
    """What the sidecars of a photo may be called, the likeliest first; one that is named like it in full is its own."""
    stem = PurePosixPath(name).stem
    return [f"{start}{kind}" for kind in KINDS for start in (name, stem)]


def read_sidecar(file: Path) -> list[str]:
    """The captions in a photo's sidecar: the lines of a text, or XMP's description or else alt text; none is [].

    Raises DataError where the file is not UTF-8, or no XML.
    """
    text = read_text(file)
    if file.suffix.lower() != ".xmp":
        return [line for one in _LINE_END.split(text) if (line := plain_text(one))]
    try:
        return _in_xmp(text)
    except ValueError as error:
        raise DataError(f"{file} is no XMP: {error}.") from None


def read_embedded(photo: Path) -> list[str]:
    """The caption in the XMP within a photo of any format, as ExifTool and Lightroom put it there; none is [].

    XMP is made to be found without knowing the format: as a packet of text. It is looked for in the half megabyte at
    either end of the file, where writers of JPEG, PNG and WebP put it. Raises DataError where it cannot be read.
    """
    with open_ordinary(photo, "picture", DataError) as file, explained(photo, "picture", DataError):
        data = file.read(_END)
        size = file.seek(0, 2)
        file.seek(max(size - _END, len(data)))
        data += file.read(_END)
    end = 0
    while (start := data.find(b"<x:xmpmeta", end)) >= 0 and (end := data.find(b"</x:xmpmeta>", start)) >= 0:
        with suppress(ValueError):  # a damaged packet is no caption, and perhaps no XMP
            if captions := _in_xmp(data[start : end + len(b"</x:xmpmeta>")].decode()):
                return captions
    return []


def _in_xmp(text: str) -> list[str]:
    """The description, or else the alt text; raises ValueError where it is no XMP."""
    if "<!DOCTYPE" in text:  # XMP has none, and what it defines may grow to any size
        raise ValueError("it has a document type")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from None
    for field in _CAPTIONS:
        for element in root.iter(field):
            items = element.findall(f"{_RDF}Alt/{_RDF}li") or [element]
            default = [item for item in items if item.get("{http://www.w3.org/XML/1998/namespace}lang") == "x-default"]
            if caption := plain_text([*default, *items][0].text):
                return [caption]
    return []
