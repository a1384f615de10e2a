"""The promises of train.py: killed and resumed, offline, refusing wrong use."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from captioner.card import read_header
from captioner.checkpoint import BUNDLED_MODELS, load_model, load_resume

ROOT = Path(__file__).parents[2]
FLAGS = [
    *"--encoder-weights none --fine-tune all --epochs 3 --batch-size 4 --min-count 1 --workers 0".split(),
    *"--encoder resnet18 --encoder-stage layer1 --image-size 32 --hidden-size 16 --embedding-size 16".split(),
]


def command(data, output, *flags):
    return [sys.executable, str(ROOT / "train.py"), str(data), "--output", str(output), *FLAGS, *flags]


def run(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(*arguments, capture_output=True, text=True, check=False, timeout=300, env=environment)


def tensors(output):
    return load_file(output / "last.safetensors")


@pytest.fixture(scope="module")
def uninterrupted(drawings, tmp_path_factory):
    """Final tensors of a run that nobody disturbed."""
    output = tmp_path_factory.mktemp("runs") / "whole"
    done = run(command(drawings, output))
    assert done.returncode == 0, done.stderr
    assert f"python app.py --model {output / 'best.safetensors'}" in done.stdout
    return tensors(output)


def interrupt(process, output, number, moment):
    """Sends the signal once the run has saved itself `moment` (epochs, steps) or later."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if (output / "resume.pt").exists():
            progress = load_resume(output / "resume.pt")["progress"]
            if (progress["epoch"], progress["step"]) >= moment:
                process.send_signal(number)
                break
        time.sleep(0.005)
    return process.wait(timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_stopped_ends_as_if_it_never_had(drawings, tmp_path, uninterrupted, number):
    """Killed twice inside an epoch (or stopped by Ctrl-C) and resumed: the same final tensors, bit for bit."""
    output = tmp_path / "run"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for flags, moment in (([], (0, 3)), (["--resume"], (1, 4))):
        flags = [*flags, "--save-minutes", "0"]
        process = subprocess.Popen(
            command(drawings, output, *flags),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        status = interrupt(process, output, number, moment)
        said = process.communicate()[0]
        assert status == (-signal.SIGKILL if number == signal.SIGKILL else 130)
        if number == signal.SIGINT:
            assert "--resume" in said
    assert load_resume(output / "resume.pt")["progress"]["step"] > 0
    done = run(command(drawings, output, "--resume", "--save-minutes", "0"))
    assert done.returncode == 0, done.stderr
    final = tensors(output)
    assert final.keys() == uninterrupted.keys()
    assert all(torch.equal(tensor, uninterrupted[name]) for name, tensor in final.items())
    assert len((output / "log.jsonl").read_text().splitlines()) == 3


@pytest.mark.slow
def test_training_on_ones_own_folder_offline_with_the_bundled_encoder(drawings, tmp_path):
    """--encoder-weights bundled needs no network: the encoder comes out of the shipped model."""
    flags = (
        "--encoder-weights bundled --epochs 1 --min-count 1 --hidden-size 32 --embedding-size 32 --workers 0".split()
    )
    arguments = ["train.py", str(drawings), "--output", str(tmp_path / "run"), "--features", str(tmp_path / "features")]
    done = run([sys.executable, str(ROOT / arguments[0]), *arguments[1:], *flags])
    assert done.returncode == 0, done.stderr
    ours, theirs = (
        load_file(tmp_path / "run" / "best.safetensors"),
        load_model(BUNDLED_MODELS["fast"]).model.state_dict(),
    )
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items() if name.startswith("encoder."))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "There is nothing at nowhere"),
        (["shapes", "--encoder", "resnet19"], "resnet18"),
        (["shapes", "--cell", "transformer"], "rnn, lstm, gru"),
        (["shapes", "--resume", "--output", "nowhere"], "nothing to resume"),
        (["shapes", "--start-from", "nowhere"], "no model file nowhere"),
        (["shapes", "--preset", "flickr8k", "--start-from", "fast"], "--start-from does not go with --preset"),
        (["shapes", "--preset", "flickr8k", "--resume", "--output", "nowhere"], "no preset to resume"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_2(arguments, said, tmp_path, monkeypatch, capsys):
    """No traceback: what was wrong, and what would be right."""
    import train as door

    monkeypatch.chdir(tmp_path)
    assert door.main([*arguments] if "--output" in arguments else [*arguments, "--output", str(tmp_path / "run")]) == 2
    assert said in capsys.readouterr().err


def test_captions_that_scores_say_little_of_are_said_before_training(tmp_path, capsys):
    """Chinese without spaces, marks around sentences, a single validation picture: whatever comes of it afterwards."""
    import train as door

    rows = ["image,caption,split", "a.png,<start> 一只狗在草地上奔跑 <end>,train", "b.png,一只狗在草地上奔跑,val"]
    (tmp_path / "captions.csv").write_text("\n".join(rows), encoding="utf-8")
    assert door.main([str(tmp_path), "--output", str(tmp_path / "run"), "--features", str(tmp_path / "features")]) == 2
    said = capsys.readouterr().out
    assert "2 of 2 references are in a language without spaces" in said
    assert "1 of 2 references begin with <start>" in said
    assert "CIDEr-D of a single image is 0" in said


@pytest.mark.slow
def test_shapes_are_learnt(tmp_path):
    """`python train.py shapes` gets at least 95% of 500 held-out drawings exactly right."""
    output = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "shapes", "--output", str(output)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    header = read_header(output / "best.safetensors")
    assert header["provenance"]["val"]["images"] == 500
    assert header["provenance"]["val"]["exact"] >= 95
