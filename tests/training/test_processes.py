"""Several processes train what one does: the promises of captioner.training.processes, with two of them over gloo."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from captioner.checkpoint import load_model
from captioner.datasets import load_dataset
from captioner.datasets.sharding import write_shards
from captioner.errors import DataError, OptionError
from captioner.telling import SILENT
from captioner.training.processes import ALONE, Processes, joined

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SMALL = (
    *("--encoder", "resnet18", "--encoder-stage", "layer1", "--image-size", "32", "--hidden-size", "16"),
    *("--embedding-size", "16", "--heads", "2", "--dropout", "0", "--batch-size", "8", "--min-count", "1"),
    *("--workers", "0", "--precision", "float32", "--epochs", "1"),
)
ALONE_TOO = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TORCHELASTIC_ERROR_FILE": ""}


def train(*arguments, processes=2, check=True):
    """`train.py` with these arguments; all that it printed."""
    command = TORCHRUN if processes == 2 else [sys.executable]
    done = subprocess.run([*command, "train.py", *map(str, arguments)], env=ALONE_TOO, text=True, capture_output=True)
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done


def test_items_are_shared_and_gathered_in_order():
    """Alone all of them are one's own."""
    parts = [Processes(rank, 3).share(list(range(8))) for rank in range(3)]
    assert parts == [[0, 3, 6], [1, 4, 7], [2, 5]]
    assert ALONE.share([1, 2]) == ALONE.gather([1, 2]) == [1, 2]
    assert ALONE.any(True, False) == [True, False]


def test_alone_an_error_is_the_works_own():
    """Nothing is caught or wrapped."""

    def fail():
        raise DataError("no captions")

    with pytest.raises(DataError, match="no captions"):
        ALONE.together(fail)


