"""Imports point downward: each layer may import those before it, and nothing imports in a circle."""

import ast
import graphlib
import pathlib
import re

import pytest

import jaxdistill

ROOT = pathlib.Path(jaxdistill.__file__).parent
LAYERS = [
    ["errors", "places", "files", "tree", "losses", "knobs", "progress", "signals", "chips", "dropout", "bert_config"],
    ["lock", "lease", "agree", "table", "run"],
    ["versions", "member", "line", "roll_call", "parent", "distributed"],
    ["attention", "events", "seal", "checksum", "manifest", "picture", "usage"],
    ["bert", "optim", "sharding", "checkpoint", "metrics", "data/*", "tasks/*"],
    ["hf_files", "hf_families", "stopwatch"],
    ["hf_names", "model_card", "mixed", "task_head", "transplant", "speed"],
    ["terms/*", "hf"],
    ["initial"],
    ["experiment"],
    ["task_inputs"],
    ["inputs", "memory", "step"],
    ["cache", "collectives", "evaluate", "evaluate_task", "resolve", "taught", "traffic"],
    ["roofline", "calibration", "program", "standins"],
    ["train", "export", "dry_run", "plan"],
    ["sweep", "task_model"],
    ["fill", "augment", "measure", "predict", "models", "compare", "bench", "report", "quote", "quickstart"],
    ["cli_plan", "cli_runs", "cli_tasks"],
    ["cli"],
    ["child"],
]
# A package named here is imported by these modules alone.
ONLY = {
    "apache_beam": {"data/beam", "data/beam_files"},
    "flax": {"bert"},
    "matplotlib": {"picture"},
    "orbax": {"checkpoint"},
    "torch": set(),
    "transformers": set(),
}
DATA_WITH_JAX = {"data/loader"}

MODULES = {
    path.relative_to(ROOT).with_suffix("").as_posix(): path
    for path in sorted(ROOT.rglob("*.py"))
    if path.name != "__init__.py"
}


def layer(module: str) -> int | None:
    pattern = f"{folder}/*" if (folder := module.rpartition("/")[0]) else module
    return next((level for level, names in enumerate(LAYERS) if pattern in names), None)


def imported(path: pathlib.Path) -> set[str]:
    """Dotted names that a file imports, anywhere in it; of `from a import b` both a and a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively: write the package's name"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def own(path: pathlib.Path) -> set[str]:
    """Modules of the package that a file imports, named as in MODULES."""
    dotted = {name.removeprefix("jaxdistill.").replace(".", "/") for name in imported(path) if "." in name}
    return dotted & set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downward(module):
    level = layer(module)
    assert level is not None, f"jaxdistill/{module}.py is in no layer: add it to LAYERS and to docs/design.md"
    above = {name for name in own(MODULES[module]) if layer(name) is None or layer(name) > level}
    assert not above, f"jaxdistill/{module}.py imports {above} from a layer above its own"


def test_the_design_names_every_module():
    named = set(re.findall(r"\w+", (ROOT.parent / "docs" / "design.md").read_text(encoding="utf-8")))
    assert {module.rpartition("/")[2] for module in MODULES} <= named


def test_imports_have_no_circle():
    graphlib.TopologicalSorter({module: own(path) - {module} for module, path in MODULES.items()}).prepare()


@pytest.mark.parametrize("module", MODULES)
def test_each_dependency_has_its_place(module):
    packages = {name.split(".")[0] for name in imported(MODULES[module])}
    for package, places in ONLY.items():
        assert package not in packages or module in places, f"{package} is imported by {places or 'tests'} only"
    if module.startswith("data/") and module not in DATA_WITH_JAX:
        assert not packages & {"jax", "jaxlib"}, "data/ is numpy only"
    assert "jaxdistill.configs" not in imported(MODULES[module]), "configs are imported by nothing"


def test_the_modules_of_the_package_are_seen():
    assert {"errors", "knobs", "data/vocab"} <= set(MODULES)
    assert own(MODULES["knobs"]) == {"errors"}
