"""The training step: one pure, jitted function from (state, batch) to (state, metrics)."""

import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxdistill import bert, optim, sharding, tree
from jaxdistill.data.vocab import read_vocabulary
from jaxdistill.dropout import row_seeds
from jaxdistill.errors import UserError
from jaxdistill.experiment import Experiment
from jaxdistill.initial import Start
from jaxdistill.terms.term import weight_at
from jaxdistill.tree import BRIDGE, CONSTANTS

Array = jax.Array
State = dict[str, Any]
Metrics = dict[str, tuple[Array, Array]]


def _stream(name: str) -> int:
    """A number for a role or term that does not depend on which others there are: variants of a method stay paired."""
    return zlib.crc32(name.encode()) & 0x7FFFFFFF


def start_model(start: Start, config: bert.BertConfig, role: str, seed: int) -> dict:
    """Starting parameters of one model; they do not depend on which other models there are."""
    return start(config, jax.random.fold_in(jax.random.key(seed), _stream(role)))


def init_params(experiment: Experiment) -> dict:
    """Starting parameters of every model and of the bridge."""
    key = jax.random.key(experiment.seed)
    params: dict[str, Any] = {
        role: start_model(experiment.start[role], config, role, experiment.seed)
        for role, config in experiment.models.items()
    }
    makers: dict[str, Any] = dict(experiment.terms) | ({"mixed": experiment.mixed} if experiment.mixed else {})
    of_views = experiment.with_views(params)
    helpers = {
        name: maker.init(jax.random.fold_in(key, _stream(f"{BRIDGE}/{name}")), of_views)
        for name, maker in makers.items()
    }
    bridge = {name: helper for name, helper in helpers.items() if helper}
    return params | ({BRIDGE: bridge} if bridge else {}) | _constants(experiment)


def _constants(experiment: Experiment) -> dict:
    """What terms derive from the vocabularies of their views, by term."""
    asking = {name: term for name, term in experiment.terms.items() if hasattr(term, "constants")}
    if not asking:
        return {}
    data = experiment.data
    vocabularies = {name: read_vocabulary(data.vocabularies[view.vocabulary]) for name, view in data.views.items()}
    return {CONSTANTS: {name: jax.tree.map(jnp.asarray, term.constants(vocabularies)) for name, term in asking.items()}}


def _helpers(params: Mapping[str, Any], name: str) -> dict:
    """A term's helper parameters, and what it derives from the vocabularies."""
    return params.get(BRIDGE, {}).get(name, {}) | params.get(CONSTANTS, {}).get(name, {})


def split_params(experiment: Experiment, params: Mapping[str, Any]) -> tuple[dict, dict]:
    """The trees that train, and those that do not.

    Raises:
      UserError: a tree that trains has no optimizer.
    """
    trained, frozen = tree.split(params, experiment.trains_name)
    experiment.check_optimizers(trained)  # Only now is it known whether there is a bridge.
    return trained, frozen


def init_state(experiment: Experiment) -> State:
    """Step 0: `{"step", "seed", "trained", "frozen", "optimizer"}`; a checkpoint holds what `kept` says."""
    trained, frozen = split_params(experiment, init_params(experiment))
    transforms = optim.make(experiment.optimizers, experiment.steps)
    optimizer = {role: transforms[role].init(params) for role, params in trained.items()}
    # The seed is data, so that runs that differ in it share their compiled programs.
    start = {"step": jnp.zeros((), jnp.int32), "seed": jnp.asarray(experiment.seed, jnp.uint32)}
    return start | {"trained": trained, "frozen": frozen, "optimizer": optimizer}


def state_shardings(experiment: Experiment, state: State, mesh: jax.sharding.Mesh) -> State:
    """Where each array of a state (or of its shapes) lies."""
    transforms = optim.make(experiment.optimizers, experiment.steps)
    trained = sharding.parameter_shardings(state["trained"], mesh)
    return {
        "step": sharding.replicated(mesh),
        "seed": sharding.replicated(mesh),
        "trained": trained,
        "frozen": sharding.parameter_shardings(state["frozen"], mesh),
        "optimizer": {
            role: sharding.optimizer_shardings(transforms[role], state["optimizer"][role], trained[role], mesh)
            for role in trained
        },
    }


def params(state: State) -> dict:
    """The parameters of every model and the bridge."""
    return tree.merge(state["trained"], state["frozen"])


def kept(state: State) -> State:
    """What a checkpoint holds; the rest is where the run started."""
    return {name: part for name, part in state.items() if name not in ("frozen", "seed")}


