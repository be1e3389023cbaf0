"""Inference of the paper's students beside BERT_BASE: latency of one row, throughput, size; ours and PyTorch's.

    python benchmarks/inference.py

Rows are full; each contestant fills one [MASK] a row. Every model has a process of its own and they take their turns;
parameters are random, which changes no time. Size is that of the float32 weights, tied ones once, without pooler.
"""

import argparse
import json
import os
import pathlib
import statistics
import sys

from workers import Worker, use_cores

HERE = pathlib.Path(__file__).parent
SHAPES = {"student 48": (48, 4928, 128), "student 192": (192, 4928, 128), "BERT_BASE": (768, 30522, 512)}
SMOKE = {"layers": 2, "length": 16, "batch": 2, "rounds": 1, "calls": 2, "shapes": {"student 48": (48, 90, 16)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32, help="rows of a batch for the throughput")
    parser.add_argument("--calls", type=int, default=5, help="calls in a turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every contestant that count")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--smoke", action="store_true", help="a tiny model, a few calls")
    parser.add_argument("--json", help="write all measurements to this file")
    parser.set_defaults(**{"shapes": SHAPES} | (SMOKE if "--smoke" in sys.argv[1:] else {}))
    options = parser.parse_args()
    use_cores(options.threads)
    workers = {}
    for model, (hidden, vocab, positions) in options.shapes.items():
        shape = {"hidden": hidden, "vocab": vocab, "layers": options.layers, "heads": 12, "ffn": 4 * hidden}
        settings = {"shape": shape | {"positions": positions}, "threads": options.threads, "length": options.length}
        for framework in ("jax", "torch"):
            workers[model, framework] = Worker(HERE / f"inference_{framework}.py", json.dumps(settings))
    print(
        f"{options.threads} threads, rows of {options.length}, {options.rounds} x {options.calls} calls, load "
        f"{os.getloadavg()[0]:.1f}"
    )
    found: dict[tuple, dict] = {key: {**worker.started, "one": [], "many": []} for key, worker in workers.items()}
    for number in range(-1, options.rounds):
        for key, worker in workers.items():
            one, many = worker.ask(f"1 {options.calls}"), worker.ask(f"{options.batch} 1")
            found[key]["peak"] = many["peak"]
            if number >= 0:  # The first round compiles and warms up.
                found[key]["one"] += one["seconds"]
                found[key]["many"] += many["seconds"]
    for worker in workers.values():
        worker.close()
    print(
        f"| model       | with  | parameters  | MB    | ms, 1 row | min   | rows/s, {options.batch:3} rows | peak MB |"
    )
    print("|-------------|-------|------------:|------:|----------:|------:|-----------------:|--------:|")
    for (model, framework), result in found.items():
        one, many = statistics.median(result["one"]), statistics.median(result["many"])
        print(
            f"| {model:11} | {framework:5} | {result['parameters']:11,} | {result['parameters'] * 4 / 1e6:5.1f} "
            f"| {one * 1e3:9.2f} | {min(result['one']) * 1e3:5.2f} | {options.batch / many:16,.1f} "
            f"| {result['peak'] / 2**20:7,.0f} |"
        )
    if options.json:
        rows = [{"model": model, "with": framework} | result for (model, framework), result in found.items()]
        pathlib.Path(options.json).write_text(json.dumps({"options": vars(options), "found": rows}, indent=1))


if __name__ == "__main__":
    main()
