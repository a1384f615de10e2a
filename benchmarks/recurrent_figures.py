"""The figures and tables of docs/recurrent-cells.md, from the results of benchmarks.recurrent_cells.

    python -m benchmarks.recurrent_figures runs/recurrent-cells/results.json docs/recurrent-cells

Writes tables.md and four SVG files. They are legible on light and dark pages: each paints its own background, which
follows the reader's colour scheme. Needs matplotlib (requirements-dev.txt).
"""

import argparse
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Okabe and Ito 2008, "Color Universal Design": told apart by colour-blind readers, and on white as on black.
BLUE, GREEN, ORANGE, PINK = "#0072b2", "#009e73", "#d55e00", "#cc79a7"
CELL_STYLES: dict[str, dict[str, Any]] = {
    "rnn": {"color": ORANGE, "linestyle": ":"},
    "gru": {"color": GREEN, "linestyle": "--"},
    "lstm": {"color": BLUE, "linestyle": "-"},
}
CLIP_STYLES: dict[float, dict[str, Any]] = {
    0.0: {"color": ORANGE, "linestyle": "-"},
    5.0: {"color": GREEN, "linestyle": "--"},
    1.0: {"color": BLUE, "linestyle": ":"},
}
RADIUS_COLOURS = (PINK, BLUE, GREEN, ORANGE)
CELL_NAMES = {"rnn": "plain RNN", "gru": "GRU", "lstm": "LSTM"}
STAGES = {"start": "before training", "trained": "trained"}
ATTENTION_NAMES = {"none": "no attention", "dot": "dot attention"}
INK, GRID, PAPER = "#1f2328", "#d1d9e0", "#ffffff"
DARK = {INK: "#e6edf3", GRID: "#3d444d", PAPER: "#0d1117", BLUE: "#56b4e9"}
STYLE = {
    "svg.fonttype": "none",  # words stay words: a browser's own font, searchable, and a small file
    "svg.hashsalt": "recurrent-cells",  # the same results give the same file
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.titlesize": 11,
    "lines.linewidth": 2,
    "legend.frameon": False,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    **dict.fromkeys(("figure.facecolor", "axes.facecolor"), PAPER),
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}


def write_all(results: Mapping[str, Any], folder: Path, *, back: int = 10) -> None:
    """Writes tables.md, with what is left of the gradient `back` words before the last, and the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = [score_table(results), difference_table(results), gradient_table(results, back=back)]
    (folder / "tables.md").write_text("\n".join(tables), encoding="utf-8")
    figures = {"distance": by_distance, "length": by_length, "radius": by_radius, "clipping": by_clipping}
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]  # a plain dict of known names
        for name, draw in figures.items():
            (folder / f"{name}.svg").write_text(_svg(draw(results)), encoding="utf-8")


# --- tables ----------------------------------------------------------------------------------------------------------


def score_table(results: Mapping[str, Any]) -> str:
    """What the six models are, what they score and what an epoch takes, as Markdown."""
    lines = [
        "| cell | attention | hidden size | parameters | BLEU-4 (95% interval) | CIDEr-D (95% interval) | distinct "
        "| best epoch | seconds an epoch | mean gradient norm |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for model in results["models"]:
        scores = [_score(model["scores"][name]) for name in ("BLEU-4", "CIDEr-D")]
        seconds, norms = model["seconds"]["median"], model["gradient_norm"]
        lines.append(
            f"| {model['cell']} | {model['attention']} | {model['hidden_size']:,} | {model['parameters']:,} "
            f"| {' | '.join(scores)} | {model['distinct']:,} | {model['best_epoch']} | {seconds:.0f} "
            f"| {min(norms):.2f} to {max(norms):.2f} |"
        )
    return "\n".join(lines) + "\n"


def difference_table(results: Mapping[str, Any]) -> str:
    """By how much two models differ on the same images, as Markdown."""
    names = ("BLEU-4", "CIDEr-D")
    lines = [
        f"| ours | theirs | {' | '.join(f'{name}: ours - theirs (95% interval)' for name in names)} |",
        "|---" * 4 + "|",
    ]
    for pair in results["differences"]:
        parts = [[_signed(pair[name][part]) for part in ("difference", "low", "high")] for name in names]
        cells = [f"{difference} ({low} to {high})" for difference, low, high in parts]
        lines.append(f"| {pair['ours']} | {pair['theirs']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def gradient_table(results: Mapping[str, Any], *, back: int) -> str:
    """What is left of the gradient `back` words before the last, before and after training, as Markdown."""
    lines = [
        f"| cell | attention | left {back} words back, before training | a word | trained | a word "
        "| kept by the gate, before | trained | spectral radius, before | trained |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for model in results["models"]:
        stages = [model["reach"][stage] for stage in STAGES]
        left = [stage["distance"][back]["mean"] for stage in stages]
        cells = [f"{_percent(share)} | × {share ** (1 / back):.2f}" for share in left]
        for name in ("kept", "radius"):
            cells += ["" if stage[name] is None else f"{stage[name]:.2f}" for stage in stages]
        lines.append(f"| {model['cell']} | {model['attention']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _score(values: Mapping[str, float]) -> str:
    return f"{values['score']:.1f} ({values['low']:.1f} to {values['high']:.1f})"


def _signed(value: float) -> str:
    return f"{round(value, 1) + 0.0:+.1f}"  # + 0.0: no minus before a zero


def _percent(share: float) -> str:
    """A share as a percentage of two significant digits."""
    return f"{float(f'{100 * share:.2g}'):,g}%"


# --- figures ---------------------------------------------------------------------------------------------------------


def by_distance(results: Mapping[str, Any]) -> Figure:
    """What is left of the gradient against the words it travelled, for the three cells, four panels."""
    figure, panels = _panels("words before the last", "gradient left (last word = 1)")
    for (attention, stage), axes in panels.items():
        for model in _of(results, attention):
            spreads = model["reach"][stage]["distance"]
            _band(axes, range(len(spreads)), spreads, model["cell"])
    return _finish(figure, panels[("none", "start")])


def by_length(results: Mapping[str, Any]) -> Figure:
    """What is left of the gradient at the first word against the caption's length, for the three cells, four panels."""
    figure, panels = _panels("words in the caption", "gradient left at the first word\n(last word = 1)")
    for (attention, stage), axes in panels.items():
        for model in _of(results, attention):
            spreads = model["reach"][stage]["length"]
            _band(axes, list(map(int, spreads)), list(spreads.values()), model["cell"])
    return _finish(figure, panels[("none", "start")])


