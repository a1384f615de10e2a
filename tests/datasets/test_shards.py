"""The promises of tar shards: what is written is read back, by us and by webdataset; what is not whole is said."""

import gc
import io
import json
import random
import shutil
import tarfile
import threading
from collections import Counter
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from captioner.cli import main
from captioner.datasets import check_dataset, load_dataset
from captioner.datasets.shapes import load_shapes
from captioner.datasets.sharding import write_index, write_shards
from captioner.errors import DataError, ImageError, OptionError
from captioner.formats.shards import INDEX
from captioner.pictures import read_image
from captioner.pictures.shards import AHEAD, Copies, Packed, expect
from captioner.telling import SILENT


def content(dataset):
    """All that a data set knows of its pictures, but for where they lie."""
    return {
        image.name: (image.image_id, image.captions, image.split, image.author, read_image(image.source).tobytes())
        for image in dataset.images
    }


def packed(dataset, folder, size=4000):
    """The folder of a data set's shards, small ones."""
    write_shards(dataset, folder, size=size, telling=SILENT)
    return folder


def tar(path, **files):
    """A tar of files by their names, dots written as two underscores."""
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name.replace("__", "."))
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def drawn(seed):
    """A picture's file."""
    buffer = io.BytesIO()
    Image.frombytes("RGB", (8, 8), random.Random(seed).randbytes(192)).save(buffer, "PNG")
    return buffer.getvalue()


@contextmanager
def served(folder, *, cut=""):
    """The folder's address, and how often each file was asked for; one called `cut` ends early."""
    asked = Counter()

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            name = self.path.rpartition("/")[2]
            asked[name] += 1
            if name != cut:
                return super().do_GET()
            data = Path(folder, name).read_bytes()[:-2000]
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            return None

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def needs_the_web():
    """Web addresses are opened by webdataset, which runs curl."""
    pytest.importorskip("webdataset", reason="needs webdataset")
    if not shutil.which("curl"):
        pytest.skip("webdataset needs curl")


@pytest.fixture
def at_once(monkeypatch):
    """Nobody waits before trying again."""
    monkeypatch.setattr("captioner.pictures.shards.time.sleep", lambda seconds: None)


@pytest.mark.parametrize("index", [True, False])
def test_what_is_written_is_read_back(drawings, tmp_path, index):
    """Names, ids, captions, splits, authors and every byte of a picture; by the index, and by looking into the tars."""
    (tmp_path / "sources.csv").write_text("")
    dataset = load_dataset(drawings)
    folder = packed(dataset, tmp_path / "shards")
    if not index:
        (folder / INDEX).unlink()
    found = load_dataset(folder)
    assert (found.kind, found.problems, content(found)) == ("shards", (), content(dataset))
    assert check_dataset(found, verdicts=tmp_path / "verdicts") is found
    (first,) = {shard.address for shard in [found.split("val")[0].source.shard]}
    assert content(load_dataset(first)).keys() <= content(found).keys()


def test_authors_and_drawn_pictures_are_written_too(tmp_path):
    """In words of one's own, with quotes and line ends in them."""
    (tmp_path / "captions.jsonl").write_text(
        json.dumps({"image": "ä b.png", "captions": ['A "dog",\nrunning.', "Un chien 🐕."], "captions_by": "model"})
        + '\n{"image": "c.d.png", "caption": "A cat.", "split": "test"}\n'
        + '{"image": "e.png", "caption": "A cow.", "split": "train"}'
    )
    for seed, name in enumerate(("ä b.png", "c.d.png", "e.png")):
        (tmp_path / name).write_bytes(drawn(seed))
    for number, dataset in enumerate((load_dataset(tmp_path), load_shapes({"train": 5, "val": 2}))):
        assert content(load_dataset(packed(dataset, tmp_path / str(number)))) == content(dataset)


