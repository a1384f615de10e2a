"""Which library computes: torch, or ONNX Runtime where torch is not installed or not wanted."""

import importlib.util

from captioner.errors import OptionError
from captioner.options import BACKENDS, PRECISIONS

_PACKAGES = {"torch": ("torch", "torchvision"), "onnx": ("onnxruntime",)}

_EXTRAS = {
    "torch": "torch",
    "torchvision": "torch",
    "onnxruntime": "onnx",
    "gradio": "web",
    "fastapi": "web",
    "fastapi_offline": "web",
    "starlette": "web",
    "uvicorn": "web",
    "av": "video",
}
"""Packages that not everybody has, and the extra that brings them."""

INSTALL = "pip install 'captioner[onnx]' (small, captions only) or pip install 'captioner[torch]' (trains, too)"


def pick_backend(name: str = "auto") -> str:
    """The backend of that name, "torch" or "onnx"; for "auto" torch where it is installed, else ONNX Runtime.

    Raises OptionError for any other name, and where what it needs is not installed.
    """
    if name not in BACKENDS:
        raise OptionError("backend", f"is {name!r}", f"choose {', '.join(BACKENDS)}", field="backend")
    for backend in _PACKAGES if name == "auto" else (name,):
        if all(map(importlib.util.find_spec, _PACKAGES[backend])):
            return backend
    lacking = "neither torch nor ONNX Runtime is" if name == "auto" else f"{' and '.join(_PACKAGES[name])} must be"
    raise OptionError("backend", f"is {name!r}, for which {lacking} installed", INSTALL, field="backend")


def lacking(error: ImportError) -> OptionError | None:
    """What to tell a user for whom a package could not be imported; None where it is none of an extra."""
    name = (error.name or "").partition(".")[0]
    if name not in _EXTRAS:
        return None
    return OptionError(f"This needs {name}, which is not installed: pip install 'captioner[{_EXTRAS[name]}]'.")


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
