"""Real English that every installation carries: the documentation inside the installed packages.

Docstrings, comments and messages of the standard library and of the packages that a plain install brings, and the
reference topics behind `help()`. Files are parsed, never imported. Markup, code, signatures and tables are taken out;
what stays are sentences, each once, in the order of packages, modules and lines.
"""

import ast
import hashlib
import importlib.util
import inspect
import itertools
import os
import pathlib
import re
import sysconfig
import warnings
from collections.abc import Iterator

from tqdm import tqdm

from jaxdistill.errors import UserError
from jaxdistill.files import atomic

# A fixed list: the text must not change because something else is installed too.
# fmt: off
PACKAGES = [
    "absl", "anyio", "click", "datasets", "dateutil", "dill", "etils", "filelock", "flax", "fsspec", "grain",
    "huggingface_hub", "jax", "jaxlib", "numpy", "optax", "orbax", "packaging", "pandas", "psutil", "pyarrow",
    "pygments", "rich", "safetensors", "scipy", "tensorstore", "tokenizers", "tqdm",
]
# fmt: on
_SKIPPED = {
    "test",
    "tests",
    "testing",
    "site-packages",
    "dist-packages",
    "lib2to3",
    "idlelib",
    "_vendor",
    "__pycache__",
}

_LITERAL = re.compile(r"::\s*$")
_COMMENT = re.compile(r"\s*#+:? ?(.*)")
_DIRECTIVE = re.compile(r"\.\. ?(?P<name>[\w-]+)::(?P<rest>.*)")
_PROSE_DIRECTIVES = {"note", "warning", "tip", "important", "caution", "hint", "attention", "admonition"}
_UNDERLINE = re.compile(r"([=\-~^*#`\"'+.])\1{2,}\s*$")
_SILENT = re.compile(r"(references|see also|examples?|usage|raises|doctest.*)\s*:?\s*$", re.IGNORECASE)
_TYPED = re.compile(r"[*\w][\w*, .]* ?: .*|[*\w][\w*, ]*")
_LABEL = re.compile(r"(:\w[\w ]*:|\*{0,2}`{0,2}[\w.]+`{0,2}( ?\([^)]*\))?:)(?:\s+|$)|([*+-]|\(?\w{1,2}[.)])\s+")
_ROLE = re.compile(r":[\w:-]+:`~?([^`<]*?)(?:\s*<[^`>]*>)?`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]*>`_{0,2}|\[([^\]]+)\]\([^)]*\)")
_FOOTNOTE = re.compile(r"\s?\[[\w#*]{1,12}\]_")
_MARKS = re.compile(r"``?|\*\*?(?=\S)|(?<=\S)\*\*?(?!\w)|`_")
_END = re.compile(r"(?<=[.!?])[\"')]?\s+(?=[\"'(]?[A-Z])")
_WORD = re.compile(r"[\"'(]*[A-Za-z][a-z]*(?:['’-][A-Za-z]?[a-z]+)*[.,;:!?\"')]*")
_STRANGE = re.compile(r"[\\{}<>=|~^@$#%_\[\]]|\.\.|::|\b\w+\(\)?\w*\)")


def documentation(limit_bytes: int | None = None) -> Iterator[tuple[str, str]]:
    """Yields (module, text): one document for each module, a paragraph a line.

    Args:
      limit_bytes: stop after the document that reaches this many bytes of text.
    """
    seen: set[bytes] = set()
    size = 0
    for name, found in _sources():
        paragraphs = []
        for text in found:
            for block in prose(text):
                fresh = [line for line in block if _remember(line, seen)]
                if fresh:
                    paragraphs.append(" ".join(fresh))
        if paragraphs:
            document = "\n".join(paragraphs) + "\n"
            size += len(document.encode())
            yield name, document
            if limit_bytes is not None and size >= limit_bytes:
                return


def write_documentation(
    train: str | os.PathLike,
    held_out: str | os.PathLike,
    *,
    held_out_share: float = 0.03,
    limit_bytes: int | None = None,
) -> dict[str, int]:
    """Writes the documentation as two text files, documents separated by blank lines.

    A document is held out by a hash of its module's name, and no sentence is in both files.

    Args:
      train: the file to train on.
      held_out: the file to measure on.
      held_out_share: about which share of the documents is held out.
      limit_bytes: as in `documentation`.

    Returns:
      The bytes written to each, `{"train": ..., "held_out": ...}`.

    Raises:
      UserError: there is no documentation to be found.
    """
    sizes = {"train": 0, "held_out": 0}
    with atomic(train) as first, atomic(held_out) as second:
        with open(first, "wb") as train_file, open(second, "wb") as held_out_file:
            progress = tqdm(documentation(limit_bytes), desc="reading documentation", unit=" modules", disable=None)
            for name, text in progress:
                share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") / 2**64
                kind, file = ("held_out", held_out_file) if share < held_out_share else ("train", train_file)
                sizes[kind] += file.write(text.encode() + b"\n")
        if not sizes["train"] or not sizes["held_out"]:
            raise UserError("this Python carries too little documentation to train on: give your own text with --text")
    return sizes


