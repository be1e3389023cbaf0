"""A cache of what a teacher that does not train computes: once for each window, instead of at every step.

It holds what the terms of an experiment read of that teacher: for soft targets the best pieces at every position and
one class for all others, so that the loss stays a divergence between distributions; hidden states as they are. Numbers
are float16, which has three bits more than bfloat16, and none of these is large. Masks must be static.
"""

import dataclasses
import functools
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from jaxdistill import distributed, files, manifest, sharding, tree
from jaxdistill import step as steps
from jaxdistill.agree import by_first
from jaxdistill.bert import BY_LAYER
from jaxdistill.data.loader import own_rows, to_global
from jaxdistill.errors import UserError
from jaxdistill.experiment import Experiment, TaskData
from jaxdistill.initial import FromHuggingFace
from jaxdistill.inputs import Inputs, open_inputs
from jaxdistill.places import local
from jaxdistill.terms import SoftTargets

NAME = "cache.json"
ROWS = 16
"""Windows that each device computes together."""
_FLUSH = 64


def cached_views(experiment: Experiment) -> dict[str, frozenset[str]]:
    """The views that a model reads of which nothing trains, and what the terms want of each.

    Raises:
      UserError: there is none, masks are not static, or a term reads what is not kept: attention scores, which are too
        many, or what it does not name.
    """
    found = {view: want for view, want in experiment.reading().items() if not experiment.trains_reader(view)}
    if not found:
        raise UserError("no model of this experiment stays as it is: there is nothing to compute once")
    experiment.data.masking.check_static()
    for view, want in found.items():
        if "scores" in want:
            raise UserError(f"the attention scores of {view!r} are too many to keep: leave the attention term out")
        if vague := experiment.vague(view):
            raise UserError(f"the term {vague[0]!r} names nothing that a cache could keep of {view!r}: leave it out")
    return found


def contents(experiment: Experiment, inputs: Inputs, top: int) -> dict[str, Any]:
    """What a cache depends on, as JSON values."""
    roles = {experiment.reader(view) for view in cached_views(experiment)}
    return {
        "corpus": inputs.corpus.digest,
        "vocabularies": {name: vocabulary.digest for name, vocabulary in inputs.vocabularies.items()},
        "length": experiment.data.length,
        "masking": manifest.as_dict(experiment.data.masking),
        "wanted": {
            view: [manifest.as_dict(experiment.data.views[view]), sorted(want)]
            for view, want in cached_views(experiment).items()
        },
        "soft targets": [
            [term.teacher, term.temperature, term.masked_only] for term in _soft_targets(experiment).values()
        ],
        "top": top,
        "teachers": {role: _teacher(experiment, role) for role in sorted(roles)},
    }


def _teacher(experiment: Experiment, role: str) -> dict[str, Any]:
    """What a teacher computes depends on: its start, with contents in the place of paths, and what starts at random."""
    start = experiment.start[role]
    asked, contents = manifest.as_dict(start), start.contents()
    whole = isinstance(start, FromHuggingFace) and start.whole
    return {
        "start": {name: value for name, value in asked.items() if not contents or name not in ("source", "vocabulary")},
        "contents": contents,
        "dtype": experiment.models[role].dtype,
        "seed": None if whole else experiment.seed,
    }


