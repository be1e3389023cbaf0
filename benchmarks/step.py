"""The joint step beside the same job in PyTorch, in one run, alternating: time, compile time and peak memory.

    python benchmarks/step.py [CORPUS --vocabularies TEACHER STUDENT]

The job is the `dual` variant of configs/extreme.py: a teacher on mixed input and a student, trained together; forward,
backward, clipping and AdamW on both and on the map between them. Contestants:

    jaxdistill            ours
    every position        `transformers`' BertForMaskedLM as it comes, its head on all positions
    gathered              the same models with the head on the positions to predict only, as an expert would write it

Each has a process of its own and takes its steps in turn; all start from the same parameters and read the same batch.
The batch is made by our loader from a corpus and two vocabularies, or holds random pieces when no corpus is given.
MFU, on a GPU only, is the share of the rate that PyTorch reaches in a large matrix product.
Without dropout (`--dropout 0`) their losses are the same, which `--smoke`, a tiny job, checks over its steps.
"""

import argparse
import itertools
import json
import os
import pathlib
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable

import numpy as np
from workers import Worker, use_cores

HERE = pathlib.Path(__file__).parent
CONTESTANTS = {"jaxdistill": "step_jax.py", "every position": "step_torch.py", "gathered": "step_torch.py"}
SMOKE = {
    **{"teacher_layers": 2, "teacher_hidden": 24, "teacher_vocab": 90},
    **{"student_layers": 2, "student_hidden": 12, "student_vocab": 40},
    **{"heads": 3, "length": 16, "predictions": 4, "batch": 4, "micro_batch": 2, "rounds": 2, "dropout": 0.0},
}
TOLERANCE = 1e-4
OURS = "jaxdistill"
COLUMNS = {
    **{"contestant": 14, "type": 8, "s/step": 7, "ours is": 7, "fastest": 7, "there": 7, "CPU s": 7, "in CPU": 7},
    **{"tokens/s": 8, "MFU": 5, "compile s": 9, "peak MB": 7, "last loss": 9},
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", nargs="?", help="a folder that `jaxdistill prepare` made")
    parser.add_argument("--vocabularies", nargs=2, metavar=("TEACHER", "STUDENT"), help="vocab.txt or model folders")
    for role, layers, hidden, vocab in (("teacher", 12, 768, 30522), ("student", 12, 48, 4928)):
        parser.add_argument(f"--{role}-layers", type=int, default=layers)
        parser.add_argument(f"--{role}-hidden", type=int, default=hidden)
        parser.add_argument(f"--{role}-vocab", type=int, default=vocab, help="of random pieces")
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--predictions", type=int, default=20)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--micro-batch", type=int, default=0, help="rows at a time; all when 0")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--dtype", nargs="+", choices=["float32", "bfloat16"], default=["float32"])
    parser.add_argument("--contestants", nargs="+", choices=list(CONTESTANTS), default=list(CONTESTANTS))
    parser.add_argument("--attention", choices=["sdpa", "eager"], default="sdpa", help="of PyTorch's contestants")
    parser.add_argument("--unroll", type=int, default=1, help="of our scan over layers; 0 lays out all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="steps of every contestant that count")
    parser.add_argument("--smoke", action="store_true", help="a tiny job without dropout: do the losses agree?")
    parser.add_argument("--json", help="write all measurements to this file")
    parser.set_defaults(**(SMOKE if "--smoke" in sys.argv[1:] else {}))
    options = parser.parse_args()
    if (options.corpus is None) != (options.vocabularies is None):
        parser.error("a corpus needs --vocabularies, and they need a corpus")
    return options


def random_batch(options: argparse.Namespace) -> dict:
    """Views of random pieces: rows up to 8 positions short of full, as packed windows are."""
    random = np.random.default_rng(0)
    shape, sizes = (options.batch, options.length), {"student": options.student_vocab, "teacher": options.teacher_vocab}
    batch = {}
    for role, size in sizes.items():
        shortest = max(options.length - 8, options.predictions + 2)
        mask = np.arange(options.length) < random.integers(shortest, options.length + 1, options.batch)[:, None]
        source = random.integers(0, 2, shape) * (role == "teacher")
        ids = random.integers(5, np.where(source == 1, options.student_vocab, size)) * mask
        places = np.arange(1, shortest - 1)
        positions = np.stack([np.sort(random.choice(places, options.predictions, False)) for _ in mask])
        targets = np.take_along_axis(ids, positions, 1)
        targets[:, -1] = np.where(random.random(len(mask)) < 0.5, -1, targets[:, -1])
        batch[role] = {"ids": ids, "mask": mask, "positions": positions, "targets": targets}
        if role == "teacher":
            batch[role] |= {"source": source, "target_source": np.take_along_axis(source, positions, 1)}
    return {
        role: {name: x if x.dtype == bool else x.astype(np.int32) for name, x in view.items()}
        for role, view in batch.items()
    }


def real_batch(options: argparse.Namespace) -> dict:
    """The first batch of our loader; the vocabularies' sizes become the models'."""
    from jaxdistill.data.masking import Masking
    from jaxdistill.data.views import View
    from jaxdistill.experiment import Data
    from jaxdistill.inputs import make_batches, read_inputs, read_vocabularies

    data = Data(
        corpus=options.corpus,
        vocabularies=dict(zip(("teacher", "student"), options.vocabularies, strict=True)),
        views={"student": View("student"), "teacher": View("teacher", "student")},
        batch=options.batch,
        length=options.length,
        masking=Masking(predictions=options.predictions),
    )
    vocabularies = read_vocabularies(data)
    options.teacher_vocab, options.student_vocab = vocabularies["teacher"].size, vocabularies["student"].size
    return make_batches(data, read_inputs(data.corpus, vocabularies, data.length), seed=0)(0)


def write_start(options: argparse.Namespace, folder: pathlib.Path) -> dict:
    """Writes the models that all start from and the batch; returns the models' shapes."""
    import jax

    from jaxdistill import bert
    from jaxdistill.hf import write_hf
    from jaxdistill.mixed import Mixed

    shapes, params = {}, {}
    for number, role in enumerate(("student", "teacher")):
        given = {name: getattr(options, f"{role}_{name}") for name in ("layers", "hidden", "vocab")}
        positions = options.length if role == "student" else max(options.length, 512)
        shapes[role] = given | {"heads": options.heads, "ffn": 4 * given["hidden"], "positions": positions}
        config = bert.BertConfig(**shapes[role], dropout=options.dropout, attention_dropout=options.dropout)
        params[role] = bert.init(config, jax.random.key(number))
        write_hf(folder / role, config, params[role], None)
    bridge = Mixed().init(jax.random.key(2), params)
    np.savez(folder / "bridge.npz", output_bias=bridge["output_bias"], **bridge["map"])
    return shapes


def measure(settings: dict, names: list[str], rounds: int) -> dict[str, dict]:
    """Starts every contestant, and has them step in turn; the first round warms up and does not count."""
    workers = {}
    for name in names:
        workers[name] = Worker(HERE / CONTESTANTS[name], json.dumps(settings | {"contestant": name}))
    found = {name: {**worker.started, "steps": []} for name, worker in workers.items()}
    for _ in range(rounds + 1):
        for name, worker in workers.items():
            found[name]["steps"].append(worker.ask("step"))
    for worker in workers.values():
        worker.close()
    return found


def print_rows(found: dict[str, dict], dtype: str, tokens: int) -> None:
    """Prints a row for each contestant: median and fastest step and CPU seconds, each with its ratio to ours."""
    rate = max(result.get("matmul", 0) for result in found.values())
    flops = max(result.get("flops", 0) for result in found.values())

    def cells(name: str, key: str, pick: Callable) -> tuple[str, str]:
        mine, ours = (
            pick([step[key] for step in found[contestant]["steps"][1:]]) if contestant in found else 0
            for contestant in (name, OURS)
        )
        return f"{mine:.3f}", f"{mine / ours:.2f}x" if ours else "-"

    for name, result in found.items():
        steps = result["steps"]
        seconds = statistics.median(step["seconds"] for step in steps[1:])
        row = [
            *(name, dtype, *cells(name, "seconds", statistics.median), *cells(name, "seconds", min)),
            *(*cells(name, "cpu", statistics.median), f"{tokens / seconds:,.0f}"),
            f"{flops / seconds / rate:.0%}" if rate and flops else "-",
            *(f"{result['compile']:.1f}", f"{steps[-1]['peak'] / 2**20:,.0f}", f"{steps[-1]['loss']:.5f}"),
        ]
        print_row(row)


def print_row(cells: Iterable[str]) -> None:
    print("| " + " | ".join(f"{cell:>{width}}" for cell, width in zip(cells, COLUMNS.values(), strict=True)) + " |")


def main() -> None:
    options = arguments()
    use_cores(options.threads)
    batch = real_batch(options) if options.corpus else random_batch(options)
    everything, tokens = {}, int(batch["student"]["mask"].sum())
    with tempfile.TemporaryDirectory() as folder:
        shapes = write_start(options, pathlib.Path(folder))
        np.savez(
            pathlib.Path(folder, "batch.npz"),
            **{f"{role}/{name}": x for role, view in batch.items() for name, x in view.items()},
        )
        print(
            f"{f'a batch of {options.corpus}' if options.corpus else 'random pieces'}, {options.batch} x "
            f"{options.length}, {tokens:,} real student tokens, {options.micro_batch or options.batch} rows at a time; "
            f"dropout {options.dropout:g}, {options.threads} threads, {options.rounds} rounds; "
            f"load {os.getloadavg()[0]:.1f} at the start"
        )
        print_row(COLUMNS)
        print_row("-" * (width - 1) + ":" for width in COLUMNS.values())
        for dtype in options.dtype:
            settings = vars(options) | shapes | {"folder": folder, "dtype": dtype}
            found = measure(settings, options.contestants, options.rounds)
            print_rows(found, dtype, tokens)
            everything[dtype] = found
    print(f"load {os.getloadavg()[0]:.1f} at the end")
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps({"options": vars(options), "found": everything}, indent=1))
    if options.smoke:
        for dtype, found in everything.items():
            for one, two in itertools.pairwise(found.values()):
                for left, right in zip(one["steps"], two["steps"], strict=True):
                    if abs(left["loss"] - right["loss"]) > TOLERANCE:
                        sys.exit(f"the losses of two contestants differ in {dtype}: {left['loss']} and {right['loss']}")


if __name__ == "__main__":
    main()
