"""How an experiment runs, not what it computes."""

import dataclasses
from typing import Annotated, Literal

from jaxdistill.errors import UserError


@dataclasses.dataclass(frozen=True)
class Run:
    """Knobs that may change when a run is continued."""

    micro_batch: Annotated[
        int,
        "rows per device at a time, the rest is accumulated; 0 chooses by device memory",
        "How it runs (may change when a run is continued)",
    ] = 0
    devices: Annotated[int, "devices to use; 0 uses all"] = 0
    fsdp: Annotated[int, "devices over which parameters and optimizer are sharded; 1 replicates them"] = 1
    unroll: Annotated[int, "layers laid out at a time by the scan over layers; 0 lays out all"] = 1
    log_every: Annotated[int, "steps between lines of metrics"] = 20
    eval_every: Annotated[int, "steps between held-out scores; 0 scores only at the end"] = 0
    eval_rows: Annotated[int, "held-out windows that are scored while training; of a task all examples are"] = 256
    score_rows: Annotated[
        int, "held-out windows that are scored at the end; 0 scores all, as a task's examples are"
    ] = 2000
    save_every: Annotated[int, "steps between checkpoints"] = 500
    keep: Annotated[int, "checkpoints that are kept, at least 2"] = 2
    prefetch: Annotated[int, "batches made ahead"] = 4
    tensorboard: Annotated[bool, "write TensorBoard events into the workdir"] = True
    wandb: Annotated[str, "Weights & Biases project to log to; empty sends nothing anywhere"] = ""
    profile: Annotated[int, "write a profiler trace of this many steps into the workdir"] = 0
    once: Annotated[
        Literal["auto", "all", "heads", "none"],
        "of a task: what is computed once, and kept in memory, of what a frozen teacher says of the examples; heads: "
        "scores and [CLS] states; all: hidden states and attention scores too; auto: all, if half of the free memory "
        "holds it",
    ] = "auto"
    deterministic: Annotated[bool, "on a GPU, use deterministic operations only (slower)"] = False

    def __post_init__(self):
        for name in ("log_every", "save_every", "fsdp", "prefetch"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: it must be at least 1")
        for name in ("micro_batch", "devices", "unroll", "eval_every", "eval_rows", "score_rows", "profile"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}={getattr(self, name)}: it must not be negative")
        if self.keep < 2:
            raise UserError(f"keep={self.keep}: at least 2 checkpoints are kept, in case one is damaged")
