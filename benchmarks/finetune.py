"""Fine-tuning beside the same in PyTorch: dev scores over seeds, and seconds.

    python benchmarks/finetune.py MODEL --task mrpc --source GLUE --seeds 3 --out FILE

The job is configs/finetune.py. Theirs is `transformers`' model of the same folder with a new head, on the very same
batches: AdamW with decay on all but biases and LayerNorm, a rate that rises and falls alike, clipping at 1, dropout as
the config says. Heads start at random and dropout is drawn by each in its own way, so scores agree over seeds only. The
two take turns; each finished run adds a line to FILE; run again, it continues; at the end it prints both.
"""

import argparse
import pathlib
import tempfile
import time
from collections.abc import Iterator

import numpy as np
import torch
import transformers
from lines import add_line, finished

from configs import finetune
from jaxdistill.experiment import Experiment
from jaxdistill.optim import schedule
from jaxdistill.task_inputs import read_task_inputs
from jaxdistill.tasks.scores import score, summary
from jaxdistill.train import train

SIDES = ("jaxdistill", "transformers")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--task", default="mrpc")
    parser.add_argument("--source", default="")
    parser.add_argument("--examples", type=int, default=0, help="train on only so many; 0 takes all")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="JSON lines, one for each finished run")
    return parser.parse_args()


def experiment(options: argparse.Namespace, seed: int) -> Experiment:
    same = ("model", "task", "source", "examples", "length", "epochs", "learning_rate")
    return finetune.config(**{name: getattr(options, name) for name in same}, seed=seed)


def ours(job: Experiment) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        return dict(train(job, pathlib.Path(folder, "run"), notify=lambda line: None).scores["model"])


def theirs(job: Experiment) -> dict[str, float]:
    torch.manual_seed(job.seed)
    inputs, held_out = (read_task_inputs(job.data, split) for split in ("train", "dev"))
    task, rule, shape = inputs.task, job.optimizers["model"], job.models["model"]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        job.start["model"].source,
        num_labels=max(len(task.labels), 1),
        hidden_dropout_prob=shape.dropout,
        attention_probs_dropout_prob=shape.attention_dropout,
    ).float()
    decayed = {True: [], False: []}
    for name, value in model.named_parameters():
        decayed[not name.endswith("bias") and "LayerNorm" not in name].append(value)
    groups = [
        {"params": decayed[True], "weight_decay": rule.weight_decay},
        {"params": decayed[False], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(rule.b1, rule.b2), eps=rule.eps)
    rate, batches = schedule(rule, job.steps), inputs.batches(job.data, job.seed)
    model.train()
    for step in range(job.steps):
        view = batches(step)["model"]
        real = view["mask"][:, 0]
        view = {name: torch.from_numpy(value[real]) for name, value in view.items()}
        labels = view["classes"].long() if task.kind == "classes" else view["score"]
        model(**_given(view), labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), rule.clip)
        for group in optimizer.param_groups:
            group["lr"] = float(rate(step))
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    rows, said = held_out.rows["model"], []
    with torch.no_grad():
        for view in _in_order(rows, job.data.length, held_out.vocabularies["model"].pad):
            said.append(model(**_given(view)).logits.numpy())
    logits = np.concatenate(said)
    predicted = logits[:, 0] if task.kind == "score" else logits.argmax(-1)
    return score(task, held_out.examples.labels, predicted)


def _in_order(rows, length: int, pad: int) -> Iterator[dict]:
    for start in range(0, len(rows), 32):
        chosen = np.arange(start, min(start + 32, len(rows)))
        view = rows.lay_out(chosen, min(int(rows.lengths[chosen].max()), length), pad)
        yield {name: torch.from_numpy(value) for name, value in view.items()}


def _given(view: dict) -> dict:
    names = {"input_ids": "ids", "attention_mask": "mask", "token_type_ids": "types"}
    return {theirs: view[ours].long() for theirs, ours in names.items()}


def report(records: list[dict]) -> None:
    measures = list(records[0]["scores"])
    print("| | seeds | " + " | ".join(measures) + " | minutes |\n|---|---|" + "---|" * (len(measures) + 1))
    for side in SIDES:
        own = [record for record in records if record["side"] == side]
        cells = [summary([record["scores"][measure] for record in own]) for measure in measures]
        shown = [f"{c['mean']:.4f}" + ("" if c["interval"] is None else f" ± {c['interval']:.4f}") for c in cells]
        minutes = np.median([record["seconds"] for record in own]) / 60
        print(f"| {side} | {len(own)} | " + " | ".join(shown) + f" | {minutes:.1f} |")


def main() -> None:
    options = arguments()
    for seed in range(options.seeds):
        for side, run in zip(SIDES, (ours, theirs), strict=True):
            if not any((record["side"], record["seed"]) == (side, seed) for record in finished(options.out)):
                job, began = experiment(options, seed), time.perf_counter()
                scores = run(job)
                seconds = time.perf_counter() - began
                add_line(options.out, {"side": side, "seed": seed, "scores": scores, "seconds": seconds})
    report(finished(options.out))


if __name__ == "__main__":
    main()
