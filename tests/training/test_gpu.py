"""What a GPU would be asked, without one: torch's fake tensors say where devices or types do not go together.

They compute shapes, types and devices, and no numbers. Unseen stay: the numbers; dropout; backward passes, which want a
real device; GRUs over whole sequences, whose kernel torch looks up there; and what waits for numbers, such as the end
of a search or a sample, or the choice among hypotheses.
"""

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from captioner.decoder import sequence_log_probabilities
from captioner.device import autocast
from captioner.model import CaptionModel, ModelOptions
from captioner.network import TorchNetwork, fused
from captioner.options import ATTENTIONS, CELLS, DecoderOptions, EncoderOptions, ImageOptions, TrainingOptions
from captioner.text import SPECIAL_WORDS, START
from captioner.training.batches import Batch
from captioner.training.cross_entropy import caption_loss
from captioner.training.objectives import CrossEntropy
from captioner.training.self_critical import NEVER, advantages
from captioner.training.step import Learner

PRECISIONS = ("float32", "bfloat16", "float16")
WORDS = len(SPECIAL_WORDS) + 8
TOKENS = torch.tensor([[[1, 4, 5, 2, 0], [1, 6, 4, 5, 2]], [[1, 7, 2, 0, 0], [1, 5, 4, 2, 0]]])


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors on a GPU that is not there, which multiplies in every precision."""
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *_, **__: True)
    with torch.backends.cudnn.flags(enabled=False), FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv()):
        yield


def small(cell: str, attention: str) -> CaptionModel:
    decoder = DecoderOptions(cell=cell, attention=attention, embedding_size=16, hidden_size=16, heads=2)
    encoder = EncoderOptions("mobilenet_v3_small", "5")  # every kind of its layers
    return CaptionModel(ModelOptions(ImageOptions(size=64), encoder, decoder, WORDS, reverse=True))


def moved(module: nn.Module) -> nn.Module:
    """The module with all its tensors on the GPU; `to` cannot make a real one fake."""
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    there = torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")
                    tensors[name] = nn.Parameter(there, tensor.requires_grad) if tensors is part._parameters else there
    return module


def on_gpu(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell != "gru"])
def test_losses_stay_on_the_gpu(monkeypatch, request, cell, attention, precision):
    """Of each objective, from pixels on the CPU to the loss: likelihood, with a teacher, and of drawn captions."""
    model, teacher = small(cell, attention).eval(), small(cell, attention).eval()
    request.getfixturevalue("gpu")
    moved(model), moved(teacher)
    training = TrainingOptions(precision=precision, fine_tune="all")
    pixels = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    features = torch.zeros(2, 4, teacher.encoder.channels, dtype=torch.float16)
    for teachers in ([], [teacher.decoder]):
        learner = Learner(model.decoder, CrossEntropy(training, teachers), precision, model=model)
        loss = learner(pixels, Batch(("a", "b"), TOKENS, teachers=(features,) * len(teachers)))
        assert (loss.total.device.type, loss.words.device.type, loss.total.dtype) == ("cuda", "cuda", torch.float32)
    weights = advantages(torch.empty(2, 2, device="cuda"))
    with autocast(precision, torch.device("cuda")):
        seen = model.encode(pixels).float()
        loss = caption_loss(model.reverse, seen, on_gpu(TOKENS), weights=weights, never=NEVER, temperature=0.6)
    assert (loss.total.device.type, loss.total.dtype) == ("cuda", torch.float32)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_captioning_stays_on_the_gpu(request, cell, attention, precision):
    """The fused network encodes, begins and takes a step there, and scores sequences from their end."""
    network = fused(small(cell, attention), precision)
    request.getfixturevalue("gpu")
    for part in (network.vision.encoder, network.decoder, network.reverse):
        moved(part)
    network = TorchNetwork(network.vision, network.decoder, network.reverse)
    features = network.vision.encode(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    decoding = network.begin(features)
    state = tuple(part.expand(-1, 3, *part.shape[2:]) for part in decoding.state)
    logits, state = decoding.step(torch.full((2, 3), START, device="cuda"), state)
    assert (logits.device.type, logits.shape) == ("cuda", (2, 3, WORDS))
    assert {part.device.type for part in (features, *state)} == {"cuda"}
    if cell != "gru":
        sequences = [[[4, 5, 2], [6, 2]], [[7, 2]]]
        found = sequence_log_probabilities(network.reverse, network.reverse.read(features), sequences)
        assert found.device.type == "cuda"
