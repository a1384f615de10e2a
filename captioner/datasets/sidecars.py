"""Photos with captions in files beside them (`photo.txt`, `photo.caption`, `photo.jpg.xmp`), or inside them."""

from collections.abc import Iterable
from pathlib import Path

from captioner.datasets.dataset import Dataset, gather
from captioner.datasets.finding import travelled, uncaptioned
from captioner.datasets.table import finish_own
from captioner.errors import DataError
from captioner.formats import read_embedded as read_metadata
from captioner.formats import read_sidecar, sidecar_names
from captioner.formats.rows import MALFORMED, Problem, Row
from captioner.pictures import find_images

UNLISTED = "folder that cannot be listed"
_LOOKED_AT = 64
"""Photos of a folder that are looked into for captions: without one among them it is no such data set."""


def read(path: Path) -> Dataset | None:
    """The data set in a folder, at any depth; None where no photo has a caption beside it."""
    photos, problems = _photos(path)
    found: dict[Path, Path] = {}
    beside: dict[Path, dict[str, list[str]]] = {}
    for photo in photos:
        if photo.parent not in beside:
            names: dict[str, list[str]] = {}
            for file in photo.parent.iterdir():
                names.setdefault(travelled(file.name), []).append(file.name)
            beside[photo.parent] = names
        if name := _sidecar(photo.name, beside[photo.parent]):
            found[photo] = photo.parent / name
    rows: list[Row | Problem] = []
    for photo, sidecar in found.items():
        try:
            rows += [Row(photo.relative_to(path).as_posix(), caption) for caption in read_sidecar(sidecar)]
        except DataError as error:
            rows.append(Problem(MALFORMED, f"{sidecar.relative_to(path)} ({str(error).rstrip('.')})"))
    kinds = sorted({sidecar.suffix.lower() for sidecar in found.values()})
    note = f"captions from {' and '.join(kinds)} files beside the pictures"
    return _dataset("sidecars", path, [*problems, *rows], note)


def read_embedded(path: Path) -> Dataset | None:
    """The data set in a folder, at any depth; None where no photo has a caption in its own metadata."""
    photos, problems = _photos(path)
    if not any(map(_inside, photos[:: max(1, len(photos) // _LOOKED_AT)])):
        return None
    rows = (Row(photo.relative_to(path).as_posix(), caption) for photo in photos for caption in _inside(photo))
    return _dataset("inside", path, [*problems, *rows], "captions from inside the pictures")


def _inside(photo: Path) -> list[str]:
    try:
        return read_metadata(photo)
    except DataError:  # the data check says what is wrong with it
        return []


def _photos(path: Path) -> tuple[list[Path], list[Problem]]:
    """The photos in a folder, at any depth, and what could not be listed; none where it is a file."""
    problems: list[Problem] = []
    if path.is_file():
        return [], problems
    photos = find_images(path, unreadable=lambda error: problems.append(Problem(UNLISTED, error.subject)))
    return photos, problems


def _dataset(kind: str, path: Path, rows: Iterable[Row | Problem], note: str) -> Dataset | None:
    if not any(isinstance(row, Row) for row in rows):
        return None
    drafts, problems = gather(rows, lambda row: path / row.name)
    return finish_own(kind, path, drafts, [*problems, *uncaptioned(path, drafts)], [note])


def _sidecar(photo: str, names: dict[str, list[str]]) -> str | None:
    """The photo's sidecar among the names beside it; what is called after another photo's full name is that one's."""
    for name in sidecar_names(photo):
        found = names.get(travelled(name), [])
        owner, _, _ = name.rpartition(".")
        if (name in found or len(found) == 1) and (owner == photo or travelled(owner) not in names):
            return name if name in found else found[0]
    return None
