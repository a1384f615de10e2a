"""Readers and the data check: every form of data set is recognised, and no bad row or file passes unseen."""

import csv
import json
import os
import zlib
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from captioner.datasets import (
    CaptionedImage,
    Dataset,
    Problem,
    check_dataset,
    join,
    load_dataset,
    split_name,
    summarise,
)
from captioner.datasets.dataset import hold_out
from captioner.errors import DataError
from captioner.telling import SILENT, Telling
from tests.hostile import write_hostile_files

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_flickr8k = pytest.mark.skipif(not (SHARED / "flickr8k").is_dir(), reason="needs ../shared/data/flickr8k")
needs_coco = pytest.mark.skipif(not (SHARED / "coco").is_dir(), reason="needs ../shared/data/coco")


def picture(path: Path, shade: int | None = None) -> Path:
    """Writes a small picture that no other path shares, unless `shade` is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colour = zlib.crc32(path.name.encode()) % 2**24 if shade is None else shade
    Image.new("RGB", (8, 8), (colour >> 16, colour >> 8 & 255, colour & 255)).save(path, "PNG")
    return path


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def table(folder: Path, text: str | bytes, *, name: str = "captions.csv", pictures: str = "") -> Dataset:
    for each in pictures.split():
        picture(folder / each)
    write(folder / name, text)
    return load_dataset(folder)


def splits(dataset: Dataset) -> dict[str, str]:
    return {image.name: image.split for image in dataset.images}


def captions(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {image.name: image.captions for image in dataset.images}


def kinds(dataset: Dataset) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for problem in dataset.problems:
        found.setdefault(problem.kind, []).append(problem.name)
    return found


def cleaned(dataset: Dataset, **options: object) -> Dataset:
    """Checked with skip_bad, quietly."""
    return check_dataset(dataset, skip_bad=True, telling=SILENT, **options)  # type: ignore[arg-type]


# --- splits ---


def test_split_names_have_their_usual_synonyms():
    names = ["train", "training", "restval", "TRAIN", "val", "valid", "validation", "dev", "test"]
    assert [split_name(name) for name in names] == ["train"] * 4 + ["val"] * 4 + ["test"]
    with pytest.raises(DataError, match="There is no split 'vla': the splits are train, val, test"):
        split_name("vla")


def test_a_missing_split_is_an_error_only_when_asked_for(tmp_path):
    dataset = table(tmp_path, "image,caption,split\na.png,A.,train\nb.png,B.,dev\n", pictures="a.png b.png")
    assert [image.name for image in dataset.split("dev")] == [image.name for image in dataset.split("val")] == ["b.png"]
    with pytest.raises(DataError, match=r"no images in its test split; it has train \(1 images\), val \(1 images\)"):
        dataset.split("test")
    with pytest.raises(DataError, match=r"There is no split 'x'.* has train \(1 images\)"):
        dataset.split("x")


def test_holding_out_is_a_tenth_whatever_the_order_and_adding_names_moves_none():
    names = [f"{number}.jpg" for number in range(2000)]
    held = hold_out(names, 0.1)
    assert held == hold_out(reversed(names), 0.1)
    assert 150 < len(held) < 250
    assert hold_out(names + [f"new {number}.jpg" for number in range(500)], 0.1) & set(names) == held


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10, 80])
def test_holding_out_leaves_neither_side_of_two_or_more_empty(count):
    for share in (0.001, 0.04, 0.1, 0.999):
        held = hold_out(map(str, range(count)), share)
        assert 0 < len(held) < count if count > 1 else not held


# --- own folders ---


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("captions.csv", "image,caption\na.png,One.\na.png,Two.\nb.png,Three.\n"),
        ("captions.csv", b"\xef\xbb\xbfimage,caption\r\na.png,One.\r\na.png,Two.\r\nb.png,Three."),
        ("captions.csv", "image,caption\ra.png,One.\ra.png,Two.\rb.png,Three.\r"),
        ("captions.csv", 'Caption; "IMAGE"\nOne.;a.png\n\n"Two.";a.png\nThree.;b.png\n'),
        ("captions.csv", "id\timage\tcaption\n1\ta.png\tOne.\n2\t./a.png\tTwo.\n3\tb.png\tThree.\n"),
        ("captions.txt", "image,caption\na.png, One. \na.png,Two.\nb.png,Three.\n"),
        ("captions.jsonl", "".join(f'{{"image": "{i}.png", "caption": "{c}."}}\n\n' for i, c in zip("aab", ("One", "Two", "Three"), strict=True))),
    ],
)  # fmt: skip
@pytest.mark.parametrize("folder", ["", "images/"])
def test_own_folder(tmp_path, name, text, folder):
    picture(tmp_path / folder / "a.png")
    picture(tmp_path / folder / "b.png")
    dataset = table(tmp_path, text, name=name)
    assert captions(dataset) == {"a.png": ("One.", "Two."), "b.png": ("Three.",)}
    assert dataset.kind == "table"
    assert sorted(splits(dataset).values()) == ["train", "val"]
    assert "held out of train: 1 of 2 images (1 in 10" in dataset.describe()
    assert check_dataset(dataset) is dataset
    assert load_dataset(tmp_path / name).images == dataset.images


def test_commas_quotes_lines_and_accents_in_captions(tmp_path):
    text = 'image,caption\na.png,"A ""good"" dog, brown"\na.png,A dog, a cat\na.png,A "big" dog\na.png,"Zwei\nHunde: größer, 犬 🐶"\n'
    dataset = table(tmp_path, text, pictures="a.png")
    assert dataset.problems == ()
    assert captions(dataset)["a.png"] == (
        'A "good" dog, brown',
        "A dog, a cat",
        'A "big" dog',
        "Zwei\nHunde: größer, 犬 🐶",
    )


def test_malformed_rows_are_named_and_the_others_kept(tmp_path):
    long = "x" * 200_000
    rows = ["a.png,Good.,train", "a.png,A dog, brown,train", "a.png", ",No image.,train", "a.png,Odd.,trainval", f"a.png,{long},train",
            'a.png,"Closed" too early,train', "b.png,Good.,val", 'a.png,"Never closed,train', "a.png,Swallowed.,train"]  # fmt: skip
    dataset = table(tmp_path, "image,caption,split\n" + "\n".join(rows), pictures="a.png b.png")
    named = kinds(dataset)
    assert list(named) == ["malformed row"]
    lines = [name.split(" (")[0].removeprefix("captions.csv, ") for name in named["malformed row"]]
    assert lines == ["line 3", "line 4", "line 5", "line 6", "line 7", "line 8", "lines 10 to 11"]
    assert "4 fields for 3 columns" in named["malformed row"][0]
    assert "There is no split 'trainval'" in named["malformed row"][3]
    assert captions(dataset) == {"a.png": ("Good.",), "b.png": ("Good.",)}


def test_malformed_json_lines_are_named_and_the_others_kept(tmp_path):
    bad = ["{", "[]", "null", '{"image": "a.png"}', '{"image": 3, "caption": "x"}', '{"image": "a.png", "caption": null}', "[" * 100_000,
           '{"image": "\\ud800.png", "caption": "x"}', '{"image": "a.png", "caption": "x", "split": 1}', "9" * 5000]  # fmt: skip
    text = "\n".join(['{"image": "a.png", "caption": "Good.", "split": "train"}', *bad])
    dataset = table(tmp_path, text, name="captions.jsonl", pictures="a.png")
    assert [name.split(" (")[0] for name in kinds(dataset)["malformed row"]] == [
        f"captions.jsonl, line {number}" for number in range(2, 12)
    ]
    assert captions(dataset) == {"a.png": ("Good.",)}


def test_every_other_problem_of_rows_is_found(tmp_path):
    """Missing, caption-less and unplaced pictures, and one in two splits, which stays where it is scored."""
    text = "image,caption,split\na.png,A.,train\nb.png,B.,train\nb.png,B.,test\nc.png, ,train\nd.png,D.,\ngone.png,G.,val\nimages/e.png,E.,train\n"
    dataset = table(tmp_path, text, pictures="a.png b.png c.png d.png images/e.png images/stray.png other/unseen.png")
    assert kinds(dataset) == {
        "malformed row": ["captions.csv, line 5 (no caption)"],
        "picture without captions": ["c.png", "images/stray.png"],
        "picture without a split": ["d.png"],
        "picture in two splits": ["b.png"],
    }
    assert splits(dataset) == {"a.png": "train", "b.png": "test", "gone.png": "val", "images/e.png": "train"}
    clean = cleaned(dataset)
    assert splits(clean) == {"a.png": "train", "b.png": "test", "images/e.png": "train"}
    assert kinds(clean)["missing picture"] == ["gone.png"]
    with pytest.raises(DataError, match="no images in its val split"):
        clean.split("val")


def test_absolute_and_backslashed_names_are_found(tmp_path):
    elsewhere = picture(tmp_path / "elsewhere" / "a.png")
    picture(tmp_path / "elsewhere" / "not ours.png")
    picture(tmp_path / "data" / "sub" / "b.png")
    dataset = table(tmp_path / "data", f"image,caption\n{elsewhere},A.\nsub\\b.png,B.\n")
    assert check_dataset(dataset).problems == ()
    assert [image.source for image in dataset.images] == [elsewhere, tmp_path / "data" / "sub" / "b.png"]


@pytest.mark.parametrize(
    ("stored", "written"),
    [
        ("P0.JPG", "p0.jpg"),
        ("cafe\u0301.png", "caf\u00e9.png"),
        ("caf\u00e9.png", "CAFE\u0301.PNG"),
        ("sub/a.png", "data/sub/a.png"),
        ("a.png", "data/a.png"),
        ("a.png", "../some/data/a.png"),
        ("A.png", "data/a.PNG"),
        ("sub\\a.png", "sub\\a.png"),
    ],
)
def test_names_that_have_travelled_find_their_one_file(tmp_path, stored, written):
    """In another case or Unicode form, with a backslash, or with the way to the folder in front."""
    source = picture(tmp_path / "data" / stored)
    picture(tmp_path / "data" / "other.png")
    dataset = table(tmp_path / "data", f"image,caption\n{written},A.\nother.png,B.\n")
    assert check_dataset(dataset).problems == ()
    assert dataset.images[0].source == source


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-sig"])
def test_captions_in_the_encodings_that_programs_write(tmp_path, encoding):
    """UTF-8 with and without a byte order mark, and UTF-16 with one."""
    picture(tmp_path / "a.png")
    text = "image,caption\na.png,Ein Hund l\u00e4uft.\n"
    data = b"\xfe\xff" + text.encode("utf-16-be") if encoding == "utf-16-be-sig" else text.encode(encoding)
    write(tmp_path / "captions.csv", data)
    assert load_dataset(tmp_path).images[0].captions == ("Ein Hund l\u00e4uft.",)


def test_a_caption_that_begins_with_a_quote(tmp_path):
    """Nobody quotes it as csv wants; where the caption comes last it is plain what is meant."""
    rows = 'a.png,"STOP" is on the sign\nb.png,"A sign, quoted"\nc.png,"He said ""no"""\nd.png,"never closed\ne.png,A dog.\n'
    for name in "abcde":
        picture(tmp_path / f"{name}.png")
    dataset = table(tmp_path, "image,caption\n" + rows)
    captions = {image.name: image.captions for image in dataset.images}
    assert captions["a.png"] == ('"STOP" is on the sign',)
    assert captions["b.png"] == ("A sign, quoted",)
    assert captions["c.png"] == ('He said "no"',)
    assert kinds(dataset)["malformed row"]


