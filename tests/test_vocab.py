import dataclasses
import itertools
import json
import pathlib
import sys
import unicodedata

import numpy as np
import pytest
import tokenizers
import transformers

from jaxdistill.data.corpus import open_corpus, prepare
from jaxdistill.data.documentation import documentation
from jaxdistill.data.vocab import SPECIALS, Vocabulary, cut, read_vocabulary, write_tokenizer
from jaxdistill.data.windows import expand
from jaxdistill.data.wordpiece import learn_vocabulary
from jaxdistill.errors import UserError

WORDS = (
    "the",
    "un",
    "##able",
    "##a",
    "##b",
    "##l",
    "##e",
    "a",
    "b",
    "Wö",
    "wo",
    "##rld",
    "##r",
    ".",
    ",",
    "[",
    "]",
    "中",
)
SMALL = Vocabulary((*SPECIALS, *WORDS))


def vocabulary_of(text: str, **settings) -> Vocabulary:
    """Every character of a text, with some pairs: rich enough that real lines are cut in every way."""
    shell = Vocabulary(SPECIALS, **settings)
    clean = shell.normalizer().normalize_str(text)
    characters = sorted({character for character in clean if not character.isspace()})[::2]
    pairs = sorted({clean[i : i + 2] for i in range(0, len(clean) - 1, 7) if clean[i : i + 2].isalnum()})
    pieces = [*SPECIALS, *characters, *("##" + c for c in characters), *pairs, *("##" + pair for pair in pairs)]
    return Vocabulary(tuple(dict.fromkeys(pieces)), **settings)


def real_lines(limit: int = 3000) -> list[str]:
    """Real lines that every installation has, of code and comments: sources of the standard library."""
    lines = []
    for name in ("argparse", "typing", "decimal", "turtle", "inspect"):
        __import__(name)
        lines += pathlib.Path(sys.modules[name].__file__).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip()][:limit]


def odd_lines() -> list[str]:
    blocks = [range(0x20, 0x250), range(0x300, 0x370), range(0x400, 0x460), range(0x5D0, 0x5EB), range(0x900, 0x980)]
    blocks += [range(0x1100, 0x1120), range(0x1E00, 0x1F00), range(0x2000, 0x2070), range(0x4E00, 0x4E40)]
    blocks += [range(0xAC00, 0xAC20), range(0x1F600, 0x1F620), range(0x20000, 0x20010)]
    characters = [chr(code) for block in blocks for code in block if unicodedata.category(chr(code)) != "Cn"]
    rows = ["".join(characters[i : i + 11]) for i in range(0, len(characters), 11)]
    return [
        *rows,
        *(" ".join(row) for row in rows),
        "İstanbul ﬁn Straße ΣΊΣΥΦΟΣ ǅ 한국어 e\u0301a\u0300 [MASK] [CLS]x ##a",
    ]


def words_of(line: str) -> list[str]:
    """The words of a line as a corpus stores them."""
    normalizer = tokenizers.normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=False
    )
    splitter = tokenizers.pre_tokenizers.BertPreTokenizer()
    return [word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(line))]


@pytest.mark.parametrize("settings", [{}, {"lowercase": False}, {"strip_accents": False}])
def test_cutting_words_equals_cutting_lines(settings):
    lines = [line for line in real_lines() + odd_lines() if "[MASK]" not in line and "[CLS]" not in line]
    vocabulary = vocabulary_of("\n".join(lines), **settings)
    words = [words_of(line) for line in lines]
    flat = [word for line in words for word in line]
    table = cut(vocabulary, flat)
    ends = np.cumsum([0, *map(len, words)])
    whole = vocabulary.tokenizer()
    for line, start, end in zip(lines, ends[:-1], ends[1:], strict=True):
        ours = table.pieces[table.offsets[start] : table.offsets[end]].tolist()
        assert ours == whole.encode(line, add_special_tokens=False).ids, line
    assert 0.05 < np.mean(table.pieces == vocabulary.unk) < 0.95


def test_cut_by_hand():
    words = ["", "the", "unable", "unabble", "x" * 101, "thex", "[MASK]", "World", "Wörld", "\u200d\u0300", "中", "THE"]
    table = cut(SMALL, words)
    cuts = [
        [SMALL.pieces[i] for i in table.pieces[a:b]] for a, b in zip(table.offsets, table.offsets[1:], strict=False)
    ]
    assert cuts == [
        ["[UNK]"],
        ["the"],
        ["un", "##able"],
        ["un", "##a", "##b", "##b", "##l", "##e"],
        ["[UNK]"],
        ["[UNK]"],
        ["[", "[UNK]", "]"],
        ["wo", "##rld"],
        ["wo", "##rld"],
        [],
        ["中"],
        ["the"],
    ]
    assert table.lengths.tolist() == [len(pieces) for pieces in cuts]
    assert (table.pieces.dtype, table.offsets.dtype, table.lengths.dtype) == (np.int32, np.int64, np.int32)


