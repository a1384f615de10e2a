"""Your own folder: pictures, and `captions.csv` or `captions.jsonl` with `image`, `caption` and, if wanted, `split`.

A picture's name is relative to the folder or to its `images/`; absolute paths work too. Each row adds one caption.
Without splits a tenth of the pictures validates, by hash of the name. Who wrote the captions ("people", "model") may
stand in a column `captions_by`, here or in a `sources.csv` beside it that has the column `image` too.
"""

from pathlib import Path

from captioner.datasets.dataset import UNPLACED, Dataset, finish, gather, only, picture_folders, uncaptioned
from captioner.formats.rows import Problem
from captioner.formats.tables import read_authors, read_csv, read_jsonl

CAPTION_FILES = ("captions.csv", "captions.jsonl", "captions.txt")
HELD_OUT = 1 / 10


def read(path: Path) -> Dataset | None:
    """The data set at `path`, a folder or its csv or jsonl file; None where there is no such file."""
    if path.is_file():
        known = path.suffix.lower() in (".csv", ".tsv", ".jsonl") or path.name in CAPTION_FILES
        file = path if known else None
    else:
        file = only([path / name for name in CAPTION_FILES if (path / name).is_file()])
    if file is None:
        return None
    root = file.parent
    drafts, problems = gather(
        read_jsonl(file) if file.suffix.lower() == ".jsonl" else read_csv(file), picture_folders(root)
    )
    problems += uncaptioned(root, drafts)
    for name, author in read_authors(root / "sources.csv").items():
        if name in drafts:
            drafts[name].author = drafts[name].author or author
    if not any(draft.splits for draft in drafts.values()):
        for draft in drafts.values():
            draft.splits = {"train"}
        return finish("table", path, drafts, problems, held_out=HELD_OUT)
    problems += [Problem(UNPLACED, name) for name, draft in drafts.items() if not draft.splits]
    return finish("table", path, {name: draft for name, draft in drafts.items() if draft.splits}, problems)
