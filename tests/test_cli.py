"""The command line, in this process: what each command prints, and what bad input gets: a message, 2, and no files."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import jaxdistill
from jaxdistill import cli
from jaxdistill.data.vocab import read_vocabulary

OF_STAGES = {"prepare", "vocab", "train", "finetune", "evaluate", "compare", "bench", "export", "fill"}
COMMANDS = OF_STAGES | {"quickstart", "cache", "predict", "augment", "env"}
OF_CONFIGS = {"train", "finetune", "cache"}
SMALL = {"steps": 2, "variant": "nokd", "run": {"devices": 1, "save_every": 2}}


def said(capsys, *arguments) -> str:
    """What a command prints when it succeeds."""
    assert cli.main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def listing(folder) -> dict:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture
def refused(capsys, tmp_path):
    """Runs a command that must fail: the message has no traceback, and no file was written or changed."""

    def check(*arguments, match: str):
        before = listing(tmp_path)
        capsys.readouterr()
        assert cli.main([str(argument) for argument in arguments]) == 2
        found = capsys.readouterr()
        assert "Traceback" not in found.err
        message = found.err[found.err.index("jaxdistill: ") :]
        assert re.search(match, message), message
        assert listing(tmp_path) == before, "something was written"

    return check


@pytest.fixture(scope="module")
def run(tiny_inputs, tmp_path_factory):
    """A run that the command line made."""
    workdir = tmp_path_factory.mktemp("cli") / "run"
    assert cli.main(tiny_inputs.arguments(workdir, **SMALL, held_out=str(tiny_inputs.held_out))) == 0
    return workdir


# What works.


def test_help_of_every_command(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0 and all(re.search(rf"^    {command}\s+\w", text, re.M) for command in COMMANDS)
    assert set(re.findall(r"^  jaxdistill (\w+)", text, re.M)) == OF_STAGES
    for command in COMMANDS - OF_CONFIGS:
        with pytest.raises(SystemExit) as stopped:
            cli.main([command, "--help"])
        assert stopped.value.code == 0 and f"usage: jaxdistill {command}" in capsys.readouterr().out
    for command in OF_CONFIGS:
        assert f"usage: jaxdistill {command} CONFIG" in said(capsys, command, "--help")
    text = said(capsys, "train", "--help")
    assert "usage: jaxdistill train CONFIG --workdir RUN" in text and re.search(r"there are: .*extreme, .*mlm", text)


def test_help_of_a_config_lists_every_knob(capsys):
    text = said(capsys, "train", "extreme", "--help")
    for part in (
        "--hidden INT",
        "the student's width",
        "[default 48]",
        "--variant nokd|dual|down|up",
        "--workdir TEXT",
    ):
        assert part in text
    for heading in (
        "Data",
        "Method",
        "Models",
        "Training",
        "The run",
        "How it runs (may change when a run is continued)",
    ):
        assert f"\n{heading}\n" in text, heading
    assert "--micro-batch INT" in text and "--[no-]dry-run" in text


def test_version_and_env(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0 and capsys.readouterr().out == f"jaxdistill {jaxdistill.__version__}\n"
    text = said(capsys, "env")
    for part in (f"jaxdistill {jaxdistill.__version__}", "python 3.", "\njax ", "\noptax ", "devices: cpu cpu"):
        assert part in text


def test_beam_is_asked_for_by_its_extra_where_it_is_missing(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.delattr("jaxdistill.data.beam", raising=False)
    for name in ("jaxdistill.data.beam", "jaxdistill.data.beam_files"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "text.txt").write_text("some words", encoding="utf-8")
    command = ["prepare", str(tmp_path / "text.txt"), "--out", str(tmp_path / "corpus"), "--runner", "beam"]
    assert cli.main(command) == 2
    assert capsys.readouterr().err.endswith("--runner beam needs Apache Beam: pip install 'jaxdistill[beam]'\n")
    assert cli.main([*command[:-1], "local", "--workers", "1"]) == 0


def test_from_text_to_a_vocabulary(capsys, tmp_path, tiny_inputs):
    (tmp_path / "text.txt").write_text("The river crosses the road.\n\nThe road.\n", encoding="utf-8")
    text = said(capsys, "prepare", tmp_path / "text.txt", "--out", tmp_path / "corpus", "--workers", 1)
    assert "9 words of" in text and "in 2 documents; next: jaxdistill vocab" in text
    out, corpus = tmp_path / "vocab.txt", tiny_inputs.corpus
    options = ("--held-out", tiny_inputs.held_out, "--teacher", tiny_inputs.teacher, "--compare")
    table = said(capsys, "vocab", corpus, "--size", 70, "--out", out, *options).splitlines()
    columns = ["vocabulary", "pieces", "pieces/word, the corpus", "[UNK]", "pieces/word, held out", "[UNK]"]
    assert re.split(r"\s{2,}", table[0]) == [*columns, "in the teacher's"]
    ours, theirs, teacher = (re.split(r"\s{2,}", line) for line in table[1:])
    assert (ours[:2], theirs[0]) == ([str(out), "70"], "WordPiece trainer of tokenizers")
    assert (teacher[:2], teacher[-1]) == (
        ["the teacher's own", str(read_vocabulary(tiny_inputs.teacher).size)],
        "100.0%",
    )
    assert 1 < float(ours[4]) <= float(theirs[4]) and re.fullmatch(r"\d+\.\d%", ours[-1])
    assert read_vocabulary(out).size == 70
    assert len(said(capsys, "vocab", corpus, "--size", 70, "--out", tmp_path / "folder").splitlines()) == 2
    assert read_vocabulary(tmp_path / "folder").pieces == read_vocabulary(out).pieces


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(capsys, tiny_inputs, workdir):
    text = said(capsys, *tiny_inputs.arguments(workdir, variant="up", run={"devices": 1}), "--dry-run")
    for pattern in (
        r"student: 2 x 8, 2 heads, 60 pieces, [\d,]+ parameters",
        r"teacher: 2 x 12, 2 heads, \d+ pieces, [\d,]+ parameters",
        r"student reads [\d,]+ tokens an epoch",
        r"TFLOP a step",
        r"bytes per device: state and batch [\d.]+ MiB, activations and gradients [\d.]+ MiB",
        r"the whole run: \S+ FLOP, 768 positions",
    ):
        assert re.search(pattern, text), pattern
    assert not workdir.exists()


def test_a_run_is_continued_measured_exported_and_asked(capsys, run, tiny_inputs, tmp_path):
    again = said(capsys, *tiny_inputs.arguments(run, **SMALL, held_out=str(tiny_inputs.held_out)))
    assert "done: 2 steps" in again and "pieces right" in again and "student" in again
    model = tmp_path / "model"
    assert f"wrote the student to {model}" in said(capsys, "export", run, "--out", model)
    options = ("--corpus", tiny_inputs.held_out, "--length", 16, "--predictions", 3, "--rows", 8)
    table = said(capsys, "evaluate", run, model, *options, "--json", tmp_path / "scores.json").splitlines()
    assert table[1].split()[1:] == table[2].split()[1:], "the export is the run"
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores[str(run)] == scores[str(model)] and scores[str(run)]["words"] > 0
    shown = said(capsys, "fill", model, "The [MASK] crosses [MASK].", "--top", 2).splitlines()
    assert len(shown) == 2 and all(re.fullmatch(r"\S+ [\d.]+%  \S+ [\d.]+%", line) for line in shown)


def test_output_that_nobody_reads_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    found = subprocess.run(
        [sys.executable, "-m", "jaxdistill.cli", "train", "--help"],
        stdout=writer,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    os.close(writer)
    assert (found.returncode, found.stderr) == (141, b"")


def test_an_interrupt_says_so(capsys, monkeypatch):
    monkeypatch.setattr(cli, "_env", lambda options: (_ for _ in ()).throw(KeyboardInterrupt))
    assert cli.main(["env"]) == 130 and capsys.readouterr().err == "interrupted\n"


def test_an_interrupt_while_jax_is_imported_says_so(tmp_path):
    """Its extension modules pass a KeyboardInterrupt off as an ImportError, as this one does."""
    (tmp_path / "jax.py").write_text(
        "import time\nprint('importing', flush=True)\ntry:\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    raise ImportError('while initializing the extension') from None\n"
    )
    # A shell's background jobs ignore Ctrl-C, and hand that down.
    heed = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
    child = subprocess.Popen(
        [sys.executable, "-c", f"{heed}; from jaxdistill import cli; sys.exit(cli.main(['fill', 'M', 'A [MASK].']))"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )
    assert child.stdout.readline() == "importing\n"
    child.send_signal(signal.SIGINT)
    assert (*child.communicate(), child.returncode) == ("", "interrupted\n", 130)


# What does not.


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "there are no words in .*text.txt"),
        (b" \n\n \n", "there are no words"),
        (b"\x00\x01\x02\x03" * 99, "text.txt.*(binary|NUL|not text)"),
        ("Caf\u00e9 au lait.\n".encode("latin-1"), "text.txt.*not UTF-8"),
        (None, "text.txt.*(does not exist|no such|missing)"),
    ],
    ids=["empty", "blank", "binary", "latin-1", "missing"],
)
def test_text_that_is_none(refused, tmp_path, content, match):
    if content is not None:
        (tmp_path / "text.txt").write_bytes(content)
    refused("prepare", tmp_path / "text.txt", "--out", tmp_path / "corpus", "--workers", 1, match=match)


@pytest.fixture(params=["lexicon.txt", "words.bin"])
def altered(request, tiny_inputs, tmp_path):
    """A copy of the corpus with one bit of a file flipped."""
    shutil.copytree(tiny_inputs.corpus, tmp_path / "altered")
    path = tmp_path / "altered" / request.param
    path.write_bytes(path.read_bytes()[:-2] + bytes([path.read_bytes()[-2] ^ 1]) + path.read_bytes()[-1:])
    return path


def test_a_corpus_that_was_altered(refused, altered, tiny_inputs, workdir):
    corpus, match = altered.parent, f"{altered.name} was altered.*prepare"
    refused("vocab", corpus, "--size", 70, "--out", workdir, match=match)
    refused("evaluate", tiny_inputs.teacher, "--corpus", corpus, "--length", 16, match=match)
    refused(*tiny_inputs.arguments(workdir, corpus=corpus), "--dry-run", match=match)


def test_what_is_no_corpus(refused, tiny_inputs, tmp_path):
    refused("vocab", tmp_path / "none", "--out", tmp_path / "v.txt", match="there is no corpus at .*none")
    for words in (["gs://b/text.txt", "--out", tmp_path / "corpus"], [tiny_inputs.text, "--out", "gs://b/corpus"]):
        refused("prepare", *words, match="gs://b/.*: this has to be on a disk; `--runner beam`")
    refused(
        "evaluate", tiny_inputs.teacher, "--corpus", tiny_inputs.text, "--length", 16, match="there is no corpus at"
    )
    refused("evaluate", tiny_inputs.teacher, "--corpus", tiny_inputs.teacher, "--length", 16, match="not a corpus")
    refused("evaluate", tiny_inputs.teacher, "--corpus", tiny_inputs.held_out, match=r"has \d+ positions: .*--length")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--size", 10_000], "too large: at \\d+ every word"),
        (["--size", 6], "too small: 5 specials and \\d+ single .* lower coverage"),
        (["--size", 45], "too small"),
        (["--size", 70, "--coverage", 1.5], "coverage is 1.5, a share of the words"),
    ],
)
def test_a_size_that_the_lexicon_does_not_allow(refused, tiny_inputs, tmp_path, options, match):
    refused("vocab", tiny_inputs.corpus, *options, "--out", tmp_path / "vocab.txt", match=match)


def test_a_lower_coverage_allows_a_smaller_vocabulary(capsys, tiny_inputs, tmp_path):
    options = ("--size", 45, "--coverage", 0.9, "--held-out", tiny_inputs.held_out)
    table = said(capsys, "vocab", tiny_inputs.corpus, *options, "--out", tmp_path / "vocab.txt")
    unknown = re.findall(r"[\d.]+(?=%)", table)
    assert read_vocabulary(tmp_path / "vocab.txt").size == 45 and all(0 < float(share) <= 10 for share in unknown)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda pieces: [p for p in pieces if p != "[MASK]"], "vocab.txt lacks \\[MASK\\]"),
        (lambda pieces: [*pieces, pieces[-1]], "holds 1 pieces more than once"),
        (lambda pieces: [*pieces, ""], "is blank"),
    ],
    ids=["without specials", "duplicates", "blank"],
)
def test_a_vocabulary_that_is_none(refused, tiny_inputs, tmp_path, workdir, change, match):
    pieces = (tiny_inputs.vocabulary / "vocab.txt").read_text(encoding="utf-8").splitlines()
    bad = tmp_path / "vocab.txt"
    bad.write_text("".join(f"{piece}\n" for piece in change(pieces)), encoding="utf-8")
    refused(*tiny_inputs.arguments(workdir, vocabulary=bad), match=match)
    refused("vocab", tiny_inputs.corpus, "--out", tmp_path / "new.txt", "--teacher", bad, match=match)


@pytest.mark.parametrize(
    ("changes", "run", "match"),
    [
        ({"layers": 3}, {}, "a student of 3 layers can't follow a teacher of 2"),
        ({"heads": 3}, {}, "3 attention heads do not divide the width 8"),
        ({"batch": 6}, {}, "a batch of 6 rows does not divide over 8 devices"),
        ({}, {"devices": 2, "micro_batch": 3}, "micro_batch=3 does not divide the 4 rows of each device"),
        ({}, {"fsdp": 3}, "fsdp=3 does not divide the 8 devices"),
        ({}, {"devices": 9}, "devices=9, but this machine has 8"),
        ({}, {"keep": 1}, "at least 2 checkpoints are kept"),
        ({"batch": 80_000}, {}, "fewer than one batch of 80,000 rows"),
        ({"teacher": "no/such"}, {}, "no/such is no folder here"),
        ({"held_out": "no/such"}, {}, "there is no corpus at no/such"),
    ],
    ids=str,
)
def test_an_experiment_that_does_not_fit(refused, tiny_inputs, workdir, changes, run, match):
    refused(*tiny_inputs.arguments(workdir, run, **changes), "--dry-run", match=match)


def test_a_batch_that_does_not_divide_leaves_no_workdir_behind(capsys, tiny_inputs, workdir):
    assert cli.main(tiny_inputs.arguments(workdir, batch=6)) == 2
    assert "does not divide over 8 devices" in capsys.readouterr().err
    assert not workdir.exists()


def test_a_workdir_of_another_config(refused, capsys, run, tiny_inputs):
    before = listing(run)
    other = tiny_inputs.arguments(run, **SMALL | {"seed": 1, "batch": 16}, held_out=str(tiny_inputs.held_out))
    message = r"run of another config:\n  data.batch: 8 there, 16 now\n  seed: 0 there, 1 now\nGo back"
    refused(*other, match=message)
    refused(*other, "--dry-run", match=message)
    written = {path for path, time in listing(run).items() if before.get(path) != time and path.is_file()}
    assert not {path.name for path in written} - {"lock", ".lock"}


def first(tensors, shape=2):
    return next(name for name in sorted(tensors) if tensors[name].ndim == shape)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.pop(first(t)), "lacks .*is it whole"),
        (lambda t: t.update(adapter=np.zeros(3, np.float32)), "no part of a BERT.*adapter"),
        (lambda t: t.update({first(t): t[first(t)][1:]}), r"is \[\d+, \d+\] instead of"),
        (lambda t: t.update({first(t): t[first(t)] * np.nan}), "NaN or infinite numbers in"),
    ],
    ids=["missing", "extra", "shape", "nan"],
)
def test_weights_that_are_not_those_of_the_model(refused, capsys, tiny_inputs, tmp_path, workdir, change, match):
    folder = tmp_path / "teacher"
    shutil.copytree(tiny_inputs.teacher, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    refused("fill", folder, "A [MASK].", match=match)
    assert cli.main(tiny_inputs.arguments(workdir, teacher=folder)) == 2
    assert re.search(match, capsys.readouterr().err)
    assert not workdir.exists()


def test_a_model_that_joins_chinese_characters_reads_text_but_no_corpus(
    refused, capsys, tiny_inputs, tmp_path, workdir
):
    folder = tmp_path / "teacher"
    shutil.copytree(tiny_inputs.teacher, folder)
    content = json.loads((folder / "tokenizer_config.json").read_text()) | {"tokenize_chinese_chars": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    match = "tokenize_chinese_chars false.*Choose another"
    refused("evaluate", folder, "--corpus", tiny_inputs.held_out, "--length", 16, match=match)
    refused(*tiny_inputs.arguments(workdir, teacher=folder), match=match)
    assert len(said(capsys, "fill", folder, "The [MASK].", "--top", 3).split()) == 6


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_model_folder_that_asks_for_its_own_code(refused, tiny_inputs, tmp_path, workdir, file):
    folder = tmp_path / "teacher"
    shutil.copytree(tiny_inputs.teacher, folder)
    content = json.loads((folder / file).read_text()) | {"auto_map": {"AutoModel": "evil.Model"}}
    (folder / file).write_text(json.dumps(content))
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    refused("fill", folder, "A [MASK].", match=f"{file} asks to run code of its own")
    refused(*tiny_inputs.arguments(workdir, teacher=folder), "--dry-run", match=f"{file} asks to run code of its own")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["train"], "name a config: .*extreme, .*mlm"),
        (["train", "extrem"], "there is no config 'extrem': did you mean extreme?"),
        (["train", "mine.py"], "there is no config file mine.py"),
        (["train", "extreme", "--hiden", "48"], "there is no knob --hiden: did you mean --hidden?"),
        (["train", "extreme", "--micro_bach=4"], "did you mean --micro-batch?"),
        (["train", "extreme", "--hidden", "wide"], "--hidden 'wide' is not INT: the student's width"),
        (["train", "extreme", "--variant", "sideways"], "is not nokd|dual|down|up"),
        (["train", "extreme", "48"], "unexpected argument '48'"),
        (["train", "extreme"], "missing: --corpus TEXT .*--vocabulary TEXT .*--workdir TEXT"),
        (["export", "no-run", "--out", "x"], "no-run is not the workdir of a run"),
        (["fill", "no/such/model", "A [MASK]."], "no/such/model does not exist"),
    ],
    ids=" ".join,
)
def test_a_command_that_is_misspelt(refused, arguments, match):
    refused(*arguments, match=match)


def test_options_that_argparse_refuses(capsys):
    for arguments in (["distill"], ["prepare", "--outt", "x"], ["vocab", "c", "--size", "many", "--out", "v"], []):
        with pytest.raises(SystemExit) as stopped:
            cli.main(arguments)
        assert stopped.value.code == 2 and "usage: jaxdistill" in capsys.readouterr().err


def test_a_text_without_a_mask(refused, tiny_inputs):
    refused("fill", tiny_inputs.teacher, "Nothing to fill in.", match="has no \\[MASK\\]")


def test_a_vocabulary_that_could_not_be_written_is_not_learnt(refused, tiny_inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxdistill.data.wordpiece.learn_vocabulary", None)
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.txt").mkdir()
    for out, match in (
        ("file/vocab.txt", "file is a file"),
        ("file/new", "file is a file"),
        ("folder.txt", "a folder"),
    ):
        refused("vocab", tiny_inputs.corpus, "--size", 70, "--out", tmp_path / out, match=match)


@pytest.mark.parametrize(
    "arguments",
    [
        ["prepare", "T", "--out", ""],
        ["vocab", "C", "--out="],
        ["export", "R", "--out", ""],
        ["quickstart", "--workdir", ""],
        ["train", "mlm", "--corpus=C", "--vocabulary=V", "--workdir="],
        ["evaluate", "M", "--corpus", "C", "--json", ""],
    ],
    ids=" ".join,
)
def test_a_place_without_a_name(refused, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(*arguments, match=r"--(out|workdir|json) is empty: name a place")


def test_scores_that_could_not_be_written_are_not_computed(refused, tiny_inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxdistill.measure.measure", None)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("in the way")
    options = ("evaluate", tiny_inputs.teacher, "--corpus", tiny_inputs.held_out, "--json")
    refused(*options, tmp_path / "folder", match="folder is a folder: name a file in it")
    refused(*options, tmp_path / "file" / "new" / "x.json", match=r"x.json can't be written: .*file is a file")


def test_a_folder_is_not_overwritten(refused, run, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("precious")
    refused("export", run, "--out", tmp_path / "thesis", match="already holds thesis.tex")


def test_a_vocabulary_does_not_replace_other_files(tiny_inputs, tmp_path, capsys):
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear all,\n")
    assert cli.main(["vocab", str(tiny_inputs.corpus), "--size", "60", "--out", str(letter)]) == 2
    assert "is there already and is no vocabulary" in capsys.readouterr().err
    assert letter.read_text() == "Dear all,\n"


def test_a_config_that_returns_no_experiment(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text("def config():\n    return None\n")
    assert cli.main(["train", str(path), "--workdir", str(tmp_path / "run")]) == 2
    assert "returned NoneType, not an Experiment" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_config_that_fails(refused, tmp_path, workdir):
    path = tmp_path / "mine.py"
    path.write_text("def config():\n    return 1 / 0\n")
    refused("train", path, "--workdir", workdir, match="mine.py failed: ZeroDivisionError: .*\n  line 2: return 1 / 0")


@pytest.mark.parametrize(
    ("knob", "value", "said"), [("seed", -1, "seed=-1"), ("projection", -1, "'projection': weight -1")]
)
def test_numbers_that_make_no_sense(tiny_inputs, tmp_path, capsys, knob, value, said):
    assert cli.main(tiny_inputs.arguments(tmp_path / "run", **{knob: value})) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["fill", "M", "[MASK]", "--top", "0"],
        ["evaluate", "M", "--corpus", "C", "--rows", "-1"],
        ["vocab", "C", "--out", "V", "--max-length", "-1"],
    ],
    ids=" ".join,
)
def test_numbers_below_the_least(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "is below" in capsys.readouterr().err
