"""Tar shards in the WebDataset layout: read by their index, or listed where there is none.

Files of a shard whose names are the same up to the first dot are a sample: a picture, and its captions in `.json` (the
keys of one's own `captions.jsonl`) or `.txt` (one a line). The split is the sample's own, else the shard's by its name
(`train-00000.tar`), else as in one's own folder.
"""

import io
import json
import os
import sys
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, TypeAlias

from captioner.datasets.dataset import MISSING, UNCAPTIONED, CaptionedImage, Dataset, hold_out
from captioner.datasets.table import HELD_OUT, split_of
from captioner.errors import DataError, ImageError
from captioner.files import is_address, open_ordinary, printable
from captioner.formats.fields import caption_keys, rows_of
from captioner.formats.rows import MALFORMED, Problem, split_name
from captioner.formats.shards import INDEX, is_index, read_index
from captioner.pictures import SUFFIXES
from captioner.pictures.shards import Copies, Packed, Shard, fetch

MISSING_SHARD = "missing shard"
CHANGED = "shard that is not what its index says"

_TEXTS = (".json", ".txt", ".caption")
_PICTURE = "picture"
_KINDS = SUFFIXES.union(_TEXTS)
_Files: TypeAlias = dict[str, tuple[tarfile.TarInfo, bytes]]
"""Of a sample: by `_PICTURE`, or the ending of a text, what the tar says of the file, and the text's content."""
_LONGEST = 1 << 24  # bytes of a sample's captions


def read(path: Path) -> Dataset | None:
    """The data set at `path`: an index, a shard, or a folder with an index or with shards alone; else None."""
    if path.is_file():
        if path.suffix.lower() == ".tar":
            return _listed(path, [path])
        if path.suffix.lower() != ".jsonl":
            return None
        with path.open(encoding="utf-8", errors="replace") as lines:
            if not is_index(lines.read(16)):
                return None
            lines.seek(0)
            return _indexed(str(path), lines, path.parent)
    index = path / INDEX
    if index.is_file():
        with index.open(encoding="utf-8", errors="replace") as lines:
            return _indexed(str(path), lines, path)
    shards = [entry for entry in sorted(path.iterdir()) if entry.suffix.lower() == ".tar"]
    # A folder of photos may hold the archive that they came from.
    if not shards or any(entry.is_dir() or entry.suffix.lower() in SUFFIXES for entry in path.iterdir()):
        return None
    return _listed(path, shards)


def read_address(address: str) -> Dataset:
    """The data set whose index, or folder with one, is at an address; raises DataError where there is none."""
    if address.lower().endswith(".tar"):
        raise DataError(
            f"{printable(address)} is a shard without an index, and would have to be fetched to know its captions: "
            f"make an index once, with python -m captioner shards ADDRESS ... --index FILE.jsonl, and give that file."
        )
    address = address.rstrip("/")
    index = address if address.lower().endswith(".jsonl") else f"{address}/{INDEX}"
    with io.BytesIO() as content:
        try:
            fetch(index, content)
        except ImageError as error:
            raise DataError(*error.args) from None
        content.seek(0)
        return _indexed(address, io.TextIOWrapper(content, "utf-8", errors="replace"), index.rpartition("/")[0])


def _indexed(path: str, lines: Iterable[str], beside: Path | str) -> Dataset:
    """What an index says, whose shards lie beside it unless they are called by addresses."""
    copies, images, problems = Copies(), [], []
    count = total = 0
    for called, size, samples in read_index(lines, path):
        shard = _shard(called, size, beside, copies)
        count, total = count + 1, total + size
        if shard.copies is None and (problem := _problem(shard)):
            problems.append(Problem(problem, called))
            continue
        images += [
            CaptionedImage(
                one.name,
                one.image_id,
                Packed(shard, one.offset, one.size, one.name, one.digest),
                tuple(one.captions),
                sys.intern(split_name(one.split)),
                sys.intern(one.author),
            )
            for one in samples
        ]
    notes = [f"{count:,} shards, {total / 1e9:.2f} GB, by their index"]
    return Dataset("shards", path, tuple(images), tuple(problems), tuple(notes))


def _shard(called: str, size: int, beside: Path | str, copies: Copies) -> Shard:
    if is_address(called):
        return Shard(called, size, copies)
    if "/" in called or "\\" in called or called in ("", ".", ".."):
        raise DataError(f"The index names the shard {printable(called)}: it must lie beside it, or be an address.")
    return Shard(f"{beside}/{called}", size, copies) if isinstance(beside, str) else Shard(str(beside / called), size)


def _problem(shard: Shard) -> str:
    try:
        return CHANGED if os.stat(shard.address).st_size != shard.size else ""
    except OSError:
        return MISSING_SHARD


