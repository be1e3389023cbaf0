"""Mixed-vocabulary training in two stages: a small student starts from word vectors that a teacher learnt to read.

This follows what the abstract and first page of Zhao et al. (EACL 2021, the second version of arXiv 1909.11687) say.
The rest is our reconstruction, and no result of theirs is claimed for it.
"""

import dataclasses
from typing import Annotated, Literal

from jaxdistill.data.masking import Masking
from jaxdistill.data.views import View
from jaxdistill.data.vocab import read_vocabulary
from jaxdistill.errors import UserError
from jaxdistill.experiment import BertConfig, Data, Experiment
from jaxdistill.hf import find_tokenizer, read_config
from jaxdistill.initial import FromHuggingFace, FromTable, Random
from jaxdistill.mixed import Mixed
from jaxdistill.optim import Optimizer
from jaxdistill.terms import MaskedLM

_TEACHER = "google-bert/bert-large-uncased"


def config(
    stage: Annotated[Literal[1, 2], "1 trains the teacher and the student's word table, 2 the student", "Method"],
    corpus: Annotated[str, "folder that `jaxdistill prepare` made", "Data"],
    vocabulary: Annotated[str, "the student's vocab.txt or tokenizer folder, from `jaxdistill vocab`"],
    held_out: Annotated[str, "a held-out corpus to score; none when empty"] = "",
    length: Annotated[int, "positions in a row"] = 128,
    predictions: Annotated[int, "masked positions in a row, at most"] = 20,
    mix: Annotated[float, "stage 1: probability that the teacher reads a word under the student's cut"] = 0.5,
    teacher: Annotated[str, "stage 1: the teacher, a BERT folder or hub id", "Models"] = _TEACHER,
    revision: Annotated[str | None, "stage 1: the hub's branch, tag or commit of the teacher"] = None,
    table: Annotated[str, "stage 2: the folder that `export RUN --role student --out FOLDER` made of stage 1"] = "",
    hidden: Annotated[int, "the student's width, of both stages"] = 256,
    layers: Annotated[int, "stage 2: the student's layers; the paper's are 6 and 12"] = 6,
    heads: Annotated[int, "the student's attention heads"] = 4,
    positions: Annotated[int, "the student's positions"] = 512,
    neighbours: Annotated[
        bool, "stage 2: a random start whose heads look at neighbouring words: for short training"
    ] = False,
    dropout: Annotated[float, "dropout rate"] = 0.1,
    attention: Annotated[Literal["plain", "fused"], "fused attention has no attention dropout"] = "plain",
    dtype: Annotated[Literal["float32", "bfloat16"], "type of the computation; parameters stay float32"] = "float32",
    batch: Annotated[int, "rows in a batch", "Training"] = 256,
    steps: Annotated[int, "updates of this stage"] = 250_000,
    optimizer: Annotated[Literal["adamw", "lamb"], "how parameters are updated"] = "adamw",
    learning_rate: Annotated[float, "peak learning rate"] = 1e-4,
    teacher_learning_rate: Annotated[float | None, "stage 1: the teacher's; none takes the same"] = None,
    warmup: Annotated[float, "share of the steps with a rising learning rate"] = 0.1,
    seed: Annotated[int, "of the start, the order, the masks and the dropout"] = 0,
) -> Experiment:
    """Mixed-vocabulary training in two stages, a reconstruction after Zhao et al. (EACL 2021; arXiv 1909.11687 v2).

    Stage 1 trains the teacher by masked words on text cut with both vocabularies; student pieces enter it through the
    student's table and a map. Its student is that table: the layer beside it is neither read nor trained. Stage 2
    trains a student by plain masked words, at random but for the table. Optimizer and steps are ours for both.
    """
    of_other = {
        1: {"table": (table, ""), "layers": (layers, 6), "neighbours": (neighbours, False)},
        2: {
            "mix": (mix, 0.5),
            "teacher": (teacher, _TEACHER),
            "revision": (revision, None),
            "teacher_learning_rate": (teacher_learning_rate, None),
        },
    }
    for name, (value, usual) in of_other[stage].items():
        if value != usual:
            raise UserError(f"{name} is of stage {3 - stage}, and of no effect in stage {stage}: leave it out")
    how = {
        "dropout": dropout,
        "attention_dropout": 0.0 if attention == "fused" else dropout,
        "attention": attention,
        "dtype": dtype,
    }
    student = BertConfig(
        vocab=read_vocabulary(vocabulary).size,
        hidden=hidden,
        layers=layers,
        heads=heads,
        ffn=4 * hidden,
        positions=positions,
        **how,
    )
    rule = Optimizer(optimizer, learning_rate, warmup)
    optimizers = {"student": rule}
    vocabularies = {"student": vocabulary}
    views = {"student": View("student")}
    models = {"student": student}
    if stage == 1:
        models["student"] = dataclasses.replace(student, layers=1, mlm=False)
        models["teacher"] = dataclasses.replace(read_config(teacher, revision=revision), **how)
        vocabularies["teacher"] = find_tokenizer(teacher, revision=revision)
        views["teacher"] = View("teacher", "student", mix)
        starts = {"student": Random(), "teacher": FromHuggingFace(teacher, revision)}
        terms = {"teacher_mlm": MaskedLM("teacher", mixed=Mixed())}
        rate = learning_rate if teacher_learning_rate is None else teacher_learning_rate
        optimizers |= {"teacher": dataclasses.replace(rule, learning_rate=rate), "bridge": rule}
    else:
        if not table:
            raise UserError("stage 2 starts from stage 1: give the folder that its student was exported to as `table`")
        if read_vocabulary(table).digest != read_vocabulary(vocabulary).digest:
            raise UserError(f"{table} cuts words otherwise than {vocabulary}: give stage 2 the vocabulary of stage 1")
        starts = {"student": FromTable(table, base=Random(neighbours))}
        terms = {"student_mlm": MaskedLM("student")}
    return Experiment(
        name=f"mixed_vocab/stage{stage}",
        data=Data(
            corpus=corpus,
            vocabularies=vocabularies,
            views=views,
            batch=batch,
            length=length,
            masking=Masking(predictions=predictions),
            held_out=held_out,
        ),
        models=models,
        start=starts,
        terms=terms,
        optimizers=optimizers,
        steps=steps,
        mixed=Mixed() if stage == 1 else None,
        trains=(("student/embeddings/word", True), ("student/.*", stage == 2), (".*", True)),
        seed=seed,
    )
