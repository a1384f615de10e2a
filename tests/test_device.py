"""The promises of captioner.device."""

import pytest
import torch

from captioner.device import autocast, pick_device, pick_precision


def test_auto_takes_what_is_there():
    """A GPU where there is one, the CPU where there is none."""
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert pick_device("auto").type == expected
    assert pick_device("cpu").type == "cpu"


def test_a_chosen_precision_is_kept_and_auto_decides():
    """What the user says goes; "auto" answers with one of the two."""
    cpu = torch.device("cpu")
    assert pick_precision("float32", cpu) == "float32"
    assert pick_precision("bfloat16", cpu) == "bfloat16"
    assert pick_precision("auto", cpu) in ("float32", "bfloat16")
    assert pick_precision("auto", torch.device("mps")) == "float32"


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_products_run_in_the_precision(precision, dtype):
    """Inside the context a matrix product has that type."""
    with autocast(precision, torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
