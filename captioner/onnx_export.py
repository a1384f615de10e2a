"""A model as ONNX graphs, by torch's own exporter: the encoder, what is read from its features, and one step.

A graph holds no weights. Its initializers are the tensors of the model file, named by their places in it, and rounded
ones (8 bits and a scale a row) become floats in the graph; ONNX Runtime does that once, as it loads. For the same
reason the graphs keep the batch norms that `Encoder.fuse` would fold, and ONNX Runtime folds them.

Whoever exports needs onnx and onnxscript; whoever captions needs ONNX Runtime alone.
"""

import hashlib
import importlib.util
import json
import os
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captioner.card import read_header
from captioner.checkpoint import load_model, save_model
from captioner.decoder import Decoder, Memory
from captioner.errors import ModelFileError, OptionError
from captioner.files import write_atomically
from captioner.model import CaptionModel
from captioner.onnx_files import PARTS, REVERSE, card_path, graph_path, names_of
from captioner.tensors import SCALE, tied
from captioner.vision import Vision

_SMALL = 2**14
"""Bytes up to which what is constant is computed beforehand. The weights never are: they would be copied."""


class _Encode(nn.Module):
    def __init__(self, model: CaptionModel) -> None:
        super().__init__()
        self.encoder, self.image = model.encoder, model.options.image

    def forward(self, pixels: Tensor) -> Tensor:
        return Vision(self.image, self.encoder).encode(pixels)


class _Part(nn.Module):
    """A part of a decoder, which keeps its name among the model's tensors."""

    def __init__(self, name: str, decoder: Decoder) -> None:
        super().__init__()
        self.add_module(name, decoder)
        self.name = name

    @property
    def part(self) -> Decoder:
        found = self.get_submodule(self.name)
        assert isinstance(found, Decoder)
        return found


class _Read(_Part):
    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        memory = self.part.read(features)
        looks = () if memory.keys is None or memory.values is None else (memory.keys, memory.values)
        return *memory.start, *looks


class _Step(_Part):
    def forward(self, tokens: Tensor, *before: Tensor) -> tuple[Tensor, ...]:
        state, looks = before[: self.part.states], before[self.part.states :]
        memory = Memory((), *looks) if looks else Memory((), None, None)
        logits, after, attention = self.part.step_and_look(tokens, state, memory)
        return logits, *after, *(() if attention is None else (attention,))


