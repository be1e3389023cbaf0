"""Terms in which a student's view follows a teacher's: each against plain loops over numbers made up."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import bert
from jaxdistill.bert import BertConfig, Outputs
from jaxdistill.data.vocab import Vocabulary
from jaxdistill.errors import UserError
from jaxdistill.mixed import Mixed
from jaxdistill.terms import AttentionScores, CosineStates, HiddenStates, Patience, Ramp, SharedTargets, SoftTargets
from jaxdistill.terms.maps import layer_map, spread
from jaxdistill.terms.term import weight_at

ROWS, LENGTH, HEADS, VOCAB, WIDE, NARROW = 3, 5, 2, 7, 6, 4
TEACHER = BertConfig(vocab=VOCAB, hidden=WIDE, layers=4, heads=HEADS, ffn=8, positions=LENGTH)
STUDENT = dataclasses.replace(TEACHER, hidden=NARROW, layers=2)
TWIN = dataclasses.replace(STUDENT, hidden=WIDE)
REAL = np.arange(LENGTH)[None] < np.array([5, 3, 4])[:, None]
TARGETS = np.array([[3, 5], [1, -1], [-1, -1]])


def drawn(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def outputs(config, seed):
    body = (ROWS, LENGTH, config.hidden)
    hidden = drawn(seed, config.layers, *body)
    return Outputs(
        last=hidden[-1],
        embeddings=drawn(seed + 1, *body),
        hidden=hidden,
        first=hidden[:, :, 0],
        scores=drawn(seed + 2, config.layers, ROWS, HEADS, LENGTH, LENGTH),
        predictions=drawn(seed + 3, ROWS, 2, config.hidden),
        transformed=drawn(seed + 4, *body),
    )


def params(config, seed):
    return {"embeddings": {"word": drawn(seed, VOCAB, config.hidden)}, "mlm": {"bias": drawn(seed + 1, VOCAB)}}


PARAMS = {"teacher": params(TEACHER, 20), "student": params(STUDENT, 30), "twin": params(TWIN, 40)}
OUTPUTS = {"teacher": outputs(TEACHER, 50), "student": outputs(STUDENT, 60), "twin": outputs(TWIN, 70)}
VIEW = {"mask": REAL, "targets": TARGETS}
BATCH = {"teacher": VIEW, "student": VIEW, "twin": VIEW}
MODELS = {"teacher": TEACHER, "student": STUDENT, "twin": TWIN}
TERMS = (
    SoftTargets(temperature=2.0, chunk=2),
    SoftTargets(temperature=3.0, masked_only=True),
    HiddenStates(),
    HiddenStates(layers="top", released=True),
    HiddenStates(layers=None),
    HiddenStates(embeddings=False, layers="bottom"),
    CosineStates(student="twin"),
    Patience(student="twin"),
    Patience(student="twin", layers="last", normalised=False),
    AttentionScores(),
    AttentionScores(layers="top"),
)


def call(term, given=None, rows=None):
    bridge = term.init(jax.random.key(1), PARAMS)
    return term(PARAMS, given or OUTPUTS, rows or BATCH, bridge), bridge


def log_softmax(scores):
    most = max(scores)
    whole = math.log(sum(math.exp(score - most) for score in scores)) + most
    return [score - whole for score in scores]


def soft_targets(term, where, real, table=None):
    total, same = 0.0, 0
    for place in zip(*np.nonzero(real), strict=True):
        logits = []
        for name in ("teacher", "student"):
            words, bias = PARAMS[name]["embeddings"]["word"], PARAMS[name]["mlm"]["bias"]
            if name == "teacher" and table is not None:
                words, bias = table
            vector = np.asarray(getattr(OUTPUTS[name], where)[place], np.float64)
            logits.append([float(vector @ row + shift) for row, shift in zip(words, bias, strict=True)])
        target, own = (log_softmax([score / term.temperature for score in scores]) for scores in logits)
        total += term.temperature**2 * sum(math.exp(p) * (p - q) for p, q in zip(target, own, strict=True))
        same += int(np.argmax(logits[0]) == np.argmax(logits[1]))
    return total, same


@pytest.mark.parametrize("chunk", [1, 2, 5, 16])
def test_soft_targets_are_those_of_a_plain_loop_whatever_the_chunk(chunk):
    term = SoftTargets(temperature=2.0, chunk=chunk)
    (total, extra), _ = call(term)
    expected, same = soft_targets(term, "transformed", REAL)
    assert float(total) == pytest.approx(expected, rel=1e-5) and float(extra["agreement"]) == same
    assert int(term.count(BATCH)) == 12


def test_soft_targets_of_the_masked_positions_only():
    term = SoftTargets(temperature=3.0, masked_only=True)
    (total, _), _ = call(term)
    assert float(total) == pytest.approx(soft_targets(term, "predictions", TARGETS >= 0)[0], rel=1e-5)
    assert int(term.count(BATCH)) == 3 and not term.want()["student"]


def test_a_teacher_that_reads_both_vocabularies_is_scored_over_the_student_s():
    mixed = Mixed()
    bridge = mixed.init(jax.random.key(0), PARAMS) | {"output_bias": drawn(9, VOCAB)}
    everything = PARAMS | {"bridge": {"mixed": bridge}}
    term = SoftTargets(mixed=mixed)
    total, _ = term(everything, OUTPUTS, BATCH, {})
    table = np.asarray(mixed.table(everything)), bridge["output_bias"]
    assert float(total) == pytest.approx(soft_targets(term, "transformed", REAL, table)[0], rel=1e-5)


def test_no_tensor_of_all_logits_exists():
    rows, length, vocab = 4, 32, 512
    vectors = {name: drawn(1, rows, length, 8) for name in ("teacher", "student")}
    own = {"embeddings": {"word": drawn(2, vocab, 8)}, "mlm": {"bias": drawn(3, vocab)}}
    view = {"mask": np.ones((rows, length), bool)}
    term = SoftTargets(chunk=4)

    def loss(own):
        found = {name: Outputs(None, None, transformed=value) for name, value in vectors.items()}
        return term({"teacher": own, "student": own}, found, dict.fromkeys(vectors, view), {})[0]

    program = jax.jit(jax.grad(loss)).lower(own).compile()
    assert program.memory_analysis().temp_size_in_bytes < rows * length * vocab * 4
    assert f"[{rows},{length},{vocab}]" not in program.as_text()


def hidden_states(term, bridge):
    total = 0.0
    teacher, student = OUTPUTS["teacher"], OUTPUTS["student"]
    pairs = [("embeddings", student.embeddings, teacher.embeddings)] * term.embeddings
    if term.layers:
        follow = {"uniform": (1, 3), "top": (2, 3), "bottom": (0, 1)}[term.layers]
        pairs += [("layers", student.hidden[m], teacher.hidden[n]) for m, n in enumerate(follow)]
    for name, states, target in pairs:
        learned = bridge["all" if term.released else name]
        for place in zip(*np.nonzero(REAL), strict=True):
            mapped = states[place].astype(np.float64) @ np.asarray(learned["kernel"]) + learned.get("bias", 0.0)
            total += float(np.mean((mapped - target[place]) ** 2))
    return total


@pytest.mark.parametrize("term", [term for term in TERMS if isinstance(term, HiddenStates)], ids=str)
def test_hidden_states_are_those_of_a_plain_loop(term):
    bridge = jax.tree.map(lambda x: x + 0.1, term.init(jax.random.key(1), PARAMS))
    total, parts = term(PARAMS, OUTPUTS, BATCH, bridge)
    assert float(total) == pytest.approx(hidden_states(term, bridge), rel=1e-5)
    assert float(sum(parts.values())) == pytest.approx(float(total), rel=1e-6)
    used = {"layers": term.layers is not None, "embeddings": term.embeddings}
    assert set(bridge) == ({"all"} if term.released else {name for name in used if used[name]})


def test_the_cosine_is_that_of_a_plain_loop():
    (total, _), _ = call(CosineStates(student="twin"))
    expected = 0.0
    for place in zip(*np.nonzero(REAL), strict=True):
        one, two = (np.asarray(OUTPUTS[name].last[place], np.float64) for name in ("teacher", "twin"))
        expected += 1 - one @ two / math.sqrt((one @ one) * (two @ two))
    assert float(total) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("layers", "follows"), [("skip", 1), ("last", 2)])
@pytest.mark.parametrize("normalised", [True, False])
def test_patience_is_that_of_a_plain_loop_over_the_first_states(layers, follows, normalised):
    term = Patience(student="twin", layers=layers, normalised=normalised)
    (total, _), _ = call(term)
    expected = 0.0
    for row in range(ROWS):
        one, two = (
            np.asarray(x, np.float64)
            for x in (OUTPUTS["teacher"].hidden[follows, row, 0], OUTPUTS["twin"].hidden[0, row, 0])
        )
        if normalised:
            one, two = one / np.linalg.norm(one), two / np.linalg.norm(two)
        expected += float(np.sum((one - two) ** 2))
    assert float(total) == pytest.approx(expected, rel=1e-5) and int(term.count(BATCH)) == ROWS


def test_the_released_patience_is_ours_over_layers_and_width():
    """The authors' code: a mean of squares over batch x layers x width, of normalised states."""
    teacher, student = (
        OUTPUTS[name].hidden[layer, :, 0].astype(np.float64) for name, layer in (("teacher", 1), ("twin", 0))
    )
    one, two = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (teacher, student))
    released = np.mean((one - two) ** 2)
    (total, _), _ = call(Patience(student="twin"))
    assert float(total) / ROWS == pytest.approx(released * 1 * WIDE, rel=1e-5)


