"""Your own folder: pictures, and `captions.csv` or `captions.jsonl` with `image`, `caption` and, if wanted, `split`.

A picture's name is relative to the folder or to its `images/`; absolute paths work too. Each row adds one caption.
Without splits a tenth of the pictures validates, by hash of the name.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captioner.datasets.dataset import (
    MALFORMED,
    UNPLACED,
    Dataset,
    Problem,
    Row,
    finish,
    gather,
    only,
    picture_folders,
    picture_name,
    plain_text,
    read_text,
    split_name,
    uncaptioned,
)
from captioner.errors import DataError

CAPTION_FILES = ("captions.csv", "captions.jsonl", "captions.txt")
HELD_OUT = 1 / 10


def read(path: Path) -> Dataset | None:
    """The data set at `path`, a folder or its csv or jsonl file; None where there is no such file."""
    if path.is_file():
        known = path.suffix.lower() in (".csv", ".tsv", ".jsonl") or path.name in CAPTION_FILES
        file = path if known else None
    else:
        file = only([path / name for name in CAPTION_FILES if (path / name).is_file()])
    if file is None:
        return None
    root = file.parent
    drafts, problems = gather(
        read_jsonl(file) if file.suffix.lower() == ".jsonl" else read_csv(file), picture_folders(root)
    )
    problems += uncaptioned(root, drafts)
    if not any(draft.splits for draft in drafts.values()):
        for draft in drafts.values():
            draft.splits = {"train"}
        return finish("table", path, drafts, problems, held_out=HELD_OUT)
    problems += [Problem(UNPLACED, name) for name, draft in drafts.items() if not draft.splits]
    return finish("table", path, {name: draft for name, draft in drafts.items() if draft.splits}, problems)


def read_csv(file: Path) -> Iterator[Row | Problem]:
    """The rows of a csv file, parted by comma, semicolon or tab as its first line is; malformed ones as problems.

    Raises:
        DataError: the file is not UTF-8, or its first line does not name the columns.

    """
    text = read_text(file)
    header, *rows = re.split(r"\r\n|\r|\n", text, maxsplit=1)
    for delimiter in (",", ";", "\t"):
        columns = [column.strip().strip('"').lower() for column in header.split(delimiter)]
        if {"image", "caption"} <= set(columns):
            break
    else:
        wanted = "the columns `image,caption` and, if wanted, `split`"
        raise DataError(f"The first line of {file} is {header[:80]!r}: it must name {wanted}.")
    # Strict: a quote that never closes is an error here, where the csv module would silently swallow the rows after it.
    lines = io.StringIO("".join(rows), newline="")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    written: list[str] = []
    while True:
        first = reader.line_num + 2
        try:
            fields = next(reader, None)
            if fields is None:
                return
            if not any(map(str.strip, fields)):
                continue
            if len(fields) > len(columns) and columns[-1] == "caption":
                # Commas that nobody quoted belong to the caption, where it comes last.
                fields[len(columns) - 1 :] = [f"{delimiter} ".join(fields[len(columns) - 1 :])]
            if len(fields) != len(columns):
                raise DataError(f"{len(fields)} fields for {len(columns)} columns")
            row = _row(dict(zip(columns, fields, strict=True)))
        except (csv.Error, DataError) as error:
            written = written or re.split(r"\r\n|\r|\n", "".join(rows))
            alone = reader.line_num == first - 1 and columns[-1] == "caption"
            if alone and (plain := _unquoted(written[first - 2], delimiter, columns)):
                yield plain
                continue
            last = reader.line_num + 1
            where = f"line {first}" if last <= first else f"lines {first} to {last}"
            yield Problem(MALFORMED, f"{file.name}, {where} ({_reason(error)})")
        else:
            yield row


def _unquoted(line: str, delimiter: str, columns: list[str]) -> Row | None:
    """The row of a line whose caption begins with a quote that nobody meant as csv's: `a.jpg,"STOP" on a sign`."""
    fields = line.split(delimiter, len(columns) - 1)
    if len(fields) != len(columns) or line.count('"') % 2:
        return None
    try:
        return _row(dict(zip(columns, map(str.strip, fields), strict=True)))
    except DataError:
        return None


def read_jsonl(file: Path) -> Iterator[Row | Problem]:
    """The rows of a file with one JSON object a line; malformed ones as problems."""
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield _row(json.loads(line))
        except (ValueError, RecursionError, DataError) as error:
            yield Problem(MALFORMED, f"{file.name}, line {number} ({_reason(error)})")


def _row(fields: Any) -> Row:
    """A row from its fields by column; raises DataError, which says what is wrong with it."""
    if not isinstance(fields, dict):
        raise DataError("not an object with `image` and `caption`")
    image = fields.get("image", fields.get("path"))  # `path`: as `caption --json` writes it
    name, caption, split = picture_name(image), fields.get("caption"), fields.get("split")
    if not {"image", "path"} & fields.keys() or "caption" not in fields:
        keys = ", ".join(fields)[:80] or "nothing"
        raise DataError(f"it has {keys}: the keys must be image and caption")
    if not name:
        raise DataError("no image")
    if not isinstance(caption, str) or not plain_text(caption):
        raise DataError("no caption")
    if not isinstance(split, str | None):
        raise DataError("the split is no text")
    return Row(name, plain_text(caption), split_name(split) if split and split.strip() else "")


def _reason(error: Exception) -> str:
    return str(error).rstrip(".")