def test_the_same_data_set_gives_the_same_bytes_and_shards_have_one_split_and_their_size(drawings, tmp_path):
    """So a set that is written again needs not be sent again; and the order is a mixture of the data set's."""
    dataset = load_dataset(drawings)
    one, two = packed(dataset, tmp_path / "one"), packed(dataset, tmp_path / "two")
    assert {path.name: path.read_bytes() for path in one.iterdir()} == {
        path.name: path.read_bytes() for path in two.iterdir()
    }
    found = load_dataset(one)
    shards = {image.source.shard: set() for image in found.images}
    for image in found.images:
        shards[image.source.shard].add(image.split)
    assert all(len(splits) == 1 for splits in shards.values())
    assert len(shards) > 10
    lines = [json.loads(line) for line in (one / INDEX).read_text().splitlines()]
    assert sum(line["pictures"] for line in lines) == len(dataset.images) == len(found.images)
    assert sum(line["captions"] for line in lines) == sum(len(image.captions) for image in dataset.images)
    assert {line["shard"]: line["bytes"] for line in lines} == {
        path.name: path.stat().st_size for path in one.glob("*.tar")
    }
    names = [image.name for image in found.split("train")]
    assert names != sorted(names) != [image.name for image in dataset.split("train")]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves files to the garbage collector
def test_webdataset_reads_what_we_write_and_we_what_it_writes(drawings, tmp_path):
    """Captions in text files or JSON, folders in names, several captions; split by the shard's name."""
    webdataset = pytest.importorskip("webdataset", reason="needs webdataset")
    dataset = load_dataset(drawings)
    paths = sorted(map(str, packed(dataset, tmp_path / "ours").glob("*.tar")))
    samples = list(webdataset.WebDataset(paths, shardshuffle=False))
    gc.collect()
    assert {json.loads(sample["json"])["image"] for sample in samples} == {image.name for image in dataset.images}
    assert {sample["png"] for sample in samples} == {image.source.read_bytes() for image in dataset.images}
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for shard, split in enumerate(("train", "validation")):
        with webdataset.TarWriter(str(theirs / f"{split}-{shard:06d}.tar")) as writer:
            for number in range(3):
                known = {"json": {"caption": f"A dog {number}.", "url": "x", "key": number}}
                known = known if number else {"txt": "A cat.\nCats.", "json": {"caption": None}}
                writer.write({"__key__": f"a/{number:05d}", "png": drawn(10 * shard + number), **known})
    found = check_dataset(load_dataset(theirs))
    assert {(image.name, image.split, image.captions) for image in found.images} == {
        (f"{split}-{shard:06d}/a/{number:05d}.png", split.replace("validation", "val"), captions)
        for shard, split in enumerate(("train", "validation"))
        for number, captions in enumerate((("A cat.", "Cats."), ("A dog 1.",), ("A dog 2.",)))
    }


def test_where_nothing_validates_a_part_of_train_does_and_names_may_repeat(tmp_path):
    """As in one's own folder; each shard may count its pictures from 0, and its names are those of no other's."""
    for shard in range(2):
        tar(
            tmp_path / f"{shard:05d}.tar",
            **{f"{n}__png": drawn(10 * shard + n) for n in range(10)},
            **{f"{n}__json": json.dumps({"image": f"{n}.png", "caption": f"{shard} {n}"}).encode() for n in range(10)},
        )
    found = check_dataset(load_dataset(tmp_path))
    assert len({image.name for image in found.images}) == 20
    assert Counter(image.split for image in found.images).keys() == {"train", "val"}


def test_what_is_wrong_in_shards_is_told_by_kind(tmp_path):
    """Captions without a picture, pictures without captions or with broken JSON, and damaged pictures."""
    tar(
        tmp_path / "train-0.tar",
        a__png=drawn(1), a__txt=b"A dog.", b__png=drawn(2), c__txt=b"A cat.", d__png=drawn(3), d__json=b"{",
        e__png=drawn(4)[:60], e__txt=b"A cow.", f__png=drawn(5), f__txt=b"A cup.", readme=b"x", g__cls=b"1",
    )  # fmt: skip
    with pytest.raises(DataError) as caught:
        check_dataset(load_dataset(tmp_path))
    said = str(caught.value)
    for line in ("missing picture: 1 (c in", "picture without captions: 1 (b.png in", "malformed row: 1 (d.png in"):
        assert line in said
    assert "unreadable picture: 1 (train-0/e.png)" in said
    kept = check_dataset(load_dataset(tmp_path), skip_bad=True, telling=SILENT)
    assert {image.captions for image in kept.images} == {("A dog.",), ("A cup.",)}


