"""Photos with captions in files beside them (`photo.txt`, `photo.caption`, `photo.jpg.xmp`), or inside them."""

from pathlib import Path

from captioner.datasets.dataset import Dataset, gather
from captioner.datasets.finding import travelled, uncaptioned
from captioner.datasets.table import finish_own
from captioner.errors import DataError
from captioner.formats import read_embedded, read_sidecar, sidecar_names
from captioner.formats.rows import MALFORMED, Problem, Row
from captioner.pictures import find_images

UNLISTED = "folder that cannot be listed"
_LOOKED_AT = 64
"""Photos of a folder that are looked into for captions: without one among them it is no such data set."""


def read(path: Path) -> Dataset | None:
    """The data set in a folder, at any depth; None where no photo has a caption beside it or inside."""
    if path.is_file():
        return None
    rows: list[Row | Problem] = []
    photos = find_images(path, unreadable=lambda error: rows.append(Problem(UNLISTED, error.subject)))
    beside = _beside(photos)
    kinds: set[str] = set()
    bare: list[Path] = []
    for photo in photos:
        try:
            captions = read_sidecar(beside[photo]) if photo in beside else []
        except DataError as error:
            rows.append(Problem(MALFORMED, f"{beside[photo].relative_to(path)} ({str(error).rstrip('.')})"))
            continue
        if captions:
            kinds.add(beside[photo].suffix.lower())
            rows += _rows(path, photo, captions)
        else:
            bare.append(photo)
    inside: list[Row] = []
    if any(map(_inside, bare[:: max(1, len(bare) // _LOOKED_AT)])):
        inside = [row for photo in bare for row in _rows(path, photo, _inside(photo))]
    if not kinds and not inside:
        return None
    drafts, problems = gather([*rows, *inside], lambda row: path / row.name)
    notes = [f"captions from {' and '.join(sorted(kinds))} files beside the pictures"] if kinds else []
    notes += ["captions from inside the pictures"] if inside else []
    kind = "sidecars" if kinds else "inside"
    return finish_own(kind, path, drafts, [*problems, *uncaptioned(path, drafts)], notes)


def _rows(root: Path, photo: Path, captions: list[str]) -> list[Row]:
    return [Row(photo.relative_to(root).as_posix(), caption) for caption in captions]


def _inside(photo: Path) -> list[str]:
    try:
        return read_embedded(photo)
    except DataError:  # the data check says what is wrong with it
        return []


def _beside(photos: list[Path]) -> dict[Path, Path]:
    """The sidecars of the photos that have one."""
    found: dict[Path, Path] = {}
    folders: dict[Path, dict[str, list[str]]] = {}
    for photo in photos:
        if photo.parent not in folders:
            names: dict[str, list[str]] = {}
            for file in photo.parent.iterdir():
                names.setdefault(travelled(file.name), []).append(file.name)
            folders[photo.parent] = names
        if name := _sidecar(photo.name, folders[photo.parent]):
            found[photo] = photo.parent / name
    return found


def _sidecar(photo: str, names: dict[str, list[str]]) -> str | None:
    """The photo's sidecar among the names beside it; what is called after another photo's full name is that one's."""
    for name in sidecar_names(photo):
        found = names.get(travelled(name), [])
        owner, _, _ = name.rpartition(".")
        if (name in found or len(found) == 1) and (owner == photo or travelled(owner) not in names):
            return name if name in found else found[0]
    return None