def test_json_lines_name_the_keys_they_have(tmp_path):
    """`path`, as `caption --json` writes it, is read; other keys are named beside those that are wanted."""
    picture(tmp_path / "a.png")
    write(
        tmp_path / "captions.jsonl",
        '{"path": "a.png", "caption": "A dog."}\n{"url": "b.png", "text": "A cat."}\n',
    )
    dataset = load_dataset(tmp_path)
    assert dataset.images[0].captions == ("A dog.",)
    assert kinds(dataset)["malformed row"] == [
        "captions.jsonl, line 2 (it has url, text: the keys must be image (or file_name, path) and caption (or text))"
    ]


def test_names_that_fit_several_files_find_none(tmp_path):
    """Which one is meant is not guessed; the very name wins."""
    for name in ("A.png", "a.PNG", "b.png", "B.png"):
        picture(tmp_path / "data" / name)
    dataset = table(tmp_path / "data", "image,caption\na.png,A.\nb.png,B.\n")
    assert [image.source for image in dataset.images] == [tmp_path / "data" / "a.png", tmp_path / "data" / "b.png"]
    assert kinds(dataset)["picture without captions"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("captions.csv", b"image,caption\na.png,caf\xe9\n", r"captions.csv is not UTF-8 text \(byte 23 is wrong\)"),
        ("captions.csv", "image,caption\n".encode("utf-16")[:-1], "not UTF-8"),
        ("captions.csv", "", "must name the columns `image,caption`"),
        ("captions.csv", "a.png,A dog.\n", "first line of .*captions.csv is 'a.png,A dog.'"),
        ("captions.jsonl", b"\xff", "not UTF-8"),
        ("dataset_coco.json", '{"images": [', r"not whole JSON \(line 1, column 13"),
        ("dataset_coco.json", "[" * 100_000, "cannot be read as JSON"),
        ("dataset_coco.json", "[1]", "no list of 'images'"),
        ("dataset_flickr8k.json", '{"images": {}}', "no list of 'images'"),
        ("annotations/captions_train2017.json", '{"images": []}', "no list of 'annotations'"),
        ("annotations/captions_val2017.json", b'{"images": "\xe9"', "not UTF-8"),
        ("Flickr8k.token.txt", b"a.jpg#0\t\xe9", "not UTF-8"),
    ],
)
def test_files_that_cannot_be_read_at_all_say_why(tmp_path, name, content, message):
    write(tmp_path / name, content)
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path)


