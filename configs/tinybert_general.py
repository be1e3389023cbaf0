"""TinyBERT's general distillation: a small BERT follows a pre-trained one inside (Jiao et al., arXiv 1909.10351)."""

import dataclasses
import math
import re
from typing import Annotated, Literal

from jaxdistill.data.masking import Masking
from jaxdistill.data.views import View
from jaxdistill.errors import UserError
from jaxdistill.experiment import Data, Experiment
from jaxdistill.hf import find_tokenizer, read_config
from jaxdistill.initial import FromHuggingFace, Random
from jaxdistill.optim import Optimizer
from jaxdistill.terms import AttentionScores, HiddenStates

PAPER_FFN = {(4, 312): 1200}
"""Feed-forward widths that are not four times the student's width: of the paper's four-layer model."""


def config(
    corpus: Annotated[str, "folder that `jaxdistill prepare` made", "Data"],
    length: Annotated[int, "positions in a row"] = 128,
    masked: Annotated[bool, "read BERT's masked text, as for the authors' first models, instead of the text"] = False,
    size: Annotated[str, "the student's layers x width; the paper's are 4x312 and 6x768", "Method"] = "4x312",
    ffn: Annotated[int, "the student's feed-forward width; 0 takes 4 x width, and 1200 for 4x312 as the paper"] = 0,
    layer_map: Annotated[
        Literal["uniform", "top", "bottom"], "the teacher's layers that the student follows: spread, last or first"
    ] = "uniform",
    embd: Annotated[float, "weight of the loss on the embedding layer's output; 0 leaves it out"] = 1.0,
    hidn: Annotated[float, "weight of the loss on the layers' hidden states; 0 leaves it out"] = 1.0,
    attn: Annotated[float, "weight of the loss on attention scores before the softmax; 0 leaves it out"] = 1.0,
    released: Annotated[bool, "one projection with a bias for embeddings and layers, as in the authors' code"] = False,
    teacher: Annotated[str, "the teacher: a BERT folder or hub id", "Models"] = "google-bert/bert-base-uncased",
    revision: Annotated[str | None, "the hub's branch, tag or commit of the teacher"] = None,
    dropout: Annotated[float, "the student's dropout rate"] = 0.1,
    dtype: Annotated[Literal["float32", "bfloat16"], "type of the computation; parameters stay float32"] = "float32",
    batch: Annotated[int, "rows in a batch", "Training"] = 256,
    steps: Annotated[int, "updates; 300,000 are about the paper's 3 epochs of English Wikipedia"] = 300_000,
    learning_rate: Annotated[float, "peak learning rate"] = 5e-5,
    warmup: Annotated[float, "share of the steps with a rising learning rate"] = 0.1,
    seed: Annotated[int, "of the start, the order, the masks and the dropout"] = 0,
) -> Experiment:
    """TinyBERT's general distillation: embeddings, hidden states and attention scores, on text that is not masked.

    No loss reads an MLM head, so the student has none and there are no held-out scores: it is a start for distillation
    on a task, or for `mlm --start FOLDER`, which trains a head. Heads are as many as the teacher's.
    """
    shape = dataclasses.replace(read_config(teacher, revision=revision), mlm=False, dtype=dtype)
    layers, width = _read_size(size)
    student = dataclasses.replace(
        shape,
        layers=layers,
        hidden=width,
        ffn=ffn or PAPER_FFN.get((layers, width), 4 * width),
        dropout=dropout,
        attention_dropout=dropout,
    )
    return Experiment(
        name=f"tinybert_general/{size}",
        data=Data(
            corpus=corpus,
            vocabularies={"teacher": find_tokenizer(teacher, revision=revision)},
            views={"student": View("teacher"), "teacher": View("teacher", masks_of="student")},
            batch=batch,
            length=length,
            masking=Masking(predictions=math.ceil(0.15 * length))
            if masked
            else Masking(mask=0.0, random=0.0, predictions=1),
        ),
        models={"student": student, "teacher": shape},
        start={"student": Random(), "teacher": FromHuggingFace(teacher, revision)},
        terms=_terms(layer_map, embd, hidn, attn, released),
        optimizers={role: Optimizer("adamw", learning_rate, warmup) for role in ("student", "bridge")},
        steps=steps,
        trains=(("teacher/.*", False), (".*", True)),
        seed=seed,
    )


def _read_size(size: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)x(\d+)", size)
    if not found or "0" in found.groups():
        raise UserError(f"size {size!r}: write layers x width, such as 4x312")
    return int(found[1]), int(found[2])


def _terms(layer_map: str, embd: float, hidn: float, attn: float, released: bool) -> dict:
    terms = {}
    if released and embd and hidn:
        if embd != hidn:
            raise UserError(f"embd={embd} and hidn={hidn} share one projection when released: give both one weight")
        terms["states"] = HiddenStates(weight=hidn, layers=layer_map, released=True)
    else:
        if embd:
            terms["embeddings"] = HiddenStates(weight=embd, layers=None, released=released)
        if hidn:
            terms["hidden"] = HiddenStates(weight=hidn, layers=layer_map, embeddings=False, released=released)
    if attn:
        terms["attention"] = AttentionScores(weight=attn, layers=layer_map)
    return terms
