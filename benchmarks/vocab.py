"""Our WordPiece learner beside the trainers of `tokenizers`, in one run, one core each.

    python benchmarks/vocab.py CORPUS --held-out CORPUS --size 4928 [--teacher FOLDER_OR_VOCAB]

Everyone learns from the same normalised words and counts, and is measured by the same greedy cutting of the held-out
words as written. The trainers differ in what drives the choice:

    ours                 the number of pieces itself
    WordPiece            frequency: merges of the most frequent pair; with the alphabet limit that it has by default,
                         and with as many characters as ours
    Unigram              likelihood: pruning by EM, on the 50,000 most frequent words only (all of them take it tens of
                         minutes); its most probable pieces are added to our alphabet

The trainers of `tokenizers` are not deterministic: their last digits change from run to run. Seconds are CPU time.
"""

import argparse
import os
import time

os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from jaxdistill.data.corpus import open_corpus
from jaxdistill.data.trainers import repeated, singles, train_wordpiece
from jaxdistill.data.vocab import PREFIX, SPECIALS, Vocabulary, read_vocabulary
from jaxdistill.data.wordpiece import describe, learn_vocabulary, normalised

SPACE = "\u2581"
UNIGRAM_WORDS = 50_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus")
    parser.add_argument("--held-out", required=True)
    parser.add_argument("--size", type=int, default=4928)
    parser.add_argument("--teacher")
    parser.add_argument("--cased", action="store_true")
    options = parser.parse_args()
    lexicon, held_out = open_corpus(options.corpus).lexicon, open_corpus(options.held_out).lexicon
    teacher = read_vocabulary(options.teacher) if options.teacher else None
    lowercase = not options.cased
    print(f"{len(lexicon):,} words as written, {int(lexicon.counts.sum()):,} in the text")
    print(f"{'':34}{'CPU s':>8}{'alphabet':>10}{'pieces/word':>13}{'held out':>10}{'[UNK] %':>9}{'shared %':>10}")

    def row(name: str, vocabulary: Vocabulary, seconds: float) -> None:
        seen, unseen = describe(vocabulary, lexicon), describe(vocabulary, held_out, teacher)
        print(
            f"{name:34}{seconds:8.1f}{len(singles(vocabulary)):10}{seen['pieces_per_word']:13.4f}"
            f"{unseen['pieces_per_word']:10.4f}{100 * unseen['unk_rate']:9.3f}{100 * unseen.get('shared', 0):10.1f}",
            flush=True,
        )

    for coverage in (0.9995, 0.9997):
        ours, seconds = timed(learn_vocabulary, lexicon, options.size, lowercase=lowercase, coverage=coverage)
        row(f"ours, coverage {coverage}", ours, seconds)
        counts, alphabet = normalised(lexicon, ours), singles(ours)
        characters = len({piece[-1] for piece in alphabet})
        pieces, seconds = timed(train_wordpiece, counts, options.size, characters)
        row(f"WordPiece, {characters} characters", Vocabulary(pieces, lowercase), seconds)
        pieces, seconds = timed(unigram, counts, options.size, alphabet)
        row("Unigram, our alphabet", Vocabulary(pieces, lowercase), seconds)
    pieces, seconds = timed(train_wordpiece, counts, options.size, 1000)
    row("WordPiece, its default alphabet", Vocabulary(pieces, lowercase), seconds)
    if teacher is not None:
        row("(the teacher's)", teacher, 0)


def timed(call, *args, **kwargs):
    start = time.process_time()
    return call(*args, **kwargs), time.process_time() - start


def unigram(counts: dict[str, int], size: int, alphabet: list[str]) -> tuple[str, ...]:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.UnigramTrainer(
        vocab_size=size + len(alphabet), show_progress=False, special_tokens=["[UNK]"], unk_token="[UNK]"
    )
    frequent = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:UNIGRAM_WORDS])
    tokenizer.train_from_iterator(repeated(frequent, SPACE), trainer)
    ids = tokenizer.get_vocab()
    probable = [piece for piece in sorted(ids, key=ids.get) if piece not in (SPACE, "[UNK]")]
    marked = [piece.removeprefix(SPACE) if piece.startswith(SPACE) else PREFIX + piece for piece in probable]
    return tuple(dict.fromkeys([*SPECIALS, *alphabet, *marked]))[:size]


if __name__ == "__main__":
    main()