def test_a_folder_of_caption_files_to_choose_from_asks_which(tmp_path):
    write(tmp_path / "captions.jsonl", "")
    with pytest.raises(DataError, match="several caption files"):
        table(tmp_path, "image,caption\n")


def test_what_is_not_recognised_is_answered_with_what_would_be(tmp_path):
    picture(tmp_path / "a.png")
    for path in (tmp_path, tmp_path / "a.png", tmp_path / "gone"):
        with pytest.raises(DataError, match=r"(?s)captions_train2017.json.*image,caption\n.*shapes"):
            load_dataset(path)


# --- COCO and Karpathy ---


def coco_file(path: Path, numbers: range, **changes: list[object]) -> Path:
    images = [{"id": number, "file_name": f"{number:012}.png"} for number in numbers]
    annotations = [{"id": 0, "image_id": number, "caption": f"Picture {number}.\n"} for number in numbers]
    content = {
        "images": images + changes.get("images", []),
        "annotations": annotations + changes.get("annotations", []),
    }
    return write(path, json.dumps(content))


@pytest.mark.parametrize("images", ["", "images/"])
@pytest.mark.parametrize("annotations", ["annotations/", ""])
def test_coco_holds_validation_out_of_train_and_keeps_its_val_unseen(tmp_path, images, annotations):
    for number in range(60):
        picture(tmp_path / images / ("train2017" if number < 50 else "val2017") / f"{number:012}.png")
    coco_file(tmp_path / annotations / "captions_train2017.json", range(50))
    file = coco_file(tmp_path / annotations / "captions_val2017.json", range(50, 60))
    dataset = check_dataset(load_dataset(tmp_path))
    assert Counter(image.split for image in dataset.images) == {"train": 47, "val": 3, "test": 10}
    assert dataset.split("test")[0] == CaptionedImage(
        "val2017/000000000050.png",
        50,
        tmp_path / images / "val2017" / "000000000050.png",
        ("Picture 50.",),
        "test",
        author="people",
    )
    alone = check_dataset(load_dataset(file))
    assert alone.images == dataset.split("test")
    with pytest.raises(DataError, match="no images in its val split; it has test"):
        alone.split("val")


