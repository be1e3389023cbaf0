"""Small BERTs and DistilBERTs as Hugging Face folders, and what changes them; shared by the tests of hf*.py."""

import json

import jax
import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file

from jaxdistill import bert, hf, tree
from jaxdistill.bert import BertConfig
from jaxdistill.data.vocab import SPECIALS, Vocabulary

TORCH = transformers.BertConfig(
    vocab_size=60,
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=40,
    max_position_embeddings=20,
    layer_norm_eps=0.01,
    hidden_dropout_prob=0.2,
    attention_probs_dropout_prob=0.3,
)
DISTIL = transformers.DistilBertConfig(
    vocab_size=60,
    dim=24,
    n_layers=3,
    n_heads=4,
    hidden_dim=40,
    max_position_embeddings=20,
    dropout=0.2,
    attention_dropout=0.3,
)
OURS = BertConfig(
    vocab=60, hidden=24, layers=3, heads=4, ffn=40, positions=20, dropout=0.2, attention_dropout=0.3, eps=0.01
)
WORDS = Vocabulary((*SPECIALS, *"abcdefghij", "##a", "##b", "the", "house"))
WEIGHTS = "model.safetensors"


def torch_model(kind=transformers.BertForMaskedLM, seed=0, **changes):
    """A torch model with parameters far from their starts, biases and scales too."""
    torch.manual_seed(seed)
    base = DISTIL if kind.config_class is transformers.DistilBertConfig else TORCH
    config = type(base)(**(base.to_diff_dict() | changes))
    model = kind(config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.normal_(0, 0.15).add_(1.0 if name.lower().endswith("norm.weight") else 0.0)
    return model


def batch(vocab=60, rows=5, length=16):
    draw = np.random.default_rng(0)
    lengths = np.linspace(length, length // 3, rows).astype(int)
    return draw.integers(0, vocab, (rows, length), np.int32), np.arange(length) < lengths[:, None]


def our_logits(config, params, ids, mask, types=None):
    """Logits at every position, with float32 matrix products."""
    positions = np.broadcast_to(np.arange(ids.shape[1], dtype=np.int32), ids.shape)

    @jax.jit
    def run(params):
        outputs = bert.Bert(config).apply({"params": params}, ids, mask, types=types, positions=positions)
        return bert.logits(outputs.predictions, params["embeddings"]["word"], params["mlm"]["bias"])

    with jax.default_matmul_precision("highest"):
        return np.asarray(run(params))


def torch_logits(model, ids, mask, types=None):
    inputs = {"input_ids": ids, "attention_mask": mask} | ({} if types is None else {"token_type_ids": types})
    with torch.no_grad():
        return model(**{name: torch.from_numpy(value).long() for name, value in inputs.items()}).logits.numpy()


PREDICT = jax.jit(bert.predict, static_argnums=0)


def check_torch_agrees(folder, config, params):
    """Loads an exported folder in `transformers` and compares its logits with ours; returns its tokenizer's ids."""
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = tokenizer(["The old sailor [MASK] the bridge.", "At noon."], return_tensors="pt", padding=True)
    with torch.no_grad():
        expected = theirs(**rows).logits.numpy()
    ids, mask = rows.input_ids.numpy(), rows.attention_mask.numpy().astype(bool)
    found = PREDICT(config, params, ids, mask, np.broadcast_to(np.arange(ids.shape[1]), ids.shape))
    np.testing.assert_allclose(np.asarray(found)[mask], expected[mask], atol=1e-5)
    return ids


def change_weights(folder, change):
    """Rewrites the weights as `change(tensors)` returns them, or leaves them."""
    tensors = load_file(folder / WEIGHTS)
    changed = change(tensors)
    save_file(tensors if changed is None else changed, folder / WEIGHTS)


def drop(name):
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


def put(name, value):
    return lambda tensors: tensors | {name: value}


def change_config(folder, **changes):
    content = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({key: value for key, value in content.items() if value != "gone"}))


def same(one, other):
    one, other = tree.flatten(one), tree.flatten(other)
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name], other[name]), name


def random_params(config, seed=0):
    draw = np.random.default_rng(seed)

    def fill(name, leaf):
        return (draw.normal(0, 0.15, leaf.shape) + name.endswith("/scale")).astype(np.float32)

    return tree.map_names(fill, bert.shapes(config))


def shard(folder):
    """Cuts the weights into two files with an index, and returns the index."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    where = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(sorted(tensors))}
    for file in set(where.values()):
        save_file({name: value for name, value in tensors.items() if where[name] == file}, folder / file)
    index = {"metadata": {"total_size": 0}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return index


def check_logits_against_torch(model: torch.nn.Module, folder, config: BertConfig) -> None:
    """Saves torch's model and reads it: our float32 is as close to torch's float64 as torch's float32 is, or nearly."""
    model.save_pretrained(folder)
    found = hf.read_hf(folder)
    assert found.config == config
    ids, mask = batch()
    ours, theirs = our_logits(found.config, found.params, ids, mask), torch_logits(model, ids, mask)
    assert np.abs(ours - theirs)[mask].max() < 1e-5
    exact = torch_logits(model.double(), ids, mask)
    assert exact.dtype == np.float64
    assert np.abs(ours - exact)[mask].max() <= 3 * np.abs(theirs - exact)[mask].max()
