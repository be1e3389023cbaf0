"""TinyBERT's distillation on a task, in two stages (Jiao et al., arXiv 1909.10351)."""

import dataclasses
from typing import Annotated, Literal

from jaxdistill.data.views import View
from jaxdistill.errors import UserError
from jaxdistill.experiment import Experiment, TaskData
from jaxdistill.hf import check_same_pieces, find_tokenizer, read_config, read_task_config
from jaxdistill.initial import FromHuggingFace
from jaxdistill.optim import Optimizer
from jaxdistill.task_head import check_head, check_pooling, with_head
from jaxdistill.task_inputs import updates
from jaxdistill.tasks.read import find_task
from jaxdistill.terms import AttentionScores, HiddenStates, TaskLoss, TaskTargets

PAPER = {1: (20.0, 5e-5, 0.0), 2: (3.0, 3e-5, 0.1)}
"""Epochs, learning rate and warm-up of the stages."""
EPOCHS = {"mnli": 10.0, "qqp": 10.0, "qnli": 10.0, "cola": 50.0}
"""Of stage 1, where they are not 20."""


def config(
    teacher: Annotated[str, "the teacher, fine-tuned for the task: a folder or hub id", "Models"],
    student: Annotated[str, "stage 1: the general student; stage 2: the folder that stage 1 was exported to"],
    stage: Annotated[Literal[1, 2], "1 follows the teacher inside, 2 its predictions", "Method"],
    task: Annotated[str, "cola sst2 mrpc stsb qqp mnli qnli rte wnli imdb squad squad2, or your own file", "Task"],
    source: Annotated[str, "the folder with the task's files; empty takes them from the hub"] = "",
    columns: Annotated[str, "of your file: first=...,second=...,label=...,kind=classes|score"] = "",
    dev: Annotated[str, "your file to score on"] = "",
    augmented: Annotated[str, "a folder that `jaxdistill augment` made, to train on"] = "",
    examples: Annotated[int, "train on only so many of the examples, always the same; 0 takes all"] = 0,
    length: Annotated[int, "pieces in a row, at most; the paper has 64 for single texts"] = 128,
    stride: Annotated[int, "of questions: pieces from one window to the next; 0 takes 128, or half of the length"] = 0,
    layer_map: Annotated[
        Literal["uniform", "top", "bottom"], "stage 1: the teacher's layers that the student follows"
    ] = "uniform",
    embd: Annotated[float, "stage 1: weight of the loss on the embedding layer's output; 0 leaves it out"] = 1.0,
    hidn: Annotated[float, "stage 1: weight of the loss on the layers' hidden states; 0 leaves it out"] = 1.0,
    attn: Annotated[float, "stage 1: weight of the loss on attention scores; 0 leaves it out"] = 1.0,
    temperature: Annotated[float, "stage 2: of the soft targets"] = 1.0,
    pooling: Annotated[
        Literal["", "tanh", "relu", "tanh-relu"],
        "stage 2: what the pooler ends with; tanh-relu, the paper's, has no export",
    ] = "",
    dropout: Annotated[float, "the student's dropout rate"] = 0.1,
    dtype: Annotated[Literal["float32", "bfloat16"], "type of the computation; parameters stay float32"] = "float32",
    batch: Annotated[int, "rows in a batch", "Training"] = 32,
    epochs: Annotated[
        float, "passes over the examples; 0 takes 3 in stage 2; in stage 1 20, for MNLI, QQP and QNLI 10, for CoLA 50"
    ] = 0.0,
    learning_rate: Annotated[float, "peak learning rate; 0 takes 5e-5 in stage 1 and 3e-5 in stage 2"] = 0.0,
    seed: Annotated[int, "of the new parts, the order and the dropout"] = 0,
) -> Experiment:
    """Distils on a task, on its augmented examples: stage 1 inside, stage 2 the teacher's predictions.

    Stage 1 has a constant learning rate and no head: its student has no scores yet. Stage 2 learns from the teacher's
    predictions alone; for a score, as the paper for STS-B, from the right ones. The teacher is frozen and reads without
    dropout.
    """
    asked = find_task(task, columns)
    check_pooling(pooling, asked)
    shape = read_task_config(teacher)
    check_head(shape, asked, teacher)
    check_same_pieces(student, teacher)
    own = read_config(student)
    usual_epochs, usual_rate, warmup = PAPER[stage]
    if stage == 1:
        usual_epochs = EPOCHS.get(task, usual_epochs)
    only = {
        1: {"layer_map": layer_map != "uniform", "embd": embd != 1.0, "hidn": hidn != 1.0, "attn": attn != 1.0},
        2: {"temperature": temperature != 1.0, "pooling": bool(pooling)},
    }
    for name in (name for name, given in only[3 - stage].items() if given):
        raise UserError(f"{name} is a knob of stage {3 - stage}, of no effect in stage {stage}: leave it out")
    if stage == 1:
        bare = {"mlm": False, "pooler": False, "classifier": (), "spans": False}
        models = {"student": dataclasses.replace(own, mlm=False), "teacher": dataclasses.replace(shape, **bare)}
        weighted = {
            "embeddings": HiddenStates(weight=embd, layers=None),
            "hidden": HiddenStates(weight=hidn, layers=layer_map, embeddings=False),
            "attention": AttentionScores(weight=attn, layers=layer_map),
        }
        terms = {name: term for name, term in weighted.items() if term.weight}
        if not terms:
            raise UserError("stage 1 has no loss left: give embd, hidn or attn a weight")
    else:
        models = {
            "student": with_head(own, asked, pooling),
            "teacher": with_head(shape, asked, shape.pooling),
        }
        terms = {"soft": TaskTargets(kind=asked.kind, temperature=temperature)}
        if asked.kind == "score":
            if temperature != 1.0:
                raise UserError(
                    f"temperature={temperature}: a score is learnt from the right ones, without soft targets"
                )
            terms = {"task": TaskLoss("student", "score")}
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
        scored=stage == 2,
    )
    how = {"dropout": dropout, "attention_dropout": dropout, "dtype": dtype}
    rule = Optimizer("adamw", learning_rate or usual_rate, warmup, decay="constant" if stage == 1 else "linear")
    return Experiment(
        name=f"tinybert_task/stage{stage}",
        data=data,
        models={
            "student": dataclasses.replace(models["student"], **how),
            "teacher": dataclasses.replace(models["teacher"], dtype=dtype),
        },
        start={"student": FromHuggingFace(student), "teacher": FromHuggingFace(teacher, whole=True)},
        terms=terms,
        optimizers=dict.fromkeys(("student", "bridge") if stage == 1 else ("student",), rule),
        steps=updates(data, epochs or usual_epochs),
        trains=(("teacher/.*", False), (".*", True)),
        seed=seed,
    )