def forward(
    experiment: Experiment,
    params: Mapping[str, Any],
    batch: Mapping[str, Any],
    seeds: Mapping[str, Array | None],
    views: Mapping[str, frozenset[str]],
) -> dict[str, bert.Outputs]:
    """Runs the models on views, by what is wanted of each; a view without dropout seeds is read without dropout.

    What comes from a cache (`computed` in the view) is not run.
    """
    outputs = {}
    for name, want in views.items():
        role, view = experiment.reader(name), batch[name]
        if "computed" in view:
            outputs[name] = _read(view["computed"])
            continue
        config = experiment.models[role]
        mixed = experiment.mixed if "source" in view else None
        outputs[name] = bert.Bert(config, experiment.run.unroll or config.layers).apply(
            {"params": params[role]},
            view["ids"],
            view["mask"],
            types=view.get("types"),
            words=mixed.words(params, view) if mixed else None,
            positions=view.get("positions") if config.mlm else None,
            dropout_seeds=seeds.get(name),
            want=want,
        )
    return outputs


def _read(computed: Mapping[str, Array]) -> bert.Outputs:
    """Outputs from a cache, whose arrays have the rows first."""
    found = {name: value if name == "top" else value.astype(jnp.float32) for name, value in computed.items()}
    for name in found.keys() & bert.BY_LAYER:
        found[name] = jnp.swapaxes(found[name], 0, 1)
    return bert.Outputs(**{"last": None, "embeddings": None} | found)


def batch_loss(
    experiment: Experiment,
    params: Mapping[str, Any],
    batch: Mapping[str, Any],
    seeds: Mapping[str, Array],
    counts: Mapping[str, Array],
    step: Array,
) -> tuple[Array, dict[str, Array]]:
    """The weighted sum of the terms on a (micro-)batch over their global counts, and the terms' sums."""
    outputs = forward(experiment, params, batch, seeds, experiment.reading())
    of_views = experiment.with_views(params)
    total, sums = jnp.zeros(()), {}
    for name in counts:
        term = experiment.terms[name]
        value, extra = term(of_views, outputs, batch, _helpers(params, name))
        total = total + weight_at(term.weight, step) * value / jnp.maximum(counts[name], 1)
        sums |= {name: value} | {f"{name}/{key}": part for key, part in extra.items()}
    return total, sums


def parameter_loss(experiment: Experiment, params: Mapping[str, Any], step: Array) -> tuple[Array, dict[str, Array]]:
    """The weighted sum of the terms on parameters alone, and their values."""
    total, values = jnp.zeros(()), {}
    for name, term in experiment.terms.items():
        if hasattr(term, "parameters"):
            value, extra = term.parameters(params, params.get(BRIDGE, {}).get(name, {}))
            total = total + weight_at(term.weight, step) * value
            values |= {name: value} | {f"{name}/{key}": part for key, part in extra.items()}
    return total, values


def term_counts(experiment: Experiment, batch: Mapping[str, Any]) -> dict[str, Array]:
    """The denominators of the terms on a batch, as float32."""
    return {
        name: term.count(batch).astype(jnp.float32) for name, term in experiment.terms.items() if hasattr(term, "count")
    }


