import dataclasses
import json
import re
import shlex
import shutil

import jax
import numpy as np
import pytest
import transformers
from hf_folders import check_torch_agrees

import jaxdistill
from jaxdistill import bert, cli, hf, tree
from jaxdistill import step as steps
from jaxdistill.data.corpus import open_corpus
from jaxdistill.errors import UserError
from jaxdistill.export import export, is_run, read_model, read_run
from jaxdistill.measure import measure
from jaxdistill.train import train

COMMAND = "jaxdistill train extreme --workdir RUN"


@pytest.fixture(scope="module")
def run(tiny_inputs, tmp_path_factory):
    """A finished run whose checkpoints of steps 2 and 4 are kept, with its held-out scores."""
    workdir = tmp_path_factory.mktemp("export") / "run"
    changes = {"variant": "dual", "steps": 4, "held_out": str(tiny_inputs.held_out), "run": {"devices": 1}}
    made = tiny_inputs.experiment(**changes, positions=20)
    scores = train(made, workdir, notify=lambda line: None, command=COMMAND).scores
    return workdir, scores


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_torch_computes_what_we_compute(run, tmp_path, role):
    export(run[0], tmp_path / "model", role=role, notify=lambda line: None)
    found = read_run(run[0], role)
    assert check_torch_agrees(tmp_path / "model", found.config, found.params).max() < found.vocabulary.size


def test_the_teacher_keeps_its_own_vocabulary_and_has_learnt(run, tmp_path, tiny_inputs):
    export(run[0], tmp_path / "model", role="teacher", notify=lambda line: None)
    made, start = hf.read_hf(tmp_path / "model"), hf.read_hf(tiny_inputs.teacher)
    assert made.vocabulary == start.vocabulary and made.vocabulary.size > read_run(run[0]).vocabulary.size
    assert dataclasses.replace(made.config, dropout=0.1, attention_dropout=0.1) == start.config
    assert not np.array_equal(made.params["embeddings"]["word"], start.params["embeddings"]["word"])


def test_the_card_has_what_was_measured(run, tmp_path, tiny_inputs):
    workdir, scores = run
    lines = []
    export(workdir, tmp_path / "model", notify=lines.append)
    card = (tmp_path / "model" / "README.md").read_text()
    for role, score in scores.items():
        assert f"| {role} | " + " | ".join(f"{value:.4g}" for value in score.values()) + " |" in card
    saved = json.loads((workdir / "scores.json").read_text())
    assert f"held-out corpus {saved['corpus'][:12]}" in card
    assert f"| Text | {tiny_inputs.corpus.name} |" in card and COMMAND in card
    assert open_corpus(tiny_inputs.corpus).manifest["digest"] in card
    assert f"float32, {(tmp_path / 'model' / 'model.safetensors').stat().st_size:,} bytes" in card
    assert "Texts longer than 16 pieces must be cut" in card and "left its positions beyond that, up to 20" in card
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "model").model_max_length == 16
    assert f"`{tiny_inputs.teacher}`" in card and "variant `dual`" in card and "60 WordPieces" in card
    student, teacher = (bert.parameter_count(read_run(workdir, role).config) for role in ("student", "teacher"))
    assert f"{student:,} parameters" in card and f"{teacher:,} parameters" in card
    assert f"{teacher / student:.1f}x fewer parameters" in card
    assert "4 of 4" in card and "Unfinished" not in card
    assert f"Made with jaxdistill {jaxdistill.__version__}, python 3." in card and f"jax {jax.__version__}" in card
    assert lines == [f"wrote the student to {tmp_path / 'model'} ({student:,} parameters, float32)"]


def test_the_command_on_the_card_prints_its_figures_again(run, tmp_path):
    workdir, scores = run
    export(workdir, tmp_path / "model", notify=lambda line: None)
    card = (tmp_path / "model" / "README.md").read_text()
    program, *arguments = shlex.split(re.search(r"Measured by\n\n```\n(.*)\n```", card)[1])
    assert program == "jaxdistill" and cli.main([*arguments, "--json", str(tmp_path / "again.json")]) == 0
    again = json.loads((tmp_path / "again.json").read_text())
    assert again.keys() == {f"{workdir} {role}" for role in scores}
    for role, score in scores.items():
        assert again[f"{workdir} {role}"] == pytest.approx(score, rel=1e-5), role
    assert (
        0 < scores["student"]["words"] < measure([workdir], arguments[-1], rows=0, role="student")[str(workdir)].words
    )


def test_the_card_of_a_teacher_names_what_it_began_as(run, tmp_path, tiny_inputs):
    export(run[0], tmp_path / "model", role="teacher", notify=lambda line: None)
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"`{tiny_inputs.teacher}`" in card and "It is the teacher of" in card and "Compression" not in card


def trained_but_for(tiny_inputs, workdir, frozen, **changes):
    """A run of one step in which the parameters of these names do not train, and where its student started."""
    made = tiny_inputs.experiment(variant="nokd", steps=1, seed=3, run={"devices": 1}, **changes)
    made = dataclasses.replace(made, trains=((f"student/({frozen})", False), (".*", True)))
    train(made, workdir, notify=lambda line: None)
    return tree.flatten(steps.init_params(made)["student"])


def test_a_random_part_that_does_not_train_is_exported(tiny_inputs, workdir, tmp_path):
    start = trained_but_for(tiny_inputs, workdir, "embeddings/position")
    export(workdir, tmp_path / "model", notify=lambda line: None)
    found = tree.flatten(hf.read_hf(tmp_path / "model").params)
    assert found.keys() == start.keys()
    assert np.array_equal(found["embeddings/position"], start["embeddings/position"])
    assert not np.array_equal(found["embeddings/word"], start["embeddings/word"])
    assert tree.flatten(read_model(workdir).params).keys() == found.keys()


