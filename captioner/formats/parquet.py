"""Parquet files of captions, with the pictures in them, as Hugging Face keeps its data sets. Read with pyarrow.

pyarrow is no requirement: whoever has no such file needs none of its 150 MB.
"""

import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from captioner.errors import DataError
from captioner.files import printable
from captioner.formats.fields import WANTED, caption_keys, listed, picture_key, rows_of
from captioner.formats.rows import MALFORMED, Problem, Row, picture_name

_BATCH = 32
"""Rows that are in memory together, with their pictures."""


def read_parquet(file: Path) -> Iterator[Row | Problem]:
    """The rows of a parquet file, with the bytes of their pictures where it holds them; malformed ones as problems.

    A picture is its name, its bytes, or a struct of `bytes` and `path`; one without a name is called by its row.

    Raises:
        DataError: pyarrow is not installed, the file cannot be read to its end, or its columns name no captions.

    """
    try:
        pyarrow, parquet = map(importlib.import_module, ("pyarrow", "pyarrow.parquet"))
    except ImportError:
        raise DataError(f"{file} is a parquet file, and pyarrow is not installed: pip install pyarrow.") from None
    number = 0
    try:
        with parquet.ParquetFile(file) as content:
            columns = list(content.schema_arrow.names)
            image, captions = picture_key(columns), caption_keys(columns)
            if image is None or not captions:
                raise DataError(f"{file} has the columns {listed(columns)}: it needs {WANTED}.")
            name = picture_key([column for column in columns if column != image])
            others = [column for column in columns if column == name or column.lower() in ("split", "captions_by")]
            for batch in content.iter_batches(batch_size=_BATCH, columns=[image, *captions, *others]):
                for fields in batch.to_pylist():
                    number += 1
                    try:
                        yield from list(_rows(fields, image, fields.get(name), number))
                    except DataError as error:
                        yield Problem(MALFORMED, f"{file.name}, row {number} ({str(error).rstrip('.')})")
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        reason = printable(str(error).partition("\n")[0][:200])  # it may quote the file
        raise DataError(f"{file} cannot be read as parquet ({reason}): download or write it again.") from None


def _rows(fields: dict[str, Any], image: str, name: Any, number: int) -> Iterator[Row]:
    """The rows of a row by its columns; `name` is what another column calls the picture."""
    value = fields[image]
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, value)
    if isinstance(data, bytes) and data:
        called = PurePosixPath(picture_name(path) or picture_name(name)).name or f"row {number}"
        yield from (replace(row, picture=data) for row in rows_of({**fields, image: called}))
    else:
        yield from rows_of({**fields, image: path})
