"""The README's promises: its commands exist, its flags are known, its Python runs, its files are there."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

import app
import train
from captioner import cli
from captioner.checkpoint import BUNDLED

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)


def shell_lines():
    for language, block in BLOCKS:
        if language == "bash":
            yield from (line for line in block.replace("\\\n", " ").splitlines() if line and not line.startswith("#"))


def help_of(*words):
    output = io.StringIO()
    doors = {"train.py": train.main, "app.py": app.main}
    arguments = ["--help"] if words[0] in doors else [*words, "--help"]
    with contextlib.redirect_stdout(output), pytest.raises(SystemExit):
        doors.get(words[0], cli.main)(arguments)
    return output.getvalue()


def test_the_two_promises_are_at_the_top():
    """Each in one command line, on the first screen."""
    top = README[:2500]
    assert "pip install -r requirements.txt && python app.py" in top
    assert "pip install -r requirements.txt -r requirements-dev.txt && python -m pytest" in top


@pytest.mark.parametrize("line", [line for line in shell_lines() if "python " in line])
def test_every_flag_in_the_readme_exists(line):
    """A command in the README uses a command and flags that the program has."""
    command = re.split(r"&&|\||>", line)
    for part in command:
        words = shlex.split(part, comments=True)
        if words[:3] == ["python", "-m", "captioner"]:
            text = help_of(words[3])
        elif words[:2] in (["python", "train.py"], ["python", "app.py"]):
            text = help_of(words[1])
        else:
            continue
        for flag in (word for word in words if word.startswith("--")):
            assert flag in text, f"{flag} is not a flag of: {part}"


def test_every_file_the_readme_names_is_there():
    """Links inside the repository lead somewhere."""
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)\)", README):
        assert (ROOT / target).exists(), f"README links to {target}, which is not there"


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    """Typed as written, with a photo where it expects one."""
    if not BUNDLED.exists():
        pytest.skip("there is no bundled model yet")
    import av
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    for name in ("photo.jpg", "other.jpg"):
        Image.new("RGB", (80, 60), "green").save(name)
    with av.open("clip.mp4", "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 80, 60, "yuv420p"
        file.mux(stream.encode(av.VideoFrame.from_image(Image.open("photo.jpg"))))
        file.mux(stream.encode())
    # Those for a server run in test_programs.py.
    blocks = [block for language, block in BLOCKS if language == "python" and "127.0.0.1" not in block]
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_the_tree_in_the_readme_is_the_tree():
    """Every file and folder of the layout section exists."""
    layout = README.split("## Layout")[1].split("```")[1]
    for line in layout.splitlines():
        name = line.split("  ")[0].strip() if line.startswith("captioner/") or not line.startswith(" ") else ""
        for part in name.split():
            assert (ROOT / part).exists(), f"{part} is in the README's layout only"
