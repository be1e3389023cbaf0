"""The mesh and where each array lies on it: batches over all devices, parameters over the fsdp axis if there is one."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxdistill import bert, distributed, tree
from jaxdistill.errors import UserError
from jaxdistill.tree import Tree

ORDER = ("vocab", "ffn", "hidden", "positions")
"""Logical axes in the order in which they are tried for sharding; the layer axis never is."""


def make_mesh(fsdp: int = 1, devices: int = 0) -> jax.sharding.Mesh:
    """A mesh with axes (data, fsdp) over the given number of devices, all of them when 0.

    Devices are in the order of their processes, so that the rows of each process are one piece of the batch;
    `jax.make_mesh` may take another order, by how chips are wired.

    Raises:
      UserError: there are not that many devices, or fsdp does not divide their number.
    """
    count = devices or jax.device_count()
    if count > jax.device_count():
        raise UserError(f"devices={count}, but this machine has {jax.device_count()}")
    if fsdp < 1 or count % fsdp:
        raise UserError(f"fsdp={fsdp} does not divide the {count} devices: choose a divisor")
    shape = (count // fsdp, fsdp)
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))[:count]
    return jax.sharding.Mesh(np.array(devices).reshape(shape), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def batch_sharding(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Rows over every device."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def everywhere(params: Tree, mesh: jax.sharding.Mesh) -> Tree:
    """A tree that every process has alike, whole on every device of the mesh."""
    return distributed.put(params, jax.tree.map(lambda _: replicated(mesh), params))


def _spec(name: str, shape: tuple[int, ...], size: int) -> PartitionSpec:
    role, _, rest = name.partition("/")
    if size == 1 or role in (tree.BRIDGE, tree.CONSTANTS):
        return PartitionSpec()
    axes = tree.first_match(bert.AXES, rest)
    for wanted in ORDER:
        for index, axis in enumerate(axes):
            if axis == wanted and shape[index] % size == 0:
                return PartitionSpec(*(("fsdp" if i == index else None) for i in range(len(axes))))
    return PartitionSpec()


def parameter_shardings(params: Mapping[str, Any], mesh: jax.sharding.Mesh) -> dict:
    """Shardings of trees of arrays or shapes by role: the first axis of `ORDER` that the fsdp size divides, or none."""
    size = mesh.shape["fsdp"]
    return tree.map_names(lambda name, leaf: NamedSharding(mesh, _spec(name, leaf.shape, size)), params)


def optimizer_shardings(transform: optax.GradientTransformation, state: Any, shardings: Any, mesh) -> Any:
    """Shardings of an optax state: moments lie where their parameters do, counters everywhere."""
    return optax.tree.map_params(
        transform, lambda _, sharding: sharding, state, shardings, transform_non_params=lambda _: replicated(mesh)
    )


def summed_over(mesh: jax.sharding.Mesh, function: Callable) -> Callable:
    """Has every device run a function on its own rows, and adds what they find, once and at the end.

    Left to itself the compiler adds gradients where they arise: once for every layer, chunk and micro-batch in a loop.
    And where parameters are sharded it moves activations to them.

    Args:
      mesh: of at least two devices.
      function: `(trained, frozen, batch, rows, *shared) -> (gradients, sums, same)`: gradients shaped as `trained`,
        sums to add over the devices, and what is the same on all of them.

    Returns:
      The function on global arrays. Sharded parameters are gathered before it, and their gradients scattered after.
    """
    batch = PartitionSpec(("data", "fsdp"))

    def whole(leaf, spec):
        return jax.lax.all_gather(leaf, "fsdp", axis=spec.index("fsdp"), tiled=True) if "fsdp" in spec else leaf

    def added(leaf, spec):
        if "fsdp" not in spec:
            return jax.lax.psum(leaf, ("data", "fsdp"))
        leaf = jax.lax.psum_scatter(leaf, "fsdp", scatter_dimension=spec.index("fsdp"), tiled=True)
        return jax.lax.psum(leaf, "data")

    def run(trained, frozen, *arguments):
        places = [
            jax.tree.map(lambda place: place.spec, parameter_shardings(params, mesh)) for params in (trained, frozen)
        ]

        def local(trained, frozen, *arguments):
            trained, frozen = jax.tree.map(whole, (trained, frozen), tuple(places))
            gradients, sums, same = function(trained, frozen, *arguments)
            return jax.tree.map(added, gradients, places[0]), jax.lax.psum(sums, ("data", "fsdp")), same

        # Inside, arrays are as they are on one device: which of them differ between devices need not be tracked.
        specs = (*places, batch, batch, *(PartitionSpec() for _ in arguments[2:]))
        outs = (places[0], PartitionSpec(), PartitionSpec())
        return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=outs, check_vma=False)(
            trained, frozen, *arguments
        )

    return run
