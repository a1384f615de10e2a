"""Recipes: options that differ from the defaults, for a kind of training, and for each stage of a whole model."""

from dataclasses import dataclass, replace
from typing import Any

DEFAULTS: dict[str, dict[str, dict[str, Any]]] = {
    # Steps are small and the policy is kept close to what it samples: the model is trained already.
    "self-critical": {
        "decoder": {"dropout": 0.2},
        "training": {"learning_rate": 1e-4, "epochs": 10},
    },
    # Drawings need no ImageNet: a ResNet-18 cut early learns them from random weights in minutes.
    "shapes": {
        "image": {"size": 72},
        "encoder": {"name": "resnet18", "stage": "layer2"},
        "decoder": {"hidden_size": 256, "embedding_size": 128, "dropout": 0.1},
        "training": {
            "encoder_weights": "none",
            "fine_tune": "all",
            "encoder_learning_rate": 1e-3,
            "epochs": 12,
            "label_smoothing": 0.0,
            "min_count": 1,
        },
        "search": {"max_length": 40},
    },
}
"""Defaults that differ from the options' own, by the objective or else by the kind of data set."""


@dataclass(frozen=True)
class Stage:
    """One run of a preset: its folder's name, and the options that differ from the defaults."""

    name: str
    options: dict[str, dict[str, Any]]
    start: str | None = ""
    """The stage whose model it goes on from; the one before if none is named; None begins with nothing."""
    teachers: tuple[str, ...] = ()
    """Who teaches it: models of earlier stages, and bundled ones by their names."""
    runs: int = 1
    """How many runs it is, that differ in their seeds alone: its model has the mean of their last epochs' weights."""
    first_set_alone: bool = False
    """Of several data sets it learns the first one; all of them otherwise."""


# What was tried for the Flickr8k models, and what is still untried, stands in docs/experiments.md.

# It goes on with the model, but what is new or self-critical has defaults of its own.
_DROPOUT: dict[str, Any] = {"dropout": 0.3}
_STEPS: dict[str, Any] = {"batch_size": 8, "learning_rate": 5e-4}
_SELF_CRITICAL: dict[str, dict[str, Any]] = {
    "decoder": _DROPOUT,
    "training": {"objective": "self-critical", "batch_size": 16, "epochs": 6},
}

_RIGHT_TO_LEFT: dict[str, dict[str, Any]] = {
    "training": {"direction": "right-to-left", "batch_size": 16, "learning_rate": 5e-4, "epochs": 4},
}


def _frozen(encoder: dict[str, Any], size: int, **also: Any) -> dict[str, dict[str, Any]]:
    """A first stage: a decoder for ImageNet's features of pictures of `size` pixels."""
    return {
        "encoder": encoder,
        "image": {"detail": 224, "size": size},
        "decoder": _DROPOUT,
        "training": {**_STEPS, "epochs": 8, **also},
    }


def _taught(*, fine_tune: str = "all", **steps: Any) -> dict[str, dict[str, Any]]:
    """Encoder and decoder learn, from varied pictures, what their teachers say of the pictures as they are."""
    return {"training": {"batch_size": 16, "fine_tune": fine_tune, "augment": True, **steps}}


_FLICKR8K = (
    Stage("1-frozen", _frozen({"name": "inception_v3", "stage": "Mixed_7a"}, 299)),
    Stage(
        "2-fine-tuned",
        {
            "training": {
                "epochs": 3,
                "fine_tune": "all",
                "augment": True,
                "learning_rate": 3e-4,
                "encoder_learning_rate": 5e-5,
                "label_smoothing": 0.0,
            }
        },
    ),
    Stage(
        "3-apart",
        {"decoder": _DROPOUT, "training": {**_STEPS, "epochs": 6, "new_decoder": True}},
    ),
    Stage(
        "4-distilled",
        {"training": {"batch_size": 16, "learning_rate": 4e-4, "epochs": 5}},
        start="2-fine-tuned",
        teachers=("2-fine-tuned", "3-apart"),
    ),
    Stage("5-self-critical", _SELF_CRITICAL),
    Stage(
        "6-taught",
        _taught(epochs=5, learning_rate=4e-4, encoder_learning_rate=5e-5),
        start="2-fine-tuned",
        teachers=("5-self-critical", "3-apart"),
    ),
    Stage("7-self-critical", _SELF_CRITICAL, runs=2),
    Stage(
        "8-taught",
        _taught(epochs=5, learning_rate=3e-4, encoder_learning_rate=5e-5),
        start="6-taught",
        teachers=("7-self-critical", "5-self-critical"),
    ),
    Stage("9-self-critical", _SELF_CRITICAL, runs=2),
    Stage("10-right-to-left", _RIGHT_TO_LEFT),
)

# Everyday photos are many kinds of things in few pictures each, Flickr8k's are a few things in many: the model learns
# to see and to write on Flickr8k, then both, taught by another kind of encoder; and once more, when self-critical
# training has made both of them better teachers. 4 uses of a word are enough, since half of the everyday captions'
# words are used less than 5 times. The encoder's first layers know enough by then.
_WORDS: dict[str, Any] = {"min_count": 4}
_EVERYDAY = (
    *(replace(stage, first_set_alone=True) for stage in _FLICKR8K[:-1]),
    Stage("10-frozen-b4", _frozen({"name": "efficientnet_b4", "stage": "7"}, 257, **_WORDS), start=None),
    Stage("11-self-critical-b4", _SELF_CRITICAL),
    Stage(
        "12-taught",
        _taught(epochs=3, learning_rate=4e-4, encoder_learning_rate=5e-5, fine_tune="Mixed_6a", **_WORDS),
        start="9-self-critical",
        teachers=("10-frozen-b4",),
    ),
    Stage("13-self-critical", _SELF_CRITICAL),
    Stage(
        "14-taught",
        _taught(epochs=2, learning_rate=3e-4, encoder_learning_rate=5e-5, fine_tune="Mixed_6a"),
        start="12-taught",
        teachers=("13-self-critical", "11-self-critical-b4"),
    ),
    Stage("15-self-critical", _SELF_CRITICAL),
    Stage("16-right-to-left", _RIGHT_TO_LEFT),
)

_FLICKR8K_FAST = (
    Stage("1-frozen", _frozen({"name": "mobilenet_v2"}, 256)),
    Stage("2-taught", _taught(epochs=10, learning_rate=4e-4, encoder_learning_rate=1e-4), teachers=("accurate",)),
)

PRESETS: dict[str, tuple[Stage, ...]] = {
    "everyday": _EVERYDAY,
    "flickr8k": _FLICKR8K,
    "flickr8k-fast": _FLICKR8K_FAST,
    "coco": (
        Stage(
            "1-likelihood",
            {
                "encoder": {"name": "resnet101"},
                "image": {"size": 448},
                "decoder": {"hidden_size": 1024, "embedding_size": 1024},
                "training": {"epochs": 20},
            },
        ),
        Stage("2-self-critical", {"training": {"objective": "self-critical", "epochs": 20}}),
    ),
}
"""The stages of each recipe, by the names in `options.PRESETS`."""
