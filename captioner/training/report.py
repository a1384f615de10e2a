"""Runs as a web page to look at: curves over the epochs, samples, options, times.

Promises: one file that asks nobody for anything, and needs no JavaScript; whatever names and captions hold is shown as
text.
"""

import base64
import contextlib
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from captioner.errors import ImageError
from captioner.files import printable, write_atomically
from captioner.pictures import ImageSource, read_image
from captioner.training.folder import RunFolder
from captioner.training.history import History, options_of, rows

if TYPE_CHECKING:
    from captioner.datasets.dataset import CaptionedImage

_STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf8; --ink: #22252a; --quiet: #5d636c; --line: #dcdad5; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181b; --ink: #e7e6e3; --quiet: #a5abb3; --line: #363b41; } }
* { box-sizing: border-box; }
body { background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
main { max-width: 90rem; margin: auto; padding: .5rem clamp(0rem, 2vw, 2rem); }
.quiet, figcaption, thead { color: var(--quiet); font-size: .875rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); gap: 1.5rem; }
figure { margin: 0; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--quiet); font-size: 11px; }
.frame { stroke: var(--line); fill: none; }
polyline { fill: none; stroke-width: 2; }
.scroll { overflow-x: auto; overflow-wrap: normal; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
thead th { white-space: nowrap; }
th, td { padding: .3rem 1rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
img { max-width: 8rem; border-radius: .25rem; }
"""

# Okabe and Ito (2008): told apart by those, too, who see red and green alike; readable on light and on dark.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#a6761d", "#56b4e9", "#e69f00", "#7570b3")
_WIDTH, _HEIGHT, _LEFT, _FOOT = 400, 180, 56, 20
_SIDE = 160
"""Longest side of a sample picture, in pixels."""

Line = tuple[str, list[tuple[int, float]]]
"""A curve: its name, and its value by epoch."""


def to_html(histories: Sequence[History], *, total: int | None = None) -> str:
    """The page of a run, or of several beside each other; `total` epochs are planned."""
    (first, *others) = histories
    title = f"{len(histories)} runs" if others else f"Run {first.name}"
    so_far = f"{len(first.epochs)} of {total} epochs. " if total else ""
    parts = [f"<h1>{_text(title)}</h1>", f'<p class="quiet">{so_far}Scores are of the validation split.</p>']
    parts += [_table(*rows(histories)), f'<div class="charts">{"".join(_charts(histories))}</div>']
    if not others:
        parts += [_samples(first), "<h2>Epochs</h2>", _epochs(first)]
        if first.options:
            parts += ["<h2>Options</h2>", _table(["option", "value"], [list(pair) for pair in first.options.items()])]
    head = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        'img-src data:"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body><main>"
    )
    return f"{head}{''.join(parts)}</main></body></html>\n"


def write_report(
    folder: RunFolder,
    log: Sequence[dict[str, Any]],
    header: dict[str, Any],
    images: Sequence["CaptionedImage"],
    *,
    total: int,
) -> None:
    """Writes the page of a run under way into its folder; `header` is that of its models, `images` has its samples.

    A page that cannot be written stops no run.
    """
    samples = {name for name, *_ in log[-1]["samples"]}
    sources = {image.name: image.source for image in images if image.name in samples}
    shown = {name: address for name, source in sources.items() if (address := _address(source))}
    page = to_html([History(printable(folder.path), log, options_of(header), shown)], total=total)
    with contextlib.suppress(OSError):
        write_atomically(folder.report, lambda part: part.write_text(page, encoding="utf-8"))


def _address(picture: ImageSource) -> str:
    """A small copy as a data: address; "" where the picture cannot be read any more."""
    try:
        copy = read_image(picture, at_least=_SIDE)
    except ImageError:
        return ""
    copy.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    copy.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _charts(histories: Sequence[History]) -> list[str]:
    """A chart a quantity, a curve a run; for one run alone, scores have a curve a data set too."""
    charts = []
    for key in ("loss", "reward", "gradient_norm", "learning_rate"):
        title = key.capitalize().replace("_", " ")
        charts.append(_chart(title, [(run.name, _values(run, key)) for run in histories]))
    for key in ("BLEU-4", "CIDEr-D", "distinct"):
        lines: list[Line] = [(run.name, _values(run, "val", key)) for run in histories]
        if len(histories) == 1:
            sets = dict.fromkeys(name for entry in histories[0].epochs for name in entry["val"].get("data_sets", {}))
            lines = [("all", lines[0][1])] if sets else lines
            lines += [(name, _values(histories[0], "val", "data_sets", name, key)) for name in sets]
        charts.append(_chart({"distinct": "Different captions"}.get(key, key), lines))
    return [chart for chart in charts if chart]


def _values(run: History, *keys: str) -> list[tuple[int, float]]:
    """What stands under the keys in each epoch that has it."""
    found = []
    for entry in run.epochs:
        value: Any = entry
        for key in keys:
            value = value.get(key, {}) if isinstance(value, dict) else {}
        if isinstance(value, int | float):
            found.append((int(entry["epoch"]), float(value)))
    return found


def _chart(title: str, lines: Sequence[Line]) -> str:
    lines = [line for line in lines if line[1]]
    if not lines:
        return ""
    last = max(epoch for _, points in lines for epoch, _ in points)
    values = [value for _, points in lines for _, value in points]
    low, high = min(values), max(values)
    span = high - low or 1.0
    legend, curves = [], []
    for number, (name, points) in enumerate(lines):
        colour = _COLOURS[number % len(_COLOURS)]
        places = [
            (
                _LEFT + (epoch - 1) / max(last - 1, 1) * (_WIDTH - _LEFT - 8),
                8 + (high - value) / span * (_HEIGHT - _FOOT - 16),
                f"{name}, epoch {epoch}: {value:.4g}",
            )
            for epoch, value in points
        ]
        curves.append(f'<polyline stroke="{colour}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)}"/>')
        curves += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"><title>{_text(told)}</title></circle>'
            for x, y, told in places
        ]
        legend.append(f'<span style="color: {colour}">■</span> {_text(name)} {points[-1][1]:.4g}')
    frame = f'<path class="frame" d="M{_LEFT},4V{_HEIGHT - _FOOT}H{_WIDTH - 4}"/>'
    labels = (
        f'<text x="0" y="14">{high:.3g}</text><text x="0" y="{_HEIGHT - _FOOT - 4}">{low:.3g}</text>'
        f'<text x="{_LEFT}" y="{_HEIGHT - 4}">epoch 1</text>'
        f'<text x="{_WIDTH - 4}" y="{_HEIGHT - 4}" text-anchor="end">{last}</text>'
    )
    start = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{_text(title)}, {low:.4g} to {high:.4g}">'
    picture = f"{start}{frame}{labels}{''.join(curves)}</svg>"
    return f"<figure><h2>{_text(title)}</h2>{picture}<figcaption>{' &nbsp; '.join(legend)}</figcaption></figure>"


def _samples(run: History) -> str:
    """The captions of the sample pictures, epoch by epoch where they change."""
    told: dict[str, list[tuple[int, str]]] = {}
    references: dict[str, str] = {}
    for entry in run.epochs:
        for name, caption, reference in entry.get("samples", []):
            references[name] = reference
            said = told.setdefault(name, [])
            if not said or said[-1][1] != caption:
                said.append((entry["epoch"], caption))
    if not told:
        return ""
    body = []
    for name, captions in told.items():
        picture = f'<img src="{_text(run.pictures[name])}" alt=""><br>' if name in run.pictures else ""
        lines = "".join(f"<li value='{epoch}'>{_text(caption)}</li>" for epoch, caption in captions)
        person = f'<p class="quiet">A person: {_text(references[name])}</p>'
        body.append(f"<tr><td>{picture}{_text(name)}</td><td><ol>{lines}</ol>{person}</td></tr>")
    return (
        '<h2>Samples</h2><p class="quiet">What was written of them, from the epoch at its left on.</p>'
        f'<div class="scroll"><table>{"".join(body)}</table></div>'
    )


def _epochs(run: History) -> str:
    names = [name for name, value in run.epochs[-1].items() if isinstance(value, int | float)]
    scores = [name for name, value in run.epochs[-1]["val"].items() if isinstance(value, int | float)]
    body = [
        [f"{entry.get(name, ''):.6g}" if name in entry else "" for name in names]
        + [f"{entry['val'].get(name, '')}" for name in scores]
        + [f"{seconds:.0f}" for seconds in entry["seconds"].values()]
        for entry in run.epochs
    ]
    return _table([*names, *scores, *(f"{name}, s" for name in run.epochs[-1]["seconds"])], body)


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{_text(cell)}</th>" for cell in head)
    lines = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in body)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'


def _text(text: str) -> str:
    return html.escape(text).encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair goes into no file
