"""Your own folder: pictures, and `captions.csv` or `captions.jsonl` with `image`, `caption` and, if wanted, `split`.

A picture's name is relative to the folder or to its `images/`; absolute paths work too. Each row adds one caption.
Without splits a tenth of the pictures validates, by hash of the name. Who wrote the captions ("people", "model") may
stand in a column `captions_by`, here or in a `sources.csv` beside it that has the column `image` too.
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
    for name, author in _authors(root / "sources.csv").items():
        if name in drafts:
            drafts[name].author = drafts[name].author or author
    if not any(draft.splits for draft in drafts.values()):
        for draft in drafts.values():
            draft.splits = {"train"}
        return finish("table", path, drafts, problems, held_out=HELD_OUT)
    problems += [Problem(UNPLACED, name) for name, draft in drafts.items() if not draft.splits]
    return finish("table", path, {name: draft for name, draft in drafts.items() if draft.splits}, problems)


def _authors(file: Path) -> dict[str, str]:
    """Who wrote each picture's captions, by the picture's name, as `sources.csv` says; empty without such a file."""
    if not file.is_file():
        return {}
    rows = csv.DictReader(io.StringIO(read_text(file), newline=""))
    return {
        picture_name(row["image"]): plain_text(row["captions_by"])
        for row in rows
        if {"image", "captions_by"} <= row.keys()
    }


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
            last = reader.line_num + 1
            where = f"line {first}" if last <= first else f"lines {first} to {last}"
            yield Problem(MALFORMED, f"{file.name}, {where} ({_reason(error)})")
        else:
            yield row


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
    name, caption, split = picture_name(fields.get("image")), fields.get("caption"), fields.get("split")
    if not name:
        raise DataError("no image")
    if not isinstance(caption, str) or not plain_text(caption):
        raise DataError("no caption")
    if not isinstance(split, str | None):
        raise DataError("the split is no text")
    split = split_name(split) if split and split.strip() else ""
    return Row(name, plain_text(caption), split, plain_text(fields.get("captions_by")))


def _reason(error: Exception) -> str:
    return str(error).rstrip(".")
