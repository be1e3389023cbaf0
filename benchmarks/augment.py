"""Candidates for the words of a task's texts: our augmentation beside PyTorch doing the same, in masked words a second.

    python benchmarks/augment.py MODEL --task sst2 --source GLUE --examples 200

Every word of one piece that is no stop-word is masked in a row of its own, beside the text as it is, and its 15
likeliest pieces are taken. *one by one* is `transformers`' BertForMaskedLM on one row at a time, scored at all places,
as TinyBERT's released code does it; *N pieces* the same model on rows of like length, so many pieces at a time, scored
at the masked position only. All take turns; the last column is the share of words whose 15 pieces are ours.
"""

import argparse
import pathlib
import statistics
import tempfile
from collections.abc import Callable

import numpy as np
import torch
import transformers

from jaxdistill import speed
from jaxdistill.augment import find_places, likely_pieces, offered
from jaxdistill.export import read_model
from jaxdistill.task_inputs import read_examples, sample

COUNT = 15
BATCHES = {"one by one": 1, "256 pieces": 256, "1,024 pieces": 1024, "4,096 pieces": 4096}
"""Of PyTorch, by name: pieces at a time."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a BERT with its masked-LM head: a folder or hub id")
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--source", default="", help="the folder with the task's files; empty takes them from the hub")
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="of PyTorch; 0 takes its own default")
    return parser.parse_args()


def theirs(source: str, vocabulary, places, words: np.ndarray, batch: int) -> Callable[[], np.ndarray]:
    """A call for the likeliest pieces, [words, COUNT]; a batch of 1 is a row, scored at all positions."""
    model = transformers.BertForMaskedLM.from_pretrained(source, dtype=torch.float32).eval()
    barred = torch.from_numpy(~offered(vocabulary, model.config.vocab_size))
    pairs = []
    for place in words:
        pieces, at = list(places.pieces[places.text[place]]), places.piece[place]
        masked = [*pieces[:at], vocabulary.mask, *pieces[at + 1 :]]
        ids = [vocabulary.cls, *masked, vocabulary.sep, *pieces, vocabulary.sep]
        pairs.append((ids[: model.config.max_position_embeddings], len(pieces) + 2, at + 1))
    order = sorted(range(len(pairs)), key=lambda row: len(pairs[row][0])) if batch > 1 else range(len(pairs))

    @torch.inference_mode()
    def read(rows: list[int]) -> np.ndarray:
        longest = max(len(pairs[row][0]) for row in rows)
        ids = torch.full((len(rows), longest), vocabulary.pad)
        types, mask = torch.zeros_like(ids), torch.zeros_like(ids)
        for number, row in enumerate(rows):
            pieces, second, _ = pairs[row]
            ids[number, : len(pieces)] = torch.tensor(pieces)
            types[number, second : len(pieces)], mask[number, : len(pieces)] = 1, 1
        at = torch.tensor([pairs[row][2] for row in rows])
        given = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
        if batch == 1:
            scores = model(**given).logits[:, at[0]]
        else:
            scores = model.cls(model.bert(**given).last_hidden_state[torch.arange(len(rows)), at])
        scores[:, barred] = -torch.inf
        return scores.topk(COUNT).indices.numpy()

    def call() -> np.ndarray:
        found, rows = np.empty((len(pairs), COUNT), np.int64), []
        for row in order:
            if rows and (len(rows) + 1) * len(pairs[row][0]) > batch:
                found[rows], rows = read(rows), []
            rows.append(row)
        found[rows] = read(rows)
        return found

    return call


def main() -> None:
    options = arguments()
    if options.threads:
        torch.set_num_threads(options.threads)
    model = read_model(options.model)
    examples = sample(read_examples(options.task, "train", options.source), options.examples)
    texts = list(dict.fromkeys((*examples.first, *(examples.second or ()))))
    places = find_places(model.vocabulary, texts)
    words = np.flatnonzero(places.piece >= 0)
    found = {}

    def ours() -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            return likely_pieces(model, places, COUNT, pathlib.Path(folder), progress=False)[words]

    sides = {"jaxdistill": ours}
    sides |= {name: theirs(options.model, model.vocabulary, places, words, batch) for name, batch in BATCHES.items()}
    calls = {name: lambda name=name, call=call: found.update({name: call()}) for name, call in sides.items()}
    taken = speed.turns(calls, options.rounds)
    print(f"{len(texts)} texts, {len(words):,} words, {options.rounds} rounds; medians\n")
    print("| contestant | s | words/s | ours is | the same pieces |\n|---|---:|---:|---:|---:|")
    base = statistics.median(taken["jaxdistill"])
    for name, seconds in taken.items():
        middle = statistics.median(seconds)
        same = np.mean((np.sort(found[name], 1) == np.sort(found["jaxdistill"], 1)).all(1))
        print(f"| {name} | {middle:.2f} | {len(words) / middle:,.0f} | {middle / base:.2f}x | {same:.1%} |")


if __name__ == "__main__":
    main()
