"""A teacher that is computed once: the same losses, and never a stale cache."""

import dataclasses
import json
import os
import shutil

import jax
import numpy as np
import pytest
import tqdm

from jaxdistill import bert, cache, cli, hf, losses, tree
from jaxdistill.data.masking import Masking
from jaxdistill.data.views import View
from jaxdistill.errors import UserError
from jaxdistill.experiment import Data, Experiment
from jaxdistill.export import read_run
from jaxdistill.hf import read_config
from jaxdistill.initial import FromHuggingFace, FromLayers, Random
from jaxdistill.metrics import read_lines
from jaxdistill.optim import Optimizer
from jaxdistill.run import Run
from jaxdistill.terms import AttentionScores, CosineStates, HiddenStates, MaskedLM, Patience, SoftTargets
from jaxdistill.train import train

RUN = Run(devices=1, tensorboard=False, log_every=1, save_every=10)


@pytest.fixture
def asked(tiny_inputs) -> Experiment:
    """A student that follows a frozen teacher of the same vocabulary in every way that can be cached."""
    plain = {"dropout": 0.0, "attention_dropout": 0.0}
    teacher = dataclasses.replace(read_config(tiny_inputs.teacher), **plain)
    vocabulary = str(tiny_inputs.teacher)
    return Experiment(
        name="plain",
        data=Data(
            corpus=str(tiny_inputs.corpus),
            vocabularies={"teacher": vocabulary},
            views={"student": View("teacher"), "teacher": View("teacher", masks_of="student")},
            batch=8,
            length=16,
            masking=Masking(predictions=3, static=5),
        ),
        models={"student": dataclasses.replace(teacher, layers=1), "teacher": teacher},
        start={"student": Random(), "teacher": FromHuggingFace(vocabulary)},
        terms={
            "mlm": MaskedLM("student"),
            "soft": SoftTargets(chunk=5),
            "cosine": CosineStates(),
            "hidden": HiddenStates(),
        },
        optimizers={"student": Optimizer(learning_rate=0.01), "bridge": Optimizer()},
        steps=3,
        trains=((r"teacher/.*", False), (r".*", True)),
        run=RUN,
    )


