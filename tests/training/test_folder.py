"""The promises of captioner.training.folder: one run in a folder, and nothing in the way of the next."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import train as door
from captioner.errors import OptionError
from captioner.files import remove_parts, write_atomically
from captioner.telling import SILENT
from captioner.training import run as training_run
from captioner.training.folder import FEATURE_PARTS, RunFolder, held
from captioner.training.recipes import PRESETS
from tests.training.small import small_run
from tests.training.test_stages import STAGES

ROOT = Path(__file__).parents[2]
FLAGS = [
    *"--encoder-weights none --fine-tune all --epochs 1 --batch-size 16 --min-count 1 --workers 0".split(),
    *"--encoder resnet18 --encoder-stage layer1 --image-size 32 --hidden-size 16 --embedding-size 16".split(),
]
TRACES = ["lock", "last.safetensors.ab12cd_x.part", "resume.pt.part", ".tmpAb12Cd"]


def arguments(data, tmp_path, *flags, output="run"):
    where = ["--output", str(tmp_path / output), "--features", str(tmp_path / "features")]
    return [str(data), *where, *(flags or FLAGS)]


class Killed(BaseException):
    """What stands for a SIGKILL: nothing that is written catches it."""


def kill_when(monkeypatch, name, call=1):
    """Has a function of the run die in the given call; what it was to write stays half-written, as a kill leaves it."""
    done = 0
    real = getattr(training_run, name)

    def dying(path, *rest, **options):
        nonlocal done
        done += 1
        if done == call:
            part = path.with_name(f"{path.name}.killed12.part")
            part.mkdir()
            (part / path.name).write_text("half")
            raise Killed
        return real(path, *rest, **options)

    monkeypatch.setattr(training_run, name, dying)


@pytest.mark.parametrize("resume", [[], ["--resume"]], ids=["the same command", "with --resume"])
def test_a_run_killed_before_its_first_save_begins_again(drawings, tmp_path, monkeypatch, capsys, resume):
    """The same command works, with --resume and without; of the killed run nothing is left."""
    with monkeypatch.context() as patch:
        kill_when(patch, "save_resume")
        with pytest.raises(Killed):
            door.main(arguments(drawings, tmp_path))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["resume.pt.killed12.part"]
    (tmp_path / "run" / "lock").touch()  # as only a real kill leaves it
    assert door.main([*arguments(drawings, tmp_path), *resume]) == 0, capsys.readouterr().err
    names = {path.name for path in (tmp_path / "run").iterdir()} - {"tensorboard"}
    assert names == {"best.safetensors", "last.safetensors", "log.jsonl", "resume.pt", "report.html"}
    assert ("was stopped before it saved anything" in capsys.readouterr().out) == bool(resume)


@pytest.mark.parametrize("name", TRACES)
def test_traces_of_a_killed_run_are_no_run(tmp_path, name):
    """Whatever of them it left, alone or together; anything else is."""
    (tmp_path / name).touch()
    assert RunFolder(tmp_path).unsaved
    RunFolder(tmp_path).check_new()
    (tmp_path / "precious").touch()
    with pytest.raises(OptionError, match="already holds precious"):
        RunFolder(tmp_path).check_new()
    with pytest.raises(OptionError, match="which holds precious: choose another"):
        RunFolder(tmp_path).check_resumable()


def test_models_without_a_resume_file_are_kept_and_no_circle(tmp_path):
    """Neither way says to try the other one."""
    (tmp_path / "best.safetensors").touch()
    for check in (RunFolder(tmp_path).check_new, RunFolder(tmp_path).check_resumable):
        with pytest.raises(OptionError, match=r"best\.safetensors.*choose another --output"):
            check()


@pytest.mark.parametrize("call", [1, 2], ids=["the best", "the last"])
def test_a_run_killed_between_its_saves_ends_as_if_it_never_was(drawings, whole, tmp_path, monkeypatch, call):
    """Resume file first, models after it: who resumes writes those that are missing."""
    with monkeypatch.context() as patch:
        kill_when(patch, "save_model", call)
        with pytest.raises(Killed):
            small_run(drawings, tmp_path / "run")
    small_run(drawings, tmp_path / "run", resume=True)
    runs = whole[0], tmp_path / "run"
    for name in ("best", "last"):
        one, other = (load_file(run / f"{name}.safetensors") for run in runs)
        assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())
    logs = [(run / "log.jsonl").read_text().splitlines() for run in runs]
    assert [json.loads(line)["val"] for line in logs[0]] == [json.loads(line)["val"] for line in logs[1]]


def test_a_second_run_in_a_folder_is_refused(drawings, tmp_path, capsys):
    """In a sentence, at once, and the first is not disturbed; when that is over, the folder is free."""
    with held(tmp_path / "run", SILENT):
        before = set((tmp_path / "run").iterdir())
        for flags in ([], ["--resume"]):
            assert door.main([*arguments(drawings, tmp_path), *flags]) == 2
            said = capsys.readouterr().err
            assert said.count("\n") == 1
            assert f"Another run is at work in {tmp_path / 'run'}" in said
        assert set((tmp_path / "run").iterdir()) == before
    assert not (tmp_path / "run").exists()  # it was made for nothing
    with held(tmp_path / "run", SILENT):
        pass


def test_a_preset_keeps_its_folder_and_those_of_its_stages(drawings, tmp_path, monkeypatch, capsys):
    """A second preset is refused, and so is a run in the folder of the stage that is at work."""
    monkeypatch.setitem(PRESETS, "flickr8k", STAGES[:1])
    said = []

    def intrude(*_, **__):
        for output, flags in (("run", ["--preset", "flickr8k"]), ("run/1-first", [])):
            status = door.main([*arguments(drawings, tmp_path, output=output), *flags])
            said.append((status, capsys.readouterr().err))
        raise Killed

    monkeypatch.setattr(training_run, "save_resume", intrude)
    flags = ["--preset", "flickr8k", "--epochs", "1", "--min-count", "1"]
    with pytest.raises(Killed):
        door.main(arguments(drawings, tmp_path, *flags))
    for (status, error), folder in zip(said, ("run", "run/1-first"), strict=True):
        assert status == 2
        assert f"Another run is at work in {tmp_path / folder}:" in error


@pytest.mark.parametrize("resume", [[], ["--resume"]], ids=["the same command", "with --resume"])
def test_a_preset_killed_before_its_first_save_begins_again(drawings, tmp_path, monkeypatch, capsys, resume):
    """Its record and the traces of its first stage are no run."""
    monkeypatch.setitem(PRESETS, "flickr8k", STAGES[:1])
    flags = ["--preset", "flickr8k", "--epochs", "1", "--min-count", "1"]
    with monkeypatch.context() as patch:
        kill_when(patch, "save_resume")
        with pytest.raises(Killed):
            door.main(arguments(drawings, tmp_path, *flags))
    assert (tmp_path / "run" / "preset.json").exists()
    assert door.main([*arguments(drawings, tmp_path, *flags), *resume]) == 0, capsys.readouterr().err
    assert not list(tmp_path.rglob("*.part"))


def test_the_lock_ends_with_its_process(tmp_path):
    """However that dies; the file that it leaves locks nothing."""
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom captioner.telling import SILENT\n"
        "from captioner.training.folder import held\n"
        "with held(Path(sys.argv[1]), SILENT):\n    print('held', flush=True)\n    time.sleep(100)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(OptionError, match="Another run is at work"), held(tmp_path, SILENT):
            pass
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / "lock").exists()
    with held(tmp_path, SILENT):
        pass
    assert not list(tmp_path.iterdir())


def test_a_system_without_locks_is_said(tmp_path, monkeypatch):
    """Training works there, and whoever trains knows that nothing keeps a second run out."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    said = []
    with held(tmp_path, type(SILENT)(said.append)):
        (tmp_path / "x.safetensors.ab.part").mkdir()
    assert "locks no files" in said[0]
    with held(tmp_path, SILENT):
        assert (tmp_path / "x.safetensors.ab.part").exists()  # somebody may be writing it


