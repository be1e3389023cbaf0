"""Our side of `inference.py`: one process that runs a model of ours."""

import json
import resource
import sys
import time

import jax
import numpy as np

from jaxdistill import bert

SETTINGS = json.loads(sys.argv[1])


def main() -> None:
    config = bert.BertConfig(**SETTINGS["shape"])
    params = bert.init(config, jax.random.key(0))

    @jax.jit
    def run(params, ids, mask):
        return bert.predict(config, params, ids, mask, jax.numpy.zeros((ids.shape[0], 1), jax.numpy.int32))

    def once(rows: int) -> float:
        ids = np.random.default_rng(0).integers(5, config.vocab, (rows, SETTINGS["length"]), dtype=np.int32)
        began = time.perf_counter()
        jax.block_until_ready(run(params, ids, ids > 0))
        return time.perf_counter() - began

    print(json.dumps({"parameters": bert.parameter_count(config)}), flush=True)
    for line in sys.stdin:
        rows, times = map(int, line.split())
        seconds = [once(rows) for _ in range(times)]
        print(
            json.dumps({"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}),
            flush=True,
        )


if __name__ == "__main__":
    main()
