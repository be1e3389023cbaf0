"""Plain masked-language modelling: pre-train a BERT from scratch, or train one further."""

import dataclasses
from typing import Annotated, Literal

from jaxdistill.data.masking import Masking
from jaxdistill.data.views import View
from jaxdistill.data.vocab import read_vocabulary
from jaxdistill.errors import UserError
from jaxdistill.experiment import BertConfig, Data, Experiment
from jaxdistill.hf import read_config
from jaxdistill.initial import FromHuggingFace, Random
from jaxdistill.optim import Optimizer
from jaxdistill.terms import MaskedLM


def config(
    corpus: Annotated[str, "folder that `jaxdistill prepare` made", "Data"],
    vocabulary: Annotated[str, "vocab.txt or tokenizer folder"],
    held_out: Annotated[str, "a held-out corpus to score; none when empty"] = "",
    length: Annotated[int, "positions in a row"] = 128,
    predictions: Annotated[int, "masked positions in a row, at most"] = 20,
    whole_words: Annotated[bool, "mask whole words"] = False,
    start: Annotated[str, "a BERT folder or hub id to train further; at random when empty", "Model"] = "",
    revision: Annotated[str | None, "the hub's branch, tag or commit of that model"] = None,
    hidden: Annotated[int, "width, when it starts at random"] = 256,
    layers: Annotated[int, "layers, when it starts at random"] = 4,
    heads: Annotated[int, "attention heads, when it starts at random"] = 4,
    positions: Annotated[int, "positions, when it starts at random"] = 512,
    neighbours: Annotated[bool, "a random start whose heads look at neighbouring words: for short training"] = False,
    dropout: Annotated[float, "dropout rate"] = 0.1,
    attention: Annotated[Literal["plain", "fused"], "fused attention has no attention dropout"] = "plain",
    dtype: Annotated[Literal["float32", "bfloat16"], "type of the computation; parameters stay float32"] = "float32",
    batch: Annotated[int, "rows in a batch", "Training"] = 256,
    steps: Annotated[int, "updates"] = 10_000,
    optimizer: Annotated[Literal["adamw", "lamb"], "how parameters are updated"] = "adamw",
    learning_rate: Annotated[float, "peak learning rate"] = 5e-4,
    warmup: Annotated[float, "share of the steps with a rising learning rate"] = 0.1,
    seed: Annotated[int, "of the start, the order, the masks and the dropout"] = 0,
) -> Experiment:
    """Masked-language modelling of one model (Devlin et al., arXiv 1810.04805), from scratch or from a folder."""
    if start and neighbours:
        raise UserError("neighbours is for a random start: leave it or start out")
    if start:
        shape = read_config(start, revision=revision)
    else:
        size = read_vocabulary(vocabulary).size
        shape = BertConfig(vocab=size, hidden=hidden, layers=layers, heads=heads, ffn=4 * hidden, positions=positions)
    model = dataclasses.replace(
        shape,
        dropout=dropout,
        attention_dropout=0.0 if attention == "fused" else dropout,
        attention=attention,
        dtype=dtype,
    )
    return Experiment(
        name="mlm",
        data=Data(
            corpus=corpus,
            vocabularies={"model": vocabulary},
            views={"model": View("model")},
            batch=batch,
            length=length,
            masking=Masking(predictions=predictions, whole_words=whole_words),
            held_out=held_out,
        ),
        models={"model": model},
        start={"model": FromHuggingFace(start, revision) if start else Random(neighbours)},
        terms={"mlm": MaskedLM("model")},
        optimizers={"model": Optimizer(optimizer, learning_rate, warmup)},
        steps=steps,
        seed=seed,
    )
