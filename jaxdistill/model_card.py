"""The model card of an exported model: README.md from measured facts, and nothing else."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxdistill.bert import BertConfig, parameter_count
from jaxdistill.errors import UserError
from jaxdistill.hf_families import family_of

NAME = "README.md"


@dataclasses.dataclass(frozen=True)
class Measured:
    """A table of scores.

    Attributes:
      scores: model → measure → value. All models need the same measures.
      on: the text that they were measured on.
      command: prints them again.
      task: whose examples that was, "" for a corpus.
      digest: of these examples.
    """

    scores: Mapping[str, Mapping[str, float]]
    on: str
    command: str
    task: str = ""
    digest: str = ""


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of a trained model; what is None is not mentioned.

    Attributes:
      name: what the model is called.
      config: its shape.
      vocabulary: pieces of its vocabulary.
      length: positions in the rows that it was trained on.
      step: training steps behind these weights.
      steps: training steps the run was to take.
      method: how it was trained, e.g. `mixed-vocabulary distillation (arXiv 1909.11687)`.
      variant: the method's variant, e.g. `up`.
      role: what the model was in its run: `student`, `teacher`, or `model` where there was one only.
      base_model: the teacher that it was distilled from, a folder or a hub id; for a teacher, the weights it began as.
      base_revision: the hub's commit of it; None says that it is no hub id.
      base_parameters: how many parameters that has.
      corpus: what the training text is called.
      corpus_sha256: the hash in the corpus's manifest.
      dtype: type of the numbers in the file.
      file_bytes: size of model.safetensors.
      measured: its scores, and those of what it is to be compared with.
      pair: its classifier reads two texts.
      command: the command that trained the model.
      versions: package → version.
    """

    name: str
    config: BertConfig
    vocabulary: int
    length: int
    step: int
    steps: int
    method: str
    variant: str | None = None
    role: str = "student"
    base_model: str | None = None
    base_revision: str | None = None
    base_parameters: int | None = None
    corpus: str | None = None
    corpus_sha256: str | None = None
    dtype: str = "float32"
    file_bytes: int | None = None
    measured: Measured | None = None
    pair: bool = False
    command: str | None = None
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)


def model_card(facts: Facts) -> str:
    """README.md with the hub's front matter.

    Raises:
      UserError: the rows of the score table have different measures.
    """
    sections = [_front_matter(facts), f"# {_line(facts.name)}", _summary(facts), _table(_training(facts))]
    if facts.measured:
        sections += ["## Measured", _scores(facts.measured)]
    sections += ["## How to load", _loading(facts), "## Use and limits", _limits(facts)]
    if facts.command:
        sections += ["## How it was made", _block(facts.command)]
    if facts.versions:
        sections.append("Made with " + ", ".join(f"{name} {version}" for name, version in facts.versions.items()) + ".")
    return "\n\n".join(sections) + "\n"


def read_scores(folder: pathlib.Path) -> tuple[str, str, dict[str, float]] | None:
    """The examples' digest, the task and the model's scores, if a folder's model card is one of ours and tells them."""
    path = folder / NAME
    if not path.is_file():
        return None
    import huggingface_hub  # here: it is slow to import
    import yaml

    try:
        told = huggingface_hub.ModelCard.load(path, ignore_metadata_errors=True).data.eval_results or ()
    except (ValueError, TypeError, yaml.YAMLError):  # not written by us, and no matter
        return None
    ours = [each for each in told if set(each.dataset_args or ()) == {"sha256"}]
    if not ours:
        return None
    scores = {each.metric_type: each.metric_value for each in ours}
    return ours[0].dataset_args["sha256"], ours[0].dataset_name, scores


class _Use(NamedTuple):
    """What a model is for: the hub's tag, its head, a call of the pipeline of that tag, and what it does."""

    tag: str
    head: str
    call: str
    purpose: str


def _use(facts: Facts) -> _Use:
    config = facts.config
    if config.mlm:
        what = "with a masked-language-model head"
        return _Use(
            "fill-mask", what, '"The house is [MASK] the hill."', "fills `[MASK]`s and is a start for fine-tuning"
        )
    if config.spans:
        call = 'question="Where is the house?", context="The house is on the hill."'
        return _Use("question-answering", "that answers questions", call, "finds answers to questions in a text")
    if config.classifier:
        what = f"with a classifier of {', '.join(config.classifier)}"
        one, other = "The house is on the hill.", "There is a house."
        call = f'{{"text": "{one}", "text_pair": "{other}"}}' if facts.pair else f'"{one}"'
        return _Use("text-classification", what, call, "is for the task that it was tuned for")
    return _Use("feature-extraction", "without a head", "", "is a start for fine-tuning")


