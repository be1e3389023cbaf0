import dataclasses
import functools
import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_models import MODELS, STUDENT, TEACHER, random_params, view

from jaxdistill import bert
from jaxdistill.errors import UserError
from jaxdistill.mixed import Mixed
from jaxdistill.terms import BatchTerm, MaskedLM, ParameterTerm, Projection

PARAMS = {"teacher": random_params(TEACHER, 1), "student": random_params(STUDENT, 2)}
MIXED = Mixed()
BIASES = np.random.default_rng(9).normal(size=STUDENT.vocab).astype(np.float32)
JOINT = PARAMS | {"bridge": {"mixed": MIXED.init(jax.random.key(0), PARAMS) | {"output_bias": BIASES}}}
BATCH = {"teacher": view(TEACHER, STUDENT.vocab, seed=3), "student": view(STUDENT, seed=4)}


@functools.partial(jax.jit, static_argnums=0)
def run(config, params, rows, words):
    return bert.Bert(config).apply(
        {"params": params}, rows["ids"], rows["mask"], words=words, positions=rows["positions"]
    )


def outputs_of(role, rows):
    words = MIXED.words(JOINT, rows) if "source" in rows else None
    return {role: run(MODELS[role], JOINT[role], rows, words)}


@pytest.fixture(scope="module")
def outputs():
    return outputs_of("teacher", BATCH["teacher"]) | outputs_of("student", BATCH["student"])


def softmax_nats(vector, table, bias, target) -> tuple[float, list[float]]:
    scores = [
        sum(float(v) * float(w) for v, w in zip(vector, row, strict=True)) + float(b)
        for row, b in zip(table, bias, strict=True)
    ]
    most = max(scores)
    return math.log(sum(math.exp(score - most) for score in scores)) + most - scores[target], scores


def masked_lm(outputs, role, rows, mixed=False, union=False):
    """Nats and hits of a view's targets by plain loops; with `union`, what one softmax over both would give."""
    own = np.asarray(PARAMS[role]["embeddings"]["word"]), PARAMS[role]["mlm"]["bias"]
    other = (np.asarray(MIXED.table(JOINT)), BIASES) if mixed else None
    nats, hits = 0.0, 0
    for place in np.ndindex(*rows["targets"].shape):
        target = int(rows["targets"][place])
        if target < 0:
            continue
        second = mixed and rows["target_source"][place] == 1
        table, bias = other if second else own
        if union:
            target += len(own[0]) * second
            table, bias = np.concatenate([own[0], other[0]]), np.concatenate([own[1], other[1]])
        value, scores = softmax_nats(np.asarray(outputs[role].predictions)[place], table, bias, target)
        nats, hits = nats + value, hits + (scores.index(max(scores)) == target)
    return nats, hits


def test_masked_lm_is_that_of_a_plain_loop(outputs):
    total, extra = MaskedLM("student")(JOINT, outputs, BATCH, {})
    nats, hits = masked_lm(outputs, "student", BATCH["student"])
    assert total.dtype == jnp.float32 and float(total) == pytest.approx(nats, rel=1e-5)
    assert float(extra["accuracy"]) == hits


def test_a_mixed_reader_has_two_softmaxes_and_never_their_union(outputs):
    rows = BATCH["teacher"]
    assert {0, 1} == set(rows["target_source"][rows["targets"] >= 0].tolist())
    total, extra = MaskedLM("teacher", mixed=MIXED)(JOINT, outputs, BATCH, {})
    nats, hits = masked_lm(outputs, "teacher", rows, mixed=True)
    union, _ = masked_lm(outputs, "teacher", rows, mixed=True, union=True)
    assert float(total) == pytest.approx(nats, rel=1e-5) and float(extra["accuracy"]) == hits
    assert union > nats + 1, "the two differ by so much that a union would be seen"


def test_pieces_of_one_vocabulary_do_not_compete_with_those_of_the_other(outputs):
    term, rows = MaskedLM("teacher", mixed=MIXED), BATCH["teacher"]
    own_only = {"teacher": rows | {"targets": np.where(rows["target_source"] == 1, -1, rows["targets"])}}
    loud = JOINT | {
        "bridge": {
            "mixed": JOINT["bridge"]["mixed"]
            | {"output_bias": BIASES + 50 * np.eye(STUDENT.vocab, dtype=np.float32)[0]}
        }
    }
    assert float(term(loud, outputs, own_only, {})[0]) == float(term(JOINT, outputs, own_only, {})[0])
    gradient = jax.grad(lambda p: term(p, outputs, own_only, {})[0])(JOINT)
    assert not np.any(gradient["bridge"]["mixed"]["output_bias"]) and not np.any(
        gradient["student"]["embeddings"]["word"]
    )