def test_a_vocabulary_that_joins_chinese_characters_cannot_cut_a_corpus():
    joined = dataclasses.replace(SMALL, pieces=(*SMALL.pieces, "##中"), chinese=False)
    pieces = [joined.tokenizer().encode(text, add_special_tokens=False).tokens for text in ("中中", "中 中")]
    assert pieces == [["中", "##中"], ["中", "中"]]  # The second is what a corpus has of the first.
    with pytest.raises(UserError, match="tokenize_chinese_chars false"):
        cut(joined, ["", "中"])


def test_cut_of_nothing():
    table = cut(SMALL, [])
    assert table.pieces.shape == (0,) and table.offsets.tolist() == [0] and table.lengths.shape == (0,)


def test_cut_in_batches(monkeypatch):
    words = [word for line in real_lines(200) for word in line.split()]
    whole = cut(SMALL, words)
    monkeypatch.setattr("jaxdistill.data.vocab._CUT_BATCH", 7)
    parts = cut(SMALL, words)
    assert np.array_equal(whole.pieces, parts.pieces) and np.array_equal(whole.offsets, parts.offsets)


def test_ids_and_digest():
    assert (SMALL.pad, SMALL.unk, SMALL.cls, SMALL.sep, SMALL.mask) == SMALL.specials == (0, 1, 2, 3, 4)
    assert SMALL.size == 5 + len(WORDS)
    same = Vocabulary(list(SMALL.pieces))
    assert same == SMALL and same.digest == SMALL.digest
    others = [dataclasses.replace(SMALL, **{name: False}) for name in ("lowercase", "strip_accents", "chinese")]
    others.append(Vocabulary((*SPECIALS, *reversed(WORDS))))
    assert len({SMALL.digest, *(other.digest for other in others)}) == 5


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lowercase": False},
        {"strip_accents": False},
        {"lowercase": False, "strip_accents": True},
        {"chinese": False},
    ],
)
def test_transformers_loads_what_we_write(tmp_path, settings):
    lines = real_lines(400) + odd_lines()
    vocabulary = vocabulary_of("\n".join(lines), **settings)
    write_tokenizer(vocabulary, tmp_path / "made", max_length=77)
    assert read_vocabulary(tmp_path / "made") == vocabulary
    assert read_vocabulary(tmp_path / "made" / "vocab.txt") == vocabulary
    ours = [encoding.ids for encoding in vocabulary.tokenizer().encode_batch(lines)]
    for loader in (transformers.AutoTokenizer, transformers.BertTokenizer, transformers.PreTrainedTokenizerFast):
        theirs = loader.from_pretrained(tmp_path / "made")
        assert theirs(lines)["input_ids"] == ours
        assert theirs.model_max_length == 77 and theirs.mask_token_id == vocabulary.mask
        assert theirs.pad_token_id == vocabulary.pad and theirs.unk_token_id == vocabulary.unk
    assert theirs("a b", "c", return_token_type_ids=True).token_type_ids == [0, 0, 0, 0, 1, 1]
    (tmp_path / "made" / "tokenizer.json").unlink()
    assert transformers.BertTokenizer.from_pretrained(tmp_path / "made")(lines)["input_ids"] == ours
    assert read_vocabulary(tmp_path / "made") == vocabulary


@pytest.fixture(scope="module")
def documented(tmp_path_factory):
    """10,000 lines of the documentation in the installed packages, and a corpus that has each as a document."""
    lines = list(itertools.islice((line for _, text in documentation() for line in text.splitlines()), 10_000))
    folder = tmp_path_factory.mktemp("documented")
    (folder / "text.txt").write_text("\n\n".join(lines), encoding="utf-8")
    prepare([str(folder / "text.txt")], folder / "corpus", workers=1)
    return lines, open_corpus(folder / "corpus")


@pytest.mark.parametrize("lowercase", [True, False])
def test_transformers_cuts_real_text_with_a_learnt_vocabulary_as_a_corpus_is_cut(tmp_path, documented, lowercase):
    lines, corpus = documented
    vocabulary = learn_vocabulary(corpus.lexicon, 2000, lowercase=lowercase)
    pieces, lengths = expand(cut(vocabulary, corpus.lexicon.words), corpus.words.astype(np.int64))
    ends = np.concatenate([[0], np.cumsum(lengths)])[corpus.documents]
    ours = [pieces[start:end].tolist() for start, end in itertools.pairwise(ends)]
    write_tokenizer(vocabulary, tmp_path, max_length=10**6)
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path)(lines)["input_ids"]
    assert theirs == [[vocabulary.cls, *ids, vocabulary.sep] for ids in ours]
    assert len(theirs) == 10_000 and len(np.unique(pieces)) > 1900
    assert 0 < np.mean(pieces == vocabulary.unk) < 0.001 < 0.05 < np.mean(lengths > 1)


