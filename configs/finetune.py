"""Fine-tuning for a task: GLUE, IMDb, SQuAD, or a file of one's own (Devlin et al., arXiv 1810.04805)."""

import dataclasses
from typing import Annotated, Literal

from jaxdistill.data.views import View
from jaxdistill.experiment import Experiment, TaskData
from jaxdistill.hf import find_tokenizer, read_config
from jaxdistill.initial import FromHuggingFace
from jaxdistill.optim import Optimizer
from jaxdistill.task_head import check_pooling, with_head
from jaxdistill.task_inputs import updates
from jaxdistill.tasks.read import find_task
from jaxdistill.terms import TaskLoss


def config(
    model: Annotated[str, "the model to fine-tune: a BERT or DistilBERT folder or hub id", "Model"],
    task: Annotated[
        str, "cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli, imdb, squad, squad2, or your file", "Task"
    ],
    source: Annotated[str, "the folder with the task's files; empty takes them from the hub"] = "",
    columns: Annotated[str, "of your file: first=...,second=...,label=...,kind=classes|score"] = "",
    dev: Annotated[str, "your file to score on"] = "",
    examples: Annotated[int, "train on only so many of the examples, always the same; 0 takes all"] = 0,
    length: Annotated[int, "pieces in a row, at most"] = 128,
    stride: Annotated[int, "of questions: pieces from one window to the next; 0 takes 128, or half of the length"] = 0,
    revision: Annotated[str | None, "the hub's branch, tag or commit of the model"] = None,
    pooling: Annotated[
        Literal["", "tanh", "relu", "tanh-relu"], "what the pooler ends with; empty takes the family's own"
    ] = "",
    dropout: Annotated[float, "dropout rate"] = 0.1,
    dtype: Annotated[Literal["float32", "bfloat16"], "type of the computation; parameters stay float32"] = "float32",
    batch: Annotated[int, "rows in a batch", "Training"] = 32,
    epochs: Annotated[float, "passes over the examples"] = 3.0,
    optimizer: Annotated[
        Literal["adamw", "lamb"], "the extreme students' paper has lamb at 2e-4 for 10 epochs"
    ] = "adamw",
    learning_rate: Annotated[float, "peak learning rate"] = 3e-5,
    warmup: Annotated[float, "share of the steps with a rising learning rate"] = 0.1,
    seed: Annotated[int, "of the new head, the order and the dropout"] = 0,
) -> Experiment:
    """Fine-tunes a model for a task, and scores it on the task's dev split.

    A model of any vocabulary; it gets the task's head in the place of those it has. The rows of a batch are of like
    length, so short texts do not pay for long ones.
    """
    asked = find_task(task, columns)
    check_pooling(pooling, asked)
    shape = with_head(read_config(model, revision=revision), asked, pooling)
    data = TaskData(
        task,
        {"model": find_tokenizer(model, revision=revision)},
        {"model": View("model")},
        batch,
        length,
        source=source,
        columns=columns,
        dev=dev,
        examples=examples,
        stride=stride,
    )
    return Experiment(
        name="finetune",
        data=data,
        models={"model": dataclasses.replace(shape, dropout=dropout, attention_dropout=dropout, dtype=dtype)},
        start={"model": FromHuggingFace(model, revision)},
        terms={"task": TaskLoss("model", asked.kind)},
        optimizers={"model": Optimizer(optimizer, learning_rate, warmup)},
        steps=updates(data, epochs),
        seed=seed,
    )
