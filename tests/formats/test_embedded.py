"""Captions in photos: what is written is read here by Pillow and by an XML parser, and not by the program that wrote it."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pillow_heif
import pytest
from PIL import Image, IptcImagePlugin

from captioner.errors import ImageError, OptionError
from captioner.formats import embedded
from captioner.formats.embedded import ExifTool
from captioner.formats.rows import writable
from captioner.formats.sidecars import xmp_content
from captioner.pictures import read_image

pytestmark = pytest.mark.skipif(not shutil.which("exiftool"), reason="exiftool is not installed")

ROOT = Path(__file__).parents[2]
KINDS = ("jpg", "png", "gif", "webp", "avif", "heic", "tif", "jp2")
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
OURS = {
    "description": "{http://purl.org/dc/elements/1.1/}description",
    "alt text": "{http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/}AltTextAccessibility",
}
RATED = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"/></rdf:RDF></x:xmpmeta>'
)


@pytest.fixture(scope="module")
def exiftool() -> Iterator[ExifTool]:
    with ExifTool() as running:
        yield running


def photo(path: Path, *, size: tuple[int, int] = (64, 48), **others: Any) -> Path:
    """A photo with EXIF and a rating."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[271] = "Camera maker"
    exif[274] = 6
    if path.suffix == ".heic":
        pillow_heif.from_pillow(Image.fromarray(pixels)).save(path, exif=exif.tobytes(), xmp=RATED.encode())
        return path
    known = {} if path.suffix in (".gif", ".jp2") else {"exif": exif, "icc_profile": b"profile", "xmp": RATED.encode()}
    Image.fromarray(pixels).save(path, **{**known, **others})
    return path


def xmp(path: Path) -> dict[str, str]:
    """What our two fields say in the packet of a file, wherever that lies."""
    packet = re.search(rb"<x:xmpmeta.*?</x:xmpmeta>", path.read_bytes(), re.DOTALL)
    if packet is None:
        return {}
    root = ElementTree.fromstring(packet[0])
    items = {name: root.find(f".//{tag}/{RDF}Alt/{RDF}li") for name, tag in OURS.items()}
    return {name: item.text or "" for name, item in items.items() if item is not None}


def iptc(path: Path) -> dict[tuple[int, int], Any]:
    """A JPEG's or TIFF's IPTC records, as Pillow reads them."""
    with Image.open(path) as picture:
        return dict(IptcImagePlugin.getiptcinfo(picture) or {})


def tags(path: Path) -> dict[str, Any]:
    """All tags that ExifTool finds, but for those of the file in its folder and those that we write."""
    said = subprocess.run(["exiftool", "-j", "-G1", "-a", "-u", "-n", path], capture_output=True, check=True).stdout
    own = re.compile(
        "SourceFile|ExifTool:|System:|XMP-x:XMPToolkit|XMP-dc:Description|XMP-iptcCore:AltText|IPTC:(Caption|Coded|Appl|Env)"
        "|File:(CurrentIPTCDigest|ExifByteOrder)|Photoshop:IPTCDigest|Composite:|GIF:GIFVersion|QuickTime:MediaData|IFD0:(StripOffsets|XMP)|PNG:|.*Offset|.*Size"
    )
    return {name: value for name, value in json.loads(said)[0].items() if not own.match(name)}


