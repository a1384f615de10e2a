"""However the server ends, nothing of its visitors stays; and where it cannot begin, one sentence says why."""

import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("gradio", reason="the page needs gradio")

from captioner.errors import OptionError
from captioner.web.uploads import uploads_folder
from tests.conftest import ROOT


def test_the_folder_is_private_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With everything temporary in it; and the environment is as it was."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    with uploads_folder() as folder:
        assert os.environ["GRADIO_TEMP_DIR"] == folder
        assert Path(folder).parents[1] == tmp_path
        assert Path(folder).parent.stat().st_mode & 0o077 == 0
        assert Path(tempfile.mkdtemp()).parents[1] == Path(folder).parent
        Path(folder, "photo").mkdir()
    assert os.environ["GRADIO_TEMP_DIR"] == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


HOLD = "from captioner.web.uploads import uploads_folder\nwith uploads_folder() as f: print(f, flush=True); input()"


def test_the_next_start_deletes_what_a_killed_one_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing of one that lives, and nothing that is not a server's."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    for name in ("captioner-mine", "gradio"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "photo.jpg").touch()
    command = [sys.executable, "-c", HOLD]
    with (
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killed,
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as alive,
    ):
        assert killed.stdout is not None
        assert alive.stdout is not None
        left, held = (Path(one.stdout.readline().strip()).parent for one in (killed, alive))
        killed.kill()
        killed.wait()
        assert left.is_dir()
        with uploads_folder() as folder:
            assert {path for path in tmp_path.iterdir() if path.is_dir()} == {
                held, Path(folder).parent, tmp_path / "captioner-mine", tmp_path / "gradio"
            }  # fmt: skip
        alive.send_signal(signal.SIGTERM)
        alive.wait()
        assert not held.exists()


@pytest.mark.parametrize("place", ["nowhere", "file", "readonly"])
def test_no_place_for_uploads_is_one_sentence(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the variable and the way out."""
    (tmp_path / "file").touch()
    (tmp_path / "readonly").mkdir(mode=0o500)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / place))
    if place == "readonly" and os.access(tmp_path / place, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(OptionError, match=r"GRADIO_TEMP_DIR is .*: set GRADIO_TEMP_DIR to a folder with room\."):
        uploads_folder().__enter__()


def test_no_temporary_folder_at_all_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Full or forbidden."""

    def fail() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    monkeypatch.setattr("tempfile.gettempdir", fail)
    with pytest.raises(OptionError, match="The system's folder for temporary files"):
        uploads_folder().__enter__()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
def test_every_signal_ends_it_cleanly(number: signal.Signals, tmp_path: Path) -> None:
    """Quietly, with exit status 0, and leaving nothing."""
    environment = os.environ | {"GRADIO_TEMP_DIR": str(tmp_path)}
    command = [sys.executable, "app.py", "--port", "0", "--device", "cpu", "--model", "fast", "--no-page"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            ready, _, _ = select.select([process.stdout], [], [], 120)
            assert ready
            assert process.stdout.readline().startswith("captioner is at ")
            assert len(list(tmp_path.iterdir())) == 1
            process.send_signal(number)
            said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, said) == (0, ("", ""))
    assert list(tmp_path.iterdir()) == []
