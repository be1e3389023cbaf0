"""The training loop: a run in a workdir, that can be killed at any instant and continues to the same bits."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from jaxdistill import distributed, evaluate, evaluate_task, files, manifest, sharding, signals
from jaxdistill import step as steps
from jaxdistill.agree import by_first, check_shared
from jaxdistill.cache import open_cache
from jaxdistill.checkpoint import Checkpoints, abstract
from jaxdistill.chips import peak_flops
from jaxdistill.data.loader import Prefetch, to_global
from jaxdistill.data.vocab import write_tokenizer
from jaxdistill.errors import Diverged, UserError
from jaxdistill.experiment import Data, Experiment
from jaxdistill.inputs import Inputs, open_held_out, open_inputs
from jaxdistill.lock import locked
from jaxdistill.metrics import MetricsLog, means
from jaxdistill.places import absolute, place, remove_folder
from jaxdistill.progress import Progress
from jaxdistill.resolve import describe, resolve
from jaxdistill.stopwatch import Clock, Profile
from jaxdistill.task_inputs import TaskInputs
from jaxdistill.taught import taught

CHECKPOINTS = "checkpoints"
SCORES = "scores.json"
VOCABULARIES = "vocabularies"
BAD_BATCH = "not_finite.npz"
AHEAD = 2
"""Steps that wait behind the one that is computed: enough for a busy device, and a signal is obeyed soon."""


@dataclasses.dataclass(frozen=True)
class Result:
    """How a call of `train` ended.

    Attributes:
      step: updates done.
      finished: all of them.
      scores: held-out scores by role, when the run is finished and has a held-out corpus.
      stopped: the signal that stopped it, "" when none did.
    """

    step: int
    finished: bool
    scores: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    stopped: str = ""


def train(
    experiment: Experiment,
    workdir: str | os.PathLike,
    *,
    notify: Callable[[str], None] = print,
    fallback: bool = False,
    accept: Collection[str] = ("versions",),
    command: str = "",
    programs: str | os.PathLike | None = None,
) -> Result:
    """Trains in a workdir; run again, it continues, or says that it is done.

    Of several processes all make this call; the first one alone writes and notifies, but for how the run was stopped.

    Args:
      experiment: what to compute, and how.
      workdir: holds `experiment.json`, `checkpoints/`, `metrics.jsonl`, `tensorboard/`, `scores.json`.
      notify: is told, a line at a time, what happens.
      fallback: go on from the checkpoint before one that cannot be restored.
      accept: what may differ from the run in the workdir, of `manifest.KINDS`.
      command: the command line that asks for this, for the manifest and the model card.
      programs: where compiled programs are kept, for runs alike to share; in the workdir when None.

    Raises:
      UserError: the workdir holds another run, is in use, or a checkpoint cannot be restored; the data do not fit; the
        loss is not finite (the batch is saved beside the last good checkpoint).
    """
    workdir = place(workdir)
    first, alone = jax.process_index() == 0, jax.process_count() == 1
    with (
        locked(workdir) if first else contextlib.nullcontext(),
        compiled_programs(workdir, place(programs or workdir / "programs")),
    ):
        check_shared(workdir)
        run = _Run(experiment, workdir, notify if first else lambda line: None, fallback, accept, command)
        if run.start < run.experiment.steps:
            run.ask_teachers()
            # The runtime's own handler of SIGTERM tells all processes; one of Python's would take its place.
            with signals.catching() if alone else contextlib.nullcontext(distributed.preempted) as stopped:
                reached = run.go_on(stopped)
            if reached < run.experiment.steps:
                notify(f"stopped by {stopped()} after step {reached:,}, which is saved; the same command continues")
                return Result(reached, finished=False, stopped=stopped())
        return run.finish()


@contextlib.contextmanager
def compiled_programs(workdir: pathlib.Path, folder: pathlib.Path) -> Iterator[None]:
    """Keeps compiled programs in a folder, so that a run that continues in the workdir need not compile again."""
    options = {
        "jax_compilation_cache_dir": str(absolute(folder)),  # jax's keys hold this path
        "jax_persistent_cache_min_compile_time_secs": 0.5,
    }
    before = {name: getattr(jax.config, name) for name in options}

    def use(settings):
        for name, value in settings.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()  # or jax goes on with the folder of its first compilation

    use(options)
    try:
        yield
    finally:
        use(before)
        first = jax.process_index() == 0
        if first and folder.parent == workdir and not (workdir / manifest.NAME).exists():  # The run did not come about.
            with contextlib.suppress(OSError):
                remove_folder(folder)


class _Run:
    """A run that is open: its data, its state and its files."""

    def __init__(
        self,
        experiment: Experiment,
        workdir: pathlib.Path,
        notify: Callable[[str], None],
        fallback: bool,
        accept: Collection[str],
        command: str,
    ):
        self.workdir, self.notify = workdir, notify
        self.inputs = inputs = open_inputs(experiment.data)
        self.vocabularies = inputs.vocabularies
        if experiment.run.devices and jax.process_count() > 1:
            raise UserError("--devices is for one process: several use all devices that each of them sees")
        self.mesh = sharding.make_mesh(experiment.run.fsdp, experiment.run.devices)
        self.batches = inputs.batches(experiment.data, experiment.seed)
        saved = manifest.read_manifest(workdir)
        if saved is None and any((workdir / CHECKPOINTS).glob("*")):
            raise UserError(f"{workdir} holds checkpoints but no {manifest.NAME}: choose another --workdir")
        with Checkpoints(workdir / CHECKPOINTS, readonly=True) as there:
            if experiment.steps in there.steps():
                accept = {*accept, "versions"}  # Nothing is left to compute.
        self.experiment, current, notes = resolve(experiment, inputs, self.mesh, workdir, saved, accept)
        if experiment.data.cache:
            self.batches = dataclasses.replace(self.batches, computed=open_cache(self.experiment, inputs))
        first = jax.process_index() == 0
        for line in (*notes, *describe(self.experiment, inputs, self.mesh)) if first else ():
            notify(line)
        self.state = steps.init_state(self.experiment)
        self.state = distributed.put(self.state, steps.state_shardings(self.experiment, self.state, self.mesh))
        self.checkpoints = Checkpoints(workdir / CHECKPOINTS, keep=experiment.run.keep, notify=notify)
        if first:
            for name, vocabulary in self.vocabularies.items():
                write_tokenizer(vocabulary, workdir / VOCABULARIES / name, experiment.data.length)
            cost = {"flops_per_step": steps.flops_per_step(self.experiment)}
            manifest.write_manifest(workdir, current | {"command": command} | cost)
        self.start = 0
        if self.checkpoints.steps():
            self.state |= self.checkpoints.restore(abstract(steps.kept(self.state)), fallback=fallback)
            self.start = int(self.state["step"])
            notify(f"continuing from step {self.start:,} of {self.experiment.steps:,}")

    def ask_teachers(self) -> None:
        """Computes what of a task is computed once; there is nothing to save yet, so a signal ends it at once."""
        if isinstance(self.inputs, TaskInputs):
            place = sharding.batch_sharding(self.mesh)
            known = taught(self.experiment, self.inputs, steps.params(self.state), place, self.notify)
            self.batches = dataclasses.replace(self.batches, computed=known)

    def go_on(self, stopped: Callable[[], str]) -> int:
        """Trains from the step that was restored to the last one, or until a signal asks to stop; the step reached."""
        experiment, run, place = self.experiment, self.experiment.run, sharding.batch_sharding(self.mesh)
        update = steps.make_train_step(experiment, self.mesh, run.micro_batch * self.mesh.size)
        process, processes = jax.process_index(), jax.process_count()
        number, pending, shapes = self.start, [], set()
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.checkpoints)
            log = stack.enter_context(self._log()) if process == 0 else None
            shown = None if process == 0 else stack.enter_context(open(os.devnull, "w"))
            progress = stack.enter_context(Progress(experiment.steps, number, file=shown))
            ahead = stack.enter_context(
                Prefetch(lambda at: self.batches(at, process, processes), number, experiment.steps, ahead=run.prefetch)
            )
            profile = stack.enter_context(Profile(self.workdir / "profile", number + 2, run.profile))
            clock, last = Clock(ahead), False
            while not last:
                profile.at(number, pending)
                batch = to_global(next(ahead), place)
                sizes = tuple(view["ids"].size for view in batch.values())
                if sizes not in shapes:  # It compiles, which is no part of the speed.
                    jax.block_until_ready(pending)
                    clock.pause()
                began = time.perf_counter()
                self.state, metrics = update(self.state, batch)
                pending.append(metrics)
                number += 1
                if len(pending) > AHEAD:
                    jax.block_until_ready(pending[-1 - AHEAD])
                if sizes in shapes:
                    clock.read(max(sizes))
                else:
                    shapes.add(sizes)
                    jax.block_until_ready(metrics)
                    clock.resume()
                if number == self.start + 1:
                    progress.say(f"compiled and ran the first step in {time.perf_counter() - began:.1f} s")
                    progress.restart(number)
                last = number == experiment.steps or bool(stopped())
                saves, scores = last or number % run.save_every == 0, run.eval_every and number % run.eval_every == 0
                if not (saves or scores or number % run.log_every == 0):
                    progress.update(number)
                    continue
                values = self._means(pending, number)
                pending.clear()
                values |= self._speed(*clock.lap())
                if scores:
                    values |= self._held_out_values()
                watched = "student" in experiment.models and isinstance(experiment.data, Data)
                if watched and (number % run.save_every == 0 or number == experiment.steps):
                    values |= self._kernel_gradients(self.state, batch)
                if log:
                    log.write(number, values, now=saves)
                progress.update(number, _shown(values))
                if saves:
                    self.checkpoints.save(number, steps.kept(self.state), wait=last)
                clock.resume()
        return number

    def finish(self) -> Result:
        """Scores the finished run on the held-out corpus, once for each number of rows, and keeps the scores."""
        path, total = self.workdir / SCORES, self.experiment.steps
        if not self.experiment.data.held_out:
            self.notify(f"done: {total:,} steps")
            return Result(total, True)
        rows = self.experiment.run.score_rows
        key = {"corpus": self._held_out.digest, "rows": rows, "step": total}
        saved = by_first(lambda: files.read_json(path) if path.exists() else {})
        if {name: saved.get(name) for name in key} != key:
            saved = key | {"scores": self._score(rows)}
            if jax.process_index() == 0:
                files.write_json(path, saved)
        self.notify(f"done: {total:,} steps; held-out scores are in {path}")
        return Result(total, True, saved["scores"])

    def _log(self) -> MetricsLog:
        run = self.experiment.run
        return MetricsLog(
            self.workdir,
            self.start or None,
            tensorboard=run.tensorboard,
            wandb=run.wandb or None,
            config=manifest.as_dict(self.experiment),
        )

    def _means(self, pending: list[steps.Metrics], number: int) -> dict[str, float]:
        """Means of the steps since the last line, which are waited for; raises UserError if one was not finite."""
        values = means(pending)
        if values.pop("finite") < 1.0:
            flags = jax.device_get([metrics["finite"][0] for metrics in pending])
            self._stop(number - len(pending) + int(np.argmin(flags)))
        return values

    def _stop(self, bad: int) -> None:
        path = self.workdir / BAD_BATCH
        arrays = {f"{role}.{name}": rows for role, view in self.batches(bad).items() for name, rows in view.items()}
        if jax.process_index() == 0:
            with files.atomic(path) as temporary, open(temporary, "wb") as file:
                np.savez(file, step=bad, **arrays)
        self.checkpoints.wait()
        saved = self.checkpoints.steps()
        state = f"the last good checkpoint is that of step {saved[-1]:,}" if saved else "no checkpoint was saved yet"
        raise Diverged(
            f"the loss or a gradient of step {bad:,} (from 0) is not finite; its batch is in {path}, {state}. Try a "
            "smaller learning rate or a longer warm-up with another --workdir"
        )

    def _speed(self, positions: int, seconds: float, waited: float) -> dict[str, float]:
        """How fast steps went that read so many positions."""
        if not positions:
            return {}
        data, peak = self.experiment.data, peak_flops(self.mesh)
        values = {"positions_per_second": positions / seconds, "data_wait": waited / seconds}
        if peak:
            whole = positions / (data.batch * data.length)
            values["mfu"] = steps.flops_per_step(self.experiment) * whole / seconds / peak
        return values

    @functools.cached_property
    def _kernel_gradients(self) -> Callable[[steps.State, Any], dict[str, float]]:
        return steps.kernel_gradients(self.experiment, self.mesh)

    @functools.cached_property
    def _held_out(self) -> Inputs | TaskInputs:
        return open_held_out(self.experiment.data)

    def _score(self, rows: int) -> dict[str, dict[str, float]]:
        """The scores of every model that is read, by role and measure."""
        data, place = self.experiment.data, sharding.batch_sharding(self.mesh)
        size = -(-32 // self.mesh.size) * self.mesh.size
        if isinstance(self._held_out, TaskInputs):
            params = steps.params(self.state)
            how = {"batch": size, "sharding": place}
            return {
                role: evaluate_task.score(
                    config, params[role], self._held_out, data.views[role].vocabulary, data.length, **how
                )
                for role, config in self.experiment.models.items()
                if (config.classifier or config.spans) and role in self.experiment.reading()
            }
        held_out = self._held_out.held_out(data.masking.scored(), rows=rows)
        params = steps.params(self.state)
        models = {
            role: evaluate.Model(config, params[role], self.vocabularies[data.views[role].vocabulary])
            for role, config in self.experiment.models.items()
            if config.mlm and role in self.experiment.reading()
        }
        found = evaluate.score(models, held_out, batch=size, sharding=place)
        return {role: dataclasses.asdict(score) for role, score in found.items()}

    def _held_out_values(self) -> dict[str, float]:
        if not self.experiment.data.held_out:
            return {}
        scores = self._score(self.experiment.run.eval_rows)
        return {f"held_out/{role}/{name}": value for role, score in scores.items() for name, value in score.items()}


def _shown(values: Mapping[str, float]) -> dict[str, float]:
    """What the progress line has room for."""
    accuracies = {
        f"{name.removesuffix('/accuracy')} right %": 100 * value
        for name, value in values.items()
        if name.endswith("/accuracy")
    }
    speed = {"positions/s": values["positions_per_second"]} if "positions_per_second" in values else {}
    return {"loss": values["loss"]} | accuracies | speed
