"""A wheel built from this checkout, installed elsewhere."""

import ast
import functools
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
from packaging.requirements import Requirement

import jaxdistill

ROOT = pathlib.Path(__file__).parent.parent


def run(*command, **options):
    result = subprocess.run(command, capture_output=True, text=True, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "checkout"  # Setuptools leaves build/ and *.egg-info behind, and an old build/ gets into wheels.
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("jaxdistill", "configs"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    # Nothing is fetched: the build uses the setuptools of this environment.
    pip = [sys.executable, "-m", "pip", "wheel", "--no-index", "--no-deps", "--no-build-isolation"]
    run(*pip, "--wheel-dir", str(folder), str(copy))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> pathlib.Path:
    target = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--target", str(target), str(wheel))
    return target


@pytest.fixture
def from_elsewhere(installed, tmp_path):
    """Runs a command in an empty folder, where only the installed wheel is on the path before the dependencies."""
    return functools.partial(run, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)})


def test_the_wheel_holds_every_file_of_the_package(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {f"jaxdistill/{path.relative_to(ROOT / 'jaxdistill')}" for path in (ROOT / "jaxdistill").rglob("*.py")}
    configs = {f"jaxdistill/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    assert len(configs) > 1
    assert modules | configs | {"jaxdistill/py.typed"} <= names
    outside = {name for name in names if not name.startswith("jaxdistill/") and ".dist-info/" not in name}
    assert not outside, "tests and benchmarks stay out of the wheel"


def test_the_wheel_carries_licence_version_script_and_readme(wheel):
    archive = zipfile.ZipFile(wheel)
    texts = {
        name.split(".dist-info/")[1]: archive.read(name).decode()
        for name in archive.namelist()
        if ".dist-info/" in name
    }
    licence = next(text for name, text in texts.items() if name.endswith("LICENSE"))
    assert licence == (ROOT / "LICENSE").read_text()
    assert f"\nVersion: {jaxdistill.__version__}\n" in texts["METADATA"]
    assert "jaxdistill = jaxdistill.cli:main" in texts["entry_points.txt"]
    assert (ROOT / "README.md").read_text().splitlines()[0] in texts["METADATA"]


def test_the_installed_wheel_runs_in_any_folder(installed, from_elsewhere, tmp_path):
    code = "import jaxdistill, jaxdistill.knobs as k; print(jaxdistill.__file__); print(k.folder())"
    package, configs = from_elsewhere(sys.executable, "-c", code).split()
    assert pathlib.Path(package) == installed / "jaxdistill" / "__init__.py"
    assert pathlib.Path(configs) == installed / "jaxdistill" / "configs"
    assert jaxdistill.__version__ in from_elsewhere(sys.executable, "-m", "jaxdistill.cli", "--version")
    assert "--variant" in from_elsewhere(sys.executable, "-m", "jaxdistill.cli", "train", "extreme", "--help")
    assert list(tmp_path.iterdir()) == []


def test_the_installed_command_goes_from_text_to_a_compiled_step(installed, from_elsewhere, tmp_path, tiny_corpus):
    def command(line):
        return from_elsewhere(str(installed / "bin" / "jaxdistill"), *shlex.split(line))

    command(f"prepare '{tiny_corpus}' --out corpus --workers 1")
    command("vocab corpus --size 60 --out vocab.txt")
    shape = "--hidden 8 --layers 1 --heads 2 --positions 16 --length 16 --predictions 2 --batch 8"
    said = command(f"train mlm --workdir run --corpus corpus --vocabulary vocab.txt {shape} --dry-run")
    assert "60 pieces" in said and "bytes per device" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "vocab.txt"]


def imported(*folders, anywhere=False):
    """Third-party packages that the files of some folders import, at the top of a module or anywhere in it."""
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    names = set()
    for path in files:
        parsed = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(parsed) if anywhere else parsed.body:
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.split(".")[0])
    names -= set(sys.stdlib_module_names) | {path.stem for path in files} | {"jaxdistill"}
    return {
        {"orbax": "orbax_checkpoint", "yaml": "pyyaml", "sklearn": "scikit_learn"}.get(name, name).lower()
        for name in names
    }


def test_every_import_is_a_requirement(wheel):
    archive = zipfile.ZipFile(wheel)
    metadata = next(archive.read(name).decode() for name in archive.namelist() if name.endswith("METADATA"))
    required = [Requirement(line) for line in re.findall(r"^Requires-Dist: (.*)$", metadata, re.MULTILINE)]
    plain = {requirement.name.replace("-", "_").lower() for requirement in required if not requirement.marker}
    test = {
        requirement.name.replace("-", "_").lower()
        for requirement in required
        if requirement.marker and requirement.marker.evaluate({"extra": "test"})
    }
    extras = set(re.findall(r"^Provides-Extra: (.*)$", metadata, re.MULTILINE))
    assert extras == {"test", "plot", "gcs", "beam", "cuda", "tpu", "tfds", "wandb"}
    assert imported("jaxdistill", "configs") <= plain
    optional = {"matplotlib", "wandb", "tensorflow", "tensorflow_datasets", "apache_beam"}
    assert imported("jaxdistill", anywhere=True) <= plain | optional, "in a function, an extra may be imported"
    assert imported("tests", anywhere=True) <= plain | test | optional


def test_one_version_and_one_test_command():
    assert f"\nversion: {jaxdistill.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## {jaxdistill.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    readme = (ROOT / "README.md").read_text()
    assert 'python3 -m venv .venv && .venv/bin/pip install -e ".[test]" && .venv/bin/pytest' in readme
    assert (
        tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["build-backend"] == "setuptools.build_meta"
    )
