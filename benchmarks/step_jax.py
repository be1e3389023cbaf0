"""Our side of `step.py`: one process that runs the joint step of jaxdistill."""

import json
import pathlib
import resource
import sys
import time

import jax
import numpy as np

from jaxdistill import step as steps
from jaxdistill.data.masking import Masking
from jaxdistill.data.views import View
from jaxdistill.experiment import BertConfig, Data, Experiment
from jaxdistill.initial import FromHuggingFace
from jaxdistill.mixed import Mixed
from jaxdistill.optim import Optimizer
from jaxdistill.run import Run
from jaxdistill.terms import MaskedLM

SETTINGS = json.loads(sys.argv[1])


def experiment(settings: dict) -> Experiment:
    """The `dual` variant of configs/extreme.py, of any shape; it reads no files but the models' folders."""
    rates = {"dropout": settings["dropout"], "attention_dropout": settings["dropout"], "dtype": settings["dtype"]}
    mixed, rule = Mixed(), Optimizer("adamw", settings["learning_rate"], warmup=0, decay="constant")
    return Experiment(
        name="benchmark",
        data=Data(
            corpus="",
            vocabularies={"student": "", "teacher": ""},
            views={"student": View("student"), "teacher": View("teacher", "student")},
            batch=settings["batch"],
            length=settings["length"],
            masking=Masking(predictions=settings["predictions"]),
        ),
        models={role: BertConfig(**settings[role], **rates) for role in ("student", "teacher")},
        start={role: FromHuggingFace(str(pathlib.Path(settings["folder"], role))) for role in ("student", "teacher")},
        terms={"student_mlm": MaskedLM("student"), "teacher_mlm": MaskedLM("teacher", mixed=mixed)},
        optimizers={"student": rule, "teacher": rule, "bridge": rule},
        steps=1000,
        mixed=mixed,
        run=Run(unroll=settings["unroll"]),
    )


def read_batch() -> dict:
    """The batch that the parent wrote."""
    batch: dict = {"student": {}, "teacher": {}}
    with np.load(pathlib.Path(SETTINGS["folder"], "batch.npz")) as stored:
        for name in stored:
            role, field = name.split("/")
            batch[role][field] = jax.numpy.asarray(stored[name])
    return batch


def serve(job: Experiment, state: dict) -> None:
    """Compiles the step of a job, and takes one for every line read."""
    batch, gpu = read_batch(), jax.devices()[0].platform == "gpu"
    began = time.perf_counter()
    step = steps.make_train_step(job, micro_batch=SETTINGS["micro_batch"]).lower(state, batch).compile()
    print(json.dumps({"compile": time.perf_counter() - began, "flops": steps.flops_per_step(job)}), flush=True)
    for _ in sys.stdin:
        began, cpu = time.perf_counter(), time.process_time()
        state, metrics = step(state, batch)
        jax.block_until_ready(state)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if gpu:
            peak = jax.devices()[0].memory_stats()["peak_bytes_in_use"]
        loss = float(metrics["loss"][0])
        print(json.dumps({"seconds": seconds, "cpu": cpu, "loss": loss, "peak": peak}), flush=True)


def main() -> None:
    job = experiment(SETTINGS)
    state = steps.init_state(job)
    with np.load(pathlib.Path(SETTINGS["folder"], "bridge.npz")) as stored:
        bridge = {"output_bias": stored["output_bias"], "map": {"kernel": stored["kernel"], "bias": stored["bias"]}}
    state["trained"]["bridge"] = jax.tree.map(jax.numpy.asarray, {"mixed": bridge})
    serve(job, state)


if __name__ == "__main__":
    main()