@pytest.mark.parametrize("layers", ["uniform", "top"])
def test_attention_scores_are_those_of_a_plain_loop_over_real_pairs(layers):
    term = AttentionScores(layers=layers)
    (total, _), _ = call(term)
    expected, pairs = 0.0, 0
    for row, query, key in np.ndindex(ROWS, LENGTH, LENGTH):
        if REAL[row, query] and REAL[row, key]:
            pairs += 1
            for m, n in enumerate(layer_map(layers, 4, 2)):
                for head in range(HEADS):
                    at = (row, head, query, key)
                    expected += float(OUTPUTS["student"].scores[m][at] - OUTPUTS["teacher"].scores[n][at]) ** 2 / HEADS
    assert float(total) == pytest.approx(expected, rel=1e-5) and int(term.count(BATCH)) == pairs == 25 + 9 + 16


WORDS = {
    "teacher": np.array([[-1, 0, 0, 1, -1], [-1, 0, -1, -1, -1], [-1, 1, 2, -1, -1]], np.int32),
    "student": np.array([[-1, 0, 1, 1, -1], [-1, 0, -1, -1, -1], [-1, 0, 2, -1, -1]], np.int32),
}
BY_WORD = {name: VIEW | {"words": WORDS[name]} for name in WORDS}
PLACES = {
    name: [[[place for place in range(LENGTH) if row[place] == word] for word in range(3)] for row in WORDS[name]]
    for name in WORDS
}
"""Of each view, row and word: where its pieces are."""


