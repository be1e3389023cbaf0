"""What a run would take on hardware that is not here: bytes, seconds, hours and money, before anything is paid."""

import dataclasses
import math
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from jaxdistill import bert, calibration, knobs, memory, program, roofline, standins, traffic, tree
from jaxdistill.chips import Hardware
from jaxdistill.errors import UserError
from jaxdistill.experiment import Data, Experiment
from jaxdistill.inputs import open_inputs
from jaxdistill.run import Run

EFFICIENCY = (0.2, 0.5)
"""Share of the roofline that steps of BERTs reach where nothing was measured: the paper's job took two to four days on
32 TPU cores, which is 28 to 57 % of the roofline if they were v2, and 11 to 21 % if they were v3."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A run that is planned.

    Attributes:
      arguments: its config and knobs, as typed, with those of stand-ins.
      experiment: what they make.
      batch: the shapes of a batch.
      told: what is supposed, in words.
      windows: of the corpus, or rows of the task; 0 when not known.
    """

    arguments: Sequence[str]
    experiment: Experiment
    batch: Mapping[str, Any]
    told: Sequence[str]
    windows: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run would take on some hardware.

    Attributes:
      hardware: where.
      experiment: the run, with rows at a time chosen for that hardware.
      mesh_shape: devices along `data` and `fsdp`.
      sizes: bytes on each device: `parameters`, `optimizer`, `batch`, `temporary`.
      room: bytes that a program has there.
      work: of a step, on each device.
      terms: seconds of each kind of work at the hardware's peak; empty where it is not known.
      seconds: of a step, from a calibration of such devices; None without one.
    """

    hardware: Hardware
    experiment: Experiment
    mesh_shape: Mapping[str, int]
    sizes: Mapping[str, int]
    room: float
    work: roofline.Work
    terms: Mapping[str, float]
    seconds: float | None

    @property
    def total(self) -> int:
        """Bytes on each device."""
        return sum(self.sizes.values())

    @property
    def bound(self) -> str:
        """The kind of work that takes the longest."""
        return max(self.terms, key=self.terms.__getitem__)

    @property
    def least(self) -> float | None:
        """Seconds of a step on the roofline: those of the longest kind of work."""
        return max(self.terms.values()) if self.terms else None

    @property
    def hours(self) -> tuple[float, float] | None:
        """Of the whole run, from and to; None where neither a data sheet nor a calibration says it."""
        if self.seconds is not None:
            ends = (self.seconds, self.seconds)
        elif self.least is not None:
            ends = (self.least / EFFICIENCY[1], self.least / EFFICIENCY[0])
        else:
            return None
        return ends[0] * self.experiment.steps / 3600, ends[1] * self.experiment.steps / 3600


def plan(arguments: Sequence[str], hardware: Sequence[Hardware]) -> tuple[Job, list[Plan | UserError]]:
    """Plans a run on each hardware.

    Args:
      arguments: a config and its knobs, as typed; stand-ins are made of a corpus, a vocabulary and a teacher's shape
        that they do not name.
      hardware: where it might run.

    Returns:
      The job, and for each hardware a plan, or why it can't run there.

    Raises:
      UserError: the arguments make no experiment, or what they name can't be read.
    """
    with tempfile.TemporaryDirectory(prefix="jaxdistill-plan-") as folder:
        job = read_job(arguments, pathlib.Path(folder))
        return job, plans(job, hardware)


def plans(job: Job, hardware: Sequence[Hardware]) -> list[Plan | UserError]:
    """What a job would take on each hardware, or why it can't run there; its files must still be there."""
    settled = [_settle(job.experiment, each) for each in hardware]
    asked = [(run.devices, run.fsdp, run.micro_batch) for run in settled if isinstance(run, Run)]
    compiled = program.temporary_bytes(job.arguments, job.batch, list(dict.fromkeys(asked))) if asked else []
    temporary = dict(zip(dict.fromkeys(asked), compiled, strict=True))
    return [
        run if isinstance(run, UserError) else _plan(job, each, run, temporary)
        for each, run in zip(hardware, settled, strict=True)
    ]


