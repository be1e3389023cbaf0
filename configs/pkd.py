"""Distillation on a task: plain (Hinton et al., arXiv 1503.02531) and patient (Sun et al., arXiv 1908.09355)."""

import dataclasses
from typing import Annotated, Literal

from jaxdistill.data.views import View
from jaxdistill.errors import UserError
from jaxdistill.experiment import Experiment, TaskData
from jaxdistill.hf import check_same_pieces, find_tokenizer, read_config, read_task_config
from jaxdistill.initial import FromHuggingFace, FromLayers
from jaxdistill.optim import Optimizer
from jaxdistill.task_head import check_head, with_head
from jaxdistill.task_inputs import updates
from jaxdistill.tasks.read import find_task
from jaxdistill.terms import Patience, TaskLoss, TaskTargets
from jaxdistill.terms.maps import layer_map


def config(
    teacher: Annotated[str, "the teacher, fine-tuned for the task: a folder or hub id", "Models"],
    task: Annotated[str, "cola sst2 mrpc stsb qqp mnli qnli rte wnli imdb squad squad2, or your own file", "Task"],
    source: Annotated[str, "the folder with the task's files; empty takes them from the hub"] = "",
    columns: Annotated[str, "of your file: first=...,second=...,label=...,kind=classes|score"] = "",
    dev: Annotated[str, "your file to score on"] = "",
    augmented: Annotated[str, "a folder that `jaxdistill augment` made, to train on"] = "",
    examples: Annotated[int, "train on only so many of the examples, always the same; 0 takes all"] = 0,
    length: Annotated[int, "pieces in a row, at most"] = 128,
    stride: Annotated[int, "of questions: pieces from one window to the next; 0 takes 128, or half of the length"] = 0,
    student: Annotated[str, "start from this model instead of the first layers of `base`: a folder or hub id"] = "",
    base: Annotated[str, "the pre-trained model whose first layers the student starts from; empty: the teacher"] = "",
    depth: Annotated[int, "the student's layers, with `base`; 0 takes half of the teacher's"] = 0,
    layers: Annotated[
        Literal["skip", "last", "none"], "the teacher's layers that are followed; none is plain distillation", "Method"
    ] = "skip",
    alpha: Annotated[float, "weight of the soft targets; the right answers have 1 - alpha"] = 0.5,
    beta: Annotated[
        float, "weight of the patience: the authors' over (student layers - 1) x width, 3,840 for half a BERT-base"
    ] = 1.0,
    temperature: Annotated[float, "of the soft targets"] = 5.0,
    normalised: Annotated[bool, "compare the directions of [CLS] states"] = True,
    dropout: Annotated[float, "the student's dropout rate"] = 0.1,
    dtype: Annotated[Literal["float32", "bfloat16"], "type of the computation; parameters stay float32"] = "float32",
    batch: Annotated[int, "rows in a batch", "Training"] = 32,
    epochs: Annotated[float, "passes over the examples"] = 4.0,
    learning_rate: Annotated[float, "peak learning rate"] = 2e-5,
    warmup: Annotated[float, "share of the steps with a rising learning rate"] = 0.1,
    weight_decay: Annotated[float, "weight decay; DistilBERT's second distillation has 0"] = 0.01,
    seed: Annotated[int, "of the new head, the order and the dropout"] = 0,
) -> Experiment:
    """Patient distillation on a task: soft targets, right answers, and the teacher's [CLS] states on the way.

    With `--layers none` it is plain distillation; with `--student FOLDER` any model of the teacher's vocabulary learns,
    such as DistilBERT's second distillation on SQuAD. The teacher is frozen and reads without dropout.
    """
    asked = find_task(task, columns)
    shape = read_task_config(teacher)
    check_head(shape, asked, teacher)
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha={alpha}: it is a share, from 0 to 1")
    if student and (base or depth):
        raise UserError("a student starts from `student`, or from the first `depth` layers of `base`: give one of them")
    check_same_pieces(student or base or teacher, teacher)
    if student:
        own, start = read_config(student), FromHuggingFace(student)
    else:
        own = read_config(base or teacher)
        own = dataclasses.replace(own, layers=depth or max(shape.layers // 2, 1))
        start = FromLayers(base or teacher, layers=layer_map("bottom", shape.layers, own.layers))
    terms = {
        "task": TaskLoss("student", asked.kind, 1 - alpha),
        "soft": TaskTargets(weight=alpha, kind=asked.kind, temperature=temperature),
    }
    if layers != "none":
        terms["patience"] = Patience(weight=beta, layers=layers, normalised=normalised)
    data = TaskData(
        task,
        {"teacher": find_tokenizer(teacher)},
        {"student": View("teacher"), "teacher": View("teacher", masks_of="student")},
        batch,
        length,
        source=source,
        columns=columns,
        dev=dev,
        augmented=augmented,
        examples=examples,
        stride=stride,
    )
    return Experiment(
        name=f"pkd/{layers}",
        data=data,
        models={
            "student": dataclasses.replace(
                with_head(own, asked), dropout=dropout, attention_dropout=dropout, dtype=dtype
            ),
            "teacher": dataclasses.replace(with_head(shape, asked, shape.pooling), dtype=dtype),
        },
        start={"student": start, "teacher": FromHuggingFace(teacher, whole=True)},
        terms={name: term for name, term in terms.items() if term.weight},
        optimizers={"student": Optimizer("adamw", learning_rate, warmup, weight_decay=weight_decay)},
        steps=updates(data, epochs),
        trains=(("teacher/.*", False), (".*", True)),
        seed=seed,
    )
