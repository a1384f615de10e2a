"""What `generation` asks of a network, answered by ONNX Runtime and NumPy: no torch is imported.

Its graphs are those that `onnx_export` wrote beside the model file, and their weights lie in that file.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from captioner.captions import REPEATS
from captioner.card import ModelCard
from captioner.errors import ModelFileError, OptionError
from captioner.onnx_files import PARTS, REVERSE, Names, graph_path, names_of, read_grid
from captioner.options import ImageOptions
from captioner.pictures import Pixels
from captioner.search import Decoding
from captioner.text import END, PAD, START, UNKNOWN

Array = npt.NDArray[Any]

_THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class _Decoder:
    """The graphs of one decoder."""

    reading: Any
    stepping: Any
    names: Names

    def read(self, features: Array) -> dict[str, Array]:
        """Features (B, R, C) -> the first state and what attention looks at, by their names."""
        names = [*self.names.state, *self.names.memory]
        return dict(zip(names, self.reading.run(names, {"features": features}), strict=True))

    def step(
        self, tokens: Array, state: tuple[Array, ...], memory: dict[str, Array]
    ) -> tuple[Array, tuple[Array, ...], Array | None]:
        """Tokens (B, K), state (B, K, ...) -> logits (B, K, V), the state after them, attention (B, K, R) or None."""
        given = {
            "tokens": tokens,
            **dict(zip(self.names.state, map(np.ascontiguousarray, state), strict=True)),
            **{name: memory[name] for name in self.names.memory},
        }
        logits, *rest = self.stepping.run(["logits", *self.names.after, *self.names.attention], given)
        states = len(self.names.state)
        return logits, tuple(rest[:states]), rest[states] if len(rest) > states else None


@dataclass(frozen=True)
class OnnxNetwork:
    """A `generation.Network` whose features are NumPy arrays (B, R, C)."""

    image: ImageOptions
    grid: tuple[int, int]
    encoder: Any
    decoder: _Decoder
    reverse: _Decoder | None
    device: str = "cpu"
    precision: str = "float32"

    @property
    def reads_backwards(self) -> bool:
        """`score` can be asked."""
        return self.reverse is not None

    def seeing(self, image: ImageOptions) -> "OnnxNetwork":
        """The same network, for pictures that are fitted in another way.

        Raises OptionError where they are to be of another size, or normalised otherwise: that is in the graph.
        """
        for name in ("size", "mean", "std"):
            if getattr(image, name) != getattr(self.image, name):
                reason = f"is {getattr(image, name)}, and the ONNX graph has {getattr(self.image, name)}"
                raise OptionError(f"image {name}", reason, "choose the backend torch", field="backend")
        return replace(self, image=image)

    def encode(self, pixels: Sequence[Pixels]) -> Array:
        """Pictures as `pictures.look` prepares them -> features (B, R, C)."""
        (features,) = self.encoder.run(["features"], {"pixels": np.stack(pixels)})
        return np.asarray(features)

    def begin(self, features: Array) -> Decoding:
        """Features (B, R, C) -> what a search for their captions needs."""
        memory = self.decoder.read(features)
        return Decoding(
            step=lambda tokens, state: self.decoder.step(tokens, state, memory)[:2],
            state=tuple(memory[name] for name in self.decoder.names.state),
            start=START,
            end=END,
            never=(PAD, START, UNKNOWN),
            repeats=REPEATS,
        )

    def score(self, features: Array, sequences: Sequence[Sequence[Sequence[int]]]) -> list[list[float]]:
        """The right-to-left decoder's log-probability of each of an image's sequences, which are left to right."""
        assert self.reverse is not None
        tokens = _stacked([[[START, *sequence[::-1], END] for sequence in group] for group in sequences])
        memory = self.reverse.read(features)
        state = self._wide(self.reverse, memory, tokens.shape[1])
        totals = np.zeros(tokens.shape[:2], np.float32)
        for place in range(tokens.shape[2] - 1):
            logits, state, _ = self.reverse.step(np.ascontiguousarray(tokens[..., place]), state, memory)
            targets = tokens[..., place + 1]
            highest = logits.max(-1)
            with np.errstate(all="ignore"):  # what is no number is found by whoever ranks
                whole = highest + np.log(np.exp(logits - highest[..., None]).sum(-1))
            chosen = np.take_along_axis(logits, targets[..., None], -1)[..., 0] - whole
            totals += np.where(targets == PAD, 0, chosen)
        return [row[: len(group)].tolist() for row, group in zip(totals, sequences, strict=True)]

    def attention(self, features: Array, sequences: Sequence[Sequence[int]]) -> list[list[list[list[float]]]] | None:
        """Where the decoder looks, in features (1, R, C), for each token of each sequence: the rows of the grid.

        None for a decoder without attention.
        """
        if not self.decoder.names.attention:
            return None
        tokens = _stacked([[[START, *sequence] for sequence in sequences]])
        memory = self.decoder.read(features)
        state = self._wide(self.decoder, memory, tokens.shape[1])
        seen: list[Any] = []
        for place in range(tokens.shape[2]):
            _, state, attention = self.decoder.step(np.ascontiguousarray(tokens[..., place]), state, memory)
            seen.append(attention)
        looks: list[list[list[list[float]]]] = np.stack(seen, 2)[0].reshape(*tokens.shape[1:], *self.grid).tolist()
        return looks

    @staticmethod
    def _wide(decoder: _Decoder, memory: dict[str, Array], count: int) -> tuple[Array, ...]:
        """The first state, once for each of `count` sequences."""
        return tuple(np.repeat(memory[name], count, 1) for name in decoder.names.state)


def load_onnx(path: Path, card: ModelCard) -> OnnxNetwork:
    """The network of a model file whose card was read, from the graphs beside it, on the CPU in float32.

    Raises ModelFileError where there are none, where they belong to another file, and where they cannot be used.
    """
    grid, names = read_grid(path, card), names_of(card.decoder)
    steps = {"tokens", *names.state, *names.memory}, {"logits", *names.after, *names.attention}
    reads = {"features"}, {*names.state, *names.memory}
    encoder = _session(path, PARTS[0], {"pixels"}, {"features"})
    decoder = _Decoder(_session(path, PARTS[1], *reads), _session(path, PARTS[2], *steps), names)
    reverse = None
    if card.reverse:
        reverse = _Decoder(_session(path, REVERSE[0], *reads), _session(path, REVERSE[1], *steps), names)
    return OnnxNetwork(card.image, grid, encoder, decoder, reverse)


def _session(model: Path, part: str, inputs: set[str], outputs: set[str]) -> Any:
    """A graph, ready to run."""
    path, remedy = graph_path(model, part), "export the model anew"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = _THREADS, 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # rounded weights become floats once, not always
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the graphs' threads wait for each other
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # whatever ONNX Runtime makes of a damaged or a stranger's file
        said = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ModelFileError(str(path), f"cannot be loaded ({said})", remedy) from error
    found = {value.name for value in session.get_inputs()}, {value.name for value in session.get_outputs()}
    if found != (inputs, outputs):
        raise ModelFileError(str(path), "has other inputs or outputs than its model", remedy)
    return session


def _stacked(sequences: Sequence[Sequence[Sequence[int]]]) -> npt.NDArray[np.int64]:
    """Ids of the sequences of B images -> (B, K, T), filled up with <pad>."""
    most, longest = max(map(len, sequences)), max(len(ids) for group in sequences for ids in group)
    tokens = np.full((len(sequences), most, longest), PAD, np.int64)
    for row, group in enumerate(sequences):
        for column, ids in enumerate(group):
            tokens[row, column, : len(ids)] = ids
    return tokens
