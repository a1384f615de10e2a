"""Data sets as people have them: every layout is recognised, and whatever this project writes it reads."""

import io
import json
import shutil
import subprocess
import sys
import unicodedata
import zipfile
import zlib
from pathlib import Path

import pytest
from PIL import Image

from captioner import cli
from captioner.datasets import LAYOUTS, Dataset, check_dataset, load_dataset
from captioner.datasets.results import match_results
from captioner.errors import DataError
from captioner.formats import (
    coco_results,
    csv_lines,
    json_lines,
    read_results,
    results_of_ids,
    text_sidecars,
    xmp_sidecars,
)
from tests.datasets.test_datasets import captions, kinds, picture, splits, write

ROOT = Path(__file__).parents[2]
CASES = ROOT.parent / "shared" / "cases"
DOG, CAT, BUS = "A dog runs.", "A cat, asleep.", "A red bus; 犬 größer"


def saying(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """The captions by the name of the picture's file, once the pictures were read."""
    return {Path(str(image.source)).name: image.captions for image in check_dataset(dataset).images}


def folder_of(root: Path, *names: str) -> Path:
    """A folder with these pictures, each of another colour."""
    for name in names:
        picture(root / name, zlib.crc32(f"{root.name}/{name}".encode()) % 2**24)
    return root


# --- what we write, we read ---


NAMES = ["a.jpg", "deep/er/b c.PNG", "cafe\u0301 日本 🐕.webp", "000000391895.jpg", "'q'.jpg", "x/same.jpg", "y/same.jpg", "=1+1.jpg"]  # fmt: skip
WRITTEN = dict(
    zip(NAMES, [DOG, CAT, BUS, '"STOP" on a sign', "=1+1", "Two,\nlines.", "- a dash", "tab\there"], strict=True)
)


def as_lines(lines):
    return "".join(f"{line}\n" for line in lines)


WRITERS = {
    "csv": lambda said: {"captions.csv": as_lines(csv_lines(said))},
    "json": lambda said: {"captions.jsonl": as_lines(json_lines({"path": n, "caption": c} for n, c in said))},
    "json as .json": lambda said: {"Captions.JSON": as_lines(json_lines({"path": n, "caption": c} for n, c in said))},
    "jsonl": lambda said: {"captions.jsonl": as_lines(json_lines({"image": n, "caption": c} for n, c in said))},
    "coco": lambda said: {"captions.json": coco_results(said)},
    "predictions": lambda said: {"captions.json": results_of_ids(said)},
    "per-image": lambda said: {
        "captions.jsonl": as_lines(
            json_lines({"image_id": n, "caption": c, "references": [DOG], "scores": {}} for n, c in said)
        )
    },
    "text files": lambda said: dict(text_sidecars(said)),
    "xmp": lambda said: dict(xmp_sidecars(said)),
}


WAYS = ["", "my-photos/", "/home/me/My-Photos/", "C:\\Users\\me\\my-photos\\"]
BESIDE = ("text files", "xmp")


@pytest.mark.parametrize(
    ("form", "before"), [(form, way) for form in WRITERS for way in (WAYS[:1] if form in BESIDE else WAYS)]
)
def test_what_we_write_we_read(tmp_path, form, before):
    """Every writer's files, beside the photos they are of: every name finds its photo, and every caption is the same.

    With any way to the folder in front of the names, but for the files that lie beside each photo. Text files have no
    line ends within a caption: what reads them elsewhere takes the first line only.
    """
    root = folder_of(tmp_path / "my-photos", *NAMES)
    said = [(before + (name.replace("/", "\\") if "\\" in before else name), text) for name, text in WRITTEN.items()]
    files = WRITERS[form](said)
    for name, content in files.items():
        write(root / name, content)
    expected = {name: (" ".join(text.split("\n")) if form == "text files" else text,) for name, text in WRITTEN.items()}
    for path in (root, *(() if form in BESIDE else [root / next(iter(files))])):
        dataset = check_dataset(load_dataset(path))
        assert dataset.problems == ()
        assert {
            Path(str(image.source)).relative_to(root).as_posix(): image.captions for image in dataset.images
        } == expected


@pytest.mark.parametrize("file", ["captions.csv", "captions.jsonl", "captions.json", "captions.tsv", "captions.txt"])
def test_caption_my_photos_and_train(tmp_path, talkative, capsys, monkeypatch, file):
    """`caption my-photos --format F > my-photos/captions.F` makes a data set of the folder, whatever F is."""
    root = folder_of(tmp_path / "my-photos", "a.png", "B.PNG", "deep/c.png")
    monkeypatch.chdir(tmp_path)
    form = {"csv": "csv", "jsonl": "json", "json": "coco"}.get(file.rpartition(".")[2], "text")
    capsys.readouterr()
    assert cli.main(["caption", "my-photos", "--format", form, "--model", talkative]) == 0
    write(root / file, capsys.readouterr().out)
    dataset = check_dataset(load_dataset("my-photos"))
    assert {str(image.source) for image in dataset.images} == {f"my-photos/{name}" for name in ("a.png", "B.PNG", "deep/c.png")}  # fmt: skip
    assert all(len(image.captions) == 1 for image in dataset.images)
    if form == "coco":  # and as results for that same data set
        assert len(match_results(root / file, read_results(root / file), dataset.images)) == 3


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--sidecars", "txt"], ["captions from .txt files beside the pictures"]),
        (["--sidecars", "xmp"], ["captions from .xmp files beside the pictures"]),
        # A BMP has no place for a caption.
        (["--write"], ["captions from .xmp files beside the pictures", "captions from inside the pictures"]),
    ],
)
def test_caption_into_and_beside_photos_and_train(tmp_path, talkative, capsys, options, told):
    """What `caption` leaves in a folder, beside the photos or inside them, makes a data set of it."""
    if "--write" in options and not shutil.which("exiftool"):
        pytest.skip("exiftool is not installed")
    root = folder_of(tmp_path / "my-photos", "a.png")
    for name, colour in {"b.jpg": "red", "deep/c.webp": "blue", "deep/d.bmp": "green"}.items():
        (root / "deep").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), colour).save(root / name)
    assert cli.main(["caption", str(root), *options, "--model", talkative]) == 0
    dataset = check_dataset(load_dataset(root))
    assert sorted(image.name for image in dataset.images) == ["a.png", "b.jpg", "deep/c.webp", "deep/d.bmp"]
    assert [line.strip() for line in dataset.describe().splitlines() if "captions from" in line] == told


