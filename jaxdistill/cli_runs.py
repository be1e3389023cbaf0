"""The commands whose options are a config's knobs: `train`, `cache` and `finetune`."""

import dataclasses
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from jaxdistill import knobs, member, signals
from jaxdistill.errors import UserError
from jaxdistill.usage import CACHE, FINETUNE, TRAIN


def _where(
    workdir: Annotated[str, "the run's folder: checkpoints, metrics, scores", "The run"],
    dry_run: Annotated[bool, "build everything, print sizes and costs, train nothing"] = False,
    fallback: Annotated[bool, "go on from the checkpoint before one that can't be restored"] = False,
    accept: Annotated[str, "what may differ from the run in the workdir: config,data,versions, or one of them"] = "",
    cache: Annotated[str, "a folder that `jaxdistill cache` made with the same knobs; the masks are then its own"] = "",
):
    """Where a run lives."""


def _cache_where(
    out: Annotated[str, "the folder to write", "The cache"],
    top: Annotated[int, "pieces whose chances are kept at each position; the others count as one"] = 8,
    masks: Annotated[int, "seed of the masks, which every run with this cache has"] = 0,
):
    """Where a cache lives."""


def _sweep_where(
    workdir: Annotated[str, "the folder of all runs and of results.json", "The runs"],
    seeds: Annotated[int, "how many seeds, from 0 on"] = 1,
    accept: Annotated[str, "what may differ from runs in the workdir: config,data,versions, or one of them"] = "",
):
    """Where the runs of a sweep live."""


def _asked(command: str, usage: str, places: Callable, arguments: Sequence[str]) -> tuple[Any, dict] | None:
    """The experiment that a config and its knobs ask for, and the values of `places`; None when help was printed."""
    names = ", ".join(knobs.names())
    if not arguments:
        raise UserError(f"name a config: {names}, or the path of your own; `jaxdistill {command} --help` says more")
    if arguments[0] in ("-h", "--help"):
        print(usage.format(names=names))
        return None
    from jaxdistill.experiment import Experiment
    from jaxdistill.run import Run

    function = knobs.load(arguments[0])
    joined = knobs.join(function, places, Run)
    if {"-h", "--help"} & set(arguments[1:]):
        print(knobs.help(knobs.join(function, places, Run, member.options)))
        return None
    config, where, run = joined(**knobs.parse(joined, arguments[1:]))
    check_places(where)
    experiment = function(**config)
    if not isinstance(experiment, Experiment):
        raise UserError(
            f"{arguments[0]}: its function `config` returned {type(experiment).__name__}, not an Experiment"
        )
    return dataclasses.replace(experiment, run=Run(**run)), where


def check_places(options: dict[str, Any]) -> None:
    """Raises UserError for an empty path, as of a shell variable that is not set: it would mean the current folder."""
    for name in ("out", "workdir", "json"):
        if options.get(name) == "":
            raise UserError(f"--{name} is empty: name a place, or . for the current folder")


def train(arguments: Sequence[str]) -> None:
    """Trains a config in a workdir."""
    asked = _asked("train", TRAIN, _where, arguments)
    if asked is None:
        return
    experiment, where = asked
    if where["cache"]:
        from jaxdistill.cache import using

        experiment = using(experiment, where["cache"])
    if where["dry_run"]:
        from jaxdistill.dry_run import dry_run

        print("\n".join(dry_run(experiment, where["workdir"])))
        return
    import jax

    from jaxdistill.train import train

    command = shlex.join(["jaxdistill", "train", *arguments])
    out = sys.stdout if jax.process_index() == 0 else sys.stderr
    result = train(
        experiment,
        where["workdir"],
        notify=lambda line: print(line, file=out),
        fallback=where["fallback"],
        accept=_accepted(where["accept"]),
        command=command,
    )
    if result.stopped:
        signals.stop(result.stopped)
    if result.scores:
        from jaxdistill.report import run_table

        print(run_table(result.scores))


def _accepted(words: str) -> list[str]:
    from jaxdistill.manifest import KINDS

    accepted = words.split(",") if words else []
    if unknown := [word for word in accepted if word not in KINDS]:
        raise UserError(f"--accept {unknown[0]}: there are {', '.join(KINDS)}")
    return accepted


def cache(arguments: Sequence[str]) -> None:
    """Computes once what a teacher that does not train computes."""
    asked = _asked("cache", CACHE, _cache_where, arguments)
    if asked is None:
        return
    from jaxdistill.cache import build, static

    experiment, where = asked
    size = build(static(experiment, where["masks"]), where["out"], where["top"])
    print(f"wrote {where['out']}, {size} bytes a position; next: jaxdistill train ... --cache {where['out']}")


def finetune(arguments: Sequence[str]) -> None:
    """Trains a config over seeds and a grid of its knobs, and says which setting is best."""
    from jaxdistill.sweep import read_grid, sweep

    own, grid = _without_grid(arguments)
    values = read_grid(grid)
    first = [f"--{name}={each[0]}" for name, each in values.items()]
    asked = _asked("finetune", FINETUNE, _sweep_where, [*own, *first])
    if asked is None:
        return
    from jaxdistill.report import sweep_table

    _, where = asked
    if where["seeds"] < 1:
        raise UserError(f"--seeds {where['seeds']}: give at least 1")
    given = {knobs.spelled(word) for word in own if word.startswith("--")}
    for name in ("seed", *values):
        if name in given or name in ("workdir", "seeds"):
            raise UserError(f"--{name}: seeds are --seeds N, and a knob is either in the grid or beside it")
    outcomes = sweep(
        lambda more: _asked("finetune", FINETUNE, _sweep_where, [*own, *more])[0],
        where["workdir"],
        seeds=where["seeds"],
        grid=values,
        accept=_accepted(where["accept"]),
        command=shlex.join(["jaxdistill", "finetune", *arguments]),
    )
    if outcomes:
        print(sweep_table(outcomes))


def _without_grid(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments but for `--grid WORD WORD ...`, and those words."""
    own, grid, inside = [], [], False
    for word in arguments:
        name, equals, value = word.partition("=")
        inside = name == "--grid" or (inside and not word.startswith("--"))
        if name != "--grid":
            (grid if inside else own).append(word)
        elif equals:
            grid.append(value)
    if not grid and any(word.partition("=")[0] == "--grid" for word in arguments):
        raise UserError("--grid needs knobs with their values: --grid learning-rate=5e-5,2e-5 batch=16,32")
    return own, grid