def by_radius(results: Mapping[str, Any]) -> Figure:
    """A plain RNN before training, its recurrent matrix scaled: measured, and without tanh."""
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for entry, colour in zip(results["radius"], RADIUS_COLOURS, strict=True):
        radius, means = entry["radius"], [spread["mean"] for spread in entry["distance"]]
        distances = range(len(means))
        axes.plot(distances, means, color=colour, label=f"radius {radius:g}")
        axes.plot(distances, [radius**distance for distance in distances], color=colour, linestyle=":", linewidth=1.2)
    axes.plot([], [], color=INK, linestyle=":", linewidth=1.2, label="powers of the radius")
    axes.set(yscale="log", xlabel="words before the last", ylabel="gradient left (last word = 1)")
    return _finish(figure, axes)


def by_clipping(results: Mapping[str, Any]) -> Figure:
    """The norm of the gradient and the loss at each step of short trainings, with and without clipping."""
    runs = results["clipping"]
    settings = list(dict.fromkeys(run["setting"] for run in runs))
    figure = Figure(figsize=(10, 6), layout="constrained")
    grid = figure.subplots(2, len(settings), sharex=True, sharey="row", squeeze=False)
    for column, setting in zip(grid.T, settings, strict=True):
        for run in (run for run in runs if run["setting"] == setting):
            label = f"clipped to {run['clip_norm']:g}" if run["clip_norm"] else "never clipped"
            for axes, values in zip(column, (run["norm"], run["loss"]), strict=True):
                axes.plot(
                    range(1, len(values) + 1), values, label=label, linewidth=1.5, **CLIP_STYLES[run["clip_norm"]]
                )
        column[0].set(title=setting, yscale="log")
        column[1].set(xlabel="step", yscale="log")
    grid[0, 0].set_ylabel("gradient norm before clipping")
    grid[1, 0].set_ylabel("loss, nats a word")
    return _finish(figure, grid[0, 0])


def _of(results: Mapping[str, Any], attention: str) -> Iterable[Mapping[str, Any]]:
    return (model for model in results["models"] if model["attention"] == attention)


def _panels(xlabel: str, ylabel: str) -> tuple[Figure, dict[tuple[str, str], Axes]]:
    """Two rows, without and with attention, and two columns, before and after training; the axes are the same."""
    figure = Figure(figsize=(9, 7), layout="constrained")
    grid = figure.subplots(len(ATTENTION_NAMES), len(STAGES), sharex=True, sharey=True)
    panels = {}
    for row, attention in zip(grid, ATTENTION_NAMES, strict=True):
        for axes, stage in zip(row, STAGES, strict=True):
            axes.set(title=f"{ATTENTION_NAMES[attention]}, {STAGES[stage]}", yscale="log")
            panels[(attention, stage)] = axes
        row[0].set_ylabel(ylabel)
    for axes in grid[-1]:
        axes.set_xlabel(xlabel)
    return figure, panels


def _band(axes: Axes, places: Sequence[int], spreads: Sequence[Mapping[str, float]], cell: str) -> None:
    """A line through the means and a band between the quartiles."""
    low, high = ([spread[side] for spread in spreads] for side in ("low", "high"))
    axes.fill_between(places, low, high, color=CELL_STYLES[cell]["color"], alpha=0.2, linewidth=0)
    axes.plot(places, [spread["mean"] for spread in spreads], label=CELL_NAMES[cell], **CELL_STYLES[cell])


def _finish(figure: Figure, source: Axes) -> Figure:
    """Whole numbers on the horizontal axes, and one legend above all panels, from the named lines of `source`."""
    for axes in figure.axes:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))  # words and steps come whole
    lines, names = source.get_legend_handles_labels()
    figure.legend(lines, names, loc="outside upper center", ncols=len(lines))
    return figure


def _svg(figure: Figure) -> str:
    """The figure as SVG, with other ink and paper where the reader's colour scheme is dark."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    # Matplotlib writes colours into style attributes; only !important outweighs these. Whatever shows SVG and knows
    # no media queries shows the light figure.
    rules = "".join(
        f'[style*="{kind}: {light}"] {{ {kind}: {dark} !important }}\n'
        for light, dark in DARK.items()
        for kind in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme: dark) {{\n{rules}}}</style>\n <defs>"
    lines = file.getvalue().replace("<defs>", style, 1).splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"


def main() -> None:
    """Draws again what was measured before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("folder", type=Path)
    chosen = parser.parse_args()
    write_all(json.loads(chosen.results.read_text(encoding="utf-8")), chosen.folder)


if __name__ == "__main__":
    main()
