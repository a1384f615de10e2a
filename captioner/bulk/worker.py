"""The second stage: pictures -> captions, by a model that stays loaded."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from captioner.bulk.reading import BATCH, READ
from captioner.captions import Caption
from captioner.errors import CaptionerError, ModelFileError
from captioner.formats.rows import writable

DONE = pa.schema(
    [
        *(field for field in READ if field.name != "pixels"),
        pa.field("caption", pa.string()),
        pa.field("log_probability", pa.float64()),
        pa.field("word_probability", pa.float64()),
        pa.field("fatal", pa.string()),  # what no other picture would fare better with: it ends the run
    ]
)


class Worker:
    """A loaded model. It takes rows of READ and gives rows of DONE."""

    def __init__(self, model: bytes, search: Mapping[str, Any], *, precision: str, device: str, threads: int) -> None:
        """`model` is a model file's content: other machines have no such file. `threads` of a CPU compute."""
        import torch

        from captioner.captioner import Captioner

        if device == "cpu":
            torch.set_num_threads(threads)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.safetensors")
            path.write_bytes(model)
            captioner = Captioner.load(path, device, precision=precision, backend="torch")  # only its file travels
        self._captioner = captioner.with_(search=captioner.search_with(**search))

    def __call__(self, table: pa.Table) -> pa.Table:
        """The same pictures with their captions, BATCH at a time through the network."""
        import numpy as np

        rows = table.to_pylist()
        size = self._captioner.image.size
        ready = [row for row in rows if row["pixels"] is not None]
        for first in range(0, len(ready), BATCH):
            group = ready[first : first + BATCH]
            pixels = [np.frombuffer(row["pixels"], np.uint8).reshape(3, size, size) for row in group]
            for row, answer in zip(group, self._answers(pixels), strict=True):
                row.update(answer)
        return pa.Table.from_pylist(rows, schema=DONE)

    def _answers(self, pixels: list[Any]) -> list[dict[str, Any]]:
        try:
            return [_of(caption) for caption in self._captioner.caption_pixels(pixels)]
        except ModelFileError as error:
            return [{"fatal": str(error)}] * len(pixels)
        except (CaptionerError, RuntimeError) as error:  # RuntimeError: torch's, out of memory too
            if len(pixels) > 1:
                return [answer for one in pixels for answer in self._answers([one])]  # it may be one's fault
            return [{"error": writable(f"The model failed on it: {error}.")}]


def _of(caption: Caption) -> dict[str, Any]:
    return {
        "caption": writable(caption.text),
        "log_probability": round(caption.log_probability, 4),
        "word_probability": round(caption.word_probability, 4),
    }
