"""Photos with captions in files beside them: `photo.txt` or `photo.caption`, a caption a line, or `photo.jpg.xmp`."""

from pathlib import Path

from captioner.datasets.dataset import Dataset, gather
from captioner.datasets.finding import travelled, uncaptioned
from captioner.datasets.table import finish_own
from captioner.errors import DataError
from captioner.formats import read_sidecar, sidecar_names
from captioner.formats.rows import MALFORMED, Problem, Row
from captioner.pictures import find_images

UNLISTED = "folder that cannot be listed"


def read(path: Path) -> Dataset | None:
    """The data set in a folder, at any depth; None where no photo has a caption beside it."""
    if path.is_file():
        return None
    rows: list[Row | Problem] = []
    sources: dict[str, Path] = {}
    kinds: set[str] = set()
    photos = find_images(path, unreadable=lambda error: rows.append(Problem(UNLISTED, error.subject)))
    beside: dict[Path, dict[str, list[str]]] = {}
    for photo in photos:
        if photo.parent not in beside:
            names: dict[str, list[str]] = {}
            for file in photo.parent.iterdir():
                names.setdefault(travelled(file.name), []).append(file.name)
            beside[photo.parent] = names
        found = _sidecar(photo.name, beside[photo.parent])
        if found is None:
            continue
        sidecar = photo.parent / found
        name = photo.relative_to(path).as_posix()
        sources[name] = photo
        kinds.add(sidecar.suffix.lower())
        try:
            rows += [Row(name, caption) for caption in read_sidecar(sidecar)]
        except DataError as error:
            rows.append(Problem(MALFORMED, f"{sidecar.relative_to(path)} ({str(error).rstrip('.')})"))
    if not any(isinstance(row, Row) for row in rows):
        return None
    drafts, problems = gather(rows, lambda row: sources[row.name])
    problems += uncaptioned(path, drafts)
    notes = [f"captions from {' and '.join(sorted(kinds))} files beside the pictures"]
    return finish_own("sidecars", path, drafts, problems, notes)


def _sidecar(photo: str, names: dict[str, list[str]]) -> str | None:
    """The photo's sidecar among the names beside it; what is called after another photo's full name is that one's."""
    for name in sidecar_names(photo):
        found = names.get(travelled(name), [])
        owner, _, _ = name.rpartition(".")
        if (name in found or len(found) == 1) and (owner == photo or travelled(owner) not in names):
            return name if name in found else found[0]
    return None