def test_coco_entries_that_make_no_sense_are_malformed_rows(tmp_path):
    images: list[object] = [
        {"id": 0, "file_name": "twice.png"}, {"id": 9}, {"id": [], "file_name": "x"}, None, {"file_name": "x"},
        {"id": 8, "file_name": "\0"}, {"id": 7, "file_name": "x" * 5000}, {"id": 6, "file_name": "silent.png"},
    ]  # fmt: skip
    annotations: list[object] = [
        {"image_id": 99, "caption": "Nobody's."}, {"image_id": 0}, 5, {"image_id": {}, "caption": "x"},
        {"image_id": 7, "caption": "x"}, {"image_id": 8, "caption": "x"},
    ]  # fmt: skip
    coco_file(tmp_path / "captions_train2014.json", range(2), images=images, annotations=annotations)
    write(tmp_path / "captions_mine.json", "{")
    for number in range(2):
        picture(tmp_path / "train2014" / f"{number:012}.png")
    clean = cleaned(load_dataset(tmp_path))
    file = "captions_train2014.json"
    malformed = kinds(clean)["malformed row"]
    assert [name.split(" (")[0] for name in malformed] == [f"{file}, images[{i}]" for i in range(2, 7)] + [
        f"{file}, annotations[{i}]" for i in range(2, 6)
    ]
    assert malformed[1] == f"{file}, images[3] (it has id: the keys must be id and file_name)"
    assert kinds(clean)["picture without captions"] == ["train2014/silent.png"]
    assert len(kinds(clean)["missing picture"]) == 2
    assert len(clean.images) == 2
    assert "not read: captions_mine.json" in clean.notes


