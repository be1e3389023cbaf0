"""Our logits beside torch's on a real model: both in float32, and how far each is from torch in float64.

    python benchmarks/parity.py FOLDER --corpus HELD_OUT

Every real position of some held-out windows is scored against the whole vocabulary, without dropout. Fails where ours
are further from torch's than 5e-6 of the largest logit, or from float64 than three times torch's own distance.
"""

import argparse
import sys

import jax
import numpy as np
import torch
import transformers

from jaxdistill import bert
from jaxdistill.data.masking import Masking
from jaxdistill.hf import read_hf
from jaxdistill.inputs import read_inputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a BERT in Hugging Face format")
    parser.add_argument("--corpus", required=True, help="a corpus that `jaxdistill prepare` made")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--length", type=int, default=128)
    options = parser.parse_args()

    model = read_hf(options.folder, fresh_heads=False)
    inputs = read_inputs(options.corpus, {"model": model.vocabulary}, options.length)
    view = inputs.held_out(Masking(), rows=options.rows).pieces("model", 0, options.rows)
    real = view["mask"]

    peer = transformers.BertForMaskedLM.from_pretrained(options.folder, dtype=torch.float32).eval()
    ids, mask = (torch.from_numpy(view[name].astype(np.int64)) for name in ("ids", "mask"))
    with torch.no_grad():
        torch32 = peer(input_ids=ids, attention_mask=mask).logits.numpy()[real].astype(np.float64)
        torch64 = peer.double()(input_ids=ids, attention_mask=mask).logits.numpy()[real]

    @jax.jit
    def forward(params, ids, mask):
        places = np.broadcast_to(np.arange(options.length), ids.shape)
        return bert.predict(model.config, params, ids, mask, places)

    ours = np.asarray(forward(model.params, view["ids"], view["mask"]))[real].astype(np.float64)
    largest = np.abs(torch64).max()
    print(f"{len(ours):,} positions x {ours.shape[1]:,} pieces; the largest logit is {largest:.2f}")
    found = {}
    for name, left, right in (
        ("ours - torch", ours, torch32),
        ("ours - torch float64", ours, torch64),
        ("torch - torch float64", torch32, torch64),
    ):
        found[name] = np.abs(left - right).max() / largest
        print(f"{name:24} at most {found[name] * largest:.2e}, {found[name]:.2e} of the largest logit")
    if found["ours - torch"] > 5e-6 or found["ours - torch float64"] > 3 * found["torch - torch float64"]:
        sys.exit("too far: see what `--help` says")


if __name__ == "__main__":
    main()
