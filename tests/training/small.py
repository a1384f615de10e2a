"""A training run small enough for a test, for several test files."""

from captioner.datasets import Dataset, load_dataset
from captioner.telling import Telling
from captioner.training.plan import Plan
from captioner.training.run import run

SMALL = {
    "training": {
        "encoder_weights": "none",
        "fine_tune": "all",
        "epochs": 2,
        "batch_size": 8,
        "min_count": 1,
        "workers": 0,
        "precision": "float32",
    },
    "encoder": {"name": "resnet18", "stage": "layer1"},
    "decoder": {"hidden_size": 16, "embedding_size": 16},
    "image": {"size": 32},
    "search": {},
}


def small_run(drawings, output, *, given=SMALL, resume=False, **options):
    """A folder's run, or that of a data set; its best model's file, and what was said."""
    said = []
    data = drawings if isinstance(drawings, Dataset) else load_dataset(drawings)
    make = Plan.resumed if resume else Plan.new
    plan = make(data, given, output=output, **options)
    best = run(plan, data, features=output.parent / "features", telling=Telling(said.append, bars=False))
    return best, said
