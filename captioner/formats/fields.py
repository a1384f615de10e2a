"""Which field of a row says what: the keys that are read, in any capitals and however their words are parted."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from captioner.errors import DataError
from captioner.formats.rows import Row, picture_name, plain_text, split_name

IMAGE = ("image", "file_name", "path", "image_path", "image_name", "image_file_name", "image_id")
"""The first of them that is there names the picture: one's own, Hugging Face's, `caption --json`'s, COCO results'."""
CAPTION = ("caption", "text")
"""`captions`, `caption_0`, `caption 1` ... are read as well: each adds a caption, and so does each text of a list."""
WANTED = "image (or file_name, path) and caption (or text)"


def picture_key(keys: Iterable[str]) -> str | None:
    """The key that names the picture."""
    plain = {_plain(key): key for key in reversed(list(keys))}
    return next((plain[one] for one in map(_plain, IMAGE) if one in plain), None)


def caption_keys(keys: Sequence[str]) -> list[str]:
    """The keys of the captions, of one name where there are several."""
    for wanted in CAPTION:
        if found := [key for key in keys if re.fullmatch(rf"{wanted}s?\d*", _plain(key))]:
            return found
    return []


def rows_of(fields: Any) -> Iterator[Row]:
    """The rows, one a caption, of a row's fields by their keys; raises DataError, which says what is wrong with it."""
    if not isinstance(fields, dict):
        raise DataError("not an object with `image` and `caption`")
    image, texts, split_key, author_key = _keys(tuple(fields))
    if image is None or not texts:
        raise DataError(f"it has {listed(fields)}: the keys must be {WANTED}")
    picture = _name(fields[image], numbers=_plain(image) == "imageid")
    if not picture:
        raise DataError(f"no {image}")
    captions = [text for key in texts for text in _texts(fields[key])]
    if not captions:
        raise DataError(f"no {texts[0]}")
    split = fields.get(split_key)
    if not isinstance(split, str | None):
        raise DataError("the split is no text")
    split = split_name(split) if split and split.strip() else ""
    author = plain_text(fields.get(author_key))
    keys = (image, texts[0], "split") if split else (image, texts[0])
    for caption in captions:
        yield Row(picture, caption, split, author, keys)


@lru_cache(maxsize=64)  # the rows of a file have the same keys
def _keys(keys: tuple[str, ...]) -> tuple[str | None, list[str], str, str]:
    """The keys of the picture, the captions, the split and the author among these; the last two may be absent."""
    plain = {_plain(key): key for key in keys}
    return picture_key(keys), caption_keys(keys), plain.get("split", "split"), plain.get("captionsby", "captions_by")


def lacking(fields: Mapping[str, Any], *wanted: str) -> str:
    """A remark that names the keys that are there where one of the `wanted` is not; "" where all are."""
    if all(key in fields for key in wanted):
        return ""
    return f" (it has {listed(fields)}: the keys must be {' and '.join(wanted)})"


def listed(keys: Iterable[str]) -> str:
    """The keys for a message; a stranger may call them anything, terminal commands included."""
    text = ", ".join(keys)[:80] or "nothing"
    return text if text.isprintable() else ascii(text)


def _plain(key: str) -> str:
    """What stays of a key that is written in one way or another: `File Name`, `file_name`, `filename`."""
    return re.sub(r"[\W_]", "", key).casefold()


def _name(value: Any, *, numbers: bool) -> str:
    """A picture's name, or COCO's number."""
    if numbers and isinstance(value, float) and value.is_integer():  # as pandas writes a column of numbers with a gap
        value = int(value)
    return str(value) if numbers and isinstance(value, int) and not isinstance(value, bool) else picture_name(value)


def _texts(value: Any) -> list[str]:
    return [text for one in (value if isinstance(value, list) else [value]) if (text := plain_text(one))]
