"""Bytes that devices have to send each other in a training step, by formula: the least that its sharding needs."""

import dataclasses
import math
from collections.abc import Mapping

import jax
from jax.sharding import AbstractMesh

from jaxdistill import sharding, tree
from jaxdistill import step as steps
from jaxdistill.experiment import Experiment
from jaxdistill.initial import Random


def all_reduce(size: float, devices: int) -> float:
    """Bytes that each of some devices sends so that all have the sum of `size` bytes: a scatter and a gather."""
    return 2 * all_gather(size, devices)


def all_gather(size: float, devices: int) -> float:
    """Bytes that each of some devices sends so that all have an array of `size` bytes whose parts they hold.

    A reduce-scatter of an array of `size` bytes is the same backwards and sends as much.
    """
    return size * (devices - 1) / devices


def state_shapes(experiment: Experiment) -> steps.State:
    """The shapes of `step.init_state`; they do not depend on where parameters start, so no weights are read."""
    anywhere = dataclasses.replace(experiment, start=dict.fromkeys(experiment.start, Random()))
    return jax.eval_shape(lambda: steps.init_state(anywhere))


def least_bytes(experiment: Experiment, mesh_shape: Mapping[str, int]) -> dict[str, float]:
    """Bytes that each device sends in a step, at least, with bandwidth-optimal collectives (rings).

    Counted, in the parameters' own float32, once for a step however often it accumulates:

    - `all_reduce`: the sum of the gradients of what every device holds whole, over all devices; and of the shards of
      what is sharded, over the data axis. An all-reduce of B bytes over n devices sends 2 B (n - 1) / n from each.
    - `all_gather`: parameters that are sharded over the fsdp axis, brought together once for the whole step (models of
      this size fit a device; their moments and gradients stay sharded): B (f - 1) / f.
    - `reduce_scatter`: the sum of the gradients of what is sharded, over the fsdp axis: B (f - 1) / f.

    So with fsdp = 1 all of it is one all-reduce of the gradients. Left out are scalars (losses, counts, norms) and the
    batch, which each process makes for its own devices.

    Args:
      experiment: what runs.
      mesh_shape: devices along `data` and `fsdp`, such as `mesh.shape`.

    Returns:
      Bytes by the names above, and their sum as `total`.
    """
    data, fsdp = mesh_shape["data"], mesh_shape["fsdp"]
    mesh, state = AbstractMesh((data, fsdp), ("data", "fsdp")), state_shapes(experiment)
    sent = {"all_reduce": 0.0, "all_gather": 0.0, "reduce_scatter": 0.0}
    for part in ("trained", "frozen"):
        places = tree.flatten(sharding.parameter_shardings(state[part], mesh))
        for name, leaf in tree.flatten(state[part]).items():
            size = math.prod(leaf.shape) * leaf.dtype.itemsize
            sharded = any(places[name].spec)
            if sharded:
                sent["all_gather"] += all_gather(size, fsdp)
            if part == "trained" and sharded:
                sent["reduce_scatter"] += all_gather(size, fsdp)
                sent["all_reduce"] += all_reduce(size / fsdp, data)
            elif part == "trained":
                sent["all_reduce"] += all_reduce(size, data * fsdp)
    return sent | {"total": sum(sent.values())}
