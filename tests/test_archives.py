"""Whatever zip a stranger sends: its pictures come, what is wrong is said, and nothing costs more than the limits."""

import io
import os
import stat
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner import archives
from captioner.archives import ZippedPictures, write_zip
from captioner.errors import ArchiveError
from tests.hostile import encoded, noise

PHOTO = encoded(noise(16, 16), "PNG")


def zipped(path, *entries, method=zipfile.ZIP_DEFLATED):
    """A zip of (name or ZipInfo, bytes), made by Python's own module."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


def entry(name, **attributes):
    """A ZipInfo; written as it is, the name's bytes included."""
    info = zipfile.ZipInfo(name)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info


def read(path):
    """Everything a zip gives: names, and the sentences on the others."""
    pictures = ZippedPictures(path)
    expected = len(pictures)
    got = dict(pictures)
    assert len(got) <= expected
    for problem in pictures.problems:
        assert problem.endswith(".")
        assert len(problem.splitlines()) == 1
    return got, pictures.problems


def header(name, data, size, crc):
    """A local file header (APPNOTE.TXT 6.3.10, 4.3.7) for deflated data."""
    return struct.pack("<IHHHHHIIIHH", 0x04034B50, 20, 0, 8, 0, 33, crc, len(data), size, len(name), 0) + name


def directory(entries, start):
    """The central directory (4.3.12) of (name, crc, compressed size, size, offset), and its end (4.3.16)."""
    table = b"".join(
        struct.pack(
            "<IHHHHHHIIIHHHHHII", 0x02014B50, 20, 20, 0, 8, 0, 33, crc, packed, size, len(name), 0, 0, 0, 0, 0, offset
        )
        + name
        for name, crc, packed, size, offset in entries
    )
    count = min(len(entries), 0xFFFF)
    return table + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, len(table), start, 0)


def deflated(data):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def test_pictures_come_sorted_with_relative_names(tmp_path):
    """Each with its very bytes, from any depth, by the endings that `pictures` knows; `len` says how many."""
    path = zipped(tmp_path / "photos.zip", ("b/x.PNG", b"2"), ("./b//a.jpeg", b"1"), ("b/", b""), ("ä/日本.webp", b"4"), ("c\\d.heic", b"3"))  # fmt: skip
    pictures = ZippedPictures(path)
    assert len(pictures) == 4
    assert list(pictures) == [("b/a.jpeg", b"1"), ("b/x.PNG", b"2"), ("c/d.heic", b"3"), ("ä/日本.webp", b"4")]
    assert pictures.problems == []
    assert list(pictures) == list(ZippedPictures(str(path)))


def test_what_systems_leave_in_zips_goes_without_a_word(tmp_path):
    """A Mac's companions, hidden files and folders."""
    path = zipped(tmp_path / "a.zip", ("a.jpg", b"1"), ("__MACOSX/._a.jpg", b""), ("x/__MACOSX/b.jpg", b""), (".b.jpg", b""), (".git/c.jpg", b""), ("x/.DS_Store", b""))  # fmt: skip
    assert read(path) == ({"a.jpg": b"1"}, [])


def test_files_that_are_no_pictures_are_counted_once(tmp_path):
    """One sentence, with the first names."""
    others = [(f"{number}.txt", b"") for number in range(12)]
    path = zipped(tmp_path / "a.zip", ("a.jpg", b"1"), *others)
    got, problems = read(path)
    assert got == {"a.jpg": b"1"}
    names = ", ".join(f"{number}.txt" for number in range(10))
    assert problems == [f"a.zip holds 12 files that by name are no pictures: {names} and 2 more."]
    assert read(zipped(tmp_path / "b.zip", ("jpg", b"")))[1] == ["b.zip holds 1 file that by name is no picture: jpg."]


