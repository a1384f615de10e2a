"""The promises of captioner.encoder."""

import pytest
import torch
from torch import nn
from torchvision import models

from captioner.encoder import FAMILIES, Encoder, _fold_batch_norms, encoder_names, preprocessing
from captioner.errors import OptionError
from captioner.options import EncoderOptions

SMALLEST = {  # of each family
    "mobilenet_v2": (1280, 3, 3),
    "mobilenet_v3_small": (576, 3, 3),
    "resnet18": (512, 3, 3),
    "resnext50_32x4d": (2048, 3, 3),
    "regnet_y_400mf": (440, 3, 3),
    "efficientnet_b0": (1280, 3, 3),
    "convnext_tiny": (768, 3, 3),
    "densenet121": (1024, 3, 3),
    "inception_v3": (2048, 1, 1),
}


def check_grid_and_gradient(name, size, expected=None):
    encoder = Encoder(EncoderOptions(name), image_size=size).train()
    images = torch.rand(2, 3, size, size)
    features = encoder(images)
    rows, columns = encoder.grid
    assert features.shape == (2, rows * columns, encoder.channels)
    if expected:
        assert (encoder.channels, rows, columns) == expected
    features.square().mean().backward()
    missing = [name for name, parameter in encoder.named_parameters() if parameter.grad is None]
    assert not missing
    assert all(torch.isfinite(parameter.grad).all() for parameter in encoder.parameters())


@pytest.mark.parametrize("name", SMALLEST)
def test_each_family_gives_its_grid_and_a_gradient(name):
    """The smallest network of each family gives (B, rows * columns, channels), and every parameter learns."""
    check_grid_and_gradient(name, 96, SMALLEST[name])


def test_every_family_is_among_the_names():
    """No family promised in the help is missing, and none is there unpromised."""
    assert all(any(name.startswith(family) for name in encoder_names()) for family in FAMILIES)
    assert set(SMALLEST) <= set(encoder_names())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in encoder_names() if name not in SMALLEST])
def test_every_network_gives_its_grid_and_a_gradient(name):
    """So does every other network by name."""
    check_grid_and_gradient(name, 96)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "regnet_y_400mf"])
def test_the_cut_network_computes_what_torchvision_does(name):
    """Pooled and classified, the features give torchvision's own logits."""
    torch.manual_seed(0)
    whole = models.get_model(name, weights=None).eval()
    encoder = Encoder(EncoderOptions(name), image_size=64).eval()
    state = {
        key.split("features.")[-1].replace("trunk_output.", ""): value for key, value in whole.state_dict().items()
    }
    encoder.trunk.load_state_dict({key: state[key] for key in encoder.trunk.state_dict()})
    images = torch.rand(2, 3, 64, 64)
    head = whole.classifier if hasattr(whole, "classifier") else whole.fc
    with torch.inference_mode():
        torch.testing.assert_close(head(encoder(images).mean(1)), whole(images), rtol=1e-3, atol=1e-4)


def with_statistics(name):
    """An encoder whose batch norms do something."""
    torch.manual_seed(0)
    encoder = Encoder(EncoderOptions(name), image_size=96).eval()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                nn.init.uniform_(tensor, -0.2, 0.2)
    return encoder


