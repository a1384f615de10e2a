"""Captions as files: what is written is read back by the project's own readers, and by others."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from captioner.datasets import load_dataset
from captioner.datasets.dataset import CaptionedImage
from captioner.datasets.results import match_results
from captioner.formats import (
    coco_results,
    csv_lines,
    json_lines,
    read_csv,
    read_json_rows,
    text_sidecars,
    timestamp,
    to_srt,
    to_webvtt,
    xmp_sidecars,
)
from captioner.formats.rows import Row

TEXT = st.text(max_size=30) | st.text("=+-@＝'\",;\t\r\n\u2028\x00\ud800 a", max_size=8)
PICTURES = st.lists(
    st.tuples(
        st.tuples(st.sampled_from(["", "a/", "./", "="]), TEXT, st.sampled_from([".jpg", ".png", ".jpg.png"])).map(
            "".join
        ),
        TEXT,
    ),
    max_size=6,
    unique_by=lambda one: one[0],
)
AWKWARD = [
    ("a.jpg", "A dog runs."),
    ("deep/er/b c.jpg", "A sign: \"Stop, or 'else'\";"),
    ("café 日本 🐕.png", "Ein Hündchen, ganz naß; 犬"),
    ("c.png", "Two lines,\r\nof which\nthe last\rends"),
    ('=HYPERLINK("http.example")+cmd.jpg', "=1+1"),
    ("-1.jpg", "@home"),
    (",.jpg", "+++"),
]


def written(text):
    """What a file can hold of a text: numbers stand for lone surrogates and control characters."""
    bad = [c for c in text if "\ud800" <= c <= "\udfff" or (c < " " and c not in "\t\n\r") or c in "\ufffe\uffff"]
    for character in bad:
        text = text.replace(character, f"%{ord(character):02X}")
    return text


def rows(pictures, *, strip=True):
    """What the own-folder reader makes of names and captions; it strips names that nothing stands before."""
    return [
        Row(PurePosixPath(name.strip() if strip else name).as_posix(), caption.strip())
        for name, caption in ((written(name).replace("\\", "/"), written(caption)) for name, caption in pictures)
        if caption.strip()
    ]


def objects(pictures):
    return ({"image": name, "caption": caption} for name, caption in pictures)


def saved(path, lines, encoding="utf-8"):
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_csv_is_a_folder_of_ones_own(tmp_path, encoding):
    """`train.py` and `evaluate` read names and captions exactly, with commas, quotes, lines, accents and formulas."""
    for name, _ in AWKWARD:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    file = saved(tmp_path / "captions.csv", csv_lines(AWKWARD), encoding)
    data = load_dataset(tmp_path)
    assert data.problems == ()
    assert {image.name: image.captions for image in data.images} == {name: (caption,) for name, caption in AWKWARD}
    assert all(image.source.is_file() for image in data.images)
    assert file.read_text(encoding).splitlines()[:2] == ["image,caption", "a.jpg,A dog runs."]


@given(PICTURES)
def test_every_csv_is_read_back(tmp_path_factory, pictures):
    """Whatever a name and a caption hold; a picture without a caption is named by the reader, not lost."""
    file = saved(tmp_path_factory.mktemp("csv") / "captions.csv", csv_lines(pictures))
    got = list(read_csv(file))
    assert [row for row in got if isinstance(row, Row)] == rows(pictures, strip=False)
    assert len(got) == len(pictures)


@given(PICTURES)
def test_no_cell_is_a_formula(pictures):
    """A spreadsheet sees text, whatever a stranger called a file."""
    for row in csv.reader(io.StringIO("\n".join(csv_lines(pictures)), newline="")):
        assert not any(cell.startswith(tuple("=+-@\t\r＝＋－＠")) for cell in row)


@given(PICTURES)
def test_every_json_line_is_read_back(tmp_path_factory, pictures):
    """The own-folder reader finds the same names and captions."""
    file = saved(tmp_path_factory.mktemp("jsonl") / "captions.jsonl", json_lines(objects(pictures)))
    assert [row for row in read_json_rows(file) if isinstance(row, Row)] == rows(pictures)


def test_json_lines_say_how_sure_the_model_was():
    """Probability and alternatives stand there where they are known, and only there."""
    known = [
        {"image": "a.jpg", "caption": "A dog.", "word_probability": 0.6123, "alternatives": ["A cat.", "Dogs."]},
        {"image": "b.jpg", "caption": "Mine."},
    ]
    assert [json.loads(line) for line in json_lines(known)] == known


def test_rows_come_as_soon_as_their_pictures():
    """A thousand captions need not be there before the first is written."""

    def pictures():
        yield "a.jpg", "A."
        raise AssertionError("asked for the second picture")

    for lines, first in ((csv_lines(pictures()), 1), (json_lines(objects(pictures())), 0)):
        assert "a.jpg" in [next(lines) for _ in range(first + 1)][-1]


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        ("000000391895.jpg", 391895),
        ("val2017/000000391895.jpg", 391895),
        ("val2017\\000000391895.jpg", 391895),
        ("COCO_val2014_000000391895.jpg", 391895),
        ("1000268201_693b08cb0e.jpg", "1000268201_693b08cb0e.jpg"),
        ("images/1000268201_693b08cb0e.jpg", "1000268201_693b08cb0e.jpg"),
        ("391895.jpg", "391895.jpg"),
        ("IMG_000000391895.jpg", "IMG_000000391895.jpg"),
        ("0000000391895.jpg", "0000000391895.jpg"),
    ],
)
def test_the_image_id(name, image_id):
    """COCO's number where the file's name is COCO's, elsewhere the file's name."""
    assert json.loads(coco_results([(name, "A.")])) == [{"image_id": image_id, "caption": "A."}]


def test_image_ids_are_never_shared():
    """Where a number or a file's name is several pictures', the whole path tells them apart."""
    names = [
        "train2017/000000000007.jpg",
        "COCO_val2014_000000000007.jpg",
        "a/1.jpg",
        "b/1.jpg",
        "2.jpg",
        "c/2.jpg",
        "3.jpg",
    ]
    ids = [entry["image_id"] for entry in json.loads(coco_results([(name, "A.") for name in names]))]
    assert ids == [
        "000000000007.jpg",
        "COCO_val2014_000000000007.jpg",
        "a/1.jpg",
        "b/1.jpg",
        "2.jpg",
        "c/2.jpg",
        "3.jpg",
    ]


def test_evaluate_reads_results_of_coco(tmp_path):
    """The captions of COCO's pictures find their images by number."""
    images = [{"id": number, "file_name": f"{number:012}.jpg"} for number in (7, 391895)]
    references = [{"image_id": image["id"], "caption": "A dog."} for image in images]
    (tmp_path / "captions_val2017.json").write_text(json.dumps({"images": images, "annotations": references}))
    data = load_dataset(tmp_path / "captions_val2017.json")
    files = [(f"photos/{image['file_name']}", f"Dog {image['id']}, 犬") for image in images]
    got = match_results(Path("r.json"), json.loads(coco_results(files)), data.images)
    assert got == {"val2017/000000000007.jpg": "Dog 7, 犬", "val2017/000000391895.jpg": "Dog 391895, 犬"}