def test_coco_of_two_years_is_read_once(tmp_path):
    for year in (2014, 2017):
        coco_file(tmp_path / "annotations" / f"captions_train{year}.json", range(3))
    dataset = load_dataset(tmp_path)
    assert len(dataset.images) == 3
    assert all(image.name.startswith("train2017/") for image in dataset.images)


def karpathy_entry(name: str, split: str, **more: object) -> dict[str, object]:
    return {"filename": name, "split": split, "sentences": [{"raw": f" {name} one."}, {"raw": "Two."}], **more}


@pytest.mark.parametrize("tree", ["val2014/COCO_val2014_000000000007.png", "images/val2014/COCO_val2014_000000000007.png",
                                  "COCO_val2014_000000000007.png", "train2017/000000000007.png", "images/val2017/000000000007.png"])  # fmt: skip
@pytest.mark.parametrize("place", ["", "annotations/"])
def test_karpathy_finds_the_pictures_of_either_year(tmp_path, tree, place):
    source = picture(tmp_path / tree)
    entry = karpathy_entry("COCO_val2014_000000000007.png", "restval", filepath="val2014", cocoid=7)
    file = write(tmp_path / place / "dataset_coco.json", json.dumps({"images": [entry], "dataset": "coco"}))
    dataset = check_dataset(load_dataset(file))
    assert dataset.kind == "karpathy"
    (image,) = dataset.split("train")
    assert (image.name, image.image_id, image.source) == ("val2014/COCO_val2014_000000000007.png", 7, source)
    assert image.captions == ("COCO_val2014_000000000007.png one.", "Two.")
    if not place:
        assert load_dataset(tmp_path).images == dataset.images


def test_karpathy_of_flickr_and_its_malformed_entries(tmp_path):
    entries: list[object] = [karpathy_entry("a.png", "train"), karpathy_entry("b.png", "val"), karpathy_entry("c.png", "test"),
                             karpathy_entry("b.png", "train"), karpathy_entry("d.png", "nowhere"), {}, 3, karpathy_entry("", "val"),
                             karpathy_entry("e.png", "val", sentences=[]), karpathy_entry("f.png", "val", sentences=[5]),
                             karpathy_entry("g.png", "val", sentences=7), karpathy_entry("h.png", "val", cocoid=[])]  # fmt: skip
    for name in "abc":
        picture(tmp_path / "Flicker8k_Dataset" / f"{name}.png")
    write(tmp_path / "dataset_flickr8k.json", json.dumps({"images": entries}))
    found = kinds(cleaned(load_dataset(tmp_path)))
    found["malformed row"] = [name.split(" (")[0] for name in found["malformed row"]]
    assert found == {
        "malformed row": [f"dataset_flickr8k.json, images[{index}]" for index in (4, 5, 6, 7, 9, 10, 11)],
        "picture without captions": ["e.png"],
        "picture in two splits": ["b.png"],
    }
    assert splits(load_dataset(tmp_path)) == {"a.png": "train", "b.png": "val", "c.png": "test"}


# --- Flickr ---


@pytest.mark.parametrize(
    ("captions_file", "images"),
    [
        ("Flickr8k.token.txt", "Flicker8k_Dataset"),
        ("Flickr8k_text/Flickr8k.token.txt", "Flickr8k_Dataset"),
        ("captions.txt", "Images"),
        ("captions.txt", "images"),
        ("captions.txt", ""),
    ],
)
def test_flickr8k_with_its_official_lists(tmp_path, captions_file, images):
    rows = [
        (name, f"Dog {name[0]}, number {n} .") for name in ("a.jpg", "b.jpg", "c.jpg", "gone.jpg.1") for n in (0, 0)
    ]
    if captions_file == "captions.txt":
        text = "image,caption\n" + "".join(f'{name},"{caption}"\n' for name, caption in rows)
    else:
        text = "".join(f"{name}#{number}\t{caption}\r\n" for number, (name, caption) in enumerate(rows))
    file = write(tmp_path / captions_file, text)
    for split, listed in (("train", "a.jpg\nb.jpg\n"), ("dev", "c.jpg")):
        write(file.parent / f"Flickr_8k.{split}Images.txt", listed)
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        picture(tmp_path / images / name)
    dataset = check_dataset(load_dataset(tmp_path))
    assert (dataset.kind, splits(dataset)) == ("flickr8k", {"a.jpg": "train", "b.jpg": "train", "c.jpg": "val"})
    assert captions(dataset)["b.jpg"] == ("Dog b, number 0 .", "Dog b, number 0 .")
    assert "1 captioned pictures are in no split list and left out" in dataset.notes
    assert load_dataset(file).images == dataset.images