def test_the_count_is_of_the_masked_positions():
    for role in BATCH:
        assert int(MaskedLM(role).count(BATCH)) == sum(target >= 0 for target in BATCH[role]["targets"].flat)


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_padding_and_the_order_of_rows_change_nothing(outputs, role):
    rows = BATCH[role]
    term = MaskedLM(role, mixed=MIXED if role == "teacher" else None)
    total, extra = term(JOINT, outputs, BATCH, {})
    more = {
        "ids": (1, 5),
        "mask": (1, False),
        "source": (1, 1),
        "positions": (2, 0),
        "targets": (2, -1),
        "target_source": (2, 0),
    }
    wider = {n: np.pad(x, ((0, 0), (0, more[n][0])), constant_values=more[n][1]) for n, x in rows.items()}
    shuffled = {name: value[[2, 0, 1]] for name, value in rows.items()}
    for changed in (wider, shuffled):
        again, same = term(JOINT, outputs_of(role, changed), {role: changed}, {})
        assert float(again) == pytest.approx(float(total), rel=1e-6) and float(same["accuracy"]) == float(
            extra["accuracy"]
        )


def test_masked_lm_refuses_models_that_it_can_not_score():
    with pytest.raises(UserError, match="'other'; the models are"):
        MaskedLM("other").check(MODELS)
    with pytest.raises(UserError, match="set mlm=True"):
        MaskedLM("student").check({"student": dataclasses.replace(STUDENT, mlm=False)})
    assert MaskedLM("student").want() == {"student": frozenset()} and MaskedLM("student").init(None, PARAMS) == {}


@pytest.mark.parametrize(
    ("term", "protocol", "names"),
    [
        (MaskedLM, BatchTerm, ("weight", "check", "init", "count", "__call__")),
        (Projection, ParameterTerm, ("weight", "check", "init", "parameters")),
    ],
)
def test_terms_have_what_the_protocols_say(term, protocol, names):
    for name in names:
        asked, had = getattr(protocol, name), getattr(term, name)
        if callable(asked):
            assert inspect.signature(asked) == inspect.signature(had), name


CLASSES = {
    "hidden_hidden": ["layers/query", "layers/key", "layers/value", "layers/attention_out", "mlm/transform"],
    "hidden_ffn": ["layers/ffn_in"],
    "ffn_hidden": ["layers/ffn_out"],
}
VECTORS = {
    "ffn": ["layers/ffn_in/bias"],
    "hidden": [
        *(f"layers/{name}/bias" for name in ("query", "key", "value", "attention_out", "ffn_out")),
        *(
            f"{name}/{kind}"
            for name in ("layers/attention_norm", "layers/ffn_norm", "embeddings/norm", "mlm/norm")
            for kind in ("bias", "scale")
        ),
        "mlm/transform/bias",
    ],
}
TABLES = {"hidden": ["embeddings/position", "embeddings/type"]}


def leaf(params, name):
    for part in name.split("/"):
        params = params[part]
    return np.asarray(params, np.float64)


def projection(params, bridge, direction, layers, vectors=False, embeddings=False):
    """The loss and, per class, the squared norms of residual, projected and target, by loops over layers."""
    total, squares = 0.0, {}
    kinds = [(CLASSES, "/kernel")] + [(VECTORS, "")] * vectors + [(TABLES, "")] * embeddings
    for classes, suffix in kinds:
        for kind, names in classes.items():
            left = leaf(bridge, f"{kind}/left") if suffix else None
            right = leaf(bridge, f"{kind}/right")
            for name in names:
                big, small = leaf(params["teacher"], name + suffix), leaf(params["student"], name + suffix)
                pairs = (
                    [(big[t], small[s]) for s, t in enumerate(layers)] if name.startswith("layers/") else [(big, small)]
                )
                for theirs, ours in pairs:
                    if classes is TABLES:
                        theirs = theirs[: len(ours)]
                    source, target = (theirs, ours) if direction == "down" else (ours, theirs)
                    moved = source @ right if left is None else left @ source @ right
                    total += ((moved - target) ** 2).sum() / target.size
                    parts = np.array([((moved - target) ** 2).sum(), (moved**2).sum(), (target**2).sum()])
                    squares[kind] = squares.get(kind, 0) + parts
    return total, squares


OPTIONS = [{}, {"vectors": True}, {"embeddings": True}, {"vectors": True, "embeddings": True}]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "+".join(options) or "kernels")
@pytest.mark.parametrize("direction", ["down", "up"])
def test_projection_is_that_of_plain_loops_over_layers(direction, options):
    term = Projection(direction, **options)
    bridge = term.init(jax.random.key(1), PARAMS)
    total, metrics = jax.jit(term.parameters)(PARAMS, bridge)
    expected, squares = projection(PARAMS, bridge, direction, [1, 3], **options)
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert set(bridge) == set(squares)
    for kind, (residual, projected, target) in squares.items():
        assert float(metrics[f"explained/{kind}"]) == pytest.approx(1 - residual / target, rel=1e-4, abs=1e-5)
        assert float(metrics[f"size/{kind}"]) == pytest.approx(math.sqrt(projected / target), rel=1e-4)
        assert float(metrics[f"norm/{kind}"]) == pytest.approx(math.sqrt(target), rel=1e-5)


