"""Captions as csv and JSON: `image`, `caption` and, if wanted, `split` (`fields`). Each row adds a caption or more."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from captioner.errors import DataError
from captioner.formats.fields import WANTED, caption_keys, listed, picture_key, rows_of
from captioner.formats.rows import MALFORMED, Problem, Row, picture_name, plain_text, read_json, read_text, writable

_UNNAMED = re.compile(r"[^\t]+\.\w{2,5}\t.*")
_LINES = re.compile(r"\s*\{.*\}\s*\n\s*\{")  # an object, and another one on the next line
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

    Without a line that names the columns it is read where each line is a picture's name, a tab and the caption, as
    `caption` prints them.

    Raises:
        DataError: the file is not UTF-8, or its first line does not name the columns.

    """
    text = read_text(file)
    header, *rows = re.split(r"\r\n|\r|\n", text, maxsplit=1)
    first = 2
    for delimiter in (",", ";", "\t"):
        columns = [column.strip().strip('"') for column in header.split(delimiter)]
        if picture_key(columns) and caption_keys(columns):
            break
    else:
        if not _UNNAMED.fullmatch(header):
            wanted = f"it must name the columns `image,caption` and, if wanted, `split`. Read are {WANTED}"
            raise DataError(f"The first line of {file} is {header[:80]!r}: {wanted}.")
        columns, rows, first = ["image", "caption"], [text], 1
    # Strict: a quote that never closes is an error here, where the csv module would silently swallow the rows after it.
    lines = io.StringIO("".join(rows), newline="")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    caption_is_last = columns[-1] in caption_keys(columns)
    written: list[str] = []
    while True:
        line = reader.line_num
        try:
            fields = next(reader, None)
            if fields is None:
                return
            if not any(map(str.strip, fields)):
                continue
            if len(fields) > len(columns) and caption_is_last:
                # Commas that nobody quoted belong to the caption, where it comes last.
                fields[len(columns) - 1 :] = [f"{delimiter} ".join(fields[len(columns) - 1 :])]
            if len(fields) != len(columns):
                raise DataError(f"{len(fields)} fields for {len(columns)} columns")
            found = list(rows_of(dict(zip(columns, fields, strict=True))))
        except (csv.Error, DataError) as error:
            written = written or re.split(r"\r\n|\r|\n", "".join(rows))
            alone = isinstance(error, csv.Error) and reader.line_num == line + 1 and caption_is_last
            if alone and (plain := _unquoted(written[line], delimiter, columns)):
                yield from plain
                continue
            last = reader.line_num + first - 1
            where = f"line {line + first}" if last <= line + first else f"lines {line + first} to {last}"
            yield Problem(MALFORMED, f"{file.name}, {where} ({_reason(error)})")
        else:
            yield from found


def _unquoted(line: str, delimiter: str, columns: list[str]) -> list[Row]:
    """The rows of a line whose caption begins with a quote that nobody meant as csv's: `a.jpg,"STOP" on a sign`."""
    fields = line.split(delimiter, len(columns) - 1)
    if len(fields) != len(columns) or line.count('"') % 2:
        return []
    try:
        return list(rows_of(dict(zip(columns, map(str.strip, fields), strict=True))))
    except DataError:
        return []


def json_lines(pictures: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A JSON object a picture, as soon as it is there: `image`, `caption`, and whatever else is known of it."""
    return (json.dumps({key: _all_writable(value) for key, value in one.items()}) for one in pictures)


def read_json_rows(file: Path) -> Iterator[Row | Problem]:
    """The rows of a file with one JSON object a line, or with a list of them; malformed ones as problems.

    Raises:
        DataError: the file is not UTF-8, or a `.json` file that is neither.

    """
    text = read_text(file)
    whole = file.suffix.lower() == ".json" and not _LINES.match(text)
    if whole or text.lstrip().startswith("["):
        try:
            entries = read_json(file)
        except DataError:
            if whole:
                raise
        else:
            if isinstance(entries, dict) and picture_key(entries) and caption_keys(list(entries)):
                entries = [entries]
            if not isinstance(entries, list):
                found = f"an object with {listed(entries)}" if isinstance(entries, dict) else "something else"
                raise DataError(f"{file} must hold a list of objects with {WANTED}: it holds {found}.")
            yield from _objects(file, "entry", enumerate(entries, start=1), lambda entry: entry)
            return
    lines = ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())
    yield from _objects(file, "line", lines, json.loads)


def _objects(
    file: Path, what: str, numbered: Iterable[tuple[int, Any]], read: Callable[[Any], Any]
) -> Iterator[Row | Problem]:
    for number, one in numbered:
        try:
            yield from list(rows_of(read(one)))
        except (ValueError, RecursionError, DataError) as error:
            yield Problem(MALFORMED, f"{file.name}, {what} {number} ({_reason(error)})")


def read_authors(file: Path) -> dict[str, str]:
    """Who wrote each picture's captions, by the picture's name: the columns `image` and `captions_by` of a csv file.

    Empty where there is no such file.
    """
    if not file.is_file():
        return {}
    found = {}
    for row in csv.DictReader(io.StringIO(read_text(file), newline="")):
        row = {str(key).strip().lower(): value for key, value in row.items()}
        image = picture_key(row)
        if image and "captions_by" in row:
            found[picture_name(row[image])] = plain_text(row["captions_by"])
    return found


def _reason(error: Exception) -> str:
    return str(error).rstrip(".")


def _all_writable(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_all_writable(part) for part in value]
    return writable(value) if isinstance(value, str) else value


def _not_formula(prefix: str, text: str) -> str:
    return (prefix if _FORMULA.match(text) else "") + writable(text)