def _front_matter(facts: Facts) -> str:
    """YAML; every value is written as JSON, which YAML contains."""
    content = {
        "library_name": "transformers",
        "pipeline_tag": _use(facts).tag,
        "tags": [family_of(facts.config).kind, "distillation", "jaxdistill"],
    }
    if facts.base_model is not None and facts.base_revision is not None:
        content["base_model"] = facts.base_model
    if facts.measured and facts.measured.task and facts.role in facts.measured.scores:
        content["model-index"] = [{"name": facts.name, "results": [_result(facts, facts.measured)]}]
    return "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in content.items()), "---"])


def _result(facts: Facts, measured: Measured) -> dict[str, Any]:
    """The model's own scores as the hub lists them."""
    return {
        "task": {"type": _use(facts).tag},
        "dataset": {
            "name": measured.task,
            "type": measured.task,
            "split": "validation",
            "args": {"sha256": measured.digest},
        },
        "metrics": [{"type": measure, "value": value} for measure, value in measured.scores[facts.role].items()],
    }


def _summary(facts: Facts) -> str:
    config = facts.config
    made = "was made by" if facts.role == "model" else f"is the {facts.role} of"
    text = (
        f"A {family_of(config).name} encoder {_use(facts).head}: {config.layers} layers × {config.hidden}, "
        f"{config.heads} attention heads, {parameter_count(config):,} parameters, {facts.vocabulary:,} WordPieces, "
        f"trained on rows of {facts.length} pieces. It {made}: {_line(facts.method)}"
        f"{f', variant `{facts.variant}`' if facts.variant else ''}."
    )
    if facts.step < facts.steps:
        text += f"\n\n**Unfinished:** these are the weights after step {facts.step:,} of {facts.steps:,}."
    return text


def _training(facts: Facts) -> dict[str, str]:
    rows = {}
    if facts.base_model is not None:
        revision = f", commit `{facts.base_revision}`" if facts.base_revision else ""
        size = f", {facts.base_parameters:,} parameters" if facts.base_parameters else ""
        rows["Base model"] = f"`{facts.base_model}`{revision}{size}"
    if facts.corpus is not None:
        rows["Text"] = facts.corpus
    if facts.corpus_sha256 is not None:
        rows["Text, SHA-256"] = f"`{facts.corpus_sha256}`"
    rows["Training steps"] = f"{facts.step:,} of {facts.steps:,}"
    size = f", {facts.file_bytes:,} bytes" if facts.file_bytes is not None else ""
    rows["Weights"] = f"`model.safetensors`, {facts.dtype}{size}"
    if facts.base_parameters:
        rows["Compression"] = f"{facts.base_parameters / parameter_count(facts.config):.1f}x fewer parameters"
    return rows


def _scores(measured: Measured) -> str:
    measures = list(next(iter(measured.scores.values())))
    for model, row in measured.scores.items():
        if list(row) != measures:
            raise UserError(f"the scores of {model!r} are {list(row)}, those of the first row {measures}")
    lines = ["| model | " + " | ".join(map(_cell, measures)) + " |", "|---|" + "---:|" * len(measures)]
    lines += [
        f"| {_cell(model)} | " + " | ".join(f"{value:.4g}" for value in row.values()) + " |"
        for model, row in measured.scores.items()
    ]
    return "\n\n".join([f"On {_line(measured.on)}:", "\n".join(lines), "Measured by", _block(measured.command)])


def _loading(facts: Facts) -> str:
    use = _use(facts)
    if not use.call:
        return _block(
            "from transformers import AutoModel, AutoTokenizer\n\n"
            'tokenizer = AutoTokenizer.from_pretrained("PATH")\n'
            'model = AutoModel.from_pretrained("PATH")',
            "python",
        )
    return _block(
        f'from transformers import pipeline\n\nuse = pipeline("{use.tag}", model="PATH")\nuse({use.call})', "python"
    )


def _limits(facts: Facts) -> str:
    beyond = facts.config.positions > facts.length
    further = f", and left its positions beyond that, up to {facts.config.positions}, as they were" if beyond else ""
    return (
        f"The model {_use(facts).purpose}. Nothing beyond the figures on this page was measured: neither tasks, "
        "nor other kinds of text or languages, nor the biases that it takes from its text and its base model. Texts "
        f"longer than {facts.length} pieces must be cut: this training had none{further}. Its licence depends on those "
        "of its text and its base model; none is stated here."
    )


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in rows.items())])


def _line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


def _block(text: str, language: str = "") -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in _fences(text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def _fences(text: str) -> list[str]:
    return "".join(character if character == "`" else " " for character in text).split()
