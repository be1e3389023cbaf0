"""The whole way in minutes, offline: text, vocabularies, a teacher, a student alone, a distilled one, a folder."""

import dataclasses
import os
import pathlib
import shlex
import time
from collections.abc import Callable, Sequence

from jaxdistill import files, knobs, signals
from jaxdistill.bert import BertConfig, parameter_count
from jaxdistill.data.corpus import open_corpus, prepare
from jaxdistill.data.documentation import write_documentation
from jaxdistill.data.masking import Masking
from jaxdistill.data.sources import find_source
from jaxdistill.data.split import split_text
from jaxdistill.data.vocab import read_vocabulary, write_tokenizer
from jaxdistill.data.wordpiece import describe, largest_size, learn_vocabulary
from jaxdistill.errors import UserError
from jaxdistill.evaluate import Scores, score
from jaxdistill.experiment import Experiment
from jaxdistill.export import export, read_model
from jaxdistill.fill import fill_in
from jaxdistill.inputs import read_inputs
from jaxdistill.model_card import Measured
from jaxdistill.places import local
from jaxdistill.report import score_table
from jaxdistill.run import Run
from jaxdistill.step import flops_per_step
from jaxdistill.train import train

LENGTH, PREDICTIONS, BATCH = 32, 5, 64
SHORT = {"heads": 4, "positions": 128, "dropout": 0.0, "neighbours": True}
"""What training that takes minutes needs."""
TEACHER = SHORT | {"hidden": 128, "layers": 2, "learning_rate": 2e-3}
STUDENT = SHORT | {"hidden": 48, "learning_rate": 3e-3, "teacher_learning_rate": 2e-4, "optimizer": "adamw"}
TEACHER_PIECES, STUDENT_PIECES = 8192, 2048
STEPS = {"teacher": 2200, "student": 1600}
MOST_FLOP = 20e12
"""With a large teacher of the user's own the joint training takes fewer steps, so that the whole takes minutes."""
SENTENCES = (
    "The function returns the [MASK] of the array.",
    "If the file does not [MASK], an error is raised.",
    "This is one of the [MASK] in the world.",
)


def quickstart(
    workdir: str | os.PathLike,
    *,
    text: Sequence[str] = (),
    teacher: str = "",
    scale: float = 1.0,
    notify: Callable[[str], None] = print,
) -> dict[str, Scores]:
    """Distils a small model and shows what it is worth; run again, it continues or says that it is done.

    Args:
      workdir: where everything goes.
      text: files to train on, as `prepare` takes them; the documentation of the installed packages when empty.
      teacher: a BERT folder or hub id; one is trained on the spot when empty.
      scale: multiplies the steps.
      notify: is told, a line at a time, what happens.

    Returns:
      Held-out scores of the teacher before and after, the student alone and the distilled student.

    Raises:
      UserError: the workdir holds a quickstart of other options, or the text or teacher can't be used.
    """
    began = time.monotonic()
    root = local(workdir)
    if not 0 < scale < float("inf"):
        raise UserError(f"scale={scale}: it multiplies the steps, so it must be above 0")
    for file in text:
        find_source(file)
    if teacher:
        read_model(teacher)
    _check_options(root, {"text": [str(file) for file in text], "teacher": teacher, "scale": scale})
    if (root / "results.json").exists() and (root / "model").exists():
        notify((root / "results.txt").read_text())
        notify(f"{root} holds this quickstart, finished: nothing was done")
        return {name: Scores(**value) for name, value in files.read_json(root / "results.json").items()}
    stage, command = _stages(notify), _command(root, text, teacher, scale)

    stage("text → words")
    try:
        corpus, held_out = _corpora(root, text, notify)
    except UserError:
        if not any(path.exists() for path in _texts(root)):
            (root / "quickstart.json").unlink()  # Nothing was made of this text: other options may be tried here.
        raise
    stage("vocabularies")
    source = teacher or str(root / "teacher")
    teacher_vocabulary = teacher or _vocabulary(root / "teacher-vocabulary", corpus, held_out, TEACHER_PIECES, notify)
    student_vocabulary = _vocabulary(root / "student-vocabulary", corpus, held_out, STUDENT_PIECES, notify)
    common = {"corpus": str(corpus), "length": LENGTH, "predictions": PREDICTIONS, "batch": BATCH}
    if not teacher:
        stage("a teacher, trained on the spot")
        steps = max(1, round(STEPS["teacher"] * scale))
        made = _config("mlm", vocabulary=teacher_vocabulary, steps=steps, **common, **TEACHER)
        _train(made, root / "run-teacher", command, notify)
        export(root / "run-teacher", source, notify=notify)

    make = lambda variant, steps: _config(  # noqa: E731
        "extreme", vocabulary=student_vocabulary, teacher=source, variant=variant, steps=steps, **common, **STUDENT
    )
    steps = max(1, round(min(STEPS["student"], MOST_FLOP / flops_per_step(make("dual", 1))) * scale))
    for variant, meaning in (
        ("nokd", "the student alone"),
        ("dual", "the student distilled: teacher and student jointly"),
    ):
        stage(meaning)
        _train(make(variant, steps), root / f"run-{variant}", command, notify)

    stage("the same held-out words for every model")
    models = {
        "teacher": read_model(source),
        "teacher after mixed training": read_model(root / "run-dual", "teacher"),
        "student alone": read_model(root / "run-nokd"),
        "student distilled": read_model(root / "run-dual"),
    }
    inputs = read_inputs(held_out, {model.vocabulary.digest: model.vocabulary for model in models.values()}, LENGTH)
    scores = score(models, inputs.held_out(Masking(predictions=PREDICTIONS), rows=Run().score_rows))
    table = {name: dataclasses.asdict(value) for name, value in scores.items()}
    again = ["jaxdistill", "evaluate", source, *(str(root / name) for name in ("run-dual", "run-nokd"))]
    measured = Measured(table, "held-out text", shlex.join([*again, "--corpus", str(held_out)]))
    folder = root / "model"
    export(root / "run-dual", folder, measured=measured, notify=notify)
    lines = [score_table(scores), "", *_sizes(models["teacher"].config, models["student distilled"].config), ""]
    lines += [fill_in(models["student distilled"], sentence) for sentence in SENTENCES]
    lines += ["", f"The student, in Hugging Face format: {folder}", _load_hint(folder)]
    for line in lines:
        notify(line)
    files.write_text(root / "results.txt", "\n".join(lines) + "\n")
    files.write_json(root / "results.json", table)
    notify(f"all done in {(time.monotonic() - began) / 60:.1f} minutes; this table is in {root / 'results.txt'}")
    return scores


