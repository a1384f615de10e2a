"""Whatever a shell makes of the standard streams, a command ends with a sentence or goes on, never with a traceback."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
FULL = Path("/dev/full")
COMMANDS = ["evaluate {data} --results {results}", "evaluate", "--help"]


@pytest.fixture
def names(tmp_path):
    """A data set and results."""
    data, results = tmp_path / "captions_val2017.json", tmp_path / "results.json"
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in (1, 2)]
    annotations = [{"image_id": number, "caption": "a dog runs on grass"} for number in (1, 2)]
    data.write_text(json.dumps({"images": images, "annotations": annotations}))
    results.write_text(json.dumps(annotations))
    return {"data": shlex.quote(str(data)), "results": shlex.quote(str(results))}


def shell(command, redirections, **environment):
    line = f"{shlex.quote(sys.executable)} -m captioner {command} {redirections}"
    return subprocess.run(
        line, shell=True, capture_output=True, check=False, cwd=ROOT, env={**os.environ, **environment}, timeout=120
    )


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["info fast --json", "PYTHONUNBUFFERED", COMMANDS[0], "--help"])
def test_a_full_disk_behind_standard_output_is_one_sentence(command, names):
    """And status 2: whoever redirected the output must not take half of it for the whole."""
    unbuffered = {command: "1"} if command.isupper() else {}
    done = shell((COMMANDS[0] if unbuffered else command).format(**names), "> /dev/full", **unbuffered)
    said = done.stderr.decode().splitlines()
    assert done.returncode == 2
    assert said[-1] == "The output could not be written: No space left on device."
    assert "Traceback" not in done.stderr.decode()
    assert "Exception ignored" not in done.stderr.decode()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("redirections", [">&-", "2>&-", ">&- 2>&-", "2> /dev/full", "< /dev/null >&-", "<&-"])
def test_streams_that_are_closed_or_full_change_nothing_else(command, redirections, names):
    """The status is the usual one, nothing is said by Python itself, and no complaint lands in the output."""
    if "/dev/full" in redirections and not FULL.exists():
        pytest.skip("needs /dev/full")
    done = shell(command.format(**names), redirections)
    assert done.returncode == (2 if command == "evaluate" else 0)
    for output in (done.stdout, done.stderr):
        assert b"Traceback" not in output
        assert b"Exception ignored" not in output
    if ">&-" not in redirections.split():
        assert b"error" not in done.stdout
        assert bool(done.stdout) == (command != "evaluate")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["text", "csv"])
def test_output_for_programs_is_utf_8_in_any_locale(model, tmp_path, form):
    """Names come out as they are, also where the locale knows ASCII alone."""
    Image.new("RGB", (20, 20)).save(tmp_path / "é.png")
    locale = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = shell(f"caption {shlex.quote(str(tmp_path))} --model {shlex.quote(model)} --format {form}", "", **locale)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/é.png" in done.stdout.decode("utf-8")
