import pytest
from toy_corpus import make

from jaxdistill.data.masking import Masking
from jaxdistill.data.views import View
from jaxdistill.errors import UserError


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_mixing_probability_and_ramp(probability):
    views = {
        "mixed": View("student", "student", probability),
        "ramp": View("student", "student", probability, ramp=100),
    }
    batches = make(batch=64, views=views, masking=Masking(mask=0.0, random=0.0, predictions=6))
    for step in (0, 50, 100, 2000):
        batch = batches(step)
        for role in views:
            body = batch[role]["mask"].sum() - 2 * 64
            expected = views[role].mixing(step)
            share = batch[role]["source"].sum() / body
            assert abs(share - expected) < 0.1 if 0 < expected < 1 else share == expected
    assert [View("a", "b", 0.5, ramp=10).mixing(step) for step in (0, 5, 10, 99)] == [0.0, 0.25, 0.5, 0.5]


def test_bad_settings():
    for wrong in ({"probability": 1.2}, {"probability": -0.1}, {"ramp": -1}):
        with pytest.raises(UserError):
            View("a", "b", **wrong)
