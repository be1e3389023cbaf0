"""One step of DistilBERT's distillation beside the same step in PyTorch, in one run, alternating.

    python benchmarks/distil.py

The job is configs/distilbert.py: a frozen BERT as the teacher, read without dropout, and a student of half its layers
that starts from them; soft targets at temperature 2 over all real positions, masked-LM loss and cosine of the last
states at 5, 2 and 1; clipping at 5 and AdamW. Batch and teacher are random. Contestants:

    jaxdistill            ours
    all logits            `transformers`' models as they come: logits at all positions of both, then the real ones
    chunked               real positions only, and the logits of some at a time, as an expert would write it

Each has a process of its own and takes its steps in turn; all start from the same parameters and read the same batch.
Rates of dropout are the same, but DistilBERT in `transformers` has none after its attention's output, where ours has.
Without dropout (`--dropout 0`) their losses are the same, which `--smoke`, a tiny job, checks over its steps.
"""

import argparse
import dataclasses
import pathlib
import tempfile
from collections.abc import Mapping

import jax
import numpy as np
from contest import contest, options_of, random_view, read_options

from configs import distilbert
from jaxdistill import bert, tree
from jaxdistill.experiment import BertConfig, Experiment
from jaxdistill.hf import write_hf
from jaxdistill.run import Run
from jaxdistill.step import start_model

CONTESTANTS = {"jaxdistill": "distil_jax.py", "all logits": "distil_torch.py", "chunked": "distil_torch.py"}
SMOKE = {
    **{"layers": 4, "hidden": 24, "vocab": 90, "heads": 3, "length": 20, "predictions": 5},
    **{"chunk": 8, "batch": 4, "micro_batch": 2, "rounds": 2, "dropout": 0.0},
}
MASKED = 0.15


def arguments() -> argparse.Namespace:
    parser = options_of(__doc__, CONTESTANTS)
    parser.add_argument("--layers", type=int, default=12, help="of the teacher; the student has half of them")
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--vocab", type=int, default=30522)
    parser.add_argument("--chunk", type=int, default=128, help="positions whose logits `chunked` forms together")
    parser.set_defaults(predictions=32, batch=8, micro_batch=4, learning_rate=5e-4)
    return read_options(parser, SMOKE)


def experiment(settings: Mapping) -> Experiment:
    """The config with the teacher in the settings' folder, and a learning rate that hardly falls."""
    same = ("length", "predictions", "dropout", "dtype", "batch", "learning_rate")
    made = distilbert.config(
        corpus="",
        teacher=str(pathlib.Path(settings["folder"], "teacher")),
        rarity=0.0,
        warmup=0.0,
        steps=10**6,
        **{name: settings[name] for name in same},
    )
    return dataclasses.replace(made, run=Run(unroll=settings["unroll"]))


def random_batch(options: argparse.Namespace) -> dict:
    """The view that both models read; as from our loader, there is room for more masked positions than there are."""
    view = random_view(options, np.random.default_rng(0), options.vocab)
    view["targets"][:, round(MASKED * options.length) :] = -1
    return {"student": view, "teacher": view}


def write_start(options: argparse.Namespace, folder: pathlib.Path) -> None:
    """Writes the teacher, with kernels and tables wide enough for layers to differ, and the student at its start."""
    positions = max(options.length, 512)
    config = BertConfig(options.vocab, options.hidden, options.layers, options.heads, 4 * options.hidden, positions)
    gain = options.hidden**-0.5 / bert.DEVIATION
    params = tree.map_names(
        lambda name, leaf: leaf if name.endswith("scale") else gain * leaf, bert.init(config, jax.random.key(0))
    )
    write_hf(folder / "teacher", config, params, None)
    job = experiment(vars(options) | {"folder": folder, "dtype": "float32"})
    student = job.models["student"]
    write_hf(folder / "student", student, start_model(job.start["student"], student, "student", 0), None)


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_start(options, folder)
        contest(options, folder, {}, random_batch(options), "random pieces")


if __name__ == "__main__":
    main()
