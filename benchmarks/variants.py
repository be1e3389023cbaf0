"""Variants of a config against each other: same steps and windows, paired seeds, intervals of the paired differences.

A contestant is `NAME` or `NAME:knob=value,knob=value`, where `{seed}` is its seed; knobs after `--` go to all of
them. The name is the value of the knob `variant` of a config that has one. Every finished run adds one line to the
JSONL file: scores of what it trained on every held-out corpus, the time that its steps took (compiling not counted),
and what the mechanism did. Run again, it continues with what is missing; `--report` prints the tables.

    python benchmarks/variants.py nokd dual up:projection=W nokd:steps=S --seeds 0 1 2 --out FILE --workdir RUNS \
        --teacher-vocabulary TEACHER --held-out NAME=CORPUS ... -- --corpus CORPUS --vocabulary VOCAB --teacher TEACHER
"""

import argparse
import dataclasses
import inspect
import pathlib
import re
import shutil
import sys

import numpy as np
import runs
from lines import add_line, finished

from jaxdistill import knobs
from jaxdistill.bert import parameter_count
from jaxdistill.data.masking import Masking
from jaxdistill.data.vocab import read_vocabulary
from jaxdistill.evaluate import score
from jaxdistill.export import read_model
from jaxdistill.inputs import read_inputs
from jaxdistill.metrics import read_lines
from jaxdistill.train import train

MEASURES = ("piece_accuracy", "word_accuracy", "word_nats")


def contestant_arguments(contestant: str, seed: int, shared: list[str], variants: bool) -> list[str]:
    name, _, settings = contestant.partition(":")
    own = [f"--{setting.replace('{seed}', str(seed))}" for setting in settings.split(",") if setting]
    return [*shared, *(["--variant", name] if variants else []), *own, "--seed", str(seed)]


def run_one(contestant: str, seed: int, options: argparse.Namespace) -> dict:
    variants = "variant" in inspect.signature(knobs.load(options.config)).parameters
    arguments = contestant_arguments(contestant, seed, options.knobs, variants)
    experiment = runs.experiment(options.config, arguments)
    workdir = pathlib.Path(options.workdir) / f"{re.sub('[:,/]', '_', contestant)}-{seed}"
    if not train(experiment, workdir, notify=lambda line: print(line, file=sys.stderr)).finished:
        sys.exit("stopped: run the same command again to continue")
    lines = read_lines(workdir / "metrics.jsonl")
    rates = [(line["step"], line["positions_per_second"]) for line in lines if "positions_per_second" in line]
    done = np.diff([0] + [step for step, _ in rates]) * experiment.data.batch * experiment.data.length
    seconds = float(sum(positions / rate for positions, (_, rate) in zip(done, rates, strict=True)))
    kept = ("explained/", "size/", "norm/", "kernel_gradient", "student_mlm", "teacher_mlm")
    record = {
        "contestant": contestant,
        "seed": seed,
        "steps": experiment.steps,
        "batch": experiment.data.batch,
        "length": experiment.data.length,
        "parameters": {role: parameter_count(shape) for role, shape in experiment.models.items()},
        "knobs": options.knobs,
        "seconds": seconds,
        "last": {
            name: value for line in lines[-5:] for name, value in line.items() if any(part in name for part in kept)
        },
        "scores": {},
    }
    trained = {experiment.reader(view) for view in experiment.data.views if experiment.trains_reader(view)}
    judged = "student" if "student" in trained else min(trained)
    models = {"student" if role == judged else role: read_model(workdir, role) for role in sorted(trained)}
    if "teacher" in models:
        models["teacher before"] = read_model(experiment.start["teacher"].source)
    for name, corpus in options.held_out.items():
        vocabularies = {"student": models["student"].vocabulary, "teacher": options.teacher_vocabulary}
        inputs = read_inputs(corpus, vocabularies, experiment.data.length)
        held_out = inputs.held_out(Masking(predictions=experiment.data.masking.predictions), rows=options.rows)
        scores = score(models, held_out, progress=False)
        record["scores"][name] = {role: dataclasses.asdict(value) for role, value in scores.items()}
    if not options.keep:
        shutil.rmtree(workdir)
    return record


