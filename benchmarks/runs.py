"""What benchmarks of whole runs share: experiments from words, knobs after `--`, and an interval."""

import dataclasses
from collections.abc import Sequence

from jaxdistill import knobs
from jaxdistill.experiment import Experiment
from jaxdistill.run import Run
from jaxdistill.tasks.scores import summary


def experiment(config: str, words: Sequence[str]) -> Experiment:
    """What `jaxdistill train CONFIG WORDS...` trains."""
    made = knobs.load(config)
    joined = knobs.join(made, Run)
    values, run = joined(**knobs.parse(joined, words))
    return dataclasses.replace(made(**values), run=Run(**run))


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """A benchmark's own arguments, and the knobs after `--`."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1 :]


def interval(values: list[float], places: int = 4) -> str:
    """Mean and the half-width of its 95 % t-interval."""
    found = summary(values)
    half = "(one seed)" if found["interval"] is None else f"± {found['interval']:.{places}f}"
    return f"{found['mean']:+.{places}f} {half}"