def read(experiment):
    return cache.open_inputs(experiment.data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("caches")


@pytest.fixture
def made(asked, folder):
    """A cache of all pieces but one at each position."""
    if not (folder / "whole").exists():
        cache.build(asked, folder / "whole", top=asked.models["teacher"].vocab - 1, progress=False)
    return folder / "whole"


def finished(experiment, workdir):
    assert train(experiment, workdir, notify=lambda line: None).finished
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return lines, read_run(workdir).params


def test_training_with_a_cache_is_training_with_the_teacher(asked, made, tmp_path):
    lines, params = finished(asked, tmp_path / "whole")
    again, same = finished(cache.using(asked, made), tmp_path / "cached")
    for one, other in zip(lines, again, strict=True):
        for name in ("mlm", "soft", "cosine", "hidden", "hidden/layers", "hidden/embeddings", "soft/agreement"):
            assert other[name] == pytest.approx(one[name], rel=2e-3, abs=1e-4), name
    for name, value in tree.flatten(params).items():
        np.testing.assert_allclose(tree.flatten(same)[name], value, atol=2e-3, err_msg=name)
    with pytest.raises(UserError, match=r"data\.cache"):
        train(asked, tmp_path / "cached", notify=lambda line: None)


def test_a_cache_holds_what_the_teacher_computes(asked, made):
    arrays = {path.name: np.load(path) for path in made.glob("*.npy")}
    assert set(arrays) == {f"teacher.{name}.npy" for name in ("top", "chances", "last", "hidden", "embeddings")}
    assert arrays["teacher.top.npy"].dtype == np.uint16 and arrays["teacher.hidden.npy"].dtype == np.float16
    batches = read(asked).batches(asked.data, 0)
    windows = np.array([7, 2])
    view = batches.read(windows, 99, np.array([3, 4]))["teacher"]
    params = hf.read_hf(asked.start["teacher"].source).params
    want = frozenset({"hidden", "transformed"})
    found = bert.Bert(asked.models["teacher"]).apply({"params": params}, view["ids"], view["mask"], want=want)
    np.testing.assert_allclose(arrays["teacher.last.npy"][windows], found.last, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(arrays["teacher.hidden.npy"][windows].swapaxes(0, 1), found.hidden, rtol=1e-3, atol=1e-3)
    logits = (
        np.asarray(bert.logits(found.transformed, params["embeddings"]["word"], params["mlm"]["bias"]), np.float64) / 2
    )
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    top, chances = arrays["teacher.top.npy"][windows].astype(int), arrays["teacher.chances.npy"][windows]
    np.testing.assert_array_equal(top[..., 0][view["mask"]], logs.argmax(-1)[view["mask"]])
    np.testing.assert_allclose(chances[..., :-1], np.take_along_axis(logs, top, -1), atol=5e-3)
    np.testing.assert_allclose(np.exp(chances.astype(np.float64)).sum(-1), 1, atol=5e-3)


def test_static_masks_are_those_of_the_window_and_not_of_the_step(asked):
    batches = read(asked).batches(asked.data, 3)
    windows, rows = np.array([4, 9, 1]), np.arange(3)
    one, two = batches.read(windows, 0, rows), batches.read(windows[::-1], 70, rows + 5)
    for name, value in one["student"].items():
        np.testing.assert_array_equal(two["student"][name][::-1], value)
    other = dataclasses.replace(batches, masking=dataclasses.replace(batches.masking, static=6)).read(windows, 0, rows)
    assert not np.array_equal(other["student"]["positions"], one["student"]["positions"])


def test_fewer_pieces_give_a_smaller_divergence():
    """Merging classes never makes two distributions easier to tell apart."""
    draw = np.random.default_rng(0)
    teacher, student = draw.normal(0, 2, (2, 5, 9)).astype(np.float32)
    logs = np.asarray(jax.nn.log_softmax(teacher / 2))
    found = []
    for count in (1, 3, 8):
        top = np.argsort(-logs, axis=-1)[:, :count]
        best = np.take_along_axis(logs, top, -1)
        rest = np.log1p(-np.exp(best).sum(-1, keepdims=True))
        value = np.asarray(losses.top_divergence(top, np.concatenate([best, rest], -1), student, 2.0))
        for row in range(5):
            p, q = np.exp(logs[row]), np.exp(jax.nn.log_softmax(student[row] / 2))
            kept = top[row]
            others = [p.sum() - p[kept].sum(), q.sum() - q[kept].sum()]
            expected = sum(p[kept] * np.log(p[kept] / q[kept])) + others[0] * np.log(others[0] / others[1])
            assert value[row] == pytest.approx(4 * expected, rel=1e-3, abs=1e-5)
        found.append(value)
    assert (np.diff(found, axis=0) > -1e-5).all()
    np.testing.assert_allclose(found[-1], losses.divergence(teacher, student, 2.0), rtol=1e-4)


def test_a_cache_that_was_stopped_goes_on(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_FLUSH", 1)
    cache.build(asked, tmp_path / "whole", progress=False)
    seen = []

    def stop(self, count):
        seen.append(count)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tqdm.tqdm, "update", stop)
        with pytest.raises(KeyboardInterrupt):
            cache.build(asked, tmp_path / "stopped", progress=False)
    assert not (tmp_path / "stopped").exists()
    cache.build(asked, tmp_path / "stopped", progress=False)
    assert sorted(path.name for path in (tmp_path / "stopped").iterdir()) == sorted(os.listdir(tmp_path / "whole"))
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "stopped" / path.name).read_bytes() == path.read_bytes()
    with pytest.raises(UserError, match="exists already"):
        cache.build(asked, tmp_path / "whole", progress=False)


def test_leftovers_that_noted_nothing_are_begun_anew(asked, tmp_path):
    (tmp_path / ".made.part").mkdir()
    np.save(tmp_path / ".made.part" / "teacher.top.npy", np.zeros(3))
    cache.build(asked, tmp_path / "made", progress=False)
    assert set(cache.open_cache(cache.using(asked, tmp_path / "made"), read(asked))) == {"teacher"}


@pytest.mark.parametrize("harm", ["flip", "remove"])
def test_a_damaged_cache_is_refused(asked, made, tmp_path, harm):
    shutil.copytree(made, tmp_path / "made")
    path = tmp_path / "made" / "teacher.chances.npy"
    if harm == "flip":
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()
    with pytest.raises(UserError, match=r"teacher\.chances\.npy is missing or damaged: make the cache again"):
        cache.open_cache(cache.using(asked, tmp_path / "made"), read(asked))


def test_a_stale_cache_is_refused(asked, made, tiny_inputs, tmp_path):
    fits = cache.using(asked, made)
    inputs = read(asked)
    assert set(cache.open_cache(fits, inputs)) == {"teacher"}
    config = read_config(tiny_inputs.teacher)
    hf.write_hf(tmp_path / "other", config, bert.init(config, jax.random.key(1)), None)
    changes = {
        "teachers": {"start": {**fits.start, "teacher": FromHuggingFace(str(tmp_path / "other"))}},
        "masking": {"data": dataclasses.replace(fits.data, masking=Masking(predictions=2, static=5))},
        "soft targets": {"terms": {**fits.terms, "soft": SoftTargets(temperature=3.0)}},
        "wanted": {"terms": {"soft": fits.terms["soft"]}},
    }
    for name, change in changes.items():
        with pytest.raises(UserError, match=f"with other {name}: make another"):
            cache.open_cache(dataclasses.replace(fits, **change), inputs)
    held_out = dataclasses.replace(asked, data=dataclasses.replace(asked.data, corpus=str(tiny_inputs.held_out)))
    with pytest.raises(UserError, match="with other corpus"):
        cache.open_cache(fits, read(held_out))
    vocabularies = {"teacher": str(tiny_inputs.vocabulary)}
    for name, change in (("length", {"length": 12}), ("vocabularies", {"vocabularies": vocabularies})):
        data = dataclasses.replace(fits.data, **change)
        with pytest.raises(UserError, match=f"with other .*{name}"):
            cache.open_cache(dataclasses.replace(fits, data=data), read(dataclasses.replace(fits, data=data)))
    key = cache.contents(fits, inputs, 8)
    half = dataclasses.replace(fits.models["teacher"], dtype="bfloat16")
    layers = {role: FromLayers(str(tiny_inputs.teacher), layers=(0, place)) for place, role in enumerate("ab")}
    others = [
        {"models": {**fits.models, "teacher": half}},
        {"seed": 1},
        {"start": {**fits.start, "teacher": layers["a"]}},
        {"start": {**fits.start, "teacher": layers["b"]}},
    ]
    keys = [
        key["teachers"],
        *(cache.contents(dataclasses.replace(fits, **one), inputs, 8)["teachers"] for one in others),
    ]
    assert all(one != other for place, one in enumerate(keys) for other in keys[:place])
    moved = shutil.copytree(tiny_inputs.teacher, tmp_path / "moved")
    starts = {**fits.start, "teacher": FromHuggingFace(str(moved))}
    assert cache.contents(dataclasses.replace(fits, start=starts), inputs, 8) == key, "the same weights elsewhere"


def test_patience_with_a_cache(asked, tmp_path):
    student = dataclasses.replace(asked.models["student"], layers=2)
    terms = {"patience": Patience(layers="last")}
    asked = dataclasses.replace(asked, models={**asked.models, "student": student}, terms=terms)
    cache.build(asked, tmp_path / "made", progress=False)
    losses = []
    for number, experiment in enumerate((asked, cache.using(asked, tmp_path / "made"))):
        train(experiment, tmp_path / str(number), notify=lambda line: None)
        losses.append([line["patience"] for line in read_lines(tmp_path / str(number) / "metrics.jsonl")])
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)