def test_evaluate_reads_results_of_ones_own_folder():
    """By the name in captions.csv, wherever below the folder the pictures lie."""
    names = [name for name, _ in AWKWARD] + ["x/same.jpg", "y/same.jpg"]
    images = [CaptionedImage(name, name, Path(name), ("A.",), "val") for name in names]
    files = [(name, f"Of {name}") for name in names]
    got = match_results(Path("r.json"), json.loads(coco_results(files)), images)
    assert got == {name: f"Of {name}" for name in names}


def test_a_text_file_beside_each_photo():
    """photo.txt, and photo.jpg.txt where another picture would have photo.txt too."""
    names = ["a.jpg", "b/a.jpg", "c.jpg", "c.png", "D.jpg", "d.webp", "e.jpg", "e.png", "e.jpg.png", "f.tar.gif"]
    sidecars = dict(text_sidecars([(name, f"{name}, é") for name in names]))
    assert list(sidecars) == [
        *("a.txt", "b/a.txt", "c.jpg.txt", "c.png.txt", "D.jpg.txt", "d.webp.txt"),
        *("e.jpg.txt", "e.png.txt", "e.jpg.png.txt", "f.tar.txt"),
    ]
    assert sidecars["c.png.txt"] == "c.png, é\n"


@given(st.lists(st.tuples(st.sampled_from("aA/"), st.sampled_from(["", ".jpg", ".png", ".txt"]), st.sampled_from([".jpg", ".PNG", ".txt", ""])).map(lambda t: f"x{''.join(t)}"), unique_by=str.casefold))  # fmt: skip
def test_no_sidecar_is_lost(names):
    """As many different names as pictures, on systems too that do not tell a from A."""
    pictures = [(PurePosixPath(name).as_posix(), name) for name in names if PurePosixPath(name).as_posix() == name]
    for sidecars in (list(text_sidecars(pictures)), list(xmp_sidecars(pictures))):
        assert len({name.casefold() for name, _ in sidecars}) == len(pictures)
        for (photo, caption), (name, content) in zip(pictures, sidecars, strict=True):
            assert PurePosixPath(name).parent == PurePosixPath(photo).parent
            assert caption in content


