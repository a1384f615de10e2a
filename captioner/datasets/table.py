"""Your own folder: pictures, and files with a row a caption: `captions.csv`, Hugging Face's `metadata.jsonl`, parquet.

`formats.fields` knows which keys name the picture, the caption and, if wanted, the split. A picture's name is relative
to the caption file's folder or to its `images/`; absolute paths work too. Who wrote the captions ("people", "model")
may stand in a column `captions_by`, here or in a `sources.csv` beside it that has the column `image` too.

The split is the row's own, else that of the file (`train-00000-of-00002.parquet`) or its folder (`validation/`), else,
where every picture lies in such a folder, that of the picture's. Where nothing validates and no row names a split, a
tenth of the training pictures does, by hash of the name.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from captioner.datasets.dataset import UNPLACED, Dataset, Draft, finish, gather
from captioner.datasets.finding import find_own, named, only, picture_folders, travelled, uncaptioned
from captioner.errors import DataError
from captioner.formats import read_csv, read_json_rows, read_parquet
from captioner.formats.fields import listed
from captioner.formats.rows import Problem, Row, split_name
from captioner.formats.tables import read_authors
from captioner.pictures import SUFFIXES

HELD_OUT = 1 / 10
UNPACKED = "unpacked-pictures"
"""The folder, beside a parquet file, of the pictures that it holds."""

_READERS: dict[str, Callable[[Path], Iterator[Row | Problem]]] = {
    ".csv": read_csv, ".tsv": read_csv, ".txt": read_csv, ".json": read_json_rows, ".jsonl": read_json_rows,
    ".parquet": read_parquet,
}  # fmt: skip
_OF_SPLIT = re.compile(r"(?:captions[-_.])?([a-z]+)(?:[-_.]\d.*)?")
_MAGIC = {b"\xff\xd8\xff": ".jpg", b"\x89PN": ".png", b"RIF": ".webp", b"GIF": ".gif"}


def read(path: Path) -> Dataset | None:
    """The data set at `path`, a folder or its caption file; None where there is no such file."""
    if path.is_file():
        known = path.suffix.lower() in _READERS and (path.suffix.lower() != ".txt" or path.stem.lower() == "captions")
        root, files = path.parent, {path: split_of(path)} if known else {}
    else:
        root, files = path, _caption_files(path)
    if not files:
        return None
    drafts: dict[str, Draft] = {}
    problems: list[Problem] = []
    keys: set[tuple[str, ...]] = set()
    for folder in dict.fromkeys(file.parent for file in files):
        rows = _rows({file: split for file, split in files.items() if file.parent == folder}, keys)
        found, wrong = gather(rows, _finder(folder))
        problems += wrong
        before = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
        for name, draft in found.items():
            drafts[before + name] = replace(draft, image_id=before + name)
    problems += uncaptioned(root, {name: one for name, one in drafts.items() if one.source.parent.name != UNPACKED})
    sources = named(root, "sources.csv")
    authors = {travelled(name): author for name, author in (read_authors(sources) if sources else {}).items()}
    for name, draft in drafts.items():
        draft.author = draft.author or authors.get(travelled(name), "")
    first, *others = files
    more = f" and {len(others):,} more" if others else ""
    read = "; ".join(map(listed, sorted(keys)))
    notes = [f"captions from {first.relative_to(root)}{more}" + (f" ({read})" if read else "")]
    kind = "parquet" if first.suffix.lower() == ".parquet" else "table"
    kind = "imagefolder" if first.stem.lower() == "metadata" else kind
    return finish_own(kind, path, drafts, problems, notes, said="split" in {key for some in keys for key in some})


def finish_own(
    kind: str,
    path: Path,
    drafts: dict[str, Draft],
    problems: Iterable[Problem],
    notes: Iterable[str],
    *,
    said: bool = False,
) -> Dataset:
    """`dataset.finish` for one's own folder; unless rows have `said` splits, the pictures' folders do, or else we."""
    if not any(draft.splits for draft in drafts.values()):
        root = path.parent if path.is_file() else path
        splits = {name: _split_of_folder(root, draft.source) for name, draft in drafts.items()}
        by_folder = all(splits.values()) and "train" in splits.values()
        for name, draft in drafts.items():
            draft.splits = {splits[name] if by_folder else "train"}
        notes = [*notes, "splits by the pictures' folders"] if by_folder else notes
    placed = {name: draft for name, draft in drafts.items() if draft.splits}
    unplaced = [Problem(UNPLACED, name) for name in drafts if name not in placed]
    validated = said or any("val" in draft.splits for draft in placed.values())
    held_out = 0.0 if validated else HELD_OUT
    return finish(kind, path, placed, [*problems, *unplaced], list(notes), held_out=held_out)


def _caption_files(root: Path) -> dict[Path, str]:
    """The caption files of a folder, and the split of each ("": none): its own, or those in the folders of its splits.

    Raises DataError where there are several to choose from.
    """
    data = root / "data"
    levels = [{root: ""}, {data: ""} if data.is_dir() else {}]
    levels += [
        {folder: split for folder in sorted(level.iterdir()) if folder.is_dir() and (split := _split(folder.name))}
        for level in (root, data)
        if level.is_dir()
    ]
    for level in levels:
        found = {file: of for folder, split in level.items() for file, of in _files_in(folder, split).items()}
        if found:
            return found
    return {}


def _files_in(folder: Path, split: str) -> dict[Path, str]:
    """The caption files in this very folder, which is of a split ("": of none)."""
    files = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in _READERS and file.name[0] != "."]
    for stem in ("captions", "metadata"):
        if file := only([file for file in files if file.stem.lower() == stem]):
            return {file: split}
    shards = [file for file in files if file.suffix.lower() == ".parquet"]
    tables = {file.suffix.lower(): file for file in files if split_of(file) and file.suffix.lower() != ".txt"}
    if not shards and (first := only(list(tables.values()))):
        shards = [file for file in files if split_of(file) and file.suffix.lower() == first.suffix.lower()]
    return {file: split_of(file) or split for file in shards}


def split_of(file: Path) -> str:
    """The split that a file's name says, "" for none: `train.csv`, `validation-00000-of-00001.parquet`."""
    match = _OF_SPLIT.fullmatch(file.stem.lower())
    return _split(match[1]) if match else ""


