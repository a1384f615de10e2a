"""Errors stay JSON with a fitting status, whatever is full, odd or no number."""

import errno
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page needs gradio")

from fastapi.testclient import TestClient

from captioner.options import WebOptions
from tests.hostile import encoded, noise
from tests.web.visitors import ADDRESS, Visitor, made, small_captioner

PHOTO = encoded(noise(), "JPEG")
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        app = made(small_captioner(), WebOptions())
        with TestClient(app, base_url=ADDRESS, raise_server_exceptions=False) as client:
            yield client


NAMES = [
    "../x",
    "/",
    ".",
    "..",
    "x" * 4000,
    "ä" * 1000,
    "a\\b",
    "\x01",
    "con",
    " ",
    "x/../../y",
    "\ud83d.jpg",
    "a\nb",
    "%2e%2e",
    ".",
]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_are_no_trouble(client: TestClient, name: str) -> None:
    """A caption, or a sentence as JSON; the upload lies in the folder of uploads, or is refused."""
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\n' % name.encode(
        "utf-8", "replace"
    )
    body = head + PHOTO + b"\r\n--x--\r\n"
    form = {"content-type": "multipart/form-data; boundary=x"}
    answer = client.post("/api/caption", content=body, headers=form)
    assert answer.status_code in (200, 400), answer.text
    assert "error" in answer.json() or answer.json()["captions"][0]["caption"]
    answer = client.post("/gradio_api/upload", content=body, headers=form)
    assert answer.status_code in (200, 400), (answer.status_code, answer.text)
    if answer.status_code == 400:
        assert answer.json()["error"].endswith(".")
    assert Visitor(client).upload(PHOTO)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none(client: TestClient, number: str) -> None:
    """They are named, not echoed into JSON that nobody can read."""
    bodies = {
        "/api/caption": f'{{"images": ["aGk="], "nucleus": {number}}}',
        "/download": f'{{"format": "csv", "captions": [{{"name": "a", "caption": "b", "start": {number}}}]}}',
        "/gradio_api/queue/join": f'{{"data": [], "fn_index": {number}, "session_hash": "x"}}',
        "/gradio_api/cancel": f'{{"session_hash": {number}}}',
        "/gradio_api/run/predict": f'{{"data": [], "fn_index": {number}}}',
    }
    for path, body in bodies.items():
        answer = client.post(path, content=body.encode(), headers=JSON)
        assert answer.status_code == 422, (path, answer.status_code, answer.text)
        assert answer.json()["error"].endswith("."), path
    body = f'{{"format": "jsonl", "captions": [{{"name": "a", "caption": "b", "probability": {number}}}]}}'
    assert client.post("/download", content=body.encode(), headers=JSON).status_code in (200, 422)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("path", ["/api/caption", "/gradio_api/upload"])
def test_a_full_disk_is_507(client: TestClient, path: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """On whichever route; and the next is served once there is room."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(code, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("starlette.datastructures.UploadFile.write", full)
        answer = client.post(path, files={"files": ("a.jpg", PHOTO)})
    assert answer.status_code == 507
    assert answer.json()["error"] == "The server's disk is full: try again later."
    assert client.post(path, files={"files": ("a.jpg", PHOTO)}).status_code == 200


def test_a_fault_of_ours_is_json_too(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A status 500 with a sentence, and nothing of what went wrong."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret")

    with monkeypatch.context() as patch:
        patch.setattr("starlette.datastructures.UploadFile.write", fail)
        for path in ("/api/caption", "/gradio_api/upload"):
            answer = client.post(path, files={"files": ("a.jpg", PHOTO)})
            assert (answer.status_code, "secret" in answer.text) == (500, False)
            assert answer.json()["error"].endswith(".")