@pytest.mark.parametrize("name", SMALLEST)
def test_fusing_batch_norms_changes_no_feature(name):
    """The same features, in every family."""
    encoder = with_statistics(name)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
    images = torch.rand(2, 3, 96, 96)
    with torch.inference_mode():
        before = encoder(images)
        encoder.fuse()
        torch.testing.assert_close(encoder(images), before, rtol=1e-3, atol=1e-3 * before.abs().max().item())
    left = sum(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
    assert left == 0 or (name == "densenet121" and left < norms)  # which has some before its convolutions


@pytest.mark.parametrize("name", SMALLEST)
def test_folding_batch_norms_changes_no_feature(name):
    """The same features, in every family; what was folded once is not changed by folding it again."""
    encoder = with_statistics(name)
    images = torch.rand(2, 3, 96, 96)
    with torch.inference_mode():
        before = encoder(images)
        _fold_batch_norms(encoder.trunk)
        torch.testing.assert_close(encoder(images), before, rtol=1e-3, atol=1e-3 * before.abs().max().item())
    once = {key: value.clone() for key, value in encoder.state_dict().items()}
    _fold_batch_norms(encoder.trunk)
    torch.testing.assert_close(encoder.state_dict(), once, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["mobilenet_v2", "inception_v3", "resnet50"])
def test_folded_batch_norms_multiply_by_nothing(name):
    """In networks where a convolution comes before each batch norm, all that is left of these is a bias."""
    encoder = Encoder(EncoderOptions(name), image_size=96)
    _fold_batch_norms(encoder.trunk)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            scale = module.weight / (module.running_var + module.eps).sqrt()
            torch.testing.assert_close(scale, torch.ones_like(scale), rtol=1e-6, atol=0)
            assert not module.running_mean.any()


def test_a_stage_cuts_the_network_earlier():
    """--encoder-stage gives a finer grid with fewer channels."""
    encoder = Encoder(EncoderOptions("resnet18", stage="layer2"), image_size=64)
    assert (encoder.channels, encoder.grid) == (128, (8, 8))
    assert encoder.stages[-1] == "layer2"


@pytest.mark.parametrize(
    ("name", "stage", "size", "message"),
    [
        ("resnet19", None, 64, "resnet18"),
        ("vit_b_16", None, 64, "mobilenet_v2"),
        ("resnet18", "layer9", 64, "layer4"),
        ("inception_v3", None, 32, "too small"),
    ],
)
def test_wrong_names_are_answered_with_the_right_ones(name, stage, size, message):
    """An unknown network or stage lists the known ones; a picture too small for the network is refused."""
    with pytest.raises(OptionError, match=message):
        Encoder(EncoderOptions(name, stage), image_size=size)


def test_fine_tuning_starts_at_the_chosen_stage():
    """Parameters before the stage stay as they are, those from it on learn; an unknown stage lists the known ones."""
    encoder = Encoder(EncoderOptions("resnet18"), image_size=64)
    encoder.trainable(None)  # nobody need look at what it returns
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    learning = {id(parameter) for parameter in encoder.trainable("layer3")}
    for name, parameter in encoder.named_parameters():
        assert (
            parameter.requires_grad == (id(parameter) in learning) == name.startswith(("trunk.layer3", "trunk.layer4"))
        )
    assert len(encoder.trainable("all")) == len(list(encoder.parameters()))
    assert encoder.trainable(None) == []
    with pytest.raises(OptionError, match="layer1"):
        encoder.trainable("layer7")


def test_batch_norms_learn_only_from_a_random_start(imagenet):
    """After .train(), batch norms that hold trained statistics neither use nor change those of the batch."""
    trained = Encoder(EncoderOptions("mobilenet_v2"), image_size=64, imagenet=True).train()
    before = {name: value.clone() for name, value in trained.named_buffers()}
    images = torch.rand(4, 3, 64, 64)
    together, alone = trained(images), trained(images[:1])
    torch.testing.assert_close(together[:1], alone, rtol=1e-3, atol=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in trained.named_buffers())

    random = Encoder(EncoderOptions("mobilenet_v2"), image_size=64).train()
    assert all(module.training for module in random.modules() if isinstance(module, nn.BatchNorm2d))


def test_imagenet_weights_are_torchvisions(imagenet):
    """`imagenet=True` gives the very features of torchvision's own network and weights."""
    encoder = Encoder(EncoderOptions("mobilenet_v2"), image_size=64, imagenet=True).eval()
    whole = models.mobilenet_v2(weights="IMAGENET1K_V1").eval()
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        expected = whole.features(images).flatten(2).transpose(1, 2)
        torch.testing.assert_close(encoder(images), expected, rtol=1e-3, atol=1e-3)


def test_inception_takes_pictures_as_its_own_weights_do(imagenet):
    """Our numbers for Inception equal ImageNet's followed by the network's own `transform_input`."""
    encoder = Encoder(EncoderOptions("inception_v3", "Mixed_5b"), image_size=96, imagenet=True).eval()
    whole = models.inception_v3(weights="IMAGENET1K_V1").eval()
    seen = []
    whole.Mixed_5b.register_forward_hook(lambda module, inputs, output: seen.append(output))
    pixels = torch.rand(1, 3, 96, 96)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    ours = preprocessing("inception_v3")
    with torch.inference_mode():
        whole((pixels - mean) / std)
        features = encoder((pixels - ours["mean"][0]) / ours["std"][0])
    torch.testing.assert_close(features, seen[0].flatten(2).transpose(1, 2), rtol=1e-3, atol=1e-3)


def test_preprocessing_comes_from_the_weights():
    """Mean, deviation and interpolation are the network's own."""
    assert preprocessing("resnet50") == {
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "interpolation": "bilinear",
    }
    assert preprocessing("efficientnet_b0")["interpolation"] == "bicubic"


def test_weights_that_cannot_be_had_are_explained(monkeypatch, tmp_path):
    """Without a network and without the file, the message says what to do."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", _no_network)
    with pytest.raises(OptionError, match=r"mobilenet_v2-.*bundled"):
        Encoder(EncoderOptions("mobilenet_v2"), image_size=64, imagenet=True)


def _no_network(*arguments, **options):
    raise OSError("no network")


def test_imagenet_weights_come_folded(imagenet):
    """What training starts from has batch norms that only add: the same for official weights and folded copies."""
    encoder = Encoder(EncoderOptions("mobilenet_v2"), image_size=96, imagenet=True)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            torch.testing.assert_close(module.running_var + module.eps, torch.ones_like(module.weight))