def _stages(notify: Callable[[str], None]) -> Callable[[str], None]:
    count = 0

    def stage(name: str) -> None:
        nonlocal count
        count += 1
        notify(f"\n[{count}] {name}")

    return stage


def _check_options(root: pathlib.Path, options: dict) -> None:
    path = root / "quickstart.json"
    if path.exists():
        saved = files.read_json(path)
        changed = [
            f"{name} was {saved.get(name)!r}, is now {value!r}"
            for name, value in options.items()
            if saved.get(name) != value
        ]
        if changed:
            raise UserError(
                f"{root} holds a quickstart of other options ({'; '.join(changed)}): choose another --workdir"
            )
    elif root.exists() and any(root.iterdir()):
        raise UserError(f"{root} is not empty and holds no quickstart: choose another --workdir")
    files.write_json(path, options)


def _texts(root: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """The file to train on and the held-out one."""
    return root / "train.txt", root / "held-out.txt"


def _corpora(
    root: pathlib.Path, text: Sequence[str], notify: Callable[[str], None]
) -> tuple[pathlib.Path, pathlib.Path]:
    """The corpus to train on and the held-out one, prepared if they are not there."""
    corpora = root / "corpus", root / "held-out"
    paths = _texts(root)
    if not all(path.exists() for path in paths):
        notify(f"reading {', '.join(map(str, text)) or 'the documentation inside the installed packages'}")
        if text:
            split_text(text, *paths)
        else:
            write_documentation(*paths)
    for path, corpus in zip(paths, corpora, strict=True):
        counts = prepare([str(path)], corpus)["counts"]
        notify(f"{corpus}: {counts['words']:,} words of {counts['types']:,} kinds in {counts['documents']:,} documents")
    return corpora


def _vocabulary(folder, corpus, held_out, size: int, notify) -> str:
    """Learns a vocabulary if it is not there, and says how compact it is."""
    if not folder.exists():
        lexicon = open_corpus(corpus).lexicon
        write_tokenizer(learn_vocabulary(lexicon, min(size, largest_size(lexicon))), folder, 512)
    vocabulary = read_vocabulary(folder)
    facts = describe(vocabulary, open_corpus(held_out).lexicon)
    shown = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in facts.items())
    notify(f"{folder}: {vocabulary.size:,} pieces; on held-out text: {shown}")
    return str(folder)


def _config(name: str, **values) -> Experiment:
    return knobs.load(name)(**values)


def _command(root: pathlib.Path, text: Sequence[str], teacher: str, scale: float) -> str:
    """The command line of this quickstart."""
    options = ["--text", *map(str, text)] if text else []
    options += ["--teacher", teacher] if teacher else []
    options += ["--scale", str(scale)] if scale != 1 else []
    return shlex.join(["jaxdistill", "quickstart", "--workdir", str(root), *options])


def _train(experiment: Experiment, workdir: pathlib.Path, command: str, notify: Callable[[str], None]) -> None:
    steps = experiment.steps
    run = Run(log_every=max(1, steps // 50), save_every=max(1, steps // 4))
    result = train(dataclasses.replace(experiment, run=run), workdir, notify=notify, command=command)
    if result.stopped:
        signals.stop(result.stopped)


def _sizes(teacher: BertConfig, student: BertConfig) -> list[str]:
    counts = {"teacher": parameter_count(teacher), "student": parameter_count(student)}
    lines = [f"{name}: {count:,} parameters, {count * 4 / 2**20:.1f} MiB" for name, count in counts.items()]
    return [*lines, f"the student is {counts['teacher'] / counts['student']:.1f} times smaller"]


def _load_hint(folder: pathlib.Path) -> str:
    return f'pip install transformers torch, then: pipeline("fill-mask", "{folder}")'