@pytest.mark.parametrize("damage", ["cut", "compressed", "empty", "no tar"])
def test_a_shard_that_cannot_be_listed_is_one_sentence(tmp_path, damage):
    """With its name."""
    path = tmp_path / "train-0.tar"
    tar(path, a__png=drawn(1), a__txt=b"A dog.", b__png=drawn(2), b__txt=b"A cat.")
    data = path.read_bytes()
    if damage == "compressed":
        with tarfile.open(path, "w:gz") as archive:
            archive.addfile(tarfile.TarInfo("a.png"))
        data = path.read_bytes()
    path.write_bytes({"cut": data[:1200], "empty": b"", "no tar": b"no tar" * 1000}.get(damage, data))
    with pytest.raises(DataError, match=r"train-0\.tar cannot be read as a tar"):
        load_dataset(tmp_path)


def test_shards_that_are_missing_or_changed_since_their_index_are_problems(drawings, tmp_path):
    """Named once each, and left out with --skip-bad."""
    folder = packed(load_dataset(drawings), tmp_path / "shards")
    (folder / "train-00001.tar").unlink()
    with (folder / "train-00002.tar").open("ab") as file:
        file.write(b"x")
    found = load_dataset(folder)
    with pytest.raises(DataError) as caught:
        check_dataset(found)
    assert "missing shard: 1 (train-00001.tar)" in str(caught.value)
    assert "shard that is not what its index says: 1 (train-00002.tar)" in str(caught.value)
    kept = check_dataset(found, skip_bad=True, telling=SILENT)
    assert 30 < len(kept.images) < 40
    assert content(kept)


@pytest.mark.parametrize(
    "line",
    [
        '{"shard": 1}',
        '{"shard":"../x.tar","bytes":1,"pictures":0,"captions":0,"samples":[]}',
        '{"shard":"pipe:rm","bytes":1,"pictures":1,"captions":0,"samples":[]}',
        '{"shard":"x.tar","bytes":1,"pictures":1,"captions":1,"samples":[[-5,1,"","a","a","train","",["A."]]]}',
        '{"shard":"x.tar","bytes":1,"pictures":1,"captions":1,"samples":[[5,1,"","a","a","train","",[]]]}',
        '{"shard":"x.tar","bytes":1,"pictures":1,"captions":1,"samples":[[5,1,"",7,"a","train","",["A."]]]}',
        '{"shard":"x.tar","bytes":1,"pictures":1,"captions":1,"samples":[[5,1,"","a",[],"train","",["A."]]]}',
        '{"shard":"x.tar","bytes":1,"pictures":1,"captions":1,"samples":[5]}',
        '{"shard":',
        '{"shard":' + "[" * 100_000,
    ],
)
def test_an_index_that_is_none_is_one_sentence(tmp_path, line):
    """Also one that names files elsewhere, or that a stranger made to break us."""
    (tmp_path / INDEX).write_text(line)
    (tmp_path / "x.tar").write_bytes(b"x")
    with pytest.raises(DataError, match=r"index"):
        load_dataset(tmp_path)


def test_an_index_that_points_beyond_its_shard_is_one_sentence(tmp_path):
    """The picture and the shard are named when it is read."""
    sample = '[900,5,"","a.png","a.png","train","",["A."]]'
    (tmp_path / INDEX).write_text(f'{{"shard":"x.tar","bytes":1,"pictures":1,"captions":1,"samples":[{sample}]}}')
    (tmp_path / "x.tar").write_bytes(b"x")
    (image,) = load_dataset(tmp_path).images
    with pytest.raises(ImageError, match=r"a\.png in x\.tar is cut short"):
        read_image(image.source)


def test_a_folder_of_photos_that_holds_a_tar_too_is_still_ones_own(drawings, tmp_path):
    """The archive that they came from, for instance."""
    for path in drawings.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tar(tmp_path / "backup.tar", a__png=drawn(1), a__txt=b"A dog.")
    assert load_dataset(tmp_path).kind == "table"


