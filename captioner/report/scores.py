"""Everything `evaluate` has to say, as a table for people, as JSON for programs, and image by image."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from captioner import __version__
from captioner.evaluation import Difference, Evaluation
from captioner.metrics.bootstrap import SEED
from captioner.metrics.degeneration import repeats, unfinished
from captioner.text import TOKENISER


@dataclass(frozen=True)
class Comparison:
    """Another system's captions of the same images."""

    name: str
    evaluation: Evaluation
    differences: list[Difference]


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
    compared: Comparison | None = None
    people: list[Difference] | None = None
    """One person instead of the captions, on the same other references."""

    @property
    def made_by(self) -> str:
        """What made the scores, for whoever wants to make them again."""
        return f"captioner {__version__}, tokens {TOKENISER}; intervals from {self.resamples:,} resamples, seed {SEED}"

    @property
    def references_left(self) -> float:
        """References an image when one is left out."""
        references, images = sum(map(len, self.evaluation.references)), len(self.evaluation.images)
        return (references - images) / images

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
    lines = [f"{name:12}{text}" for name, text in {**report.facts, "scores": report.made_by}.items()]
    lines += ["", "metric      score   95% interval"]
    for name, score in report.evaluation.scores.items():
        low, high = report.intervals[name]
        lines.append(f"{name:10}{score:7.2f}   {low:.2f} to {high:.2f}")
    lines += ["", *_part_lines(report.evaluation)] if report.evaluation.parts else []
    lines.append("")
    for name, value, of_references in habits(report.evaluation, report.vocabulary):
        lines.append(f"{name:32}{value}{f' (references {of_references})' if of_references else ''}")
    if report.people:
        title = f"against one person, both with one reference less ({report.references_left:.2f} each)"
        lines += ["", *_difference_lines(title, ("ours", "person"), report.people)]
    if report.compared:
        other = report.compared
        lines += ["", *_difference_lines(f"against {other.name}", ("ours", "theirs"), other.differences)]
        lines += [f"theirs: {name} {value}" for name, value, _ in habits(other.evaluation)]
    lines += ["", *warnings(report)] if warnings(report) else []
    return "\n".join(lines)


def _part_lines(evaluation: Evaluation) -> Iterator[str]:
    """The scores of each data set, where several were joined; those above are of all images together."""
    yield f"{'data set':16}" + "".join(f"{name:>9}" for name in evaluation.scores) + "   images"
    for name, part in evaluation.parts.items():
        scores = "".join(f"{score:9.2f}" for score in part.scores.values())
        yield f"{name[:15]:16}{scores}{len(part.images):9,}"


def warnings(report: Report) -> list[str]:
    """A line for each set of captions that is degenerate, and for whatever makes scores say little."""
    ours = _told(report.evaluation)
    theirs = _told(report.compared.evaluation) if report.compared else []
    return [*ours, *(f"{report.compared.name}: {line}" for line in theirs if report.compared and line not in ours)]


def _told(evaluation: Evaluation) -> list[str]:
    return [*filter(None, [evaluation.complaint]), *evaluation.remarks]


def habits(evaluation: Evaluation, vocabulary: tuple[int, int] | None = None) -> list[tuple[str, str, str]]:
    """What captions are like, beside their scores: a name, the captions' value, and the references' ("": none)."""
    ours, people = evaluation.habits
    count, ratio = len(evaluation.captions), evaluation.length_ratio
    penalty = f", brevity penalty {math.exp(1 - 1 / ratio):.3f}" if 0 < ratio < 1 else ""
    rows = [
        (
            "words a caption",
            f"{evaluation.length:.1f}, at most {evaluation.longest:,}",
            f"{evaluation.reference_length:.1f}",
        ),
        ("length ratio", f"{ratio:.3f}{penalty}", ""),
        ("equal a reference", f"{evaluation.exact:.1f}%", ""),
        ("different captions", f"{evaluation.distinct:,} of {count:,} ({evaluation.distinct / count:.1%})", ""),
        ("repeat themselves", f"{ours.repeating:.1%}", f"{people.repeating:.1%}"),
        ("end in the middle of a phrase", f"{ours.unfinished:.1%}", f"{people.unfinished:.1%}"),
    ]
    if ours.empty:
        rows.append(("have no word", f"{round(ours.empty * count):,} of {count:,}", ""))
    if vocabulary:
        used, size = vocabulary
        rows.append(("model's words used", f"{used:,} of {size:,} ({used / size:.1%})", ""))
    return rows


def _difference_lines(title: str, sides: tuple[str, str], differences: Sequence[Difference]) -> Iterator[str]:
    yield title
    yield f"{'metric':10}{sides[0]:>7}{sides[1]:>9}   difference (95% interval)     {sides[0]} higher in"
    for one in differences:
        interval = f"{one.ours - one.theirs:+.2f} ({one.low:+.2f} to {one.high:+.2f})"
        yield f"{one.name:10}{one.ours:7.2f}{one.theirs:9.2f}   {interval:28}  {one.higher:.1%} of resamples"


def to_dict(report: Report) -> dict[str, Any]:
    """The report as plain values for JSON; shares in 0..1, scores times 100."""
    evaluation = report.evaluation
    ours, people = evaluation.habits
    result: dict[str, Any] = {
        **report.facts,
        "captioner": __version__,
        "tokeniser": TOKENISER,
        "images": len(evaluation.images),
        "references": sum(map(len, evaluation.references)),
        "metrics": {
            name: {"score": score, **dict(zip(("low", "high"), report.intervals[name], strict=True))}
            for name, score in evaluation.scores.items()
        },
        "resamples": report.resamples,
        "seed": SEED,
        "length": evaluation.length,
        "longest": evaluation.longest,
        "reference_length": evaluation.reference_length,
        "length_ratio": evaluation.length_ratio if math.isfinite(evaluation.length_ratio) else None,
        "exact": evaluation.exact / 100,
        "distinct": evaluation.distinct,
        "habits": asdict(ours),
        "reference_habits": asdict(people),
        "degenerate": evaluation.complaint,
        "remarks": warnings(report),
    }
    if evaluation.parts:
        result["data_sets"] = {name: part.summary() for name, part in evaluation.parts.items()}
    if report.vocabulary:
        result["vocabulary"] = dict(zip(("used", "size"), report.vocabulary, strict=True))
    if report.compared:
        other = report.compared
        result["compared"] = {
            "with": other.name,
            "metrics": _by_name(other.differences),
            "habits": asdict(other.evaluation.habits[0]),
            "degenerate": other.evaluation.complaint,
        }
    if report.people:
        result["person"] = {"references": report.references_left, "metrics": _by_name(report.people)}
    return result


def _by_name(differences: Sequence[Difference]) -> dict[str, dict[str, float]]:
    return {
        one.name: {
            "ours": one.ours,
            "theirs": one.theirs,
            "difference": one.ours - one.theirs,
            "low": one.low,
            "high": one.high,
            "higher": one.higher,
        }
        for one in differences
    }


def per_image(report: Report) -> Iterator[dict[str, Any]]:
    """An object an image, the worst first: its id, caption, references, scores times 100, and habits."""
    evaluation = report.evaluation
    scores = {metric.name: metric.images for metric in evaluation.metrics}
    for index in report.worst_first:
        image = evaluation.images[index]
        yield {
            "image_id": image.image_id,
            "caption": evaluation.captions[index],
            "references": list(image.captions),
            "scores": {name: round(float(values[index]), 6) for name, values in scores.items()},
            "repeats": repeats(evaluation.hypotheses[index]),
            "unfinished": unfinished(evaluation.hypotheses[index]),
        }