def test_what_can_not_be_cached_is_refused(asked, tmp_path):
    roles = ("student", "teacher", "bridge")
    for change, match in (
        ({"trains": ((".*", True),), "optimizers": dict.fromkeys(roles, Optimizer())}, "nothing to compute once"),
        ({"terms": {"attention": AttentionScores()}}, "too many to keep"),
        ({"terms": {**asked.terms, "own": MaskedLM("teacher")}}, "'own' names nothing that a cache could keep"),
        ({"terms": {"one": SoftTargets(), "two": SoftTargets(temperature=1.0)}}, "two temperatures"),
        ({"data": dataclasses.replace(asked.data, masking=Masking(predictions=3))}, "needs static masks"),
    ):
        with pytest.raises(UserError, match=match):
            cache.build(dataclasses.replace(asked, **change), tmp_path / "no", progress=False)
    for top in (0, asked.models["teacher"].vocab):
        with pytest.raises(UserError, match=f"top={top} for 'teacher': keep at least 1 of the"):
            cache.build(asked, tmp_path / "no", top=top)
    with pytest.raises(UserError, match="holds no cache"):
        cache.using(asked, tmp_path)
    with pytest.raises(UserError, match="leave one out"):
        Masking(rarity=0.7, static=1)


def test_the_commands(tiny_inputs, tmp_path, capsys):
    """A config of one's own, cached and trained from the command line."""
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    given = [str(tmp_path / "own.py"), f"--teacher={tiny_inputs.teacher}", f"--corpus={tiny_inputs.corpus}"]
    assert cli.main(["cache", *given, f"--out={tmp_path / 'made'}", "--top=4", "--masks=3"]) == 0
    assert "bytes a position" in capsys.readouterr().out
    run = ["--workdir", str(tmp_path / "run"), "--devices=1", "--no-tensorboard"]
    assert cli.main(["train", *given, *run, f"--cache={tmp_path / 'made'}"]) == 0
    saved = json.loads((tmp_path / "run" / "experiment.json").read_text())["config"]["data"]
    assert saved["masking"]["static"] == 3 and saved["cache"] == str(tmp_path / "made")
    assert cli.main(["train", *given, *run, f"--cache={tmp_path}"]) == 2
    assert "make one with `jaxdistill cache`" in capsys.readouterr().err
    assert cli.main(["cache", "--help"]) == 0 and "usage: jaxdistill cache CONFIG" in capsys.readouterr().out


OWN = '''
import dataclasses
from typing import Annotated
from jaxdistill.data.masking import Masking
from jaxdistill.data.views import View
from jaxdistill.experiment import Data, Experiment
from jaxdistill.hf import read_config
from jaxdistill.initial import FromHuggingFace, Random
from jaxdistill.optim import Optimizer
from jaxdistill.terms import SoftTargets


def config(teacher: Annotated[str, "a folder"], corpus: Annotated[str, "a corpus"]) -> Experiment:
    """A student that follows soft targets alone."""
    shape = read_config(teacher)
    views = {"student": View("own"), "teacher": View("own", masks_of="student")}
    return Experiment(
        name="own",
        data=Data(corpus, {"own": teacher}, views, 8, 16, Masking(predictions=3)),
        models={"student": dataclasses.replace(shape, layers=1), "teacher": shape},
        start={"student": Random(), "teacher": FromHuggingFace(teacher)},
        terms={"soft": SoftTargets()},
        optimizers={"student": Optimizer()},
        steps=2,
        trains=(("teacher/.*", False), (".*", True)),
    )
'''
