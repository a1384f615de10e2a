"""The README's examples for programs, typed as written, against `python app.py`."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from tests.test_readme import BLOCKS
from tests.web.visitors import half_an_upload

SERVED = "http://127.0.0.1:7860"


def blocks(language: str) -> list[str]:
    return [
        block for kind, block in BLOCKS if kind == language and (SERVED + "/api" in block or "gradio_client" in block)
    ]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with the files that the examples name."""
    for number, name in enumerate(("photo.jpg", "other.jpg")):
        Image.new("RGB", (80, 60), (30, 90 * number, 30)).save(tmp_path / name)
    return tmp_path


def test_curl(address: str, photos: Path) -> None:
    """Files in, JSON out; a mistake gives an error that names it."""
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    lines = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("curl")]
    assert lines
    for line in lines:
        command = shlex.split(line.replace(SERVED, address), comments=True)
        answer = subprocess.run([*command, "--silent"], cwd=photos, capture_output=True, text=True, check=True)
        found = json.loads(answer.stdout)
        assert [one["name"] for one in found["captions"]] == re.findall(r"files=@(\S+)", line)
        assert all(len(one["caption"].split()) > 2 for one in found["captions"])


def test_python(address: str, photos: Path) -> None:
    """The standard library alone, and Gradio's client."""
    found = blocks("python")
    assert len(found) == 2
    for block in found:
        command = [sys.executable, "-c", block.replace(SERVED, address)]
        answer = subprocess.run(command, cwd=photos, capture_output=True, text=True, check=True)
        assert len(answer.stdout.splitlines()[-1].split()) > 2, answer.stdout


def test_slow_and_broken_uploads_block_nobody(address: str, photos: Path) -> None:
    """Forty visitors send half a picture and leave in the end: others are served, and the server's log stays quiet."""
    port = int(address.rpartition(":")[2])
    halves = [half_an_upload(port, path) for path in ("/api/caption", "/gradio_api/upload") for _ in range(20)]
    head = b'--X\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    body = head + (photos / "photo.jpg").read_bytes() + b"\r\n--X--\r\n"
    request = urllib.request.Request(
        address + "/api/caption", body, {"Content-Type": "multipart/form-data; boundary=X"}
    )
    for _ in range(2):
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer)["captions"][0]["caption"]
        for half in halves:
            half.close()
