"""Captions a second of training, beside the tutorials' loop, and what memory each takes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.measure import PRECISIONS, Row, Setting, apart, fastest, memory
from benchmarks.speed.peers import Sizes, TutorialDecoder
from captioner.checkpoint import load_model, model_path
from captioner.decoder import Decoder
from captioner.device import autocast, prepare
from captioner.encoder import Encoder
from captioner.model import CaptionModel, ModelOptions
from captioner.options import DecoderOptions, EncoderOptions, ImageOptions, TrainingOptions
from captioner.text import PAD
from captioner.training.batches import Batch
from captioner.training.objectives import CrossEntropy
from captioner.training.step import Learner, make_optimizer, take_step

PICTURES = 32
"""Of a step; the tutorials' batch."""

LEARNING = 8
"""Pictures of a step where the encoder learns too."""

CAPTIONS = 5
"""Of a picture: Flickr's and COCO's. The tutorials read a picture anew for each."""

SHORTEST, LONGEST = 8, 18
"""Tokens of a caption, its start and end counted; evenly mixed."""

Step = Callable[[], Any]

CASES = {
    "the tutorials' decoder, cached features": ("theirs", "cached"),
    "ours at their sizes, cached features, 1 caption a picture": ("same, single", "cached"),
    "ours at their sizes, cached features": ("same", "cached"),
    "ours at their sizes without attention, cached features": ("same, blind", "cached"),
    "ours at their sizes with dot attention, cached features": ("same, dot", "cached"),
    "fast's decoder, cached features": ("fast", "cached"),
    "the tutorials' decoder and ResNet-101": ("theirs", "learning"),
    "ours at their sizes and ResNet-101": ("same", "learning"),
    "fast, everything learns": ("fast", "learning"),
}
REFERENCES = {"cached": "the tutorials' decoder, cached features", "learning": "the tutorials' decoder and ResNet-101"}


def _captions(pictures: int, captions: int, words: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (pictures, captions, LONGEST), filled up with PAD, and lengths (pictures, captions)."""
    tokens = torch.randint(4, words, (pictures, captions, LONGEST), device=device)
    lengths = torch.linspace(LONGEST, SHORTEST, pictures * captions, device=device).long().view(captions, pictures).T
    return tokens.masked_fill_(torch.arange(LONGEST, device=device) >= lengths[..., None], PAD), lengths


def _their_step(device: torch.device, precision: str, *, learning: bool) -> Step:
    """A step of the tutorials: one caption a picture, sorted by length."""
    sizes = Sizes()
    decoder = TutorialDecoder(sizes).to(device).train()
    pictures = LEARNING if learning else PICTURES
    tokens, lengths = _captions(pictures, 1, sizes.vocabulary, device)
    tokens, lengths = tokens[:, 0], lengths[:, 0]
    parameters = list(decoder.parameters())
    if learning:
        encoder = Encoder(EncoderOptions(name="resnet101"), image_size=256).to(device).train()
        encoder.to(memory_format=torch.contiguous_format)
        widen = nn.AdaptiveAvgPool2d(14)
        images = torch.rand(pictures, 3, 256, 256, device=device)
        parameters += encoder.parameters()
    features = torch.rand(pictures, 196, sizes.channels, device=device)
    optimizer = torch.optim.Adam(parameters, lr=4e-4)

    def step() -> None:
        with autocast(precision, device):
            seen = widen(encoder.trunk(images)).flatten(2).transpose(1, 2) if learning else features
            loss = decoder(seen, tokens, lengths)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.clamp_(-5, 5)
        optimizer.step()

    return step


def _our_step(device: torch.device, kind: str, precision: str, *, learning: bool) -> Step:
    """A step as `captioner.training` does it."""
    sizes = Sizes()
    pictures, captions = LEARNING if learning else PICTURES, 1 if kind.endswith("single") else CAPTIONS
    model = None
    if kind == "fast":
        model = load_model(model_path("fast"), device).model
        decoder, words = model.decoder, model.options.vocabulary_size
        size, shape = model.options.image.size, (model.encoder.grid[0] * model.encoder.grid[1], model.encoder.channels)
    else:
        attention = {"same, blind": "none", "same, dot": "dot"}.get(kind, "additive")
        options = DecoderOptions(attention=attention, heads=8)
        words, size, shape = sizes.vocabulary, 256, (196, sizes.channels)
        if learning:
            shown = ImageOptions(size=size)
            model = CaptionModel(ModelOptions(shown, EncoderOptions("resnet101"), options, words)).to(device)
            decoder = model.decoder
        else:
            decoder = Decoder(options, channels=sizes.channels, vocabulary_size=words).to(device)
    training = TrainingOptions(learning_rate=4e-4, encoder_learning_rate=4e-4, precision=precision)
    if model is not None:
        list(model.encoder.trainable("all" if learning else None))
    learner = Learner(decoder, CrossEntropy(training), precision, model=model).train()
    if learning:
        inputs = torch.randint(0, 256, (pictures, 3, size, size), dtype=torch.uint8, device=device)
    else:
        inputs = torch.rand(pictures, *shape, device=device)
    tokens, _ = _captions(pictures, captions, words, device)
    batch = Batch(("",) * pictures, tokens)
    optimizer = make_optimizer(learner, training)
    return lambda: take_step(learner, optimizer, [(inputs, batch)], clip_norm=training.clip_norm)


def _step(case: str, precision: str, device: torch.device) -> Step:
    kind, how = CASES[case]
    torch.manual_seed(0)
    if kind == "theirs":
        return _their_step(device, precision, learning=how == "learning")
    return _our_step(device, kind, precision, learning=how == "learning")


def _memory(case: str, precision: str, device: torch.device, threads: int) -> float:
    torch.set_num_threads(threads)
    prepare(str(device))
    step = _step(case, precision, device)
    for _ in range(2):
        step()
    return memory(device)


def _captions_of(case: str) -> int:
    kind, how = CASES[case]
    pictures = LEARNING if how == "learning" else PICTURES
    return pictures * (1 if kind == "theirs" or kind.endswith("single") else CAPTIONS)


def measure(setting: Setting) -> list[Row]:
    """The table."""
    rows = []
    for how, reference in REFERENCES.items():
        steps: dict[Any, Step] = {}
        for case, (_, its) in CASES.items():
            if its == how:
                for precision in PRECISIONS:
                    steps[case, precision] = _step(case, precision, setting.device)
        seconds = fastest(steps, setting.device, setting.rounds)
        for case, precision in steps:
            theirs = _captions_of(reference) / seconds[reference, precision]
            rate = _captions_of(case) / seconds[case, precision]
            used = apart(_memory, case, precision, setting.device, torch.get_num_threads())
            row = {"what": case, "precision": precision, "captions/s": rate, "ratio": rate / theirs, "memory, MB": used}
            rows.append(row)
    return rows
