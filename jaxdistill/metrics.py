"""Metrics: sums and counts on the device, means on the host; a JSONL file, TensorBoard, Weights & Biases.

Records of a step are written before the step is checkpointed. On resume every file is cut back to the restored step, so
that no step appears twice and no line is torn.
"""

import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxdistill import files
from jaxdistill.errors import UserError
from jaxdistill.events import cut_events, open_events, scalars
from jaxdistill.places import Place, make_folder, place, remote

JSONL = "metrics.jsonl"
Sums = Mapping[str, tuple[Any, Any]]


def means(steps: Sequence[Sums]) -> dict[str, float]:
    """Sums over counts of several steps, waited for at once and added in float64; NaN where the count is 0."""
    totals: dict[str, np.ndarray] = {}
    for sums in jax.device_get(list(steps)):
        for name, pair in sums.items():
            totals[name] = totals.get(name, np.zeros(2)) + np.array([float(value) for value in pair])
    return {name: float(total / count) if count else math.nan for name, (total, count) in totals.items()}


class MetricsLog:
    """The metrics files of a workdir; in a run of several processes only the first one has it.

    `metrics.jsonl` has one line for each call of `write`: `{"step": 100, "loss": 2.25, ...}`, floats to the last bit,
    `"nan"`, `"inf"` and `"-inf"` as strings. TensorBoard's files are in `tensorboard/`.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        resume_step: int | None = None,
        *,
        tensorboard: bool = True,
        wandb: str | None = None,
        config: Mapping[str, Any] | None = None,
    ):
        """Cuts the files back to a step and opens them.

        Args:
          workdir: the run.
          resume_step: the step that was restored; its records and those before it stay. None drops all.
          tensorboard: write event files too.
          wandb: the Weights & Biases project to send metrics to; None sends nothing.
          config: what Weights & Biases shows as the run's config.

        Raises:
          UserError: `wandb` is asked for and not installed, or the workdir can't be written.
        """
        workdir = place(workdir)
        kept = -1 if resume_step is None else resume_step
        self._path = workdir / JSONL
        self._wandb = None
        try:
            make_folder(workdir)
            cut_lines(self._path, kept)
            cut_events(workdir / "tensorboard", kept)
            self._lines = files.Growing(self._path)
            self._events = open_events(workdir / "tensorboard") if tensorboard else None
        except OSError as error:
            raise UserError(f"can't write metrics in {workdir}: {error.strerror or error}") from None
        if wandb is not None:
            self._wandb = _start_wandb(workdir, wandb, config)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def write(self, step: int, values: Mapping[str, float], *, now: bool = False) -> None:
        """Writes one step's metrics to every file, each by a single write.

        Args:
          step: updates done.
          values: what to write, by name.
          now: a checkpoint of this step is next, so that the line must be stored before it (see `files.Growing`).

        Raises:
          UserError: the disk is full.
        """
        step = int(step)
        if "step" in values:
            raise ValueError("a metric can't be named step")
        line = {"step": step, **{name: _jsonable(float(value)) for name, value in values.items()}}
        self._append(self._lines, (json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n").encode(), now)
        if self._events is not None:
            self._append(self._events, scalars(step, values), now)
        if self._wandb is not None:
            self._wandb.log(dict(values), step=step)

    def close(self) -> None:
        """Closes the files."""
        for file in (self._lines, self._events):
            if file is not None:
                file.close()
        if self._wandb is not None:
            self._wandb.finish()

    def _append(self, file: files.Growing, record: bytes, now: bool) -> None:
        try:
            file.append(record, now=now)
        except OSError as error:
            raise UserError(f"can't write metrics in {self._path.parent}: {error.strerror or error}") from None


def read_lines(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The whole lines of a metrics file; a torn one is left out."""
    return [record for _, record in _parsed(place(path).read_bytes())]


def cut_lines(path: str | os.PathLike, step: int) -> None:
    """Drops lines after a step, and torn ones, from a JSONL file; the file is replaced atomically."""
    path = place(path)
    if not path.exists():
        return
    data = path.read_bytes()
    kept = b"".join(line for line, record in _parsed(data) if record["step"] <= step)
    if kept != data:
        with files.atomic(path) as temporary:
            temporary.write_bytes(kept)


def _parsed(data: bytes):
    for line in data.splitlines(keepends=True):
        try:
            record = json.loads(line)
            whole = line.endswith(b"\n") and isinstance(record["step"], int)
        except (ValueError, KeyError, TypeError):
            whole = False
        if whole:
            yield line, record


def _jsonable(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _start_wandb(workdir: Place, project: str, config: Mapping[str, Any] | None) -> Any:
    try:
        import wandb
    except ImportError:
        raise UserError("Weights & Biases is not installed: pip install 'jaxdistill[wandb]'") from None
    path = workdir / "wandb_id"
    if not path.exists():
        files.write_text(path, wandb.util.generate_id())
    name = path.read_text(encoding="utf-8").strip()
    folder = tempfile.gettempdir() if remote(workdir) else str(workdir)
    return wandb.init(project=project, id=name, resume="allow", dir=folder, config=dict(config or {}))