def build(experiment: Experiment, out: str | os.PathLike, top: int = 8, progress: bool = True) -> int:
    """Computes a cache; run again, it goes on with what is missing. The folder appears when it is whole.

    All devices compute; of several processes all make this call, and the first one writes.

    Args:
      experiment: with static masks and a teacher that does not train.
      out: the folder to write.
      top: pieces whose chances are kept at each position.
      progress: show a bar.

    Returns:
      Bytes for each real position.

    Raises:
      UserError: see `cached_views`; the folder holds something else.
    """
    out = local(out)
    if by_first(out.exists):
        raise UserError(f"{out} exists already: use it, or choose another folder")
    _check_top(experiment, top)
    starts = {role: start.pin(None) for role, start in experiment.start.items()}
    experiment = dataclasses.replace(experiment, start=starts)
    inputs = open_inputs(experiment.data)
    key, count = contents(experiment, inputs, top), len(inputs.windows)
    manifest.check_alike([{"config": asked, "data": {}} for asked in distributed.gather(key)])
    part = out.with_name(f".{out.name}.part")
    done = by_first(lambda: _resumed(part, key))
    batches = inputs.batches(experiment.data, experiment.seed)
    mesh, first_process = sharding.make_mesh(), jax.process_index() == 0
    compute, rows = _computer(experiment, top, mesh), ROWS * mesh.size
    arrays: dict[str, np.memmap] = {}
    with tqdm.tqdm(total=count, initial=done, unit="window", disable=None if progress else True) as bar:
        for first in range(done, count, rows):
            windows = own_rows(np.arange(first, first + rows))
            batch = batches.read(np.minimum(windows, count - 1), 0, windows)
            last = min(first + rows, count)
            for name, value in tree.flatten(compute(batch)).items():
                if not first_process:
                    continue
                if name not in arrays:
                    arrays[name] = _mapped(
                        part / f"{name.replace('/', '.')}.npy", (count, *value.shape[1:]), value.dtype
                    )
                arrays[name][first:last] = value[: last - first]
            bar.update(last - first)
            if first_process and (last == count or (first // rows + 1) % _FLUSH == 0):
                for array in arrays.values():
                    array.flush()
                files.write_json(part / NAME, {"key": key, "done": last})
    by_first(lambda: _seal(part, out, {"key": key, "done": count}))
    names = cached_views(experiment)
    tokens = sum(inputs.windows.tokens(experiment.data.views[view].vocabulary) for view in names) / len(names)
    return round(by_first(lambda: sum(path.stat().st_size for path in out.glob("*.npy"))) / tokens)


def _seal(part: pathlib.Path, out: pathlib.Path, note: Mapping[str, Any]) -> None:
    """Notes the hashes of a finished folder, and moves it into place."""
    hashes = {path.name: files.sha256(path) for path in sorted(part.glob("*.npy"))}
    files.write_json(part / NAME, {**note, "files": hashes})
    for path in (*part.iterdir(), part):
        files.settle(path)
    os.replace(part, out)


def static(experiment: Experiment, seed: int) -> Experiment:
    """The experiment with masks that are drawn once for each window."""
    if isinstance(experiment.data, TaskData):
        raise UserError("a cache is of a corpus; of a task, what a frozen teacher says is kept in memory anyway")
    masking = dataclasses.replace(experiment.data.masking, static=seed)
    return dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, masking=masking))


def using(experiment: Experiment, folder: str | os.PathLike) -> Experiment:
    """The experiment with a cache and its masks; `open_cache` checks that the rest fits."""
    path = pathlib.Path(folder) / NAME
    if not path.is_file():
        raise UserError(f"{folder} holds no cache: make one with `jaxdistill cache`")
    fixed = static(experiment, files.read_json(path)["key"]["masking"]["static"])
    cached_views(fixed)
    return dataclasses.replace(fixed, data=dataclasses.replace(fixed.data, cache=os.fspath(folder)))