def report(records: list[dict], base: str) -> None:
    contestants = list(dict.fromkeys(record["contestant"] for record in records))
    by = {(record["contestant"], record["seed"]): record for record in records}
    for corpus in records[0]["scores"]:
        print(f"\n{corpus}, the student\n")
        header = " | ".join(f"{measure} | − {base}" for measure in MEASURES)
        print(f"| contestant | seeds | {header} | minutes |")
        print("|---|---|" + "---|---|" * len(MEASURES) + "---|")
        for contestant in contestants:
            seeds = sorted(seed for name, seed in by if name == contestant)
            cells = []
            for measure in MEASURES:
                own = {seed: by[contestant, seed]["scores"][corpus]["student"][measure] for seed in seeds}
                paired = [
                    value - by[base, seed]["scores"][corpus]["student"][measure]
                    for seed, value in own.items()
                    if (base, seed) in by
                ]
                cells += [f"{np.mean(list(own.values())):.4f}"]
                cells += ["" if contestant == base or not paired else runs.interval(paired)]
            minutes = np.mean([by[contestant, seed]["seconds"] for seed in seeds]) / 60
            print(f"| {contestant} | {len(seeds)} | " + " | ".join(cells) + f" | {minutes:.1f} |")


def report_mechanism(records: list[dict]) -> None:
    """What the terms pulled and explained at the last step, and the teacher before and after; means over the seeds."""
    print("\n| contestant | what | mean | from | to |\n|---|---|---|---|---|")
    for contestant in dict.fromkeys(record["contestant"] for record in records):
        found: dict[str, list[float]] = {}
        for record in (record for record in records if record["contestant"] == contestant):
            for name, value in record["last"].items():
                if name.startswith("kernel_gradient/") or "/explained/" in name or "/size/" in name:
                    found.setdefault(name, []).append(value)
            for corpus, scores in record["scores"].items():
                for role in ("teacher before", "teacher"):
                    if role in scores:
                        found.setdefault(f"{role}, {corpus}", []).append(scores[role]["piece_accuracy"])
        for name, values in found.items():
            print(f"| {contestant} | {name} | {np.mean(values):.4g} | {min(values):.4g} | {max(values):.4g} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contestants", nargs="*", help="NAME or NAME:knob=value,...")
    parser.add_argument("--config", default="extreme", help="config name or path (default extreme)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", required=True, type=pathlib.Path, help="JSON lines, one for each finished run")
    parser.add_argument("--workdir", help="where the runs live until they are scored")
    parser.add_argument("--held-out", nargs="+", default=[], metavar="NAME=CORPUS", help="corpora to score on")
    parser.add_argument(
        "--teacher-vocabulary",
        required="--report" not in sys.argv,
        help="keeps the held-out windows the same when there is no teacher",
    )
    parser.add_argument("--rows", type=int, default=2000, help="held-out windows to score (default 2000, 0 = all)")
    parser.add_argument("--base", default="nokd", help="what the differences are to (default nokd)")
    parser.add_argument("--keep", action="store_true", help="keep the workdirs of scored runs")
    parser.add_argument("--report", action="store_true", help="print the tables of the finished runs, train nothing")
    own, shared = runs.split(sys.argv[1:])
    options = parser.parse_args(own)
    options.knobs = shared
    if not options.report:
        options.teacher_vocabulary = read_vocabulary(options.teacher_vocabulary)
        options.held_out = dict(pair.split("=", 1) for pair in options.held_out)
        records = finished(options.out)
        if any(record["knobs"] != options.knobs for record in records):
            sys.exit(f"{options.out} holds runs of other knobs: choose another --out")
        done = {(record["contestant"], record["seed"]) for record in records}
        for seed in options.seeds:
            for contestant in options.contestants:
                if (contestant, seed) not in done:
                    record = run_one(contestant, seed, options)
                    add_line(options.out, record)
                    print(
                        contestant,
                        seed,
                        {c: round(s["student"]["piece_accuracy"], 4) for c, s in record["scores"].items()},
                    )
    records = finished(options.out)
    if not records:
        sys.exit(f"{options.out} holds no finished run yet")
    report(records, options.base)
    report_mechanism(records)


if __name__ == "__main__":
    main()
