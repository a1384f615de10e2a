"""Everything `evaluate` has to say, as a table for people, as JSON for programs, and image by image."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from captioner.evaluation import Difference, Evaluation
from captioner.text import TOKENISER


@dataclass(frozen=True)
class Report:
    """An evaluation with where it came from and what it was held against."""

    facts: dict[str, str]
    """What was scored, and on what: "model", "search", "data" and the like, each in a line."""
    evaluation: Evaluation
    resamples: int
    """Draws of the bootstrap behind every interval."""
    vocabulary: tuple[int, int] | None = None
    """Words of the model's vocabulary that its captions used, and all it has; None for captions from elsewhere."""
    compared: tuple[str, list[Difference]] | None = None
    """The other results file, and how its scores differ."""
    people: list[Difference] | None = None
    """One person instead of the captions, on the same other references."""

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """The 95% bootstrap interval of each metric's score, over images."""
        return self.evaluation.intervals(self.resamples)

    @property
    def worst_first(self) -> list[int]:
        """Positions of the images by CIDEr-D, then ROUGE-L, the lowest first: BLEU-4 is 0 for most single captions."""
        images = {metric.name: metric.images for metric in self.evaluation.metrics}
        keys = list(zip(images["CIDEr-D"].tolist(), images["ROUGE-L"].tolist(), strict=True))
        return sorted(range(len(keys)), key=keys.__getitem__)


def table(report: Report) -> str:
    """The report as lines of text, scores times 100."""
    evaluation = report.evaluation
    lines = [f"{name:12}{text}" for name, text in report.facts.items()]
    lines += ["", "metric      score   95% interval"]
    for name, score in evaluation.scores.items():
        low, high = report.intervals[name]
        lines.append(f"{name:10}{score:7.2f}   {low:.2f} to {high:.2f}")
    lines.append("")
    for name, value, of_references in habits(report):
        lines.append(f"{name:32}{value}{f' (references {of_references})' if of_references else ''}")
    if report.compared:
        name, differences = report.compared
        lines += ["", *_difference_lines(f"against {name}", ("ours", "theirs"), differences)]
    if report.people:
        title = f"against one person, both with one reference less ({evaluation.references_each - 1:.2f} each)"
        lines += ["", *_difference_lines(title, ("ours", "person"), report.people)]
    if evaluation.complaint:
        lines += ["", evaluation.complaint]
    return "\n".join(lines)


def habits(report: Report) -> list[tuple[str, str, str]]:
    """What the captions are like, beside the scores: a name, the captions' value, and the references' ("": none)."""
    evaluation = report.evaluation
    ours, people = evaluation.habits
    count = len(evaluation.captions)
    rows = [
        ("words a caption", f"{evaluation.length:.1f}", f"{evaluation.reference_length:.1f}"),
        ("equal a reference", f"{evaluation.exact:.1f}%", ""),
        ("different captions", f"{evaluation.distinct:,} of {count:,} ({evaluation.distinct / count:.1%})", ""),
        ("repeat themselves", f"{ours.repeating:.1%}", f"{people.repeating:.1%}"),
        ("end in the middle of a phrase", f"{ours.unfinished:.1%}", f"{people.unfinished:.1%}"),
    ]
    if ours.empty:
        rows.append(("have no word", f"{ours.empty:.1%}", f"{people.empty:.1%}"))
    if report.vocabulary:
        used, size = report.vocabulary
        rows.append(("model's words used", f"{used:,} of {size:,} ({used / size:.1%})", ""))
    return rows


def _difference_lines(title: str, sides: tuple[str, str], differences: Sequence[Difference]) -> Iterator[str]:
    yield title
    yield f"{'metric':10}{sides[0]:>7}{sides[1]:>9}   difference, 95% interval      higher in"
    for one in differences:
        interval = f"{one.ours - one.theirs:+.2f}, {one.low:+.2f} to {one.high:+.2f}"
        yield f"{one.name:10}{one.ours:7.2f}{one.theirs:9.2f}   {interval:28}  {one.better:.1%} of resamples"


def record(report: Report) -> dict[str, Any]:
    """The report as plain values for JSON; shares in 0..1, scores times 100."""
    evaluation = report.evaluation
    ours, people = evaluation.habits
    result: dict[str, Any] = {
        **report.facts,
        "tokeniser": TOKENISER,
        "images": len(evaluation.images),
        "references": sum(map(len, evaluation.references)),
        "metrics": {
            name: {"score": score, **dict(zip(("low", "high"), report.intervals[name], strict=True))}
            for name, score in evaluation.scores.items()
        },
        "resamples": report.resamples,
        "length": evaluation.length,
        "reference_length": evaluation.reference_length,
        "exact": evaluation.exact / 100,
        "distinct": evaluation.distinct,
        "habits": asdict(ours),
        "reference_habits": asdict(people),
        "degenerate": evaluation.complaint,
    }
    if report.vocabulary:
        result["vocabulary"] = dict(zip(("used", "size"), report.vocabulary, strict=True))
    if report.compared:
        name, differences = report.compared
        result["compared"] = {"with": name, "metrics": _by_name(differences)}
    if report.people:
        result["person"] = {"references": evaluation.references_each - 1, "metrics": _by_name(report.people)}
    return result


def _by_name(differences: Sequence[Difference]) -> dict[str, dict[str, float]]:
    return {one.name: {key: value for key, value in asdict(one).items() if key != "name"} for one in differences}


def image_records(report: Report) -> Iterator[dict[str, Any]]:
    """One record an image, the worst first: its id, caption, references and scores times 100."""
    evaluation = report.evaluation
    scores = {metric.name: metric.images for metric in evaluation.metrics}
    for index in report.worst_first:
        image = evaluation.images[index]
        yield {
            "image_id": image.image_id,
            "caption": evaluation.captions[index],
            "references": list(image.captions),
            "scores": {name: float(values[index]) for name, values in scores.items()},
        }
