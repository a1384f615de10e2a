"""The tensors of a model file, held against what its header promises before memory is given to any of them.

A few kilobytes can claim a network of gigabytes. So the network is built without numbers first (torch's meta device),
and name, kind and shape of every tensor in the file are compared with it; only then are they read, one by one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from captioner.model import CaptionModel, ModelOptions

SCALE = ":scale"
"""Behind the name of a tensor of integers: the name of its rows' scales."""

_FLOATS = ("F32", "F16", "BF16")

_DRAWN = (
    *(Tensor.normal_, Tensor.uniform_),
    *(nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_, nn.init.trunc_normal_),
)
"""What draws the first weights. Where there are no numbers torch would load its compiler for it, which takes 1.5 s."""


def tied(options: ModelOptions) -> dict[str, str]:
    """The output layers that are the same tensor as an embedding, which alone is stored: its name by theirs."""
    if not options.decoder.tied:
        return {}
    decoders = ("decoder", "reverse") if options.reverse else ("decoder",)
    return {f"{decoder}.output.weight": f"{decoder}.embedding.weight" for decoder in decoders}


def load_network(path: Path, options: ModelOptions) -> CaptionModel:
    """The network of a file whose header gave `options`, in float32, on the CPU.

    Raises ValueError where a tensor is missing, too many, of another kind or shape than the options imply, or holds
    what is no finite number; and what the options and safetensors raise.
    """
    with _Numberless():
        model = CaptionModel(options)
    same = tied(options)
    expected = {name: tensor for name, tensor in model.state_dict().items() if name not in same}
    with safe_open(path, "pt") as file:
        _check(file, expected)
        state = {name: _read(file, name, tensor) for name, tensor in expected.items()}
    state |= {output: state[embedding] for output, embedding in same.items()}
    model.load_state_dict(state, assign=True)
    for output in same:
        decoder = model.get_submodule(output.partition(".")[0])
        decoder.output.weight = decoder.embedding.weight  # type: ignore[union-attr]
    model.encoder.trunk.to(memory_format=torch.channels_last)
    return model


class _Numberless(TorchFunctionMode):
    """What layers are made of has a shape alone; torch.device("meta") would do it to RegNet's arithmetic too."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (torch.empty, torch.zeros, torch.ones) and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        if func in _DRAWN:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _check(file: Any, expected: dict[str, Tensor]) -> None:
    """Compares what the file says of its tensors with those of the network; reads none of them."""
    found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    kinds = {name: part.get_dtype() for name, part in found.items()}
    scales = {name + SCALE for name, tensor in expected.items() if tensor.ndim > 1 and kinds.get(name) == "I8"}
    for name in sorted({*expected, *scales} - found.keys()):
        raise ValueError(f"it lacks the tensor {name}")
    for name in sorted(found.keys() - {*expected, *scales}):
        raise ValueError(f"it holds {ascii(name)[:100]}, which its options do not imply")
    for name, tensor in expected.items():
        shape = found[name].get_shape()
        if shape != list(tensor.shape):
            raise ValueError(f"{name} has the shape {shape}, its options imply {list(tensor.shape)}")
        if kinds[name] not in (_FLOATS if tensor.is_floating_point() else ("I64",)) and name + SCALE not in scales:
            raise ValueError(f"{name} holds numbers of the kind {kinds[name]}")
        if name + SCALE in scales:
            scale = found[name + SCALE]
            if scale.get_shape() != [shape[0]] or scale.get_dtype() not in _FLOATS:
                raise ValueError(f"{name + SCALE} has the shape {scale.get_shape()}: a number for each row is needed")


def _read(file: Any, name: str, expected: Tensor) -> Tensor:
    """A tensor as the network wants it: a copy, since the file's own memory changes when the file does."""
    tensor: Tensor = file.get_tensor(name)
    if tensor.dtype == torch.int8 and expected.is_floating_point():
        scale = file.get_tensor(name + SCALE).float()
        tensor = tensor.float() * scale.view(-1, *[1] * (tensor.ndim - 1))
    else:
        tensor = tensor.to(expected.dtype, copy=True)
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name} holds what is no finite number")
    return tensor