def test_one_device_named_for_several_processes_is_refused(monkeypatch):
    """They would all compute on the same one."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionError, match="each of 2 processes"), joined("cuda:1"):
        pass


@pytest.fixture(scope="module")
def first(drawings, tmp_path_factory):
    """A model that other runs go on from, trained by one process."""
    output = tmp_path_factory.mktemp("first") / "run"
    train(drawings, *SMALL, "--encoder-weights", "none", "--fine-tune", "all", "--output", output, processes=1)
    return output / "best.safetensors"


CASES = {
    "a learning encoder": ("--fine-tune", "all", "--accumulate", "2"),
    "shards": ("--fine-tune", "all", "--workers", "2"),
    "cached features": ("--batch-size", "34"),
    "taught": ("--teachers", "first"),
    "self-critical": ("--objective", "self-critical", "--samples", "3", "--max-length", "12"),
    "right to left": ("--direction", "right-to-left"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_end_with_the_weights_of_one(drawings, first, tmp_path, case):
    """After an epoch whose last batch is odd, under each objective: weights, losses and scores to float tolerance."""
    given = [str(first) if word == "first" else word for word in CASES[case]]
    common = ["--start-from", first, "--batch-size", "12", "--epochs", "1", "--dropout", "0", "--workers", "0"]
    common += ["--precision", "float32", "--clip-norm", "1", *given]
    odd = tmp_path / "odd"  # of 35 training pictures a step of 34 leaves one, for one of two processes
    shutil.copytree(drawings, odd)
    (odd / "captions.csv").write_text("".join((drawings / "captions.csv").read_text().splitlines(True)[:-1]))
    (odd / "39.png").unlink()
    if case == "shards":
        write_shards(load_dataset(odd), tmp_path / "shards", size=4000, telling=SILENT)
        odd = tmp_path / "shards"
    found = []
    for processes in (1, 2):
        output = tmp_path / str(processes)
        told = train(
            odd, *common, "--output", output, "--features", tmp_path / f"f{processes}", processes=processes
        ).stdout
        assert told.count("epoch 1/1") == 1  # one process speaks
        entry = json.loads((output / "log.jsonl").read_text())
        entry.pop("seconds")
        found.append((load_model(output / "last.safetensors").model.state_dict(), entry))
    (alone, one), (together, two) = found
    assert (two.pop("val"), two.pop("samples")) == (one.pop("val"), one.pop("samples"))
    assert two == pytest.approx(one, rel=1e-3)
    for name, weight in alone.items():
        torch.testing.assert_close(together[name], weight, rtol=1e-3, atol=1e-5)
    start = load_model(first).model.state_dict()
    # A right-to-left decoder begins as the other one.
    start |= {f"reverse.{name[8:]}": weight for name, weight in start.items() if name.startswith("decoder.")}
    assert any(not torch.equal(weight, start[name]) for name, weight in alone.items())
    assert not list((tmp_path / "f2").glob("*.part"))


@pytest.mark.slow
def test_an_uneven_batch_and_a_missing_picture_are_one_sentence(drawings, tmp_path):
    """Said once, by the process that leads, before anything is trained."""
    done = train(drawings, *SMALL, "--batch-size", "7", "--encoder-weights", "none", "--fine-tune", "all", check=False)
    assert done.returncode
    assert done.stderr.count("--batch-size is 7, and 2 processes") == 1
    bad = tmp_path / "bad"
    shutil.copytree(drawings, bad)
    (bad / "3.png").unlink()
    done = train(bad, *SMALL, "--encoder-weights", "none", "--fine-tune", "all", check=False)
    assert done.returncode
    assert done.stderr.count("3.png") == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_of_two_processes_is_stopped_and_goes_on(drawings, tmp_path, number):
    """Ctrl-C saves and ends both; a process that is killed ends the other; either way one process can go on."""
    output = tmp_path / "run"
    given = [str(drawings), *SMALL, "--encoder-weights", "none", "--fine-tune", "all", "--output", str(output)]
    given += ["--epochs", "40", "--save-minutes", "0"]
    command = [*TORCHRUN, "train.py", *given]
    with subprocess.Popen(command, env=ALONE_TOO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        try:
            wait_for(lambda: (output / "log.jsonl").exists())
            if number == signal.SIGKILL:
                os.kill(children(run.pid)[-1], number)
            else:
                run.send_signal(number)
            told, _ = run.communicate(timeout=120)
        finally:
            run.kill()
    assert run.returncode
    if number == signal.SIGINT:
        assert "Stopped and saved" in told
    epochs = len((output / "log.jsonl").read_text().splitlines())
    with subprocess.Popen([sys.executable, "train.py", *given, "--resume"], env=ALONE_TOO) as run:
        try:
            wait_for(lambda: len((output / "log.jsonl").read_text().splitlines()) > epochs + 1)
            run.send_signal(signal.SIGINT)
            assert run.wait(timeout=120) == 130
        finally:
            run.kill()


LASTING = (
    "--encoder-weights",
    "none",
    "--fine-tune",
    "all",
    "--epochs",
    "4",
    "--dropout",
    "0.3",
    "--save-minutes",
    "0",
)


@pytest.fixture(scope="module")
def undisturbed(drawings, tmp_path_factory):
    """The final tensors of a run of two processes, with dropout."""
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    train(drawings, *SMALL, *LASTING, "--output", output)
    return load_file(output / "last.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_two_processes_that_go_on_end_bit_for_bit_as_if_undisturbed(drawings, tmp_path, undisturbed, number):
    """Stopped in an epoch and resumed by two; or one killed, and both started again by torchrun, with no word from us."""
    output = tmp_path / "run"
    command = [*TORCHRUN, *(["--max-restarts", "1"] if number == signal.SIGKILL else []), "train.py"]
    given = [str(drawings), *SMALL, *LASTING, "--output", str(output)]
    with subprocess.Popen(
        [*command, *given], env=ALONE_TOO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        try:
            wait_for(lambda: (output / "log.jsonl").exists())
            if number == signal.SIGKILL:
                os.kill(children(run.pid)[-1], number)
            else:
                run.send_signal(number)
            told, _ = run.communicate(timeout=300)
        finally:
            run.kill()
    if number == signal.SIGINT:
        assert 1 <= len((output / "log.jsonl").read_text().splitlines()) < 4
        told = train(*given, "--resume").stdout
    assert told.count("Going on in") == 1, told
    assert len((output / "log.jsonl").read_text().splitlines()) == 4
    after = load_file(output / "last.safetensors")
    assert all(torch.equal(tensor, after[name]) for name, tensor in undisturbed.items())


def wait_for(happened, seconds=300):
    """Until it has, or the test fails."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.2)


def children(pid):
    """The processes that a process started, in the order of their start."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], text=True, capture_output=True, check=True)
    return sorted(map(int, found.stdout.split()))
