"""The promises of captioner.web.bodies: every route counts what comes, and takes so much and no more."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page needs gradio")

from fastapi.testclient import TestClient

from captioner.options import WebOptions
from captioner.web import bodies
from captioner.web.bodies import Ledger, visitor_of
from tests.hostile import encoded, noise
from tests.web.test_routes import OPEN
from tests.web.visitors import ADDRESS, Visitor, listening, made, small_captioner

PHOTO = encoded(noise(), "JPEG")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    """2 MB of a request or of one visitor's uploads, 3 MB of uploads in all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        patch.setattr(bodies, "SMALL", 1_000_000)
        options = WebOptions(most_request=2, most_upload=2, most_uploads=3)
        with TestClient(made(small_captioner(), options), base_url=ADDRESS) as client:
            yield client


def flood(size: int) -> Iterator[bytes]:
    """A body without a stated length."""
    for _ in range(size // 100_000):
        yield bytes(100_000)


POSTS = sorted(line.split()[1] for line in OPEN if line.startswith("POST "))


@pytest.mark.parametrize("path", [*POSTS, "/nowhere", "/gradio_api/component_server", "/gradio_api/call/x"])
def test_every_route_has_a_limit(client: TestClient, path: str) -> None:
    """Announced or not, 50 MB are refused before more than the limit came; routes that are closed take nothing."""
    taken = 0

    def counted() -> Iterator[bytes]:
        nonlocal taken
        for part in flood(50_000_000):
            taken += len(part)
            yield part

    kinds = ["application/json", "multipart/form-data; boundary=x", "text/plain"]
    for kind in kinds if path not in ("/nowhere",) else kinds[:1]:
        headers = {"content-type": kind}
        said = client.post(path, content=bytes(5_000_000), headers=headers)
        unsaid = client.post(path, content=counted(), headers=headers)
        for answer in (said, unsaid):
            assert answer.status_code in (400, 404, 413, 415, 422), (path, kind, answer.status_code)
            assert answer.status_code != 413 or "bigger than" in answer.json()["error"]
        if path in POSTS and kind == "application/json" and "upload" not in path:
            assert (said.status_code, unsaid.status_code) == (413, 413)


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("packed", ["gzip", "br", "deflate", "x-odd"])
def test_a_packed_body_is_named(client: TestClient, path: str, packed: str) -> None:
    """It is not unpacked, and not taken for damaged JSON."""
    answer = client.post(
        path, content=b"\x1f\x8b\x08", headers={"content-encoding": packed, "content-type": "application/json"}
    )
    assert answer.status_code == 415
    assert packed in answer.json()["error"]


def test_uploads_are_counted_of_each_and_of_all(folder: Path) -> None:
    """Whoever is beyond is told so; others go on until there is no room at all."""
    options = WebOptions(most_upload=2, most_uploads=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        app = made(small_captioner(), options)
        answers = {}
        with TestClient(app, base_url=ADDRESS) as client:
            for host in ("10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3"):
                other = TestClient(app, base_url=ADDRESS, client=(host, 50000))
                answers.setdefault(host, []).append(
                    other.post("/gradio_api/upload", files={"files": ("a.jpg", bytes(1_200_000))})
                )
            client.get("/health")
    assert [answer.status_code for answer in answers["10.0.0.1"]] == [200, 429]
    assert "try again later" in answers["10.0.0.1"][1].json()["error"]
    assert [answers[host][0].status_code for host in ("10.0.0.2", "10.0.0.3")] == [200, 507]
    assert answers["10.0.0.3"][0].headers["retry-after"]


def test_a_disk_is_not_filled(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """507, before the last bytes of it are gone."""
    monkeypatch.setattr(bodies.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 500_000_100})())
    answer = client.post("/gradio_api/upload", files={"files": ("a.jpg", PHOTO)})
    assert (answer.status_code, "disk is full" in answer.json()["error"]) == (507, True)


def test_a_ledger_gives_back_and_forgets() -> None:
    """What was given back, and what is older than its time."""
    now = 0.0
    ledger = Ledger(10, 6, 100.0, clock=lambda: now)
    assert [ledger.take("a", 6), ledger.take("a", 1), ledger.take("b", 5), ledger.take("b", 4)] == [
        None,
        "you",
        "all",
        None,
    ]
    now = 101.0
    assert ledger.take("a", 6) is None
    assert ledger.held == {"a": 6}
    ledger.give_back("a", 6)
    assert ledger.held == {}


@pytest.mark.parametrize(
    ("client", "visitor"),
    [
        (("10.0.0.1", 1), "10.0.0.1"),
        (("2001:db8::1", 1), "2001:db8::/64"),
        (None, "nobody"),
        (("testclient", 1), "testclient"),
    ],
)
def test_visitors_are_told_apart(client: Any, visitor: str) -> None:
    """By address; the many addresses of one household are one visitor."""
    assert visitor_of({"client": client}) == visitor


def test_memory_is_limited_in_all(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Bodies that come slowly, each within its limit, do not add up: the next is asked to come again, and is served then."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    monkeypatch.setattr(bodies, "MEMORY", 400_000)
    head = b"POST /api/caption HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 190000\r\n\r\n"
    with listening(made(small_captioner(), WebOptions())) as port:
        first = socket.create_connection(("127.0.0.1", port), timeout=20)
        first.sendall(head + b" " * 150_000)
        threading.Event().wait(1)
        second = socket.create_connection(("127.0.0.1", port), timeout=20)
        second.sendall(head + b" " * 150_000)
        assert b"503" in second.recv(1000).splitlines()[0]
        first.close()
        second.close()
        threading.Event().wait(1)
        second = socket.create_connection(("127.0.0.1", port), timeout=20)
        second.sendall(head + b" " * 190_000)
        assert b"400" in second.recv(1000).splitlines()[0]  # taken, and no JSON
        second.close()


def test_an_upload_still_gets_through(client: TestClient) -> None:
    """After all of that."""
    assert Visitor(client).upload(PHOTO)["path"]
