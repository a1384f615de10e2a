"""Where caption files and pictures lie: names as they are written, and as they have become on their ways."""

import os
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from captioner.datasets.dataset import UNCAPTIONED, Draft
from captioner.datasets.ids import finder
from captioner.errors import DataError
from captioner.formats.rows import Problem
from captioner.pictures import SUFFIXES

# Where the known downloads put their pictures; "" is the data set's own folder.
_PICTURE_FOLDERS = (
    *("", "images", "Flicker8k_Dataset", "Flickr8k_Dataset"),
    *("flickr30k_images", "flickr30k-images", "flickr30k_images/flickr30k_images"),
    *("train2017", "val2017", "train2014", "val2014"),
    *("images/train2017", "images/val2017", "images/train2014", "images/val2014"),
)


def picture_folders(*roots: Path, first: str = "") -> list[Path]:
    """The folders under `roots` where pictures may lie, likeliest first; `first` is tried before the usual names."""
    names = dict.fromkeys((first, f"images/{first}", *_PICTURE_FOLDERS) if first else _PICTURE_FOLDERS)
    found = (named(root, name) for root in roots for name in names)
    return [folder for folder in dict.fromkeys(found) if folder and folder.is_dir()]


def named(folder: Path, name: str) -> Path | None:
    """What lies in a folder, or below, by this name: in these very letters, or else the one thing in other capitals."""
    if os.path.exists(folder / name):
        return folder / name
    for part in name.split("/"):
        found = _listing(folder, folder.stat().st_mtime_ns).get(travelled(part), []) if folder.is_dir() else []
        if len(found) != 1:
            return None
        folder = found[0]
    return folder


@lru_cache(maxsize=32)
def _listing(folder: Path, changed: int) -> dict[str, list[Path]]:  # noqa: ARG001 - `changed` makes old answers go
    """What lies in a folder, by what stays of the names; nothing where it may not be listed."""
    found: dict[str, list[Path]] = {}
    try:
        for path in folder.iterdir():
            found.setdefault(travelled(path.name), []).append(path)
    except OSError:
        return {}
    return found


def find_picture(folders: Sequence[Path], *names: str) -> Path:
    """The first file of one of these names in one of these folders; where there is none, where it should have been.

    Where none has the very name, the one file that differs from it no more than names do that have travelled: in case
    (cameras), in Unicode form (a Mac's zips), in its slashes, or by the way to the folder in front of it, as
    `caption my-photos --format csv` writes it. Where several fit, none does.
    """
    # os.path answers "no" where pathlib raises: names with NUL bytes, or longer than a file name may be.
    for path in (folder / name for name in names for folder in folders):
        if os.path.exists(path):
            return path
    for name in map(travelled, names):
        fitting = {
            path
            for folder in folders
            for tail in (name, _below(folder, name))
            for path in _files(folder, folder.stat().st_mtime_ns).get(tail, ())
        }
        if len(fitting) == 1:
            return fitting.pop()
    return folders[0] / names[0]


def find_own(root: Path, name: str, folders: Sequence[Path]) -> Path:
    """As `find_picture`, for a folder of one's own: a name without a way to it may be of a picture at any depth.

    It may lack its ending then, or be COCO's number alone, as COCO results have it. Where several fit, none does.
    """
    path = find_picture(folders, name)
    if "/" in name or os.path.exists(path):
        return path
    pictures, find = _pictures(root, root.stat().st_mtime_ns)
    fitting = find(name)
    return pictures[fitting[0]] if len(fitting) == 1 else path


@lru_cache(maxsize=2)
def _pictures(root: Path, changed: int) -> tuple[list[Path], Callable[[str], list[int]]]:
    """The pictures in a folder and below, and what finds their places by what they may be called."""
    files = [path for paths in _files(root, changed).values() for path in paths if path.suffix.lower() in SUFFIXES]
    return files, finder([[path.relative_to(root).as_posix()] for path in files])


def _below(folder: Path, name: str) -> str:
    """What follows the folder's own name in a picture's, or "" where it is not there."""
    own = f"/{travelled(folder.resolve().name)}/"
    return f"/{name}".rpartition(own)[2] if own in f"/{name}" else ""


def travelled(name: str) -> str:
    """What stays of a name on all its ways: names of one file, on whatever system, are the same."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).replace("\\", "/")


@lru_cache(maxsize=8)
def _files(folder: Path, changed: int) -> dict[str, list[Path]]:  # noqa: ARG001 - as above
    """The files in a folder and below, by what stays of their names."""
    found: dict[str, list[Path]] = {}
    for place, _, files in os.walk(folder):
        for file in files:
            path = Path(place, file)
            found.setdefault(travelled(path.relative_to(folder).as_posix()), []).append(path)
    return found


def uncaptioned(root: Path, drafts: dict[str, Draft]) -> list[Problem]:
    """The pictures in the data set's folders that no row names; hidden files (`._dog.jpg` from a Mac) are none."""
    named = {draft.source for draft in drafts.values()}
    folders = {source.parent for source in named if source.is_relative_to(root) and os.path.exists(source)}
    return [
        Problem(UNCAPTIONED, path.relative_to(root).as_posix())
        for folder in sorted(folders)
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in SUFFIXES and path not in named and not path.name.startswith(".")
    ]


def only(files: Sequence[Path]) -> Path | None:
    """The one file among these, or None; raises DataError where there are several to choose from."""
    files = [file for file in files if file.is_file()]
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise DataError(f"{files[0].parent} holds several caption files ({names}): give the path of the one you mean.")
    return files[0] if files else None
