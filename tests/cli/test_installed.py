"""The package as `pip install` leaves it: what the wheel holds, and the command from a folder far from any clone."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import urllib.request
import venv
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
from PIL import Image

from captioner import cli
from captioner.checkpoint import BUNDLED

ROOT = Path(__file__).parents[2]
COMMANDS = ("caption", "video", "evaluate", "train", "serve", "runs", "info", "export", "download")


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a program without what this process knows of the clone."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env=clean, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing an earlier build left gets in."""
    setuptools = pytest.importorskip("setuptools")
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip("building needs setuptools 77")
    source, output = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "captioner", source / "captioner", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", output)
    done = run(*command, source, cwd=source)
    assert done.returncode == 0, done.stderr
    return next(output.glob("captioner-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel; torch and the rest are borrowed from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    command = (sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    done = run(*command, cwd=folder)
    assert done.returncode == 0, done.stderr
    places = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).stdout.strip()
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(places, "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n")
    return folder / "bin"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder with a photo."""
    Image.new("RGB", (80, 60), "green").save(tmp_path / "photo.jpg")
    return tmp_path


@pytest.mark.slow
def test_the_wheel_holds_the_whole_package(wheel: Path) -> None:
    """Each file below captioner/, models, style sheets and templates too, and nothing from beside it."""
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "captioner").rglob("*") if path.is_file()}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == {name for name in there if "__pycache__" not in name}


@pytest.mark.slow
def test_the_metadata_is_what_an_index_wants(wheel: Path) -> None:
    """Name, licence and its files, description; what captioning needs and what its extras bring are requirements.txt."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        found = message_from_string(archive.read(next(name for name in names if name.endswith("/METADATA"))).decode())
    wanted = (ROOT / "requirements.txt").read_text().splitlines()

    def bounds(line: str) -> tuple[str, frozenset[str]]:
        return re.split("[<>=]", line)[0].strip(), frozenset(re.findall(r"[<>=]+[\d.]+", line.split(";")[0]))

    required = found.get_all("Requires-Dist", [])
    everything = [line for line in required if not line.startswith("captioner[")]
    assert set(map(bounds, everything)) == set(map(bounds, wanted))
    assert found.get_all("Provides-Extra") == ["onnx", "torch", "web", "video", "all"]
    light = [line for line in required if ";" not in line or 'extra == "onnx"' in line]
    assert not {"torch", "torchvision", "gradio", "av"} & {bounds(line)[0] for line in light}
    assert "onnxruntime" in {bounds(line)[0] for line in light}
    assert found.get_all("License-File") == ["LICENSE", "captioner/pretrained/README.md"]
    assert found["Name"] == "captioner"
    assert found["License-Expression"] == "MIT"
    assert found["Description-Content-Type"] == "text/markdown"
    assert found["Requires-Python"] == ">=3.10"
    assert found.get_payload().startswith("# captioner")


@pytest.mark.slow
def test_the_command_needs_no_clone(installed: Path, elsewhere: Path) -> None:
    """It captions, knows its models, and all its files are those of the environment."""
    if not BUNDLED.exists():
        pytest.skip("there is no bundled model")
    where = run(installed / "python", "-c", "import captioner; print(captioner.__file__)", cwd=elsewhere).stdout
    assert Path(where.strip()).is_relative_to(installed.parent)
    done = run(installed / "captioner", "caption", "photo.jpg", "--model", "fast", cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"photo\.jpg\t\w.+\n", done.stdout)
    done = run(installed / "captioner", "info", cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert str(installed.parent) in done.stdout.splitlines()[0]


@pytest.mark.slow
def test_the_commit_of_another_project_is_not_ours(installed: Path) -> None:
    """An environment in the folder of somebody's project: models trained there do not carry that project's commit."""
    if shutil.which("git") is None:
        pytest.skip("there is no git here")
    who = ("-c", "user.name=A", "-c", "user.email=a@example.com")
    assert run("git", "init", "--quiet", cwd=installed.parent).returncode == 0
    assert run("git", *who, "commit", "--quiet", "--allow-empty", "-m", "x", cwd=installed.parent).returncode == 0
    script = "from captioner.training.plan import _commit; print(_commit())"
    assert run(installed / "python", "-c", script, cwd=installed.parent).stdout == "None\n"


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_installed_and_calls_itself_so(installed: Path, elsewhere: Path, command: str) -> None:
    """Help and examples name the program that was typed, and no script of the clone."""
    done = run(installed / "captioner", command, "--help", cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: captioner {command} ")
    assert not re.search(r"python (-m captioner|app\.py|train\.py)", done.stdout)


@pytest.mark.slow
def test_the_installed_page_is_whole(installed: Path, elsewhere: Path) -> None:
    """`captioner serve`, and a browser's first visit: style sheet and script come along."""
    pytest.importorskip("gradio", reason="the page needs gradio")
    command = [str(installed / "captioner"), "serve", "--port", "0", "--model", "fast", "--device", "cpu"]
    with subprocess.Popen(command, cwd=elsewhere, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.match(r"captioner is at (http://\S+) ", process.stdout.readline())
            assert found
            with urllib.request.urlopen(found[1], timeout=60) as answer:
                assert "captioner" in answer.read().decode()
        finally:
            process.terminate()
            process.wait(30)


@pytest.mark.parametrize(
    ("command", "called"),
    [
        (["-c", "from captioner.cli import main; main()"], "captioner"),
        (["-m", "captioner"], "python -m captioner"),
        (["app.py"], "python app.py"),
        (["train.py"], "python train.py"),
    ],
)
def test_help_and_mistakes_name_the_door_that_was_used(command: list[str], called: str) -> None:
    """So that what they say can be typed again."""
    helped = run(sys.executable, *command, "--help", cwd=ROOT)
    assert helped.stdout.startswith(f"usage: {called} ")
    wrong = run(sys.executable, *command, "--no-such-option", cwd=ROOT)
    assert wrong.returncode == 2
    assert f"\n{called}: error: " in wrong.stderr


def test_the_examples_in_the_help_name_the_door(capsys: pytest.CaptureFixture[str]) -> None:
    """Those of commands that have some."""
    for command in ("train", "serve", "evaluate"):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        out = capsys.readouterr().out
        assert f"captioner {command} " in out.split("usage: ")[1].split("\n\n", 1)[1]
        assert "%(prog)s" not in out
