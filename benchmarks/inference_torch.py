"""PyTorch's side of `inference.py`: one process that runs `transformers`' BertForMaskedLM."""

import json
import resource
import sys
import time

import numpy as np
import torch
import transformers

SETTINGS = json.loads(sys.argv[1])


def main() -> None:
    torch.set_num_threads(SETTINGS["threads"])
    shape = SETTINGS["shape"]
    config = transformers.BertConfig(
        vocab_size=shape["vocab"],
        hidden_size=shape["hidden"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        intermediate_size=shape["ffn"],
        max_position_embeddings=shape["positions"],
    )
    model = transformers.BertForMaskedLM(config).eval()

    @torch.inference_mode()
    def once(rows: int) -> float:
        ids = np.random.default_rng(0).integers(5, config.vocab_size, (rows, SETTINGS["length"]))
        began = time.perf_counter()
        ids = torch.from_numpy(ids)
        hidden = model.bert(input_ids=ids, attention_mask=ids > 0).last_hidden_state
        model.cls(hidden[:, :1])
        return time.perf_counter() - began

    print(json.dumps({"parameters": sum(leaf.numel() for leaf in model.parameters())}), flush=True)
    for line in sys.stdin:
        rows, times = map(int, line.split())
        seconds = [once(rows) for _ in range(times)]
        print(
            json.dumps({"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}),
            flush=True,
        )


if __name__ == "__main__":
    main()
