"""From a run's checkpoint to a Hugging Face folder: the student alone, or the teacher trained on mixed input."""

import dataclasses
import os
import pathlib
import shlex
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxdistill import bert, files, manifest, tree
from jaxdistill import step as steps
from jaxdistill.bert import BertConfig
from jaxdistill.checkpoint import Checkpoints
from jaxdistill.data.vocab import Vocabulary, read_vocabulary
from jaxdistill.errors import UserError
from jaxdistill.evaluate import Model
from jaxdistill.hf import read_hf, write_hf
from jaxdistill.initial import recorded
from jaxdistill.model_card import Facts, Measured, model_card
from jaxdistill.places import place
from jaxdistill.tasks.read import is_pair


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A model taken out of a run: its role, shape, parameters and vocabulary, the step, and the run's manifest."""

    role: str
    config: BertConfig
    params: Mapping[str, Any]
    vocabulary: Vocabulary
    step: int
    manifest: Mapping[str, Any]


def is_run(folder: str | os.PathLike) -> bool:
    """Whether a folder is a run's workdir."""
    return (place(folder) / manifest.NAME).is_file()


def read_run(workdir: str | os.PathLike, role: str | None = None, step: int | None = None) -> Trained:
    """Reads one model of a run, finished or not, from its newest checkpoint or the one of a step.

    Raises:
      UserError: there is no run or no checkpoint, the run has no such model, the checkpoint is damaged, or what a part
        that does not train started from is gone.
    """
    workdir = place(workdir)
    saved = manifest.read_manifest(workdir)
    if saved is None:
        raise UserError(f"{workdir} is not the workdir of a run: it has no {manifest.NAME}")
    asked = saved["config"]
    role = role or ("student" if "student" in asked["models"] else next(iter(asked["models"])))
    if role not in asked["models"]:
        raise UserError(f"the run in {workdir} has no {role!r}; its models are {', '.join(sorted(asked['models']))}")
    config = _shape(saved, role)
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    whole = tree.flatten(bert.shapes(config))
    trained = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device)
        for name, leaf in whole.items()
        if tree.first_match(asked["trains"], f"{role}/{name}")
    }
    with Checkpoints(workdir / "checkpoints", readonly=True) as checkpoints:
        if step is None and not checkpoints.steps():
            raise UserError(f"the run in {workdir} has no checkpoint yet: let it train until its first one")
        step = checkpoints.steps()[-1] if step is None else step
        shapes = {"trained": {role: tree.unflatten(trained)}}
        params = checkpoints.restore(shapes, step, partial=True)["trained"][role] if trained else {}
    if len(trained) < len(whole):
        params = tree.unflatten(tree.flatten(_start(saved, role, config)) | tree.flatten(params))
    name = asked["data"]["views"][role]["vocabulary"]
    return Trained(role, config, params, read_vocabulary(workdir / "vocabularies" / name), step, saved)


def _shape(saved: Mapping[str, Any], role: str) -> BertConfig:
    return BertConfig(**{name: value for name, value in saved["config"]["models"][role].items() if name != "type"})


def _start(saved: Mapping[str, Any], role: str, config: BertConfig) -> dict:
    """Where a model of a run started: a checkpoint holds what trains only."""
    asked, start = saved["config"], recorded(saved["config"]["start"][role])
    if start.contents() != saved["data"].get(f"weights of {role}", ""):
        raise UserError(
            f"a part of {role!r} does not train and is where the run started, but {start.source} no longer holds the "
            "weights that it started from: put them back, or continue the run with the folder that has them"
        )
    return steps.start_model(start, config, role, asked["seed"])


def read_model(source: str | os.PathLike, role: str | None = None) -> Model:
    """A model to measure: of a run's workdir (its newest checkpoint), a Hugging Face folder, or a hub id.

    Raises:
      UserError: it can't be read, or has no masked-LM head or no tokenizer.
    """
    if is_run(source):
        found = read_run(source, role)
        if not found.config.mlm:
            raise UserError(f"the {found.role} of {source} has no masked-LM head: export it, and train one with `mlm`")
        return Model(found.config, found.params, found.vocabulary)
    read = read_hf(source, fresh_heads=False)
    if read.vocabulary is None:
        raise UserError(f"{source} has no tokenizer beside its weights: add its vocab.txt or tokenizer.json")
    return Model(read.config, read.params, read.vocabulary)


