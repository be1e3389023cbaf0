"""A student of its own vocabulary learns from a teacher that stays as it is: what they share is compared by word."""

import dataclasses
from typing import Annotated, Literal

from jaxdistill.data.masking import Masking
from jaxdistill.data.views import View
from jaxdistill.data.vocab import read_vocabulary
from jaxdistill.experiment import BertConfig, Data, Experiment
from jaxdistill.hf import find_tokenizer, read_config
from jaxdistill.initial import FromHuggingFace, FromWords, Random
from jaxdistill.optim import Optimizer
from jaxdistill.terms import AttentionScores, HiddenStates, MaskedLM, SharedTargets


def config(
    corpus: Annotated[str, "folder that `jaxdistill prepare` made", "Data"],
    vocabulary: Annotated[str, "the student's vocab.txt or tokenizer folder, from `jaxdistill vocab`"],
    held_out: Annotated[str, "a held-out corpus to score; none when empty"] = "",
    length: Annotated[int, "positions in a row"] = 128,
    predictions: Annotated[int, "masked positions in a row, at most"] = 20,
    masking: Annotated[float, "share of words that is masked, the same in both views"] = 0.15,
    shared: Annotated[
        float, "weight of soft targets over the pieces that both have, of words cut alike; 0 leaves them out", "Method"
    ] = 1.0,
    temperature: Annotated[float, "of the soft targets"] = 2.0,
    states: Annotated[float, "weight of hidden states and embeddings by word; 0 leaves them out"] = 1.0,
    scores: Annotated[float, "weight of attention scores by word, of as many heads as the teacher's"] = 0.0,
    align: Annotated[Literal["mean", "first"], "the state of a word: the mean of its pieces', or the first's"] = "mean",
    teacher: Annotated[str, "the teacher: a BERT folder or hub id", "Models"] = "google-bert/bert-base-uncased",
    revision: Annotated[str | None, "the hub's branch, tag or commit of the teacher"] = None,
    hidden: Annotated[int, "the student's width"] = 192,
    layers: Annotated[int, "the student's layers; 0 takes the teacher's"] = 0,
    heads: Annotated[int, "the student's attention heads"] = 12,
    positions: Annotated[int, "the student's positions"] = 128,
    words: Annotated[bool, "the student's word table starts from the teacher's, instead of at random"] = True,
    neighbours: Annotated[bool, "a random start whose heads look at neighbouring words: for short training"] = False,
    dropout: Annotated[float, "dropout rate of the student"] = 0.1,
    dtype: Annotated[Literal["float32", "bfloat16"], "type of the computation; parameters stay float32"] = "float32",
    batch: Annotated[int, "rows in a batch", "Training"] = 256,
    steps: Annotated[int, "updates"] = 100_000,
    learning_rate: Annotated[float, "peak learning rate"] = 5e-4,
    warmup: Annotated[float, "share of the steps with a rising learning rate"] = 0.1,
    seed: Annotated[int, "of the start, the order, the masks and the dropout"] = 0,
) -> Experiment:
    """Distillation across vocabularies, without training the teacher; in no paper that we know of.

    Each model reads its own cut of the same words, and the same whole words are hidden from both. The student learns by
    its own masked words and from the teacher's hidden states and attention by word; soft targets are those of words
    that both vocabularies cut alike, over the pieces that both have.
    """
    how = {"dropout": dropout, "attention_dropout": dropout, "dtype": dtype}
    shape = dataclasses.replace(read_config(teacher, revision=revision), **how)
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
    start = Random(neighbours)
    if words:
        start = FromWords(teacher, revision, vocabulary=vocabulary, base=start)
    terms = {
        "student_mlm": MaskedLM("student"),
        "shared": SharedTargets(weight=shared, temperature=temperature),
        "states": HiddenStates(weight=states, align=align),
        "scores": AttentionScores(weight=scores, align=align),
    }
    rule = Optimizer("adamw", learning_rate, warmup)
    return Experiment(
        name="cross_vocabulary",
        data=Data(
            corpus=corpus,
            vocabularies={"student": vocabulary, "teacher": find_tokenizer(teacher, revision=revision)},
            views={"student": View("student"), "teacher": View("teacher")},
            batch=batch,
            length=length,
            masking=Masking(rate=masking, predictions=predictions, whole_words=True),
            held_out=held_out,
        ),
        models={"student": student, "teacher": shape},
        start={"student": start, "teacher": FromHuggingFace(teacher, revision, whole=True)},
        terms={name: term for name, term in terms.items() if term.weight},
        optimizers={"student": rule} | ({"bridge": rule} if states else {}),
        steps=steps,
        trains=(("teacher/.*", False), (".*", True)),
        seed=seed,
    )
