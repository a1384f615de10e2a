"""The promises of captioner.device."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from captioner import Captioner
from captioner.device import autocast, pick_device, pick_precision
from captioner.errors import OptionError

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(sys.platform != "linux", reason="prepare does more something with the GNU C library alone")
@pytest.mark.parametrize("thread", [False, True])
def test_freed_memory_is_kept_for_the_next_batch(thread):
    """In any thread: 100 MB that were freed are there still, and are given back where nobody asked for that."""
    script = (
        "import sys, threading, torch\n"
        "from captioner.device import prepare\n"
        "def resident():\n"
        "    return next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmRSS')) / 1024\n"
        "def work():\n"
        "    before = resident()\n"
        "    torch.ones(25 * 2**20).sum()\n"
        "    print(resident() - before > 90)\n"
        "if sys.argv[1] == 'keep': prepare('cpu')\n"
        "if sys.argv[2] == 'True':\n"
        "    worker = threading.Thread(target=work)\n"
        "    worker.start()\n"
        "    worker.join()\n"
        "else: work()\n"
    )
    for how, kept in (("keep", "True\n"), ("plain", "False\n")):
        command = [sys.executable, "-c", script, how, str(thread)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        assert done.stdout == kept


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_captioner_computes_in_what_was_asked_for(model, precision):
    """Encoder and decoders; the picture's probabilities are near those of float32 all the same."""
    captioner = Captioner.load(model, "cpu", precision=precision)
    assert captioner.precision == precision
    network = captioner.network
    parts = (network.vision.encoder, network.decoder)
    assert {tensor.dtype for part in parts for tensor in part.parameters()} == {getattr(torch, precision)}
    picture = torch.randint(0, 256, (50, 60, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).numpy()
    expected = Captioner.load(model, "cpu", precision="float32")(picture)
    assert captioner(picture).log_probability == pytest.approx(expected.log_probability, rel=0.05)


def test_auto_takes_what_the_processor_multiplies_in(model):
    """As training does."""
    chosen = pick_precision("auto", torch.device("cpu"))
    assert Captioner.load(model, "cpu").precision == chosen


def test_auto_takes_what_is_there():
    """A GPU where there is one, the CPU where there is none."""
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert pick_device("auto").type == expected
    assert pick_device("cpu").type == "cpu"


def test_a_chosen_precision_is_kept_and_auto_decides():
    """What the user says goes; "auto" answers with one of the two."""
    cpu = torch.device("cpu")
    assert pick_precision("float32", cpu) == "float32"
    assert pick_precision("bfloat16", cpu) == "bfloat16"
    assert pick_precision("auto", cpu) in ("float32", "bfloat16")
    assert pick_precision("auto", torch.device("mps")) == "float32"
    with pytest.raises(OptionError, match="float64"):
        pick_precision("float64", cpu)


def test_a_gpu_without_bfloat16_takes_float16(monkeypatch):
    """T4 and V100, which people get for free, multiply in float16 alone."""
    gpu = torch.device("cuda")
    for has, expected in ((True, "bfloat16"), (False, "float16")):
        monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation, has=has: has)
        assert pick_precision("auto", gpu) == expected


@pytest.mark.parametrize(
    ("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)]
)
def test_products_run_in_the_precision(precision, dtype):
    """Inside the context a matrix product has that type."""
    with autocast(precision, torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