@pytest.mark.parametrize("form", ["csv", "jsonl", "coco", "txt", "xmp"])
def test_the_page_s_downloads(tmp_path, form):
    """Unpacked beside the photos, where they are zips."""
    pytest.importorskip("gradio", reason="the page needs gradio")
    from captioner.web.downloads import PHOTOS
    from captioner.web.gallery import Card

    root = folder_of(tmp_path, "a.jpg", "b/c.png")
    known = PHOTOS[form]
    content = known.write([Card(name="a.jpg", caption=DOG, probability=0.5, alternatives=[CAT]), Card(name="b/c.png", caption=BUS)])  # fmt: skip
    if known.file.endswith(".zip"):
        zipfile.ZipFile(io.BytesIO(content)).extractall(root)
    else:
        write(root / known.file, content)
    assert saying(load_dataset(root)) == {"a.jpg": (DOG,), "c.png": (BUS,)}


def test_names_of_two_spellings_are_one_picture(tmp_path):
    """What two rows call by two names, and is one file, stays one picture with the captions of both."""
    root = folder_of(tmp_path / "photos", "P0.JPG", "b.png")
    write(root / "captions.csv", f"image,caption\np0.jpg,{DOG}\nphotos/P0.JPG,A hound.\n./P0.JPG,A pup.\nb.png,B.\n")
    assert saying(load_dataset(root)) == {"P0.JPG": (DOG, "A hound.", "A pup."), "b.png": ("B.",)}


# --- layouts of other people ---


