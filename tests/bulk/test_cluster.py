"""On a real Ray: one core and two, a worker killed, the driver killed, a node gone. The command runs as a user runs it."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.bulk.conftest import picture, write_tar
from tests.bulk.local import rows

ROOT = Path(__file__).parents[2]
PATIENCE = 900  # seconds; Ray alone takes a minute to start on a busy machine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # Ray's own
]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """3,000 small pictures, two that are none, and a shard of 40."""
    folder = tmp_path_factory.mktemp("many")
    pictures = [picture(number) for number in range(20)]
    for number in range(3000):
        (folder / f"{number:04}.jpg").write_bytes(pictures[number % 20])
    for name in ("bad.jpg", "worse.png"):
        (folder / name).write_bytes(b"no photo")
    write_tar(folder / "shard.tar", range(40))
    return folder


def everything(many):
    files = [path for path in many.iterdir() if path.suffix != ".tar"]
    return Counter(map(str, files)) + Counter(f"{many}/shard.tar/{number:04}.jpg" for number in range(40))


@contextlib.contextmanager
def nodes(*cores):
    """A cluster of its own on this machine, a node for each number of cores; its address."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patched:
        for name in ("RAY_USAGE_STATS_ENABLED", "RAY_worker_niceness"):  # as a cluster of our own has them
            patched.setenv(name, "0")
        cluster = Cluster()
        try:
            yield cluster, [cluster.add_node(num_cpus=count, object_store_memory=2**28, **ports()) for count in cores]
        finally:
            cluster.shutdown()


def ports():
    """Free ones for a node's agents: without, it gives up where they take half a minute to choose theirs."""
    names = ("metrics_agent_port", "dashboard_agent_listen_port", "runtime_env_agent_port", "metrics_export_port")
    with contextlib.ExitStack() as opened:
        listening = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in names]
        return {name: one.getsockname()[1] for name, one in zip(names, listening, strict=True)}


def begin(many, output, model, *others):
    """The command, under way, in a process group of its own."""
    command = [
        sys.executable,
        "-m",
        "captioner",
        "bulk",
        many,
        many / "shard.tar",
        "--output",
        output,
        "--model",
        model,
    ]
    command = [*map(str, command), "--device", "cpu", *map(str, others)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process):
    """Status, standard output and standard error of a command; it must end by itself."""
    with process:
        try:
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    return process.returncode, out, err


def wait_for(happened, process):
    """Until something has happened while the command runs."""
    until = time.monotonic() + PATIENCE
    while not (found := happened()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.1)
    return found


def workers():
    """Ray's processes that caption, of all clusters here: their models are loaded."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            title = (process / "cmdline").read_bytes()
            if b"ray::MapWorker" in title and b"__init__" not in title:
                found.append(int(process.name))
    return found


def check_complete(many, output):
    assert Counter(row["path"] for row in rows(output)) == everything(many)
    assert sum(row["error"] is not None for row in rows(output)) == 2


@pytest.mark.parametrize("cores", [1, 2])
def test_all_cores_may_caption_and_reading_goes_on(many, talkative, tmp_path, cores):
    """As many workers as cores: nothing waits for ever. Each photo has a row; the summary counts them; status 1 for the bad ones."""
    with nodes(cores) as (cluster, _):
        status, out, err = ended(begin(many, tmp_path / "out", talkative, "--address", cluster.address))
        assert (status, out) == (1, ""), err
        check_complete(many, tmp_path / "out")
        assert re.search(r"3,042 photos, 2 of them failed, \d+\.\d a second\.$", err.splitlines()[-1])
        assert "Traceback" not in err
        status, _, err = ended(begin(many, tmp_path / "out", talkative, "--address", cluster.address))
        assert status == 0
        assert "3,042 had theirs already" in err


def test_a_killed_worker_costs_nothing(many, talkative, tmp_path):
    """Its pictures are captioned by another process, once."""
    with nodes(2) as (cluster, _):
        process = begin(many, tmp_path / "out", talkative, "--address", cluster.address)
        for worker in wait_for(workers, process):
            os.kill(worker, signal.SIGKILL)
        status, _, err = ended(process)
        assert status == 1, err
        check_complete(many, tmp_path / "out")


def test_a_lost_node_costs_nothing(many, talkative, tmp_path):
    """One of two goes in the middle; the other one does the rest."""
    with nodes(1, 1) as (cluster, (_, other)):
        process = begin(many, tmp_path / "out", talkative, "--address", cluster.address)
        wait_for(workers, process)
        cluster.remove_node(other, allow_graceful=False)
        status, _, err = ended(process)
        assert status == 1, err
        check_complete(many, tmp_path / "out")


def test_a_killed_driver_goes_on(many, talkative, tmp_path, monkeypatch):
    """SIGKILL in the middle, with a Ray of its own, which goes with it; then Ctrl-C; then it ends. Each photo has one row."""
    for sent in (signal.SIGKILL, signal.SIGINT):
        process = begin(many, tmp_path / "out", talkative)
        wait_for(workers, process)
        time.sleep(2)
        process.send_signal(sent)
        status, _, err = ended(process)
        assert status == (-signal.SIGKILL if sent == signal.SIGKILL else 130), err
        until = time.monotonic() + 60
        while workers():  # the system takes a moment
            assert time.monotonic() < until
            time.sleep(0.5)
    status, _, err = ended(begin(many, tmp_path / "out", talkative))
    assert status == 1, err
    check_complete(many, tmp_path / "out")
