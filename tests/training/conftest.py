"""What tests of training share: a run that nobody disturbs."""

from pathlib import Path

import pytest

from tests.training.small import small_run


@pytest.fixture(scope="session")
def whole(drawings: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...]]:
    """A small run's folder, to look at and to copy, and what was said of it."""
    output = tmp_path_factory.mktemp("whole") / "run"
    return output, tuple(small_run(drawings, output)[1])


@pytest.fixture(scope="session")
def first(whole: tuple[Path, tuple[str, ...]]) -> Path:
    """Its best model's file, to start from."""
    return whole[0] / "best.safetensors"