def _listed(path: Path, files: list[Path]) -> Dataset:
    """What shards on a disk hold: only the names of their files and their captions are read."""
    found: list[CaptionedImage | Problem] = []
    total = 0
    for file in files:
        with io.BufferedReader(open_ordinary(file, "shard", DataError)) as opened:
            shard = Shard(str(file), os.fstat(opened.fileno()).st_size)
            found += list_samples(shard, opened)
            total += shard.size
    return finished(str(path), found, f"{len(files):,} shards, {total / 1e9:.2f} GB, without an index")


def finished(path: str, found: Iterable[CaptionedImage | Problem], note: str) -> Dataset:
    """The data set of what shards were found to hold; where nothing validates, a part of train does."""
    images: dict[str, CaptionedImage] = {}
    problems = []
    for one in found:
        if isinstance(one, Problem):
            problems.append(one)
            continue
        name = one.name
        if name in images and isinstance(one.source, Packed):  # each shard may count its pictures from 0
            name = f"{Path(one.source.shard.name).stem}/{name}"
        images[name] = replace(one, name=name, image_id=one.image_id if one.image_id != one.name else name)
    splits = {image.split for image in images.values()}
    train = [image.name for image in images.values() if image.split == "train"]
    chosen = hold_out(train, HELD_OUT) if "val" not in splits else set()
    notes = [note]
    if chosen:
        notes.append(f"validation is held out of train: {len(chosen):,} of {len(train):,} images (by hash of the name)")
    kept = tuple(replace(image, split="val") if name in chosen else image for name, image in images.items())
    return Dataset("shards", path, kept, tuple(problems), tuple(notes), held_out=bool(chosen) and "test" not in splits)


def list_samples(shard: Shard, opened: IO[bytes]) -> Iterator[CaptionedImage | Problem]:
    """The pictures of a shard with their captions; what is wrong with others, as problems.

    Raises DataError where it is no tar, or one that is compressed or cut short.
    """
    samples: dict[str, _Files] = {}
    try:
        with tarfile.open(fileobj=opened, mode="r:") as tar:
            while member := tar.next():
                folder, _, file = member.name.rpartition("/")
                base, _, ending = file.partition(".")
                kind = "." + ending.rpartition(".")[2].lower()
                if member.isreg() and base and kind in _KINDS:
                    held = tar.extractfile(member) if kind in _TEXTS and member.size <= _LONGEST else None
                    kind = kind if kind in _TEXTS else _PICTURE
                    samples.setdefault(f"{folder}/{base}", {})[kind] = (member, held.read() if held else b"")
            opened.seek(tar.offset)
            if opened.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):  # which tarfile does not mind
                raise ValueError("its end is missing")
    except (tarfile.TarError, OSError, ValueError) as error:
        raise DataError(
            f"{shard.name} cannot be read as a tar ({printable(str(error))}): fetch or write it again, uncompressed."
        ) from None
    for key, files in samples.items():
        if _PICTURE not in files:
            yield Problem(MISSING, f"{key.lstrip('/')} in {shard.name}")
            continue
        try:
            yield _image(shard, files)
        except (DataError, ValueError, RecursionError) as error:
            kind = MALFORMED if ".json" in files else UNCAPTIONED
            yield Problem(kind, f"{files[_PICTURE][0].name} in {shard.name} ({printable(str(error).rstrip('.'))})")


def _image(shard: Shard, files: _Files) -> CaptionedImage:
    """A sample's picture; raises DataError or ValueError where it has no captions."""
    member, fields = files[_PICTURE][0], _fields(files)
    named, image_id = fields.get("image"), fields.get("image_id")
    name = named if named and isinstance(named, str) else f"{Path(shard.name).stem}/{member.name}"
    rows = list(rows_of({**fields, "image": name}))
    name = rows[0].name
    return CaptionedImage(
        name,
        image_id if isinstance(image_id, int | str) and not isinstance(image_id, bool) else name,
        Packed(shard, member.offset_data, member.size, name),
        tuple(row.caption for row in rows),
        rows[0].split or split_of(Path(shard.name)) or "train",
        rows[0].author,
    )


def _fields(files: _Files) -> dict[str, Any]:
    """A sample's fields, `caption` among them; from its JSON, and where that has none from its text."""
    fields = json.loads(files[".json"][1]) if ".json" in files else {}
    if not isinstance(fields, dict):
        raise DataError("its JSON is no object")
    texts = [files[kind][1].decode("utf-8-sig", "replace") for kind in _TEXTS[1:] if kind in files]
    if texts and not any(fields[key] for key in caption_keys(list(fields))):
        fields = {**fields, "captions": list(filter(None, map(str.strip, texts[0].splitlines())))}
    return fields