@given(PICTURES)
def test_every_xmp_file_is_xml_that_says_the_caption(pictures):
    """Description and alt text, each a language alternative with the default."""
    rdf = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
    fields = ["{http://purl.org/dc/elements/1.1/}description", "{http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/}AltTextAccessibility"]  # fmt: skip
    for (photo, caption), (name, content) in zip(pictures, xmp_sidecars(pictures), strict=True):
        assert name.endswith(f"{PurePosixPath(photo).suffix}.xmp")
        description = ElementTree.fromstring(content.encode()).find(f"{rdf}RDF/{rdf}Description")
        assert description.get(f"{rdf}about") == ""
        assert [field.tag for field in description] == fields
        for field in description:
            (item,) = field.findall(f"{rdf}Alt/{rdf}li")
            assert item.get("{http://www.w3.org/XML/1998/namespace}lang") == "x-default"
            assert (item.text or "") == written(caption)


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_exiftool_puts_the_sidecars_into_the_photos(tmp_path, kind):
    """The command in the module's docstring: pixels, EXIF, colour profile and other XMP stay as they were."""
    if not shutil.which("exiftool"):
        pytest.skip("exiftool is not installed")
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[271] = "Camera maker"
    others = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"/></rdf:RDF></x:xmpmeta>'  # fmt: skip
    photo = tmp_path / f"a.{kind}"
    chunks = PngInfo()  # where Pillow puts XMP in a PNG; a JPEG's is given to `save`
    chunks.add_itxt("XML:com.adobe.xmp", others)
    Image.fromarray(pixels).save(photo, exif=exif, icc_profile=b"profile", xmp=others.encode(), pnginfo=chunks)
    before = Image.open(photo)
    before.load()
    assert before.info["xmp"].decode() == others
    for name, content in xmp_sidecars([(photo.name, 'A "dog" & a 犬,\nrunning')]):
        (tmp_path / name).write_text(content, encoding="utf-8")
    command = "exiftool -r -ext jpg -ext png -tagsfromfile %d%f.%e.xmp -xmp:all".split()
    assert " ".join(command) in sys.modules["captioner.formats.sidecars"].__doc__
    subprocess.run([*command, tmp_path], check=True, capture_output=True)
    after = Image.open(photo)
    after.load()
    assert np.array_equal(np.asarray(after), np.asarray(before))
    assert dict(after.getexif()) == dict(before.getexif())
    assert after.info["icc_profile"] == b"profile"
    for part in ("A &quot;dog&quot; &amp; a 犬,\nrunning", "AltTextAccessibility", "<xmp:Rating>4</xmp:Rating>"):
        assert part in after.info["xmp"].decode()


# Subtitles


@dataclass
class Cue:
    start: float
    end: float
    text: str


