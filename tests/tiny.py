"""A tiny experiment from text to config: what the tests of whole runs start from."""

import dataclasses
import pathlib

import jax
import numpy as np

from jaxdistill import bert, knobs
from jaxdistill.data.corpus import open_corpus, prepare
from jaxdistill.data.vocab import write_tokenizer
from jaxdistill.data.wordpiece import learn_vocabulary
from jaxdistill.experiment import Experiment
from jaxdistill.hf import write_hf
from jaxdistill.run import Run

TEACHER = {"hidden": 12, "layers": 2, "heads": 2, "ffn": 24, "positions": 24}
KNOBS = {
    "variant": "up",
    "hidden": 8,
    "heads": 2,
    "positions": 24,
    "length": 16,
    "predictions": 3,
    "batch": 8,
    "steps": 6,
    "learning_rate": 0.01,
}
RUN = {"tensorboard": False, "log_every": 2, "save_every": 2, "score_rows": 16, "eval_rows": 8}


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Where a tiny run's inputs are; tests only read them.

    Attributes:
      text: some English-like text.
      corpus: it, prepared.
      held_out: a smaller prepared corpus of other text.
      vocabulary: the student's tokenizer folder.
      teacher: a BERT folder with random weights and a larger vocabulary.
    """

    text: pathlib.Path
    corpus: pathlib.Path
    held_out: pathlib.Path
    vocabulary: pathlib.Path
    teacher: pathlib.Path

    def values(self, **changes) -> dict:
        """The arguments of configs/extreme.py for a run that takes seconds; a value of None leaves one out."""
        paths = {"corpus": str(self.corpus), "vocabulary": str(self.vocabulary), "teacher": str(self.teacher)}
        return {name: value for name, value in (paths | KNOBS | changes).items() if value is not None}

    def experiment(self, run: dict | None = None, **changes) -> Experiment:
        """The experiment that configs/extreme.py makes of `values`; `run` has further fields of `Run`."""
        made = knobs.load("extreme")(**self.values(**changes))
        return dataclasses.replace(made, run=Run(**RUN | (run or {})))

    def arguments(self, workdir, run: dict | None = None, **changes) -> list[str]:
        """The same experiment as a command line: `train extreme ...`."""
        options = self.values(**changes) | RUN | (run or {})
        return ["train", "extreme", f"--workdir={workdir}", *(f"--{name}={value}" for name, value in options.items())]


def make(folder: pathlib.Path, text: str, other_text: str) -> Inputs:
    """Prepares texts, learns two vocabularies, and writes a teacher with random weights."""
    inputs = Inputs(*(folder / name for name in ("text.txt", "corpus", "held_out", "vocabulary", "teacher")))
    inputs.text.write_text(text, encoding="utf-8")
    (folder / "other.txt").write_text(other_text, encoding="utf-8")
    prepare([str(inputs.text)], inputs.corpus, workers=1)
    prepare([str(folder / "other.txt")], inputs.held_out, workers=1)
    lexicon = open_corpus(inputs.corpus).lexicon
    student, teacher = (learn_vocabulary(lexicon, size, coverage=0.999) for size in (60, 80))
    write_tokenizer(student, inputs.vocabulary, 16)
    config = bert.BertConfig(vocab=teacher.size, **TEACHER)
    # Larger than BERT's 0.02, so that what the teacher reads shows in what it computes.
    params = jax.tree.map(lambda x: np.asarray(x) * (5 if x.ndim > 1 else 1), bert.init(config, jax.random.key(7)))
    write_hf(inputs.teacher, config, params, teacher)
    return inputs
