"""An experiment: the sum of the dataclasses that name its data, models, losses and optimizers; checked when built."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from jaxdistill import tree
from jaxdistill.bert import BertConfig, shapes
from jaxdistill.data.masking import Masking
from jaxdistill.data.views import View
from jaxdistill.errors import UserError
from jaxdistill.initial import Start
from jaxdistill.mixed import Mixed
from jaxdistill.optim import Optimizer
from jaxdistill.run import Run
from jaxdistill.terms import MaskedLM, TaskLoss, TaskTargets, Term
from jaxdistill.terms.following import Following

TAKEN = ("finite", "loss", "mixed", "step")
"""Names that no term may have: a metric or a part of the bridge has them."""


@dataclasses.dataclass(frozen=True)
class Data:
    """What is read.

    Attributes:
      corpus: a folder that `prepare` made.
      vocabularies: name → vocab.txt or model folder; windows fit under every one of them, used by a view or not, so
        that variants of one method see the same windows.
      views: what is read, by name; a view named after a model is read by that model.
      batch: rows of the global batch.
      length: positions in a row.
      masking: what is masked.
      held_out: a corpus for the held-out scores; none when empty.
      cache: a folder that `jaxdistill cache` made: models that do not train are not run, what they compute is read.
    """

    corpus: str
    vocabularies: Mapping[str, str]
    views: Mapping[str, View]
    batch: int
    length: int = 128
    masking: Masking = dataclasses.field(default_factory=Masking)
    held_out: str = ""
    cache: str = ""

    @property
    def predictions(self) -> int:
        """Masked positions in a row, at most."""
        return self.masking.predictions

    @property
    def whole_words(self) -> bool:
        """Whether words are masked whole."""
        return self.masking.whole_words

    def check(self) -> None:
        """Raises UserError when rows can't be masked so."""
        self.masking.check(self.length)
        self.masking.check_rarity(self.views.values(), self.batch)
        if self.cache:
            self.masking.check_static()


