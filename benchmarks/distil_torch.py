"""PyTorch's side of `distil.py`: one process that runs the same step with `transformers`' models.

Two ways to write it: `all logits` takes those of all positions from both models and selects the real ones, as
DistilBERT's own code does; `chunked` takes real positions only and goes through the head, forward and backward, for
some of them at a time: few logits exist at once, and none is computed twice; on a GPU its encoders are compiled.
"""

import pathlib

import torch
import transformers
from step_torch import DEVICE, SETTINGS, autocast, micro_batches, serve
from torch.nn.functional import cosine_embedding_loss, cross_entropy, kl_div, log_softmax, softmax

TEMPERATURE = 2.0
WEIGHTS = {"ce": 5.0, "mlm": 2.0, "cos": 1.0}
CLIP = 5.0


def load(kind: type, role: str) -> torch.nn.Module:
    folder = pathlib.Path(SETTINGS["folder"], role)
    return kind.from_pretrained(folder, attn_implementation=SETTINGS["attention"]).to(DEVICE)


def head_loss(scores, target, labels, counts) -> torch.Tensor:
    """Weighted soft-target and masked-LM losses of logits [positions, vocab] over the counts of the whole batch."""
    scores, target = scores.float(), target.float()
    logs, chances = log_softmax(scores / TEMPERATURE, -1), softmax(target / TEMPERATURE, -1)
    soft = kl_div(logs, chances, reduction="sum") * TEMPERATURE**2 / counts["real"]
    hard = cross_entropy(scores, labels, ignore_index=-100, reduction="sum") / counts["masked"]
    return WEIGHTS["ce"] * soft + WEIGHTS["mlm"] * hard


def state_loss(states, target, counts) -> torch.Tensor:
    """Weighted cosine loss of last hidden states [positions, hidden]."""
    alike = torch.ones(len(states), device=DEVICE)
    total = cosine_embedding_loss(states.float(), target.float(), alike, reduction="sum")
    return WEIGHTS["cos"] * total / counts["real"]


class Job:
    """Teacher, student and optimizer."""

    def __init__(self):
        self.teacher = load(transformers.BertForMaskedLM, "teacher").eval().requires_grad_(False)
        self.student = load(transformers.DistilBertForMaskedLM, "student").train()
        self.student.distilbert.embeddings.position_embeddings.requires_grad_(False)
        self.trained = [leaf for leaf in self.student.parameters() if leaf.requires_grad]
        self.read = {"teacher": self.teacher.bert, "student": self.student.distilbert}
        if SETTINGS["contestant"] == "chunked" and DEVICE == "cuda":
            self.read = {role: torch.compile(encoder) for role, encoder in self.read.items()}
        self.backward = self.chunked if SETTINGS["contestant"] == "chunked" else self.all_logits
        self.optimizer = torch.optim.AdamW(
            self.trained,
            lr=SETTINGS["learning_rate"],
            betas=(0.9, 0.98),
            eps=1e-6,
            weight_decay=0.0,
            fused=SETTINGS["contestant"] == "chunked",
        )

    def all_logits(self, given, mask, labels, counts) -> torch.Tensor:
        """Adds a micro-batch's gradients; returns its loss."""
        with autocast():
            with torch.no_grad():
                teacher = self.teacher(**given, output_hidden_states=True)
            student = self.student(**given, output_hidden_states=True)
            loss = head_loss(student.logits[mask], teacher.logits[mask], labels[mask], counts)
            loss = loss + state_loss(student.hidden_states[-1][mask], teacher.hidden_states[-1][mask], counts)
        loss.backward()
        return loss.detach()

    def chunked(self, given, mask, labels, counts) -> torch.Tensor:
        """Adds a micro-batch's gradients; returns its loss."""
        teacher, student = self.teacher.cls.predictions, self.student
        with autocast():
            with torch.no_grad():
                target = self.read["teacher"](**given).last_hidden_state[mask]
                wanted = teacher.transform(target)
            states = self.read["student"](**given).last_hidden_state[mask]
            features = student.vocab_layer_norm(student.activation(student.vocab_transform(states)))
            near = state_loss(states, target, counts)
        total, leaf = near.detach(), features.detach().requires_grad_()
        for vectors, others, known in zip(
            *(x.split(SETTINGS["chunk"]) for x in (leaf, wanted, labels[mask])), strict=True
        ):
            with autocast():
                with torch.no_grad():
                    scores = teacher.decoder(others)
                loss = head_loss(student.vocab_projector(vectors), scores, known, counts)
            loss.backward()
            total += loss.detach()
        torch.autograd.backward([features, near], [leaf.grad, None])
        return total

    def step(self, batch: dict) -> float:
        """One update; returns the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        view, total = batch["student"], 0.0
        counts = {"real": view["mask"].sum(), "masked": (view["targets"] >= 0).sum()}
        for part in micro_batches(batch):
            view = part["student"]
            labels, masked = torch.full_like(view["ids"], -100), view["targets"] >= 0
            labels[masked.nonzero()[:, 0], view["positions"][masked]] = view["targets"][masked]
            given = {"input_ids": view["ids"], "attention_mask": view["mask"]}
            total += self.backward(given, view["mask"], labels, counts)
        torch.nn.utils.clip_grad_norm_(self.trained, CLIP)
        self.optimizer.step()
        return float(total)


if __name__ == "__main__":
    serve(Job)
