"""What is taken of a cluster: always something is left for reading."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner import cli
from captioner.bulk import engine
from captioner.errors import CaptionerError


@given(cores=st.lists(st.integers(1, 200), min_size=1, max_size=8), most=st.none() | st.integers(1, 2000))
def test_workers_leave_room_for_reading(cores, most):
    """On a node of any size, however the workers are spread: as many as fit still leave a reading task its sliver.

    Ray counts in ten-thousandths of a core.
    """
    found = engine.share({"CPU": float(sum(cores))}, "auto", most)
    worker, reader = (round(10_000 * one["num_cpus"]) for one in (found.worker, found.reader))
    assert 1 <= found.workers <= sum(cores)
    assert found.readers >= 1
    for node in cores:
        assert 10_000 * node - 10_000 * node // worker * worker >= reader
        assert node * worker <= 10_000 * node  # and yet one fits each core


def test_gpus():
    """A worker each; the cores are for reading. --device cpu leaves them alone, --workers takes fewer."""
    gpus = {"CPU": 16.0, "GPU": 4.0}
    found = engine.share(gpus, "auto", None)
    assert (found.device, found.workers, found.worker["num_gpus"], found.readers) == ("cuda", 4, 1.0, 16)
    assert engine.share(gpus, "cuda", 2).workers == 2
    assert engine.share(gpus, "cpu", None).workers == 16
    assert "num_gpus" not in engine.share(gpus, "cpu", None).worker


@pytest.mark.parametrize(
    ("resources", "device", "said"),
    [
        ({"CPU": 2.0}, "cuda", "no GPU"),
        ({"CPU": 2.0}, "mps", "'mps'"),
        ({}, "auto", "no core"),
        ({"CPU": 0.5}, "cpu", "no core"),
    ],
)
def test_what_cannot_be(resources, device, said):
    """One sentence."""
    with pytest.raises(CaptionerError, match=said):
        engine.share(resources, device, None)


@pytest.mark.parametrize("package", ["ray", "pyarrow", "fsspec"])
def test_without_ray(package, model, photos, tmp_path, monkeypatch, capsys):
    """One sentence that says what to install, and status 2."""
    monkeypatch.setitem(sys.modules, package, None)
    assert cli.main(["bulk", str(photos), "--output", str(tmp_path / "out"), "--model", model]) == 2
    said = capsys.readouterr().err
    assert "pip install -r requirements-cluster.txt" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("option", ["--limit", "--workers"])
def test_numbers_below_one(option, photos, tmp_path, capsys):
    """Wrong use."""
    assert cli.main(["bulk", str(photos), "--output", str(tmp_path / "out"), option, "0"]) == 2
    assert f"{option} is 0" in capsys.readouterr().err