def open_cache(experiment: Experiment, inputs: Inputs) -> dict[str, Callable[[np.ndarray], dict[str, np.ndarray]]]:
    """What `Batches` adds to a batch from the experiment's cache: by view, arrays for windows given by number.

    Raises:
      UserError: there is no whole cache, it was computed from something else, or it is damaged; the message names what.
    """
    folder = pathlib.Path(experiment.data.cache)
    saved = files.read_json(folder / NAME)
    wanted = contents(experiment, inputs, saved["key"].get("top"))
    stale = [name for name in wanted if saved["key"].get(name) != wanted[name]]
    if stale:
        raise UserError(f"{folder} was computed with other {', '.join(stale)}: make another with `jaxdistill cache`")
    found: dict[str, dict[str, np.ndarray]] = {}
    for file, digest in saved["files"].items():
        path = folder / file
        if not path.is_file() or files.sha256(path) != digest:
            raise UserError(f"{path} is missing or damaged: make the cache again with `jaxdistill cache`")
        view, _, name = path.stem.partition(".")
        found.setdefault(view, {})[name] = np.load(path, mmap_mode="r")
    return {view: functools.partial(_rows, arrays) for view, arrays in found.items()}


def _rows(arrays: Mapping[str, np.ndarray], windows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: array[windows] for name, array in arrays.items()}


def _soft_targets(experiment: Experiment) -> dict[str, SoftTargets]:
    """By view the one term that reads its logits.

    Raises:
      UserError: there are several with different temperatures or positions.
    """
    found: dict[str, SoftTargets] = {}
    for term in experiment.terms.values():
        if isinstance(term, SoftTargets):
            other = found.setdefault(term.teacher, term)
            if (other.temperature, other.masked_only) != (term.temperature, term.masked_only):
                raise UserError(f"soft targets of {term.teacher!r} at two temperatures or places can't be cached")
    return found


def _check_top(experiment: Experiment, top: int) -> None:
    """Raises UserError when so many pieces can't be kept beside a class for the others."""
    for view, term in _soft_targets(experiment).items():
        size = experiment.models[term.student].vocab
        if not 1 <= top < size:
            raise UserError(f"top={top} for {view!r}: keep at least 1 of the {size:,} pieces, and not all of them")


def _computer(experiment: Experiment, top: int, mesh: jax.sharding.Mesh) -> Callable[[Mapping[str, Any]], dict]:
    """A function from a process's own rows of a batch to what is kept of all of it, by view and name, rows first."""
    views, soft = cached_views(experiment), _soft_targets(experiment)
    roles = {experiment.reader(view) for view in views}
    params = {
        role: steps.start_model(experiment.start[role], experiment.models[role], role, experiment.seed)
        for role in roles
    }
    params = sharding.everywhere(params, mesh)
    params |= {view: params[experiment.reader(view)] for view in views}
    rows = sharding.batch_sharding(mesh)

    @functools.partial(jax.jit, out_shardings=rows)
    def compute(params, batch):
        outputs = steps.forward(experiment, params, batch, {}, views)
        kept: dict[str, dict[str, jax.Array]] = {}
        for view, want in views.items():
            found = outputs[view]
            own = {name: getattr(found, name) for name in want - {"transformed"}}
            own |= {name: jnp.swapaxes(own[name], 0, 1) for name in want & BY_LAYER}
            own = {name: value.astype(jnp.float16) for name, value in own.items()}
            if view in soft:
                best, chances = soft[view].top(params, found, top)
                small = experiment.models[experiment.reader(view)].vocab <= 2**16
                own |= {"top": best.astype(jnp.uint16 if small else jnp.uint32), "chances": chances.astype(jnp.float16)}
            kept[view] = own
        return kept

    def whole(batch):
        given = to_global({view: batch[view] for view in views}, rows)
        return jax.tree.map(distributed.to_host, compute(params, given))

    return whole


def _resumed(part: pathlib.Path, key: Mapping[str, Any]) -> int:
    """How many windows an unfinished folder holds; one that noted nothing yet is begun anew."""
    if (part / NAME).is_file():
        saved = files.read_json(part / NAME)
        if saved["key"] == key:
            return saved["done"]
        raise UserError(f"{part} is the beginning of another cache: remove it, or choose another folder")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    return 0


def _mapped(path: pathlib.Path, shape: tuple[int, ...], dtype: np.dtype) -> np.memmap:
    if path.is_file():
        return np.load(path, mmap_mode="r+")
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
