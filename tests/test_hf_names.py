"""The table of names, and which configs are honoured."""

import dataclasses

import pytest
from hf_folders import OURS, change_config, torch_model

from jaxdistill import bert, hf, tree
from jaxdistill.errors import UserError
from jaxdistill.hf_families import BERT, DISTILBERT, family_of


@pytest.fixture
def folder(tmp_path):
    """A masked LM as `transformers` saves it, to change."""
    torch_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("family", "parts"),
    [
        (BERT, {"nsp": True}),
        (DISTILBERT, {"types": 0, "eps": 1e-12, "pooling": "relu"}),
    ],
)
def test_every_parameter_has_a_name_of_its_own(family, parts):
    config = dataclasses.replace(OURS, pooler=True, classifier=("no", "yes"), spans=True, **parts)
    assert family_of(config) is family
    assert tree.flatten(bert.shapes(config)).keys() == family.names.keys()
    assert len(set(family.names.values())) == len(family.names)
    for ours, theirs in family.names.items():
        assert ours.startswith("layers/") == ("{}" in theirs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu_new"}, "hidden_act is 'gelu_new', but only 'gelu'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"add_cross_attention": True}, "add_cross_attention is True"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings is False"),
        ({"model_type": "roberta"}, "model_type is 'roberta'"),
        ({"auto_map": {"AutoModel": "modeling.Mine"}}, "run code of its own"),
        ({"hidden_size": "gone"}, "lacks hidden_size"),
        ({"hidden_size": "24"}, "hidden_size is '24'"),
        ({"num_attention_heads": 5}, "5 attention heads do not divide the width 24"),
        ({"layer_norm_eps": "tiny"}, "layer_norm_eps is 'tiny'"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob is 1.5"),
    ],
)
def test_a_config_that_we_cannot_honour_is_refused(folder, changes, message):
    change_config(folder, **changes)
    for read in (hf.read_hf, hf.read_config):
        with pytest.raises(UserError, match=message):
            read(folder)


def test_an_old_config_has_the_defaults_of_its_time(folder):
    change_config(folder, model_type="gone", layer_norm_eps="gone", type_vocab_size="gone", tie_word_embeddings="gone")
    assert hf.read_config(folder) == dataclasses.replace(OURS, eps=1e-12, types=2)
