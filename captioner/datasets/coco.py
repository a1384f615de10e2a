"""COCO's caption files, and Karpathy's split files for COCO, Flickr8k and Flickr30k.

COCO: `annotations/captions_train2017.json` beside `train2017/` (https://cocodataset.org/#format-data). Its val2017 is
the split everyone reports on, so it becomes `test` and validation is held out of train2017.

Karpathy and Fei-Fei, "Deep Visual-Semantic Alignments" (2015): `dataset_coco.json`, whose entries carry a split;
`restval` is the rest of val2014 that everyone trains on too.
"""

import re
from pathlib import Path
from typing import Any

from captioner.datasets.dataset import Dataset, Draft, finish
from captioner.datasets.finding import find_picture, named, only, picture_folders
from captioner.datasets.ids import finder
from captioner.errors import DataError
from captioner.formats.fields import lacking, listed
from captioner.formats.rows import MALFORMED, Problem, picture_name, plain_text, read_json, split_name

KARPATHY_FILES = ("dataset_coco.json", "dataset_flickr8k.json", "dataset_flickr30k.json")
HELD_OUT = 1 / 25  # of COCO's 118,287 training pictures: about as many as val2017 has

_CAPTION_FILE = re.compile(r"captions_(train|val|test)(\d*)\.json", re.IGNORECASE)


def read(path: Path) -> Dataset | None:
    """The data set at `path`, a folder or one JSON file; None where it is neither COCO's nor Karpathy's."""
    if path.is_file():
        content = _content(path) if path.suffix.lower() == ".json" else None
        if not isinstance(content, dict) or not {"images", "annotations"} & content.keys():
            return None
        return _read_coco(path, {path: content}) if "annotations" in content else _read_karpathy(path, path, content)
    karpathy = only([file for name in KARPATHY_FILES if (file := named(path, name))])
    if karpathy:
        return _read_karpathy(path, karpathy, _lowered(read_json(karpathy)))
    folders = [folder for folder in (named(path, "annotations"), path) if folder and folder.is_dir()]
    files = [file for folder in folders for file in sorted(folder.iterdir()) if file.suffix.lower() == ".json"]
    years = {file: match[2] for file in files if (match := _CAPTION_FILE.fullmatch(file.name))}
    if not years:
        return None
    newest = max(years.values())  # 2014 and 2017 are the same pictures under other names
    contents = {file: _lowered(read_json(file)) for file, year in years.items() if year == newest}
    if all(isinstance(content, list) for content in contents.values()):
        return None  # a list of one's own
    unread = sorted(file.name for file in files if file not in contents and file.name.lower().startswith("captions_"))
    notes = [f"not read: {', '.join(unread)}"] if unread else []
    return _read_coco(path, contents, notes)


def _content(file: Path) -> Any:
    """What a JSON file holds; None where it is none of COCO's, by its name, and no JSON as a whole."""
    try:
        return _lowered(read_json(file))
    except DataError:
        if _CAPTION_FILE.fullmatch(file.name) or file.name.lower() in KARPATHY_FILES:
            raise
        return None


def _lowered(value: Any) -> Any:
    """An object with its keys in small letters; anything else as it is."""
    return {key.lower(): one for key, one in value.items()} if isinstance(value, dict) else value


def _read_coco(path: Path, contents: dict[Path, Any], notes: list[str] | None = None) -> Dataset:
    drafts: dict[str, Draft] = {}
    problems: list[Problem] = []
    notes = notes or []
    splits = {}
    for file in contents:
        match = _CAPTION_FILE.fullmatch(file.name)
        splits[file] = match[1].lower() if match else "train"
    held_out = 0.0
    if "test" not in splits.values() and "val" in splits.values():
        splits = {file: "test" if split == "val" else split for file, split in splits.items()}
        notes.append("COCO's own val is the test split here, so that it stays unseen while training")
    if "val" not in splits.values():
        held_out = HELD_OUT
    for file, content in contents.items():
        _gather(file, content, splits[file], drafts, problems)
    return finish("coco", path, drafts, problems, notes, held_out=held_out, author="people")


def _gather(file: Path, content: Any, split: str, drafts: dict[str, Draft], problems: list[Problem]) -> None:
    """Adds the pictures and captions of one COCO file."""
    images, annotations = _entries(file, content, "images"), _entries(file, content, "annotations")
    folder = file.stem.lower().removeprefix("captions_")
    folders = picture_folders(file.parent, file.parent.parent, first=folder)
    by_id: dict[int | str, Draft] = {}
    called: dict[int | str, str] = {}
    for index, image in enumerate(images):
        name, image_id = picture_name(image.get("file_name")), image.get("id")
        if not name or not isinstance(image_id, int | str) or image_id in by_id:
            remark = lacking(image, "id", "file_name")
            problems.append(Problem(MALFORMED, f"{file.name}, images[{index}]{remark}"))
            continue
        draft = drafts.setdefault(f"{folder}/{name}", Draft(image_id, find_picture(folders, name)))
        draft.splits.add(split)
        by_id[image_id], called[image_id] = draft, name
    ids, find = list(called), finder(list(called.items()))
    for index, annotation in enumerate(annotations):
        image_id, caption = annotation.get("image_id"), annotation.get("caption")
        fitting: list[int | str] = [image_id] if isinstance(image_id, int | str) and image_id in by_id else []
        if isinstance(image_id, int | str) and not fitting:
            fitting = [ids[place] for place in find(image_id)]
        if len(fitting) != 1 or not isinstance(caption, str):
            said = (
                f": {image_id} fits several images" if len(fitting) > 1 else lacking(annotation, "image_id", "caption")
            )
            problems.append(Problem(MALFORMED, f"{file.name}, annotations[{index}]{said}"))
        else:
            by_id[fitting[0]].captions.append(plain_text(caption))


def _read_karpathy(path: Path, file: Path, content: Any) -> Dataset:
    drafts: dict[str, Draft] = {}
    problems = []
    folders: dict[str, list[Path]] = {}
    for index, image in enumerate(_entries(file, content, "images")):
        try:
            folder, name = picture_name(image.get("filepath")), picture_name(image["filename"])
            captions = [plain_text(_lowered(sentence)["raw"]) for sentence in image["sentences"]]
            split = split_name(image["split"])
            image_id = image.get("cocoid", name)
            if not name or not isinstance(image_id, int | str):
                raise ValueError("nothing to call it by")
        except (KeyError, TypeError, ValueError, AttributeError, DataError):
            remark = lacking(image, "filename", "sentences", "split")
            problems.append(Problem(MALFORMED, f"{file.name}, images[{index}]{remark}"))
            continue
        if folder not in folders:
            folders[folder] = picture_folders(file.parent, file.parent.parent, first=folder)
        # COCO 2017 renamed the pictures of 2014: COCO_val2014_000000391895.jpg is 000000391895.jpg there.
        source = find_picture(folders[folder], name, name.rpartition("_")[2] if name.startswith("COCO_") else name)
        draft = drafts.setdefault(f"{folder}/{name}" if folder else name, Draft(image_id, source))
        draft.captions.extend(captions)
        draft.splits.add(split)
    return finish("karpathy", path, drafts, problems, author="people")


def _entries(file: Path, content: Any, key: str) -> list[dict[str, Any]]:
    """The list of objects at `content[key]`, with an empty object where an entry is none."""
    entries = content.get(key) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        found = f"with {listed(content)}" if isinstance(content, dict) else "and no object"
        raise DataError(f"{file}, {found}, is no caption file of COCO's or Karpathy's kind: it has no list of {key!r}.")
    return [_lowered(entry) if isinstance(entry, dict) else {} for entry in entries]