def of_word(x, places, align):
    """The first of some positions' vectors, or their mean; x is [length, ...]."""
    return np.mean([x[place].astype(np.float64) for place in (places[:1] if align == "first" else places)], axis=0)


def words_in_both():
    return [(row, word) for row in range(ROWS) for word in range(3) if all(PLACES[name][row][word] for name in WORDS)]


@pytest.mark.parametrize("align", ["first", "mean"])
def test_hidden_states_by_word_are_those_of_a_plain_loop(align):
    term = HiddenStates(align=align)
    bridge = term.init(jax.random.key(1), PARAMS)
    total, _ = term(PARAMS, OUTPUTS, BY_WORD, bridge)
    student, teacher = OUTPUTS["student"], OUTPUTS["teacher"]
    pairs = [("embeddings", student.embeddings, teacher.embeddings)]
    pairs += [("layers", student.hidden[m], teacher.hidden[n]) for m, n in enumerate((1, 3))]
    expected = 0.0
    for row, word in words_in_both():
        for name, states, target in pairs:
            own = of_word(states[row], PLACES["student"][row][word], align) @ np.asarray(bridge[name]["kernel"])
            expected += np.mean((own - of_word(target[row], PLACES["teacher"][row][word], align)) ** 2)
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert int(term.count(BY_WORD)) == len(words_in_both()) == 4, "words that both views have pieces of"


