"""Which library computes: torch, or ONNX Runtime where torch is not installed or not wanted."""

import importlib.util

from captioner.errors import OptionError
from captioner.options import BACKENDS, PRECISIONS

_PACKAGES = {"torch": ("torch", "torchvision"), "onnx": ("onnxruntime",)}

INSTALL = "pip install 'captioner[onnx]' (small, captions only) or pip install 'captioner[torch]' (trains, too)"


def pick_backend(name: str = "auto") -> str:
    """ "torch" or "onnx": the one of that name; for "auto" torch where it is installed, else ONNX Runtime.

    Raises OptionError for any other name, and where what it needs is not installed.
    """
    if name not in BACKENDS:
        raise OptionError("backend", f"is {name!r}", f"choose {', '.join(BACKENDS)}", field="backend")
    for backend in _PACKAGES if name == "auto" else (name,):
        if all(map(importlib.util.find_spec, _PACKAGES[backend])):
            return backend
    lacking = "neither torch nor ONNX Runtime is" if name == "auto" else f"{' and '.join(_PACKAGES[name])} must be"
    raise OptionError("backend", f"is {name!r}, for which {lacking} installed", INSTALL, field="backend")


def check_onnx(device: str, precision: str) -> None:
    """Raises OptionError for a device or a precision that ONNX Runtime is not given here."""
    if device not in ("auto", "cpu"):
        raise OptionError(
            "device", f"is {device!r}, and the ONNX backend runs on the CPU", "choose cpu", field="device"
        )
    if precision not in PRECISIONS:
        raise OptionError("precision", f"is {precision!r}", f"choose {', '.join(PRECISIONS)}", field="precision")
    if precision not in ("auto", "float32"):
        reason = f"is {precision!r}, and the ONNX backend computes in float32"
        raise OptionError("precision", reason, "choose float32", field="precision")