def test_writing_is_all_or_nothing(drawings, tmp_path):
    """A picture that vanishes in the middle leaves no folder; a folder that holds something is never written to."""
    dataset = load_dataset(drawings)
    gone = tmp_path / "gone.png"
    gone.write_bytes(drawn(1))
    last = max(dataset.split("train"), key=lambda image: image.name)
    images = (*dataset.images, type(last)("gone.png", "gone.png", gone, ("A.",), "val"))
    broken = type(dataset)("table", "x", images)

    class Leaving(type(Path())):
        def read_bytes(self):
            raise FileNotFoundError(2, "No such file", str(self))

    broken = type(dataset)("table", "x", (*images[:-1], type(last)("g", "g", Leaving(gone), ("A.",), "val")))
    with pytest.raises(ImageError, match=r"gone\.png"):
        write_shards(broken, tmp_path / "shards", size=4000, telling=SILENT)
    assert [path.name for path in tmp_path.iterdir()] == ["gone.png"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").touch()
    with pytest.raises(OptionError, match="is there already"):
        write_shards(dataset, tmp_path / "full", size=4000, telling=SILENT)
    (tmp_path / "empty").mkdir()
    assert write_shards(dataset, tmp_path / "empty", size=4000, telling=SILENT) > 10


def test_shards_at_an_address_are_read_by_their_index_and_fetched_once(drawings, tmp_path):
    """In the order in which their pictures are wanted, a few ahead; nothing before a picture is."""
    needs_the_web()
    dataset = load_dataset(drawings)
    folder = packed(dataset, tmp_path / "shards")
    with served(folder) as (address, asked):
        found = check_dataset(load_dataset(address))
        assert asked == {INDEX: 1}
        sources = [image.source for image in found.images]
        expect(sources)
        read_image(sources[0])
        assert sum(asked.values()) <= 2 + AHEAD
        assert content(found) == content(dataset)
        assert max(asked.values()) == 1
        assert sum(asked.values()) == 1 + len(list(folder.glob("*.tar")))
        assert content(load_dataset(f"{address}/{INDEX}")) == content(dataset)


def test_few_copies_are_kept(drawings, tmp_path, monkeypatch):
    """As many as are wanted at once and ahead of it: data larger than the disk goes through it. fsspec opens the store."""
    fsspec = pytest.importorskip("fsspec", reason="needs fsspec")
    folder = packed(load_dataset(drawings), tmp_path / "shards")
    store = fsspec.filesystem("memory")
    store.put(str(folder), "memory://few", recursive=True)
    living, most = [0], [0]
    from captioner.pictures import shards

    class Counted(shards._Copy):
        def __init__(self):
            super().__init__()
            living[0] += 1
            most[0] = max(most[0], living[0])

        def __del__(self):
            super().__del__()
            living[0] -= 1

    monkeypatch.setattr(shards, "_Copy", Counted)
    found = load_dataset("memory://few")
    assert len({image.source.shard for image in found.images}) > 12
    expect([image.source for image in found.images])
    for image in found.images:
        read_image(image.source)
    assert 1 < most[0] <= 2 + 2 * AHEAD


@pytest.mark.parametrize("trouble", ["gone", "cut", "no server", "unknown store", "webdataset is not installed"])
def test_what_cannot_be_fetched_is_one_sentence(drawings, tmp_path, trouble, at_once, monkeypatch):
    """With the shard's address, or the index's; a shard that comes short is noticed by its size."""
    needs_the_web()
    folder = packed(load_dataset(drawings), tmp_path / "shards")
    with served(folder, cut="val-00000.tar" if trouble == "cut" else "") as (address, _):
        if trouble in ("cut", "gone"):
            found = load_dataset(address)
            if trouble == "gone":
                (folder / "val-00000.tar").unlink()
            with pytest.raises(ImageError, match=r"val-00000\.tar cannot be fetched \(.*\)"):
                read_image(found.split("val")[0].source)
            return
    if trouble == "webdataset is not installed":
        monkeypatch.setitem(__import__("sys").modules, "webdataset", None)
        with pytest.raises(DataError, match="webdataset is not installed: pip install webdataset"):
            load_dataset(address)
        return
    with pytest.raises(DataError, match="cannot be fetched"):
        load_dataset("nostore://x/y" if trouble == "unknown store" else address)


def test_a_disk_without_room_for_a_copy_is_one_sentence(tmp_path, monkeypatch):
    """Also where no temporary file can be made at all."""
    from captioner.pictures.shards import Shard

    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("captioner.pictures.shards.tempfile.TemporaryFile", full)
    with pytest.raises(ImageError, match=r"x\.tar cannot be kept .*No space left.*TMPDIR"):
        Packed(Shard("memory://x.tar", 4, Copies()), 0, 4, "a").read()


def test_a_fetch_that_failed_is_tried_again_when_asked_again(tmp_path, at_once):
    """A server that was away for a minute ends no run for ever."""
    fsspec = pytest.importorskip("fsspec", reason="needs fsspec")
    from captioner.pictures.shards import Shard

    shard = Shard("memory://later.tar", 4, Copies())
    picture = Packed(shard, 0, 4, "a")
    with pytest.raises(ImageError, match="cannot be fetched"):
        picture.read()
    fsspec.filesystem("memory").pipe("memory://later.tar", b"data")
    assert picture.read() == b"data"


def test_an_index_of_others_shards_is_made_once(drawings, tmp_path, capsys):
    """Every picture is read for it; then training needs no shard to start. Addresses with braces are many."""
    needs_the_web()
    dataset = load_dataset(drawings)
    folder = packed(dataset, tmp_path / "shards")
    (folder / INDEX).unlink()
    count = len(list(folder.glob("train-*.tar")))
    with served(folder) as (address, asked):
        with pytest.raises(DataError, match="--index"):
            load_dataset(f"{address}/train-00000.tar")
        shards = [f"{address}/train-{{00000..{count - 1:05d}}}.tar", f"{address}/val-00000.tar"]
        assert main(["shards", *shards, "--index", str(tmp_path / "ours.jsonl")]) == 0
        asked.clear()
        found = check_dataset(load_dataset(tmp_path / "ours.jsonl"))
        assert not asked
        theirs = content(found)
        assert theirs == {name: one for name, one in content(dataset).items() if name in theirs}
        assert {"train", "val"} == set(found.splits)
    tar(folder / "bad.tar", a__png=b"no picture", a__txt=b"A dog.", b__png=drawn(1), b__txt=b"A cat.")
    with served(folder) as (address, _):
        with pytest.raises(DataError, match=r"unreadable picture: 1"):
            write_index([f"{address}/bad.tar"], tmp_path / "bad.jsonl", telling=SILENT)
        assert not (tmp_path / "bad.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere", "--output", "x"], "There is nothing at nowhere"),
        (["shapes"], "--output --index"),
        (["shapes", "--output", "x", "--size", "0"], "--size is 0"),
        (["shapes", "--index", "x.jsonl"], "shapes is no address"),
        (["http://x/a.tar", "--index", "x.json"], ".jsonl"),
    ],
)
def test_wrong_use_of_the_command_is_one_sentence(arguments, said, tmp_path, monkeypatch, capsys):
    """And the status 2."""
    monkeypatch.chdir(tmp_path)
    try:
        status = main(["shards", *arguments])
    except SystemExit as stop:
        status = stop.code
    assert (status, said in capsys.readouterr().err) == (2, True)
    assert not list(tmp_path.iterdir())


def test_the_command_writes_what_training_reads(drawings, tmp_path, capsys):
    """And removes what a killed one left."""
    left = tmp_path / "shards.abc.part"
    left.mkdir()
    assert main(["shards", str(drawings), "--output", str(tmp_path / "shards"), "--size", "1"]) == 0
    assert "train" in capsys.readouterr().out
    assert content(load_dataset(tmp_path / "shards")) == content(load_dataset(drawings))
    assert [path.name for path in tmp_path.iterdir()] == ["shards"]
