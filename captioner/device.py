"""Where the arithmetic runs, and in which precision it runs fastest there."""

import contextlib
import ctypes
from contextlib import AbstractContextManager

import torch

from captioner.errors import OptionError
from captioner.options import PRECISIONS


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" takes a CUDA GPU, else Apple's, else the CPU.

    Raises OptionError for a name torch does not know and for a device that is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = f"is {name!r}, which is not there, or this torch was built without it"
        raise OptionError("device", reason, "choose auto or cpu", field="device") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise OptionError("device", f"is {name!r}", "choose auto, cpu, cuda, cuda:N or mps", field="device")
    return device


def prepare(name: str = "auto") -> torch.device:
    """`pick_device`, and where that is the CPU the whole process keeps the memory that it frees for the next batch.

    Best before there are threads with memory of their own.
    """
    device = pick_device(name)
    if device.type == "cpu":
        _keep_memory()
    return device


def _keep_memory() -> None:
    """Lets this process, whole, keep what it has freed for the next batch, unless it could give back two gigabytes.

    The GNU C library gives large blocks back to the system at once, and the system hands out new ones page by page,
    filled with zeros: a third of the time of encoding pictures on a CPU (measured: docs/performance.md). Threads share
    one pool of memory then, since theirs hold no large blocks. Where there is another C library nothing happens.
    """
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8  # malloc.h
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        # Older versions refuse more than 32 MB, and one that is set at all no longer adapts by itself.
        if mallopt(mmap_threshold, 2**31 - 1) or mallopt(mmap_threshold, 2**25):
            mallopt(trim_threshold, 2**31 - 1)
            mallopt(arena_max, 1)


def pick_precision(precision: str, device: torch.device) -> str:
    """The precision to compute in; for "auto", bfloat16 where the hardware multiplies in it, float16 on other GPUs.

    Raises OptionError for any other name.
    """
    if precision not in PRECISIONS:
        remedy = f"choose {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}"
        raise OptionError("precision", f"is {precision!r}", remedy, field="precision")
    if precision != "auto":
        return precision
    fast = False
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        fast = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return "bfloat16" if fast else "float32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context in which matrix products run in `precision`: "float32", "bfloat16" or "float16"."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.float16 if precision == "float16" else torch.bfloat16)