def export(
    workdir: str | os.PathLike,
    out: str | os.PathLike,
    *,
    role: str | None = None,
    step: int | None = None,
    positions: int | None = None,
    dtype: str = "float32",
    replace: bool = False,
    measured: Measured | None = None,
    notify: Callable[[str], None] = print,
) -> None:
    """Writes a model of a run as a folder that `transformers` loads, with its tokenizer and model card.

    Args:
      workdir: the run; an unfinished one is exported as it stands.
      out: the folder to write.
      role: which of its models; the student when None, or the only one.
      step: which checkpoint; the newest when None.
      positions: how many the folder is to have: the table's rows again and again, as Longformer starts (Beltagy et al.,
        arXiv 2004.05150, section 5), for a training on longer texts. The run's when None.
      dtype: `float32` or `float16`.
      replace: replace a folder that is no export of ours.
      measured: scores for the model card, instead of those that the run ended with.
      notify: is told what was written.

    Raises:
      UserError: fewer positions than the model has; see `read_run` and `write_hf`.
    """
    found = read_run(workdir, role, step)
    if positions:
        found = _lengthened(found, positions)
    asked = found.manifest["config"]
    facts = _facts(found, pathlib.Path(out).name, dtype, measured or _measured(workdir, found))
    write_hf(
        out,
        found.config,
        found.params,
        found.vocabulary,
        lambda size: model_card(dataclasses.replace(facts, file_bytes=size)),
        max_length=asked["data"]["length"],
        dtype=dtype,
        replace=replace,
    )
    total = asked["steps"]
    state = "" if found.step == total else f", unfinished: step {found.step:,} of {total:,}"
    notify(f"wrote the {found.role} to {out} ({bert.parameter_count(found.config):,} parameters, {dtype}{state})")


def _lengthened(found: Trained, positions: int) -> Trained:
    if positions < found.config.positions:
        raise UserError(f"--positions {positions}: the {found.role} has {found.config.positions} already")
    tables = found.params["embeddings"]
    table = jnp.resize(tables["position"], (positions, found.config.hidden))
    params = {**found.params, "embeddings": {**tables, "position": table}}
    return dataclasses.replace(found, config=dataclasses.replace(found.config, positions=positions), params=params)


def _measured(workdir: str | os.PathLike, found: Trained) -> Measured | None:
    """The scores that a run ended with, if it ended with this step."""
    asked, path = found.manifest["config"], place(workdir) / "scores.json"
    saved = files.read_json(path) if path.is_file() else {}
    if (saved.get("step"), saved.get("rows")) != (found.step, asked["run"]["score_rows"]):
        return None
    data, command = asked["data"], ["jaxdistill", "evaluate", os.fspath(workdir)]
    if "task" in data:
        task, digest = pathlib.Path(data["task"]).name, saved["corpus"]
        return Measured(saved["scores"], f"the dev split of {data['task']}", shlex.join(command), task, digest)
    command += ["--corpus", data["held_out"]]
    return Measured(saved["scores"], f"held-out corpus {saved['corpus'][:12]}", shlex.join(command))


def _facts(found: Trained, name: str, dtype: str, measured: Measured | None) -> Facts:
    asked, role = found.manifest["config"], found.role
    method, _, variant = asked["name"].partition("/")
    base = "teacher" if "teacher" in asked["models"] else role
    start = asked["start"][base] if "source" in asked["start"][base] else {}
    versions = {name: found.manifest[name] for name in ("jaxdistill", "python")} | found.manifest["packages"]
    return Facts(
        name=name,
        config=found.config,
        vocabulary=found.vocabulary.size,
        length=asked["data"]["length"],
        step=found.step,
        steps=asked["steps"],
        method=method,
        variant=variant or None,
        role=role,
        base_model=start.get("source"),
        base_revision=start.get("revision"),
        base_parameters=bert.parameter_count(_shape(found.manifest, base)) if start and base != role else None,
        corpus=pathlib.Path(asked["data"].get("corpus") or asked["data"]["task"]).name,
        corpus_sha256=found.manifest["data"].get("corpus") or found.manifest["data"]["examples"],
        dtype=dtype,
        measured=measured,
        pair="task" in asked["data"] and is_pair(asked["data"]["task"], asked["data"].get("columns", "")),
        command=found.manifest.get("command"),
        versions={name: version for name, version in versions.items() if version},
    )
