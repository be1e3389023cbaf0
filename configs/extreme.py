"""Extreme compression with mixed vocabularies and shared projections (Zhao et al., arXiv 1909.11687)."""

import dataclasses
from typing import Annotated, Literal

from jaxdistill.data.masking import Masking
from jaxdistill.data.views import View
from jaxdistill.data.vocab import read_vocabulary
from jaxdistill.errors import UserError
from jaxdistill.experiment import BertConfig, Data, Experiment
from jaxdistill.hf import find_tokenizer, read_config
from jaxdistill.initial import FromHuggingFace, FromWords, Random
from jaxdistill.mixed import Mixed
from jaxdistill.optim import Optimizer
from jaxdistill.terms import MaskedLM, Projection


def config(
    corpus: Annotated[str, "folder that `jaxdistill prepare` made", "Data"],
    vocabulary: Annotated[str, "the student's vocab.txt or tokenizer folder, from `jaxdistill vocab`"],
    held_out: Annotated[str, "a held-out corpus to score; none when empty"] = "",
    length: Annotated[int, "positions in a row"] = 128,
    predictions: Annotated[int, "masked positions in a row, at most"] = 20,
    masking: Annotated[float, "share of pieces that is masked"] = 0.15,
    whole_words: Annotated[bool, "mask the same whole words in both views"] = False,
    mix: Annotated[float, "probability that the teacher reads a word under the student's cut"] = 0.5,
    mix_ramp: Annotated[int, "steps over which that probability rises from 0"] = 0,
    variant: Annotated[
        Literal["nokd", "dual", "down", "up"],
        "student alone; teacher and student trained jointly; and with projections down or up",
        "Method",
    ] = "up",
    projection: Annotated[float, "weight of the projection loss, mean of squares per kernel"] = 1.0,
    vectors: Annotated[bool, "project biases and LayerNorm parameters too"] = False,
    embeddings: Annotated[bool, "project position and token-type tables too"] = False,
    shared_table: Annotated[bool, "the teacher reads student pieces through the student's own table"] = True,
    teacher: Annotated[str, "the teacher: a BERT folder or hub id", "Models"] = "google-bert/bert-base-uncased",
    revision: Annotated[
        str | None,
        "the hub's branch, tag or commit of the teacher; a commit, if the run is to be continued weeks later",
    ] = None,
    hidden: Annotated[int, "the student's width; the paper's are 48, 96 and 192"] = 48,
    layers: Annotated[int, "the student's layers; 0 takes the teacher's"] = 0,
    heads: Annotated[int, "the student's attention heads"] = 12,
    positions: Annotated[int, "the student's positions; 512 for one that is to read long text, see --start"] = 128,
    start: Annotated[
        str,
        "a folder that the student starts from, such as one trained with --positions 512 at length 128 and exported, "
        "to go on with at --positions 512 --length 512 --predictions 77; at random when empty",
    ] = "",
    words: Annotated[bool, "the student's word table starts from the teacher's, instead of at random"] = False,
    neighbours: Annotated[bool, "a random start whose heads look at neighbouring words: for short training"] = False,
    dropout: Annotated[float, "dropout rate of every model that trains"] = 0.1,
    attention: Annotated[Literal["plain", "fused"], "fused attention has no attention dropout"] = "plain",
    dtype: Annotated[Literal["float32", "bfloat16"], "type of the computation; parameters stay float32"] = "float32",
    batch: Annotated[int, "rows in a batch", "Training"] = 4096,
    steps: Annotated[int, "updates"] = 250_000,
    optimizer: Annotated[Literal["lamb", "adamw"], "how parameters are updated"] = "lamb",
    learning_rate: Annotated[float, "peak learning rate"] = 0.00125,
    teacher_learning_rate: Annotated[float | None, "the teacher's; none takes the same"] = None,
    warmup: Annotated[float, "share of the steps with a rising learning rate"] = 0.1,
    seed: Annotated[int, "of the start, the order, the masks and the dropout"] = 0,
) -> Experiment:
    """Extreme compression with mixed vocabularies and shared projections (arXiv 1909.11687).

    The defaults are the paper's job on 32 TPU cores; the micro-batch is chosen by device memory, so that it runs
    anywhere. Variants see the same windows, and start, masks and dropout of the student depend on the seed alone.
    """
    if start and (neighbours or words):
        raise UserError("neighbours and words are for a random start: leave them or start out")
    shape = read_config(teacher, revision=revision)
    how = {
        "dropout": dropout,
        "attention_dropout": 0.0 if attention == "fused" else dropout,
        "attention": attention,
        "dtype": dtype,
    }
    student = BertConfig(
        vocab=read_vocabulary(vocabulary).size,
        hidden=hidden,
        layers=layers or shape.layers,
        heads=heads,
        ffn=4 * hidden,
        positions=positions,
        eps=shape.eps,
        **how,
    )
    joint = variant != "nokd"
    mixed = Mixed(shared=shared_table) if joint else None
    rule = Optimizer(optimizer, learning_rate, warmup)
    models = {"student": student}
    starts = {"student": FromHuggingFace(start) if start else Random(neighbours)}
    if words:
        starts["student"] = FromWords(teacher, revision, vocabulary=vocabulary, base=Random(neighbours))
    views = {"student": View("student")}
    terms = {"student_mlm": MaskedLM("student")}
    optimizers = {"student": rule}
    if joint:
        models["teacher"] = dataclasses.replace(shape, **how)
        starts["teacher"] = FromHuggingFace(teacher, revision)
        views["teacher"] = View("teacher", "student", mix, mix_ramp)
        terms["teacher_mlm"] = MaskedLM("teacher", mixed=mixed)
        rate = learning_rate if teacher_learning_rate is None else teacher_learning_rate
        optimizers |= {"teacher": dataclasses.replace(rule, learning_rate=rate), "bridge": rule}
    if variant in ("down", "up"):
        terms["projection"] = Projection(variant, projection, vectors, embeddings)
    return Experiment(
        name=f"extreme/{variant}",
        data=Data(
            corpus=corpus,
            vocabularies={"student": vocabulary, "teacher": find_tokenizer(teacher, revision=revision)},
            views=views,
            batch=batch,
            length=length,
            masking=Masking(rate=masking, predictions=predictions, whole_words=whole_words),
            held_out=held_out,
        ),
        models=models,
        start=starts,
        terms=terms,
        optimizers=optimizers,
        steps=steps,
        mixed=mixed,
        seed=seed,
    )
