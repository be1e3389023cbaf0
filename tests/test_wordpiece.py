import functools
import hashlib
import itertools
import os
import random
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from jaxdistill.data.lexicon import Lexicon
from jaxdistill.data.pieces import Candidates
from jaxdistill.data.vocab import SPECIALS, Vocabulary, cut, write_tokenizer
from jaxdistill.data.wordpiece import describe, learn_vocabulary, normalised
from jaxdistill.errors import UserError

STEMS = ["play", "work", "read", "walk", "talk", "see", "teach", "stop", "unit", "form", "act", "port", "sign", "mark"]
HEADS = ["", "re", "un", "over", "trans", "in"]
TAILS = ["", "s", "ed", "ing", "er", "ers", "ation", "able", "ably", "ment"]


def lexicon_of(counts: dict[str, int]) -> Lexicon:
    words = sorted({"": 0, **counts}, key=str.encode)
    return Lexicon(tuple(words), np.array([{"": 0, **counts}[word] for word in words], np.int64))


def english(seed: int = 0, rows: int = 500) -> Lexicon:
    """Made-up English: stems with heads and tails, with Zipf's counts."""
    draw = random.Random(seed).random
    words = [head + stem + tail for head, stem, tail in itertools.product(HEADS, STEMS, TAILS)]
    words = sorted(words, key=lambda word: (draw(), word))[:rows]
    return lexicon_of({word: 1 + 20_000 // (rank + 3) for rank, word in enumerate(words)})


def pieces_of(vocabulary: Vocabulary, lexicon: Lexicon) -> int:
    return int((cut(vocabulary, lexicon.words).lengths * lexicon.counts).sum())


def greedy(word: str, pieces: set[str]) -> list[str] | None:
    """WordPiece's cutting, as plainly as it can be written."""
    found, start = [], 0
    while start < len(word):
        prefix = "##" if start else ""
        end = next((end for end in range(len(word), start, -1) if prefix + word[start:end] in pieces), None)
        if end is None:
            return None
        found.append(prefix + word[start:end])
        start = end
    return found


def forms(counts: dict[str, int]) -> set[str]:
    return {form for word in counts for form in [word[0], *("##" + character for character in word[1:])]}


def substrings(counts: dict[str, int]) -> set[str]:
    return {
        ("##" if start else "") + word[start:end]
        for word in counts
        for start in range(len(word))
        for end in range(start + 2, len(word) + 1)
    }


def trained(counts: dict[str, int], size: int) -> Vocabulary:
    """The vocabulary of the `tokenizers` WordPiece trainer, from the same counts."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=list(SPECIALS), continuing_subword_prefix="##", show_progress=False
    )
    tokenizer.train_from_iterator((" ".join([word] * count) for word, count in counts.items()), trainer)
    ids = tokenizer.get_vocab()
    return Vocabulary(tuple(sorted(ids, key=ids.get)))


def test_by_hand():
    lexicon = lexicon_of({"ab": 10, "abc": 7, "cab": 3, "c": 1})
    # One more than the alphabet (a c ##a ##b ##c): "ab" saves 17, "abc" 14, "cab" 6, "##ab" 3.
    assert learn_vocabulary(lexicon, 11).pieces == (*SPECIALS, "ab", "##c", "c", "##a", "##b", "a")
    # Then "abc" saves 7 more, "cab" 6, "##ab" 3.
    assert set(learn_vocabulary(lexicon, 12).pieces) == {*SPECIALS, "ab", "abc", "##c", "c", "##a", "##b", "a"}


def test_ties_fall_to_the_smaller_code_points():
    lexicon = lexicon_of({word: 5 for word in ("zy", "xy", "yz", "yx")})
    assert "xy" in learn_vocabulary(lexicon, 5 + 6 + 1).pieces


@pytest.mark.parametrize("seed", range(8))
def test_near_the_best_of_all_choices(seed):
    """Against every choice there is, on a tiny lexicon; and no worse than the trainer of `tokenizers`."""
    draw = random.Random(seed).random
    stems = ["ab", "abc", "ca", "bca", "abab", "cc"]
    counts = Counter()
    for _ in range(9):
        counts[stems[int(draw() * 6)] + stems[int(draw() * 6)][: 1 + int(draw() * 3)]] += 1 + int(40 * draw() ** 3)
    alphabet, possible, free = forms(counts), sorted(substrings(counts)), 3
    lexicon, size = lexicon_of(counts), 5 + len(forms(counts)) + free
    own = {word: frozenset(substrings({word: 1})) for word in counts}

    @functools.cache
    def length(word, pieces):
        return len(greedy(word, alphabet | pieces))

    best = min(
        sum(count * length(word, own[word].intersection(more)) for word, count in counts.items())
        for more in itertools.combinations(possible, free)
    )
    ours = pieces_of(learn_vocabulary(lexicon, size), lexicon)
    assert best <= ours <= 1.08 * best
    assert ours <= pieces_of(trained(counts, size), lexicon)


@pytest.mark.parametrize("size", [60, 100, 200, 350])
def test_fewer_pieces_than_the_trainer(size):
    lexicon = english()
    counts = {word: int(count) for word, count in zip(lexicon.words, lexicon.counts, strict=True) if count}
    ours = learn_vocabulary(lexicon, size)
    assert ours.size == size == len(set(ours.pieces))
    assert pieces_of(ours, lexicon) <= pieces_of(trained(counts, size), lexicon)
    assert describe(ours, lexicon)["unk_rate"] == 0


def test_candidates_against_plain_loops():
    lexicon = english(rows=30)
    counts = {word: int(count) for word, count in zip(lexicon.words, lexicon.counts, strict=True) if count}
    words = sorted(counts, key=lambda word: (-len(word), word))
    weights = np.array([counts[word] for word in words])
    least = 300
    candidates = Candidates(words, weights, least)
    occurrences = Counter()
    for word in words:
        for start, end in itertools.combinations(range(len(word) + 1), 2):
            occurrences[("##" if start else "") + word[start:end]] += counts[word]
    expected = {piece for piece, count in occurrences.items() if count >= least or len(piece.removeprefix("##")) == 1}
    texts = [candidates.text(number) for number in range(len(candidates))]
    assert len(texts) == len(set(texts)) and set(texts) == expected
    assert candidates.counts.tolist() == [occurrences[text] for text in texts]
    assert set(texts[: candidates.singles]) == forms(counts)

    chosen = np.arange(len(texts)) < candidates.singles
    chosen[::3] = True
    pieces = {text for text, there in zip(texts, chosen, strict=True) if there}
    cuts = candidates.cut(chosen)
    plain = {word: greedy(word, pieces) for word in words}
    total = sum(counts[word] * len(plain[word]) for word in words)
    assert cuts.total == total
    uses = Counter()
    for word in words:
        for piece in plain[word]:
            uses[piece] += counts[word]
    assert candidates.uses(cuts).tolist() == [uses[text] for text in texts]

    losses, (gains, *_) = candidates.losses(cuts), candidates.gains(cuts, chosen)
    for number, text in enumerate(texts):
        if chosen[number] and number < candidates.singles:
            continue
        once = all(Counter(greedy(word, pieces | {text}))[text] < 2 for word in words)
        other = sum(counts[word] * len(greedy(word, pieces ^ {text})) for word in words)
        if once and chosen[number]:
            assert losses[number] == other - total, text
        elif once:
            assert gains[number] == total - other, text


def test_words_are_merged_as_the_vocabulary_will_read_them():
    lexicon = lexicon_of({"Café": 2, "cafe": 3, "CAFÉ": 1, "x" * 101: 9, "\u200d": 4, "Σ": 1, "中": 2, "ﬁ": 1})
    assert normalised(lexicon, Vocabulary(SPECIALS)) == {"cafe": 6, "σ": 1, "中": 2, "ﬁ": 1}
    cased = normalised(lexicon, Vocabulary(SPECIALS, lowercase=False))
    assert cased == {"Café": 2, "cafe": 3, "CAFÉ": 1, "Σ": 1, "中": 2, "ﬁ": 1}
    learnt = learn_vocabulary(lexicon, 5 + 7 + 1)
    assert "cafe" in learnt.pieces and learnt.lowercase
    learnt = learn_vocabulary(lexicon, 5 + 12 + 3, lowercase=False, strip_accents=False)
    assert {"Café", "cafe", "CAFÉ"} < set(learnt.pieces) and not learnt.lowercase and learnt.strip_accents is False


def test_the_entry_of_overlong_words_is_not_learnt():
    lexicon = Lexicon(("", "ab"), np.array([1000, 3]))
    assert learn_vocabulary(lexicon, 8).pieces == (*SPECIALS, "ab", "##b", "a")
    assert describe(learn_vocabulary(lexicon, 8), lexicon)["unk_rate"] == 1000 / 1003


def test_coverage_keeps_the_frequent_characters():
    lexicon = lexicon_of({"aa": 900, "ab": 90, "b": 9, "ac": 1})
    assert set(learn_vocabulary(lexicon, 9, coverage=0.999).pieces) == {*SPECIALS, "a", "##a", "##b", "b"}
    assert set(learn_vocabulary(lexicon, 10, coverage=1.0).pieces) == {*SPECIALS, "a", "##a", "##b", "b", "##c"}
    told = describe(learn_vocabulary(lexicon, 9, coverage=0.999), lexicon)
    assert told == {"pieces_per_word": (2 * 990 + 9 + 1) / 1000, "unk_rate": 1 / 1000}


def test_describe_counts_what_the_teacher_shares():
    lexicon = lexicon_of({"ab": 3, "Ab": 1})
    ours, teacher = Vocabulary((*SPECIALS, "ab", "a", "##b", "c")), Vocabulary((*SPECIALS, "ab", "##b", "##c"))
    told = describe(ours, lexicon, teacher)
    assert told == {"pieces_per_word": 1.0, "unk_rate": 0.0, "shared": 0.5}


def test_every_size_from_smallest_to_largest():
    counts = {"abab": 5, "ab": 4, "ba": 2, "b": 9, "aab": 1}
    lexicon, alphabet = lexicon_of(counts), len(forms(counts))
    smallest, largest = 5 + alphabet, 5 + alphabet + 4
    totals = []
    for size in range(smallest, largest + 1):
        learnt = learn_vocabulary(lexicon, size)
        assert learnt.size == size
        totals.append(pieces_of(learnt, lexicon))
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] == sum(counts.values())
    with pytest.raises(UserError, match=f"make {smallest} the smallest"):
        learn_vocabulary(lexicon, smallest - 1)
    with pytest.raises(UserError, match=f"too large: at {largest} every word"):
        learn_vocabulary(lexicon, largest + 1)


def test_no_words():
    for counts in ({}, {"\u200d": 3}, {"x" * 101: 2}):
        with pytest.raises(UserError, match="no words"):
            learn_vocabulary(lexicon_of(counts), 100)


@pytest.mark.parametrize("coverage", [0, -1, 1.5, float("nan")])
def test_bad_coverage(coverage):
    with pytest.raises(UserError, match="coverage"):
        learn_vocabulary(english(), 100, coverage=coverage)


def test_the_order_of_the_lexicon_does_not_matter():
    lexicon = english()
    turned = Lexicon(lexicon.words[::-1], lexicon.counts[::-1])
    assert learn_vocabulary(lexicon, 150) == learn_vocabulary(turned, 150)


def test_same_bytes_in_other_processes(tmp_path):
    """Whatever the hash seed and the number of threads."""
    write_tokenizer(learn_vocabulary(english(), 150), tmp_path / "here", 64)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_wordpiece as t;"
        "t.write_tokenizer(t.learn_vocabulary(t.english(), 150), sys.argv[2], 64)"
    )
    for seed, threads in (("0", "1"), ("12345", "4")):
        environment = os.environ | {
            "PYTHONHASHSEED": seed,
            "OMP_NUM_THREADS": threads,
            "RAYON_NUM_THREADS": threads,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        out = tmp_path / seed
        command = [sys.executable, "-c", script, os.path.dirname(__file__), str(out)]
        subprocess.run(command, env=environment, check=True)
        for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            assert (out / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_the_bytes_of_a_known_vocabulary():
    """The same on every machine, Python and numpy: this digest changes only with the algorithm."""
    learnt = learn_vocabulary(english(), 150)
    assert hashlib.sha256("\n".join(learnt.pieces).encode()).hexdigest()[:16] == "ed76433c9b7788a6"
