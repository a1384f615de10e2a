"""Which image an id means that has been through other programs: COCO's number with zeros, as a file's name, as a path.

What is written exactly like an image's id or name means that one. Otherwise ways of reading it are tried, from the
strictest to the loosest; the first one that fits any image decides, and where it fits several the id is ambiguous.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import PurePosixPath

from captioner.datasets.dataset import CaptionedImage
from captioner.pictures import SUFFIXES

_NUMBER = re.compile(r"(?:coco_[a-z]+\d{4}_)?0*(\d{1,18})")


def finder(called: Sequence[Iterable[int | str]]) -> Callable[[int | str], list[int]]:
    """`called`: for each of some things what it may be called -> which of them, by their places, an id may mean.

    None, one, or several, which is ambiguous.
    """

    @cache  # made when an id asks for it: most are exact
    def places(way: Callable[[str], str]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for place, labels in enumerate(called):
            for form in {way(str(label)) for label in labels} - {""}:
                found.setdefault(form, []).append(place)
        return found

    def find(key: int | str) -> list[int]:
        for way in (str, _path, _file, _stem, _number):
            if fitting := places(way).get(way(str(key)), []):
                return _likest(fitting, called, str(key)) if way is _file else fitting
        return []

    return find


def image_finder(images: Sequence[CaptionedImage]) -> Callable[[int | str], list[int]]:
    """`finder` for images, which are called by their ids and names."""
    return finder([(image.image_id, image.name) for image in images])


def _path(text: str) -> str:
    """A path as it may be spelled elsewhere: other slashes, `./` in front, another Unicode form, another case."""
    return PurePosixPath(unicodedata.normalize("NFC", text).casefold().replace("\\", "/")).as_posix()


def _file(text: str) -> str:
    return PurePosixPath(_path(text)).name


def _stem(text: str) -> str:
    name = PurePosixPath(_file(text))
    return name.stem if name.suffix in SUFFIXES else name.name


def _number(text: str) -> str:
    """COCO's number in a file's name, or a name that is a number, without zeros in front; "" for other names."""
    match = _NUMBER.fullmatch(_stem(text))
    return match[1] if match else ""


def _likest(fitting: list[int], called: Sequence[Iterable[int | str]], key: str) -> list[int]:
    """Of things with the same file name those that share most folders above it with the key."""

    def shared(place: int) -> int:
        return max(_same_end(_path(str(label)), _path(key)) for label in called[place])

    most = max(map(shared, fitting))
    return [place for place in fitting if shared(place) == most]


def _same_end(one: str, other: str) -> int:
    count = 0
    for mine, yours in zip(reversed(one.split("/")), reversed(other.split("/")), strict=False):
        if mine != yours:
            break
        count += 1
    return count
