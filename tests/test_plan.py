"""Plans: what is foretold of bytes, work and time against compiled programs, sums by hand and known costs."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from jaxdistill import bert, calibration, chips, cli, knobs, plan, program, roofline, sharding, standins, tree
from jaxdistill import step as steps
from jaxdistill.calibration import Calibration
from jaxdistill.errors import UserError
from jaxdistill.inputs import open_inputs

ONE = {"data": 1, "fsdp": 1}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Calibrations of this machine are not those of a test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def words(tiny_inputs, run=None, **changes):
    """The tiny experiment as the arguments of `plan`."""
    train, config, _, *options = tiny_inputs.arguments("unused", run, **changes)
    assert train == "train"
    return [config, *options]


@pytest.mark.parametrize(
    ("variant", "devices", "fsdp", "rows"),
    [
        ("nokd", 4, 2, 2),
        pytest.param("up", 8, 1, 1, marks=pytest.mark.slow),
        pytest.param("up", 1, 1, 4, marks=pytest.mark.slow),
    ],
)
def test_bytes_are_those_of_the_program_that_trains(tiny_inputs, variant, devices, fsdp, rows):
    """Arguments by shapes and shardings, the rest by a compilation elsewhere, against this process's own program."""
    arguments = words(tiny_inputs, variant=variant, batch=16, hidden=16)
    made = program.experiment_of(arguments)
    batch = program.batch_shapes(made, open_inputs(made.data))
    (temporary,) = program.temporary_bytes(arguments, batch, [(devices, fsdp, rows)])
    mesh = sharding.make_mesh(fsdp, devices)
    state = steps.init_state(made)
    held = jax.device_put(state, steps.state_shardings(made, state, mesh))
    whole = jax.device_put(open_inputs(made.data).batches(made.data, 0)(0), sharding.batch_sharding(mesh))
    real = steps.make_train_step(made, mesh, rows * devices).lower(held, whole).compile().memory_analysis()
    foretold = sum(program.argument_bytes(made, mesh.shape, batch).values())
    assert foretold == pytest.approx(real.argument_size_in_bytes, rel=0.02, abs=200)
    asked = real.argument_size_in_bytes + real.temp_size_in_bytes
    assert foretold + temporary == pytest.approx(asked, rel=0.15)


def products(config, length, predictions):
    """Every matrix product of a row's forward pass, as rows, inner and columns, and how often."""
    size = config.hidden // config.heads
    layer = [
        *[((length, config.hidden, config.hidden), 4)],
        *[((length, config.hidden, config.ffn), 1), ((length, config.ffn, config.hidden), 1)],
        *[((length, size, length), config.heads), ((length, length, size), config.heads)],
    ]
    return layer, [((predictions, config.hidden, config.hidden), 1), ((predictions, config.hidden, config.vocab), 1)]


def test_work_is_that_of_every_product(tiny_inputs):
    experiment = tiny_inputs.experiment({"micro_batch": 1}, variant="nokd", batch=1, hidden=16)
    config, data = experiment.models["student"], experiment.data
    layer, head = products(config, data.length, data.predictions)
    counted = [(shape, times * config.layers) for shape, times in layer] + head
    flops = sum(2 * math.prod(shape) * times for shape, times in counted)
    moved = sum((m * k + k * n + m * n) * times for (m, k, n), times in counted)
    found = roofline.work(experiment, ONE)
    assert found.flops == 3 * flops
    assert found.moved == 4 * (3 * moved + 7 * bert.parameter_count(config))
    assert found.sent == 0


def test_devices_share_the_rows_and_not_the_parameters(tiny_inputs):
    experiment = tiny_inputs.experiment({"micro_batch": 2}, batch=16)
    one, four = roofline.work(experiment, ONE), roofline.work(experiment, {"data": 4, "fsdp": 1})
    assert four.flops == one.flops / 4
    assert one.moved / 4 < four.moved < one.moved
    trained = tree.flatten(steps.init_state(experiment)["trained"]).values()
    trained = sum(leaf.nbytes for leaf in trained)
    assert four.sent == 2 * 3 / 4 * trained
    shared = roofline.work(experiment, {"data": 1, "fsdp": 4})
    assert four.moved - shared.moved == 7 * trained - 7 / 4 * trained - 2 * trained, "gathered whole, given out whole"