def test_a_part_that_is_being_written_stays(tmp_path):
    """Runs share the folder of features: what another one is writing is not taken away, what a dead one left is."""
    dead = tmp_path / f"{'0' * 32}.f16.abcdefgh.part"
    dead.mkdir()
    (dead / "x").touch()
    (tmp_path / "movie.mkv.part").touch()  # nobody's business
    begun, finish = threading.Event(), threading.Event()

    def write(part):
        part.write_text("half")
        begun.set()
        assert finish.wait(30)

    path = tmp_path / f"{'1' * 32}.f16"
    writer = threading.Thread(target=write_atomically, args=(path, write))
    writer.start()
    assert begun.wait(30)
    remove_parts(tmp_path, *FEATURE_PARTS)
    assert not dead.exists()
    finish.set()
    writer.join()
    assert path.read_text() == "half"
    assert {entry.name for entry in tmp_path.iterdir()} == {path.name, "movie.mkv.part"}


@pytest.mark.parametrize("option", ["--output", "--features"])
@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nowhere", "\0"])
def test_a_folder_that_nothing_can_be_written_to_is_refused_first(
    drawings, tmp_path, monkeypatch, option, place, capsys
):
    """A file, below a file, where the system lets nobody write: one sentence, exit 2, before a picture is read."""
    monkeypatch.setattr("captioner.datasets.check_dataset", lambda *_, **__: pytest.fail("too late"))
    (tmp_path / "file").write_text("precious")
    given = arguments(drawings, tmp_path)
    given[given.index(option) + 1] = place if place.startswith(("/", "\0")) else str(tmp_path / place)
    assert door.main(given) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{option} is ")
    assert said.count("\n") == 1
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_what_was_saved_stays(drawings, tmp_path):
    """A limit on the size of files stands for the disk: for a run that goes on, and for one that begins."""
    small_run(drawings, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    sizes = {name: len(content) for name, content in before.items()}
    flags = arguments(drawings, tmp_path)
    flags[flags.index("--epochs") + 1] = "2"

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (min(sizes.values()) + 100_000,) * 2)

    command = [sys.executable, str(ROOT / "train.py"), *flags, "--batch-size", "8"]
    for more, output in ((["--resume"], "run"), ([], "other")):
        command[command.index("--output") + 1] = str(tmp_path / output)
        done = subprocess.run(
            [*command, *more],
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=limit,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 2, done.stderr
        assert done.stderr.count("\n") == 1
        assert "could not be written (File too large)" in done.stderr
        assert not list(tmp_path.rglob("*.part"))
    after = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    assert after == before  # but for TensorBoard's events