def lines_of(*rows):
    return as_lines(map(json.dumps, rows))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("metadata.jsonl", lines_of({"file_name": "a.png", "text": DOG}, {"file_name": "b.png", "text": CAT}), "file_name, text"),
        ("METADATA.CSV", f'File_Name,Text\na.png,{DOG}\nb.png,"{CAT}"\n', "File_Name, Text"),
        ("metadata.csv", f'file_name,caption\na.png,{DOG}\nb.png,"{CAT}"\n', "file_name, caption"),
        ("captions.json", json.dumps([{"image": "a.png", "caption": DOG}, {"image": "b.png", "caption": CAT}]), "image, caption"),
        ("captions.json", json.dumps([{"image": "a.png", "captions": [DOG]}, {"image": "b.png", "captions": [CAT]}], indent=1), "image, captions"),
        ("Captions.Tsv", f"IMAGE\tCaption\na.png\t{DOG}\nb.png\t{CAT}\n", "IMAGE, Caption"),
        ("captions.tsv", f"a.png\t{DOG}\nb.png\t{CAT}\n", "image, caption"),
        ("captions.TXT", f"a.png\t{DOG}\r\nb.png\t{CAT}\r\n", "image, caption"),
        ("Captions.JSONL", lines_of({"Image": "A.png", "Caption": DOG}, {"Image": "B.PNG", "Caption": CAT}), "Image, Caption"),
        ("captions.csv", f'filename,caption_0,caption_1\na.png,{DOG},\nb.png,"{CAT}",\n', "filename, caption_0"),
        ("captions.csv", f"image_name;caption\na;{DOG}\nb;{CAT}\n", "image_name, caption"),
    ],
)  # fmt: skip
def test_one_s_own_captions_by_other_names_and_keys(tmp_path, name, content, said):
    """Hugging Face's keys, lists in JSON, tabs, any capitals; what was read, and by which keys, is told."""
    root = folder_of(tmp_path, "a.png", "b.png")
    write(root / name, content)
    dataset = load_dataset(root)
    assert saying(dataset) == {"a.png": (DOG,), "b.png": (CAT,)}
    assert f"captions from {name} ({said})" in dataset.describe()
    assert load_dataset(root / name).images == dataset.images
    assert dataset.kind == ("imagefolder" if "metadata" in name.lower() else "table")


@pytest.mark.parametrize("below", ["", "data/"])
@pytest.mark.parametrize("validation", ["validation", "val", "Valid", "dev"])
def test_imagefolder_in_folders_of_splits(tmp_path, below, validation):
    """Hugging Face's train, validation and test, each with its metadata; pictures of one name stay apart."""
    for split in ("train", validation, "test"):
        folder = folder_of(tmp_path / below / split, "0.png", "1.png" if split == "train" else "2.png")
        write(folder / "metadata.jsonl", lines_of(*({"file_name": file.name, "text": f"{split} {file.name}"} for file in sorted(folder.iterdir()))))  # fmt: skip
    dataset = check_dataset(load_dataset(tmp_path))
    assert dataset.kind == "imagefolder"
    assert splits(dataset) == {
        f"{below}train/0.png": "train", f"{below}train/1.png": "train", f"{below}{validation}/0.png": "val",
        f"{below}{validation}/2.png": "val", f"{below}test/0.png": "test", f"{below}test/2.png": "test",
    }  # fmt: skip
    assert captions(dataset)[f"{below}test/0.png"] == ("test 0.png",)
    assert "and 2 more" in dataset.describe()


def test_imagefolder_with_one_file_for_all_splits(tmp_path):
    """The pictures' folders are the splits; without a validation folder a tenth of the training pictures validates."""
    names = [f"{split}/{number}.png" for split in ("train", "test") for number in range(4)]
    folder_of(tmp_path, *names)
    write(tmp_path / "metadata.jsonl", lines_of(*({"file_name": name, "text": name} for name in names)))
    dataset = check_dataset(load_dataset(tmp_path))
    assert {name: split for name, split in splits(dataset).items() if name.startswith("test")} == dict.fromkeys(names[4:], "test")  # fmt: skip
    assert sorted(split for name, split in splits(dataset).items() if name.startswith("train")) == ["train"] * 3 + ["val"]  # fmt: skip
    assert "splits by the pictures' folders" in dataset.describe()


def test_a_file_for_each_split(tmp_path):
    """`train.csv` and `val.csv`, with no need for a column."""
    root = folder_of(tmp_path, "a.png", "b.png", "c.png")
    write(root / "train.csv", f"image,caption\na.png,{DOG}\nb.png,{DOG}\n")
    write(root / "captions_val.csv", f"image,caption\nc.png,{DOG}\n")
    assert splits(check_dataset(load_dataset(root))) == {"a.png": "train", "b.png": "train", "c.png": "val"}


