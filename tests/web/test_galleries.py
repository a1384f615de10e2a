"""Many photos and clips on the page, through the routes a browser uses; test_browser.py looks at them in a real one."""

import csv
import io
import json
import re
import shutil
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from html import escape
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from captioner.captioner import Captioner
from captioner.checkpoint import ModelFile, save_model
from captioner.options import VideoOptions, WebOptions
from captioner.sureness import Sureness
from captioner.video import caption_video

pytest.importorskip("gradio", reason="the page needs gradio")

import uvicorn
from fastapi.testclient import TestClient

from captioner.web import album, clip, page
from captioner.web.downloads import PHOTOS
from captioner.web.queue import ModelQueue
from captioner.web.queued import Queued
from tests.hostile import encoded, noise
from tests.video.clips import moving, write_clip
from tests.web.visitors import ADDRESS, Visitor, half_an_upload, made


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds with cuts at 2, 5 and 6.5."""
    path: Path = write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", moving(2, 3, 1.5, 3.5))
    return path


def shown(answer: dict[str, Any]) -> list[Any]:
    """What the page shows in the end."""
    assert answer["success"], answer
    found: list[Any] = answer["output"]["data"]
    return found


# Many photos


def test_photos_and_zips_become_a_gallery(visitor: Visitor, captioner: Captioner) -> None:
    """Each with its own caption, thumbnail and name; a broken one is named, and costs the others nothing."""
    photos = [encoded(noise(seed=seed), "JPEG") for seed in range(3)]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("trip/0.jpg", photos[1])
        archive.writestr("0.jpg", photos[2])
        archive.writestr("trip/broken.jpg", b"no picture")
    uploads = [visitor.upload(photos[0], "0.jpg"), visitor.upload(file.getvalue(), "trip.zip")]
    said, gallery, done = shown(visitor.call(visitor.button("Caption them"), [uploads, "first"]))
    assert "3 photos captioned" in said
    assert said.count("<li>") == 1
    assert "trip/broken.jpg" in said
    assert done == [upload["path"] for upload in uploads]
    (broken,) = (photo for photo in gallery if photo.get("error"))
    assert broken["name"] == "trip/broken.jpg"
    assert escape(broken["error"]) in said
    gallery.remove(broken)
    assert len({photo["id"] for photo in gallery}) == 3
    assert {photo["name"]: photo["source"] for photo in gallery} == {
        "0.jpg": uploads[0]["path"],
        "trip/0.jpg": uploads[1]["path"],
        "0-2.jpg": uploads[1]["path"],
    }
    captions = {photo["name"]: photo["caption"] for photo in gallery}
    expected = [caption.text for caption in captioner(photos)]
    assert captions == {"0.jpg": expected[0], "trip/0.jpg": expected[1], "0-2.jpg": expected[2]}
    for photo in gallery:
        thumbnail = visitor.client.get(f"/gradio_api/file={photo['path']}").content
        assert max(Image.open(io.BytesIO(thumbnail)).size) <= 480


def test_a_zip_goes_on_where_it_was_stopped(visitor: Visitor) -> None:
    """The page says how many of its pictures, broken ones among them, came; no other is left out, none comes twice."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(5):
            archive.writestr(f"{number}.jpg", b"no picture" if number == 1 else encoded(noise(seed=number), "JPEG"))
    upload = visitor.upload(file.getvalue(), "trip.zip")
    _, all_of_it, _ = shown(visitor.call(visitor.button("Caption them"), [[upload], "first"]))
    names = [photo["name"] for photo in all_of_it]
    assert names == [f"{number}.jpg" for number in range(5)]  # a broken one in its turn
    for done in (0, 2, 5):
        _, rest, _ = shown(visitor.call(visitor.button("Caption them"), [[{"file": upload, "done": done}], "first"]))
        assert [photo["name"] for photo in rest] == names[done:]


def test_photos_of_one_name_keep_their_folders(visitor: Visitor) -> None:
    """In the gallery and in every download."""
    uploads = [
        {**visitor.upload(encoded(noise(seed=seed), "JPEG"), "1.jpg"), "orig_name": f"{folder}/1.jpg"}
        for seed, folder in enumerate(("rome", "oslo"))
    ]
    _, gallery, _ = shown(visitor.call(visitor.button("Caption them"), [uploads, "first"]))
    assert [photo["name"] for photo in gallery] == ["rome/1.jpg", "oslo/1.jpg"]
    for form in PHOTOS:
        data = download(visitor, form, *gallery).content
        if form in ("txt", "xmp"):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                data = " ".join(archive.namelist()).encode()
        for folder in (b"rome", b"oslo"):
            assert folder + b"/1." in data or (form == "coco" and b"1" in data)


