"""Students and their teachers on tasks: chains of runs over seeds, and a table with intervals and retention.

A contestant is `NAME: CONFIG KNOBS`, in the order in which they run; `{seed}` is the seed, and `{NAME}` the export of
an earlier contestant on the same task with the same seed, so a stage that has no score of its own is one too:

    python benchmarks/students.py --task mrpc --source GLUE --seeds 0 1 2 --out FILE --workdir RUNS \
        "teacher: finetune --model MINILM" \
        "inside: tinybert_task --stage 1 --teacher {teacher} --student GENERAL" \
        "tinybert: tinybert_task --stage 2 --teacher {teacher} --student {inside}" -- --batch 32

Knobs after `--` go to all. Every finished run adds a line to FILE, which may hold several tasks; run again, it goes on
with what is missing. `--report` prints the tables: scores on the dev split, what is left of the teacher's, and paired
differences to `--base`.
"""

import argparse
import pathlib
import shlex
import shutil
import sys
import time
from collections.abc import Iterable

import numpy as np
import runs
from lines import add_line, finished

from jaxdistill.bert import parameter_count
from jaxdistill.export import export
from jaxdistill.tasks.scores import summary
from jaxdistill.train import train


def run_one(name: str, command: str, seed: int, options: argparse.Namespace) -> dict:
    """Trains one contestant, exports its student, and says what it scored."""
    folder = options.workdir / options.task
    exports = {path.name.rpartition("-")[0]: str(path) for path in folder.glob(f"exports/*-{seed}")}
    try:
        config, *words = shlex.split(command.format(seed=seed, **exports))
    except KeyError as error:
        sys.exit(f"{name}: no earlier contestant is called {error} and was exported in {folder}/exports")
    asked = [*words, *options.knobs, "--task", options.task, "--source", options.source, "--seed", str(seed)]
    experiment = runs.experiment(config, asked)
    workdir, began = folder / f"{name}-{seed}", time.perf_counter()
    programs = folder / "programs" / name
    result = train(experiment, workdir, notify=lambda line: print(line, file=sys.stderr), programs=programs)
    if not result.finished:
        sys.exit("stopped: run the same command again to continue")
    seconds = time.perf_counter() - began
    role = "student" if "student" in experiment.models else "model"
    export(workdir, folder / "exports" / f"{name}-{seed}", role=role, replace=True, notify=lambda line: None)
    shutil.rmtree(workdir)
    return {
        "task": options.task,
        "contestant": name,
        "command": command,
        "knobs": options.knobs,
        "seed": seed,
        "steps": experiment.steps,
        "parameters": parameter_count(experiment.models[role]),
        "scores": dict(result.scores.get(role, {})),
        "seconds": seconds,
    }


def percent(shares: Iterable[float]) -> str:
    """Mean and half-width of its 95 % t-interval, in percent."""
    about = summary([100 * share for share in shares])
    return f"{about['mean']:.1f}" + ("" if about["interval"] is None else f" ± {about['interval']:.1f}")


def overview(found: dict[str, dict[str, dict[int, dict]]], measures: dict[str, list[str]], teacher: str) -> None:
    """Prints the first measure of every task side by side, and the share of the teacher's, averaged over tasks."""
    names = dict.fromkeys(name for by in found.values() for name in by)
    headline = {
        task: {name: [record["scores"][measures[task][0]] for record in by.values()] for name, by in own.items()}
        for task, own in found.items()
    }
    heads = " | ".join(f"{task}, {measures[task][0]}" for task in found)
    print(f"\n| contestant | {heads} | of {teacher}'s |\n" + "|---" * (len(found) + 2) + "|")
    for name in names:
        cells = [percent(own[name]) if name in own else "" for own in headline.values()]
        kept = [np.mean(own[name]) / np.mean(own[teacher]) for own in headline.values() if {name, teacher} <= set(own)]
        print(f"| {name} | " + " | ".join(cells) + f" | {f'{np.mean(kept):.1%}' if kept else ''} |")


def report(records: list[dict], base: str, teacher: str) -> None:
    """Prints a table for each task, and one of all; stages without a score are left out."""
    scored = [record for record in records if record["scores"]]
    everything: dict[str, dict[str, dict[int, dict]]] = {}
    for record in scored:
        everything.setdefault(record["task"], {}).setdefault(record["contestant"], {})[record["seed"]] = record
    measures = {record["task"]: list(record["scores"]) for record in scored}
    for task, found in everything.items():
        heads = " | ".join([*measures[task], f"− {base}", f"of {teacher}'s", "minutes"])
        print(f"\n{task}\n\n| contestant | parameters | seeds | {heads} |\n" + "|---" * (len(measures[task]) + 6) + "|")
        headline = {
            name: {seed: r["scores"][measures[task][0]] for seed, r in by.items()} for name, by in found.items()
        }
        for name, by in found.items():
            cells = [percent(record["scores"][measure] for record in by.values()) for measure in measures[task]]
            paired = [100 * (headline[name][s] - headline[base][s]) for s in by if s in headline.get(base, ())]
            cells.append(runs.interval(paired, 1) if paired and name != base else "")
            means = {who: np.mean(list(headline[who].values())) for who in (name, teacher) if who in headline}
            cells.append(f"{means[name] / means[teacher]:.1%}" if len(means) == 2 else "")
            minutes = summary([record["seconds"] / 60 for record in by.values()])["median"]
            one = next(iter(by.values()))
            print(f"| {name} | {one['parameters']:,} | {len(by)} | " + " | ".join(cells) + f" | {minutes:.1f} |")
    if len(everything) > 1:
        overview(everything, measures, teacher)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contestants", nargs="*", metavar="NAME: CONFIG KNOBS")
    parser.add_argument("--task")
    parser.add_argument("--source", default="", help="the folder with the task's files; empty takes them from the hub")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", required=True, type=pathlib.Path, help="JSON lines, one for each finished run")
    parser.add_argument("--workdir", type=pathlib.Path, help="holds the exports, and runs until they are done")
    parser.add_argument("--base", default="plain", help="what the differences are to (default plain)")
    parser.add_argument("--teacher", default="teacher", help="what the retention is of (default teacher)")
    parser.add_argument("--report", action="store_true", help="print the tables of the finished runs, train nothing")
    own, shared = runs.split(sys.argv[1:])
    options = parser.parse_args(own)
    options.knobs = shared
    if not options.report:
        if not (options.task and options.workdir and options.contestants):
            parser.error("give contestants, --task and --workdir, or --report")
        asked = [[part.strip() for part in word.split(":", 1)] for word in options.contestants]
        for seed in options.seeds:
            for name, command in asked:
                done = [
                    record
                    for record in finished(options.out)
                    if (record["task"], record["contestant"], record["seed"]) == (options.task, name, seed)
                ]
                if any((record["command"], record["knobs"]) != (command, shared) for record in done):
                    sys.exit(f"{options.out} has {name!r} with another command: choose another --out or name")
                if not done:
                    record = run_one(name, command, seed, options)
                    add_line(options.out, record)
                    print(options.task, name, seed, {m: round(v, 4) for m, v in record["scores"].items()}, flush=True)
    if finished(options.out):
        report(finished(options.out), options.base, options.teacher)


if __name__ == "__main__":
    main()
