"""What every test runs under: strict JAX, eight emulated CPU devices, no network."""

import os
import pathlib
import random

import pytest

# Read by jax when it is first imported. A rank that broadcasts silently is a bug. A late device on a busy machine is no
# deadlock: it may be ten minutes late. Programs here are tiny and run a few times, so that compiling them is what the
# tests cost: the last two flags make it five times as fast.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_cpu_collective_call_warn_stuck_timeout_seconds=300",
        "--xla_cpu_collective_call_terminate_timeout_seconds=600",
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false",
    ]
).strip()
os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "disabled"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

WHO = ["the old sailor", "a young teacher", "the river", "my neighbour", "the small engine", "a patient gardener"]
DOES = ["follows", "remembers", "repairs", "crosses", "describes", "quietly watches"]
WHAT = ["the northern road", "a wooden bridge", "seven letters", "the café's garden", "an unfinished map", "its shadow"]
WHEN = ["in the morning", "before winter", "after 1902", "without a word", "for the second time", "at noon"]


def sentences(documents: int, seed: int = 0) -> str:
    """English-like text with some structure to learn: sentences a line, documents separated by blank lines."""
    draw = random.Random(seed).random  # The one method whose values hold across Python versions.

    def pick(phrases):
        return phrases[int(draw() ** 2 * len(phrases))]

    def sentence():
        who = pick(WHO)
        line = f"{who} {pick(DOES)} {pick(WHAT)}, {pick(WHEN)}"
        if draw() < 0.5:
            line += f", and {who} {pick(DOES)} {pick(WHAT)}"
        return line[0].upper() + line[1:] + "."

    return "\n\n".join("\n".join(sentence() for _ in range(4 + int(draw() * 12))) for _ in range(documents)) + "\n"


@pytest.fixture(scope="session")
def tiny_text() -> str:
    """300 short documents, about 200 kB; the same text in every run."""
    return sentences(300)


@pytest.fixture(scope="session")
def tiny_corpus(tiny_text, tmp_path_factory) -> pathlib.Path:
    """`tiny_text` as a file; tests only read it."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.txt"
    path.write_text(tiny_text, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_inputs(tiny_text, tmp_path_factory):
    """Corpora, a vocabulary and a teacher for runs of seconds; `tiny_inputs.experiment(variant="dual")` makes one."""
    import tiny  # here: it imports jax, which reads the lines above

    return tiny.make(tmp_path_factory.mktemp("inputs"), tiny_text, sentences(40, seed=1))


@pytest.fixture(scope="session")
def bucket():
    """The server that stands in for Google Cloud Storage, for this process and those that it starts."""
    import fake_bucket

    server = fake_bucket.Server()
    os.environ.update(server.environment())
    fake_bucket.connect()
    return server


@pytest.fixture
def root(request, tmp_path):
    """A folder for one test: on a disk, and in a bucket where the test asks for `both_places`."""
    if getattr(request, "param", "disk") == "disk":
        return tmp_path
    from jaxdistill.places import place

    request.getfixturevalue("bucket")
    return place(f"gs://tests/{tmp_path.parent.name}/{tmp_path.name}")


@pytest.fixture
def workdir(tmp_path) -> pathlib.Path:
    """A path for a run that does not exist yet."""
    return tmp_path / "run"