@pytest.mark.parametrize("align", ["first", "mean"])
def test_attention_scores_by_word_are_those_of_a_plain_loop(align):
    term = AttentionScores(align=align)
    total, _ = term(PARAMS, OUTPUTS, BY_WORD, {})
    expected, pairs = 0.0, 0
    for row, query in words_in_both():
        for other, key in words_in_both():
            if other != row:
                continue
            pairs += 1
            for m, n in enumerate((1, 3)):
                for head in range(HEADS):
                    found = []
                    for name, layer in (("student", m), ("teacher", n)):
                        scores = OUTPUTS[name].scores[layer, row, head]
                        of_query = of_word(scores, PLACES[name][row][query], align)
                        found.append(of_word(of_query, PLACES[name][row][key], align))
                    expected += (found[0] - found[1]) ** 2 / HEADS
    assert float(total) == pytest.approx(expected, rel=1e-5) and int(term.count(BY_WORD)) == pairs == 6


def test_one_piece_a_word_is_piece_by_piece_but_for_specials():
    every = np.where(REAL & (np.arange(LENGTH) > 0), np.arange(LENGTH) - 1, -1).astype(np.int32)
    rows = dict.fromkeys(BATCH, VIEW | {"words": every})
    no_first = dict.fromkeys(BATCH, VIEW | {"mask": REAL & (np.arange(LENGTH) > 0)})
    for align in ("first", "mean"):
        for kind in (HiddenStates, AttentionScores):
            plain, by_word = kind(), kind(align=align)
            bridge = plain.init(jax.random.key(1), PARAMS)
            one, other = plain(PARAMS, OUTPUTS, no_first, bridge)[0], by_word(PARAMS, OUTPUTS, rows, bridge)[0]
            assert float(one) == pytest.approx(float(other), rel=1e-5)
            assert float(plain.count(no_first)) == float(by_word.count(rows))


PIECES = {
    "teacher": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "b", "##c"),
    "student": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "##c", "b"),
}
SLOTS = {
    "teacher": {
        "words": np.array([[-1, 0, 1, 1, -1], [-1, 0, 0, 2, -1], [-1, 0, -1, -1, -1]], np.int32),
        "positions": np.array([[2, 3, 0], [1, 2, 3], [1, 0, 0]]),
        "targets": np.array([[5, 6, -1], [5, 5, 6], [5, -1, -1]]),
    },
    "student": {
        "words": np.array([[-1, 0, 0, 1, 1], [-1, 0, 2, -1, -1], [-1, 0, -1, -1, -1]], np.int32),
        "positions": np.array([[3, 4, 0], [1, 2, 0], [1, 0, 0]]),
        "targets": np.array([[6, 5, -1], [6, 5, -1], [6, -1, -1]]),
        "same": np.array([[True, True, False], [False, True, False], [True, False, False]]),
    },
}
TWINS = {(0, 0): 0, (0, 1): 1, (1, 1): 2, (2, 0): 0}
"""Student's slot, by row and number, to the teacher's; word 0 of row 1 is cut in two there, so it has none."""