def read_job(arguments: Sequence[str], folder: pathlib.Path) -> Job:
    """The run that a command line asks for, with stand-ins made in a folder for what it does not name."""
    config = knobs.load(arguments[0])
    made = standins.stand_ins(config, folder)
    words = [arguments[0], *standins.arguments(made, arguments[1:])]
    values = knobs.parse(knobs.join(config, Run), words[1:])
    told = [meaning for name, (path, meaning) in made.items() if values[name] == path]
    experiment = program.experiment_of(words)
    inputs = open_inputs(experiment.data)
    given = not isinstance(experiment.data, Data) or experiment.data.corpus != made["corpus"][0]
    if given:
        inputs.batches(experiment.data, experiment.seed)
    return Job(words, experiment, program.batch_shapes(experiment, inputs), told, len(inputs) if given else 0)


def _settle(experiment: Experiment, hardware: Hardware) -> Run | UserError:
    """Devices and rows at a time on some hardware, as training would choose them there; or why it can't run."""
    run = experiment.run
    devices = run.devices or hardware.devices
    try:
        if devices > hardware.devices:
            raise UserError(f"devices={devices}, but {hardware.name} has {hardware.devices}")
        if devices % run.fsdp:
            raise UserError(f"fsdp={run.fsdp} does not divide the {devices} devices: choose a divisor")
        rows = memory.choose_micro_batch(experiment, devices, int(_room(hardware)), cpu=not hardware.chip)
    except UserError as error:
        return error
    return dataclasses.replace(run, devices=devices, micro_batch=rows)


def _room(hardware: Hardware) -> float:
    return hardware.chip.room if hardware.chip else memory.available_bytes()


def _plan(job: Job, hardware: Hardware, run: Run, temporary: Mapping[tuple[int, int, int], int]) -> Plan:
    experiment = dataclasses.replace(job.experiment, run=run)
    mesh_shape = {"data": run.devices // run.fsdp, "fsdp": run.fsdp}
    sizes = program.argument_bytes(experiment, mesh_shape, job.batch)
    sizes |= {"temporary": temporary[run.devices, run.fsdp, run.micro_batch]}
    work = roofline.work(experiment, mesh_shape)
    dtype = next(iter(experiment.models.values())).dtype
    measured = calibration.read(f"{hardware.name.partition('-')[0]}/{dtype}")
    rates, slower = None, 1.0
    if hardware.chip:
        chip = hardware.chip
        rates = roofline.Rates(chip.rate(dtype) / chip.devices, chip.bandwidth / chip.devices, hardware.link)
    elif measured:
        slower = measured.cores / hardware.chips
        rates = roofline.Rates(measured.flops / slower, measured.moved / slower, 0.0)
    terms = roofline.terms(work, rates) if rates else {}
    seconds = None
    if measured:
        took = calibration.seconds(measured, calibration.effort(experiment, mesh_shape))
        seconds = took * slower + terms["network"]
    return Plan(hardware, experiment, mesh_shape, sizes, _room(hardware), work, terms, seconds)


def parameters(experiment: Experiment) -> dict[str, int]:
    """How many parameters each model has, and the bridge."""
    counts = {role: bert.parameter_count(config) for role, config in experiment.models.items()}
    bridge = traffic.state_shapes(experiment)["trained"].get(tree.BRIDGE, {})
    helpers = sum(math.prod(leaf.shape) for leaf in tree.flatten(bridge).values())
    return counts | ({tree.BRIDGE: helpers} if helpers else {})


def prices(text: str, hardware: Sequence[Hardware]) -> dict[str, float]:
    """What each hardware costs an hour: `38.4` for the only one, or `v5e-32=38.4,v6e-8=21.6`.

    Raises:
      UserError: it is neither, or names hardware that is not planned.
    """
    found = {}
    for part in filter(None, text.split(",")):
        name, equals, price = part.rpartition("=")
        if not equals:
            name = hardware[0].name if len(hardware) == 1 else ""
        try:
            found[name] = float(price)
        except ValueError:
            raise UserError(f"--price-per-hour {part}: {price!r} is not a number") from None
        if name not in {each.name for each in hardware} or not 0 <= found[name] < math.inf:
            raise UserError(
                f"--price-per-hour {part}: give the price of all of --hardware, or NAME=PRICE,NAME=PRICE of those shown"
            )
    return found
