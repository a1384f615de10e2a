"""COCO's results format: what a system says of each image, a JSON list of {"image_id": ..., "caption": ...}
(https://cocodataset.org/#format-results).
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from captioner.errors import DataError
from captioner.formats.rows import Problem, read_json, read_text, writable

IDS = ("image_id", "image", "path")
"""Keys of what an entry is about, the first one there is: COCO's, and those of our csv and JSON lines."""

MALFORMED_RESULT = "malformed result"

_WANTED = "the keys must be image_id and caption"

_COCO_NAME = re.compile(r"(?:COCO_[a-z]+\d{4}_)?(\d{12})\.\w+")


def coco_results(captions: Iterable[tuple[str, str]]) -> str:
    """Names and captions of pictures -> a results file's content.

    The id is COCO's number where the file's name holds one (`000000391895.jpg`, `COCO_val2014_000000391895.jpg`),
    elsewhere the file's name, and the whole path where several pictures have that number or name.
    """
    captions = list(captions)
    paths = [PurePosixPath(writable(name).replace("\\", "/")) for name, _ in captions]
    numbers = [int(match[1]) if (match := _COCO_NAME.fullmatch(path.name)) else None for path in paths]
    counts = Counter([*numbers, *(path.name for path in paths)])
    ids = []
    for number, path in zip(numbers, paths, strict=True):
        short = [name for name in (number, path.name) if name is not None and counts[name] == 1]
        ids.append([*short, path.as_posix()][0])
    return results_of_ids(zip(ids, (caption for _, caption in captions), strict=True))


def results_of_ids(captions: Iterable[tuple[int | str, str]]) -> str:
    """The same where the ids are known: ids and captions -> a results file's content."""
    return json.dumps([{"image_id": one, "caption": writable(caption)} for one, caption in captions])


def read_results(path: Path) -> list[Any]:
    """The entries of a results file, as they are: of a JSON list, or of JSON lines or csv with the same keys.

    A line that is no entry is a Problem in its place. Raises DataError where the file holds none.
    """
    text = read_text(path).lstrip()
    first = text.partition("\n")[0].strip()
    suffix = path.suffix.lower()
    if suffix == ".jsonl" or (first.startswith("{") and first != text.rstrip() and _object(first) is not None):
        entries: Any = list(_lines(text))
    elif suffix in (".csv", ".tsv") or _delimiter(first):
        entries = list(_rows(path, text, first))
    else:
        entries = read_json(path)
        if isinstance(entries, dict) and not keys_of(entries):
            entries = [entries]
    if not isinstance(entries, list) or not entries:
        raise DataError(
            f'{path} holds no results: they are a JSON list of {{"image_id": ..., "caption": ...}}, or JSON lines or '
            "csv with the same keys."
        )
    return entries


def keys_of(entry: Any) -> str:
    """What is wrong with the keys of an entry, by their names; "" where they are as they must be."""
    if not isinstance(entry, dict):
        return f"is no object: {_WANTED}"
    if "caption" in entry and any(key in entry for key in IDS):
        return ""
    return f"has {', '.join(map(str, entry))[:80] or 'no keys'}: {_WANTED}"


def _object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _lines(text: str) -> Iterator[dict[str, Any] | Problem]:
    """The entries of JSON lines."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            entry = _object(line)
            wrong = "is no JSON object" if entry is None else keys_of(entry)
            yield Problem(MALFORMED_RESULT, f"line {number} {wrong}") if wrong or entry is None else entry


def _rows(path: Path, text: str, header: str) -> Iterator[dict[str, Any] | Problem]:
    """The entries of a csv file; raises DataError where its first line does not name the columns."""
    delimiter = _delimiter(header)
    if not delimiter:
        raise DataError(f"The first line of {path} is {header[:80]!r}: it must name the columns image_id,caption.")
    columns = _columns(header, delimiter)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    next(reader)
    for fields in reader:
        if len(fields) > len(columns) and columns[-1] == "caption":  # commas that nobody quoted belong to it
            fields[len(columns) - 1 :] = [f"{delimiter} ".join(fields[len(columns) - 1 :])]
        if len(fields) == len(columns):
            yield dict(zip(columns, fields, strict=True))
        elif any(map(str.strip, fields)):
            wrong = f"has {len(fields)} fields for {len(columns)} columns"
            yield Problem(MALFORMED_RESULT, f"line {reader.line_num} {wrong}")


def _delimiter(header: str) -> str:
    """What parts the columns of a csv file, "" where its first line does not name those of results."""
    return next((one for one in (",", ";", "\t") if not keys_of(dict.fromkeys(_columns(header, one)))), "")


def _columns(header: str, delimiter: str) -> list[str]:
    return [column.strip().strip('"').lower() for column in header.split(delimiter)]