@pytest.mark.parametrize(
    "name",
    [
        *("../a.jpg", "x/../../a.jpg", "..\\a.jpg", "x\\..\\..\\a.jpg", "..", "../", "x/../a.jpg", "../.hidden.jpg"),
        *("/a.jpg", "//server/share/a.jpg", "\\a.jpg", "\\\\server\\a.jpg", "C:\\a.jpg", "c:a.jpg", "C:/a.jpg"),
        *("a\n.jpg", "a\x1b[2J.jpg", "a\x7f.jpg", "a.jpg\x00.txt", "a.txt\x00.jpg"),
        *("", ".", "./", "x" * 1001 + ".jpg", "é" * 600 + ".jpg"),
    ],
)
def test_bad_names_are_left_out(tmp_path, name):
    """Out of the folder, for terminals, for no file system: a sentence, and the others go on."""
    info = zipfile.ZipInfo("x")
    info.filename = info.orig_filename = name
    path = zipped(tmp_path / "a.zip", (info, b"0"), ("b.jpg", b"1"))
    got, problems = read(path)
    assert got == {"b.jpg": b"1"}
    assert len(problems) == (0 if name in (".", "./") and not problems else 1)
    with pytest.raises(ArchiveError, match="has a name"):
        write_zip(tmp_path / "out.zip", [("a.txt", ""), (name, "")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip"]


@given(
    st.lists(
        st.text(st.characters(exclude_categories=[]), max_size=12) | st.text("./\\:Ca \x00\n", max_size=12),
        max_size=5,
        unique_by=lambda name: name.encode(errors="replace"),
    )
)
def test_no_name_leads_out(tmp_path_factory, names):
    """Whatever the names: joined to a folder, what comes lies in it, and can be shown and written to a file."""
    folder = tmp_path_factory.mktemp("zip")
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        for name in names:
            info = zipfile.ZipInfo("x")
            info.filename = info.orig_filename = name.encode(errors="replace").decode() + "x.jpg"
            archive.writestr(info, b"1")
    for name in read(folder / "a.zip")[0]:
        assert (folder / name).resolve().is_relative_to(folder.resolve())
        assert (folder / name).resolve() != folder.resolve()
        assert not name.startswith(("/", "."))
        assert not set(name) & set("\\\n\x00\x1b")
        name.encode()


@pytest.mark.parametrize(
    ("raw", "marked", "name"),
    [
        ("é日.jpg".encode(), True, "é日.jpg"),
        ("é日.jpg".encode(), False, "é日.jpg"),  # as Macs write it
        ("é.jpg".encode("cp437"), False, "é.jpg"),
        (b"\x83e.jpg", False, "âe.jpg"),  # half of a character in Shift JIS: some name, and no crash
    ],
)
def test_names_in_other_encodings(tmp_path, raw, marked, name):
    """UTF-8 whether it is marked or not; else the code page of the first zips."""
    place = b"x" * len(raw)
    data = zipped(tmp_path / "a.zip", (place.decode(), b"1")).read_bytes().replace(place, raw)
    if marked:
        data = data.replace(b"PK\x03\x04\x14\x00\x00\x00", b"PK\x03\x04\x14\x00\x00\x08")
        data = data.replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x00\x08")
    (tmp_path / "a.zip").write_bytes(data)
    assert read(tmp_path / "a.zip") == ({name: b"1"}, [])


def test_names_that_are_marked_as_utf_8_and_are_not(tmp_path):
    """One sentence; Python's module cannot go on."""
    path = zipped(tmp_path / "a.zip", ("éx.jpg", b"1"))
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xff"))
    with pytest.raises(ArchiveError, match=r"a\.zip is no zip, or is damaged"):
        ZippedPictures(path)


def link(kind):
    return entry("bad.jpg", external_attr=(kind | 0o777) << 16)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ((link(stat.S_IFLNK), b"/etc/passwd"), "is a link or a device"),
        ((link(stat.S_IFIFO), b""), "is a link or a device"),
        ((link(stat.S_IFCHR), b""), "is a link or a device"),
        (("bad.zip", b"PK"), "is a zip itself, which is not opened"),
        (("a.jpg", b"other"), "a.jpg in a.zip is there more than once: only the first is read."),
        (("./a.jpg", b"other"), "a.jpg in a.zip is there more than once: only the first is read."),
        ((entry("bad.jpg", compress_type=zipfile.ZIP_BZIP2), bytes(10**7)), "is compressed in an uncommon way"),
        ((entry("bad.jpg", compress_type=zipfile.ZIP_LZMA), bytes(10**7)), "is compressed in an uncommon way"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_entries_that_are_left_out(tmp_path, bad, said):
    """A sentence each; the others go on."""
    got, problems = read(zipped(tmp_path / "a.zip", ("a.jpg", b"1"), bad, ("b.jpg", b"2")))
    assert got == {"a.jpg": b"1", "b.jpg": b"2"}
    (problem,) = problems
    assert said in problem


def test_encrypted_entries(tmp_path):
    """Known by their mark, and not tried."""
    path = zipped(tmp_path / "a.zip", ("a.jpg", b"1"))
    data = path.read_bytes().replace(b"PK\x03\x04\x14\x00\x00", b"PK\x03\x04\x14\x00\x01")
    path.write_bytes(data.replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"))
    assert read(path) == ({}, ["a.jpg in a.zip is encrypted: unpack it with its password, and send the picture."])


@pytest.mark.parametrize(
    "damage",
    [
        lambda data, at: data[: at + 40] + b"\xff" * 20 + data[at + 60 :],  # the data
        lambda data, at: data[:at] + b"XX" + data[at + 2 :],  # the header
        lambda data, at: data[: at + 30] + b"c" + data[at + 31 :],  # the header's name
    ],
)
def test_a_damaged_entry_is_named_and_the_others_go_on(tmp_path, damage):
    """Bad data, a bad check sum, headers that do not agree."""
    path = zipped(tmp_path / "a.zip", ("a.png", PHOTO), ("b.png", PHOTO), ("d.png", PHOTO))
    data = path.read_bytes()
    path.write_bytes(damage(data, data.index(b"PK\x03\x04", 10)))
    got, problems = read(path)
    assert got == {"a.png": PHOTO, "d.png": PHOTO}
    assert problems == ["b.png in a.zip is damaged: make the zip again."]


def test_no_zip_at_all(tmp_path):
    """Missing, a folder, a pipe, empty, a picture, cut short: one ArchiveError that names the file."""
    (tmp_path / "folder.zip").mkdir()
    os.mkfifo(tmp_path / "pipe.zip")
    (tmp_path / "empty.zip").write_bytes(b"")
    (tmp_path / "photo.zip").write_bytes(PHOTO)
    whole = zipped(tmp_path / "whole.zip", ("a.png", PHOTO)).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:-30])
    (tmp_path / "cut front.zip").write_bytes(whole[200:])
    for name in (
        "missing.zip",
        "folder.zip",
        "pipe.zip",
        "empty.zip",
        "photo.zip",
        "cut.zip",
        "cut front.zip",
        "a\x00.zip",
    ):
        with pytest.raises(ArchiveError, match=name.replace("\x00", ".*")):
            ZippedPictures(tmp_path / name)
    assert read(zipped(tmp_path / "none.zip")) == ({}, [])
    (tmp_path / "program.zip").write_bytes(b"MZ" + bytes(500) + whole)
    assert read(tmp_path / "program.zip")[0] == {"a.png": PHOTO}


def test_a_zip_that_goes_away(tmp_path):
    """Between the table of files and the pictures: the same error."""
    pictures = ZippedPictures(zipped(tmp_path / "a.zip", ("a.jpg", b"1")))
    (tmp_path / "a.zip").unlink()
    with pytest.raises(ArchiveError, match="is not there"):
        list(pictures)


def test_too_many_files(tmp_path, monkeypatch):
    """Refused, whatever they are."""
    path = zipped(tmp_path / "a.zip", *((f"{number}.txt", b"") for number in range(4)))
    monkeypatch.setattr(archives, "MAX_FILES", 3)
    with pytest.raises(ArchiveError, match=r"a\.zip holds more than the 3 files allowed: divide it"):
        ZippedPictures(path)


def test_a_table_of_a_million_files_is_not_read(tmp_path):
    """Python would make objects of all before anybody can count them."""
    path = tmp_path / "a.zip"
    path.write_bytes(directory([(b"a", 0, 0, 0, 0)] * 200_000, 0))
    tracemalloc.start()
    with pytest.raises(ArchiveError, match="holds more than the 20,000 files allowed"):
        ZippedPictures(path)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_a_picture_that_says_it_is_too_big(tmp_path, monkeypatch):
    """Left out unopened, as `read_image` would."""
    monkeypatch.setattr(archives, "MAX_BYTES", 2_000_000)
    got, problems = read(zipped(tmp_path / "a.zip", ("a.bmp", bytes(3_000_000)), ("b.jpg", b"1")))
    assert got == {"b.jpg": b"1"}
    assert problems == ["a.bmp in a.zip has 3 MB, more than the 2 MB allowed: save a smaller copy."]


def lying(claimed):
    """A zip whose central directory and header say `claimed` bytes of a picture of a million zeros; a good one after."""
    data, crc = deflated(bytes(10**6)), zlib.crc32(bytes(10**6))
    body = header(b"a.bmp", data, claimed, crc) + data
    second = header(b"b.jpg", deflated(b"1"), 1, zlib.crc32(b"1")) + deflated(b"1")
    entries = [(b"a.bmp", crc, len(data), claimed, 0), (b"b.jpg", zlib.crc32(b"1"), 3, 1, len(body))]
    return body + second + directory(entries, len(body + second))


@pytest.mark.parametrize("claimed", [0, 1, 1000, 999_999])
def test_a_size_that_lies_small(tmp_path, claimed):
    """No more comes than the entry declared, and that is found to be damaged."""
    (tmp_path / "a.zip").write_bytes(lying(claimed))
    tracemalloc.start()
    assert read(tmp_path / "a.zip") == ({"b.jpg": b"1"}, ["a.bmp in a.zip is damaged: make the zip again."])
    assert tracemalloc.get_traced_memory()[1] < 4e6
    tracemalloc.stop()


def test_a_size_that_lies_big(tmp_path):
    """What is there comes, if its check sum is right."""
    (tmp_path / "a.zip").write_bytes(lying(2 * 10**6))
    assert read(tmp_path / "a.zip") == ({"a.bmp": bytes(10**6), "b.jpg": b"1"}, [])


@pytest.mark.parametrize("limit", ["MAX_TOTAL", "MAX_RATIO"])
@pytest.mark.parametrize("damaged", [False, True])
def test_a_zip_of_bombs_ends_at_the_limit(tmp_path, monkeypatch, limit, damaged):
    """What fits comes; then one sentence says how many do not. Bombs with wrong check sums count like the others."""
    path = zipped(tmp_path / "a.zip", *((f"{number:02}.bmp", bytes(1_000_000)) for number in range(40)))
    data = path.read_bytes()
    if damaged:
        path.write_bytes(data.replace(struct.pack("<I", zlib.crc32(bytes(1_000_000))), b"sums"))
    monkeypatch.setattr(archives, "MAX_BYTES", 2_000_000)
    monkeypatch.setattr(archives, "MAX_RATIO", 1000)
    monkeypatch.setattr(archives, limit, 10_500_000 if limit == "MAX_TOTAL" else 10_500_000 / len(data))
    got, problems = read(path)
    assert len(got) == (0 if damaged else 10)
    assert len(problems) == (11 if damaged else 1)
    assert problems[-1] == (
        "a.zip unpacks to more than is allowed: the last 30 of its pictures, from 10.bmp on, are left out; "
        "send them in a zip of their own."
    )


def quoted_overlap(count, size):
    """Fifield's bomb: each entry's data is a stored block that holds the next one's header, and then the next one's data."""
    output = bytes(size)
    data = deflated(output)
    files = []
    tail = b""  # from the present file's header on
    for number in reversed(range(count)):
        name = f"{number:03}.bmp".encode()
        if tail:
            quoted = files[-1][1]
            data = struct.pack("<BHH", 0, len(quoted), len(quoted) ^ 0xFFFF) + quoted + data
            output = quoted + output
        crc = zlib.crc32(output)
        head = header(name, data, len(output), crc)
        files.append((name, head, crc, len(data), len(output)))
        tail = head + data
    offsets, offset = [], 0
    for name, head, crc, packed, unpacked in reversed(files):
        offsets.append((name, crc, packed, unpacked, offset))
        offset += len(head) + 5
    return tail + directory(offsets, len(tail))


def test_entries_that_share_their_bytes(tmp_path):
    """The bomb that needs no nesting and whose every entry is sound: refused before anything is unpacked."""
    path = tmp_path / "bomb.zip"
    path.write_bytes(quoted_overlap(200, 10**6))
    assert path.stat().st_size < 40_000  # of which come 200 MB
    with zipfile.ZipFile(path) as archive:
        assert sum(info.file_size for info in archive.infolist()) > 200e6
    with pytest.raises(ArchiveError, match=r"bomb\.zip is a zip bomb \(its files share their bytes\)"):
        ZippedPictures(path)


def test_entries_that_are_all_the_same_bytes(tmp_path):
    """A thousand names for one entry."""
    data, crc = deflated(bytes(10**6)), zlib.crc32(bytes(10**6))
    body = header(b"000.bmp", data, 10**6, crc) + data
    entries = [(f"{number:03}.bmp".encode(), crc, len(data), 10**6, 0) for number in range(1000)]
    (tmp_path / "a.zip").write_bytes(body + directory(entries, len(body)))
    with pytest.raises(ArchiveError, match="is a zip bomb"):
        ZippedPictures(tmp_path / "a.zip")


def test_memory_stays_level(tmp_path):
    """One picture at a time, however many there are, and not two copies of it."""
    photos = [(f"{number}.jpg", os.urandom(3_000_000)) for number in range(12)]
    path = zipped(tmp_path / "a.zip", *photos)
    del photos
    count = 0
    tracemalloc.start()
    for _, data in ZippedPictures(path):
        count += len(data) == 3_000_000
        del data
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 12
    assert peak < 8_000_000


@given(st.data())
def test_no_zip_breaks_it(tmp_path_factory, data):
    """Any damage to a zip: an ArchiveError, or pictures and sentences; never another exception, never more than was there."""
    folder = tmp_path_factory.mktemp("zip")
    file = io.BytesIO()
    zipped(file, ("a.png", PHOTO), ("x/b.jpg", bytes(3000)), ("notes.txt", b"1"), ("é.gif", b"GIF8"))
    content = bytearray(file.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(1, 4))] = data.draw(st.binary(max_size=4))
    (folder / "a.zip").write_bytes(content)
    try:
        got, _ = read(folder / "a.zip")
    except ArchiveError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert set(got.values()) <= {PHOTO, bytes(3000), b"GIF8", b"1"}


def test_nothing_is_written_to_disk(tmp_path, monkeypatch):
    """Neither beside the zip nor in the working folder."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    read(zipped(tmp_path / "a.zip", ("a.jpg", b"1"), ("x/b.jpg", b"2"), ("../c.jpg", b"3")))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip", "elsewhere"]


def test_sidecars_go_into_a_zip(tmp_path):
    """Names of any language, readable by everybody once they are unpacked, by another program too."""
    write_zip(tmp_path / "out.zip", [("a.txt", "A dog.\n"), ("x\\é 日.jpg.xmp", "<é/>"), ("./y//b.txt", "")])
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.testzip() is None
        assert {info.filename: archive.read(info).decode() for info in archive.infolist()} == {
            "a.txt": "A dog.\n",
            "x/é 日.jpg.xmp": "<é/>",
            "y/b.txt": "",
        }
        assert {info.external_attr >> 16 for info in archive.infolist()} == {stat.S_IFREG | 0o644}


def test_a_zip_is_whole_or_not_there(tmp_path):
    """What was there before stays if the making fails."""
    (tmp_path / "out.zip").write_bytes(b"before")

    def files():
        yield "a.txt", "1"
        raise KeyError

    with pytest.raises(KeyError):
        write_zip(tmp_path / "out.zip", files())
    assert (tmp_path / "out.zip").read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["out.zip"]


def test_neither_torch_nor_gradio_is_needed():
    """Reading zips and writing captions starts in a moment."""
    script = "import sys, captioner.archives, captioner.formats; print({'torch', 'gradio'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])  # fmt: skip
    assert done.stdout == "set()\n"