@pytest.mark.parametrize(("below", "unsure"), [(1.0, True), (0.0, False), (None, None)])
def test_an_album_says_where_the_model_is_unsure(
    small_file: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: float | None, unsure: bool | None
) -> None:
    """By the threshold of the model's file; without one, nothing is said."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    origin = {} if below is None else {"sureness": asdict(Sureness(below, 0.8, 0.5, 30.0, 1000))}
    save_model(tmp_path / "model.safetensors", replace(small_file, provenance=origin))
    with TestClient(made(Captioner.load(tmp_path / "model.safetensors", "cpu"), WebOptions()), base_url=ADDRESS) as one:
        visitor = Visitor(one)
        upload = visitor.upload(encoded(noise(), "JPEG"), "a.jpg")
        _, gallery, _ = shown(visitor.call(visitor.button("Caption them"), [[upload], "first"]))
    assert gallery[0]["unsure"] is unsure


def test_equal_photos_have_pictures_of_their_own(visitor: Visitor) -> None:
    """Which nobody writes while another reads them, and which do not go with another visitor."""
    uploads = [visitor.upload(encoded(noise(), "JPEG"), f"{number}.jpg") for number in range(2)]
    paths = set()
    for _ in range(2):
        _, gallery, _ = shown(visitor.call(visitor.button("Caption them"), [uploads, "first"]))
        paths |= {photo["path"] for photo in gallery}
    assert len(paths) == 4


def test_no_more_photos_than_a_page_can_hold(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ones are captioned, and the page says so."""
    monkeypatch.setattr(album, "MOST", 2)
    uploads = [visitor.upload(encoded(noise(seed=seed), "JPEG"), f"{seed}.jpg") for seed in range(4)]
    said, gallery, _ = shown(visitor.call(visitor.button("Caption them"), [uploads, "first"]))
    assert "Only the first 2 photos" in said
    assert [photo["name"] for photo in gallery] == ["0.jpg", "1.jpg"]


@pytest.mark.parametrize("title", ["Caption them", "Caption it"])
def test_nothing_given_is_said(visitor: Visitor, title: str) -> None:
    """Neither files nor a model that is here."""
    assert "yet: drop" in str(shown(visitor.call(visitor.button(title), [None, "first"])))
    file: Any = visitor.upload(b"whatever", "file.zip")
    wrong = shown(visitor.call(visitor.button(title), [[file] if title == "Caption them" else file, "nobody"]))
    assert "There is no model &#x27;nobody&#x27; here: choose first." in str(wrong)


# A clip


def test_a_clip_becomes_scenes(visitor: Visitor, captioner: Captioner, drawn: Path) -> None:
    """The same as `caption_video` gives, with the player, the pictures and how far it is in between."""
    visitor.grown.clear()
    file = visitor.upload(drawn.read_bytes(), "clip.mp4")
    _, said, scenes, _ = shown(visitor.call(visitor.button("Caption it"), [file, "first"]))
    expected = list(caption_video(drawn, captioner))
    assert [(one["start"], one["end"], one["caption"]) for one in scenes] == [
        (scene.start, scene.end, scene.caption.text) for scene in expected
    ]
    assert f"{len(expected)} scene" in said
    assert visitor.client.get(f"/gradio_api/file={scenes[0]['path']}").content == expected[0].thumbnail
    grown = str(visitor.grown)
    assert f"gradio_api/file={file['path']}" in grown
    assert "% of the clip" in grown


def test_a_clip_goes_through_the_one_queue(visitor: Visitor, drawn: Path) -> None:
    """Its pictures are counted like everybody's, and no model works beside the queue."""

    def counted() -> int:
        said = visitor.client.get("/metrics").text
        return int(re.search(r"^captioner_pictures_total (\d+)$", said, re.MULTILINE)[1])  # type: ignore[index]

    before = counted()
    file = visitor.upload(drawn.read_bytes(), "clip.mp4")
    _, _, scenes, _ = shown(visitor.call(visitor.button("Caption it"), [file, "first"]))
    assert counted() - before >= len(scenes) >= 1


