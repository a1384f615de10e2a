"""The promises of captioner.web.origins: under which names, for whose pages, and in whose frames the server answers."""

import asyncio
import functools
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page needs gradio")

from fastapi.testclient import TestClient

from captioner.captioner import Captioner
from captioner.options import WebOptions
from tests.hostile import encoded, noise
from tests.web.visitors import ADDRESS, made, small_captioner

PHOTO = encoded(noise(), "JPEG")
EVIL = "https://evil.example"


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return small_captioner()


@functools.cache
def visit(captioner: Captioner, **options: Any) -> TestClient:
    return TestClient(made(captioner, WebOptions(**options)), base_url=ADDRESS)


def hosts_of(client: TestClient, *hosts: str) -> list[int]:
    """The status of /health under each name."""
    return [client.get("/health", headers={"host": host}).status_code for host in hosts]


def test_a_foreign_name_is_refused(captioner: Captioner) -> None:
    """DNS rebinding leads a browser here under a name of the attacker's: 421, on every route, before all else."""
    client = visit(captioner)
    assert hosts_of(client, "127.0.0.1:7860", "localhost", "LOCALHOST:1", "[::1]:7860") == [200] * 4
    odd = [
        "evil.example",
        "evil.example:7860",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "[evil",
        "a b",
        "1:x:y",
    ]
    assert hosts_of(client, *odd, "", "192.168.1.7", "127.0.0.1@evil.example/") == [421] * 10
    for path in ("/", "/config", "/nowhere", "/api/caption", "/gradio_api/queue/data"):
        assert client.get(path, headers={"host": "evil.example"}).status_code == 421
    answer = client.get("/", headers={"x-forwarded-host": "evil.example"})  # Gradio would build its addresses from it
    assert answer.status_code == 421
    assert "--allow-host" in answer.json()["error"]
    assert "evil" not in client.get("/config", headers={"x-gradio-server": "http://evil.example/"}).text


def test_an_owner_names_more_hosts(captioner: Captioner) -> None:
    """With letters left open; and where every address is served, numbers are no danger."""
    client = visit(captioner, page=False, allow_host="photos.example, *.lan")
    assert hosts_of(client, "photos.example", "a.lan:80", "a.b.lan", "lan", "photos.example.org") == [
        200,
        200,
        200,
        421,
        421,
    ]
    client = visit(captioner, page=False, host="0.0.0.0")
    assert hosts_of(client, "192.168.1.7:7860", "[fe80::1]:7860", "evil.example") == [200, 200, 421]
    assert hosts_of(visit(captioner, page=False, host="10.0.0.5"), "10.0.0.5", "10.0.0.6") == [200, 421]
    assert hosts_of(visit(captioner, page=False, allow_host="*"), "any.example") == [200]


def cors(answer: Any) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


@pytest.mark.parametrize("path", ["/", "/config", "/health", "/api/caption", "/nowhere", "/gradio_api/info"])
def test_no_foreign_page_reads_an_answer(captioner: Captioner, path: str) -> None:
    """No CORS header for anybody, whatever Host and Origin say; asked beforehand, neither."""
    client = visit(captioner, allow_host="photos.example")
    for host in ("127.0.0.1:7860", "photos.example"):
        for origin in (EVIL, "null", "http://localhost", ADDRESS):
            headers = {"host": host, "origin": origin}
            assert cors(client.get(path, headers=headers)) == {}
            asked = {**headers, "access-control-request-method": "POST"}
            assert cors(client.options(path, headers=asked)) == {}


@pytest.mark.parametrize("path", ["/api/caption", "/gradio_api/upload", "/gradio_api/queue/join", "/download"])
def test_no_foreign_form_is_taken(captioner: Captioner, path: str) -> None:
    """By what the browser says of its page; programs, which say nothing, are served as ever."""
    client = visit(captioner)
    foreign = [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": EVIL}, {"origin": "null"}]
    foreign += [{"origin": "http://127.0.0.1:8000"}, {"origin": ADDRESS, "sec-fetch-site": "cross-site"}]
    for headers in foreign:
        answer = client.post(path, files={"files": ("a.jpg", PHOTO)}, headers=headers)
        assert answer.status_code == 403, headers
        assert answer.json()["error"].endswith("--allow-origin.")
    for headers in ({}, {"origin": ADDRESS}, {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}):
        assert client.post(path, files={"files": ("a.jpg", PHOTO)}, headers=headers).status_code != 403


def test_an_allowed_origin_calls_and_reads(captioner: Captioner) -> None:
    """It alone; and its browser may ask beforehand."""
    client = visit(captioner, allow_origin="https://shop.example, https://other.example/")
    shop = {"origin": "https://shop.example", "sec-fetch-site": "cross-site"}
    answer = client.post("/api/caption", files={"files": ("a.jpg", PHOTO)}, headers=shop)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    assert "access-control-allow-credentials" not in answer.headers
    assert "origin" in answer.headers["vary"].lower()
    asked = {**shop, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    answer = client.options("/api/caption", headers=asked)
    assert (answer.status_code, answer.headers["access-control-allow-headers"]) == (204, "content-type")
    assert client.get("/health", headers={"origin": "https://other.example"}).headers["access-control-allow-origin"]
    assert cors(client.get("/health", headers={"origin": EVIL})) == {}
    assert client.post("/api/caption", headers={"origin": EVIL}).status_code == 403


def test_every_answer_tells_the_browser_whom_to_trust(captioner: Captioner) -> None:
    """Types are not guessed, and no other site shows the page in a frame, unless it is named."""
    client = visit(captioner)
    for answer in (client.get("/"), client.get("/nowhere"), client.post("/api/caption"), client.get("/health")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
        assert "https:" not in answer.headers["content-security-policy"]
    answer = visit(captioner, embed="https://blog.example").get("/")
    assert answer.headers["content-security-policy"].endswith("frame-ancestors 'self' https://blog.example")


def test_odd_hosts_in_a_raw_request_are_refused(captioner: Captioner) -> None:
    """Two Host headers, none, or bytes that are no text."""
    app = visit(captioner).app

    async def status(headers: list[tuple[bytes, bytes]]) -> int:
        scope = {"type": "http", "method": "GET", "path": "/health", "query_string": b"", "headers": headers}
        found: list[int] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request"}

        async def send(message: dict[str, Any]) -> None:
            found.extend([message["status"]] if "status" in message else [])

        await app(scope, receive, send)  # type: ignore[arg-type]
        return found[0]

    good = (b"host", b"localhost")
    for headers in (
        [],
        [good, (b"host", b"evil.example")],
        [(b"host", b"\xff\xfe")],
        [good, (b"x-forwarded-host", b"a, b")],
    ):
        assert asyncio.run(status(headers)) == 421, headers
    assert asyncio.run(status([good])) == 200