def test_flickr8k_lists_that_disagree(tmp_path):
    write(tmp_path / "Flickr8k.token.txt", "a.jpg#0\tA.\nb.jpg#0\tB.\nno tab at all\nb.jpg\tno number\n")
    write(tmp_path / "Flickr_8k.trainImages.txt", "a.jpg\nb.jpg\nunknown.jpg\n")
    write(tmp_path / "Flickr_8k.testImages.txt", "b.jpg\n")
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "b.jpg")
    dataset = load_dataset(tmp_path)
    assert splits(dataset) == {"a.jpg": "train", "b.jpg": "test"}
    assert kinds(dataset) == {
        "malformed row": ["Flickr8k.token.txt, line 3", "Flickr8k.token.txt, line 4"],
        "picture without captions": ["unknown.jpg"],
        "picture in two splits": ["b.jpg"],
    }


@pytest.mark.parametrize("captions_file", ["results_20130124.token", "results.csv", "flickr30k_images/results.csv"])
@pytest.mark.parametrize(
    "images", ["flickr30k_images", "images", "flickr30k-images", "flickr30k_images/flickr30k_images"]
)
def test_flickr30k(tmp_path, captions_file, images):
    names = [f"{number}.jpg" for number in range(20)]
    if captions_file.endswith("csv"):
        text = "image_name| comment_number| comment\n" + "".join(f'{name}| 0| A "dog | cat .\n' for name in names)
        text += "0.jpg| 4   A dog runs .\n"
    else:
        text = "".join(f'{name}#0\tA "dog | cat .\n' for name in names) + "0.jpg#4\tA dog runs .\n"
    write(tmp_path / captions_file, text)
    for name in names:
        picture(tmp_path / images / name)
    dataset = check_dataset(load_dataset(tmp_path))
    assert dataset.kind == "flickr30k"
    assert captions(dataset)["0.jpg"] == ('A "dog | cat .', "A dog runs .")
    assert Counter(splits(dataset).values()) == {"train": 18, "val": 2}
    assert any("held out" in note for note in dataset.notes)
    write(tmp_path / "train.txt", "\n".join(name.removesuffix(".jpg") for name in names[:10]))
    write(tmp_path / "test.txt", "\n".join(names[10:15]))
    assert Counter(splits(check_dataset(load_dataset(tmp_path))).values()) == {"train": 10, "test": 5}


def test_flickr30k_rows_that_make_no_sense(tmp_path):
    write(
        tmp_path / "results.csv",
        "image_name| comment_number| comment\n0.jpg| 0| A dog .\n0.jpg\n0.jpg| A dog .\n| 0| A dog .\n",
    )
    picture(tmp_path / "images" / "0.jpg")
    picture(tmp_path / "images" / "stray.jpg")
    assert kinds(load_dataset(tmp_path)) == {
        "malformed row": [f"results.csv, line {number}" for number in (3, 4, 5)],
        "picture without captions": ["images/stray.jpg"],
    }


# --- the check ---


def test_hostile_files_are_all_named_and_none_crashes_the_check(tmp_path):
    """Every file that is no picture is a problem of the data set, and the whole picture among them stays."""
    files = write_hostile_files(tmp_path)
    assert len(files) >= 25
    picture(tmp_path / "good.png")
    with (tmp_path / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [("image", "caption"), *((name, "A dog.") for name in files), ("good.png", "A dog.")]
        )
    dataset = load_dataset(tmp_path)
    said: list[str] = []
    clean = check_dataset(dataset, skip_bad=True, telling=Telling(said.append, bars=False))
    found = kinds(clean)
    assert set(found) == {"missing picture", "unreadable picture"}
    assert sorted(found["missing picture"] + found["unreadable picture"]) == sorted(files)
    assert [image.name for image in clean.images] == ["good.png"]
    assert len(said[0].splitlines()) == 4  # one name holds a line break


