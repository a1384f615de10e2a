"""Behind a proxy: below a path prefix, the page, /docs and the API ask for their own addresses, and find them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.conftest import serving
from tests.hostile import encoded, noise

pytest.importorskip("gradio", reason="the page needs gradio")

from fastapi.testclient import TestClient

from captioner.errors import OptionError
from captioner.options import WebOptions
from tests.web.browsing import LION, Visit
from tests.web.visitors import ADDRESS, Visitor, made, small_captioner

PHOTO = encoded(noise(), "JPEG")


@contextmanager
def proxy(port: int, *, takes_off: bool, host: str | None = None) -> Iterator[str]:
    """As nginx and Caddy do it: what lies below /captioner/ goes to the server, all else is somebody else's (404)."""

    class Forward(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def do_GET(self) -> None:
            if not self.path.startswith("/captioner/"):
                self.send_error(404)
                return
            upstream = HTTPConnection("127.0.0.1", port, timeout=60)
            path = self.path.removeprefix("/captioner") if takes_off else self.path
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            headers |= {"X-Forwarded-For": self.client_address[0], "X-Forwarded-Proto": "http"}
            if host:
                headers["Host"] = host
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            upstream.request(self.command, path, body, headers)
            answer = upstream.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            self.end_headers()
            try:
                while data := answer.read1(65536):
                    self.wfile.write(data)
                    self.wfile.flush()
            except OSError:
                pass  # the browser left
            upstream.close()

        do_POST = do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Forward) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/captioner/"
        server.shutdown()


@pytest.mark.parametrize(
    ("root", "prefix"), [("/captioner", ""), ("/captioner/", "/captioner"), ("https://photos.example/captioner", "")]
)
def test_every_address_is_below_the_prefix(
    root: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the proxy takes the prefix off (nginx with a slash, Caddy's handle_path) or leaves it on."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    origin = "https://photos.example" if "photos" in root else ADDRESS
    base = ("http://photos.example" if "photos" in root else ADDRESS) + prefix
    with TestClient(made(small_captioner(), WebOptions(root_path=root)), base_url=base) as client:
        config = client.get("/config").json()
        assert config["root"] == origin + "/captioner"
        visitor = Visitor(client)
        assert visitor.ask(visitor.upload(PHOTO))["success"]
        assert client.post("/api/caption", files={"files": ("a.jpg", PHOTO)}).status_code == 200
        assert client.post("/api/caption/", files={"files": ("a.jpg", PHOTO)}).status_code == 200
        page = client.get("/docs").text
        asked = re.findall(r"(?:src|href)=\"([^\"]+)\"", page) + re.findall(r"url: '([^']+)'", page)
        assert len(asked) >= 4
        assert all(address.startswith("/captioner/") for address in asked)
        for address in asked:
            assert client.get(address.removeprefix("/captioner")).status_code == 200, address
        assert client.get("/openapi.json").json()["servers"] == [{"url": "/captioner"}]
        assert client.get("/gradio_api/proxy=http://127.0.0.1:9/").status_code == 404
        assert client.head("/health").status_code == 200


def test_without_a_slash_the_page_is_one_step_away() -> None:
    """Its addresses are relative."""
    client = TestClient(made(small_captioner(), WebOptions(root_path="/captioner")), base_url=ADDRESS)
    answer = client.get("/captioner", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, "/captioner/")


@pytest.mark.parametrize("root", ["captioner", "//evil.example", "ftp://x/y", "http://", "/?x"])
def test_a_wrong_root_is_named(root: str) -> None:
    """Before anything is served."""
    with pytest.raises(OptionError, match="root_path"):
        made(small_captioner(), WebOptions(root_path=root))


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("takes_off", [True, False])
def test_the_page_through_a_proxy(browser: Any, tmp_path: Path, takes_off: bool) -> None:
    """In a browser: a photo, its caption, and nothing asked for outside the prefix; /docs shows its description."""
    with (
        serving(tmp_path, "--root-path", "/captioner") as address,
        proxy(int(address.rpartition(":")[2]), takes_off=takes_off) as shown,
    ):
        visit = Visit(browser, shown)
        visit.give(LION)
        assert len(visit.caption().split()) >= 3
        visit.page.wait_for_timeout(2000)  # leaving in the middle of an answer is an error in the browser's log
        visit.page.goto(shown + "docs")
        visit.page.get_by_text("Captions pictures").wait_for(timeout=20_000)
        visit.close()