def test_reads_what_transformers_writes(tmp_path):
    theirs = transformers.BertTokenizer(vocab=dict(SMALL.ids), do_lower_case=False, tokenize_chinese_chars=False)
    theirs.save_pretrained(tmp_path)
    assert read_vocabulary(tmp_path) == dataclasses.replace(SMALL, lowercase=False, chinese=False)


def test_settings_come_from_the_config_then_the_tokenizer(tmp_path):
    write_tokenizer(dataclasses.replace(SMALL, lowercase=False), tmp_path, max_length=8)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del config["do_lower_case"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"strip_accents": True}))
    assert read_vocabulary(tmp_path) == dataclasses.replace(SMALL, lowercase=False, strip_accents=True)


def test_a_bare_list_is_cased_when_it_has_capitals(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes("\r\n".join([*SPECIALS, "the", "The", ""]).encode())
    assert read_vocabulary(path) == Vocabulary((*SPECIALS, "the", "The"), lowercase=False)
    path.write_text("\n".join([*SPECIALS, "[unused0]", "the", "##中"]), encoding="utf-8")
    assert read_vocabulary(path) == Vocabulary((*SPECIALS, "[unused0]", "the", "##中"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[PAD]\n[CLS]\n[SEP]\na\n", r"vocab.txt lacks \[UNK\], \[MASK\]"),
        (b"", "blank"),
        (b"a\n\nb\n", "line 2 is blank"),
        (b"a\n \t\nb\n", "line 2 is blank"),
        ("\n".join([*SPECIALS, "a", "b", "a", "b"]).encode(), "2 pieces more than once: 'a', 'b'"),
        (b"[PAD]\n\xff\n", "not UTF-8 text .byte 6."),
    ],
)
def test_bad_lists_are_refused(tmp_path, content, message):
    (tmp_path / "vocab.txt").write_bytes(content)
    for path in (tmp_path, tmp_path / "vocab.txt"):
        with pytest.raises(UserError, match=message):
            read_vocabulary(path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere does not exist"):
        read_vocabulary(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"neither tokenizer.json nor vocab.txt"):
        read_vocabulary(tmp_path)
    with pytest.raises(UserError, match=r"lacks \[MASK\]"):
        Vocabulary(SPECIALS[:4])


def change(key, value):
    def apply(content):
        *parents, last = key.split("/")
        for name in parents:
            content = content[name]
        content[last] = value

    return apply


@pytest.mark.parametrize(
    ("file", "key", "value", "message"),
    [
        ("tokenizer.json", "model/type", "BPE", "BPE tokenizer: only WordPiece"),
        ("tokenizer.json", "model/continuing_subword_prefix", "@@", "continuing_subword_prefix is '@@'"),
        ("tokenizer.json", "model/unk_token", "<unk>", "unk_token is '<unk>'"),
        ("tokenizer.json", "model/max_input_chars_per_word", 50, "max_input_chars_per_word is 50"),
        ("tokenizer.json", "model", [], "has no model"),
        ("tokenizer.json", "model/vocab/the", 99, "ids of its pieces are not 0 to"),
        ("tokenizer.json", "normalizer", {"type": "Lowercase"}, "normalizer is Lowercase"),
        ("tokenizer.json", "normalizer", None, "normalizer is None"),
        ("tokenizer.json", "normalizer/clean_text", False, "not BERT's"),
        ("tokenizer.json", "pre_tokenizer", {"type": "Whitespace"}, "pre_tokenizer is not BERT's"),
        ("tokenizer.json", "added_tokens", [{"content": "<url>", "id": 30}], "outside its vocabulary: '<url>'"),
        ("tokenizer_config.json", "auto_map", {"AutoTokenizer": ["x.Y", None]}, "code of its own"),
        ("tokenizer_config.json", "do_lower_case", "yes", "do_lower_case must be true or false"),
        ("tokenizer_config.json", "strip_accents", "no", "strip_accents must be"),
    ],
)
def test_tokenizers_that_we_cannot_honour_are_refused(tmp_path, file, key, value, message):
    write_tokenizer(SMALL, tmp_path, max_length=8)
    content = json.loads((tmp_path / file).read_text())
    change(key, value)(content)
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        read_vocabulary(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_torn_json_is_refused(tmp_path, name):
    write_tokenizer(SMALL, tmp_path, max_length=8)
    (tmp_path / name).write_text((tmp_path / name).read_text()[:-20])
    with pytest.raises(UserError, match=f"{name} is not a JSON file"):
        read_vocabulary(tmp_path)


def test_a_byte_order_mark_is_no_part_of_the_first_piece(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\ufeff" + "\n".join(SPECIALS) + "\na\n", encoding="utf-8")
    assert read_vocabulary(path).pieces[0] == "[PAD]"