def test_problems_stop_with_counts_and_ten_names_of_each_kind(tmp_path):
    names = [f"{number:03}.png" for number in range(1234)]
    text = "image,caption\nhere.png,Here.\n" + "".join(f"{name},Gone.\n" for name in names)
    dataset = table(tmp_path, text + ",No name.\n", pictures="here.png stray.png")
    with pytest.raises(DataError) as caught:
        check_dataset(dataset)
    message = str(caught.value)
    assert "has 1,236 problems" in message
    assert f"missing picture: 1,234 ({', '.join(names[:10])} and 1,224 more)" in message
    assert "malformed row: 1 (captions.csv, line 1237 (no image))" in message
    assert "picture without captions: 1 (stray.png)" in message
    assert "leave them out" in message
    assert caught.value.field == "skip_bad"
    assert len(message.splitlines()) == 5


def test_the_same_bytes_in_two_splits_stay_where_they_are_scored(tmp_path):
    """A picture that is validated on is not trained on under another name; two copies in one split are no problem."""
    for name, shade in {"a.png": 1, "b.png": 1, "c.png": 1, "d.png": 2, "e.png": 2, "f.png": 3, "g.png": 3}.items():
        picture(tmp_path / name, shade)
    places = zip("abcdefg", ("train", "val", "test", "train", "train", "val", "train"), strict=True)
    dataset = table(tmp_path, "image,caption,split\n" + "".join(f"{name}.png,Dog.,{split}\n" for name, split in places))
    assert dataset.problems == ()
    clean = cleaned(dataset)
    assert splits(clean) == {"c.png": "test", "d.png": "train", "e.png": "train", "f.png": "val"}
    assert kinds(clean) == {
        "same picture under two names in two splits": [
            "a.png (train) = c.png (test)",
            "b.png (val) = c.png (test)",
            "g.png (train) = f.png (val)",
        ]
    }
    assert check_dataset(dataset, splits=["test"]) is dataset


def test_copies_that_our_own_holding_out_parted_stop_nobody(tmp_path):
    """Photo folders hold copies; where nobody said a split, those of a validating picture are told and left out."""
    names = [f"{number}.png" for number in range(20)]
    for name in names:
        picture(tmp_path / name, 7)
    dataset = table(tmp_path, "image,caption\n" + "".join(f"{name},Dog.\n" for name in names))
    said: list[str] = []
    clean = check_dataset(dataset, telling=Telling(said.append, bars=False))
    assert set(splits(clean).values()) == {"val"}
    assert "same picture under two names" in said[0]
    picture(tmp_path / "21.png")
    with pytest.raises(DataError, match="picture without captions"):
        check_dataset(load_dataset(tmp_path))


def test_only_the_splits_asked_for_are_opened(tmp_path):
    text = "image,caption,split\na.png,A.,train\ngone.png,Gone.,test\n"
    dataset = table(tmp_path, text, pictures="a.png")
    assert check_dataset(dataset, splits=["train", "dev"]) is dataset
    with pytest.raises(DataError, match="missing picture"):
        check_dataset(dataset, splits=["test"])


def test_drawn_pictures_need_no_file():
    drawn = CaptionedImage("drawing 1", "drawing 1", Image.new("RGB", (8, 8)), ("A square.",), "train")
    dataset = Dataset("shapes", "shapes", (drawn,))
    assert check_dataset(dataset) is dataset
    assert dataset.describe() == "shapes at shapes: 1 images, 1 captions (train 1)"


def test_the_word_shapes_means_the_drawn_ones_even_beside_a_folder_of_that_name(tmp_path, monkeypatch):
    table(tmp_path / "shapes", "image,caption\na.png,A.\n", pictures="a.png")
    monkeypatch.setattr("captioner.datasets.shapes.load_shapes", lambda: Dataset("shapes", "shapes", ()))
    monkeypatch.chdir(tmp_path)
    assert load_dataset("shapes").kind == "shapes"
    assert load_dataset("./shapes").kind == load_dataset(tmp_path / "shapes").kind == "table"


def test_names_cannot_command_the_terminal():
    text = summarise([Problem("missing picture", "\x1b[2J\r.jpg"), Problem("missing picture", "größer.jpg")])
    assert text == r"  missing picture: 2 ('\x1b[2J\r.jpg', größer.jpg)"


# --- the real ones ---


