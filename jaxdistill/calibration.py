"""What a machine reaches in training steps, measured once and kept: seconds for each kind of their work."""

import dataclasses
import math
import os
import pathlib
import time
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill import files, tree
from jaxdistill import step as steps
from jaxdistill.chips import CHIPS, copy_rate, find_chip, matmul_rate
from jaxdistill.data.masking import Masking
from jaxdistill.data.views import View
from jaxdistill.experiment import BertConfig, Data, Experiment
from jaxdistill.initial import Random
from jaxdistill.optim import Optimizer
from jaxdistill.terms import MaskedLM
from jaxdistill.traffic import state_shapes

KINDS = ("flops", "elements", "scores", "parameters")
_STEPS = 5

# Steps in each of which another kind of work weighs most: vocabulary, hidden, layers, heads, length, rows.
_PROBES = (
    (4928, 768, 2, 12, 128, 8),
    (4928, 48, 4, 12, 128, 8),
    (4928, 192, 4, 4, 64, 16),
    (30522, 768, 2, 12, 128, 2),
)
_ON_CHIPS = 64  # times as many rows: a step must take much longer than starting it does


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What was measured on one device.

    Attributes:
      cores: of the CPU that it is; 0 for other chips.
      flops: FLOP/s of a large matrix product.
      moved: bytes/s to and from memory of a large copy.
      seconds: for one unit of each kind of work (`effort`), in training steps.
    """

    cores: int
    flops: float
    moved: float
    seconds: Mapping[str, float]


def effort(experiment: Experiment, mesh_shape: Mapping[str, int]) -> dict[str, float]:
    """A step's work on each device, by `KINDS`.

    FLOP of matrix products; elements of hidden states that are computed one by one, in the forward pass and the
    backward pass; attention scores, the same; and parameters that are updated, once more for each term on parameters,
    with their gradients, which are added up for each micro-batch.
    """
    data, devices = experiment.data, math.prod(mesh_shape.values())
    pieces = data.batch // (experiment.run.micro_batch * devices or data.batch)
    elements = scores = 0.0
    for view in experiment.running():
        config = experiment.models[experiment.reader(view)]
        share = data.batch / devices * config.layers * (3 if experiment.learns(view) else 1)
        elements += share * data.length * (7 * config.hidden + config.ffn)
        scores += share * config.heads * data.length**2
    trained = sum(math.prod(leaf.shape) for leaf in tree.flatten(state_shapes(experiment)["trained"]).values())
    passes = 1 + (pieces - 1) * 2 / 7 + sum(hasattr(term, "parameters") for term in experiment.terms.values())
    values = (steps.flops_per_step(experiment) / devices, elements, scores, trained * passes / mesh_shape["fsdp"])
    return dict(zip(KINDS, values, strict=True))


def seconds(calibration: Calibration, work: Mapping[str, float]) -> float:
    """How long a step takes that has the work of `effort`, when nothing is sent."""
    return sum(calibration.seconds[kind] * amount for kind, amount in work.items())


def calibrate(dtype: str) -> Calibration:
    """Measures the first device here, in about a minute."""
    device = jax.devices()[0]
    times = 1 if device.platform == "cpu" else _ON_CHIPS
    measured = [
        _probe(BertConfig(vocab, hidden, layers, heads, 4 * hidden, length, dtype=dtype), rows * times)
        for vocab, hidden, layers, heads, length, rows in _PROBES
    ]
    return Calibration(
        cores=cores() if device.platform == "cpu" else 0,
        flops=matmul_rate(device, dtype),
        moved=copy_rate(device),
        seconds=fit([work for work, _ in measured], [took for _, took in measured]),
    )


def fit(works: list[Mapping[str, float]], took: list[float]) -> dict[str, float]:
    """Seconds for a unit of each kind, none negative, with which the sums are nearest, in proportion, to what it took.

    A kind whose seconds would be negative is left out, the most negative first.
    """
    kinds = list(KINDS)
    while True:
        matrix = np.array([[work[kind] / each for kind in kinds] for work, each in zip(works, took, strict=True)])
        scale = matrix.max(axis=0)
        found = np.linalg.lstsq(matrix / scale, np.ones(len(took)), rcond=None)[0] / scale
        if (found >= 0).all():
            return dict.fromkeys(KINDS, 0.0) | dict(zip(kinds, found.tolist(), strict=True))
        kinds.pop(int(np.argmin(found * scale)))


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def path() -> pathlib.Path:
    """Where calibrations are kept."""
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(root) / "jaxdistill" / "calibration.json"


def name_here(dtype: str) -> str:
    """By what name the calibration of the device here is kept."""
    chip = find_chip(jax.devices()[0].device_kind)
    return f"{next((name for name, own in CHIPS.items() if own is chip), 'cpu')}/{dtype}"


def read(name: str) -> Calibration | None:
    """A calibration by its name, such as `cpu/float32`, or None."""
    kept = files.read_json(path()) if path().is_file() else {}
    return Calibration(**kept[name]) if name in kept else None


def keep(name: str, calibration: Calibration) -> None:
    """Keeps a calibration in the place of an older one of this name."""
    kept = files.read_json(path()) if path().is_file() else {}
    path().parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path(), kept | {name: dataclasses.asdict(calibration)})


def _probe(config: BertConfig, rows: int) -> tuple[dict[str, float], float]:
    """The work of a masked-LM step of a model, and the seconds that it takes."""
    data = Data("", {"model": ""}, {"model": View("model")}, rows, config.positions, Masking(predictions=20))
    experiment = Experiment(
        name="calibration",
        data=data,
        models={"model": config},
        start={"model": Random()},
        terms={"mlm": MaskedLM("model")},
        optimizers={"model": Optimizer("lamb")},
        steps=1000,
    )
    random, shape = np.random.default_rng(0), (rows, config.positions)
    ids = random.integers(5, config.vocab, shape, np.int32)
    places = np.tile(np.arange(1, 21, dtype=np.int32), (rows, 1))
    batch = {"ids": ids, "mask": np.ones(shape, bool), "positions": places, "targets": ids[:, 1:21]}
    state, batch = steps.init_state(experiment), jax.tree.map(jnp.asarray, {"model": batch})
    step = steps.make_train_step(experiment)
    took = []
    for _ in range(_STEPS + 1):
        began = time.perf_counter()
        state, _ = step(state, batch)
        jax.block_until_ready(state)
        took.append(time.perf_counter() - began)
    return effort(experiment, {"data": 1, "fsdp": 1}), min(took[1:])