def test_the_longest_kind_of_work_binds():
    work = roofline.Work(flops=6e12, moved=1e9, sent=0)
    found = roofline.terms(work, roofline.Rates(flops=2e12, moved=1e8, sent=0))
    assert found == {"compute": 3, "memory": 10, "network": 0}


@pytest.mark.parametrize("costs", [(1e-11, 3e-9, 1e-8, 1e-8), (2e-11, 0.0, 5e-9, 3e-8)])
def test_a_fit_finds_the_costs_and_none_is_negative(costs):
    works = [
        dict(zip(calibration.KINDS, amounts, strict=True))
        for amounts in ((9e10, 5e7, 9e6, 2e7), (1e9, 6e6, 2e7, 4e5), (2e10, 9e7, 6e6, 3e6), (2e10, 1e7, 2e6, 4e7))
    ]
    took = [sum(cost * amount for cost, amount in zip(costs, work.values(), strict=True)) for work in works]
    assert list(calibration.fit(works, took).values()) == pytest.approx(costs, abs=1e-13)
    noisy = calibration.fit(works, [each * factor for each, factor in zip(took, (1.6, 0.7, 0.6, 1.5), strict=True)])
    assert min(noisy.values()) >= 0 < sum(noisy.values())


def test_effort_goes_with_the_rows_and_the_parameters(tiny_inputs):
    few, many = (tiny_inputs.experiment({"micro_batch": 8}, variant="dual", batch=batch) for batch in (8, 32))
    once, four = (calibration.effort(each, ONE) for each in (few, many))
    assert [four[kind] / once[kind] for kind in ("flops", "elements", "scores")] == [4, 4, 4]
    assert 1 < four["parameters"] / once["parameters"] < 2, "they are added up four times and updated once"
    student = few.models["student"]
    assert once["scores"] == 3 * 8 * 2 * (student.layers * student.heads) * few.data.length**2, (
        "the teacher has as many"
    )
    shared = calibration.effort(many, {"data": 4, "fsdp": 1})
    assert shared["flops"] == once["flops"] and shared["parameters"] == once["parameters"]


def test_a_machine_is_measured(monkeypatch):
    monkeypatch.setattr(calibration, "_PROBES", ((60, 8, 1, 2, 32, 2), (60, 16, 1, 2, 32, 2)))
    monkeypatch.setattr(chips, "_COPIED", 2**10)
    found = calibration.calibrate("float32")
    assert found.cores > 0 and found.flops > 0 and found.moved > 0 and sum(found.seconds.values()) > 0
    assert calibration.read("cpu/float32") is None
    calibration.keep("cpu/float32", found)
    calibration.keep("h200/bfloat16", dataclasses.replace(found, cores=0))
    assert calibration.read("cpu/float32") == found and calibration.name_here("float32") == "cpu/float32"


def settled(tiny_inputs, name, **run):
    experiment = tiny_inputs.experiment(run)
    return plan._settle(experiment, chips.find_hardware(name))


def test_rows_are_chosen_for_the_hardware_that_is_planned(tiny_inputs):
    assert settled(tiny_inputs, "v5e-4") == dataclasses.replace(
        tiny_inputs.experiment().run, devices=4, micro_batch=2
    ), "2 of 8 rows a device, which fit"
    assert settled(tiny_inputs, "v3-8").micro_batch == 1
    assert settled(tiny_inputs, "v5e-8", devices=2, fsdp=2).devices == 2
    assert "does not divide the 4 devices" in str(settled(tiny_inputs, "v5e-4", fsdp=3))
    assert "does not divide over 16 devices" in str(settled(tiny_inputs, "v5e-16"))
    assert "v5e-4 has 4" in str(settled(tiny_inputs, "v5e-4", devices=8))


