"""The step: the same numbers however the batch is cut, sharded, padded or ordered, and trees that keep apart."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import bert, sharding, tree
from jaxdistill import step as steps
from jaxdistill.data.loader import to_global
from jaxdistill.errors import UserError
from jaxdistill.inputs import open_inputs

ROWS = 16
SEEN = 2


@dataclasses.dataclass(frozen=True)
class Trained:
    """What some steps of a variant computed, as numpy.

    Attributes:
      start: the parameters before.
      first: the state after the first step.
      last: the state after the last one.
      metrics: of every step.
    """

    start: dict
    first: dict
    last: dict
    metrics: list


class Lab:
    """Experiments on one corpus, their batches, and steps computed once for each way to cut and shard."""

    def __init__(self, inputs):
        self.experiments = {
            "nokd": inputs.experiment(variant="nokd", batch=ROWS, warmup=0.5),
            "dual": inputs.experiment(variant="dual", batch=ROWS, warmup=0.5, shared_table=False),
            "up": inputs.experiment(variant="up", batch=ROWS, warmup=0.5),
            "down": inputs.experiment(variant="down", batch=ROWS, warmup=0.5, dropout=0.0, projection=10.0),
        }
        terms = self.experiments["dual"].terms
        heavy = {"teacher_mlm": dataclasses.replace(terms["teacher_mlm"], weight=1000.0)}
        self.experiments["dual"] = dataclasses.replace(self.experiments["dual"], terms=terms | heavy)
        frozen = (("teacher/.*|student/embeddings/position", False), (".*", True))
        self.experiments["down"] = dataclasses.replace(self.experiments["down"], trains=frozen)
        data = self.experiments["up"].data
        self._read = open_inputs(data)
        self.update, self.run = functools.cache(self._update), functools.cache(self._run)

    def batches(self, variant):
        experiment = self.experiments[variant]
        return self._read.batches(experiment.data, experiment.seed)

    def _update(self, variant, mesh=None, micro=0):
        return steps.make_train_step(self.experiments[variant], mesh, micro)

    def _run(self, variant, shape=None, micro=0) -> Trained:
        experiment, batches = self.experiments[variant], self.batches(variant)
        mesh = sharding.make_mesh(shape[1], shape[0] * shape[1]) if shape else None
        state = steps.init_state(experiment)
        start = jax.device_get(steps.params(state))
        if mesh:
            state = jax.device_put(state, steps.state_shardings(experiment, state, mesh))
        update, states, metrics = self.update(variant, mesh, micro), [], []
        for number in range(SEEN):
            batch = to_global(batches(number), sharding.batch_sharding(mesh)) if mesh else batches(number)
            state, found = update(state, batch)
            states.append(jax.device_get(state))
            metrics.append(jax.device_get(found))
        return Trained(start, states[0], states[-1], metrics)


@pytest.fixture(scope="module")
def lab(tiny_inputs):
    return Lab(tiny_inputs)


def leaves(state) -> dict:
    paths = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}


def moments(state) -> dict:
    """Adam's first moments: after one step, a tenth of the gradient as clipped."""
    found = {name: leaf for name, leaf in leaves(state["optimizer"]).items() if "/mu/" in name}
    assert found
    return found


def check_equal(one: Trained, other: Trained):
    """Equal to rounding: the first gradient by name, and every metric of both steps."""
    ours, theirs = moments(one.first), moments(other.first)
    assert ours.keys() == theirs.keys()
    for name in ours:
        scale = np.abs(ours[name]).max()
        np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-4, atol=1e-4 * scale + 1e-9, err_msg=name)
    for before, after in zip(one.metrics, other.metrics, strict=True):
        assert before.keys() == after.keys()
        for name in before:
            np.testing.assert_allclose(after[name], before[name], rtol=2e-4, atol=1e-5, err_msg=name)
    for name, leaf in leaves(one.last["trained"]).items():
        np.testing.assert_allclose(leaves(other.last["trained"])[name], leaf, rtol=1e-2, atol=2e-4, err_msg=name)


def check_bits(one, other):
    one, other = leaves(one), leaves(other)
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name], other[name]), name


def test_accumulation_equals_the_large_batch_with_dropout_on(lab):
    assert lab.experiments["nokd"].models["student"].dropout == 0.1
    check_equal(lab.run("nokd"), lab.run("nokd", micro=4))


# Eight devices for two variants, and the other two with their parameters sharded; one of each is also accumulated.
@pytest.mark.parametrize(
    ("variant", "shape", "micro"),
    [("nokd", (8, 1), 0), ("dual", (8, 1), 8), ("down", (4, 2), 0), ("up", (4, 2), 8)],
)
def test_a_sharded_step_equals_the_single_device_step(lab, variant, shape, micro):
    check_equal(lab.run(variant), lab.run(variant, shape, micro))


