import dataclasses

import jax
import numpy as np
import pytest
from toy_models import MODELS, STUDENT, TEACHER, random_params, view

from jaxdistill.errors import UserError
from jaxdistill.mixed import Mixed

PARAMS = {"teacher": random_params(TEACHER, 1), "student": random_params(STUDENT, 2)}


def bridged(mixed: Mixed, seed: int = 0) -> dict:
    return PARAMS | {"bridge": {"mixed": mixed.init(jax.random.key(seed), PARAMS)}}


def mean_norm(table) -> float:
    return float(np.mean([np.sqrt(sum(float(x) ** 2 for x in row)) for row in np.asarray(table)]))


@pytest.mark.parametrize("shared", [True, False])
def test_rows_start_with_the_mean_norm_of_the_readers_own(shared):
    mixed = Mixed(shared=shared)
    params = bridged(mixed)
    assert mixed.table(params).shape == (STUDENT.vocab, TEACHER.hidden)
    assert mean_norm(mixed.table(params)) == pytest.approx(mean_norm(PARAMS["teacher"]["embeddings"]["word"]), rel=1e-5)
    assert params["bridge"]["mixed"]["output_bias"].shape == (STUDENT.vocab,)
    assert not np.any(params["bridge"]["mixed"]["output_bias"])


def test_a_shared_table_is_an_affine_map_of_the_others_rows():
    params = bridged(Mixed())
    params["bridge"]["mixed"]["map"]["bias"] = np.arange(6, dtype=np.float32)
    kernel, rows = np.asarray(params["bridge"]["mixed"]["map"]["kernel"], np.float64), PARAMS["student"]["embeddings"]
    expected = [[sum(row[i] * kernel[i, j] for i in range(4)) + j for j in range(6)] for row in rows["word"]]
    np.testing.assert_allclose(Mixed().table(params), expected, rtol=1e-5, atol=1e-6)
    assert set(params["bridge"]["mixed"]) == {"map", "output_bias"}


def test_a_separate_table_owes_nothing_to_the_other_model():
    mixed = Mixed(shared=False)
    params = bridged(mixed)
    assert set(params["bridge"]["mixed"]) == {"table", "output_bias"}
    gradient = jax.grad(lambda p: (mixed.table(p) ** 2).sum())(params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient["student"]))
    gradient = jax.grad(lambda p: (Mixed().table(p) ** 2).sum())(bridged(Mixed()))
    assert np.any(gradient["student"]["embeddings"]["word"])


@pytest.mark.parametrize("shared", [True, False])
def test_each_piece_is_looked_up_in_the_table_that_its_source_names(shared):
    mixed = Mixed(shared=shared)
    params, rows = bridged(mixed), view(TEACHER, STUDENT.vocab)
    found = mixed.words(params, rows)
    own, other = np.asarray(params["teacher"]["embeddings"]["word"]), np.asarray(mixed.table(params))
    assert {0, 1} == set(rows["source"].flat)
    for place in np.ndindex(*rows["ids"].shape):
        expected = (other if rows["source"][place] else own)[rows["ids"][place]]
        np.testing.assert_array_equal(found[place], expected)


def test_a_row_gets_the_gradient_of_its_own_pieces_alone():
    params, rows = bridged(Mixed()), view(TEACHER, STUDENT.vocab)
    gradient = jax.grad(lambda p: Mixed().words(p, rows).sum())(params)
    for name, role, number in (("teacher", "teacher", 0), ("student", "student", 1)):
        read = set(rows["ids"][rows["source"] == number].tolist())
        touched = np.flatnonzero(np.abs(gradient[role]["embeddings"]["word"]).sum(axis=1)).tolist()
        assert set(touched) == read, name


def test_models_that_can_not_be_mixed_are_refused():
    with pytest.raises(UserError, match="'teacher'; the models are"):
        Mixed().check({"student": STUDENT})
    with pytest.raises(UserError, match="no MLM head"):
        Mixed().check(MODELS | {"teacher": dataclasses.replace(TEACHER, mlm=False)})
    Mixed().check(MODELS)
