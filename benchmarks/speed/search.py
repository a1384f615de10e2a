"""Captions a second of the search alone: one decoder in both loops, and then what a user gains."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import PRECISIONS, Row, Setting, dtype, fastest, operations
from benchmarks.speed.peers import InTheirLoop, Sizes, TutorialDecoder, Writer, caption_alone
from captioner.checkpoint import load_model, model_path
from captioner.decoder import Decoder
from captioner.network import begin
from captioner.options import DecoderOptions, SearchOptions
from captioner.search import search
from captioner.text import END, PAD, START, UNKNOWN

WORDS = 11
"""Words of every caption: ends are made impossible, so that both sides write as much."""


def without_end(output: nn.Linear) -> None:
    """Makes the end of a sentence impossible in a decoder's last layer."""
    torch.nn.init.constant_(output.bias[END : END + 1], -1e4)


def together(decoder: Decoder, features: Tensor, beam_size: int, words: int = WORDS) -> None:
    """Our search, for all images (B, R, C) at once."""
    with torch.inference_mode():
        decoding = begin(decoder, features, never=(PAD, START, UNKNOWN))
        search(decoding, SearchOptions(beam_size=beam_size, max_length=words))


def measure(setting: Setting) -> list[Row]:
    """The table."""
    device, sizes = setting.device, Sizes()
    torch.manual_seed(0)
    tutorial = TutorialDecoder(sizes).to(device).eval()
    like = DecoderOptions(attention="additive", heads=1)
    same = Decoder(like, channels=sizes.channels, vocabulary_size=sizes.vocabulary).to(device).eval()
    fast = load_model(model_path("fast"), device).model
    for output in (tutorial.output, same.output, fast.decoder.output):
        without_end(output)
    cells = fast.encoder.grid[0] * fast.encoder.grid[1]
    rows = []
    for what in ("one decoder, two loops", "the bundled fast, and theirs"):
        for precision in PRECISIONS:
            kind = dtype(precision)
            alone = torch.rand(196, sizes.channels, device=device, dtype=kind)
            if what == "one decoder, two loops":
                ours = copy.deepcopy(same)
                theirs: Writer = InTheirLoop(copy.deepcopy(same).to(kind))
                shape = (196, sizes.channels)
            else:
                ours = copy.deepcopy(fast.decoder)
                theirs, shape = copy.deepcopy(tutorial).to(kind), (cells, fast.encoder.channels)
            ours.fuse()
            ours.to(kind)
            for beam in (1, 3, 5):
                work: dict[Any, Callable[[], Any]] = {
                    "theirs": lambda theirs=theirs, beam=beam, alone=alone: caption_alone(  # type: ignore[misc]
                        theirs, alone, start=START, end=END, beam_size=beam, max_length=WORDS
                    )
                }
                for batch in (1, 16, 64):
                    features = torch.rand(batch, *shape, device=device, dtype=kind)
                    work[batch] = lambda ours=ours, features=features, beam=beam: together(ours, features, beam)  # type: ignore[misc]
                seconds = fastest(work, device, setting.rounds)
                for batch in (1, 16, 64):
                    rate = batch / seconds[batch]
                    done = operations(work[batch]) / seconds[batch] / 1e9
                    rows.append(
                        {
                            "what": what,
                            "precision": precision,
                            "beam": beam,
                            "batch": batch,
                            "captions/s": rate,
                            "theirs": 1 / seconds["theirs"],
                            "ratio": rate * seconds["theirs"],
                            "of the limit": done / setting.limits[precision],
                        }
                    )
    return rows