@pytest.mark.parametrize(
    "files",
    [
        {"a.txt": f"{DOG}\n", "sub/b.txt": BUS},
        {"A.TXT": f"\ufeff{DOG}", "sub/b.caption": f"{BUS}\r\n"},
        {"a.png.txt": DOG, "sub/b.Caption": BUS},
        {"a.txt": DOG, "sub/b.txt": BUS, "a.png.xmp": "<broken", "notes.txt": "none of a photo's", ".b.txt": "x"},
        {"a.xmp": dict(xmp_sidecars([("a.png", DOG)]))["a.png.xmp"], "sub/b.txt": f"\ufeff{BUS}".encode("utf-16-le")},
    ],
)
def test_sidecars(tmp_path, files):
    """Files beside the photos, at any depth, in any capitals; each photo has the first of its kinds."""
    root = folder_of(tmp_path, "a.png", "sub/b.png")
    for name, content in files.items():
        write(root / name, content)
    dataset = load_dataset(root)
    assert saying(dataset) == {"a.png": (DOG,), "b.png": (BUS,)}
    assert dataset.kind == "sidecars"
    assert "files beside the pictures" in dataset.describe()


def test_sidecars_hold_a_caption_a_line_and_what_is_wrong_with_them_is_named(tmp_path):
    """Empty lines are none; no caption, no text and no XMP are problems of these photos alone."""
    root = folder_of(tmp_path, "a.png", "b.png", "c.png", "d.png", "e.png", "f.png")
    write(root / "a.txt", f"{DOG}\n\n  A pup.\r\n")
    write(root / "b.txt", " \n")
    write(root / "c.txt", b"caf\xe9")
    write(root / "d.png.xmp", "<x:xmpmeta")
    write(root / "e.png.xmp", '<!DOCTYPE x [<!ENTITY a "A.">]><x>&a;</x>')
    dataset = load_dataset(root)
    assert captions(dataset) == {"a.png": (DOG, "A pup.")}
    found = kinds(dataset)
    assert found["picture without captions"] == ["b.png", "c.png", "d.png", "e.png", "f.png"]
    assert [name.split(" (")[0] for name in found["malformed row"]] == ["c.txt", "d.png.xmp", "e.png.xmp"]


def test_sidecars_in_folders_of_splits(tmp_path):
    """train/ and val/ are the splits here too."""
    for split in ("train", "val"):
        folder_of(tmp_path, f"images/{split}/{split}.png")
        write(tmp_path / "images" / split / f"{split}.txt", DOG)
    assert splits(load_dataset(tmp_path)) == {"images/train/train.png": "train", "images/val/val.png": "val"}


def test_sidecars_in_another_unicode_form(tmp_path):
    """A Mac's zip decomposes accents in one of the two names."""
    composed, decomposed = "caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")
    folder_of(tmp_path, f"{composed}.png")
    write(tmp_path / f"{decomposed}.txt", DOG)
    assert [image.captions for image in load_dataset(tmp_path).images] == [(DOG,)]