def test_shared_targets_are_those_of_a_plain_loop():
    vocabularies = {name: Vocabulary(pieces) for name, pieces in PIECES.items()}
    term = SharedTargets(temperature=2.0)
    ids = term.constants(vocabularies)
    assert (
        [PIECES["teacher"][i] for i in ids["teacher"]] == [PIECES["student"][i] for i in ids["student"]] == ["##c", "b"]
    )
    found = {
        name: OUTPUTS[name]._replace(predictions=drawn(80 + len(name), ROWS, 3, MODELS[name].hidden)) for name in SLOTS
    }
    total, extra = term(PARAMS, found, SLOTS, ids)
    expected, agreed = 0.0, 0
    for (row, slot), twin in TWINS.items():
        logs = []
        for name, place in (("teacher", twin), ("student", slot)):
            vector = found[name].predictions[row, place].astype(np.float64)
            own = PARAMS[name]
            shared = {
                piece: vector @ own["embeddings"]["word"][number] + own["mlm"]["bias"][number]
                for number, piece in enumerate(PIECES[name])
                if piece in ("b", "##c")
            }
            logs.append(dict(zip(shared, log_softmax([score / 2 for score in shared.values()]), strict=True)))
        expected += 4 * sum(math.exp(logs[0][p]) * (logs[0][p] - logs[1][p]) for p in ("b", "##c"))
        agreed += max(logs[0], key=logs[0].get) == max(logs[1], key=logs[1].get)
    assert float(total) == pytest.approx(expected, rel=1e-5) and float(extra["agreement"]) == agreed
    assert int(term.count(SLOTS)) == 4 and [float(x) for x in extra["share"]] == [4, 5]
    with pytest.raises(UserError, match="no piece in common"):
        term.constants(vocabularies | {"student": Vocabulary((*PIECES["student"][:5], "d"))})
    with pytest.raises(UserError, match="above 0"):
        SharedTargets(temperature=0.0).check(MODELS)


def test_without_padding_attention_and_states_are_the_released_means():
    """TinyBERT's code takes plain means over whole tensors, summed over the layers."""
    full = {key: {"mask": np.ones_like(REAL), "targets": TARGETS} for key in BATCH}
    chosen = list(layer_map("uniform", 4, 2))
    (total, _), _ = call(AttentionScores(), rows=full)
    difference = OUTPUTS["student"].scores - OUTPUTS["teacher"].scores[chosen]
    released = sum(np.mean(layer.astype(np.float64) ** 2) for layer in difference)
    assert float(total / AttentionScores().count(full)) == pytest.approx(released, rel=1e-5)
    term = HiddenStates(released=True)
    (total, _), bridge = call(term, rows=full)
    kernel, bias = np.asarray(bridge["all"]["kernel"]), np.asarray(bridge["all"]["bias"])
    states = [OUTPUTS["student"].embeddings, *OUTPUTS["student"].hidden]
    targets = [OUTPUTS["teacher"].embeddings, *OUTPUTS["teacher"].hidden[chosen]]
    released = sum(np.mean((s @ kernel + bias - t) ** 2) for s, t in zip(states, targets, strict=True))
    assert float(total / term.count(full)) == pytest.approx(released, rel=1e-5)