def test_a_plan_needs_neither_text_nor_weights(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = ["--variant", "nokd", "--batch", "64", "--steps", "1000", "--price-per-hour", "10"]
    assert cli.main(["plan", "configs/extreme.py", "--hardware", "v4-8", *given]) == 0
    said = capsys.readouterr().out
    assert "4 x TPU v4 (8 TensorCores), 4 jax devices on 1 host" in said
    for missing in ("no corpus", "no vocabulary", "no teacher"):
        assert f"{missing} is given" in said
    assert "student: 12 x 48, 4,928 pieces, 589,520 parameters" in said, "as benchmarks.md has it"
    assert "16 rows at a time on each of 4 devices (data 4, fsdp 1)" in said
    for part in ("roofline: ", "bound by ", "expected: ", " to ", "price: ", "fits", "activations and gradients"):
        assert part in said
    assert not list(tmp_path.iterdir()), "nothing is left"


def test_what_is_given_is_used_and_a_calibration_foretells(tiny_inputs, capsys, monkeypatch):
    costs = dict(zip(calibration.KINDS, (1e-9, 1e-7, 1e-7, 1e-7), strict=True))
    calibration.keep("cpu/float32", Calibration(cores=2, flops=1e9, moved=1e9, seconds=costs))
    arguments = words(tiny_inputs, variant="nokd")
    monkeypatch.setattr(chips, "COMPARED", ("v5e-32", "h200-1"))
    assert cli.main(["plan", *arguments, "--compare", "--hardware", "cpu-4"]) == 0
    said = capsys.readouterr().out
    assert "is given" not in said
    line = next(line for line in said.splitlines() if line.startswith("cpu-4"))
    experiment = program.experiment_of(arguments)
    work = calibration.effort(
        dataclasses.replace(experiment, run=dataclasses.replace(experiment.run, micro_batch=8)), ONE
    )
    took = sum(costs[kind] * work[kind] for kind in costs) / 2
    assert float(line.split()[-2]) == pytest.approx(took * experiment.steps / 3600, rel=0.01)
    assert line.endswith("*")
    assert "v5e-32: a batch of 8 rows does not divide over 32 devices" in said
    other = next(line for line in said.splitlines() if line.startswith("h200-1")).split()
    assert other[1:3] == ["1", "8"] and other[5] == "yes" and " to " in " ".join(other)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["extreme", "--hardware", "v9-8"], "there is no hardware 'v9-8'"),
        (["extreme"], "name the --hardware"),
        ([], "name a config"),
        (["extreme", "--hardware", "v4-8", "--hiden", "4"], "did you mean --hidden"),
        (["extreme", "--hardware", "v4-8", "--price-per-hour", "cheap"], "'cheap' is not a number"),
        (["extreme", "--hardware", "v4-8", "--price-per-hour", "v5e-8=1"], "of those shown"),
        (["extreme", "--compare", "--price-per-hour", "3"], "NAME=PRICE"),
        (["finetune", "--hardware", "v4-8"], "missing: --task"),
        (["extreme", "--hardware", "v4-8", "--batch", "3"], "does not divide over 4 devices"),
    ],
)
def test_what_can_t_be_planned_is_refused(given, told, capsys):
    assert cli.main(["plan", *given]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    "given",
    [["distilbert"], ["mlm"], ["cross_vocabulary"], ["mixed_vocab", "--stage", "1"], ["tinybert_general"]],
)
def test_every_config_of_text_has_its_stand_ins(given, tmp_path):
    job = plan.read_job(given, tmp_path)
    assert any("no corpus" in told for told in job.told) and job.windows == 0
    shapes = tree.flatten(job.batch)
    assert {leaf.shape[0] for leaf in shapes.values()} == {job.experiment.data.batch}


def test_a_stand_in_of_a_teacher_has_its_shape(tmp_path):
    made = standins.stand_ins(knobs.load("extreme"), tmp_path)
    job = program.experiment_of(["extreme", *standins.arguments(made, ["--layers", "3"])])
    assert bert.parameter_count(dataclasses.replace(job.models["teacher"], pooler=True, nsp=True)) == 110_106_428
    assert job.models["student"].layers == 3 and job.models["student"].vocab == standins.PIECES


def test_prices_are_of_the_hardware_they_name():
    hardware = [chips.find_hardware(name) for name in ("v4-8", "v5e-8")]
    assert plan.prices("v5e-8=4.5,v4-8=3", hardware) == {"v5e-8": 4.5, "v4-8": 3.0}
    assert plan.prices("2", hardware[:1]) == {"v4-8": 2.0}
    assert plan.prices("", hardware) == {}
    with pytest.raises(UserError, match="NAME=PRICE"):
        plan.prices("-1", hardware[:1])
    assert np.isfinite(list(plan.prices("1e3", hardware[:1]).values())).all()
