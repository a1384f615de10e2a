"""Ray: a cluster or this machine's cores, and the pipeline on it. Nobody else imports it.

Nothing of it is told to anybody: no statistics of use, no dashboard.
"""

import contextlib
import functools
import importlib
import logging
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pyarrow as pa

from captioner.bulk.reading import read
from captioner.bulk.worker import Worker
from captioner.errors import ClusterError, OptionError
from captioner.options import ImageOptions

_SLIVER = 2**-8
"""Of a core. A worker on a CPU asks Ray for a core less a sliver, and a reading task for a sliver: however many workers
a node takes, some of it is left for reading, and no pipeline waits for ever. The system shares out the real cores."""

_WAITING = 2**27
"""Bytes of decoded pictures, some hundreds, that may wait for each four workers."""

_RETRIES = 3  # of a reading task, whose process died: its pictures may have killed it


@dataclass(frozen=True)
class Share:
    """What a run takes of a cluster."""

    device: str
    """cpu or cuda: where the workers compute."""
    workers: int
    """At most so many, each with a model."""
    worker: Mapping[str, float] = field(hash=False)
    """What Ray is asked for, for each of them."""
    readers: int
    """Reading tasks at once, at most."""
    reader: Mapping[str, float] = field(hash=False)
    """What Ray is asked for, for each of them."""


def share(resources: Mapping[str, float], device: str, most: int | None) -> Share:
    """What to take of a cluster with these resources, as Ray counts them: one worker a GPU, else one a core.

    Raises OptionError where there is no GPU and one is asked for, and for a device that is none of auto, cpu and cuda.
    """
    cores, gpus = math.floor(resources.get("CPU", 0)), math.floor(resources.get("GPU", 0))
    if device not in ("auto", "cpu", "cuda"):
        raise OptionError("device", f"is {device!r}", "choose auto, cpu or cuda: Ray says which GPU", field="device")
    if device == "cuda" and not gpus:
        raise OptionError("device", "is 'cuda', and the cluster has no GPU", "choose auto or cpu", field="device")
    if not cores:
        raise ClusterError("The cluster", "has no core to compute on", "start its nodes with --num-cpus")
    readers = {"num_cpus": _SLIVER}
    if gpus and device != "cpu":
        worker = {"num_gpus": 1.0, "num_cpus": _SLIVER}  # the cores are for reading
        return Share("cuda", min(gpus, most or gpus), worker, max(1, cores), readers)
    workers = min(cores, most or cores)
    return Share("cpu", workers, {"num_cpus": 1 - _SLIVER}, max(1, cores), readers)


@contextlib.contextmanager
def cluster(address: str | None) -> Iterator["Engine"]:
    """Ray, running: at an address (HOST:6379, or auto for the one that runs here), else on this machine's cores.

    Raises ClusterError where Ray is not installed or does not start.
    """
    ray = _imported()
    # Not a cluster that happens to run here, but what was asked for.
    how: dict[str, Any] = {"address": address}
    if address is None:
        store = 2 * _WAITING * _fours(os.cpu_count() or 1)
        how = {"address": "local", "object_store_memory": store, "include_dashboard": False}
    try:
        with _silent():
            ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **how)
    except Exception as error:  # ray raises plain ones, too
        where = "on this machine" if address is None else f"at {address}"
        said = " ".join(str(error).split())[:200]
        remedy = "look at its logs in /tmp/ray, or at its head node"
        raise ClusterError("Ray", f"could not be started {where} ({said})", remedy) from error
    try:
        yield Engine(ray)
    finally:
        ray.shutdown()


class Engine:
    """A running Ray."""

    def __init__(self, ray: ModuleType) -> None:
        self._ray = ray

    def share(self, device: str, most: int | None) -> Share:
        """`share` of what the cluster has now."""
        return share(self._ray.cluster_resources(), device, most)

    def keep(self, content: bytes) -> Any:
        """The content where every worker finds it."""
        return self._ray.put(content)

    def captioned(
        self, work: Sequence[pa.Table], share: Share, image: ImageOptions, worker: Mapping[str, Any]
    ) -> Iterator[pa.Table]:
        """Tables of WORK, a task each -> tables of DONE as they come, in any order.

        Each row comes once, whoever dies; what cannot be done in a few tries does not come at all. `worker` is what
        `Worker` is made from, its model as `keep` gave it. Raises ClusterError where the pipeline cannot go on.
        """
        data = importlib.import_module("ray.data")
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.max_errored_blocks = -1  # what is lost is done again by whoever misses it
        context.max_consecutive_actor_init_deaths = 3 * share.workers
        context.execution_options.preserve_order = False
        context.execution_options.resource_limits = context.execution_options.resource_limits.copy(
            object_store_memory=_WAITING * _fours(share.workers)
        )
        # A block is what a task hands on: of a shard, a hundred pictures after the other and not all of them.
        context.target_max_block_size = 100 * 3 * image.size**2
        with warnings.catch_warnings():  # max_retries is to have another name in Ray 2.64
            warnings.simplefilter("ignore")
            pictures = data.from_arrow(list(work)).map_batches(
                functools.partial(read, image=image),
                batch_size=None,
                batch_format="pyarrow",
                compute=data.TaskPoolStrategy(size=share.readers),
                max_retries=_RETRIES,
                **share.reader,
            )
        captions = pictures.map_batches(
            _Remote,
            fn_constructor_kwargs=dict(worker),
            batch_size=None,
            batch_format="pyarrow",
            # All of them at once; fewer where the cluster has no room, or nothing to do for them.
            compute=data.ActorPoolStrategy(
                min_size=1, max_size=share.workers, initial_size=share.workers, max_tasks_in_flight_per_actor=2
            ),
            **share.worker,
        )
        try:
            yield from captions.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        except (
            RuntimeError,
            self._ray.exceptions.RayError,
            data.exceptions.ExecutionTimeoutError,
            data.exceptions.RayDataUserCodeException,
            data.exceptions.SystemException,
        ) as error:
            said = " ".join(str(error).split())[-300:]
            remedy = "look at its logs in /tmp/ray, then give the same command again: it goes on with what is left"
            raise ClusterError("Ray", f"could not go on ({said})", remedy) from error


class _Remote(Worker):
    """A worker in a process of the cluster, which fetches its model there."""

    def __init__(self, model: Any, **others: Any) -> None:
        super().__init__(importlib.import_module("ray").get(model), **others)


def _fours(workers: int) -> int:
    return max(1, math.ceil(workers / 4))


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Standard error goes nowhere: of Ray's own libraries, which announce that they will be silent."""
    before = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def _imported() -> ModuleType:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its remarks, in C++, on standard error
    os.environ.setdefault("RAY_worker_niceness", "0")  # as `caption` runs; Ray's own workers wait for everybody else
    ray = importlib.import_module("ray")
    importlib.import_module("ray.data")
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return ray
