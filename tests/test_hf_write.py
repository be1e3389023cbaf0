"""Exported folders: complete, whole or absent, and never in the place of something else."""

import dataclasses
import errno
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from hf_folders import OURS, WORDS, change_config, random_params, same

from jaxdistill import hf
from jaxdistill.data.vocab import SPECIALS, Vocabulary
from jaxdistill.errors import UserError


def test_a_bucket_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="gs://bucket/out: this has to be on a disk"):
        hf.write_hf("gs://bucket/out", OURS, random_params(OURS), WORDS)
    assert not list(tmp_path.iterdir())


def test_the_exported_folder_is_complete(tmp_path):
    params = jax.tree.map(jnp.asarray, random_params(OURS))
    hf.write_hf(tmp_path / "out", OURS, params, WORDS, lambda size: f"{size} bytes\n")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    }
    size = (tmp_path / "out/model.safetensors").stat().st_size
    assert (tmp_path / "out/README.md").read_text() == f"{size} bytes\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("the HOUSE ab").input_ids == [WORDS.cls, 17, 18, 5, 16, WORDS.sep]
    assert tokenizer.model_max_length == 20
    assert transformers.AutoConfig.from_pretrained(tmp_path / "out").pad_token_id == WORDS.pad
    model = transformers.AutoModel.from_pretrained(tmp_path / "out")
    assert np.array_equal(model.embeddings.word_embeddings.weight.detach().numpy(), params["embeddings"]["word"])


def test_a_tokenizer_cuts_to_the_length_that_was_trained(tmp_path):
    hf.write_hf(tmp_path / "out", OURS, random_params(OURS), WORDS, max_length=16)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert len(tokenizer("the house " * 20, truncation=True).input_ids) == 16


def test_a_pooler_is_written_beside_the_masked_lm(tmp_path):
    config = dataclasses.replace(OURS, pooler=True)
    params = random_params(config)
    hf.write_hf(tmp_path / "out", config, params, None)
    model, report = transformers.AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"]
    assert np.array_equal(model.pooler.dense.weight.detach().numpy(), params["pooler"]["kernel"].T)


def test_an_export_replaces_an_export_and_nothing_else(tmp_path):
    out = tmp_path / "out"
    out.mkdir()  # an empty folder is free
    hf.write_hf(out, OURS, random_params(OURS), WORDS, lambda size: "first")
    hf.write_hf(out, OURS, random_params(OURS, 1), None)
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors"]
    same(hf.read_hf(out).params, random_params(OURS, 1))
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"already holds thesis.tex"):
        hf.write_hf(out, OURS, random_params(OURS), None)
    (out / "thesis.tex").unlink()
    change_config(out, jaxdistill_version="gone")
    with pytest.raises(UserError, match=r"already holds config.json, model.safetensors"):
        hf.write_hf(out, OURS, random_params(OURS), None)
    hf.write_hf(out, OURS, random_params(OURS), None, replace=True)
    same(hf.read_hf(out).params, random_params(OURS))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        hf.write_hf(tmp_path / "file", OURS, random_params(OURS), None, replace=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out"]


@pytest.mark.parametrize("before", [False, True])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, before):
    out = tmp_path / "out"
    if before:
        hf.write_hf(out, OURS, random_params(OURS), WORDS, lambda size: "first")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(hf, "write_tokenizer", full)
    with pytest.raises(UserError, match=r"could not be written .*No space left"):
        hf.write_hf(out, OURS, random_params(OURS, 1), WORDS, lambda size: "second")
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if before else [])
    if before:
        assert (out / "README.md").read_text() == "first"
        same(hf.read_hf(out).params, random_params(OURS))


def test_a_failed_swap_puts_the_old_folder_back(tmp_path, monkeypatch):
    out = tmp_path / "out"
    hf.write_hf(out, OURS, random_params(OURS), None, lambda size: "first")
    rename = os.rename

    def fail_to_install(source, target):
        if str(source).endswith(".tmp") and target == out:
            raise PermissionError(errno.EACCES, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(hf.hf_files.os, "rename", fail_to_install)
    with pytest.raises(UserError, match="could not be written"):
        hf.write_hf(out, OURS, random_params(OURS, 1), None, lambda size: "second")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (out / "README.md").read_text() == "first"


def without_bias(params):
    return {name: value for name, value in params.items() if name != "mlm"}


def overflowing(params):
    params["embeddings"]["word"][3, 4] = 1e6
    return params


def not_a_number(params):
    params["layers"]["query"]["kernel"][1, 2, 3] = np.nan
    return params


def wrongly_shaped(params):
    params["mlm"]["bias"] = np.zeros(61, np.float32)
    return params


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (without_bias, {}, "the parameters and the config disagree on mlm/bias, mlm/norm/bias"),
        (wrongly_shaped, {}, r"mlm/bias is \[61\], the config says \[60\]"),
        (not_a_number, {}, "layers/query/kernel holds numbers that are not finite"),
        (overflowing, {"dtype": "float16"}, "embeddings/word holds numbers that are not finite in float16"),
        (dict, {"dtype": "int8"}, "choose float32 or float16"),
    ],
)
def test_a_model_that_cannot_be_written_is_refused(tmp_path, change, options, message):
    with pytest.raises(UserError, match=message):
        hf.write_hf(tmp_path / "out", OURS, change(random_params(OURS)), None, **options)
    assert not list(tmp_path.iterdir())


def test_a_vocabulary_larger_than_the_model_is_refused(tmp_path):
    large = Vocabulary((*SPECIALS, *(f"w{number}" for number in range(60))))
    with pytest.raises(UserError, match="65 pieces, the model only 60 rows"):
        hf.write_hf(tmp_path / "out", OURS, random_params(OURS), large)