def export_onnx(path: Path, folder: Path) -> list[Path]:
    """Writes a model's graphs, a copy of its file with 8-bit weights, and its JSON card; answers with their paths.

    Where `folder` is the model file's own, that file is used as it is. Raises ModelFileError as `load_model` does,
    OptionError where the exporter's packages are missing, and WritingError.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise OptionError(f"--onnx needs {' and '.join(missing)}: pip install onnx onnxscript.")
    file = load_model(path)
    model, weights = file.model, folder / f"{path.stem}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    card_path(weights).unlink(missing_ok=True)  # half an export is none
    if not (weights.exists() and weights.samefile(path)):
        save_model(weights, file, small=True)
    stored = _Stored(weights, tied(model.options))
    pictures = torch.zeros(2, 3, model.options.image.size, model.options.image.size, dtype=torch.uint8)
    batch, beam = torch.export.Dim("batch", max=4096), torch.export.Dim("beam", max=4096)
    written = [graph_path(weights, PARTS[0])]
    _write(_Encode(model), (pictures,), [{0: batch}], ["pixels"], ["features"], stored, written[0])
    names = names_of(model.options.decoder)
    rows, columns = model.encoder.grid
    for name, decoder, parts in (("decoder", model.decoder, PARTS[1:]), ("reverse", model.reverse, REVERSE)):
        if decoder is None:
            continue
        read, step = (graph_path(weights, part) for part in parts)
        features = torch.zeros(2, rows * columns, model.encoder.channels)
        _write(
            _Read(name, decoder), (features,), [{0: batch}], ["features"], [*names.state, *names.memory], stored, read
        )
        memory = decoder.read(features)
        state = [part.detach().expand(-1, 3, -1, -1).contiguous() for part in memory.start]
        looks = [part.detach() for part in memory[1:] if part is not None]
        _write(
            _Step(name, decoder),
            (torch.zeros(2, 3, dtype=torch.int64), *state, *looks),
            [{0: batch, 1: beam}, tuple([{0: batch, 1: beam}] * len(state) + [{0: batch}] * len(looks))],
            ["tokens", *names.state, *names.memory],
            ["logits", *names.after, *names.attention],
            stored,
            step,
        )
        written += [read, step]
    card = {"digest": file_digest(weights), "grid": [rows, columns], "weights": weights.name, **read_header(weights)}
    text = json.dumps(card, ensure_ascii=False, indent=1)
    write_atomically(card_path(weights), lambda part: part.write_text(text + "\n", encoding="utf-8"))
    return [weights, *written, card_path(weights)]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class _Stored:
    """The tensors of a model file, as ONNX names what lies outside of a graph."""

    def __init__(self, path: Path, same: dict[str, str]) -> None:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            self._tensors: dict[str, Any] = json.loads(file.read(length))
        self._path, self._begin, self._same = path, 8 + length, same

    def key(self, name: str | None) -> str | None:
        """What the file calls the tensor that a model calls so; None for what it does not hold."""
        key = self._same.get(name or "", name)
        return key if key in self._tensors else None

    def integers(self, key: str) -> bool:
        """It is rounded, and there is a scale for each of its rows."""
        return bool(self._tensors[key]["dtype"] == "I8")

    def value(self, key: str, name: str) -> Any:
        """An initializer of that name whose numbers lie in the file."""
        import onnx_ir as ir

        kinds = {"F32": ir.DataType.FLOAT, "I8": ir.DataType.INT8, "I64": ir.DataType.INT64}
        entry = self._tensors[key]
        if entry["dtype"] not in kinds:
            reason = f"holds {key} as {entry['dtype']}, which no graph of ours reads"
            raise ModelFileError(str(self._path), reason, "export it into another folder")
        kind, shape, (begin, end) = kinds[entry["dtype"]], ir.Shape(entry["shape"]), entry["data_offsets"]
        tensor = ir.ExternalTensor(
            self._path.name,
            self._begin + begin,
            end - begin,
            kind,
            shape=shape,
            name=name,
            base_dir=os.fspath(self._path.parent),
        )
        return ir.Value(name=name, shape=shape, type=ir.TensorType(kind), const_value=tensor)


def _write(
    module: nn.Module,
    arguments: tuple[Tensor, ...],
    dynamic: Sequence[Any],
    inputs: list[str],
    outputs: list[str],
    stored: _Stored,
    path: Path,
) -> None:
    """Exports a module, puts the stored tensors in the place of its own, and saves the graph."""
    import onnx_ir as ir
    from onnxscript import optimizer

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch's exporter on its own workings
        program = torch.onnx.export(
            module.eval(),
            arguments,
            dynamo=True,
            dynamic_shapes=tuple(dynamic),
            input_names=inputs,
            output_names=outputs,
            optimize=False,  # it would fold the batch norms into copies of the weights
            verbose=False,
        )
    assert program is not None
    model = program.model

    def folds(node: Any) -> bool | None:
        return False if any(value is not None and stored.key(value.name) for value in node.inputs) else None

    optimizer.fold_constants_ir(model, input_size_limit=_SMALL, output_size_limit=_SMALL, should_fold=folds)
    optimizer.remove_unused_nodes(model)
    _outside(model, stored)
    for node in model.graph:
        node.metadata_props.clear()  # stack traces
    write_atomically(path, lambda part: ir.save(model, part))


def _outside(model: Any, stored: _Stored) -> None:
    """Puts what is stored in the file in the place of a graph's own initializers."""
    import onnx_ir as ir

    graph = model.graph
    for name, old in list(graph.initializers.items()):
        key = stored.key(name)
        if key is None:
            continue  # a number or a shape, not a weight
        del graph.initializers[name]
        if not stored.integers(key):
            new = stored.value(key, name)
            graph.initializers.add(new)
        else:
            rounded, scale = stored.value(key, f"{name}:int8"), stored.value(key + SCALE, f"{name}{SCALE}")
            graph.initializers.add(rounded)
            graph.initializers.add(scale)
            node = ir.Node("", "DequantizeLinear", [rounded, scale], [ir.AttrInt64("axis", 0)])
            (new,) = node.outputs
            new.name, new.shape, new.type = name, old.shape, old.type
            graph.insert_before(graph[0], node)
        old.replace_all_uses_with(new)