@pytest.mark.parametrize("term", TERMS, ids=str)
def test_padding_and_the_order_of_rows_change_nothing(term):
    (total, _), bridge = call(term)
    order = np.array([2, 0, 1])

    def wider(x, axes):
        return np.pad(x, [(0, 2 * (axis in axes)) for axis in range(x.ndim)], constant_values=7)

    padded = {
        name: found._replace(
            **{part: wider(getattr(found, part), (1,)) for part in ("last", "embeddings", "transformed")},
            hidden=wider(found.hidden, (2,)),
            scores=wider(found.scores, (3, 4)),
        )
        for name, found in OUTPUTS.items()
    }
    mask = {key: {"mask": np.pad(REAL, ((0, 0), (0, 2))), "targets": TARGETS} for key in BATCH}
    assert float(term(PARAMS, padded, mask, bridge)[0]) == pytest.approx(float(total), rel=1e-5)
    assert int(term.count(mask)) == int(term.count(BATCH))
    moved = {
        name: Outputs(
            **{
                part: value[:, order] if part in ("hidden", "first", "scores") else value[order]
                for part, value in found._asdict().items()
                if value is not None
            }
        )
        for name, found in OUTPUTS.items()
    }
    rows = {name: {part: value[order] for part, value in view.items()} for name, view in BATCH.items()}
    assert float(term(PARAMS, moved, rows, bridge)[0]) == pytest.approx(float(total), rel=1e-5)


@pytest.mark.parametrize("term", TERMS, ids=str)
def test_gradients_are_those_of_finite_differences_and_spare_the_teacher(term):
    student = term.student
    bridge = term.init(jax.random.key(1), PARAMS)

    def loss(own, found, bridge):
        every = OUTPUTS | {student: found}
        return term(PARAMS | {student: own}, every, BATCH, bridge)[0]

    given = jax.tree.map(jnp.asarray, (PARAMS[student], OUTPUTS[student], bridge))
    gradients = jax.grad(loss, argnums=(0, 1, 2))(*given)
    direction = jax.tree.map(lambda x: drawn(x.size, *x.shape), given)
    slope = sum(float(jnp.vdot(g, d)) for g, d in zip(*map(jax.tree.leaves, (gradients, direction)), strict=True))
    step = 1e-2
    ahead, behind = (loss(*jax.tree.map(lambda x, d, by=by: x + by * d, given, direction)) for by in (step, -step))
    assert slope == pytest.approx(float(ahead - behind) / (2 * step), rel=2e-2, abs=1e-3) and slope != 0
    teacher = jax.grad(
        lambda own, found: term(PARAMS | {"teacher": own}, OUTPUTS | {"teacher": found}, BATCH, bridge)[0], (0, 1)
    )
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(teacher(PARAMS["teacher"], OUTPUTS["teacher"])))


def test_a_zero_state_has_a_finite_gradient():
    found = OUTPUTS["twin"]._replace(last=np.zeros_like(OUTPUTS["twin"].last))
    gradient = jax.grad(
        lambda x: CosineStates(student="twin")(PARAMS, OUTPUTS | {"twin": found._replace(last=x)}, BATCH, {})[0]
    )
    assert np.isfinite(gradient(jnp.asarray(found.last))).all()


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (SoftTargets(teacher="nobody"), "'nobody'; the models are"),
        (SoftTargets(temperature=0.0), "temperature"),
        (SoftTargets(weight=-1.0), "at least 0"),
        (HiddenStates(layers=None, embeddings=False), "choose one at least"),
        (HiddenStates(layers="middle"), "uniform, top, bottom"),
        (AttentionScores(align="last"), "pieces, first or mean"),
        (CosineStates(), "equal hidden: 'teacher' has 6, 'student' 4"),
        (Patience(), "equal hidden"),
        (Patience(student="twin", layers="first"), "skip or last"),
    ],
    ids=str,
)
def test_what_can_not_be_is_refused(term, message):
    with pytest.raises(UserError, match=message):
        term.check(MODELS)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="equal vocab"):
        SoftTargets().check(MODELS | {"student": dataclasses.replace(STUDENT, vocab=9)})
    with pytest.raises(UserError, match="MLM head"):
        SoftTargets().check(MODELS | {"student": dataclasses.replace(STUDENT, mlm=False)})
    with pytest.raises(UserError, match="equal heads: 'teacher' has 2, 'student' 4"):
        AttentionScores().check(MODELS | {"student": dataclasses.replace(STUDENT, heads=4)})
    with pytest.raises(UserError, match="divides 4"):
        HiddenStates().check(MODELS | {"student": dataclasses.replace(STUDENT, layers=3)})
    with pytest.raises(UserError, match="2 layers at least"):
        Patience(student="twin").check(MODELS | {"twin": dataclasses.replace(TWIN, layers=1)})
    for term in TERMS:
        term.check(MODELS)


