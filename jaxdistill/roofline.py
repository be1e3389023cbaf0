"""The least time of a training step: its work, divided by what the hardware can do of each kind of it."""

import dataclasses
import math
from collections.abc import Mapping

from jaxdistill import step as steps
from jaxdistill import traffic, tree
from jaxdistill.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class Work:
    """What each device has to do in a step.

    Attributes:
      flops: of matrix products.
      moved: bytes between the device and its memory.
      sent: bytes to other devices.
    """

    flops: float
    moved: float
    sent: float


@dataclasses.dataclass(frozen=True)
class Rates:
    """What each device can do in a second, in the units of `Work`; a rate of 0 is of what does not happen."""

    flops: float
    moved: float
    sent: float


def terms(work: Work, rates: Rates) -> dict[str, float]:
    """Seconds that a step's work takes, each kind by itself: `compute`, `memory` and `network`."""
    pairs = {
        "compute": (work.flops, rates.flops),
        "memory": (work.moved, rates.moved),
        "network": (work.sent, rates.sent),
    }
    return {name: amount / rate if amount else 0.0 for name, (amount, rate) in pairs.items()}


def work(experiment: Experiment, mesh_shape: Mapping[str, int]) -> Work:
    """The work of a step for each device; `run.micro_batch` says how often it goes through the parameters.

    Bytes to other devices are `traffic.least_bytes`. Bytes of memory are those of matrix products, which read two
    arrays and write one, once in the forward pass and twice in the backward pass; all that is computed element by
    element is taken to happen on the way. Besides, a step reads its gradients, parameters and two moments, and writes
    the latter three anew, each device its share; gradients are added up whole, and with shares the parameters are
    gathered whole once a step and the gradients given out from there.
    """
    data, devices = experiment.data, math.prod(mesh_shape.values())
    pieces = data.batch // (experiment.run.micro_batch * devices or data.batch)
    total = 0.0
    for view, want in experiment.running().items():
        config, length = experiment.models[experiment.reader(view)], data.length
        passes, size = 3 if experiment.learns(view) else 1, 2 if config.dtype == "bfloat16" else 4
        kernels = config.layers * (4 * config.hidden**2 + 2 * config.hidden * config.ffn)
        wide = length * (12 * config.hidden + 2 * (config.hidden + config.ffn)) + 2 * config.heads * length**2
        places = (length if "transformed" in want else data.predictions) if config.mlm else 0
        vocab = config.vocab
        if data.views[view].mixed_with:
            vocab += experiment.models[experiment.mixed.other].vocab
        head = places * (3 * config.hidden * size + 4 * vocab)
        kernels += (config.hidden**2 + vocab * config.hidden) * config.mlm
        rows = data.batch / devices
        total += passes * (rows * (config.layers * wide * size + head) + pieces * size * kernels)
    state = traffic.state_shapes(experiment)
    trained = sum(math.prod(leaf.shape) * 4 for leaf in tree.flatten(state["trained"]).values())
    shares = mesh_shape["fsdp"]
    total += (7 / shares + 2 * (pieces - 1) + 2 * (shares > 1)) * trained
    return Work(steps.flops_per_step(experiment) / devices, total, traffic.least_bytes(experiment, mesh_shape)["total"])
