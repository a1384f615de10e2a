"""The processes that train one model together, as `torchrun` starts them; alone there is one, and nothing is sent.

Each has a device of its own (NCCL between GPUs, gloo between CPUs), sees its share of every batch, and holds the same
weights. The first one leads: it alone writes files and says anything.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain, zip_longest
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from captioner.errors import CaptionerError, OptionError, TrainingError

Item = TypeVar("Item")
Result = TypeVar("Result")

_PATIENCE = timedelta(hours=3)
"""The others wait for the leader, which may choose a search for minutes. One that dies is noticed at once all the same:
its connections end, and torchrun ends the rest."""

_NOTHING = object()


@dataclass(frozen=True)
class Processes:
    """One of the processes of a run: which one, of how many."""

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """Its part: every `count`th item."""
        return list(items[self.rank :: self.count])

    def check_shares(self, batch_size: int, accumulate: int) -> None:
        """Raises OptionError where the pictures of a step cannot be shared out evenly, in so many parts each."""
        if batch_size % (parts := self.count * accumulate):
            raise OptionError(
                f"--batch-size is {batch_size}, and {self.count} processes with --accumulate {accumulate} make {parts} "
                f"equal parts of it: choose a multiple of {parts}. It is the whole step's, whatever their number."
            )

    def gather(self, mine: Sequence[Item]) -> list[Item]:
        """The items of all processes, in the order that `share` took them from."""
        if self.count == 1:
            return list(mine)
        parts: list[Any] = [None] * self.count
        distributed.all_gather_object(parts, list(mine))
        rows = zip_longest(*parts, fillvalue=_NOTHING)
        return [item for item in chain.from_iterable(rows) if item is not _NOTHING]

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the processes of a tensor that each of them has, on its device."""
        if self.count == 1:
            return values
        values = values.clone()
        distributed.all_reduce(values)
        return values

    def any(self, *asked: bool) -> list[bool]:
        """For each question, whether any process says yes."""
        if self.count == 1:
            return list(asked)
        flags = torch.tensor([int(answer) for answer in asked], dtype=torch.int64)
        return [bool(flag) for flag in self.sum(flags).tolist()]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            self.sum(torch.zeros(1))

    def together(self, work: Callable[[], Result]) -> Result:
        """What `work` gives here; where it fails in any process the leader raises its error, and the others exit."""
        if self.count == 1:
            return work()
        result: Result | None = None
        error: CaptionerError | None = None
        try:
            result = work()
        except CaptionerError as found:
            error = found
        errors = [found for found in self.gather([error]) if found is not None]
        if errors and self.leads:
            raise errors[0]
        if errors:
            raise SystemExit(2)
        return result  # type: ignore[return-value]  # there was no error

    def parallel(self, learner: nn.Module) -> nn.Module:
        """The same learner; with others, one that adds up their gradients (`take_step` makes them the batch's)."""
        return learner if self.count == 1 else DistributedDataParallel(learner)


ALONE = Processes()


@contextlib.contextmanager
def joined(device: str) -> Iterator[tuple[Processes, str]]:
    """The processes that `torchrun` started with this one, and the name of this one's device among them.

    Raises OptionError where there are more processes than GPUs on a machine, or one GPU is named for all of them, and
    TrainingError where another process is lost on the way.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE, device
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    gpus = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    if device not in ("auto", "cuda", "cpu"):
        raise OptionError(f"--device is {device}, but each of {count} processes needs one of its own: leave it out.")
    if gpus and local >= gpus:
        raise OptionError(f"There are {gpus} GPUs here for more processes: start torchrun --nproc-per-node {gpus}.")
    if gpus:
        torch.cuda.set_device(local)
    # Both: what is said about pictures and files goes from CPU to CPU, gradients between GPUs.
    where: dict[str, Any] = {"timeout": _PATIENCE}
    if restarted() and os.environ.get("LOCAL_WORLD_SIZE") == str(count):
        # torchrun's store still holds the addresses of those that died. Of several machines not all count the restarts.
        store, rank, _ = next(distributed.rendezvous("env://", timeout=_PATIENCE))  # type: ignore[attr-defined]
        again = distributed.PrefixStore(f"restart {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)  # type: ignore[attr-defined]
        where |= {"store": again, "rank": rank, "world_size": count}
    distributed.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", **where)
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size()), f"cuda:{local}" if gpus else "cpu"
    except RuntimeError as error:
        if not _is_lost(error):
            raise
        raise TrainingError(
            f"Another process of this run ended ({str(error).splitlines()[0]}): what was saved is kept; the same "
            "command with --resume goes on."
        ) from error
    finally:
        with contextlib.suppress(RuntimeError):
            distributed.destroy_process_group()


def restarted() -> bool:
    """Whether torchrun started this process in the place of one that died (`--max-restarts`)."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def _is_lost(error: RuntimeError) -> bool:
    """Whether it is about another process; gloo has no class of its own for that."""
    said = str(error)
    return isinstance(error, distributed.DistBackendError) or "gloo" in said or "Connection" in said
