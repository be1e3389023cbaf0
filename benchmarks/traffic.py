"""What a training step sends between devices, counted in the compiled program, beside the least possible.

    python benchmarks/traffic.py --devices 32 --fsdp 1 8 --corpus CORPUS --vocabulary VOCAB --teacher BERT -- --batch 64

Every method is compiled for emulated devices and never run; knobs after `--` go to all of them. Collectives in a loop
count as often as the loop runs; an all-reduce of B bytes over n devices sends 2 B (n - 1) / n from each, a gather or a
scatter half of that.
"""

import argparse
import os
import sys

METHODS = {
    "extreme": [["--variant", variant] for variant in ("nokd", "dual", "down", "up")],
    "extreme_plus": [["--variant", "up"]],
    "cross_vocabulary": [[]],
    "mixed_vocab": [["--stage", "1"]],
    "distilbert": [[]],
    "tinybert_general": [[]],
}
WITHOUT = {"distilbert": ("vocabulary",), "tinybert_general": ("vocabulary",)}
"""What a config has no knob for."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=32)
    parser.add_argument("--fsdp", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    for name in ("corpus", "vocabulary", "teacher"):
        parser.add_argument(f"--{name}", required=True)
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:at])
    options.knobs = sys.argv[at + 1 :]
    return options


def main() -> None:
    options = arguments()
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={options.devices}"

    from jaxdistill import sharding, traffic
    from jaxdistill.collectives import collectives, wire_bytes
    from jaxdistill.inputs import open_inputs
    from jaxdistill.program import batch_shapes, compile_step, experiment_of

    kinds = ("all-reduce", "all-gather", "reduce-scatter")
    print("MB that each device sends in a step\n")
    print(f"| method | data x fsdp | {' | '.join(kinds)} | all | least | in loops |")
    print("|---|---|" + "---|" * (len(kinds) + 3))
    for method in options.methods:
        for own in METHODS[method]:
            given = {name: getattr(options, name) for name in ("corpus", "vocabulary", "teacher")}
            places = [f"--{name}={value}" for name, value in given.items() if name not in WITHOUT.get(method, ())]
            experiment = experiment_of([method, *places, *own, *options.knobs])
            batch = batch_shapes(experiment, open_inputs(experiment.data))
            for fsdp in options.fsdp:
                mesh = sharding.make_mesh(fsdp, options.devices)
                found = collectives(compile_step(experiment, mesh, batch).as_text(), mesh.size)
                sent = wire_bytes(found)
                looped = sum(one.times * one.wire for one in found if one.times > 1)
                cells = [sent.get(kind, 0.0) for kind in kinds]
                cells += [sum(sent.values()), traffic.least_bytes(experiment, mesh.shape)["total"], looped]
                shape = f"{options.devices // fsdp} x {fsdp}"
                print(
                    f"| {experiment.name} | {shape} | {' | '.join(f'{cell / 1e6:.3f}' for cell in cells)} |", flush=True
                )


if __name__ == "__main__":
    main()
