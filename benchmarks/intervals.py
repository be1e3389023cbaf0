"""The picture of what `variants.py` measured: each seed a dot, each mean with its 95 % interval, a panel a corpus.

    python benchmarks/intervals.py FILE.jsonl ... --out PICTURE.svg [--names CONTESTANT="what it is" ...]

Contestants are drawn in the order of `--names`, or of the files when no names are given.
"""

import argparse
import pathlib

from lines import finished

from jaxdistill import picture
from jaxdistill.tasks.scores import summary

COLOUR, PALE = "#0072B2", "#7FB8D8"


def draw(found: dict[str, dict[str, list[float]]], measure: str):
    """A figure of corpus → contestant → a share for each seed."""
    from matplotlib.figure import Figure

    names = list(next(iter(found.values())))
    figure = Figure(figsize=(1.9 + 2.4 * len(found), 0.8 + 0.32 * len(names)), layout="constrained")
    axes = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axis, (corpus, by_name) in zip(axes, found.items(), strict=True):
        for row, name in enumerate(names):
            percent = [100 * value for value in by_name.get(name, ())]
            if not percent:
                continue
            about = summary(percent)
            axis.scatter(percent, [row] * len(percent), s=14, color=PALE, zorder=2)
            half = about["interval"] or 0.0
            axis.errorbar(about["mean"], row, xerr=half, fmt="|", color=COLOUR, markersize=9, linewidth=1.6, zorder=3)
        axis.set_title(corpus, fontsize="medium")
        axis.grid(axis="x", color="0.92")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(names)), names, fontsize="small")
    axes[0].invert_yaxis()
    figure.supxlabel(measure, fontsize="medium")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=pathlib.Path, help="JSON lines of variants.py")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="the picture, .svg or .png")
    parser.add_argument("--names", nargs="+", default=[], metavar="CONTESTANT=NAME", help="those to draw, and how")
    options = parser.parse_args()
    picture.check(options.out)
    records = [record for path in options.files for record in finished(path)]
    # A contestant's knobs may hold equals signs; what it is called holds none.
    names = dict(pair.rsplit("=", 1) for pair in options.names)
    names = names or {record["contestant"]: record["contestant"] for record in records}
    found: dict[str, dict[str, list[float]]] = {}
    for contestant, name in names.items():
        for record in records:
            if record["contestant"] == contestant:
                for corpus, scores in record["scores"].items():
                    shares = found.setdefault(corpus, {name: [] for name in names.values()})
                    shares[name].append(scores["student"]["piece_accuracy"])
    if not found:
        raise SystemExit("none of the runs has one of these names")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    picture.save(draw(found, "masked pieces right, in percent: seeds, mean and 95 % interval"), options.out)


if __name__ == "__main__":
    main()