def test_xmp_of_other_programs(tmp_path):
    """The default language's description, then any, then the alt text; a file of ratings alone is no caption."""
    head = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:i="http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4">'  # fmt: skip
    tail = '</rdf:Description></rdf:RDF></x:xmpmeta>\n   <?xpacket end="w"?>'
    both = f'<rdf:Alt><rdf:li xml:lang="de">Hund</rdf:li><rdf:li xml:lang="x-default">{DOG}</rdf:li></rdf:Alt>'
    one = f'<rdf:Alt><rdf:li xml:lang="en">{CAT}</rdf:li></rdf:Alt>'
    for name, body in {"a": f"<dc:description>{both}</dc:description>", "b": f"<i:AltTextAccessibility>{one}</i:AltTextAccessibility>", "c": ""}.items():  # fmt: skip
        folder_of(tmp_path, f"{name}.png")
        write(tmp_path / f"{name}.png.xmp", head + body + tail)
    dataset = load_dataset(tmp_path)
    assert captions(dataset) == {"a.png": (DOG,), "b.png": (CAT,)}
    assert kinds(dataset) == {"picture without captions": ["c.png"]}


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif"])
def test_captions_inside_the_photos(tmp_path, kind):
    """As ExifTool writes them, an independent writer, wherever in the file; photos without one are named."""
    exiftool = shutil.which("exiftool")
    if not exiftool:
        pytest.skip("exiftool is not installed")
    for name in ("a", "sub/b", "c"):
        file = folder_of(tmp_path, f"{name}.{kind}") / f"{name}.{kind}"
        size = (1000, 800) if name == "a" else (8, 8)  # more than what is read at either end
        options = {"lossless": True, "method": 0, "quality": 0} if kind == "webp" else {"quality": 95}
        Image.effect_noise(size, 50).convert("RGB").save(file, **options)
    for name, caption in (("a", BUS), ("sub/b", DOG)):
        command = [exiftool, "-q", "-overwrite_original", f"-XMP-dc:Description={caption}", tmp_path / f"{name}.{kind}"]
        subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / f"a.{kind}").stat().st_size > 1 << 19
    dataset = load_dataset(tmp_path)
    assert (dataset.kind, captions(dataset)) == ("inside", {f"a.{kind}": (BUS,), f"sub/b.{kind}": (DOG,)})
    assert kinds(dataset) == {"picture without captions": [f"c.{kind}"]}
    assert "captions from inside the pictures" in dataset.describe()


