"""A torchvision CNN, cut where its output is still a grid: images in, one feature vector per grid cell out.

The network, its weights and its preprocessing numbers come from torchvision's own model registry. This module knows
nothing of captions.
"""

import functools
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode

from captioner.errors import OptionError
from captioner.imports import late
from captioner.options import EncoderOptions, ImageOptions, TrainingOptions, wrong

# One of torchvision's detection operators asks torch's compiler whether it works, and imports it for that: ten times
# as long as the rest of torchvision (measured: docs/performance.md). Nobody detects anything here.
with late("torchvision.ops.roi_align", "torch._dynamo.utils"):
    from torchvision import models

FAMILIES = (
    "mobilenet_v2",
    "mobilenet_v3",
    "resnet",
    "resnext",
    "regnet",
    "efficientnet",
    "convnext",
    "densenet",
    "inception_v3",
)


@functools.cache
def encoder_names() -> tuple[str, ...]:
    """Every torchvision network this encoder can be, by torchvision's name."""
    return tuple(name for name in models.list_models(module=models) if name.startswith(FAMILIES))


def preprocessing(name: str) -> dict[str, object]:
    """The network's own `mean`, `std` and `interpolation`, as ImageOptions fields.

    Raises OptionError for an unknown name.
    """
    if name not in encoder_names():
        raise wrong(EncoderOptions, "name", f"is {name!r}, which is not one of", ", ".join(encoder_names()))
    if name == "inception_v3":
        # torchvision's weights normalise as ImageNet and then, inside the network (`transform_input`), go back to
        # Google's 0.5 and 0.5; the trunk cut out below takes the result of both steps directly.
        return {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bilinear"}
    transforms = _default_weights(name).transforms()
    return {
        "mean": tuple(transforms.mean),
        "std": tuple(transforms.std),
        "interpolation": transforms.interpolation.value,
    }


def _default_weights(name: str) -> models.WeightsEnum:
    """The first weights torchvision lists: IMAGENET1K_V1 wherever it exists.

    The V1 recipes, without the long schedules and label mixing of V2, give the features that captioners are known by.
    """
    return next(iter(models.get_model_weights(name)))


class Encoder(nn.Module):
    """images (B, 3, H, W), normalised -> features (B, R, C), R = rows * columns of the grid, row by row."""

    def __init__(self, options: EncoderOptions, *, image_size: int, imagenet: bool = False) -> None:
        """Builds the network, with torchvision's ImageNet weights (downloaded once, cached by torch) or random.

        Raises OptionError for an unknown network or stage, for pictures too small to leave a grid, and when the
        weights cannot be had.
        """
        super().__init__()
        preprocessing(options.name)  # an unknown name stops here
        stages = _stages(_build(options.name, imagenet=imagenet))
        names = list(stages)
        if options.stage is not None and options.stage not in stages:
            reason = f"is {options.stage!r}, which is not one of {options.name}'s"
            raise wrong(EncoderOptions, "stage", reason, ", ".join(names))
        kept = names[: names.index(options.stage) + 1] if options.stage else names
        trunk = nn.Sequential(OrderedDict((name, stages[name]) for name in kept))
        if imagenet:
            _fold_batch_norms(trunk)
        # Convolutions on a CPU are more than twice as fast with weights and images in this layout (measured).
        self.trunk = trunk.to(memory_format=torch.channels_last)
        self.trusts_statistics = imagenet
        """Whether the batch norms keep the statistics they have; False only while learning from random weights."""
        self.channels, self.grid = self._probe(options.name, image_size)

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages, first to last: where the network can be cut, and fine-tuning can start."""
        return tuple(name for name, _ in self.trunk.named_children())

    def _probe(self, name: str, image_size: int) -> tuple[int, tuple[int, int]]:
        """The number of channels and the grid (rows, columns), from one pass over shapes alone."""
        training = self.training
        self.eval()
        tensors = itertools.chain(self.trunk.named_parameters(), self.trunk.named_buffers())
        shapes = {key: tensor.to("meta") for key, tensor in tensors}  # without numbers: computing takes half a second
        image = torch.zeros(1, 3, image_size, image_size, device="meta")
        try:
            with torch.no_grad(), _ShapesAlone():
                _, channels, rows, columns = functional_call(self.trunk, shapes, image).shape
        except RuntimeError as error:
            reason = f"is {image_size}, which is too small for {name}"
            raise wrong(ImageOptions, "size", reason, "choose a larger one") from error
        finally:
            self.train(training)
        return channels, (rows, columns)

    def train(self, mode: bool = True) -> "Encoder":
        """As nn.Module.train, but batch norms that hold trained statistics stay in eval mode.

        Otherwise features depend on who else is in the batch, and the statistics drift even where nothing is trained.
        """
        super().train(mode)
        if self.trusts_statistics:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def trainable(self, start: str | None) -> list[nn.Parameter]:
        """Sets which parameters learn, and returns those: from stage `start` on, every one for "all", none for None.

        Raises OptionError for an unknown stage.
        """
        if start not in (None, "all", *self.stages):
            raise wrong(TrainingOptions, "fine_tune", f"is {start!r}", f"choose all or one of {', '.join(self.stages)}")
        found: list[nn.Parameter] = []
        learning = start == "all"
        for name, stage in self.trunk.named_children():
            learning = learning or name == start
            stage.requires_grad_(learning)
            if learning:
                found += stage.parameters()
        return found

    def fuse(self) -> None:
        """Makes each batch norm a part of the convolution before it, for inference: the same features, faster.

        What was fused can be neither trained nor saved.
        """
        self.eval()
        for parent, convolution, norm in _normalised_convolutions(self.trunk):
            for name, child in list(parent.named_children()):
                if child is convolution:
                    setattr(parent, name, fuse_conv_bn_eval(convolution, norm).to(memory_format=torch.channels_last))
                elif child is norm:
                    setattr(parent, name, nn.Identity())

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), normalised -> features (B, R, C)."""
        images = images.to(next(self.parameters()).dtype, memory_format=torch.channels_last)
        return self.trunk(images).flatten(2).transpose(1, 2)


_SHAPES_STAY = "batch_norm layer_norm relu relu6 silu sigmoid hardtanh hardswish hardsigmoid".split()


class _ShapesAlone(TorchFunctionMode):
    """What layers give without numbers, where torch would load its compiler to find out, which takes 1.5 s.

    Held against real pictures for each family by tests/test_encoder.py.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.__name__.strip("_")
        if name in _SHAPES_STAY:
            return args[0]
        if name == "conv2d":
            images, weight, _, *window = args
            return _slid(images, len(weight), weight.shape[2:], *window[:3])
        if name in ("max_pool2d", "avg_pool2d"):
            images, *others = args
            given = {**dict(zip(("kernel_size", "stride", "padding"), others, strict=False)), **(kwargs or {})}
            window = given["kernel_size"], given["stride"], given.get("padding", 0), given.get("dilation", 1)
            return _slid(images, images.shape[1], *window)  # torchvision rounds down, as `_slid` does
        if name in ("add", "mul") and isinstance(args[1], Tensor):
            return max(args, key=Tensor.numel)  # the other is as large, or is spread over it
        if name == "cat":
            first = args[0][0]
            return first.new_empty(len(first), sum(part.shape[1] for part in args[0]), *first.shape[2:])
        if name == "adaptive_avg_pool2d":  # to one cell, before each channel is weighed
            return args[0].new_empty(*args[0].shape[:2], 1, 1)
        return func(*args, **(kwargs or {}))


def _slid(images: Tensor, channels: int, *window: Any) -> Tensor:
    """What a window gives that slides over images, without numbers: `window` is its kernel, stride, padding, dilation,
    each a number or two. Raises RuntimeError where the images are too small for it.
    """
    pairs = (part if isinstance(part, Sequence) else (part, part) for part in window)
    shape = [
        (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for side, kernel, stride, padding, dilation in zip(images.shape[2:], *pairs, strict=True)
    ]
    if min(shape) < 1:
        raise RuntimeError("nothing is left")
    return images.new_empty(len(images), channels, *shape)


def _build(name: str, *, imagenet: bool) -> nn.Module:
    """The whole torchvision network, classifier and all."""
    if imagenet:
        weights = _default_weights(name)
        try:
            return models.get_model(name, weights=weights)
        except (URLError, OSError) as error:
            raise OptionError(
                f"torchvision's ImageNet weights for {name} could not be downloaded ({error}): connect to the network "
                f"once, or put {weights.url.rsplit('/', 1)[-1]} into torch's hub/checkpoints folder, or use "
                "--encoder-weights bundled."
            ) from error
    # Inception's own initialisation draws from a truncated normal, which takes half a minute; nobody needs it.
    extra = {"init_weights": False, "aux_logits": False} if name == "inception_v3" else {}
    return models.get_model(name, weights=None, **extra)


@torch.no_grad()
def _fold_batch_norms(trunk: nn.Module) -> None:
    """Moves what each batch norm multiplies by into the convolution before it; the network computes the same.

    The optimizer's steps depend on how a network is written down. So they are the same for torchvision's weights and
    for the copies with folded batch norms that go around. Batch norms keep their bias, and their eval mode does nothing
    else any more.
    """
    for _, convolution, norm in _normalised_convolutions(trunk):
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None  # torchvision's networks track them
        assert variance is not None
        weight, bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, mean, variance, norm.eps, norm.weight, norm.bias
        )
        convolution.weight.copy_(weight)
        if convolution.bias is not None:
            convolution.bias.zero_()
        norm.bias.copy_(bias)
        norm.weight.fill_(1)
        mean.zero_()
        variance.fill_(1 - norm.eps)


def _normalised_convolutions(trunk: nn.Module) -> Iterator[tuple[nn.Module, nn.Conv2d, nn.BatchNorm2d]]:
    """Each convolution that a batch norm follows, with their parent and that norm."""
    for parent in trunk.modules():
        for convolution, norm in itertools.pairwise(parent.children()):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                yield parent, convolution, norm


def _stages(network: nn.Module) -> "OrderedDict[str, nn.Module]":
    """The network's stages before its pooling and classifier, in the order they run."""
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    children = getattr(network, "features", network)
    for name, child in children.named_children():
        if name in ("avgpool", "dropout", "fc", "AuxLogits"):
            continue
        if name == "trunk_output":  # RegNet: its blocks are one level down
            stages.update(child.named_children())
        else:
            stages[name] = child
    if isinstance(network, models.DenseNet):
        stages["relu"] = nn.ReLU(inplace=True)  # torchvision applies it in DenseNet.forward
    return stages