def test_parameters_and_moments_lie_sharded(lab):
    experiment, mesh = lab.experiments["up"], sharding.make_mesh(2, 8)
    state = lab.run("up").last
    places = leaves(steps.state_shardings(experiment, state, mesh))
    assert places.keys() == leaves(state).keys()
    for name in ("layers/ffn_in/kernel", "embeddings/word"):
        for where in (f"trained/student/{name}", *(key for key in places if key.endswith(f"/mu/{name}"))):
            assert "fsdp" in jax.tree.leaves(tuple(places[where].spec)), where
    assert all(place.is_fully_replicated for name, place in places.items() if name.startswith("trained/bridge"))


def test_variants_of_one_seed_start_and_read_alike(lab):
    starts = {variant: lab.run(variant).start for variant in lab.experiments}
    for variant in ("dual", "down", "up"):
        check_bits(starts["nokd"]["student"], starts[variant]["student"])
        check_bits(starts["dual"]["teacher"], starts[variant]["teacher"])
        for number in range(3):
            check_bits(lab.batches("nokd")(number)["student"], lab.batches(variant)(number)["student"])
            check_bits(lab.batches("dual")(number)["teacher"], lab.batches(variant)(number)["teacher"])
    assert "bridge" not in starts["nokd"] and "teacher" not in starts["nokd"]


def test_a_student_beside_a_loud_teacher_trains_as_alone(lab):
    """Nothing couples them in `dual` with a separate table: dropout, clipping and rate are then the student's own."""
    alone, beside = lab.run("nokd"), lab.run("dual")
    norms = beside.metrics[0]
    assert norms["gradient_norm/teacher"][0] > 100 * norms["gradient_norm/student"][0]
    for ours, theirs in zip(alone.metrics, beside.metrics, strict=True):
        for name in ("student_mlm", "student_mlm/accuracy", "gradient_norm/student", "learning_rate/student"):
            np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-4, err_msg=name)
    after = leaves(beside.last["trained"]["student"])
    for name, leaf in leaves(alone.last["trained"]["student"]).items():
        np.testing.assert_allclose(after[name], leaf, rtol=1e-3, atol=2e-5, err_msg=name)


def test_a_frozen_tree_stays_and_has_no_optimizer(lab):
    ran = lab.run("down")
    student = ran.last["trained"]["student"]
    assert set(ran.last["frozen"]) == {"teacher", "student"} and "position" not in student["embeddings"]
    check_bits(ran.last["frozen"]["teacher"], ran.start["teacher"])
    check_bits(ran.last["frozen"]["student"]["embeddings"]["position"], ran.start["student"]["embeddings"]["position"])
    assert set(ran.last["optimizer"]) == {"student", "bridge"}
    assert not [name for name in moments(ran.last) if "position" in name or "teacher" in name]
    assert "frozen" not in steps.kept(ran.last) and set(steps.params(ran.last)) == {"student", "teacher", "bridge"}
    changed = [not np.array_equal(leaf, leaves(ran.start)[name]) for name, leaf in leaves(ran.last["trained"]).items()]
    assert all(changed)


def test_metrics_are_sums_over_counts_of_the_global_batch(lab):
    for number, metrics in enumerate(lab.run("up", (4, 2), 8).metrics):
        batch = lab.batches("up")(number)
        for role in ("student", "teacher"):
            total, count = metrics[f"{role}_mlm"]
            right = metrics[f"{role}_mlm/accuracy"]
            assert count == right[1] == (batch[role]["targets"] >= 0).sum() > 0
            assert 0 <= right[0] <= count and right[0] == round(float(right[0]))
            assert 0 < total / count < 10
        means = {name: total / count for name, (total, count) in metrics.items()}
        loss = means["student_mlm"] + means["teacher_mlm"] + means["projection"]
        np.testing.assert_allclose(metrics["loss"], (loss, 1.0), rtol=1e-5)
        assert metrics["finite"] == (1.0, 1.0)
        assert all(value.dtype == np.float32 for pair in metrics.values() for value in pair)


def test_the_weights_of_terms_are_in_the_loss(lab):
    means = {name: total / count for name, (total, count) in lab.run("down").metrics[0].items()}
    loss = means["student_mlm"] + means["teacher_mlm"] + 10 * means["projection"]
    np.testing.assert_allclose(means["loss"], loss, rtol=1e-5)


def test_the_learning_rate_is_that_of_the_step(lab):
    rates = [metrics["learning_rate/student"][0] for metrics in lab.run("nokd").metrics]
    np.testing.assert_allclose(rates, [0.01 / 3, 0.02 / 3], rtol=1e-6)  # three of six steps warm up
    assert int(lab.run("nokd").last["step"]) == SEEN


def test_the_state_is_donated(lab):
    state = steps.init_state(lab.experiments["nokd"])
    lab.update("nokd", None, 4)(state, lab.batches("nokd")(0))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))


