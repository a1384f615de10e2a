"""An evaluation as a web page to look at: the scores, and every picture with its caption, its references, its scores.

Promises: one file that asks nobody for anything, pictures included; whatever captions, references and names hold is
shown as text. Tables and pictures need no JavaScript, sorting and filtering do. The page itself is `page.html`, next to
this file; what repeats within it is made here.
"""

import base64
import hashlib
import html
import io
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from string import Template

import numpy as np

from captioner import __version__
from captioner.errors import ImageError
from captioner.evaluation import Difference, Evaluation
from captioner.metrics.bootstrap import SEED
from captioner.metrics.degeneration import repeats, unfinished
from captioner.pictures import read_image
from captioner.report.scores import Report, habits, warnings
from captioner.text import TOKENISER, tokenise

CARDS = 1000
"""Most pictures on a page: about 15 MB, which a browser still opens in a second."""

_SIDE, _QUALITY = 256, 75
_BARS = 30
"""Most bars of the histogram."""


class _Html(str):
    """Markup. Any other string is text, and `_fill` escapes it."""


def to_html(report: Report) -> str:
    """The page, whole; it can be written as UTF-8 whatever the captions are.

    Of more than CARDS images it shows CARDS of those whose pictures are there, taken evenly from the worst to the best,
    both included. A picture that is missing or cannot be read leaves its name in its place.
    """
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    evaluation = report.evaluation
    ranking = report.worst_first
    chosen = _chosen(evaluation, ranking)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # Pillow decodes outside the interpreter's lock
        pictures = list(pool.map(lambda index: _picture(evaluation, index), chosen))
    first_fact = next(iter(report.facts.values()), "")
    filled = _fill(
        template,
        policy=_policy(template),
        title=f"Caption evaluation: {first_fact}" if first_fact else "Caption evaluation",
        warning=_join(_fill(_WARNING, text=text) for text in warnings(report)),
        facts=_join(_fill(_FACT, name=name, text=text) for name, text in report.facts.items()),
        scores=_scores(report),
        habits=_habits(report),
        compared=_join(_comparisons(report)),
        tokeniser=TOKENISER,
        images=_counted(len(ranking), "image"),
        references=_counted(sum(map(len, evaluation.references)), "reference"),
        references_each=f"{evaluation.references_each:.2f}",
        resamples=f"{report.resamples:,}",
        version=__version__,
        seed=str(SEED),
        histogram=_histogram(evaluation),
        shown=_shown(len(ranking), len(chosen), pictures.count(None)),
        sorts=_join(_sorts(evaluation)),
        cards=_join(_cards(evaluation, chosen, pictures)),
    )
    return filled.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair cannot be written to a file


def _chosen(evaluation: Evaluation, ranking: list[int]) -> list[int]:
    """The images to show, in their order: all, or CARDS of them, of those with a picture if there are any."""
    if len(ranking) <= CARDS:
        return ranking
    sources = [image.source for image in evaluation.images]
    there = [i for i in ranking if not isinstance(source := sources[i], Path) or os.path.exists(source)]
    ranking = there or ranking
    places = np.linspace(0, len(ranking) - 1, min(CARDS, len(ranking))).round().astype(int)
    return [ranking[place] for place in places]


def _fill(template: str, **values: str) -> _Html:
    """The template with its $names filled in; text is escaped, markup is not."""
    escaped = {name: text if isinstance(text, _Html) else html.escape(text) for name, text in values.items()}
    return _Html(Template(template).substitute(escaped))


def _join(parts: Iterable[_Html]) -> _Html:
    return _Html("".join(parts))