def test_capitals_of_the_known_data_sets(tmp_path):
    """Folders, files and keys of COCO and Flickr8k as a disk or a program may have changed them."""
    coco, flickr = tmp_path / "coco", tmp_path / "flickr"
    folder_of(coco / "IMAGES" / "Train2017", "1.png")
    content = {"Images": [{"ID": 1, "File_Name": "1.PNG"}], "Annotations": [{"Image_ID": 1, "Caption": DOG}]}
    write(coco / "Annotations" / "CAPTIONS_train2017.JSON", json.dumps(content))
    folder_of(flickr / "IMAGES", "a.jpg", "b.jpg")
    write(flickr / "flickr8k.TOKEN.txt", f"a.jpg#0\t{DOG}\nb.jpg#0\t{CAT}\n")
    write(flickr / "flickr_8k.trainimages.txt", "A.JPG\n")
    write(flickr / "Flickr_8K.devImages.txt", "b.jpg\n")
    assert saying(load_dataset(coco)) == {"1.png": (DOG,)}
    assert splits(check_dataset(load_dataset(flickr))) == {"a.jpg": "train", "b.jpg": "val"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("captions.json", '{"dog.jpg": "A dog."}', "must hold a list of objects with image .*: it holds an object with dog.jpg"),
        ("captions.json", "[", "not whole JSON"),
        ("captions.json", "3", "it holds something else"),
        ("metadata.csv", "url,alt\na.png,A.\n", "first line of .*metadata.csv is 'url,alt'.*file_name.*text"),
        ("metadata.parquet", b"PAR1 and no more PAR1", "parquet"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_names_what_it_has_and_what_is_wanted(tmp_path, name, content, message):
    write(tmp_path / name, content)
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path)


def test_rows_with_other_keys_name_them(tmp_path):
    """In every form: the keys that are there beside those that are wanted."""
    root = folder_of(tmp_path, "a.png")
    for name, content, place in [
        ("captions.jsonl", lines_of({"image": "a.png", "caption": DOG}, {"img": "a.png", "alt": "A."}), "line 2"),
        ("captions.json", json.dumps([{"image": "a.png", "caption": DOG}, {"img": "a.png", "alt": "A."}]), "entry 2"),
    ]:
        file = write(root / name, content)
        wanted = "the keys must be image (or file_name, path) and caption (or text)"
        assert kinds(load_dataset(file)) == {"malformed row": [f"{name}, {place} (it has img, alt: {wanted})"]}


def test_every_layout_is_described_where_users_look():
    """The table in data/README.md, and the answer to what is not recognised, name every layout that is known."""
    page = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_dataset("nowhere")
    for name in [name for _, looks in LAYOUTS for name in looks]:
        assert f"| {name} |" in page
        assert f"  {name} " in str(caught.value)


@pytest.mark.parametrize("case", ["hf-imagefolder", "sidecar-txt", "jsonl-of-caption-json", "csv-utf16", "csv-quote-first"])  # fmt: skip
def test_small_inputs_that_failed(case):
    """Six pictures with a caption each."""
    if not CASES.is_dir():
        pytest.skip(f"there are no {CASES}")
    dataset = check_dataset(load_dataset(CASES / case))
    assert len(dataset.images) == 6


# --- parquet ---


def test_without_pyarrow_parquet_says_how_to_install_it(tmp_path, monkeypatch):
    """One sentence; pyarrow is needed for such files alone."""
    write(tmp_path / "train-00000-of-00001.parquet", b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"is a parquet file, and pyarrow is not installed: pip install pyarrow\.$"):
        load_dataset(tmp_path)


def parquet(path: Path, **columns: object) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    from pyarrow import parquet as files

    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_table(pyarrow.table(columns), path, row_group_size=2)
    return path


def encoded(folder: Path, *shades: int) -> list[bytes]:
    return [picture(folder / f"{shade}.png", shade).read_bytes() for shade in shades]


@pytest.mark.parametrize("as_struct", [True, False])
def test_parquet_with_the_pictures_in_it(tmp_path, as_struct):
    """As Hugging Face keeps data sets: pictures are unpacked beside the file, once, and read as any others are."""
    one, two, three = encoded(tmp_path / "made", 1, 200, 65000)
    root = tmp_path / "set"
    struct = lambda data, path: {"bytes": data, "path": path} if as_struct else data  # noqa: E731
    parquet(
        root / "data" / "train-00000-of-00002.parquet",
        image=[struct(one, "x/one.png"), struct(one, "x/one.png")],
        text=[DOG, "A pup."],
    )
    parquet(root / "data" / "train-00001-of-00002.parquet", image=[struct(two, None)], text=[CAT])
    parquet(root / "data" / "validation-00000-of-00001.parquet", image=[struct(three, "one.png")], text=[BUS])  # fmt: skip
    dataset = check_dataset(load_dataset(root))
    assert dataset.kind == "parquet"
    assert sorted(image.captions for image in dataset.images) == sorted([(DOG, "A pup."), (CAT,), (BUS,)])
    assert {image.source.read_bytes(): image.split for image in dataset.images} == {one: "train", two: "train", three: "val"}  # fmt: skip
    assert "captions from data/train-00000-of-00002.parquet and 2 more (image, text)" in dataset.describe()
    before = {image.source: image.source.stat().st_mtime_ns for image in dataset.images}
    again = check_dataset(load_dataset(root))
    assert {image.source: image.source.stat().st_mtime_ns for image in again.images} == before
    assert again.images == dataset.images


def test_parquet_rows_of_lists_names_and_splits(tmp_path):
    """Captions as lists, names in a column of their own, the row's split; a row without caption or picture is named."""
    one, two = encoded(tmp_path / "made", 1, 200)
    root = tmp_path / "set"
    file = parquet(root / "mine.parquet", image=[one, two, None, one], filename=["1.jpg", "2.jpg", "3.jpg", None],
                   caption=[[DOG, "A pup."], [CAT], ["x"], []], split=["train", "test", "train", "train"])  # fmt: skip
    dataset = load_dataset(root)
    assert captions(dataset) == {"1.jpg": (DOG, "A pup."), "2.jpg": (CAT,)}
    assert splits(dataset) == {"1.jpg": "train", "2.jpg": "test"}
    assert kinds(dataset) == {
        "malformed row": ["mine.parquet, row 3 (no image)", "mine.parquet, row 4 (no caption)"],
    }
    parquet(file, url=["x"], alt=["y"])
    with pytest.raises(DataError, match=r"has the columns url, alt: it needs image \(or file_name, path\) and caption"):
        load_dataset(root)


def test_metadata_parquet_beside_the_pictures(tmp_path):
    folder_of(tmp_path / "train", "a.png")
    parquet(tmp_path / "train" / "metadata.parquet", file_name=["a.png"], text=[DOG])
    assert captions(load_dataset(tmp_path)) == {"train/a.png": (DOG,)}


def test_parquet_where_nothing_may_be_written(tmp_path, monkeypatch):
    """One sentence with the way out."""
    parquet(tmp_path / "a.parquet", image=encoded(tmp_path / "made", 1), text=[DOG])

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(DataError, match=r"cannot be unpacked into .*No space left on device: copy the data set"):
        load_dataset(tmp_path)
