"""No work for clients that have left: on the API and on the page, over real connections."""

import asyncio
import json
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page needs gradio")

from captioner.captioner import Captioner
from captioner.options import WebOptions
from captioner.web.queue import ModelQueue
from captioner.web.server import create_app
from tests.hostile import encoded, noise
from tests.web.visitors import listening, small_captioner

PHOTO = encoded(noise(), "JPEG")


class Slow(Captioner):
    """It waits at a gate before each batch, and then takes a tenth of a second for each picture."""

    gate: threading.Event

    def caption_pixels(self, pixels: Any, **rest: Any) -> Any:
        assert self.gate.wait(60)
        time.sleep(0.1 * len(pixels))
        return super().caption_pixels(pixels, **rest)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, ModelQueue, threading.Event]]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    (tmp_path / "uploads").mkdir()
    small = small_captioner()
    slow, queue = Slow(small.network, small.card), ModelQueue(batch=4)
    slow.gate = threading.Event()

    async def make() -> Any:
        return create_app({"first": slow}, WebOptions(), queue)

    with listening(asyncio.run(make())) as port:
        yield port, queue, slow.gate
        slow.gate.set()
    queue.close()


def until(happened: Callable[[], bool], seconds: float = 20) -> bool:
    """Whether it comes to be within a time."""
    end = time.monotonic() + seconds
    while not happened() and time.monotonic() < end:
        time.sleep(0.02)
    return happened()


def form(count: int) -> tuple[bytes, dict[str, str]]:
    head = b'--X\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    return (head + PHOTO + b"\r\n") * count + b"--X--\r\n", {"Content-Type": "multipart/form-data; boundary=X"}


def test_a_request_ends_with_its_connection(served: tuple[int, ModelQueue, threading.Event]) -> None:
    """Its pictures leave the queue at once, and others get their places."""
    port, queue, gate = served
    leavers = []
    for _ in range(4):
        leaver = HTTPConnection("127.0.0.1", port)
        leaver.request("POST", "/api/caption", *form(64))
        leavers.append(leaver)
    assert until(lambda: queue.waiting >= 4 * 64 - 4)
    for leaver in leavers:
        leaver.close()
    assert until(lambda: queue.waiting == 0), queue.waiting
    gate.set()
    stayer = HTTPConnection("127.0.0.1", port)
    stayer.request("POST", "/api/caption", *form(1))
    assert stayer.getresponse().status == 200
    stayer.close()
    assert queue.counts.pictures <= 4 + 1  # what the model was busy with, and the last


@pytest.mark.slow
def test_eight_large_requests_do_not_refuse_one_another(served: tuple[int, ModelQueue, threading.Event]) -> None:
    """As many as fit are served whole; the others hear at once that they are not."""
    port, queue, gate = served
    clients = [HTTPConnection("127.0.0.1", port, timeout=120) for _ in range(8)]
    for client in clients:
        client.request("POST", "/api/caption", *form(64))
    assert until(lambda: queue.counts.refusals == 4 * 64)
    gate.set()
    statuses = sorted(client.getresponse().status for client in clients)
    for client in clients:
        client.close()
    assert statuses == [200] * 4 + [503] * 4


def album(port: int, count: int, tmp_path: Path) -> HTTPConnection:
    """A page's visitor who began an album, and listens to its progress."""
    address = f"http://127.0.0.1:{port}"
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in range(count):
            archive.writestr(f"{number}.jpg", PHOTO)
    body = b'--X\r\nContent-Disposition: form-data; name="files"; filename="many.zip"\r\n\r\n'
    body += (tmp_path / "many.zip").read_bytes() + b"\r\n--X--\r\n"
    upload = urllib.request.Request(
        address + "/gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=X"}
    )
    with urllib.request.urlopen(upload, timeout=20) as answer:
        (path,) = json.load(answer)
    with urllib.request.urlopen(address + "/config", timeout=20) as answer:
        config = json.load(answer)
    (button,) = (part["id"] for part in config["components"] if part["props"].get("value") == "Caption them")
    function = next(part["id"] for part in config["dependencies"] if (button, "click") in map(tuple, part["targets"]))
    file = {"path": path, "orig_name": "many.zip", "meta": {"_type": "gradio.FileData"}}
    asked = json.dumps({"data": [[file], "first"], "fn_index": function, "session_hash": "me"}).encode()
    join = urllib.request.Request(address + "/gradio_api/queue/join", asked, {"Content-Type": "application/json"})
    urllib.request.urlopen(join, timeout=20).close()
    stream = HTTPConnection("127.0.0.1", port, timeout=20)
    stream.request("GET", "/gradio_api/queue/data?session_hash=me")
    assert stream.getresponse().status == 200
    return stream


def test_an_album_ends_with_its_page(served: tuple[int, ModelQueue, threading.Event], tmp_path: Path) -> None:
    """What was read ahead is let go, and the rest is not begun."""
    port, queue, gate = served
    gate.set()
    stream = album(port, 300, tmp_path)
    assert until(lambda: queue.counts.pictures >= 8)
    stream.sock.close() if stream.sock else None
    stream.close()
    time.sleep(1.5)
    after = queue.counts.pictures
    time.sleep(2)
    assert queue.counts.pictures <= after + 4
    assert until(lambda: queue.waiting == 0)
    assert queue.counts.pictures < 150


def test_a_lone_photo_does_not_wait_for_an_album(
    served: tuple[int, ModelQueue, threading.Event], tmp_path: Path
) -> None:
    """What the album has waiting goes after it."""
    port, queue, gate = served
    stream = album(port, 300, tmp_path)
    assert until(lambda: queue.waiting >= 28)
    lone = HTTPConnection("127.0.0.1", port, timeout=60)
    lone.request("POST", "/api/caption", *form(1))
    waiting = queue.waiting
    assert until(lambda: queue.waiting > waiting)
    gate.set()
    assert lone.getresponse().status == 200
    assert queue.counts.pictures <= 16
    lone.close()
    stream.close()
