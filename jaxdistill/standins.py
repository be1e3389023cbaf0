"""Stand-ins for what a plan is not given: text of no consequence, a vocabulary, a teacher's shape; never trained on."""

import inspect
import pathlib
from collections.abc import Callable, Mapping, Sequence

from jaxdistill.data.corpus import prepare
from jaxdistill.data.vocab import SPECIALS
from jaxdistill.files import write_json, write_text
from jaxdistill.knobs import REQUIRED

PIECES = 4928
"""Of a stand-in vocabulary: as many as the paper's students have (Zhao et al., arXiv 1909.11687)."""

_WORDS = [first + second for first in "bcdfghjklmnp" for second in "aeiou"]

_LARGE = {"num_hidden_layers": 24, "hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}
_BASE = {"num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
_HUB = {"google-bert/bert-base-uncased": _BASE, "google-bert/bert-large-uncased": _LARGE}
_BERT = {"vocab_size": 30_522, "max_position_embeddings": 512, "type_vocab_size": 2, "model_type": "bert"}


def stand_ins(config: Callable, folder: pathlib.Path) -> dict[str, tuple[str, str]]:
    """Makes what a config needs and a plan can do without, in a folder.

    Args:
      config: whose knobs `corpus` and `vocabulary` get stand-ins, and those that name a BERT of Devlin et al.: required
        ones of the name `teacher` or `model`, and those whose default is its id on the hub.
      folder: an empty one.

    Returns:
      By knob the path of its stand-in, and what it is in words.
    """
    knobs = inspect.signature(config).parameters
    made = {}
    if "corpus" in knobs:
        write_text(folder / "text.txt", "\n\n".join([" ".join(_WORDS * 40)] * 20) + "\n")
        prepare([str(folder / "text.txt")], folder / "corpus", workers=1)
        made["corpus"] = (str(folder / "corpus"), "no corpus is given: epochs and padding are not known")
    if "vocabulary" in knobs and knobs["vocabulary"].default in (REQUIRED, ""):
        _write_pieces(folder / "vocab.txt", PIECES)
        made["vocabulary"] = (
            str(folder / "vocab.txt"),
            f"no vocabulary is given: one of {PIECES:,} pieces is supposed",
        )
    for name, knob in knobs.items():
        if knob.default in _HUB or (name in ("teacher", "model") and knob.default is REQUIRED):
            source = knob.default if knob.default in _HUB else "google-bert/bert-base-uncased"
            made[name] = (_write_bert(folder / name, _HUB[source]), f"no {name} is given: {source}'s shape is supposed")
    return made


def arguments(made: Mapping[str, tuple[str, str]], given: Sequence[str]) -> list[str]:
    """Knobs as typed, with stand-ins before those that are given: of two, the last holds."""
    return [*(f"--{name}={path}" for name, (path, _) in made.items()), *given]


def _write_bert(folder: pathlib.Path, shape: Mapping[str, int]) -> str:
    folder.mkdir()
    write_json(folder / "config.json", _BERT | shape)
    _write_pieces(folder / "vocab.txt", _BERT["vocab_size"])
    return str(folder)


def _write_pieces(path: pathlib.Path, size: int) -> None:
    pieces = [*SPECIALS, *_WORDS]
    write_text(path, "".join(f"{piece}\n" for piece in [*pieces, *(f"piece{n}" for n in range(size - len(pieces)))]))
