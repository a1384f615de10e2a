"""Flickr8k and Flickr30k as their authors and Kaggle pack them.

Captions: `Flickr8k.token.txt` and `results_20130124.token` (`name.jpg#0<TAB>caption`), `captions.txt` (csv:
`image,caption`) or `results.csv` (`name.jpg| 0| caption`). Splits: the official lists of names, one a line; Flickr30k
comes without, and then validation is held out.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from captioner.datasets.dataset import Dataset, Draft, finish, gather
from captioner.datasets.finding import find_picture, named, only, picture_folders, travelled, uncaptioned
from captioner.datasets.table import HELD_OUT
from captioner.formats.rows import MALFORMED, SPLITS, Problem, Row, picture_name, read_text
from captioner.formats.tables import read_csv
from captioner.pictures import SUFFIXES

CAPTION_FILES = {
    "flickr8k.token.txt": "flickr8k",
    "results_20130124.token": "flickr30k",
    "results.csv": "flickr30k",
    "captions.txt": "flickr8k",
}
_LISTS = {
    "flickr8k": dict(
        zip(SPLITS, ("Flickr_8k.trainImages.txt", "Flickr_8k.devImages.txt", "Flickr_8k.testImages.txt"), strict=True)
    ),
    "flickr30k": dict(zip(SPLITS, ("train.txt", "val.txt", "test.txt"), strict=True)),
}
# The separator before the caption is missing in one row of the published results.csv: `2199200615.jpg| 4   A dog ...`
_PIPED = re.compile(r"(?P<name>[^|]+)\|\s*\d+\s*(?:\||\s{2})\s*(?P<caption>.*)")
_TABBED = re.compile(r"(?P<name>[^\t]+)#\d+\t(?P<caption>.*)")


def read(path: Path) -> Dataset | None:
    """The data set at `path`, a folder or its caption file; None where it is not Flickr8k or Flickr30k."""
    root = path.parent if path.is_file() else path
    if path.is_file():
        file: Path | None = path if path.name.lower() in CAPTION_FILES else None
    else:
        places = [root, *filter(None, (named(root, name) for name in ("Flickr8k_text", "flickr30k_images")))]
        file = only([found for folder in places for name in CAPTION_FILES if (found := named(folder, name))])
    if file is None:
        return None
    kind = CAPTION_FILES[file.name.lower()]
    splits, lists = _read_lists(kind, (file.parent, root, root / "Flickr8k_text"))
    is_csv = file.name.lower() == "captions.txt"
    if is_csv and not lists:
        return None  # an own folder may hold captions.txt too
    rows = read_csv(file) if is_csv else _read_rows(file)
    folders = picture_folders(*dict.fromkeys((root, file.parent, root.parent if root != path else root)))
    drafts, problems = gather(rows, lambda row: find_picture(folders, row.name))
    if not lists:
        for draft in drafts.values():
            draft.splits = {"train"}
        return finish(kind, path, drafts, [*problems, *uncaptioned(root, drafts)], held_out=HELD_OUT, author="people")
    names = {travelled(name): name for name in drafts}
    splits = {name if name in drafts else names.get(travelled(name), name): of for name, of in splits.items()}
    for name in splits.keys() - drafts.keys():
        drafts[name] = Draft(name, find_picture(folders, name))
    listed = {name: draft for name, draft in drafts.items() if name in splits}
    for name, draft in listed.items():
        draft.splits = splits[name]
    unlisted = len(drafts) - len(listed)
    notes = [f"split lists: {', '.join(lists)}"]
    if unlisted:
        notes.append(f"{unlisted:,} captioned pictures are in no split list and left out")
    return finish(kind, path, listed, problems, notes, author="people")


def _read_lists(kind: str, folders: tuple[Path, ...]) -> tuple[dict[str, set[str]], list[str]]:
    """The splits that the lists give each picture, and the names of the lists there are."""
    splits: dict[str, set[str]] = {}
    lists = []
    for split, list_name in _LISTS[kind].items():
        file = next((found for folder in folders if (found := named(folder, list_name))), None)
        if file is None:
            continue
        lists.append(list_name)
        for line in read_text(file).splitlines():
            name = picture_name(line)
            if name and Path(name).suffix.lower() not in SUFFIXES:
                name += ".jpg"
            if name:
                splits.setdefault(name, set()).add(split)
    return splits, lists


def _read_rows(file: Path) -> Iterator[Row | Problem]:
    form = _PIPED if file.suffix.lower() == ".csv" else _TABBED
    # Only line ends part rows: str.splitlines would also cut at the odd separators that captions may hold.
    for number, line in enumerate(re.split(r"\r?\n", read_text(file)), start=1):
        if not line.strip() or (number == 1 and line.startswith("image_name|")):
            continue
        match = form.fullmatch(line)
        name = picture_name(match["name"]) if match else ""
        yield Row(name, match["caption"]) if match and name else Problem(MALFORMED, f"{file.name}, line {number}")
