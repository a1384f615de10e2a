"""The files of a run, and of a recipe's runs: every name once."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """Where one run lives."""

    path: Path

    @property
    def best(self) -> Path:
        """The model with the best validation score."""
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        """The model after the last epoch."""
        return self.path / "last.safetensors"

    @property
    def log(self) -> Path:
        """A line of JSON an epoch."""
        return self.path / "log.jsonl"

    @property
    def resume(self) -> Path:
        """All that the run needs to go on."""
        return self.path / "resume.pt"

    @property
    def used(self) -> bool:
        """Something is there already."""
        return self.path.exists() and any(self.path.iterdir())


@dataclass(frozen=True)
class RecipeFolder:
    """Where the runs of a recipe live, and the model of each stage beside its folder."""

    path: Path

    def run(self, name: str) -> RunFolder:
        """The run of that name."""
        return RunFolder(self.path / name)

    def model(self, name: str) -> Path:
        """The model of a run or stage that is done."""
        return self.path / f"{name}.safetensors"

    @property
    def record(self) -> Path:
        """What was started here."""
        return self.path / "preset.json"

    @property
    def rounded(self) -> Path:
        """The last stage's model with 8-bit weights, until its search is chosen."""
        return self.model("rounded")

    @property
    def finished(self) -> Path:
        """The model that is ready to ship."""
        return self.model("captioner")
