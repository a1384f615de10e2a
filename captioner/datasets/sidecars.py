"""Photos with captions in files beside them: `photo.txt` or `photo.caption`, a caption a line, or `photo.jpg.xmp`."""

from pathlib import Path

from captioner.datasets.dataset import Dataset, gather
from captioner.datasets.finding import named, uncaptioned
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
    for photo in photos:
        sidecar = _sidecar(photo)
        if sidecar is None:
            continue
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


def _sidecar(photo: Path) -> Path | None:
    """The photo's sidecar; what is called after another photo's full name is that one's."""
    for name in sidecar_names(photo.name):
        owner = Path(name).stem
        file = named(photo.parent, name)
        if file and file.is_file() and (owner == photo.name or not named(photo.parent, owner)):
            return file
    return None
