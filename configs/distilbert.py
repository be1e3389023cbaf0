"""DistilBERT: a shallower BERT that starts from its teacher's layers (Sanh et al., arXiv 1910.01108)."""

import dataclasses
from typing import Annotated, Literal

from jaxdistill.data.masking import Masking
from jaxdistill.data.views import View
from jaxdistill.experiment import Data, Experiment
from jaxdistill.hf import find_tokenizer, read_config
from jaxdistill.initial import FromHuggingFace, FromLayers, Random
from jaxdistill.optim import Optimizer
from jaxdistill.terms import CosineStates, MaskedLM, SoftTargets
from jaxdistill.terms.maps import spread


def config(
    corpus: Annotated[str, "folder that `jaxdistill prepare` made", "Data"],
    held_out: Annotated[str, "a held-out corpus to score; none when empty"] = "",
    length: Annotated[int, "positions in a row"] = 512,
    predictions: Annotated[int, "masked positions in a row, at most; 0 takes a quarter of the length"] = 0,
    masking: Annotated[float, "share of pieces that is masked"] = 0.15,
    rarity: Annotated[float, "rare pieces are masked more often: odds of count^-rarity; 0 masks all alike"] = 0.7,
    ce: Annotated[float, "weight of the soft targets; 0 leaves them out", "Method"] = 5.0,
    mlm: Annotated[float, "weight of the masked-LM loss; 0 leaves it out"] = 2.0,
    cos: Annotated[float, "weight of the cosine of the last hidden states; 0 leaves it out"] = 1.0,
    temperature: Annotated[float, "of the soft targets"] = 2.0,
    masked_only: Annotated[bool, "soft targets at masked positions only, instead of at all"] = False,
    start: Annotated[
        Literal["layers", "random"], "where the student starts: from the teacher's layers, or at random"
    ] = "layers",
    teacher: Annotated[str, "the teacher: a BERT folder or hub id", "Models"] = "google-bert/bert-base-uncased",
    revision: Annotated[str | None, "the hub's branch, tag or commit of the teacher"] = None,
    layers: Annotated[int, "the student's layers; 0 takes half of the teacher's"] = 0,
    dropout: Annotated[float, "the student's dropout rate"] = 0.1,
    attention: Annotated[Literal["plain", "fused"], "fused attention has no attention dropout"] = "plain",
    dtype: Annotated[Literal["float32", "bfloat16"], "type of the computation; parameters stay float32"] = "float32",
    batch: Annotated[int, "rows in a batch; a multiple of 8 unless rarity is 0", "Training"] = 4000,
    steps: Annotated[int, "updates; 6,400 are about the paper's 3 epochs of English Wikipedia and books"] = 6_400,
    learning_rate: Annotated[float, "peak learning rate"] = 5e-4,
    warmup: Annotated[float, "share of the steps with a rising learning rate"] = 0.05,
    seed: Annotated[int, "of the start, the order, the masks and the dropout"] = 0,
) -> Experiment:
    """DistilBERT (arXiv 1910.01108): soft targets, masked-LM loss and cosine at 5, 2 and 1, from the teacher's layers.

    The student has the teacher's vocabulary and width, half its layers and no token types. Its position embeddings are
    the teacher's and stay so; at random they train. Rows are filled with text, where the authors group rows by length.
    The teacher is frozen and reads without dropout.
    """
    shape = dataclasses.replace(
        read_config(teacher, revision=revision),
        dropout=dropout,
        attention_dropout=0.0 if attention == "fused" else dropout,
        attention=attention,
        dtype=dtype,
    )
    depth = layers or max(shape.layers // 2, 1)
    taken = FromLayers(teacher, revision, layers=spread(shape.layers, depth))
    terms = {
        "ce": SoftTargets(weight=ce, temperature=temperature, masked_only=masked_only),
        "mlm": MaskedLM("student", weight=mlm),
        "cos": CosineStates(weight=cos),
    }
    frozen = (("student/embeddings/position", False),) if start == "layers" else ()
    return Experiment(
        name="distilbert",
        data=Data(
            corpus=corpus,
            vocabularies={"teacher": find_tokenizer(teacher, revision=revision)},
            views={"student": View("teacher"), "teacher": View("teacher", masks_of="student")},
            batch=batch,
            length=length,
            masking=Masking(rate=masking, predictions=predictions or length // 4, rarity=rarity),
            held_out=held_out,
        ),
        models={"student": dataclasses.replace(shape, layers=depth, types=0), "teacher": shape},
        start={
            "student": taken if start == "layers" else Random(),
            "teacher": FromHuggingFace(teacher, revision, whole=True),
        },
        terms={name: term for name, term in terms.items() if term.weight},
        optimizers={
            "student": Optimizer("adamw", learning_rate, warmup, weight_decay=0.0, clip=5.0, b2=0.98, eps=1e-6)
        },
        steps=steps,
        trains=(*frozen, ("teacher/.*", False), (".*", True)),
        seed=seed,
    )
