"""A training run small enough for a test, for several test files."""

from captioner.datasets import load_dataset
from captioner.training.loop import train

SMALL = {
    "TrainingOptions": {
        "encoder_weights": "none",
        "fine_tune": "all",
        "epochs": 2,
        "batch_size": 8,
        "min_count": 1,
        "workers": 0,
        "precision": "float32",
    },
    "EncoderOptions": {"name": "resnet18", "stage": "layer1"},
    "DecoderOptions": {"hidden_size": 16, "embedding_size": 16},
    "ImageOptions": {"size": 32},
    "SearchOptions": {},
}


def small_run(drawings, output, *, given=SMALL, **options):
    said = []
    data = load_dataset(drawings)
    best = train(data, given=given, output=output, features=output.parent / "features", report=said.append, **options)
    return best, said
