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
import pathlib
import tempfile

import numpy as np
from contest import contest, options_of, random_view, read_options

CONTESTANTS = {"jaxdistill": "step_jax.py", "every position": "step_torch.py", "gathered": "step_torch.py"}
SMOKE = {
    **{"teacher_layers": 2, "teacher_hidden": 24, "teacher_vocab": 90},
    **{"student_layers": 2, "student_hidden": 12, "student_vocab": 40},
    **{"heads": 3, "length": 16, "predictions": 4, "batch": 4, "micro_batch": 2, "rounds": 2, "dropout": 0.0},
}


def arguments() -> argparse.Namespace:
    parser = options_of(__doc__, CONTESTANTS)
    parser.add_argument("corpus", nargs="?", help="a folder that `jaxdistill prepare` made")
    parser.add_argument("--vocabularies", nargs=2, metavar=("TEACHER", "STUDENT"), help="vocab.txt or model folders")
    for role, layers, hidden, vocab in (("teacher", 12, 768, 30522), ("student", 12, 48, 4928)):
        parser.add_argument(f"--{role}-layers", type=int, default=layers)
        parser.add_argument(f"--{role}-hidden", type=int, default=hidden)
        parser.add_argument(f"--{role}-vocab", type=int, default=vocab, help="of random pieces")
    options = read_options(parser, SMOKE)
    if (options.corpus is None) != (options.vocabularies is None):
        parser.error("a corpus needs --vocabularies, and they need a corpus")
    return options


def random_batch(options: argparse.Namespace) -> dict:
    """A view for the student, and a mixed one for the teacher."""
    random = np.random.default_rng(0)
    return {
        "student": random_view(options, random, options.student_vocab),
        "teacher": random_view(options, random, options.teacher_vocab, options.student_vocab),
    }


def real_batch(options: argparse.Namespace) -> dict:
    """The first batch of our loader; the vocabularies' sizes become the models'."""
    from jaxdistill.data.masking import Masking
    from jaxdistill.data.views import View
    from jaxdistill.experiment import Data
    from jaxdistill.inputs import open_inputs

    data = Data(
        corpus=options.corpus,
        vocabularies=dict(zip(("teacher", "student"), options.vocabularies, strict=True)),
        views={"student": View("student"), "teacher": View("teacher", "student")},
        batch=options.batch,
        length=options.length,
        masking=Masking(predictions=options.predictions),
    )
    inputs = open_inputs(data)
    options.teacher_vocab, options.student_vocab = (inputs.vocabularies[name].size for name in ("teacher", "student"))
    return inputs.batches(data, seed=0)(0)


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


def main() -> None:
    options = arguments()
    batch = real_batch(options) if options.corpus else random_batch(options)
    of = f"a batch of {options.corpus}" if options.corpus else "random pieces"
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        contest(options, folder, write_start(options, folder), batch, of)


if __name__ == "__main__":
    main()
