"""What caption files are made of, and what their readers and writers share."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from captioner.errors import DataError

SPLITS = ("train", "val", "test")

MALFORMED = "malformed row"

_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "restval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}

# What neither UTF-8 nor XML 1.0 (section 2.2) can hold: control characters, and the lone surrogates that stand in
# Python for the undecodable bytes of a file's name.
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Row:
    """One caption as a file gives it; `split` and `author` are "" where the row names none.

    `keys` are those that were read; `picture` is the picture's own file, where the row has it.
    """

    name: str
    caption: str
    split: str = ""
    author: str = ""
    keys: tuple[str, ...] = field(default=("image", "caption"), compare=False)
    picture: bytes | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Problem:
    """Something that keeps a picture or a row out of the data set: what is wrong, and with which one."""

    kind: str
    name: str


def writable(text: str) -> str:
    """The text, with numbers for the characters that a file cannot hold."""
    return _UNWRITABLE.sub(lambda character: f"%{ord(character[0]):02X}", text)


def split_name(text: str) -> str:
    """`train`, `val` or `test` for any of their usual names; raises DataError for anything else."""
    try:
        return _SPLIT_NAMES[text.strip().lower()]
    except KeyError:
        raise DataError(f"There is no split {text!r}: the splits are {', '.join(SPLITS)}.") from None


def picture_name(value: Any) -> str:
    """A picture's name as a path with forward slashes, or "" where `value` cannot be one."""
    text = plain_text(value)
    return PurePosixPath(text.replace("\\", "/")).as_posix() if text else ""


def plain_text(value: Any) -> str:
    """`value` stripped, or "" where it is no text that could be written to a file."""
    if not isinstance(value, str):
        return ""
    try:
        value.encode()  # JSON can smuggle in half a surrogate pair
    except UnicodeEncodeError:
        return ""
    return value.strip()


def read_text(file: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark, or of a UTF-16 file with one (PowerShell, Excel).

    Raises:
        DataError: it cannot be read, or is neither.

    """
    try:
        data = file.read_bytes()
        return data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError as error:
        byte = error.start
        raise DataError(f"{file} is not UTF-8 text (byte {byte:,} is wrong): save it as UTF-8.") from None
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}.") from None


def read_json(file: Path) -> Any:
    """What a JSON file holds; raises DataError where it is no JSON."""
    text = read_text(file)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{file} is not whole JSON ({where}: {error.msg}): download or write it again.") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} cannot be read as JSON: {error}.") from None