@pytest.mark.parametrize(("data", "sentence"), [(b"no clip", "is not a clip"), (b"", "is empty")])
def test_what_is_no_clip_gets_a_sentence(visitor: Visitor, data: bytes, sentence: str) -> None:
    """It names the file as its owner does, and no path of the server."""
    file = visitor.upload(data, "my clip.mp4")
    _, said, scenes, _ = shown(visitor.call(visitor.button("Caption it"), [file, "first"]))
    assert f"my clip.mp4 {sentence}" in said
    assert "/" not in said.replace("</p>", "")
    assert scenes == []


def test_a_clip_that_is_too_long_is_refused(visitor: Visitor, drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the limit in the sentence."""
    monkeypatch.setattr(clip, "MINUTES", 0.1)
    file = visitor.upload(drawn.read_bytes(), "clip.mp4")
    _, said, scenes, _ = shown(visitor.call(visitor.button("Caption it"), [file, "first"]))
    assert "longer than the 0.1 minutes" in said
    assert scenes == []


def test_a_clip_does_not_keep_the_machine_for_ever(drawn: Path, captioner: Captioner, monkeypatch: Any) -> None:
    """A clip that takes too long ends with a sentence."""
    monkeypatch.setattr(clip, "PATIENCE", 0.0)
    with pytest.raises(clip.VideoError, match="the longest that this page works on a clip"):
        list(clip._scenes(drawn, Queued(ModelQueue(), captioner)))


@pytest.mark.parametrize("who", ["visitor", "server"])
def test_whoever_leaves_stops_the_work(drawn: Path, captioner: Captioner, monkeypatch: Any, who: str) -> None:
    """Nobody's clip is read on after they have gone, nor when the server stops."""
    ended: list[str] = []

    def watched(path: Path, captioner: Queued, *, options: VideoOptions, progress: Any, check: Any) -> Iterator[Any]:
        try:
            for _ in range(10**6):
                check()
                progress(0.0)
                time.sleep(0.01)
                yield from ()
        finally:
            ended.append(str(path))

    monkeypatch.setattr(clip, "caption_video", watched)
    queue = ModelQueue()
    scenes = clip._scenes(drawn, Queued(queue, captioner))
    next(scenes)
    assert ended == []
    (scenes if who == "visitor" else queue).close()  # type: ignore[attr-defined]
    until = time.monotonic() + 30
    while not ended and time.monotonic() < until:
        time.sleep(0.01)
    assert ended == [str(drawn)]


# Downloads

PHOTO = {"name": "a/b.jpg", "caption": 'Say "hi"', "probability": 0.5, "alternatives": ["Hi"]}


def download(visitor: Visitor, form: str, *captions: dict[str, Any]) -> Any:
    return visitor.client.post("/download", json={"format": form, "captions": captions})


def test_downloads(visitor: Visitor) -> None:
    """Each form carries the caption as it was edited, under a fitting name and type."""
    answer = download(visitor, "csv", PHOTO)
    assert answer.headers["Content-Disposition"] == 'attachment; filename="captions.csv"'
    assert list(csv.reader(answer.content.decode("utf-8-sig").splitlines())) == [
        ["image", "caption"],
        ["a/b.jpg", 'Say "hi"'],
    ]
    sure = download(visitor, "jsonl", {**PHOTO, "probability": 0.61234567}, {"name": "c.jpg", "caption": "Mine"})
    assert [json.loads(line) for line in sure.text.splitlines()] == [
        {"image": "a/b.jpg", "caption": 'Say "hi"', "word_probability": 0.6123, "alternatives": ["Hi"]},
        {"image": "c.jpg", "caption": "Mine"},
    ]
    assert download(visitor, "coco", PHOTO).json()[0]["caption"] == 'Say "hi"'
    with zipfile.ZipFile(io.BytesIO(download(visitor, "txt", PHOTO).content)) as archive:
        assert archive.namelist() == ["a/b.txt"]
    scene = {"name": "0:00 to 0:02", "caption": "A dog", "start": 0, "end": 2.5}
    assert download(visitor, "vtt", scene).text == "WEBVTT\n\n00:00:00.000 --> 00:00:02.500\nA dog\n"
    assert download(visitor, "srt", scene).text == "1\n00:00:00,000 --> 00:00:02,500\nA dog\n"


def test_a_wrong_download_is_refused(visitor: Visitor) -> None:
    """An unknown form, no captions, or a name that leads out of the archive."""
    assert "choose txt" in download(visitor, "pdf", PHOTO).json()["error"]
    assert download(visitor, "csv").status_code == 422
    assert download(visitor, "vtt", {"name": "x", "caption": "x", "start": -1}).status_code == 422


@pytest.mark.skipif(not shutil.which("exiftool"), reason="ExifTool is not installed")
def test_photos_come_with_their_captions_inside(visitor: Visitor) -> None:
    """Of files and of zips, as edited and named; what holds none has it beside; the coded picture is what was sent."""
    jpeg, bmp, several = encoded(noise(seed=1), "JPEG"), encoded(noise(seed=2), "BMP"), io.BytesIO()
    with zipfile.ZipFile(several, "w") as archive:
        archive.writestr("a/two.jpg", jpeg)
        archive.writestr("three.bmp", bmp)
    uploads = [visitor.upload(jpeg, "one.jpg"), visitor.upload(several.getvalue(), "more.zip")]
    _, gallery, _ = shown(visitor.call(visitor.button("Caption them"), [uploads, "first"]))
    cards = [{**photo, "caption": f"Caption {number} – ä"} for number, photo in enumerate(gallery)]
    answer = visitor.client.post("/inside", json={"captions": cards})
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Disposition"] == 'attachment; filename="photos.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert set(files) == {"one.jpg", "a/two.jpg", "three.bmp", "three.bmp.xmp"}
    captions = {card["name"]: card["caption"] for card in cards}
    for name in ("one.jpg", "a/two.jpg"):
        with Image.open(io.BytesIO(files[name])) as image, Image.open(io.BytesIO(jpeg)) as before:
            assert captions[name] in image.info["xmp"].decode()
            assert image.tobytes() == before.tobytes()
    assert files["three.bmp"] == bmp
    assert captions["three.bmp"] in files["three.bmp.xmp"].decode()
    assert not [*Path(tempfile.gettempdir()).glob("*/photos.zip")]


def test_photos_that_are_gone_are_named(visitor: Visitor, tmp_path: Path) -> None:
    """So that the page can send them once more; a file of the server's own is as good as gone."""
    own = tmp_path / "secret.jpg"
    own.write_bytes(encoded(noise(seed=1), "JPEG"))
    for source in ("", str(own), "/etc/passwd", "../../x"):
        answer = visitor.client.post("/inside", json={"captions": [{**PHOTO, "source": source}]})
        assert (answer.status_code, answer.json()["missing"]) == (410, [source])


# What is left of a visit


def gone(paths: Iterable[Path]) -> bool:
    """Whether all of them are gone before a minute has passed."""
    until = time.monotonic() + 60
    while left := [path for path in paths if path.exists()]:
        if time.monotonic() > until:
            raise AssertionError(left)
        time.sleep(0.2)
    return True


@pytest.mark.slow
def test_nothing_outlives_its_hour(
    captioner: Captioner, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photos, zips, clips, and the small pictures that the page made of them are deleted (here after ten seconds)."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(page, "_CACHE", (1, 10))
    with TestClient(made(captioner, WebOptions()), base_url=ADDRESS) as client:
        visitor = Visitor(client)
        photo, film = visitor.upload(encoded(noise(), "TIFF"), "a.tif"), visitor.upload(drawn.read_bytes(), "clip.mp4")
        copy, _, _ = shown(visitor.ask(photo))
        _, gallery, _ = shown(visitor.call(visitor.button("Caption them"), [[photo], "first"]))
        _, _, scenes, _ = shown(visitor.call(visitor.button("Caption it"), [film, "first"]))
        files = [photo, film, copy["value"], *gallery, *scenes]
        assert len(files) >= 5
        assert gone([Path(file["path"]) for file in files])


def test_half_an_upload_outlives_nothing_either(
    captioner: Captioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came of it before the visitor left is deleted like all else."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(page, "_CACHE", (1, 1))
    server = uvicorn.Server(uvicorn.Config(made(captioner, WebOptions()), port=0, log_level="critical"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.05)
        before = set(tmp_path.iterdir())
        with half_an_upload(server.servers[0].sockets[0].getsockname()[1], "/gradio_api/upload"):
            until = time.monotonic() + 60
            while not (halves := set(tmp_path.iterdir()) - before) and time.monotonic() < until:
                time.sleep(0.05)
            assert halves
        assert gone(halves)
    finally:
        server.should_exit = True
        thread.join()