@pytest.fixture(scope="module")
def loss(lab):
    """Sums and counts of the `down` variant on any batch, without dropout."""
    experiment = lab.experiments["down"]
    params = jax.tree.map(jnp.asarray, lab.run("down").start)

    @jax.jit
    def sums(batch):
        counts = steps.term_counts(experiment, batch)
        total, sums = steps.batch_loss(experiment, params, batch, {}, counts, 0)
        return sums | {f"count/{name}": count for name, count in counts.items()} | {"loss": total}

    return sums


def check_sums(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(other[name], one[name], rtol=1e-5, err_msg=name)


def test_the_order_of_the_rows_changes_nothing(lab, loss):
    batch = lab.batches("down")(0)
    order = np.random.default_rng(0).permutation(ROWS)
    check_sums(loss(batch), loss(jax.tree.map(lambda leaf: leaf[order], batch)))


def test_rows_without_targets_change_nothing(lab, loss):
    batch = lab.batches("down")(0)
    more = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf[:4]]), batch)
    for view in more.values():
        view["targets"][ROWS:] = -1
    check_sums(loss(batch), loss(more))


def test_columns_of_padding_change_nothing(lab, loss):
    batch = lab.batches("down")(0)
    wider = {
        role: {
            name: np.pad(leaf, ((0, 0), (0, 5))) if name in ("ids", "mask", "source") else leaf
            for name, leaf in view.items()
        }
        for role, view in batch.items()
    }
    check_sums(loss(batch), loss(wider))


def test_kernel_gradients_of_each_term(lab):
    experiment = lab.experiments["down"]
    state = steps.init_state(experiment)
    found = steps.kernel_gradients(experiment)(state, lab.batches("down")(0))
    assert set(found) == {f"kernel_gradient/{name}" for name in experiment.terms}
    assert found["kernel_gradient/teacher_mlm"] == 0.0 < found["kernel_gradient/student_mlm"]
    params = tree.map_names(lambda _, leaf: np.asarray(leaf, np.float64), jax.device_get(steps.params(state)))
    bridge, squares = params["bridge"]["projection"], 0.0
    for name in ("query", "key", "value", "attention_out", "ffn_in", "ffn_out"):
        axes = {"ffn_in": "hidden_ffn", "ffn_out": "ffn_hidden"}.get(name, "hidden_hidden")
        for big, small in zip(
            *(params[role]["layers"][name]["kernel"] for role in ("teacher", "student")), strict=True
        ):
            residual = bridge[axes]["left"] @ big @ bridge[axes]["right"] - small
            squares += np.sum((experiment.terms["projection"].weight * 2 * residual / residual.size) ** 2)
    np.testing.assert_allclose(found["kernel_gradient/projection"], np.sqrt(squares), rtol=1e-4)


def test_work_of_a_step_counts_the_way_back_only_where_it_trains(lab):
    joint, frozen = lab.experiments["up"], lab.experiments["down"]
    student, teacher = (joint.models[role] for role in ("student", "teacher"))
    ahead = bert.flops(teacher, 16, 3, teacher.vocab + student.vocab) * ROWS
    own = bert.flops(student, 16, 3) * ROWS
    assert steps.flops_per_step(joint) == 3 * (own + ahead)
    assert steps.flops_per_step(frozen) == 3 * own + ahead


def test_a_tree_that_trains_without_an_optimizer_is_refused(lab):
    experiment = lab.experiments["nokd"]
    with pytest.raises(UserError, match="student train without an optimizer"):
        steps.init_state(dataclasses.replace(experiment, optimizers={}))


def test_micro_batches_that_do_not_divide_are_refused(lab):
    with pytest.raises(UserError, match="5 rows at a time do not divide a batch of 16"):
        lab.update("nokd", None, 5)


def test_a_deterministic_step_asks_a_gpu_s_compiler_for_it(lab, monkeypatch):
    """The CPU's compiler knows the option, too, and has no other operations."""
    experiment = lab.experiments["nokd"]
    asked = dataclasses.replace(experiment, run=dataclasses.replace(experiment.run, deterministic=True))
    real, given = jax.jit, []

    def jit(function, compiler_options=None, **more):
        given.append(compiler_options)
        return real(function, compiler_options=compiler_options, **more)

    monkeypatch.setattr(jax, "jit", jit)
    steps.make_train_step(asked)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    steps.make_train_step(experiment)
    update = steps.make_train_step(asked)
    assert given == [None, None, {"xla_gpu_deterministic_ops": True}]
    monkeypatch.undo()
    _, metrics = update(steps.init_state(experiment), lab.batches("nokd")(0))
    np.testing.assert_allclose(metrics["loss"], lab.run("nokd").metrics[0]["loss"], rtol=1e-6)


def test_a_step_that_is_not_finite_says_so(lab):
    state = steps.init_state(lab.experiments["nokd"])
    state["trained"]["student"]["mlm"]["bias"] = jnp.full_like(state["trained"]["student"]["mlm"]["bias"], jnp.nan)
    assert lab.update("nokd", None, 4)(state, lab.batches("nokd")(0))[1]["finite"][0] == 0.0