def test_layer_maps():
    assert layer_map("uniform", 12, 6) == (1, 3, 5, 7, 9, 11) and layer_map("uniform", 12, 4) == (2, 5, 8, 11)
    assert layer_map("top", 12, 4) == (8, 9, 10, 11) and layer_map("bottom", 12, 4) == (0, 1, 2, 3)
    assert layer_map("uniform", 3, 3) == layer_map("top", 3, 3) == (0, 1, 2)
    with pytest.raises(UserError, match="12 teacher layers cannot be spread evenly over 5"):
        layer_map("uniform", 12, 5)
    with pytest.raises(UserError, match="can't follow"):
        layer_map("top", 4, 6)


def test_patience_follows_the_papers_layers():
    assert Patience()._map(12, 6) == (1, 3, 5, 7, 9) and Patience(layers="last")._map(12, 6) == (6, 7, 8, 9, 10)
    assert Patience()._map(12, 3) == (3, 7) and Patience(layers="last")._map(12, 3) == (9, 10)


def test_a_start_is_spread_over_the_teacher():
    assert spread(12, 6) == (0, 2, 4, 7, 9, 11) and spread(6, 3) == (0, 3, 5)
    assert spread(12, 12) == tuple(range(12)) and spread(5, 1) == (0,) and spread(12, 2) == (0, 11)
    for teacher in range(2, 25):
        for student in range(2, teacher + 1):
            expected = tuple(math.floor(i * (teacher - 1) / (student - 1) + 0.5) for i in range(student))
            assert spread(teacher, student) == expected
    with pytest.raises(UserError, match="can't be taken"):
        spread(3, 4)


def test_a_weight_may_change_with_the_step():
    line, wave = Ramp(1.0, 0.0, 10, 20), Ramp(0.0, 2.0, 0, 8, "cosine")
    assert [float(weight_at(line, step)) for step in (0, 10, 15, 20, 99)] == pytest.approx([1, 1, 0.5, 0, 0])
    assert [float(weight_at(wave, step)) for step in (0, 4, 8)] == pytest.approx([0, 1, 2])
    assert float(weight_at(wave, 2)) == pytest.approx(1 - math.cos(math.pi / 4)) and weight_at(0.5, 3) == 0.5


@pytest.mark.parametrize(
    "numbers", [(1.0, 0.0, 5, 5), (-1.0, 0.0, 0, 5), (1.0, math.nan, 0, 5), (1.0, 0.0, 0, 5, "step")]
)
def test_a_ramp_that_makes_no_sense_is_refused(numbers):
    with pytest.raises(UserError):
        Ramp(*numbers)


def test_the_transform_is_the_same_everywhere_and_at_the_masked_positions():
    config = dataclasses.replace(STUDENT, dropout=0.0, attention_dropout=0.0)
    own = bert.init(config, jax.random.key(0))
    ids, places = np.arange(ROWS * LENGTH).reshape(ROWS, LENGTH) % VOCAB, np.array([[1, 3], [0, 2], [2, 2]])
    run = lambda want: bert.Bert(config).apply({"params": own}, ids, REAL, positions=places, want=frozenset(want))  # noqa: E731
    plain, everywhere = run([]), run(["transformed"])
    assert plain.transformed is None
    np.testing.assert_allclose(everywhere.predictions, plain.predictions, rtol=1e-5, atol=1e-6)
    found = np.take_along_axis(np.asarray(everywhere.transformed), places[:, :, None], 1)
    np.testing.assert_array_equal(found, everywhere.predictions)
