"""The picture of a comparison: accuracy against each cost, a panel for each, every marker with its name beside it."""

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxdistill import files
from jaxdistill.errors import UserError

_COLOURS = ("#0072B2", "#C85200", "#00805E", "#B0508C", "#7A6000", "#2E8BC0", "#000000")
"""Those of Okabe and Ito, which colour-blind readers tell apart too, dark enough for names on white."""
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _GAP = 3.9, 3.6, 0.95, 0.8, 0.15, 0.25
"""Inches: of a panel, and around and between panels."""
_DPI = 150
_AROUND = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
_DISTANCES = (6, 14, 26, 40, 56)

Box = tuple[float, float, float, float]


def check_matplotlib() -> None:
    """Raises UserError when matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserError("a picture needs matplotlib, which is not installed: pip install 'jaxdistill[plot]'") from None


def check(path: pathlib.Path) -> None:
    """Raises UserError when no picture can be drawn, or none saved at `path`."""
    check_matplotlib()
    if path.suffix not in (".png", ".svg"):
        raise UserError(f"a picture as {str(path)!r}: name a file that ends with .png or .svg")
    files.check_writable(path)


def draw(
    accuracy: Mapping[str, float], measure: str, costs: Mapping[str, Mapping[str, float]], hollow: Sequence[str] = ()
) -> Any:
    """A `matplotlib` figure with a panel for each cost, on a logarithmic axis, and one scale of accuracy for all.

    Args:
      accuracy: of each model, a share.
      measure: what the accuracy is of.
      costs: label of a panel → model → cost; a model whose cost is not known is left out and named below.
      hollow: models whose markers are hollow: they are not finished.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    width = _LEFT + len(costs) * (_WIDTH + _GAP)
    height = _BOTTOM + _HEIGHT + _TOP
    figure = Figure(figsize=(width, height), dpi=_DPI)
    axes = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
    figure.subplots_adjust(_LEFT / width, _BOTTOM / height, 1 - _GAP / width, 1 - _TOP / height, _GAP / _WIDTH)
    colours = dict(zip(accuracy, itertools.cycle(_COLOURS), strict=False))
    axes[0].set_ylabel(measure)
    axes[0].yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    spread = max(accuracy.values()) - min(accuracy.values()) or max(accuracy.values()) or 1
    axes[0].set_ylim(min(accuracy.values()) - 0.08 * spread, max(accuracy.values()) + 0.12 * spread)
    for axis, (label, found) in zip(axes, costs.items(), strict=True):
        absent = [name for name in accuracy if name not in found]
        axis.set_xlabel(label + (f"\n(not known: {', '.join(absent)})" if absent else ""))
        axis.grid(color="0.92")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        _scale(axis, list(found.values()))
        for name, cost in found.items():
            face = "none" if name in hollow else (colours[name], 0.6)
            axis.scatter(cost, accuracy[name], s=60, facecolor=face, edgecolor=colours[name], linewidth=1.5, zorder=3)
        _name(axis, {name: (cost, accuracy[name]) for name, cost in found.items()}, colours)
    if hollow:
        figure.text(0.1 / width, 0.1 / height, "hollow: not finished", fontsize="small", color="0.4")
    return figure


def save(figure: Any, path: pathlib.Path) -> None:
    """Writes a figure as `.png` or `.svg`; equal figures give equal bytes."""
    import matplotlib

    kind = path.suffix[1:]
    undated = {"svg": {"Date": None}, "png": {"Software": None}}[kind]
    with matplotlib.rc_context({"svg.hashsalt": "jaxdistill"}), files.atomic(path) as temporary:
        figure.savefig(temporary, format=kind, metadata=undated)


def _scale(axis: Any, values: Sequence[float]) -> None:
    """A logarithmic axis with room on both sides for names and ticks to read it by."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = min(values) / 2.5, max(values) * 2.5
    axis.set_xscale("log")
    axis.set_xlim(low, high)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 500 else (1,)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))


def _short(value: float) -> str:
    """0.5, 20, 5k, 1M, 2e9."""
    if value >= 1e9:
        return f"{value:.0e}".replace("e+0", "e").replace("e+", "e")
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _name(axis: Any, points: Mapping[str, tuple[float, float]], colours: Mapping[str, str]) -> None:
    """Writes each name beside its point, where it hides no marker and no other name."""
    scale = _DPI / 72
    centres = {name: tuple(axis.transData.transform(point)) for name, point in points.items()}
    taken = [_box(*centre, 5 * scale, 5 * scale) for centre in centres.values()]
    panel = axis.get_window_extent()
    for name in sorted(points, key=lambda name: centres[name]):
        text = axis.annotate(name, points[name], fontsize="small", ha="center", va="center_baseline")
        extent = text.get_window_extent()
        text.remove()
        half = extent.width / 2 + scale, extent.height / 2
        places = []
        for distance, (right, up) in itertools.product(_DISTANCES, _AROUND):
            apart = distance * scale / (abs(right) + abs(up)) ** 0.5
            shift = right * (apart + half[0]), up * (apart + half[1])
            box = _box(centres[name][0] + shift[0], centres[name][1] + shift[1], *half)
            inside = _overlap(box, (panel.x0, panel.y0, panel.x1, panel.y1))
            outside = 4 * half[0] * half[1] - inside
            hidden = round(outside + sum(_overlap(box, other) for other in taken))  # whole pixels: no rounding decides
            places.append((hidden, len(places), distance, shift, box))
        _, _, distance, shift, box = min(places)
        taken.append(box)
        line = {"arrowstyle": "-", "color": colours[name], "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}
        axis.annotate(
            name,
            points[name],
            xytext=(shift[0] / scale, shift[1] / scale),
            textcoords="offset points",
            ha="center",
            va="center_baseline",
            fontsize="small",
            color=colours[name],
            arrowprops=line if distance > _DISTANCES[0] else None,
        )


def _box(x: float, y: float, half_width: float, half_height: float) -> Box:
    return x - half_width, y - half_height, x + half_width, y + half_height


def _overlap(one: Box, other: Box) -> float:
    """The area that two boxes share."""
    width, height = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    return max(width, 0.0) * max(height, 0.0)