def make_train_step(
    experiment: Experiment, mesh: jax.sharding.Mesh | None = None, micro_batch: int = 0
) -> Callable[[State, Mapping[str, Any]], tuple[State, Metrics]]:
    """Builds `step(state, batch) -> (state, metrics)`, jitted, with the state donated.

    Args:
      experiment: what to compute.
      mesh: where the batch's rows lie; None for a single device.
      micro_batch: rows of the global batch at a time, all when 0; must divide the batch. Gradients of micro-batches
        are summed; every term was divided by its count over the whole batch, so this changes only rounding.

    Returns:
      A function whose metrics are (sum, count) pairs by name, all float32.

    Raises:
      UserError: `micro_batch` does not divide the batch.
    """
    if micro_batch and experiment.data.batch % micro_batch:
        raise UserError(f"{micro_batch} rows at a time do not divide a batch of {experiment.data.batch}")
    transforms = optim.make(experiment.optimizers, experiment.steps)
    schedules = {role: optim.schedule(settings, experiment.steps) for role, settings in experiment.optimizers.items()}

    def gradients(trained, frozen, batch, rows, step, seed, counts):
        def loss(trained):
            views = [view for view in experiment.reading() if experiment.learns(view)]
            seeds = {view: row_seeds(seed, step, rows, _stream(view)) for view in views}
            return batch_loss(experiment, tree.merge(trained, frozen), batch, seeds, counts, step)

        (total, sums), grads = jax.value_and_grad(loss, has_aux=True)(trained)
        return grads, sums | {"loss": total}

    def accumulated(trained, frozen, batch, rows, step, seed, counts):
        size, parts = rows.shape[0], experiment.data.batch // (micro_batch or experiment.data.batch)
        if parts == 1:
            return gradients(trained, frozen, batch, rows, step, seed, counts)

        def body(carry, part):
            return jax.tree.map(jnp.add, carry, gradients(trained, frozen, *part, step, seed, counts)), None

        # Rows r with r mod parts = i make micro-batch i, on any number of devices.
        cut = jax.tree.map(
            lambda x: jnp.swapaxes(x.reshape(size // parts, parts, *x.shape[1:]), 0, 1), (dict(batch), rows)
        )
        shapes = jax.eval_shape(
            lambda part: gradients(trained, frozen, *part, step, seed, counts), jax.tree.map(lambda x: x[0], cut)
        )
        return jax.lax.scan(body, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), cut)[0]

    def on_device(trained, frozen, batch, rows, step, seed, counts):
        """A device's share of the gradients, to be summed over the devices."""
        grads, sums = accumulated(trained, frozen, batch, rows, step, seed, counts)
        share = 1 / (mesh.size if mesh else 1)
        (extra_loss, values), extra = jax.value_and_grad(
            lambda trained: parameter_loss(experiment, tree.merge(trained, frozen), step), has_aux=True
        )(trained)
        grads = jax.tree.map(lambda of_batch, of_parameters: of_batch + share * of_parameters, grads, extra)
        return grads, sums, (extra_loss, values)

    def step(state, batch):
        trained, frozen, number = state["trained"], state["frozen"], state["step"]
        counts = term_counts(experiment, batch)
        rows = jnp.arange(experiment.data.batch, dtype=jnp.uint32)
        everywhere = on_device if mesh is None or mesh.size == 1 else sharding.summed_over(mesh, on_device)
        grads, sums, (extra_loss, values) = everywhere(trained, frozen, batch, rows, number, state["seed"], counts)
        new, optimizer, norms = optim.update(transforms, grads, state["optimizer"], trained)
        one = jnp.ones(())
        metrics = {"loss": (sums.pop("loss") + extra_loss, one)}
        metrics |= {
            name: value if isinstance(value, tuple) else (value, counts[name.partition("/")[0]])
            for name, value in sums.items()
        }
        metrics |= {name: (value, one) for name, value in values.items()}
        metrics |= {f"gradient_norm/{role}": (norm, one) for role, norm in norms.items()}
        metrics |= {f"learning_rate/{role}": (schedules[role](number), one) for role in trained}
        finite = jnp.isfinite(metrics["loss"][0])
        for norm in norms.values():
            finite &= jnp.isfinite(norm)
        metrics["finite"] = (finite.astype(jnp.float32), one)
        return state | {"step": number + 1, "trained": new, "optimizer": optimizer}, metrics

    fixed = experiment.run.deterministic and jax.default_backend() == "gpu"
    return jax.jit(step, donate_argnums=0, compiler_options={"xla_gpu_deterministic_ops": True} if fixed else None)


def kernel_gradients(experiment: Experiment, mesh: jax.sharding.Mesh | None = None) -> Callable[[State, Any], dict]:
    """Builds `(state, batch) -> {"kernel_gradient/TERM": norm}`: what each term pulls at the student's layer kernels.

    The student is the role of that name; without it, or where it does not train, all norms are 0. Weights are included
    and dropout is off. Of a batch that is accumulated, the first micro-batch is used.
    """
    rows = experiment.run.micro_batch * (mesh.size if mesh else 1) or experiment.data.batch

    def norms(state, batch):
        trained, frozen = state["trained"], state["frozen"]

        def weighted(trained, name):
            everything = tree.merge(trained, frozen)
            term = experiment.terms[name]
            if hasattr(term, "parameters"):
                value = term.parameters(everything, everything.get(BRIDGE, {}).get(name, {}))[0]
                return weight_at(term.weight, state["step"]) * value
            return batch_loss(experiment, everything, batch, {}, {name: counts[name]}, state["step"])[0]

        counts = term_counts(experiment, batch)
        found = {}
        for name in experiment.terms:
            gradient = tree.flatten(jax.grad(weighted)(trained, name).get("student", {}))
            kernels = [leaf for path, leaf in gradient.items() if re.fullmatch(r"layers/.*/kernel", path)]
            found[f"kernel_gradient/{name}"] = jnp.sqrt(sum((jnp.sum(leaf**2) for leaf in kernels), jnp.zeros(())))
        return found

    jitted = jax.jit(norms)

    def measure(state, batch):
        part = jax.tree.map(lambda x: x[:rows], dict(batch))
        return {name: float(value) for name, value in jitted(state, part).items()}

    return measure


def flops_per_step(experiment: Experiment) -> int:
    """Floating-point operations of one step's matrix products: forward, and twice that backward where it trains."""
    data, total = experiment.data, 0
    for view, want in experiment.running().items():
        role = experiment.reader(view)
        config, vocab = experiment.models[role], experiment.models[role].vocab
        if data.views[view].mixed_with:
            vocab += experiment.models[experiment.mixed.other].vocab
        row = bert.flops(config, data.length, data.length if "transformed" in want else data.predictions, vocab)
        total += data.batch * row * (3 if experiment.learns(view) else 1)
    return total
