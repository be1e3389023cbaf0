"""What no term asks for is not in the compiled step: it costs no memory."""

import jax
import jax.numpy as jnp
import pytest

from jaxdistill import step as steps
from jaxdistill.data.views import View
from jaxdistill.experiment import BertConfig, Data, Experiment
from jaxdistill.initial import Random
from jaxdistill.optim import Optimizer
from jaxdistill.terms import AttentionScores, CosineStates, HiddenStates, MaskedLM, SoftTargets

ROWS, LENGTH, WIDTH, HEADS, LAYERS = 4, 32, 8, 2, 6
STATES = f"f32[{LAYERS},{ROWS},{LENGTH},{WIDTH}]"
SCORES = f"f32[{LAYERS},{ROWS},{HEADS},{LENGTH},{LENGTH}]"


def compiled(**more):
    """DistilBERT's step with further terms; the teacher alone has so many layers."""
    shape = {"vocab": 50, "hidden": WIDTH, "heads": HEADS, "ffn": 12, "positions": LENGTH}
    rule = Optimizer("adamw", 1e-3)
    job = Experiment(
        name="wanted",
        data=Data(
            corpus="",
            vocabularies={"teacher": ""},
            views={"student": View("teacher"), "teacher": View("teacher", masks_of="student")},
            batch=ROWS,
            length=LENGTH,
        ),
        models={"student": BertConfig(**shape, layers=3), "teacher": BertConfig(**shape, layers=LAYERS)},
        start={"student": Random(), "teacher": Random()},
        terms={"ce": SoftTargets(), "mlm": MaskedLM("student"), "cos": CosineStates()} | more,
        optimizers={"student": rule} | ({"bridge": rule} if "states" in more else {}),
        steps=10,
        trains=(("teacher/.*", False), (".*", True)),
    )
    view = {
        name: jax.ShapeDtypeStruct((ROWS, size), bool if name == "mask" else jnp.int32)
        for name, size in {"ids": LENGTH, "mask": LENGTH, "positions": 5, "targets": 5}.items()
    }
    state = jax.eval_shape(lambda: steps.init_state(job))
    return steps.make_train_step(job).lower(state, {"student": view, "teacher": view}).compile()


@pytest.fixture(scope="module")
def plain():
    return compiled()


@pytest.mark.parametrize(
    ("more", "shape", "size"),
    [
        ({"states": HiddenStates(embeddings=False)}, STATES, 4 * LAYERS * ROWS * LENGTH * WIDTH),
        ({"scores": AttentionScores()}, SCORES, 4 * LAYERS * ROWS * HEADS * LENGTH**2),
    ],
)
def test_a_teacher_s_states_and_scores_are_kept_only_for_terms_that_compare_them(plain, more, shape, size):
    asked = compiled(**more)
    assert shape in asked.as_text() and shape not in plain.as_text()
    added = asked.memory_analysis().temp_size_in_bytes - plain.memory_analysis().temp_size_in_bytes
    assert added > 0.9 * size
