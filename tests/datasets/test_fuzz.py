"""Data sets that a disk, a program or a stranger has changed: each is read, or refused in a sentence."""

import importlib.util
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from captioner.datasets import check_dataset, load_dataset
from captioner.errors import DataError
from captioner.formats import coco_results, csv_lines, json_lines, text_sidecars, xmp_sidecars
from captioner.telling import SILENT
from tests.datasets.test_datasets import picture, write

NAMES = ("a.png", "sub/b.png", "c.png", "train/d.png", "val/e.png", "000000000007.png")
SAID = [(name, f"A dog, {number}.") for number, name in enumerate(NAMES)]
ODD = [
    *(b"", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b'"', b"'", b",", b";", b"\t", b"\r", b"\n", b"\\", b"/", b"../"),
    *(b"[", b"]", b"{", b"}", b":", b"null", b"NaN", b"-1", b"1e999", b"9" * 5000, b"[" * 3000, b'{"a":' * 900),
    *(b'"\\ud800"', b"true", b"[]", b"{}", b'"image"', b"caption", b"split", b"test", b"<!DOCTYPE x>", b"<a>", b"</"),
    *("\u2028".encode(), "e\u0301".encode(), b"\xed\xa0\x80", b"x" * 70_000, b"a.png", b"/dev/zero", b"con", b"#0\t"),
]


def text(lines: object) -> str:
    return "".join(f"{line}\n" for line in lines)  # type: ignore[attr-defined]


def objects(image: str, caption: str) -> list[dict[str, str]]:
    return [{image: name, caption: said, "split": "train"} for name, said in SAID]


def coco_file() -> str:
    images = [{"id": number, "file_name": name} for number, name in enumerate(NAMES)]
    return json.dumps(
        {"images": images, "annotations": [{"image_id": n, "caption": s} for n, (_, s) in enumerate(SAID)]}
    )


def karpathy_file() -> str:
    return json.dumps({"images": [
        {"filepath": "", "filename": name, "sentences": [{"raw": said}], "split": "train", "cocoid": 1}
        for name, said in SAID
    ]})  # fmt: skip


def parquet(folder: Path, name: str, *, with_pictures: bool) -> None:
    import pyarrow
    from pyarrow import parquet as files

    image: list[object] = [one for one, _ in SAID]
    if with_pictures:
        image = [{"bytes": (folder / one).read_bytes(), "path": one} for one in NAMES]
    files.write_table(pyarrow.table({"image": image, "text": [said for _, said in SAID]}), folder / name)


def inside(folder: Path) -> None:
    """Pictures with a packet of XMP behind them, for readers that look for it there."""
    for name, content in zip(NAMES, dict(xmp_sidecars(SAID)).values(), strict=True):
        with (folder / name).open("ab") as file:
            file.write(content.encode())


def put(**files: str) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        for name, content in files.items():
            write(folder / name, content)

    return fill


LISTS = {"Flickr_8k.trainImages.txt": "a.png\nc.png\n", "Flickr_8k.devImages.txt": "sub/b.png\n"}
LAYOUTS: dict[str, Callable[[Path], None]] = {
    "csv": put(**{"captions.csv": text(csv_lines(SAID)), "sources.csv": "image,captions_by\na.png,people\n"}),
    "tsv": put(**{"captions.tsv": text(f"{name}\t{said}" for name, said in SAID)}),
    "lists": put(**{"captions.csv": 'image;caption_0;caption_1;split\n"a.png";"A ""dog""";B;train\nc.png;C;D;val\n'}),
    "jsonl": put(**{"captions.jsonl": text(json_lines(objects("image", "caption")))}),
    "json": put(**{"captions.json": json.dumps(objects("image", "captions"))}),
    "results": put(**{"captions.json": coco_results(SAID)}),
    "splits": put(**{"train.csv": "image,caption\na.png,A.\n", "val.csv": "image,caption\nc.png,C.\n"}),
    "imagefolder": put(**{"metadata.jsonl": text(json_lines(objects("file_name", "text")))}),
    "folders": put(**{f"{name}/metadata.csv": f"file_name,text\n{file}.png,A.\n" for name, file in (("train", "d"), ("val", "e"))}),
    "sidecars": put(**dict(text_sidecars(SAID))),
    "xmp": put(**dict(xmp_sidecars(SAID))),
    "inside": inside,
    "coco": put(**{"annotations/captions_train2017.json": coco_file()}),
    "karpathy": put(**{"dataset_coco.json": karpathy_file()}),
    "flickr8k": put(**{"Flickr8k.token.txt": text(f"{name}#0\t{said}" for name, said in SAID), **LISTS}),
    "kaggle": put(**{"captions.txt": text(csv_lines(SAID)), **LISTS}),
    "flickr30k": put(**{"results.csv": "image_name| comment_number| comment\n" + text(f"{name}| 0| {said}" for name, said in SAID)}),
    "parquet": lambda folder: parquet(folder, "train-00000-of-00001.parquet", with_pictures=True),
    "metadata.parquet": lambda folder: parquet(folder, "metadata.parquet", with_pictures=False),
}  # fmt: skip


def mutated(data: bytes, chance: random.Random) -> bytes:
    """A few bytes, pieces and lines changed, lost, doubled or swapped; or another encoding."""
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 5, 20])):
        place = chance.randrange(len(changed) + 1)
        length = chance.choice([1, 2, 8, 64, len(changed)])
        kind = chance.random()
        if kind < 0.3:
            changed[place : place + chance.choice([0, 1, 4])] = chance.choice(ODD)
        elif kind < 0.5 and place < len(changed):
            changed[place] = chance.randrange(256)
        elif kind < 0.65:
            del changed[place : place + length]
        elif kind < 0.8:
            changed[place:place] = changed[place : place + length]
        elif kind < 0.95:
            lines = bytes(changed).splitlines(keepends=True)
            chance.shuffle(lines)
            changed = bytearray(b"".join(lines))
        else:
            changed = bytearray(bytes(changed).decode("utf-8", "replace").encode(chance.choice(["utf-16", "utf-16-le", "latin-1"]), "replace"))  # fmt: skip
    return bytes(changed[:1_000_000])


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_mutated_data_sets_are_read_or_refused_in_a_sentence(tmp_path, layout):
    """Hundreds of each layout, five seconds at most: no other exception, and a message names the place."""
    if "parquet" in layout and not importlib.util.find_spec("pyarrow"):
        pytest.skip("parquet needs pyarrow")
    for name in NAMES:
        picture(tmp_path / name)
    before = set() if layout == "inside" else set(tmp_path.rglob("*"))
    LAYOUTS[layout](tmp_path)
    files = {file: file.read_bytes() for file in sorted(set(tmp_path.rglob("*")) - before) if file.is_file()}
    assert len(check_dataset(load_dataset(tmp_path), skip_bad=True, telling=SILENT).images) >= 2
    until = time.monotonic() + 5
    for number in range(400):
        if time.monotonic() > until and number >= 20:
            break
        chance = random.Random(f"{layout} {number}")
        changed = chance.sample(list(files), chance.randint(1, len(files)))
        for file, content in files.items():
            file.write_bytes(mutated(content, chance) if file in changed else content)
        try:
            data = check_dataset(load_dataset(tmp_path), skip_bad=True, telling=SILENT)
            assert all(image.captions for image in data.images), number
            said = data.describe()
        except DataError as error:
            said = str(error)
        assert str(tmp_path) in said, number
        assert all(line.isprintable() for line in said.split("\n")), (number, said)
        assert len(said) < 5000, number