def _split(name: str) -> str:
    try:
        return split_name(name)
    except DataError:
        return ""


def _split_of_folder(root: Path, picture: Path) -> str:
    ways = picture.relative_to(root).parts[:-1] if picture.is_relative_to(root) else ()
    return next((split for way in ways if (split := _split(way))), "")


def _rows(files: dict[Path, str], keys: set[tuple[str, ...]]) -> Iterator[Row | Problem]:
    """The rows of the files of one folder, with their splits; `keys` comes to hold those that were read."""
    pictures: dict[str, bytes] = {}
    for file, split in files.items():
        for row in _READERS[file.suffix.lower()](file):
            if isinstance(row, Row):
                keys.add(row.keys)
                row = replace(row, split=row.split or split)
                if row.picture is not None:  # names in parquet files are decoration: several pictures may share one
                    digest = hashlib.sha256(row.picture).digest()
                    if pictures.setdefault(row.name, digest) != digest:
                        row = replace(row, name=f"{digest.hex()[:16]} {row.name}")
            yield row


def _finder(folder: Path) -> Callable[[Row], Path]:
    """Finds the picture of a row, or puts it into a file."""
    folders = picture_folders(folder)

    def find(row: Row) -> Path:
        return find_own(folder, row.name, folders) if row.picture is None else _unpack(folder / UNPACKED, row)

    return find


def _unpack(folder: Path, row: Row) -> Path:
    """The file of a picture that came within its row, by its content; written where it is not there yet."""
    content = row.picture or b""
    ending = Path(row.name).suffix.lower()
    ending = ending if ending in SUFFIXES else _MAGIC.get(content[:3], "")
    file = folder / f"{hashlib.sha256(content).hexdigest()[:24]}{ending}"
    try:
        if not file.is_file() or file.stat().st_size != len(content):
            folder.mkdir(exist_ok=True)
            file.write_bytes(content)
    except OSError as error:
        reason = f"{error.strerror or error}: copy the data set to where there is room and you may write"
        raise DataError(f"The pictures of a parquet file cannot be unpacked into {folder}: {reason}.") from None
    return file
