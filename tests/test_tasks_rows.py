"""Rows and batches of tasks: the pieces of `transformers`, every example once an epoch, like lengths together."""

import collections

import numpy as np
import pytest
import transformers

from jaxdistill.data.views import View
from jaxdistill.data.vocab import read_vocabulary
from jaxdistill.errors import UserError
from jaxdistill.tasks.rows import LENGTHS, TaskBatches, cut_rows, padded_length
from jaxdistill.tasks.task import Examples, Task

PAIRS = Task("pairs", "classes", ("no", "yes"), ("accuracy",), pair=True)


@pytest.fixture(scope="module")
def examples(tiny_text):
    lines = [line for line in tiny_text.splitlines() if line][:90]
    first, second = lines, [line[: 3 + 7 * (number % 9)] for number, line in enumerate(lines)]
    labels = (np.arange(len(lines)) % 2).astype(np.int32)
    return Examples(PAIRS, "train", tuple(map(str, range(90))), tuple(first), tuple(second), labels)


@pytest.fixture(scope="module")
def batches(examples, tiny_inputs):
    vocabulary = read_vocabulary(tiny_inputs.teacher)
    rows = {"own": cut_rows(vocabulary, examples, 40)}
    return TaskBatches(rows, {"own": vocabulary}, {"model": View("own"), "twin": View("own")}, 8, 40, seed=3)


@pytest.mark.parametrize("length", [24, 40, 200])
def test_rows_are_those_of_transformers(examples, tiny_inputs, length):
    theirs = transformers.AutoTokenizer.from_pretrained(tiny_inputs.teacher)
    ours = cut_rows(read_vocabulary(tiny_inputs.teacher), examples, length)
    given = theirs(list(examples.first), list(examples.second), truncation=True, max_length=length)
    for row in range(len(examples)):
        np.testing.assert_array_equal(ours.ids[row], given["input_ids"][row])
        np.testing.assert_array_equal(ours.types[row], given["token_type_ids"][row])


def test_every_example_is_read_once_an_epoch_in_another_order(batches, examples):
    found = []
    for epoch in range(2):
        seen = []
        for step in range(12 * epoch, 12 * epoch + 12):
            view = batches(step)["model"]
            real = view["mask"][:, 0]
            assert (view["classes"][real] >= 0).all() and (view["classes"][~real] == -1).all()
            seen += [tuple(ids[mask]) for ids, mask in zip(view["ids"][real], view["mask"][real], strict=True)]
        assert collections.Counter(seen) == collections.Counter(tuple(ids) for ids in batches.rows["own"].ids)
        found.append(seen)
    assert batches.epoch == 12 and found[0] != found[1]


def test_a_batch_is_a_function_of_its_step(batches):
    ahead = batches(17)
    batches(3)
    for name, value in batches(17)["model"].items():
        np.testing.assert_array_equal(ahead["model"][name], value)
        np.testing.assert_array_equal(ahead["twin"][name], value)


def test_processes_share_a_batch(batches):
    whole = batches(5)["model"]
    parts = [batches(5, process, 4)["model"] for process in range(4)]
    for name, value in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), value)
    with pytest.raises(UserError, match="does not divide over 3 processes"):
        batches(0, 0, 3)


def test_rows_of_a_batch_are_of_like_length_and_few_lengths_are_compiled(tiny_inputs):
    vocabulary = read_vocabulary(tiny_inputs.teacher)
    words = [" ".join(["river"] * (1 + number % 60)) for number in range(2000)]
    task = Task("one", "classes", ("no", "yes"))
    rows = cut_rows(vocabulary, Examples(task, "train", tuple(words), tuple(words), None, None), 300)
    batches = TaskBatches({"own": rows}, {"own": vocabulary}, {"model": View("own")}, 16, 300)
    shapes, real = collections.Counter(), 0
    for step in range(batches.epoch):
        mask = batches(step)["model"]["mask"]
        shapes[mask.shape[1]] += 1
        real += mask.sum()
    assert set(shapes) <= {*LENGTHS, 300} and len(shapes) > 3
    padded = sum(16 * length * count for length, count in shapes.items())
    assert real / padded > 0.7 > real / (16 * max(shapes) * batches.epoch)


def test_padded_lengths():
    assert [padded_length(longest, 100) for longest in (3, 16, 17, 96, 97, 100)] == [16, 16, 32, 96, 100, 100]


def test_scores_and_examples_without_labels(tiny_inputs):
    vocabulary = read_vocabulary(tiny_inputs.teacher)
    scored = Examples(Task("s", "score"), "train", ("0", "1"), ("a b", "c"), None, np.array([2.5, 1.0], np.float32))
    made = cut_rows(vocabulary, scored, 9).lay_out(np.array([1, -1, 0]), 9, vocabulary.pad)
    np.testing.assert_array_equal(made["score"], np.array([1.0, 0.0, 2.5], np.float32))
    assert not made["mask"][1].any() and (made["ids"][1] == vocabulary.pad).all()
    bare = Examples(Task("s", "score"), "test", ("0",), ("a",), None, None)
    assert set(cut_rows(vocabulary, bare, 9).lay_out(np.array([0]), 9, 0)) == {"ids", "types", "mask"}
