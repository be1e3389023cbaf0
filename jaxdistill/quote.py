"""A plan as an offer: what it takes, how long and how much, as text for people."""

import math
from collections.abc import Mapping

from jaxdistill.errors import UserError
from jaxdistill.plan import EFFICIENCY, Job, Plan, parameters
from jaxdistill.table import table

_MOST = 3
"""Figures of a number that are shown: more would promise what no plan keeps."""


def lines(job: Job, plan: Plan, price: float | None = None) -> str:
    """What a run would take on some hardware.

    Args:
      job: the run.
      plan: it, there.
      price: of that hardware for an hour.
    """
    made, sizes, run, work = plan.experiment, plan.sizes, plan.experiment.run, plan.work
    data, devices = made.data, math.prod(plan.mesh_shape.values())
    lines = [f"{made.name} on {plan.hardware}", *(f"  {told}" for told in job.told)]
    shapes = made.models.items()
    counts = parameters(made)
    for role, shape in shapes:
        lines.append(f"  {role}: {shape.layers} x {shape.hidden}, {shape.vocab:,} pieces, {counts[role]:,} parameters")
    lines += [f"  {role}: {count:,} parameters" for role, count in counts.items() if role not in made.models]
    lines.append(
        f"  {made.steps:,} steps of {data.batch:,} rows of {data.length}, {run.micro_batch} rows at a time on each of "
        f"{devices} devices (data {plan.mesh_shape['data']}, fsdp {plan.mesh_shape['fsdp']})"
        + (f", {made.steps * data.batch / job.windows:,.1f} epochs" if job.windows else "")
    )
    held = ", ".join(f"{name} {_size(sizes[name])}" for name in ("parameters", "optimizer", "batch"))
    lines.append(
        f"  bytes per device: {held}, activations and gradients {_size(sizes['temporary'])}: {_size(plan.total)} of "
        f"{_size(plan.room)}, {_fits(plan)}"
    )
    lines.append(
        f"  a step on each device: {_short(work.flops / 1e12)} TFLOP, {_short(work.moved / 1e9)} GB to and from memory"
        f", {_short(work.sent / 1e9)} GB to other devices"
    )
    if plan.terms:
        terms = ", ".join(f"{name} {_short(1000 * took)} ms" for name, took in plan.terms.items())
        hours = _short(plan.least * made.steps / 3600)
        lines.append(
            f"  roofline: {_short(1000 * plan.least)} ms a step, bound by {plan.bound} ({terms}): {hours} hours"
        )
    if plan.seconds is not None:
        lines.append(f"  calibrated: {_short(plan.seconds)} s a step, {_hours(plan)} hours")
    elif plan.hours:
        lines.append(f"  expected: {_hours(plan)} hours, at {EFFICIENCY[1]:.0%} to {EFFICIENCY[0]:.0%} of that")
    else:
        lines.append("  hours: not known before `jaxdistill plan --calibrate` has run once on such a machine")
    if price is not None and plan.hours:
        lines.append(f"  price: {_price(plan, price)}, at {price:g} an hour")
    return "\n".join(lines)


def comparison(job: Job, plans: Mapping[str, Plan | UserError], prices: Mapping[str, float]) -> str:
    """A run on several hardware, one a line, and below why it can't run on some.

    Args:
      job: the run.
      plans: by the name of the hardware.
      prices: of some of them, for an hour.
    """
    header = ["hardware", "devices", "rows", "GiB", "of", "fits", "ms, least", "bound by", "hours"]
    rows = []
    for name, plan in plans.items():
        if isinstance(plan, UserError):
            rows.append([name, *["-"] * (len(header) - 1), *(["-"] if prices else [])])
            continue
        cells = [
            *(name, str(math.prod(plan.mesh_shape.values())), str(plan.experiment.run.micro_batch)),
            *(f"{plan.total / 2**30:.1f}", f"{plan.room / 2**30:.1f}", "yes" if plan.total <= plan.room else "no"),
            *((_short(1000 * plan.least), plan.bound) if plan.terms else ("-", "-")),
            (_hours(plan) if plan.hours else "-") + ("" if plan.seconds is None else " *"),
        ]
        if prices:
            cells.append(_price(plan, prices[name]) if name in prices and plan.hours else "-")
        rows.append(cells)
    made, data = job.experiment, job.experiment.data
    title = f"{made.name}: {made.steps:,} steps of {data.batch:,} rows of {data.length}"
    notes = [f"{name}: {plan}" for name, plan in plans.items() if isinstance(plan, UserError)]
    if any(isinstance(plan, Plan) and plan.seconds is not None for plan in plans.values()):
        notes.append("* calibrated; the others at 50 % to 20 % of the roofline")
    return "\n".join([title, *job.told, table([*header, *(["price"] if prices else [])], rows), *notes])


def _short(value: float) -> str:
    """Three figures, never an exponent."""
    digits = max(_MOST - 1 - math.floor(math.log10(abs(value))), 0) if value else 0
    return f"{value:,.{digits}f}"


def _size(size: float) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def _fits(plan: Plan) -> str:
    return "fits" if plan.total <= plan.room else "DOES NOT FIT: fewer rows at a time (--micro-batch), or --fsdp"


def _hours(plan: Plan) -> str:
    first, last = plan.hours
    return _short(first) if first == last else f"{_short(first)} to {_short(last)}"


def _price(plan: Plan, price: float) -> str:
    first, last = (_short(hours * price) for hours in plan.hours)
    return first if first == last else f"{first} to {last}"
