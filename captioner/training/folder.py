"""The files of a run, and of a recipe's runs: every name once."""

from pathlib import Path


class RunFolder:
    """Where one run lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best = path / "best.safetensors"  # the model with the best validation score
        self.last = path / "last.safetensors"  # the model after the last epoch
        self.log = path / "log.jsonl"  # a line an epoch
        self.resume = path / "resume.pt"  # all that the run needs to go on
        self.report = path / "report.html"  # the run so far, to look at

    @property
    def used(self) -> bool:
        """Something is there already."""
        return self.path.exists() and any(self.path.iterdir())


class RecipeFolder:
    """Where the runs of a recipe live, and the model of each stage beside its folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = path / "preset.json"  # what was started here
        self.rounded = self.model("rounded")  # the last stage's with 8-bit weights, until its search is chosen
        self.finished = self.model("captioner")  # ready to ship

    def run(self, name: str) -> RunFolder:
        """The run of that name."""
        return RunFolder(self.path / name)

    def model(self, name: str) -> Path:
        """The model of a run or stage that is done."""
        return self.path / f"{name}.safetensors"
