"""The command `plan`, whose options are a config's knobs and where it might run."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated

from jaxdistill import knobs
from jaxdistill.errors import UserError
from jaxdistill.usage import PLAN


def _where(
    hardware: Annotated[str, "v5e-32, v6e-8, v4-32, h200-1, cpu-2, ...: as Google names its slices", "The plan"] = "",
    price_per_hour: Annotated[str, "of all of it, or NAME=PRICE,NAME=PRICE of those compared"] = "",
    compare: Annotated[bool, "a table over all hardware that is known"] = False,
    calibrate: Annotated[bool, "measure the device here first, in about two minutes, and keep what was found"] = False,
):
    """Where a run might go."""


def plan(arguments: Sequence[str]) -> None:
    """Says what a run would take on hardware that is not here."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(PLAN.format(names=", ".join(knobs.names())))
        return
    own, config = _own(arguments)
    if {"-h", "--help"} & set(config[1:]):
        from jaxdistill.run import Run

        print(knobs.help(knobs.join(knobs.load(config[0]), _where, Run)))
        return
    where = knobs.parse(_where, own)
    if where["calibrate"]:
        _calibrate()
        if not config:
            return
    if not config:
        raise UserError(f"name a config: {', '.join(knobs.names())}, or the path of your own")
    from jaxdistill import chips, quote
    from jaxdistill import plan as plans

    names = list(chips.COMPARED) if where["compare"] else []
    names += [where["hardware"]] if where["hardware"] and where["hardware"] not in names else []
    if not names:
        if where["calibrate"]:
            return
        raise UserError("name the --hardware, such as v5e-32, or --compare all that is known")
    hardware = [chips.find_hardware(name) for name in names]
    prices = plans.prices(where["price_per_hour"], hardware)
    print(f"compiling the step for {', '.join(names)}: seconds for each", file=sys.stderr)
    job, made = plans.plan(config, hardware)
    if where["compare"]:
        print(quote.comparison(job, dict(zip(names, made, strict=True)), prices))
        return
    if isinstance(made[0], UserError):
        raise made[0]
    print(quote.lines(job, made[0], prices.get(names[0])))


def _own(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options of `plan` itself, and the rest: a config and its knobs."""
    switches = {knob.option: knob.switch for knob in knobs.of(_where)}
    own, rest, words = [], [], list(arguments)
    while words:
        word = words.pop(0)
        name, equals, _ = word.partition("=")
        name = name.replace("_", "-")
        (own if name in switches else rest).append(word)
        if name in switches and not switches[name] and not equals and words:
            own.append(words.pop(0))
    return own, rest


def _calibrate() -> None:
    from jaxdistill import calibration

    if (load := os.getloadavg()[0]) > calibration.cores() / 2:
        print(
            f"others compute here too (load {load:.1f}): what is measured now will foretell too much", file=sys.stderr
        )
    for dtype in ("float32", "bfloat16"):
        name = calibration.name_here(dtype)
        made = calibration.calibrate(dtype)
        calibration.keep(name, made)
        costs = ", ".join(f"{1e9 * each:.3g} s for 10^9 {kind}" for kind, each in made.seconds.items())
        print(f"{name}: {made.flops / 1e9:,.0f} GFLOP/s, {made.moved / 1e9:,.1f} GB/s; in steps {costs}")
    print(f"kept in {calibration.path()}")
