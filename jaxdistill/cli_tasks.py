"""The commands that work with fine-tuned models and tasks: `evaluate`, `predict` and `augment`."""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from jaxdistill.errors import UserError

EVALUATE = """Masked words on a held-out corpus:
  jaxdistill evaluate RUN FOLDER --corpus HELD_OUT
A task's metrics on its dev split, or on --split; a fine-tuned run knows its task, and where its files are:
  jaxdistill evaluate RUN
  jaxdistill evaluate RUN FOLDER --task sst2 --source GLUE
  jaxdistill evaluate RUN --task mnli --source GLUE --split dev_mismatched
Several processes share a corpus, each with its own I from 0 on; the first one prints:
  jaxdistill evaluate RUN --corpus HELD_OUT --coordinator HOST:PORT --processes N --process I"""

PREDICT = """Of lines, from stdin or --input: a JSON object for each, in their order.
  jaxdistill predict FOLDER --task sst2 < lines           {"label": "positive", "probabilities": {"negative": ...}}
  jaxdistill predict FOLDER --task stsb < lines           {"score": 3.81}
  jaxdistill predict FOLDER --task squad2 < lines         {"answer": "", "best": "Rome", "no_answer": 2.1}
A line is a text, or {"text": "..."}. For a task of two it has a tab between them, or is {"first": "...",
"second": "..."}; for squad and squad2 the two are {"question": "...", "context": "..."}. In squad2 the answer is ""
where no_answer is above 0.
Of a split, each with its id:
  jaxdistill predict RUN --split dev
Without --task, a folder's head tells its classes, and the first line whether there are two texts.
For GLUE's server, as many tasks in one file as there are models; a run knows its task, TASK=FOLDER says it of a folder:
  jaxdistill predict RUN RUN sst2=FOLDER --split test --source GLUE --out submission.zip"""

AUGMENT = """TinyBERT's augmentation: copies of the training examples with words replaced, to train on (`--augmented`).
Words of one piece become what the model, a BERT with its masked-LM head, puts in their place; words of several become
neighbours in GloVe, of which the first 100,000 rows are read. Run again, it goes on where it was stopped.
  jaxdistill augment --task sst2 --source GLUE --model BERT --glove glove.6B.300d.txt --out augmented"""

_OF_CORPUS, _OF_TASK = ("predictions", "rows", "seed"), ("source", "columns", "dev", "split")


def at_least(least: int) -> Callable[[str], int]:
    """A type of option: a whole number that is not too small."""

    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is below {least}")
        return int(text)

    return number


