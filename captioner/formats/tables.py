"""Captions as csv and JSON lines: `image`, `caption` and, if wanted, `split`. Each row adds one caption."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from captioner.errors import DataError
from captioner.formats.rows import MALFORMED, Problem, Row, picture_name, plain_text, read_text, split_name, writable

_FORMULA = re.compile(r"[=+\-@＝＋－＠\s]")  # OWASP, "CSV Injection"; the wide ones may count in East Asia


def csv_lines(captions: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Names and captions of pictures -> the header `image,caption`, then a row each, as soon as it is there.

    A row holds line breaks where its caption does.

    A spreadsheet runs a cell that starts with = + - or @ as a formula, and names may come out of a stranger's zip. So
    such a name gets `./` before it, and such a caption a space: the reader takes both off again, where it would take
    the usual apostrophe for a part of the text. Saved as "utf-8-sig", the file keeps its accents in Excel too.
    """
    rows = ((_not_formula("./", name), _not_formula(" ", caption)) for name, caption in captions)
    text = io.StringIO(newline="")
    # With the writer's own line end: with another it would not quote a carriage return.
    writer = csv.writer(text)
    for row in chain([("image", "caption")], rows):
        writer.writerow(row)
        yield text.getvalue().removesuffix("\r\n")
        text.seek(0)
        text.truncate()


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
            alone = isinstance(error, csv.Error) and reader.line_num == first - 1 and columns[-1] == "caption"
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


def json_lines(pictures: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A JSON object a picture, as soon as it is there: `image`, `caption`, and whatever else is known of it."""
    return (json.dumps({key: _all_writable(value) for key, value in one.items()}) for one in pictures)


def read_jsonl(file: Path) -> Iterator[Row | Problem]:
    """The rows of a file with one JSON object a line; malformed ones as problems."""
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield _row(json.loads(line))
        except (ValueError, RecursionError, DataError) as error:
            yield Problem(MALFORMED, f"{file.name}, line {number} ({_reason(error)})")


def read_authors(file: Path) -> dict[str, str]:
    """Who wrote each picture's captions, by the picture's name: the columns `image` and `captions_by` of a csv file.

    Empty where there is no such file.
    """
    if not file.is_file():
        return {}
    rows = csv.DictReader(io.StringIO(read_text(file), newline=""))
    return {
        picture_name(row["image"]): plain_text(row["captions_by"])
        for row in rows
        if {"image", "captions_by"} <= row.keys()
    }


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
    split = split_name(split) if split and split.strip() else ""
    return Row(name, plain_text(caption), split, plain_text(fields.get("captions_by")))


def _reason(error: Exception) -> str:
    return str(error).rstrip(".")


def _all_writable(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_all_writable(part) for part in value]
    return writable(value) if isinstance(value, str) else value


def _not_formula(prefix: str, text: str) -> str:
    return (prefix if _FORMULA.match(text) else "") + writable(text)
