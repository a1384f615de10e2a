"""From files to captions: images a second, beside the stages run apart and beside a ViT with a GPT-2 decoder."""

import importlib
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from benchmarks.measure import PRECISIONS, Row, Setting, dtype, fastest
from captioner.captioner import BATCH, READERS, Captioner
from captioner.generation import caption_features
from captioner.options import MODELS, ImageOptions
from captioner.pictures import Pixels, normalise, to_tensor

PHOTOS = 128
"""Most pictures that are captioned."""

WORDS = 12
"""Tokens that GPT-2 writes for each picture, with a beam of BEAM: about as many as ours."""

BEAM = 5

THEIR_BATCH = 8


def draw(folder: Path) -> Path:
    """Makes 64 JPEG files of 640 x 480 there: clouds of colour with grain, about as big as photos are (100 kB)."""
    generator = torch.Generator().manual_seed(0)
    for number in range(64):
        clouds = torch.rand(1, 3, 12, 16, generator=generator)
        clouds = torch.nn.functional.interpolate(clouds, size=(480, 640), mode="bicubic")[0]
        grain = 0.1 * torch.randn(3, 480, 640, generator=generator)
        pixels = (255 * (clouds + grain).clamp(0, 1)).to(torch.uint8).permute(1, 2, 0)
        Image.fromarray(pixels.numpy()).save(folder / f"{number:03}.jpg", quality=85)
    return folder


def read(captioner: Captioner, photos: Sequence[Path]) -> list[Pixels]:
    """The first stage, by as many threads as `Captioner.stream` has."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(captioner.read, photos))


@torch.inference_mode()
def encode(captioner: Captioner, pixels: Sequence[Pixels]) -> list[Tensor]:
    """The second stage."""
    return [captioner.network.encode(pixels[first : first + BATCH]) for first in range(0, len(pixels), BATCH)]


def write(captioner: Captioner, features: Sequence[Tensor]) -> None:
    """The third stage."""
    for batch in features:
        caption_features(captioner.network, batch, captioner.vocabulary, captioner.search)


def vit_gpt2(device: torch.device, precision: str) -> Callable[[Sequence[Path]], Any] | None:
    """Photos -> token ids, by `transformers`; None where it is not installed. Weights are random: they change no time.

    Shapes are those of nlpconnect/vit-gpt2-image-captioning: google/vit-base-patch16-224 and openai-community/gpt2.
    """
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError:
        return None
    gpt2 = transformers.GPT2Config(add_cross_attention=True, is_decoder=True)
    shapes = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(transformers.ViTConfig(), gpt2)
    model = transformers.VisionEncoderDecoderModel(shapes).to(device, dtype(precision)).eval()
    image = ImageOptions(size=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

    @torch.inference_mode()
    def caption(photos: Sequence[Path]) -> None:
        for first in range(0, len(photos), THEIR_BATCH):
            pixels = torch.stack([to_tensor(photo, image) for photo in photos[first : first + THEIR_BATCH]])
            model.generate(
                normalise(pixels.to(device), image).to(dtype(precision)),
                num_beams=BEAM,
                min_new_tokens=WORDS,
                max_new_tokens=WORDS,
                decoder_start_token_id=50256,
                pad_token_id=50256,
            )

    return caption


class TheirProcess:
    """`vit_gpt2` in a process of its own, as its users run it: memory is freed there as torch and the system do it."""

    model: Callable[[Sequence[Path]], Any] | None = None

    def __init__(self, device: torch.device, precision: str) -> None:
        self.pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        self.there = self.pool.submit(self._build, device, precision, torch.get_num_threads()).result()

    @classmethod
    def _build(cls, device: torch.device, precision: str, threads: int) -> bool:
        torch.set_num_threads(threads)
        cls.model = vit_gpt2(device, precision)
        return cls.model is not None

    @classmethod
    def _caption(cls, photos: Sequence[Path]) -> None:
        assert cls.model is not None
        cls.model(photos)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def __call__(self, photos: Sequence[Path]) -> None:
        """Captions the photos there."""
        self.pool.submit(self._caption, photos).result()


def measure(setting: Setting) -> list[Row]:
    """The table."""
    rows = []
    for precision in PRECISIONS:
        theirs = TheirProcess(setting.device, precision)
        few = setting.photos[:THEIR_BATCH]
        work: dict[Any, Callable[[], Any]] = {}
        if theirs.there:
            work["theirs"] = lambda theirs=theirs, few=few: theirs(few)  # type: ignore[misc]
        for name in MODELS:
            captioner = Captioner.load(name, str(setting.device), precision=precision)
            pixels = read(captioner, setting.photos)
            features = encode(captioner, pixels)
            stages: dict[str, Callable[..., Any]] = {
                "read": lambda captioner=captioner: read(captioner, setting.photos),
                "encode": lambda captioner=captioner, pixels=pixels: encode(captioner, pixels),
                "search": lambda captioner=captioner, features=features: write(captioner, features),
                "whole": lambda captioner=captioner: list(
                    captioner.stream((photo.name, photo) for photo in setting.photos)
                ),
            }
            work |= {(name, stage): piece for stage, piece in stages.items()}
        seconds = fastest(work, setting.device, setting.rounds)
        for name in MODELS:
            apart = [seconds[name, stage] for stage in ("read", "encode", "search")]
            rate = len(setting.photos) / seconds[name, "whole"]
            row: Row = {"model": name, "precision": precision}
            row |= {f"{stage}/s": len(setting.photos) / seconds[name, stage] for stage in ("read", "encode", "search")}
            row |= {"whole/s": rate, "of the sum": seconds[name, "whole"] / sum(apart)}
            row |= {"of the slowest": seconds[name, "whole"] / max(apart), "a million, hours": 1e6 / rate / 3600}
            if theirs.there:
                row |= {"ViT-GPT2/s": len(few) / seconds["theirs"], "ratio": rate * seconds["theirs"] / len(few)}
            rows.append(row)
        theirs.pool.shutdown()
    return rows