@pytest.mark.parametrize("direction", ["down", "up"])
def test_no_gradient_of_a_projection_is_stopped(direction):
    term = Projection(direction)
    everything = PARAMS | {"bridge": term.init(jax.random.key(1), PARAMS)}
    gradient = jax.jit(jax.grad(lambda p: term.parameters(p, p["bridge"])[0]))(everything)
    for role in ("teacher", "student", "bridge"):
        draw = np.random.default_rng(5)
        way = jax.tree.map(lambda x: draw.normal(size=x.shape), everything[role])  # noqa: B023

        def moved(step, role=role, way=way):
            shifted = jax.tree.map(lambda x, w: np.asarray(x, np.float64) + step * w, everything[role], way)
            changed = everything | {role: shifted}
            return projection(changed, changed["bridge"], direction, [1, 3])[0]

        slope = (moved(1e-4) - moved(-1e-4)) / 2e-4
        along = sum(jax.tree.leaves(jax.tree.map(lambda g, w: float(np.sum(g * w)), gradient[role], way)))
        assert abs(slope) > 0.01 and along == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("direction", ["down", "up"])
def test_shape_classes_are_pairs_of_axes_even_where_the_numbers_are_equal(direction):
    shapes = {role: dataclasses.replace(config, ffn=config.hidden) for role, config in MODELS.items()}
    params = {role: random_params(config, 3) for role, config in shapes.items()}
    term = Projection(direction)
    bridge = term.init(jax.random.key(1), params)
    assert set(bridge) == set(CLASSES)
    matrices = [np.asarray(pair[side]) for pair in bridge.values() for side in ("left", "right")]
    assert not any(np.array_equal(a, b) for i, a in enumerate(matrices) for b in matrices[:i] if a.shape == b.shape)
    assert float(term.parameters(params, bridge)[0]) == pytest.approx(
        projection(params, bridge, direction, [1, 3])[0], rel=1e-5
    )


def test_a_perfect_fit_is_explained_whole_and_a_collapse_is_seen():
    term = Projection("down")
    alike = {"teacher": PARAMS["teacher"], "student": PARAMS["teacher"]}
    eye = {
        kind: {"left": np.eye(n), "right": np.eye(m)}
        for kind, n, m in (("hidden_hidden", 6, 6), ("hidden_ffn", 6, 10), ("ffn_hidden", 10, 6))
    }
    total, metrics = term.parameters(alike, jax.tree.map(jnp.float32, eye))
    assert float(total) == pytest.approx(0, abs=1e-6) and float(metrics["explained/hidden_ffn"]) == pytest.approx(1)
    nothing = PARAMS | {"student": jax.tree.map(np.zeros_like, PARAMS["student"])}
    total, metrics = term.parameters(nothing, jax.tree.map(lambda x: 0 * x, term.init(jax.random.key(0), PARAMS)))
    assert float(total) == 0 and {float(value) for value in metrics.values()} == {0.0}


def test_a_student_that_shrinks_with_its_map_shows_in_the_norm_alone():
    term = Projection("down")
    bridge = term.init(jax.random.key(1), PARAMS)
    less = PARAMS | {"student": jax.tree.map(lambda x: 1e-3 * x, PARAMS["student"])}
    shrunk = {kind: pair | {"left": 1e-3 * pair["left"]} for kind, pair in bridge.items()}
    (before, measured), (after, found) = (term.parameters(*pair) for pair in ((PARAMS, bridge), (less, shrunk)))
    assert float(after) == pytest.approx(1e-6 * float(before), rel=1e-4)
    for name, value in measured.items():
        scale = 1e-3 if name.startswith("norm/") else 1.0
        assert float(found[name]) == pytest.approx(scale * float(value), rel=1e-4, abs=1e-6), name


def test_what_only_one_model_has_is_left_out():
    params = PARAMS | {"teacher": {k: v for k, v in PARAMS["teacher"].items() if k != "mlm"}}
    term = Projection("up", vectors=True, embeddings=True)
    bridge = term.init(jax.random.key(1), params)
    whole, part = (float(term.parameters(p, bridge)[0]) for p in (PARAMS, params))
    assert part < whole


def test_projection_refuses_models_that_it_can_not_map():
    with pytest.raises(UserError, match="'teacher'; the models are"):
        Projection("up").check({"student": STUDENT})
    with pytest.raises(UserError, match="divides 4"):
        Projection("up").check(MODELS | {"student": dataclasses.replace(STUDENT, layers=3)})
    with pytest.raises(UserError, match="choose down or up"):
        Projection("sideways").check(MODELS)
    Projection("down").check(MODELS)