@dataclasses.dataclass(frozen=True)
class TaskData:
    """The examples of a task, which all models read alike.

    Attributes:
      task: one of `tasks.read.TASKS`, or the path of one's own training file.
      vocabularies: name → vocab.txt or model folder.
      views: what is read, by name; a view named after a model is read by that model.
      batch: rows of the global batch.
      length: pieces in a row, at most.
      source: a folder with the task's files; empty for the hub, `tfds` for tensorflow-datasets.
      columns: of one's own file, `first=...,second=...,label=...`.
      dev: one's own file to score on.
      augmented: a folder that `jaxdistill augment` made, to train on.
      examples: train on so many of the examples only, always the same; 0 takes all.
      scored: score on the dev split at the end.
      stride: of questions, pieces of the context from one window to the next; 0 takes 128, or half of a short length.
      max_question: of questions, pieces of the question at most.
    """

    task: str
    vocabularies: Mapping[str, str]
    views: Mapping[str, View]
    batch: int
    length: int = 128
    source: str = ""
    columns: str = ""
    dev: str = ""
    augmented: str = ""
    examples: int = 0
    scored: bool = True
    stride: int = 0
    max_question: int = 64

    cache = ""
    predictions = 0
    whole_words = False

    @property
    def held_out(self) -> str:
        """What is scored on; empty for nothing."""
        return "dev" if self.scored else ""

    def check(self) -> None:
        """Raises UserError for numbers that make no sense."""
        if self.batch < 1 or self.stride < 0 or self.max_question < 1:
            raise UserError(
                f"batch={self.batch}, max_question={self.max_question} and stride={self.stride}: the first two must be "
                "at least 1, the last at least 0"
            )
        if self.length < 3 or self.examples < 0:
            raise UserError(f"length={self.length}, examples={self.examples}: at least 3 pieces, 0 examples for all")
        if self.augmented and self.examples:
            raise UserError("--examples would count augmented copies: leave it out here, and say it to `augment`")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything a run computes.

    Attributes:
      name: of the method, for tables and model cards.
      data: what is read.
      models: the shape of every model, by role (`student`, `teacher`).
      start: where each model's parameters start.
      terms: the loss, a sum of named terms.
      optimizers: one for each tree that trains: roles, and `bridge` when a term or `mixed` has helper parameters.
      steps: updates.
      reads: the model that reads a view of another name, by view; a model may read several views, or none.
      mixed: which model reads a second vocabulary, if any.
      trains: first-match rules over names such as `student/layers/query/kernel`: does the parameter train?
      seed: of the start, the order, the masks and the dropout.
      run: how it runs.

    Raises:
      UserError: the parts do not fit together.
    """

    name: str
    data: Data | TaskData
    models: Mapping[str, BertConfig]
    start: Mapping[str, Start]
    terms: Mapping[str, Term]
    optimizers: Mapping[str, Optimizer]
    steps: int
    reads: Mapping[str, str] = dataclasses.field(default_factory=dict)
    mixed: Mixed | None = None
    trains: tuple[tuple[str, bool], ...] = ((".*", True),)
    seed: int = 0
    run: Run = dataclasses.field(default_factory=Run)

    def __post_init__(self):
        if self.steps < 1 or self.data.batch < 1:
            raise UserError(f"steps={self.steps} and batch={self.data.batch} must be at least 1")
        if max(self.steps, self.data.batch) >= 2**31:
            raise UserError("steps and batch: at most 2,147,483,647, which is as far as is counted")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed={self.seed}: it must be at least 0 and below 2**32")
        if not self.terms:
            raise UserError("an experiment needs at least one loss term")
        if set(self.models) != set(self.start):
            raise UserError(f"models {sorted(self.models)} and starts {sorted(self.start)} must name the same roles")
        for role, shape in self.models.items():
            self.start[role].check(shape)
        self._check_training()
        for view in self.data.views:
            if self.reader(view) not in self.models:
                raise UserError(f"no model reads the view {view!r}: name it after one of {sorted(self.models)}")
        self.data.check()
        self._check_views()
        models = self.with_views(self.models)
        for name, term in self.terms.items():
            if "/" in name or name in TAKEN:
                raise UserError(f"a term can't be named {name!r}: choose a name without / and none of {TAKEN}")
            try:
                term.check(models)
            except UserError as error:
                raise UserError(f"the term {name!r}: {error}") from None
            self._check_reading(name, term)

    def _check_training(self) -> None:
        names = [f"{role}/{name}" for role, shape in self.models.items() for name in tree.flatten(shapes(shape))]
        try:
            trained = {name.partition("/")[0] for name in names if self.trains_name(name)}
        except KeyError as error:
            raise UserError(f"`trains`: {error.args[0]}; end with ('.*', True)") from None
        self.check_optimizers(trained)

    def check_optimizers(self, trained: Collection[str]) -> None:
        """Raises UserError when one of these trees, roles or the bridge, has no optimizer."""
        if missing := sorted(set(trained) - set(self.optimizers)):
            raise UserError(f"{', '.join(missing)} train without an optimizer: name one, or have `trains` exclude them")

    def _check_views(self) -> None:
        for name, view in self.data.views.items():
            role = self.reader(name)
            if view.vocabulary not in self.data.vocabularies:
                raise UserError(f"the view of {role!r} names the vocabulary {view.vocabulary!r}, which is not given")
            if view.masks_of is not None and view.masks_of not in self.data.views:
                raise UserError(
                    f"the view {name!r} has the masks of {view.masks_of!r}, but the views are {sorted(self.data.views)}"
                )
            if self.data.length > self.models[role].positions:
                raise UserError(
                    f"rows of length {self.data.length}, but {role!r} has {self.models[role].positions} positions: "
                    "shorten the rows or give it more positions (`jaxdistill export --positions` can)"
                )
            if view.mixed_with and (self.mixed is None or self.mixed.reader != role):
                raise UserError(f"the view of {role!r} is mixed, but no `mixed` says how {role!r} reads a second one")
        if self.mixed:
            self.mixed.check(self.models)
            other = self.data.views[self.mixed.other]
            mixed_with = [view.mixed_with for name, view in self.data.views.items() if self._is_mixed(name)]
            if set(mixed_with) != {other.vocabulary}:
                raise UserError(
                    f"{self.mixed.reader!r} is to read the vocabulary of {self.mixed.other!r} too, but its view is "
                    f"mixed with {mixed_with[0] if mixed_with else None!r}, not with {other.vocabulary!r}"
                )

    def _check_reading(self, name: str, term: Term) -> None:
        of_task = isinstance(self.data, TaskData)
        if isinstance(term, MaskedLM if of_task else TaskLoss | TaskTargets):
            other, own = ("a corpus", "a task") if of_task else ("a task", "a corpus")
            raise UserError(f"the term {name!r} is of {other}, the data are of {own}: leave it out")
        mixed = self.mixed if self._is_mixed(getattr(term, "model", None)) else None
        if getattr(term, "mixed", mixed) != mixed:
            raise UserError(f"the term {name!r} must have the same `mixed` as the view of the model that it scores")
        for view, wanted in self._wants(term).items():
            if view not in self.data.views:
                raise UserError(
                    f"the term {name!r} reads {view!r}, which no view gives; there are {sorted(self.data.views)}"
                )
            if "scores" in wanted and self.models[self.reader(view)].attention == "fused":
                raise UserError(f"a term asks for the attention scores of {view!r}: set its attention to plain")
        if getattr(term, "align", "pieces") != "pieces":
            if not self.data.whole_words:
                raise UserError(
                    f"the term {name!r} compares views word by word: both must hide the same words, so mask whole words"
                )
        elif hasattr(term, "aligned"):
            one, other = term.aligned()
            views = [self.data.views[view] for view in (one, other)]
            owners = [view.masks_of or name for name, view in zip((one, other), views, strict=True)]
            if views[0].cut is None or views[0].cut != views[1].cut or owners[0] != owners[1]:
                raise UserError(
                    f"the term {name!r} compares {one!r} with {other!r} position by position: both must have the same "
                    "cut, and one the masks of the other (`masks_of`)"
                )

    def with_run(self, **knobs: Any) -> "Experiment":
        """The same experiment, run in another way."""
        return dataclasses.replace(self, run=dataclasses.replace(self.run, **knobs))

    def reader(self, view: str) -> str:
        """The model that reads a view."""
        return self.reads.get(view, view)

    def with_views(self, models: Mapping[str, Any]) -> dict[str, Any]:
        """What is given for each model, given for each view too: that of its reader."""
        return dict(models) | {view: models[self.reader(view)] for view in self.data.views}

    def reading(self) -> dict[str, frozenset[str]]:
        """The views that terms read, in their order, and what is wanted of each."""
        found: dict[str, frozenset[str]] = {}
        for term in self.terms.values():
            for view, wanted in self._wants(term).items():
                found[view] = found.get(view, frozenset()) | wanted
        return {view: found[view] for view in self.data.views if view in found}

    def running(self) -> dict[str, frozenset[str]]:
        """Those of them that a model has to be run on at every step."""
        return {view: want for view, want in self.reading().items() if not self.known(view)}

    def known(self, view: str) -> bool:
        """Whether what a model says of a view is known before training.

        That is so of a model that does not train, when a cache holds it or when, of a task, it can be kept in memory.
        """
        if self.trains_reader(view):
            return False
        if isinstance(self.data, TaskData):
            return self.run.once == "all" or (self.run.once != "none" and self.reading()[view] <= {"first"})
        return bool(self.data.cache)

    def trains_reader(self, view: str) -> bool:
        """Whether anything trains of the model that reads a view."""
        role = self.reader(view)
        return any(self.trains_name(f"{role}/{name}") for name in tree.flatten(shapes(self.models[role])))

    def learns(self, view: str) -> bool:
        """Whether a model trains by reading a view, and not only shows another what to follow.

        Where it only shows, it has no dropout, whether it trains elsewhere or not.
        """
        terms = [term for term in self.terms.values() if view in self._wants(term)]
        shows = all(isinstance(term, Following) and term.teacher == view for term in terms)
        return self.trains_reader(view) and not (terms and shows)

    def vague(self, view: str) -> list[str]:
        """The terms that read a view without naming what they want of it beyond what outputs always have."""
        return [name for name, term in self.terms.items() if self._wants(term).get(view) == frozenset()]

    def _wants(self, term: Term) -> dict[str, frozenset[str]]:
        """The views that a term reads, and what it wants of each: all of them when it does not say."""
        if not hasattr(term, "count"):
            return {}
        return term.want() if hasattr(term, "want") else dict.fromkeys(self.data.views, frozenset())

    def _is_mixed(self, view: str | None) -> bool:
        return view in self.data.views and self.data.views[view].mixed_with is not None

    def trains_name(self, name: str) -> bool:
        """Whether the parameter of this name (`student/embeddings/word`) trains."""
        return not name.startswith(f"{tree.CONSTANTS}/") and tree.first_match(self.trains, name)