@needs_flickr8k
def test_real_flickr8k_is_read_whole():
    dataset = load_dataset(SHARED / "flickr8k")
    assert (dataset.kind, dataset.problems) == ("flickr8k", ())
    assert Counter(splits(dataset).values()) == {"train": 6000, "val": 1000}
    assert {len(image.captions) for image in dataset.images} == {5}


@needs_flickr8k
@pytest.mark.slow
def test_real_flickr8k_has_no_problem():
    dataset = load_dataset(SHARED / "flickr8k")
    assert check_dataset(dataset) is dataset


@needs_coco
def test_real_coco_sample_names_what_is_absent():
    dataset = load_dataset(SHARED / "coco")
    assert Counter(splits(dataset).values()) == {"train": 76, "val": 4, "test": 5000}
    assert sum(len(image.captions) for image in dataset.split("test")) == 25_014
    with pytest.raises(DataError, match=r"missing picture: 4,920 \(val2017/000000397133.jpg, "):
        check_dataset(dataset)
    clean = cleaned(dataset)
    assert Counter(splits(clean).values()) == {"train": 76, "val": 4, "test": 80}
    assert len(clean.problems) == 4920
    assert all(isinstance(image.image_id, int) and os.path.exists(str(image.source)) for image in clean.images)


def test_joined_data_sets_keep_every_picture_its_split_and_its_name(tmp_path):
    """Pictures of one name in two data sets stay two pictures, each with its own captions, split and origin."""
    one = table(tmp_path / "one", "image,caption,split\na.jpg,A dog.,train\nb.jpg,A cat.,val", pictures="a.jpg b.jpg")
    two = table(tmp_path / "two", "image,caption,split\na.jpg,A bus.,train\nc.jpg,,val", pictures="a.jpg c.jpg")
    both = join([one, two])
    assert captions(both) == {"one/a.jpg": ("A dog.",), "one/b.jpg": ("A cat.",), "two/a.jpg": ("A bus.",)}
    assert splits(both) == {"one/a.jpg": "train", "one/b.jpg": "val", "two/a.jpg": "train"}
    assert [image.origin for image in both.images] == ["one", "one", "two"]
    assert [problem.name.split("/")[0] for problem in both.problems] == ["two"] * len(two.problems)
    assert both.describe().startswith(one.describe().splitlines()[0])
    assert "together: 3 images, 3 captions (train 2, val 1)" in both.describe()


def test_joined_data_sets_of_one_folder_name_stay_apart_and_one_given_twice_is_refused(tmp_path):
    """Names are numbered where they are the same; the very same data set twice would count its pictures twice."""
    for parent in "xy":
        table(tmp_path / parent / "photos", "image,caption,split\na.jpg,A dog.,train", pictures="a.jpg")
    one, two = (load_dataset(tmp_path / parent / "photos") for parent in "xy")
    assert list(captions(join([one, two]))) == ["photos/a.jpg", "photos-2/a.jpg"]
    assert join([one]) is one
    with pytest.raises(DataError, match="is given twice"):
        join([one, load_dataset(tmp_path / "x" / "." / "photos")])


def test_a_picture_that_one_data_set_trains_on_and_another_scores_is_found(tmp_path):
    """The same bytes in the train split of one and the val split of the other are a problem, named with both."""
    one = table(tmp_path / "one", "image,caption,split\na.jpg,A dog.,train\nb.jpg,A cat.,train", pictures="a.jpg b.jpg")
    two = table(tmp_path / "two", "image,caption,split\nc.jpg,A dog.,val", pictures="c.jpg")
    (tmp_path / "two" / "c.jpg").write_bytes((tmp_path / "one" / "a.jpg").read_bytes())
    with pytest.raises(DataError, match=r"one/a\.jpg \(train\) = two/c\.jpg \(val\)"):
        check_dataset(join([one, two]))


def test_who_wrote_the_captions_is_read_from_a_column_or_a_file_beside_it(tmp_path):
    """`captions_by` in the captions file, or in sources.csv; benchmark data sets were captioned by people."""
    rows = "image,caption,captions_by\na.jpg,A dog.,people\nb.jpg,A cat.,"
    (tmp_path / "own").mkdir()
    write(tmp_path / "own" / "sources.csv", "image,source,captions_by\nb.jpg,elsewhere,model\nz.jpg,nowhere,model\n")
    data = table(tmp_path / "own", rows, pictures="a.jpg b.jpg")
    assert {image.name: image.author for image in data.images} == {"a.jpg": "people", "b.jpg": "model"}
    assert "captions by" in data.describe()
