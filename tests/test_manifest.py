import dataclasses
import json
import math
import pathlib

import numpy as np
import pytest

import jaxdistill
from jaxdistill.errors import UserError
from jaxdistill.manifest import (
    ABSENT,
    Change,
    as_dict,
    check_manifest,
    compare,
    manifest,
    notices,
    read_manifest,
    write_manifest,
)


@dataclasses.dataclass(frozen=True)
class Term:
    weight: float
    layers: tuple = (0, 2)


@dataclasses.dataclass(frozen=True)
class Config:
    hidden: int = 48
    rate: float = 1e-3
    terms: dict = dataclasses.field(default_factory=lambda: {"mlm": Term(1.0), "project": Term(0.5)})
    mesh: dict = dataclasses.field(default_factory=lambda: {"data": 1, "fsdp": 1})
    log_every: int = 10
    teacher: str | None = None


def whole(config=None, **data):
    return manifest(config or Config(), data or {"corpus": "aa"})


def test_as_dict_is_json():
    value = {
        "config": Config(),
        "nan": math.nan,
        "infinite": -math.inf,
        "none": None,
        "true": True,
    }
    got = as_dict(value)
    assert got == {
        "config": {
            "type": "Config",
            "hidden": 48,
            "rate": 1e-3,
            "terms": {
                "mlm": {"type": "Term", "weight": 1.0, "layers": [0, 2]},
                "project": {"type": "Term", "weight": 0.5, "layers": [0, 2]},
            },
            "mesh": {"data": 1, "fsdp": 1},
            "log_every": 10,
            "teacher": None,
        },
        "nan": "nan",
        "infinite": "-inf",
        "none": None,
        "true": True,
    }
    assert json.loads(json.dumps(got, allow_nan=False)) == got


@dataclasses.dataclass(frozen=True)
class Typed:
    type: str = "x"


@pytest.mark.parametrize("value", [object(), math.sqrt, {1: 2}, {1, 2}, Typed(), b"x", pathlib.Path("a")])
def test_as_dict_refuses_what_has_no_stable_form(value):
    with pytest.raises(TypeError):
        as_dict({"field": value})


def test_manifest_says_what_runs_here():
    here = whole()
    assert here["jaxdistill"] == jaxdistill.__version__
    assert {"jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "grain"} <= set(here["packages"])
    assert here["packages"]["numpy"] == np.__version__
    assert here["devices"] == {"kind": "cpu", "count": 8, "processes": 1}
    assert here["data"] == {"corpus": "aa"} and here["config"]["hidden"] == 48


def test_write_and_read(tmp_path):
    assert read_manifest(tmp_path) is None
    write_manifest(tmp_path, whole())
    saved = read_manifest(tmp_path)
    assert saved == whole()
    assert compare(saved, whole()) == [] and notices(saved, whole()) == []
    assert check_manifest(tmp_path, saved, whole()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not a JSON file"), ("[]", "not the manifest"), ('{"config": {}, "format": 9}', "has format 9")],
)
def test_a_bad_manifest(tmp_path, text, message):
    (tmp_path / "experiment.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_manifest(tmp_path)


def test_changes_are_named(tmp_path):
    write_manifest(tmp_path, whole())
    changed = Config(hidden=96, terms={"mlm": Term(2.0), "other": Term(1.0)}, teacher="bert", log_every=20)
    current = whole(changed, corpus="bb", vocabulary="cc")
    saved = read_manifest(tmp_path)
    assert compare(saved, current, how={"log_every"}) == [
        Change("hidden", 48, 96),
        Change("teacher", None, "bert"),
        Change("terms.mlm.weight", 1.0, 2.0),
        Change("terms.other", ABSENT, {"type": "Term", "weight": 1.0, "layers": [0, 2]}),
        Change("terms.project", {"type": "Term", "weight": 0.5, "layers": [0, 2]}, ABSENT),
        Change("contents of corpus", "aa", "bb"),
        Change("contents of vocabulary", ABSENT, "cc"),
    ]
    with pytest.raises(UserError) as caught:
        check_manifest(tmp_path, saved, current, how={"log_every"})
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{tmp_path} holds a run of another config:"
    assert "  hidden: 48 there, 96 now" in lines
    assert "  teacher: None there, 'bert' now" in lines
    assert "  contents of vocabulary: (absent) there, 'cc' now" in lines
    assert "Go back" in lines[-1] and "--workdir" in lines[-1]


def test_a_term_of_another_class_is_a_change():
    @dataclasses.dataclass(frozen=True)
    class Other:
        weight: float
        layers: tuple = (0, 2)

    (change,) = compare(whole(Config(terms={"mlm": Term(1.0)})), whole(Config(terms={"mlm": Other(1.0)})))
    assert change == Change("terms.mlm.type", "Term", "Other")


def test_how_it_runs_may_change():
    old, new = whole(), whole(Config(mesh={"data": 2, "fsdp": 4}, log_every=1))
    assert {change.field for change in compare(old, new)} == {"log_every", "mesh.data", "mesh.fsdp"}
    assert compare(old, new, how={"mesh", "log_every"}) == []
    assert [change.field for change in compare(old, new, how={"mesh.data", "log"})] == ["log_every", "mesh.fsdp"]


def test_whole_numbers_are_equal_and_truth_is_no_number():
    assert compare(whole(Config(rate=1)), whole(Config(rate=1.0))) == []
    assert [change.field for change in compare(whole(Config(rate=1)), whole(Config(rate=True)))] == ["rate"]


def test_other_versions_and_devices_are_notices(tmp_path):
    saved = json.loads(json.dumps(whole()))
    saved["packages"]["jax"] = "0.0.1"
    saved["devices"]["count"] = 2
    saved["python"] = "3.0"
    current = whole()
    lines = check_manifest(tmp_path, saved, current)
    assert lines == [
        f"python was 3.0, is now {current['python']}",
        f"jax was 0.0.1, is now {current['packages']['jax']}",
        "device count was 2, is now 8",
    ]
