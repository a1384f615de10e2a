"""Sentences without pictures: a text file, one a line, from which a decoder can learn to write before it sees."""

from pathlib import Path

from captioner.datasets.dataset import Dataset
from captioner.errors import DataError
from captioner.formats.rows import plain_text, read_text


def read(path: Path) -> Dataset | None:
    """The sentences of a `.txt` file; None for anything else. Raises DataError for a file that holds none."""
    if not path.is_file() or path.suffix.lower() != ".txt":
        return None
    sentences = tuple(filter(None, map(plain_text, read_text(path).split("\n"))))
    if not sentences:
        raise DataError(f"{path} holds no sentence: it is a text file with one a line.")
    return Dataset("sentences", str(path), (), sentences=sentences)