def add_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the commands.

    Args:
      command: makes a command of a name, a function of its options, and what it is for.
    """
    made = command("evaluate", _evaluate, "Score runs and model folders, on masked words or on a task.")
    made.epilog = EVALUATE
    made.add_argument("models", nargs="+", metavar="MODEL", help="a run's workdir, a model folder or a hub id")
    made.add_argument("--corpus", help="held-out text, prepared; compared models see the same words")
    _add_task(made)
    made.add_argument("--split", help="of the task (default dev)")
    made.add_argument("--length", type=at_least(3), help="positions in a row (default: the run's, or 128)")
    made.add_argument("--predictions", type=at_least(1), help="masked positions in a row (default: the run's, or 20)")
    made.add_argument("--rows", type=at_least(0), help="windows to score, 0 for all (default: the run's, or all)")
    made.add_argument("--batch", type=at_least(1), default=32, help="rows at a time (default 32)")
    made.add_argument("--seed", type=at_least(0), help="of the masks (default 0)")
    made.add_argument("--json", help="also write the scores to this file")
    made.add_argument("--role", help="which model of a run (default: all of them)")

    made = command("predict", _predict, "Classes, scores or answers that a fine-tuned model gives, as JSON lines.")
    made.epilog = PREDICT
    made.add_argument("models", nargs="+", metavar="MODEL", help="a run's workdir, a model folder or a hub id")
    _add_task(made)
    made.add_argument("--input", metavar="FILE", help="read the lines from this file, or .gz, instead of stdin")
    made.add_argument("--split", help="predict this split of the task instead of lines")
    made.add_argument("--out", metavar="ZIP", help="with --split test: write a submission to GLUE's server")
    made.add_argument("--length", type=at_least(3), help="pieces in a row, at most (default: the model's)")
    made.add_argument("--batch", type=at_least(1), default=32, help="rows at a time (default 32)")
    made.add_argument("--role", help="which model of a run: student (default, or the only one), or teacher")

    made = command("augment", _augment, "Copies of a task's training examples with words replaced.")
    made.epilog = AUGMENT
    _add_task(made, required=True)
    made.add_argument("--model", required=True, help="a BERT with its masked-LM head: a folder, hub id or run")
    glove = made.add_mutually_exclusive_group(required=True)
    glove.add_argument("--glove", metavar="FILE", help="GloVe's vectors as text, or .gz")
    glove.add_argument("--no-glove", action="store_true", help="leave words of several pieces as they are")
    made.add_argument("--out", required=True, metavar="FOLDER", help="the folder to make")
    made.add_argument("--copies", type=at_least(1), help="of each text (default: the paper's for the task, or 20)")
    made.add_argument("--seed", type=at_least(0), default=0, help="of the draws (default 0)")
    made.add_argument("--examples", type=at_least(1), help="augment only so many of the examples")


def _add_task(made: argparse.ArgumentParser, required: bool = False) -> None:
    own = "" if required else " (default: a run's own)"
    made.add_argument(
        "--task",
        required=required,
        help=f"cola sst2 mrpc stsb qqp mnli qnli rte wnli imdb squad squad2, or your training file{own}",
    )
    made.add_argument("--source", metavar="FOLDER", help="the task's files (default: a run's own, or the hub)")
    made.add_argument("--columns", help="of your file: first=...,second=...,label=...,kind=classes|score")
    made.add_argument("--dev", metavar="FILE", help="your dev file; without one, a tenth of the others is set aside")


def _asked(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options of these names that were given."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _evaluate(options: argparse.Namespace) -> None:
    import jax

    from jaxdistill.files import check_writable, write_json
    from jaxdistill.hf_files import check_single
    from jaxdistill.measure import measure, measure_task
    from jaxdistill.report import run_table, score_table
    from jaxdistill.task_model import task_of

    if options.corpus and options.task:
        raise UserError("--corpus scores masked words, --task a fine-tuned model: give one of them")
    unknown = [] if options.corpus or options.task else [name for name in options.models if not task_of(name)]
    if unknown:
        check_single(unknown[0])
        raise UserError(f"{unknown[0]} is no run of a task: give --corpus HELD_OUT, or --task for a fine-tuned model")
    for name in _asked(options, *(_OF_TASK if options.corpus else _OF_CORPUS)):
        raise UserError(f"--{name} is for scores {'of a task' if options.corpus else 'on a corpus'}: leave it out")
    first = jax.process_index() == 0
    if options.json and first:
        check_writable(options.json)
    how = _asked(options, "role", "length", "batch")
    if options.corpus:
        scores = measure(options.models, options.corpus, **how, **_asked(options, *_OF_CORPUS))
        print(score_table(scores))
    else:
        scores = measure_task(options.models, **how, **_asked(options, "task", *_OF_TASK))
        kinds = dict.fromkeys((found.task, found.split, found.examples) for found in scores.values())
        for task, split, examples in kinds:
            alike = {name: found for name, found in scores.items() if (found.task, found.split) == (task, split)}
            print(f"{task} {split}, {examples:,} examples")
            print(run_table({name: found.scores for name, found in alike.items()}))
    if options.json and first:
        write_json(options.json, {name: dataclasses.asdict(value) for name, value in scores.items()})


def _predict(options: argparse.Namespace) -> None:
    if options.out is not None:
        _submit(options)
        return
    if len(options.models) > 1:
        raise UserError("several models are for a submission: give --split test and --out")
    if options.input is not None and options.split is not None:
        raise UserError("--input has lines and --split examples of the task: give one of them")
    from jaxdistill.predict import predict_lines, predict_split
    from jaxdistill.task_inputs import read_examples
    from jaxdistill.tasks.fields import read_lines
    from jaxdistill.tasks.lines import decode_lines

    model = _model(options, options.models[0])
    if options.split is not None:
        data = model.data
        if not data.task:
            raise UserError(f"{options.models[0]} does not tell whose {options.split} split: name the --task")
        examples = read_examples(data.task, options.split, data.source, data.columns, data.dev)
        found, count = predict_split(model, examples, batch=options.batch), len(examples)
    else:
        where = "standard input" if options.input is None else options.input
        lines = decode_lines(sys.stdin.buffer, where) if options.input is None else read_lines(pathlib.Path(where))
        found, count = predict_lines(model, lines, where, batch=options.batch), None
    for line in _shown(found, count, typed=options.split is None and options.input is None and sys.stdin.isatty()):
        print(json.dumps(line, ensure_ascii=False, allow_nan=False))


def _shown(found: Iterator, count: int | None, typed: bool) -> Iterator:
    """With a bar where stderr is a terminal and nothing else is shown or typed there."""
    import tqdm

    return tqdm.tqdm(found, "predicting", count, unit="line", disable=True if sys.stdout.isatty() or typed else None)


def _submit(options: argparse.Namespace) -> None:
    from jaxdistill.files import check_writable
    from jaxdistill.predict import parts_of, submit
    from jaxdistill.task_model import task_of
    from jaxdistill.tasks.submission import PARTS

    if options.split is None or options.input is not None:
        raise UserError("--out is for GLUE's server, which wants a test split: give --split test, and no --input")
    if not options.out.endswith(".zip"):
        raise UserError(f"--out {options.out}: GLUE's server takes a .zip file")
    check_writable(options.out)
    for name in options.models:
        place, task = _named(options, name)
        if not (task := task or task_of(place)):
            raise UserError(f"{name} does not tell its task: write TASK={name}, or give --task")
        parts_of(task, options.split)
    models = (_model(options, name) for name in options.models)
    found = submit(models, options.split, options.out, batch=options.batch)
    missing = [part for part in PARTS if part not in found]
    more = f"; GLUE's server scores nothing without {', '.join(missing)}" if missing else ""
    print(f"{options.out}: {', '.join(found)}{more}")


def _named(options: argparse.Namespace, name: str) -> tuple[str, str]:
    """A model's place and its task, from MODEL or TASK=MODEL; the task is "" where a run is to tell it."""
    from jaxdistill.tasks.read import TASKS

    task, _, place = name.partition("=")
    return (place, task) if place and task in TASKS else (name, options.task or "")


def _model(options: argparse.Namespace, name: str):
    from jaxdistill.task_model import read_task_model

    place, task = _named(options, name)
    return read_task_model(place, task, **_asked(options, "role", "length", "source", "columns", "dev"))


def _augment(options: argparse.Namespace) -> None:
    from jaxdistill.augment import augment
    from jaxdistill.export import read_model
    from jaxdistill.task_inputs import read_examples, sample

    examples = read_examples(options.task, "train", **_asked(options, "source", "columns", "dev"))
    whole = examples.digest
    if options.examples is not None:
        examples = sample(examples, options.examples)
    model = read_model(options.model)
    how = {"glove": options.glove, "copies": options.copies, "seed": options.seed, "source": whole}
    count = augment(examples, model, options.out, **how)
    print(
        f"{options.out}: {count:,} examples of {len(examples):,}; next: jaxdistill train ... --augmented {options.out}"
    )
