"""Files at addresses: a local web server that misbehaves, and a bucket in memory."""

import http.server
import threading

import pytest

from captioner.bulk import addresses
from captioner.errors import DataError, ImageError
from tests.bulk.conftest import picture, write_tar
from tests.bulk.local import captioned, rows

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")
pytestmark = pytest.mark.filterwarnings("default::ResourceWarning")  # aiohttp's loop lives as long as the process


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves /N.jpg, the Nth picture; `fails` says how often an address answers 503 first."""
    monkeypatch.setattr(addresses, "_PATIENCE", 0.01)
    fails: dict[str, int] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if fails.get(self.path, 0):
                fails[self.path] -= 1
                self.send_error(503)
            elif self.path.endswith("shard.tar"):
                self.answer((tmp_path / "shard.tar").read_bytes())
            elif self.path.startswith("/missing"):
                self.send_error(404)
            else:
                self.answer(picture(int(self.path[1:].split(".")[0])))

        def answer(self, data):
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}", fails
        listening.shutdown()
        thread.join()


def test_photos_of_a_web_server(server, model, tmp_path):
    """A list of addresses: what is missing has a row that says so, what fails for a while is asked again; a second run asks for none."""
    address, fails = server
    fails |= {"/1.jpg": 2, "/2.jpg": 100}
    write_tar(tmp_path / "shard.tar", range(3))
    names = ["0.jpg", "1.jpg", "2.jpg", "missing.jpg", "shard.tar"]
    (tmp_path / "list.txt").write_text("".join(f"{address}/{name}\n" for name in names))
    totals, told = captioned(tmp_path / "list.txt", tmp_path / "out", model)
    assert (totals.done, totals.failed, told) == (7, 2, [])
    errors = {row["path"]: row["error"] for row in rows(tmp_path / "out")}
    assert errors[f"{address}/0.jpg"] is errors[f"{address}/1.jpg"] is errors[f"{address}/shard.tar/0002.jpg"] is None
    assert "503" in errors[f"{address}/2.jpg"]
    assert "does not exist" in errors[f"{address}/missing.jpg"]
    assert captioned(tmp_path / "list.txt", tmp_path / "out", model)[0].done == 0


def test_no_more_is_read_than_a_picture_may_have(server):
    """Whatever a server sends."""
    address, _ = server
    assert addresses.read(f"{address}/5.jpg", most=100) == picture(5)[:101]


def test_a_bucket(model, tmp_path):
    """Folders and patterns are listed with size and stamp, which tell a changed file."""
    bucket = fsspec.filesystem("memory")
    for number in range(3):
        bucket.pipe(f"/bucket/{number}.jpg", picture(number))
    bucket.pipe("/bucket/notes.txt", b"nothing")
    assert [one.address for one in addresses.found("memory://bucket/*.jpg")] == [
        f"memory://bucket/{number}.jpg" for number in range(3)
    ]
    assert captioned("memory://bucket/", tmp_path / "out", model)[0].done == 3
    bucket.pipe("/bucket/1.jpg", picture(7))
    totals, _ = captioned("memory://bucket/*.jpg", tmp_path / "out", model)
    assert (totals.before, totals.done) == (2, 1)
    bucket.rm("/bucket", recursive=True)


def test_what_is_not_installed_is_named():
    """With the command that installs it; S3's and Google's addresses do without, by pyarrow."""
    with pytest.raises(ImageError, match="pip install"):
        addresses.read("sftp://example.invalid/a.jpg", most=10)


def test_a_web_server_lists_nothing():
    """So neither its folders nor patterns can be sources."""
    with pytest.raises(DataError, match="text file"):
        addresses.found("https://example.invalid/*.jpg")
