"""Runs and model folders that a command names: what they are called, and the scores that the runs ended with."""

import os
import pathlib
from collections.abc import Hashable, Mapping, Sequence

from jaxdistill import files, train
from jaxdistill.errors import UserError
from jaxdistill.export import Trained, is_run
from jaxdistill.measure import setting_of
from jaxdistill.places import place


def short_names(sources: Sequence[str]) -> dict[str, str]:
    """Sources by the shortest ends of their paths that tell them apart.

    Raises:
      UserError: a source is given twice, or is a folder that is neither a run nor a model.
    """
    parts, seen = [], set()
    for source in sources:
        local = os.path.isdir(source)
        if local and not (is_run(source) or os.path.exists(os.path.join(source, "config.json"))):
            raise UserError(
                f"{source} is neither a run (it has no experiment.json) nor a model folder (it has no config.json)"
            )
        whole = os.path.realpath(source) if local else source
        if whole in seen:
            raise UserError(f"{source} is given twice: name every run and model once")
        seen.add(whole)
        parts.append(pathlib.Path(os.path.abspath(source) if local else source).parts)
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(names):
            break
    return dict(zip(names, sources, strict=True))


def ended(workdir: str | os.PathLike, run: Trained) -> tuple[Hashable, Mapping[str, float]] | None:
    """The scores that a run ended with, if these are the weights, after what tells whether others saw the same."""
    path, asked = place(workdir) / train.SCORES, run.manifest["config"]
    if not path.is_file():
        return None
    saved = files.read_json(path)
    if (saved["step"], saved["rows"]) != (run.step, asked["run"]["score_rows"]) or run.role not in saved["scores"]:
        return None
    scores = saved["scores"][run.role]
    if "task" in asked["data"]:
        return saved["corpus"], scores
    hashes = run.manifest["data"].items()
    vocabularies = frozenset(digest for name, digest in hashes if name.startswith("vocabulary of "))
    return (saved["corpus"], setting_of(asked), vocabularies), scores
