"""PyTorch's side of `step.py`: one process that runs the same joint step with `transformers`' models.

Two ways to write it: `every position` uses `BertForMaskedLM` as it comes, its head on all positions and labels of -100
where there is nothing to predict; `gathered` runs the head on the positions to predict only, those of each vocabulary
apart. On a GPU the second compiles its encoders.
"""

import json
import pathlib
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn.functional import cross_entropy, linear

SETTINGS = json.loads(sys.argv[1])

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROLES = ("student", "teacher")


def load(role: str) -> torch.nn.Module:
    folder = pathlib.Path(SETTINGS["folder"], role)
    model = transformers.BertForMaskedLM.from_pretrained(folder, attn_implementation=SETTINGS["attention"])
    return model.to(DEVICE).train()


class Job:
    """The two models, the affine map between them, and their optimizers."""

    def __init__(self):
        self.models = {role: load(role) for role in ROLES}
        with np.load(pathlib.Path(SETTINGS["folder"], "bridge.npz")) as stored:
            bridge = {name: torch.nn.Parameter(torch.from_numpy(stored[name]).to(DEVICE)) for name in stored}
        self.bridge = bridge
        self.gathered = SETTINGS["contestant"] == "gathered"
        trees = {role: dict(model.named_parameters()) for role, model in self.models.items()}
        self.trees = [list(tree.values()) for tree in (*trees.values(), bridge)]
        named = [item for tree in trees.values() for item in tree.items()]
        decayed = [leaf for name, leaf in named if not (name.endswith("bias") or "LayerNorm" in name)]
        plain = [leaf for name, leaf in named if name.endswith("bias") or "LayerNorm" in name]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed}, {"params": [*plain, *bridge.values()], "weight_decay": 0.0}],
            lr=SETTINGS["learning_rate"],
            eps=1e-6,
            weight_decay=0.01,
            fused=self.gathered,
        )
        self.encoders = {role: model.bert for role, model in self.models.items()}
        if self.gathered and DEVICE == "cuda":
            self.encoders = {role: torch.compile(encoder) for role, encoder in self.encoders.items()}

    def losses(self, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """Summed cross-entropies of student and teacher over a micro-batch."""
        student, teacher = (self.models[role] for role in ROLES)
        mapped = linear(student.bert.embeddings.word_embeddings.weight, self.bridge["kernel"].T, self.bridge["bias"])
        view = batch["teacher"]
        other = view["source"] == 1
        own = teacher.bert.embeddings.word_embeddings(torch.where(other, 0, view["ids"]))
        words = torch.where(other[..., None], mapped[torch.where(other, view["ids"], 0)], own)
        hidden = self.encoders["teacher"](inputs_embeds=words, attention_mask=view["mask"]).last_hidden_state
        other = view["target_source"] == 1
        heads = [
            (~other, teacher.cls.predictions.decoder),
            (other, lambda features: linear(features, mapped, self.bridge["output_bias"])),
        ]
        teacher_loss = self.score(teacher, hidden, view, heads)
        view = batch["student"]
        hidden = self.encoders["student"](input_ids=view["ids"], attention_mask=view["mask"]).last_hidden_state
        heads = [(torch.ones_like(view["targets"], dtype=torch.bool), student.cls.predictions.decoder)]
        return self.score(student, hidden, view, heads), teacher_loss

    def score(self, model, hidden, view, heads) -> torch.Tensor:
        """Summed cross-entropy over softmaxes, each at its share of the targets."""
        transform, total = model.cls.predictions.transform, 0.0
        everywhere = None if self.gathered else transform(hidden)
        for chosen, head in heads:
            rows, slots = torch.nonzero(chosen & (view["targets"] >= 0), as_tuple=True)
            places, labels = view["positions"][rows, slots], view["targets"][rows, slots]
            if self.gathered:
                features = transform(hidden[rows, places])
            else:
                features, found = everywhere.flatten(0, 1), labels
                labels = torch.full_like(view["ids"], -100)
                labels[rows, places] = found
            total = total + cross_entropy(head(features).float(), labels.flatten(), ignore_index=-100, reduction="sum")
        return total

    def step(self, batch: dict) -> float:
        """One update; returns the sum of the two mean losses."""
        self.optimizer.zero_grad(set_to_none=True)
        counts = [(batch[role]["targets"] >= 0).sum() for role in ROLES]
        total = 0.0
        for part in micro_batches(batch):
            with autocast():
                loss = sum(value / count for value, count in zip(self.losses(part), counts, strict=True))
            loss.backward()
            total += loss.detach()
        for tree in self.trees:
            torch.nn.utils.clip_grad_norm_(tree, 1.0)
        self.optimizer.step()
        return float(total)


def read_batch() -> dict:
    """The batch that the parent wrote."""
    batch: dict = {"student": {}, "teacher": {}}
    with np.load(pathlib.Path(SETTINGS["folder"], "batch.npz")) as stored:
        for name in stored:
            role, field = name.split("/")
            x = torch.from_numpy(stored[name]).to(DEVICE)
            batch[role][field] = x.long() if x.dtype == torch.int32 else x
    return batch


def matmul_rate() -> float:
    """FLOP/s of a large matrix product on a GPU in the type of the run; 0 elsewhere."""
    if DEVICE == "cpu":
        return 0.0
    size = 8192
    x = torch.randn(size, size, device=DEVICE, dtype=getattr(torch, SETTINGS["dtype"]))
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        float((x @ x)[0, 0])
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds)


def micro_batches(batch: dict) -> Iterator[dict]:
    """Some rows of every view at a time."""
    size = SETTINGS["micro_batch"] or SETTINGS["batch"]
    for start in range(0, SETTINGS["batch"], size):
        yield {role: {name: x[start : start + size] for name, x in view.items()} for role, view in batch.items()}


def autocast() -> torch.autocast:
    return torch.autocast(DEVICE, torch.bfloat16, enabled=SETTINGS["dtype"] == "bfloat16")


def serve(make: Callable[[], Any]) -> None:
    """Makes a job, and takes a `step(batch)` of it for every line read."""
    torch.set_num_threads(SETTINGS["threads"])
    torch.manual_seed(0)
    job, batch = make(), read_batch()
    print(json.dumps({"compile": 0.0, "matmul": matmul_rate()}), flush=True)
    for _ in sys.stdin:
        began, cpu = time.perf_counter(), time.process_time()
        loss = job.step(batch)
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if DEVICE == "cuda":
            peak = torch.cuda.max_memory_allocated()
        print(json.dumps({"seconds": seconds, "cpu": cpu, "loss": loss, "peak": peak}), flush=True)


if __name__ == "__main__":
    serve(Job)
