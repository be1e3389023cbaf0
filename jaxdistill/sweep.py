"""The same config over seeds and values of its knobs: every run resumable, one table, the best by the dev split."""

import dataclasses
import itertools
import os
from collections.abc import Callable, Collection, Mapping, Sequence

import jax

from jaxdistill import files, knobs, signals
from jaxdistill.errors import Diverged, UserError
from jaxdistill.experiment import Experiment
from jaxdistill.places import place
from jaxdistill.tasks.scores import summary
from jaxdistill.train import train

RESULTS = "results.json"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one setting scored.

    Attributes:
      setting: knobs and their values, as text; {} without a grid.
      scores: by measure, that of every seed that came to its end; the first measure is the headline.
      folders: the workdirs of these seeds.
      diverged: how many others came to numbers that are not finite.
    """

    setting: Mapping[str, str]
    scores: Mapping[str, Sequence[float]]
    folders: Sequence[str]
    diverged: int = 0

    @property
    def headline(self) -> float:
        """The mean of the first measure; below all where any seed diverged."""
        return -float("inf") if self.diverged else summary(next(iter(self.scores.values())))["mean"]


def read_grid(words: Sequence[str]) -> dict[str, list[str]]:
    """A grid from `["learning-rate=5e-5,2e-5", "alpha=0.2,0.5"]`.

    Raises:
      UserError: a word is not written so, or names a knob twice.
    """
    grid: dict[str, list[str]] = {}
    for word in words:
        name, _, values = word.partition("=")
        name = knobs.spelled(name)
        listed = values.split(",")
        if not name or "" in listed or name in grid or len(set(listed)) < len(listed):
            raise UserError(f"--grid {word}: write each knob once, with its values: learning-rate=5e-5,2e-5")
        grid[name] = listed
    if "seed" in grid:
        raise UserError("--grid seed=...: seeds are --seeds")
    if other := {"task", "source", "columns", "dev"} & set(grid):
        raise UserError(f"--grid {min(other)}=...: scores of other examples do not compare; one sweep for each task")
    return grid


def sweep(
    make: Callable[[Sequence[str]], Experiment],
    workdir: str | os.PathLike,
    *,
    seeds: int,
    grid: Mapping[str, Sequence[str]],
    notify: Callable[[str], None] = print,
    accept: Collection[str] = ("versions",),
    command: str = "",
) -> list[Outcome]:
    """Trains every setting with every seed; run again, it goes on with what is missing.

    Args:
      make: an experiment from further arguments of the command line, such as `["--seed", "1"]`.
      workdir: holds a folder for every setting, with one for every seed, and `results.json`.
      seeds: how many, from 0 on.
      grid: values to try, by knob.
      notify: is told, a line at a time, what happens.
      accept: what may differ from the runs in the workdir, as of `train`.
      command: the command line that asks for this.

    Returns:
      The settings in the grid's order.

    Raises:
      UserError: there is nothing to score, or see `train`.
      KeyboardInterrupt: SIGINT stopped a run, whose last step is saved; SIGTERM raises SystemExit.
    """
    workdir = place(workdir)
    settings = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    made = {
        (number, seed): make([f"--{knob}={value}" for knob, value in (setting | {"seed": str(seed)}).items()])
        for number, setting in enumerate(settings)
        for seed in range(seeds)
    }
    for experiment in made.values():
        heads = [shape.classifier or shape.spans or shape.mlm for shape in experiment.models.values()]
        if not experiment.data.held_out or not any(heads):
            raise UserError("the config scores nothing, so nothing would tell its runs apart: `jaxdistill train` it")
    found: dict[int, Outcome] = {}
    for (number, seed), experiment in made.items():
        setting = settings[number]
        name = ",".join(f"{knob}={value}" for knob, value in setting.items())
        folder = workdir / name.replace("/", "_") / f"seed-{seed}"
        notify(f"{name or experiment.name}, seed {seed}:")
        before = found.get(number, Outcome(setting, {}, ()))
        try:
            how = {"accept": accept, "command": command, "programs": workdir / "programs"}
            result = train(experiment, folder, notify=notify, **how)
        except Diverged as error:
            notify(f"diverged: {error}")
            found[number] = dataclasses.replace(before, diverged=before.diverged + 1)
            continue
        if result.stopped:
            signals.stop(result.stopped)
        scores = result.scores["student" if "student" in result.scores else next(iter(result.scores))]
        both = {measure: [*before.scores.get(measure, ()), value] for measure, value in scores.items()}
        found[number] = dataclasses.replace(before, scores=both, folders=[*before.folders, str(folder)])
    if jax.process_index() == 0:
        files.write_json(workdir / RESULTS, [dataclasses.asdict(outcome) for outcome in found.values()])
    return list(found.values())