def changed(*arguments: str | Path) -> None:
    subprocess.run(["exiftool", "-q", "-overwrite_original", *arguments], check=True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_caption_is_inside_and_nothing_else_changed(exiftool: ExifTool, tmp_path: Path, kind: str) -> None:
    """Description and alt text in XMP, IPTC where the format has it; pixels and all other tags are as they were."""
    path = photo(tmp_path / f"a.{kind}")
    before, pixels = tags(path), np.asarray(read_image(path))
    exiftool.embed(path, 'A "dog" & a 犬')
    assert xmp(path) == {"description": 'A "dog" & a 犬', "alt text": 'A "dog" & a 犬'}
    if kind in ("jpg", "tif"):
        assert iptc(path)[2, 120].decode() == 'A "dog" & a 犬'
        assert iptc(path)[1, 90] == b"\x1b%G"  # says that it is UTF-8
    assert np.array_equal(np.asarray(read_image(path)), pixels)
    assert tags(path) == before
    assert exiftool.look(path).description == 'A "dog" & a 犬'
    assert list(tmp_path.iterdir()) == [path]


def test_a_copy_leaves_the_photo_as_it_is(exiftool: ExifTool, tmp_path: Path) -> None:
    """For whoever hands out photos with captions inside."""
    path = photo(tmp_path / "a.jpg")
    before = path.read_bytes()
    exiftool.embed(path, "A dog", tmp_path / "b.jpg")
    assert path.read_bytes() == before
    assert xmp(tmp_path / "b.jpg")["description"] == "A dog"


def test_both_pictures_of_a_pair_stay(exiftool: ExifTool, tmp_path: Path) -> None:
    """Stereo pictures and those of phones hold a second one, which the first finds by counting bytes."""
    first, second = (Image.effect_noise((64, 48), sigma).convert("RGB") for sigma in (20, 90))
    first.save(tmp_path / "a.mpo", save_all=True, append_images=[second])

    def pictures() -> list[bytes]:
        with Image.open(tmp_path / "a.mpo") as pair:
            return [(pair.seek(number), pair.tobytes())[1] for number in range(pair.n_frames)]

    before = pictures()
    exiftool.embed(tmp_path / "a.mpo", "A dog")
    assert pictures() == before
    assert len(before) == 2


def test_a_wrong_ending_misleads_nobody(exiftool: ExifTool, tmp_path: Path) -> None:
    """A JPEG that is called PNG is a JPEG."""
    photo(tmp_path / "a.jpg").rename(tmp_path / "a.png")
    exiftool.embed(tmp_path / "a.png", "A dog")
    assert xmp(tmp_path / "a.png")["alt text"] == "A dog"
    assert iptc(tmp_path / "a.png")[2, 120] == b"A dog"


def test_formats_without_a_place_for_it_say_so(exiftool: ExifTool, tmp_path: Path) -> None:
    """And stay as they are."""
    for kind in ("bmp", "ppm", "tga"):
        path = photo(tmp_path / f"a.{kind}", exif=b"", icc_profile=b"", xmp=b"")
        before = path.read_bytes()
        assert not exiftool.look(path).holds
        with pytest.raises(ImageError, match=f"a.{kind} is .*, which holds no captions: write beside it"):
            exiftool.embed(path, "A dog")
        assert path.read_bytes() == before


NAMES = [
    b"-o", b"-execute", b"-overwrite_original", b" ", b" a.jpg ", b"a\nb.jpg", b"a\n-execute\n.jpg", b"%d%f.jpg", b"#a.jpg",
    b"#[CSTR]a.jpg", b"@x", b"$a.jpg", b"a;b|c&.jpg", b"*?[a].jpg", b"caf\xe9.jpg", "犬.jpg".encode(), b"a\\b.jpg",
    b"a" * 251 + b".jpg", b"a\rb\tc\x1b.jpg", b"in", b"out", b"caption",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_are_names_and_no_orders(exiftool: ExifTool, tmp_path: Path, name: bytes) -> None:
    """Whatever a file system takes; also for the folder."""
    photo(tmp_path / "a.jpg")
    folder = os.fsencode(tmp_path) + b"/" + (name if len(name) < 200 else b"b")
    Path(os.fsdecode(folder)).mkdir()
    path = Path(os.fsdecode(folder + b"/" + name))
    (tmp_path / "a.jpg").rename(path)
    exiftool.embed(path, "A dog")
    assert xmp(path)["description"] == "A dog"
    assert list(path.parent.iterdir()) == [path]
    assert list(tmp_path.iterdir()) == [path.parent]


CAPTIONS = [
    "-execute", "A\n-overwrite_original\n-execute\n", "a\r\nb", "<b>&amp;\"'", "${filename;`id`}", "<=/etc/passwd", "@x",
    " spaces ", "\x00\x1b\udce9", "犬 " * 300, "|ls", "#[CSTR]\\n",
]  # fmt: skip


@pytest.mark.parametrize("caption", CAPTIONS)
def test_captions_are_text_and_no_orders(exiftool: ExifTool, tmp_path: Path, caption: str) -> None:
    """A stranger's model may say anything."""
    path = photo(tmp_path / "a.jpg")
    exiftool.embed(path, caption)
    for text in xmp(path).values():
        assert text.replace("\r\n", "\n") == writable(caption).replace("\r\n", "\n")
    assert len(xmp(path)) == 2
    exiftool.embed(path, "A dog")  # the conversation is where it was
    assert xmp(path)["description"] == "A dog"


@pytest.mark.parametrize(
    "tag",
    ["XMP-dc:Description", "XMP-dc:Description-de", "XMP-iptcCore:AltTextAccessibility", "IPTC:Caption-Abstract",
     "EXIF:ImageDescription"],
)  # fmt: skip
def test_a_description_is_seen_wherever_it_is(exiftool: ExifTool, tmp_path: Path, tag: str) -> None:
    """In any language; and what cameras write by themselves is none."""
    path = photo(tmp_path / "a.jpg")
    assert exiftool.look(path).description == ""
    changed(f"-{tag}=SONY DSC", path)
    assert exiftool.look(path).description == ""
    changed(f"-{tag}=Grandma, 1980", path)
    assert exiftool.look(path).description == "Grandma, 1980"
    exiftool.embed(path, "A dog")
    assert set(xmp(path).values()) >= {"A dog"}
    others = tags(path)
    if tag.startswith("EXIF"):
        assert others["IFD0:ImageDescription"] == "Grandma, 1980"


def test_other_records_keep_their_alphabet(exiftool: ExifTool, tmp_path: Path) -> None:
    """IPTC has one alphabet for all: what is there is not read in another, and gets no question marks from us."""
    path = photo(tmp_path / "a.jpg")
    changed("-IPTC:City=Zürich", path)
    assert iptc(path)[2, 90] == b"Z\xfcrich"
    exiftool.embed(path, "A 犬")
    assert (2, 120) not in iptc(path)
    assert xmp(path)["description"] == "A 犬"
    exiftool.embed(path, "A dog")
    assert iptc(path)[2, 120] == b"A dog"
    assert iptc(path)[2, 90] == b"Z\xfcrich"
    assert (1, 90) not in iptc(path)


@pytest.mark.parametrize("fitting", [True, False])
def test_iptc_and_xmp_agree_as_they_did(exiftool: ExifTool, tmp_path: Path, fitting: bool) -> None:
    """The digest by which editors see whether IPTC is newer than XMP is right afterwards if it was right before."""
    path = photo(tmp_path / "a.jpg")
    changed("-IPTC:City=Rome", "-Photoshop:IPTCDigest=new", path)
    if not fitting:
        changed("-IPTC:City=Oslo", "-Photoshop:IPTCDigest=0123456789abcdef0123456789abcdef", path)
    exiftool.embed(path, "A dog")
    found = exiftool.look(path).tags
    assert (found["Photoshop:IPTCDigest"] == found["File:CurrentIPTCDigest"]) == fitting


def test_a_sidecar_of_another_program_is_added_to(exiftool: ExifTool, tmp_path: Path) -> None:
    """Its rating stays."""
    path = tmp_path / "a.jpg.xmp"
    path.write_text(RATED)
    exiftool.embed(path, "A dog")
    assert xmp(path)["description"] == "A dog"
    assert re.search(r"Rating(>|=['\"])4", path.read_text())
    path.write_text(xmp_content("A cat"))
    exiftool.embed(path, "A dog")
    assert xmp(path) == {"description": "A dog", "alt text": "A dog"}


def test_a_photo_that_is_read_only_stays(exiftool: ExifTool, tmp_path: Path) -> None:
    """Though its folder would let us put another in its place."""
    path = photo(tmp_path / "a.jpg")
    before = path.read_bytes()
    path.chmod(0o444)
    with pytest.raises(ImageError, match=r"a\.jpg may not be written to"):
        exiftool.embed(path, "A dog")
    assert path.read_bytes() == before


def test_a_full_disk_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, no half file; the next photo fits."""
    small, large = photo(tmp_path / "small.jpg"), photo(tmp_path / "large.jpg", size=(640, 480))
    before = large.read_bytes()
    programs = tmp_path / "programs"
    programs.mkdir()
    limited = programs / "exiftool"  # the system refuses what is larger than 100 blocks of 512 bytes
    limited.write_text(f"#!/bin/sh\ntrap '' XFSZ\nulimit -f 100\nexec {shutil.which('exiftool')} \"$@\"\n")
    limited.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    with ExifTool() as exiftool:
        with pytest.raises(ImageError, match=r"large\.jpg could not be written \(.*\): check its folder and the disk"):
            exiftool.embed(large, "A dog")
        exiftool.embed(small, "A dog")
    assert xmp(small)["description"] == "A dog"
    assert large.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3


def test_damaged_and_wrong_files_get_a_sentence(exiftool: ExifTool, tmp_path: Path) -> None:
    """And stay as they are."""
    whole = photo(tmp_path / "a.jpg").read_bytes()
    files = {"start.jpg": whole[:20], "text.jpg": b"no photo", "empty.jpg": b""}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=rf"{name} .*: .*\.$"):
            exiftool.embed(tmp_path / name, "A dog")
        assert (tmp_path / name).read_bytes() == content
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path, tmp_path / "missing.jpg", tmp_path / "pipe.jpg"):
        with pytest.raises(ImageError):
            exiftool.embed(path, "A dog")
    assert len(list(tmp_path.iterdir())) == 5


def test_what_lies_around_the_content_stays(exiftool: ExifTool, tmp_path: Path) -> None:
    """Permissions, extended attributes, and the link that was named."""
    path = photo(tmp_path / "a.jpg")
    path.chmod(0o640)
    attributes = {}
    try:
        os.setxattr(path, "user.tag", b"red")
        attributes = {"user.tag": b"red"}
    except (AttributeError, OSError):
        pass  # not on every file system
    (tmp_path / "link.jpg").symlink_to(path)
    exiftool.embed(tmp_path / "link.jpg", "A dog")
    assert (tmp_path / "link.jpg").is_symlink()
    assert xmp(path)["description"] == "A dog"
    assert path.stat().st_mode & 0o777 == 0o640
    assert {name: os.getxattr(path, name) for name in attributes} == attributes


def test_an_end_of_exiftool_costs_one_photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it crashes or takes too long; the next photo has a new one."""
    path = photo(tmp_path / "a.jpg")
    before = path.read_bytes()
    with ExifTool() as exiftool:
        with monkeypatch.context() as patch:
            patch.setattr(embedded, "PATIENCE", 0.0)
            with pytest.raises(ImageError, match=r"a\.jpg was too much for ExifTool"):
                [exiftool.embed(path, "A cat") for _ in range(100)]
        path.write_bytes(before)
        exiftool.embed(path, "A dog")
        assert xmp(path)["description"] == "A dog"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_exiftool_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which says how to get it."""
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(OptionError, match=r"is not installed: get it with `apt install libimage-exiftool-perl`"):
        ExifTool()


def test_an_old_exiftool_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its version."""
    old = tmp_path / "exiftool"
    old.write_text('#!/bin/sh\nwhile read -r line; do case $line in -ver) echo 11.88;; -execute*) echo "{ready${line#-execute}}";; esac; done\n')  # fmt: skip
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(OptionError, match=r"ExifTool 11\.88 is too old"):
        ExifTool()


def test_exiftool_ends_when_we_are_killed(tmp_path: Path) -> None:
    """It would wait for orders for ever."""
    script = (
        "import os, sys, time; from captioner.formats.embedded import ExifTool; tool = ExifTool(); "
        "print(os.getpgid(tool._process.pid), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        group = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("it still runs")


def test_a_zip_of_the_page_could_use_it_from_bytes(exiftool: ExifTool, tmp_path: Path) -> None:
    """A photo without a name of its own, as uploads are kept."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    (tmp_path / "upload").write_bytes(buffer.getvalue())
    exiftool.embed(tmp_path / "upload", "A dog", tmp_path / "result")
    assert xmp(tmp_path / "result")["description"] == "A dog"