def test_a_fresh_head_that_does_not_train_is_that_of_the_run(tiny_inputs, workdir, tmp_path):
    config = dataclasses.replace(tiny_inputs.experiment(variant="nokd").models["student"], mlm=False)
    source = tmp_path / "source"
    hf.write_hf(source, config, bert.init(config, jax.random.key(1)), None)
    with pytest.warns(UserWarning, match="no weights for mlm"):
        start = trained_but_for(tiny_inputs, workdir, "mlm/.*|embeddings/position", start=str(source))
        found = tree.flatten(read_run(workdir).params)
    for name in ("mlm/transform/kernel", "embeddings/position"):
        assert np.array_equal(found[name], start[name]), name
    shutil.rmtree(source)
    with pytest.raises(UserError, match=f"'student' does not train .* {source} no longer holds the weights"):
        read_run(workdir)
    hf.write_hf(source, config, bert.init(config, jax.random.key(2)), None)
    with pytest.raises(UserError, match="no longer holds the weights"):
        read_run(workdir)


def test_a_model_that_trains_whole_needs_its_source_no_more(run, tmp_path):
    moved = shutil.copytree(run[0], tmp_path / "run")
    saved = json.loads((moved / "experiment.json").read_text())
    saved["config"]["start"]["teacher"]["source"] = str(tmp_path / "gone")
    (moved / "experiment.json").write_text(json.dumps(saved))
    export(moved, tmp_path / "model", role="teacher", notify=lambda line: None)
    made, expected = hf.read_hf(tmp_path / "model").params, read_run(run[0], "teacher").params
    assert np.array_equal(made["embeddings"]["word"], expected["embeddings"]["word"])


def test_an_unfinished_run_says_its_step(run, tmp_path):
    lines = []
    export(run[0], tmp_path / "model", step=2, notify=lines.append)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "**Unfinished:** these are the weights after step 2 of 4." in card
    assert "## Measured" not in card, "the scores are those of the last step"
    assert "unfinished: step 2 of 4" in lines[0]
    early, late = hf.read_hf(tmp_path / "model").params, read_run(run[0]).params
    assert not np.array_equal(early["embeddings"]["word"], late["embeddings"]["word"])


def test_float16(run, tmp_path):
    export(run[0], tmp_path / "model", dtype="float16", notify=lambda line: None)
    half, full = hf.read_hf(tmp_path / "model").params, read_run(run[0]).params
    np.testing.assert_array_equal(
        half["layers"]["query"]["kernel"], np.asarray(full["layers"]["query"]["kernel"], np.float16).astype(np.float32)
    )


def test_a_run_and_a_folder_can_be_measured(run, tmp_path, tiny_inputs):
    export(run[0], tmp_path / "model", notify=lambda line: None)
    ours, theirs = read_model(run[0]), read_model(tmp_path / "model")
    np.testing.assert_array_equal(ours.params["embeddings"]["word"], theirs.params["embeddings"]["word"])
    assert ours.vocabulary.pieces == theirs.vocabulary.pieces
    assert read_model(run[0], "teacher").vocabulary.pieces == read_model(tiny_inputs.teacher).vocabulary.pieces
    for name in ("vocab.txt", "tokenizer.json"):
        (tmp_path / "model" / name).unlink()
    with pytest.raises(UserError, match="no tokenizer beside its weights"):
        read_model(tmp_path / "model")


def test_more_positions_are_the_same_ones_again(run, tmp_path):
    export(run[0], tmp_path / "as-is", notify=lambda line: None)
    export(run[0], tmp_path / "longer", positions=50, notify=lambda line: None)
    read, longer = hf.read_hf(tmp_path / "as-is"), hf.read_hf(tmp_path / "longer")
    before, table = read.params["embeddings"]["position"], longer.params["embeddings"]["position"]
    assert longer.config == dataclasses.replace(read.config, positions=50) and read.config.positions == 20
    assert all(np.array_equal(table[place], before[place % 20]) for place in range(50))
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "longer").model_max_length == 16
    assert "positions beyond that, up to 50, as they were" in (tmp_path / "longer" / "README.md").read_text()
    assert check_torch_agrees(tmp_path / "longer", longer.config, longer.params).max() < longer.vocabulary.size
    with pytest.raises(UserError, match="--positions 19: the student has 20 already"):
        export(run[0], tmp_path / "shorter", positions=19)


def test_what_can_not_be_exported_is_refused(run, tmp_path, tiny_inputs):
    assert is_run(run[0]) and not is_run(tiny_inputs.teacher)
    with pytest.raises(UserError, match="is not the workdir of a run"):
        export(tiny_inputs.teacher, tmp_path / "model")
    with pytest.raises(UserError, match="has no 'assistant'; its models are student, teacher"):
        export(run[0], tmp_path / "model", role="assistant")
    with pytest.raises(UserError, match="3"):
        export(run[0], tmp_path / "model", step=3)
    new = tmp_path / "new"
    new.mkdir()
    (new / "experiment.json").write_bytes((run[0] / "experiment.json").read_bytes())
    with pytest.raises(UserError, match="has no checkpoint yet"):
        export(new, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match=r"already holds thesis.tex"):
        export(run[0], tmp_path / "model")
    export(run[0], tmp_path / "model", replace=True, notify=lambda line: None)
