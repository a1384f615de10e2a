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
from pathlib import PurePosixPath
from xml.sax.saxutils import escape

from captioner.formats.rows import writable

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

    So trainers of image generators expect them. Where that would be another picture's too (`photo.png`; `Photo.jpg`,
    for systems that see no difference), it is `photo.jpg.txt`.
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
    return writable(caption) + "\n"


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