def _policy(template: str) -> str:
    """A Content-Security-Policy: this page's own style and script, pictures inside the page, and nothing else."""
    allowed = ["default-src 'none'", "img-src data:", "base-uri 'none'", "form-action 'none'"]
    for tag in ("style", "script"):
        (inline,) = re.findall(f"<{tag}>(.*?)</{tag}>", template, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        allowed.append(f"{tag}-src 'sha256-{digest}'")
    return "; ".join(allowed)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


_WARNING = '<p class="warning"><strong>Warning.</strong> $text</p>'
_FACT = "<div><dt>$name</dt><dd>$text</dd></div>"
_TABLE = "<table><caption>$title</caption><thead><tr>$head</tr></thead><tbody>$body</tbody></table>"
_ROW = '<tr><th scope="row">$name</th>$cells</tr>'


def _table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> _Html:
    head = _join(_fill('<th scope="col">$cell</th>', cell=heading) for heading in headings)
    body = (
        _fill(_ROW, name=name, cells=_join(_fill("<td>$cell</td>", cell=cell) for cell in cells))
        for name, *cells in rows
    )
    return _fill(_TABLE, title=title, head=head, body=_join(body))


def _scores(report: Report) -> _Html:
    intervals = report.intervals
    end = max([100, *(math.ceil(high) for _, high in intervals.values())])  # CIDEr-D may go beyond 100
    rows = []
    for name, score in report.evaluation.scores.items():
        low, high = intervals[name]
        rows.append((name, f"{score:.2f}", _interval(f"{low:.2f} to {high:.2f}", (low, score, high), (0, end))))
    return _table("Scores", ("metric", "score", f"95% interval, drawn from 0 to {end}"), rows)


_INTERVAL = """<span class="interval"><span>$text</span>
<svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"><path class="axis" d="M0 5H100M$zero 1V9"/>
<rect x="$low" width="$width" y="2.5" height="5"/><path class="score" d="M$value 0V10"/></svg></span>"""


def _interval(text: str, values: tuple[float, float, float], ends: tuple[float, float]) -> _Html:
    """(low, value, high) as text and as a drawing along an axis between `ends`."""
    start, end = ends
    low, value, high, zero = (f"{100 * (x - start) / (end - start):.2f}" for x in (*values, 0))
    width = f"{max(0.5, float(high) - float(low)):.2f}"
    return _fill(_INTERVAL, text=text, low=low, width=width, value=value, zero=zero)


def _habits(report: Report) -> _Html:
    rows = [(name, ours, theirs or "–") for name, ours, theirs in habits(report.evaluation, report.vocabulary)]
    return _table("Habits", ("habit", "captions", "references"), rows)


def _comparisons(report: Report) -> Iterator[_Html]:
    if report.compared:
        other = report.compared
        yield _comparison(f"Against {other.name}", "theirs", other.differences)
        rows = [(name, theirs) for name, theirs, _ in habits(other.evaluation)]
        yield _table(f"Habits of {other.name}", ("habit", "captions"), rows)
    if report.people:
        title = f"Against one person, both with one reference less ({report.references_left:.2f} each)"
        yield _comparison(title, "person", report.people)


def _comparison(title: str, other: str, differences: Sequence[Difference]) -> _Html:
    reach = max([1, *(math.ceil(abs(end)) for one in differences for end in (one.low, one.high))])
    rows = []
    for one in differences:
        difference = one.ours - one.theirs
        text = f"{difference:+.2f} ({one.low:+.2f} to {one.high:+.2f})"
        drawn = _interval(text, (one.low, difference, one.high), (-reach, reach))
        rows.append((one.name, f"{one.ours:.2f}", f"{one.theirs:.2f}", f"{one.higher:.1%}", drawn))
    last = f"difference (95% interval), drawn from -{reach} to +{reach}"
    headings = ("metric", "ours", other, "ours higher in resamples", last)
    return _table(title, headings, rows)


_HISTOGRAM = """<figure class="histogram"><figcaption>$title</figcaption>
<svg viewBox="0 0 $bars 100" preserveAspectRatio="none" role="img" aria-label="$title">$drawn</svg>
<div><span>0</span><span>$end</span></div></figure>"""
_BAR = '<rect class="bar" x="$x" width="0.9" y="$y" height="$height"><title>$low to $high: $count</title></rect>'


def _histogram(evaluation: Evaluation) -> _Html:
    """How the images' CIDEr-D is spread, of all of them."""
    (scores,) = (metric.images for metric in evaluation.metrics if metric.name == "CIDEr-D")
    step = max(1, math.ceil(scores.max() / _BARS))
    counts = np.bincount((scores // step).astype(int).clip(max=_BARS - 1))
    drawn = []
    for place, count in enumerate(counts.tolist()):
        height = 100 * count / counts.max()
        low, high = f"{place * step}", f"{(place + 1) * step}"
        sizes = {"x": str(place), "y": f"{100 - height:.1f}", "height": f"{height:.1f}"}
        drawn.append(_fill(_BAR, low=low, high=high, count=_counted(count, "image"), **sizes))
    title = f"CIDEr-D of each image: from {scores.min():.1f} to {scores.max():.1f}, median {np.median(scores):.1f}"
    return _fill(_HISTOGRAM, title=title, bars=str(len(counts)), drawn=_join(drawn), end=str(len(counts) * step))


def _shown(images: int, shown: int, missing: int) -> str:
    text = ""
    if shown < images:
        text = f"On this page are {shown:,} of {images:,} images, taken evenly from the worst to the best by CIDEr-D. "
    if missing:
        text += f"Pictures missing or unreadable: {missing:,}."
    return text


def _sorts(evaluation: Evaluation) -> Iterator[_Html]:
    """What the cards can be sorted by: the place among a card's numbers, and 1 (the least first) or -1."""
    names = [metric.name for metric in evaluation.metrics]
    option = '<option value="$place $direction">$text</option>'
    for name in sorted(names, key=lambda name: name != "CIDEr-D"):
        for direction, word in (("1", "worst"), ("-1", "best")):
            yield _fill(option, place=str(names.index(name)), direction=direction, text=f"{word} {name} first")
    yield _fill(option, place=str(len(names)), direction="1", text="in the order of the data")


_CARD = """<article data-numbers="$numbers">$picture
<p class="caption" dir="auto">$caption</p>$tags<dl>$scores</dl><ul>$references</ul><p class="name">$name</p></article>
"""
_TAGS = '<p class="tags">$text</p>'
_PICTURE = '<img src="data:image/jpeg;base64,$data" width="$width" height="$height" alt="$alt" decoding="async">'
_NO_PICTURE = '<p class="missing">No picture<br><span>$name</span></p>'


def _cards(evaluation: Evaluation, chosen: Sequence[int], pictures: Sequence[_Html | None]) -> Iterator[_Html]:
    metrics = {metric.name: metric.images.tolist() for metric in evaluation.metrics}
    for index, picture in zip(chosen, pictures, strict=True):
        image = evaluation.images[index]
        scores = {name: values[index] for name, values in metrics.items()}
        yield _fill(
            _CARD,
            numbers=" ".join(map(str, (*scores.values(), index))),
            picture=picture or _fill(_NO_PICTURE, name=image.name),
            caption=_marked(evaluation.captions[index], evaluation.references[index]),
            tags=_tags(evaluation.hypotheses[index]),
            scores=_join(_fill(_FACT, name=name, text=f"{score:.1f}") for name, score in scores.items()),
            references=_join(_fill('<li dir="auto">$text</li>', text=text) for text in image.captions),
            name=image.name if image.name == str(image.image_id) else f"{image.name} (id {image.image_id})",
        )


def _tags(words: Sequence[str]) -> _Html:
    """What is wrong with a caption by itself."""
    found = (("repeats itself", repeats(words)), ("ends in the middle of a phrase", unfinished(words)))
    text = ", ".join(text for text, wrong in found if wrong)
    return _fill(_TAGS, text=text) if text else _Html()


def _picture(evaluation: Evaluation, index: int) -> _Html | None:
    """The image as a small JPEG inside its tag; None where it is missing or cannot be read."""
    try:
        picture = read_image(evaluation.images[index].source, at_least=_SIDE)
    except ImageError:
        return None
    picture.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY, optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    width, height = map(str, picture.size)
    return _fill(
        _PICTURE, data=data, width=width, height=height, alt=evaluation.captions[index].strip() or "no caption"
    )


def _marked(caption: str, references: Iterable[Sequence[str]]) -> _Html:
    """The caption with a mark on each word that none of the references has."""
    known = {word for tokens in references for word in tokens}
    # Hardly a token reaches over white space, so the pieces have the tokens of the whole.
    pieces = re.split(r"(\s+)", caption)
    marks = ("$piece" if known.issuperset(tokenise(piece)) else "<mark>$piece</mark>" for piece in pieces)
    return _join(_fill(mark, piece=piece) for mark, piece in zip(marks, pieces, strict=True))
