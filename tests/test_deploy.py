"""What of deploy/ can be checked without Docker and without the Hub."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")


def copied():
    """What the Dockerfile copies: (source, destination) from the top of the tree."""
    for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE):
        *sources, destination = line.split()
        for source in sources:
            yield source, Path(destination, source) if destination in (".", "./") else Path(destination)


def test_what_the_container_holds_is_enough(tmp_path):
    """The page's own program starts from it, and the models are there."""
    for source, place in copied():
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, tmp_path / place)
        else:
            shutil.copy(ROOT / source, tmp_path / place)
    entry = re.search(r"^ENTRYPOINT (\[.+\])$", DOCKERFILE, re.MULTILINE)
    assert entry
    command = [part.strip('", ') for part in entry[1].strip("[]").split(",")]
    assert command[:2] == ["python", "app.py"]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    helped = subprocess.run(
        [sys.executable, *command[1:], "--help"], cwd=tmp_path, env=clean, capture_output=True, timeout=60, check=False
    )
    assert helped.returncode == 0, helped.stderr
    code = "import captioner.web.server, captioner; captioner.Captioner.load('fast')"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=clean, capture_output=True, timeout=120, check=False
    )
    assert loaded.returncode == 0, loaded.stderr


def test_docker_is_sent_what_it_copies_and_no_more():
    """The ignore file lets through just those."""
    lines = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().split()
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == {source for source, _ in copied()}


def test_a_space_gets_what_the_dockerfile_copies():
    """With its front matter and the Dockerfile at the top, and nothing else; every file is there."""
    listed = subprocess.run(
        [sys.executable, "deploy/publish.py", "someone/captioner", "--list"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    sizes = dict(line.split("\t") for line in listed.stdout.splitlines())
    assert {place.split("/")[0] for place in sizes} == {source for source, _ in copied()} | {"README.md", "Dockerfile"}
    assert not [place for place in sizes if "__pycache__" in place]
    front = re.match(r"---\n(.*?)\n---\n", (ROOT / "deploy" / "space.md").read_text(encoding="utf-8"), re.DOTALL)
    assert front
    settings = dict(line.split(": ", 1) for line in front[1].splitlines())
    assert settings["sdk"] == "docker"
    assert f"EXPOSE {settings['app_port']}" in DOCKERFILE
    assert len(settings["short_description"]) <= 60  # the Hub's limit


def test_publishing_without_the_hub_is_one_sentence():
    """No token, or no network: a line and exit 1."""
    pytest.importorskip("huggingface_hub", reason="comes with gradio")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    nowhere = {**clean, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": "/nonexistent", "HF_TOKEN": "x"}
    done = subprocess.run(
        [sys.executable, "deploy/publish.py", "someone/captioner"],
        cwd=ROOT,
        env=nowhere,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("someone/captioner could not be published: ")
    assert "Traceback" not in done.stderr