def cues_of(texts, step):
    return [Cue(number * step, (number + 1) * step, text) for number, text in enumerate(texts)]


SAID = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40) | st.sampled_from([
    "a --> b", "<i>a</i>", "AT&T &amp; &lt;", "one\n\ntwo", "a\r\nb", "  ", "", "NOTE", "WEBVTT", "1", "\u2028x\u2029",
    "00:00:01.000 --> 00:00:02.000",
])  # fmt: skip


@given(texts=st.lists(SAID, max_size=6), step=st.floats(0.1, 2000))
@settings(deadline=None)
def test_webvtt_is_valid_and_says_what_the_captions_say(texts, step):
    """By the rules of the format (W3C WebVTT, section 4): cues of one line, in order, every character escaped."""
    cues = cues_of(texts, step)
    head, *blocks = to_webvtt(cues).split("\n\n")
    said = [(cue, " ".join(cue.text.split())) for cue in cues if cue.text.split()]
    assert head.rstrip("\n") == "WEBVTT"
    assert len(blocks) == len(said)
    for block, (cue, text) in zip(blocks, said, strict=True):
        times, payload = block.rstrip("\n").split("\n")
        start, end = re.fullmatch(
            r"(\d{2,}:[0-5]\d:[0-5]\d\.\d{3}) --> (\d{2,}:[0-5]\d:[0-5]\d\.\d{3})", times
        ).groups()
        assert seconds_of(start) == pytest.approx(cue.start, abs=0.0006)
        assert seconds_of(end) == pytest.approx(cue.end, abs=0.0006)
        assert not re.search(r"<|>|&(?!amp;|lt;|gt;)", payload)
        assert payload.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") == text


@given(texts=st.lists(SAID, max_size=6), step=st.floats(0.1, 2000))
@settings(deadline=None)
def test_srt_is_valid_and_says_what_the_captions_say(texts, step):
    """Numbered from 1, times with commas, one line of text without anything a player could take for a tag or an arrow."""
    cues = cues_of(texts, step)
    said = [(cue, " ".join(cue.text.split())) for cue in cues if cue.text.split()]
    blocks = to_srt(cues).split("\n\n") if said else []
    assert len(blocks) == len(said)
    for number, (block, (cue, text)) in enumerate(zip(blocks, said, strict=True), start=1):
        count, times, payload = block.rstrip("\n").split("\n")
        assert count == str(number)
        start, end = re.fullmatch(r"(\d{2,}:[0-5]\d:[0-5]\d,\d{3}) --> (\d{2,}:[0-5]\d:[0-5]\d,\d{3})", times).groups()
        assert seconds_of(start) == pytest.approx(cue.start, abs=0.0006)
        assert seconds_of(end) == pytest.approx(cue.end, abs=0.0006)
        assert "<" not in payload
        assert ">" not in payload
        assert payload == text.translate({ord("<"): "‹", ord(">"): "›"})


def seconds_of(stamp):
    hours, minutes, seconds = stamp.replace(",", ".").split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)


@pytest.mark.parametrize(("form", "write"), [("webvtt", to_webvtt), ("srt", to_srt)])
def test_subtitles_are_read_by_another_program(form, write):
    """FFmpeg finds the same cues with the same times; none is lost to an odd caption."""
    texts = ["A dog", "a --> b", "AT&T <i>x</i>", "", "one\n\ntwo", "last"]
    cues = cues_of(texts, 1000.25)
    with av.open(io.BytesIO(write(cues).encode()), format=form) as file:
        read = [
            (float(packet.pts * packet.time_base), float(packet.duration * packet.time_base))
            for packet in file.demux()
            if packet.size
        ]
    assert read == [pytest.approx((cue.start, 1000.25)) for cue in cues if cue.text]


def test_timestamps_carry_over():
    """A rounded 60th second is a minute."""
    assert timestamp(0) == "00:00:00.000"
    assert timestamp(59.9996) == "00:01:00.000"
    assert timestamp(3661.25) == "01:01:01.250"
    assert timestamp(360_000) == "100:00:00.000"
