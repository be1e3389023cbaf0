"""A Hugging Face model folder as files: found on disk or on the hub, its tensors listed, or written whole."""

import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
import safetensors

from jaxdistill import manifest
from jaxdistill.errors import UserError
from jaxdistill.files import read_json, settle
from jaxdistill.hf_families import CLASSIFIER, SPANS, class_of

TOKENIZER_FILES = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARDS = "model-*-of-*.safetensors"

_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_HUB_ID = r"[\w.-]+(/[\w.-]+)?"
_CONVERT = (
    "convert it once with transformers and torch, where you trust its origin: python -c 'from transformers import "
    '{auto}, AutoTokenizer; {auto}.from_pretrained("{source}").save_pretrained("NEW"); '
    'AutoTokenizer.from_pretrained("{source}").save_pretrained("NEW")\' and give NEW'
)


def locate(source: str | os.PathLike, revision: str | None, patterns: Sequence[str]) -> tuple[pathlib.Path, str | None]:
    """The folder that holds a model, and the commit of it when it comes from the hub.

    Args:
      source: a folder, or a hub id such as `google-bert/bert-base-uncased`.
      revision: branch, tag or commit on the hub; None means its main branch.
      patterns: which files of the hub's repository to fetch.

    Raises:
      UserError: there is no such folder, or the hub can't give it.
    """
    path = pathlib.Path(source).expanduser()
    if path.is_dir():
        if revision is not None:
            raise UserError(f"{source} is a folder, which has no revision {revision!r}: leave the revision out")
        if (path / manifest.NAME).is_file():
            raise UserError(f"{source} is a run, no model yet: `jaxdistill export {source} --out FOLDER` makes one")
        check_single(path)
        return path, None
    if path.exists():
        raise UserError(f"{source} is a file: give the folder that holds config.json and {WEIGHTS}")
    if not re.fullmatch(_HUB_ID, str(source)) or str(source).startswith("."):
        raise UserError(f"{source} does not exist: give a model folder or a hub id such as owner/name")
    import huggingface_hub  # here: most runs never need the hub, and it is slow to import

    try:
        folder = huggingface_hub.snapshot_download(str(source), revision=revision, allow_patterns=list(patterns))
    except Exception as error:  # the client lets its transport's own types through
        reason = (str(error).strip().splitlines() or [""])[0]
        at = f" at revision {revision!r}" if revision else ""
        raise UserError(
            f"{source} is no folder here, and the Hugging Face hub could not give {source}{at} "
            f"({type(error).__name__}: {reason}): check the name, the network and HF_HUB_OFFLINE, or give a folder"
        ) from error
    path = pathlib.Path(folder)
    return path, path.name


def check_single(source: str | os.PathLike) -> None:
    """Raises UserError for the folder of a sweep, which holds runs, or of a grid, which holds sweeps."""
    for inside in ("seed-0", "*/seed-0"):
        if found := sorted(pathlib.Path(source).glob(f"{inside}/{manifest.NAME}")):
            raise UserError(f"{source} holds the runs of a sweep: name one of them, such as {found[0].parent}")


@dataclasses.dataclass(frozen=True)
class Stored:
    """One tensor in a weights file, not yet read: its file, name, shape and safetensors type (`F32`, `BF16`, ...)."""

    path: pathlib.Path
    name: str
    shape: tuple[int, ...]
    kind: str

    def load(self) -> np.ndarray:
        """The tensor as float32."""
        with _opened(self.path) as file, np.errstate(over="ignore"):
            return file.get_tensor(self.name).astype(np.float32)


@contextlib.contextmanager
def _opened(path: pathlib.Path):
    try:
        with safetensors.safe_open(path, framework="np") as file:
            yield file
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path} can't be read as safetensors ({error}): is it torn, or a Git LFS pointer?") from error


def tensors(folder: pathlib.Path, source: str | os.PathLike) -> list[Stored]:
    """Every tensor of a model folder's safetensors, in one file or in shards with an index.

    Raises:
      UserError: there are no safetensors (only a pickle, say), a file is torn or missing, an index names a file outside
        the folder, or index and files disagree.
    """
    if (folder / WEIGHTS).is_file():
        return _listed(folder / WEIGHTS)
    if not (folder / INDEX).is_file():
        named = class_of(read_json(folder / "config.json")) if (folder / "config.json").is_file() else ""
        head = next((head for head in (CLASSIFIER, SPANS) if named.endswith(head)), "MaskedLM")
        convert = _CONVERT.format(source=source, auto=f"AutoModelFor{head}")
        pickle = [name for name in _PICKLES if (folder / name).exists()]
        if pickle:
            raise UserError(f"{source} has its weights in a pickle ({pickle[0]}), which can run any code: {convert}")
        raise UserError(f"{source} has no {WEIGHTS}; if it holds a pickle (pytorch_model.bin), {convert}")
    content = read_json(folder / INDEX)
    where = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(where, dict) or not all(isinstance(name, str) for name in where.values()):
        raise UserError(f"{folder / INDEX} has no weight_map from tensors to files")
    found = [stored for name in sorted(set(where.values())) for stored in _listed(_inside(folder, name))]
    in_files = {(stored.name, stored.path.relative_to(folder).as_posix()) for stored in found}
    in_index = {(name, pathlib.PurePosixPath(file).as_posix()) for name, file in where.items()}
    if in_files != in_index:
        names = sorted({name for name, _ in in_files ^ in_index})
        raise UserError(f"{folder / INDEX} and its files disagree on {listing(names)}")
    return found


def _listed(path: pathlib.Path) -> list[Stored]:
    with _opened(path) as file:
        views = {name: file.get_slice(name) for name in sorted(file.keys())}
        return [Stored(path, name, tuple(view.get_shape()), view.get_dtype()) for name, view in views.items()]


def _inside(folder: pathlib.Path, name: str) -> pathlib.Path:
    """The path of a shard that an index names; the hub's cache links from `snapshots/COMMIT` to its `blobs`."""
    pure = pathlib.PurePosixPath(name)
    path = folder / name
    homes = [folder.resolve()]
    if folder.absolute().parent.name == "snapshots":
        homes.append((folder.absolute().parent.parent / "blobs").resolve())
    leaves = pure.is_absolute() or ".." in pure.parts or "\\" in name
    if leaves or not any(path.resolve().is_relative_to(home) for home in homes):
        raise UserError(f"{folder / INDEX} names {name!r}, which lies outside the folder: it is not read")
    if not path.is_file():
        raise UserError(f"{folder / INDEX} names {name}, which is missing: fetch the whole folder again")
    return path


def listing(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


@contextlib.contextmanager
def whole_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary sibling of `folder`; on success it is flushed and takes the whole folder's place.

    When the body raises, the sibling is removed and `folder` is left as it was. A folder that is replaced is absent
    between two renames; if the second fails, it is put back.

    Raises:
      UserError: it can't be written (a full disk, no permission).
    """
    folder = folder.resolve()
    made = aside = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
        yield made
        for path in (*made.iterdir(), made):
            settle(path)
        if folder.exists():
            aside = made.with_suffix(".old")
            os.rename(folder, aside)
        os.rename(made, folder)
    except BaseException as error:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        if aside is not None and not folder.exists():
            os.rename(aside, folder)
        if isinstance(error, OSError | safetensors.SafetensorError):
            raise UserError(f"{folder} could not be written ({error}); nothing was changed there") from error
        raise
    if aside is not None:
        shutil.rmtree(aside)