def prose(text: str) -> list[list[str]]:
    """The sentences of a docstring, paragraph by paragraph."""
    found = []
    for paragraph in _paragraphs(inspect.cleandoc(text)):
        plain = _ROLE.sub(r"\1", paragraph)
        plain = _LINK.sub(lambda match: match[1] or match[2], plain)
        plain = _MARKS.sub("", _FOOTNOTE.sub("", plain))
        plain = " ".join(plain.split())
        kept = [sentence for sentence in _END.split(plain) if _reads(sentence)]
        if kept:
            found.append(kept)
    return found


def _paragraphs(text: str) -> list[str]:
    """Blocks of running text: no code, no headings, no signatures; list items and parameters apart."""
    lines = [*text.expandtabs().splitlines(), ""]
    blocks: list[list[str]] = [[]]
    skip_deeper_than, in_example = None, False
    for line, following in itertools.pairwise(lines):
        bare = line.strip()
        depth = _depth(line)
        if not bare:
            blocks.append([])
            in_example = False
            continue
        if skip_deeper_than is not None:
            if depth > skip_deeper_than:
                continue
            skip_deeper_than = None
        directive = _DIRECTIVE.match(bare)
        if directive:
            blocks.append([])
            if directive["name"] in _PROSE_DIRECTIVES:
                blocks[-1].append(directive["rest"])
            else:
                skip_deeper_than = depth
        elif in_example or bare.startswith((">>>", "$ ", "```", "In [", "Out[")):
            in_example = True  # What an example prints ends with a blank line.
        elif _UNDERLINE.match(bare) or _UNDERLINE.match(following.strip()) or _signs(bare, depth, following):
            blocks.append([])
        elif bare.endswith(":") and len(bare.split()) == 1:
            blocks.append([])
            if _SILENT.match(bare):
                skip_deeper_than = depth
        else:
            label = _LABEL.match(bare)
            if label:
                blocks.append([])
                bare = bare[label.end() :]
            if _LITERAL.search(bare):
                skip_deeper_than = depth
                bare = bare[:-1]
            blocks[-1].append(bare)
    return [" ".join(block) for block in blocks if block]


def _signs(bare: str, depth: int, following: str) -> bool:
    """Whether a line is a parameter's name and type, above its meaning."""
    deeper = following.strip() and _depth(following) > depth
    return bool(deeper and _TYPED.fullmatch(bare) and not bare.endswith((".", ",", ":")))


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _reads(sentence: str) -> bool:
    """Whether a sentence reads as English: whole, of words, with hardly a symbol."""
    words = sentence.split()
    whole = sentence[:1].isupper() and sentence.rstrip("\"')").endswith((".", "!", "?"))
    if len(words) < 4 or not whole or "://" in sentence:
        return False
    plain = sum(_WORD.fullmatch(word) is not None for word in words)
    return plain >= 0.85 * len(words) and len(_STRANGE.findall(sentence)) <= len(words) // 12


def _remember(sentence: str, seen: set[bytes]) -> bool:
    key = hashlib.blake2b(sentence.casefold().encode(), digest_size=12).digest()
    if key in seen:
        return False
    seen.add(key)
    return True


def _sources() -> Iterator[tuple[str, list[str]]]:
    """The texts of every module, the reference topics first."""
    library = pathlib.Path(sysconfig.get_paths()["stdlib"])
    yield from _topics(library / "pydoc_data" / "topics.py")
    for package in ["python", *PACKAGES]:
        for folder in [library] if package == "python" else _folders(package):
            for path in sorted(_modules(folder), key=lambda path: path.parts):
                yield f"{package}/{path.relative_to(folder).with_suffix('').as_posix()}", texts(path)


def _folders(package: str) -> list[pathlib.Path]:
    spec = importlib.util.find_spec(package)
    return (
        sorted(map(pathlib.Path, spec.submodule_search_locations)) if spec and spec.submodule_search_locations else []
    )


def _modules(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in _SKIPPED]
        yield from (pathlib.Path(parent, name) for name in files if re.search(r"(?<!_test)\.py$", name))


def texts(path: pathlib.Path) -> list[str]:
    """The string constants and comments of a Python file in the order of lines; none when it does not parse."""
    try:
        source = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parsed = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    found = [
        (node.lineno, node.col_offset, node.value)
        for node in ast.walk(parsed)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    comment = []
    for number, line in enumerate([*source.decode(errors="ignore").splitlines(), ""]):
        match = _COMMENT.match(line)
        if match:
            comment.append(match[1])
        elif comment:
            found.append((number, 0, "\n".join(comment)))
            comment = []
    return [text for *_, text in sorted(found) if text.count(" ") >= 3]


def _topics(path: pathlib.Path) -> Iterator[tuple[str, list[str]]]:
    if not path.is_file():
        return
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            topics = ast.literal_eval(node.value)
            yield from ((f"topics/{name}", [topics[name]]) for name in sorted(topics))
