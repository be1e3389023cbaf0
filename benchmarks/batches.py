"""Batches beside the ordinary Hugging Face route, in one run, alternating, one thread each.

    python benchmarks/batches.py CORPUS --teacher FOLDER_OR_VOCAB --student FOLDER_OR_VOCAB

The Hugging Face routes start from the text of the same windows (`tokenizer` + `DataCollatorForLanguageModeling`), or
from ids cut beforehand (the collator alone). They have one vocabulary per view: the second view is the teacher's own
cut, where ours mixes vocabularies word by word. Speed is in the student's real positions, paddings not counted, per
second of CPU time.
"""

import argparse
import os
import statistics
import tempfile
import time

os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}

import numpy as np
import torch
import transformers

from jaxdistill.data.batches import Batches
from jaxdistill.data.corpus import open_corpus
from jaxdistill.data.masking import Masking
from jaxdistill.data.views import View
from jaxdistill.data.vocab import cut, read_vocabulary, write_tokenizer
from jaxdistill.data.windows import build_windows, fit_tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--student", required=True)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)

    corpus = open_corpus(options.corpus)
    vocabularies = {"teacher": read_vocabulary(options.teacher), "student": read_vocabulary(options.student)}
    tables = timed("tables", lambda: {name: cut(v, corpus.lexicon.words) for name, v in vocabularies.items()})
    tables = fit_tables(vocabularies, tables, options.length)
    windows = timed("windows", lambda: build_windows(corpus.words, corpus.documents, tables, options.length))
    for name in vocabularies:
        print(f"{name}: {windows.tokens(name):,} tokens an epoch, {windows.padding(name):.2%} padding")

    def batches(*roles: str, **masking) -> Batches:
        views = {"student": View("student"), "teacher": View("teacher", "student")}
        chosen = {role: views[role] for role in roles}
        return Batches(corpus.words, windows, vocabularies, tables, chosen, options.batch, Masking(**masking), seed=0)

    both = batches("student", "teacher")
    tokenizers = {name: load(vocabulary, options.length) for name, vocabulary in vocabularies.items()}
    collators = {name: collator(tokenizer) for name, tokenizer in tokenizers.items()}
    texts = [texts_of(both, corpus.lexicon.words, step) for step in range(options.rounds)]
    ready = {
        name: [tokenizer(lines, truncation=True, max_length=options.length)["input_ids"] for lines in texts]
        for name, tokenizer in tokenizers.items()
    }

    def from_text(*names):
        def route(step):
            for name in names:
                ids = tokenizers[name](texts[step], truncation=True, max_length=options.length)["input_ids"]
                collators[name]([{"input_ids": row} for row in ids])

        return route

    def from_ids(*names):
        def route(step):
            for name in names:
                collators[name]([{"input_ids": row} for row in ready[name][step]])

        return route

    routes = {
        "ours, student": batches("student"),
        "ours, student + mixed teacher": both,
        "ours, student + mixed teacher, whole words": batches("student", "teacher", whole_words=True),
        "Hugging Face from text, student": from_text("student"),
        "Hugging Face from text, student + teacher": from_text("student", "teacher"),
        "Hugging Face from ids, student": from_ids("student"),
        "Hugging Face from ids, student + teacher": from_ids("student", "teacher"),
    }
    seconds = {name: [] for name in routes}
    for step in range(-1, options.rounds):
        for name, route in routes.items():
            began = time.process_time()
            route(max(step, 0))
            if step >= 0:  # The first round warms up.
                seconds[name].append(time.process_time() - began)
    tokens = np.mean([both(step)["student"]["mask"].sum() for step in range(options.rounds)])
    ours = statistics.median(seconds["ours, student + mixed teacher"])
    print(
        f"batch {options.batch} x {options.length}, {tokens:,.0f} real student tokens, {options.rounds} rounds, median"
    )
    print(f"| {'route':44} | ms/batch | M tokens/s | ours, both views, is |")
    print(f"|{'-' * 46}|---------:|-----------:|---------------------:|")
    for name, values in seconds.items():
        middle = statistics.median(values)
        print(f"| {name:44} | {middle * 1e3:8.2f} | {tokens / middle / 1e6:10.2f} | {middle / ours:18.1f}x |")


def timed(what, make):
    began = time.process_time()
    result = make()
    print(f"{what}: {time.process_time() - began:.1f} s")
    return result


def load(vocabulary, length):
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(vocabulary, folder, length)
        return transformers.AutoTokenizer.from_pretrained(folder)


def collator(tokenizer):
    return transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15, return_tensors="pt")


def texts_of(batches, words, step):
    """The text of a batch's windows, its words separated by blanks."""
    chosen = batches.order(np.arange(step * batches.batch, (step + 1) * batches.batch))
    spans = zip(batches.windows.start[chosen].tolist(), batches.windows.stop[chosen].tolist(), strict=True)
    return [" ".join(words[word] for word in batches.words[start:stop].tolist()) for start, stop in spans]


if __name__ == "__main__":
    main()
