"""A fake cloud for the launch scripts: their settings, programs that stand in for real ones, and a `gcloud`."""

import importlib.machinery
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import jaxdistill

ROOT = pathlib.Path(__file__).parent.parent
FAKE = pathlib.Path(__file__).parent / "fake_gcloud"
SETTINGS = {"PROJECT": "my-project", "ZONE": "us-west4-a", "NAME": "extreme-up", "BUCKET": "gs://my-bucket"}
GKE = {"IMAGE": "us-docker.pkg.dev/my-project/jobs/jaxdistill:1", "QUEUE": "tpus"}
ODD = ["two words", "it's", 'a "b" $HOME `id` \\ & ; # *', "é", "", "~", "x=y", "-", "*"]
WHEEL = f"jaxdistill-{jaxdistill.__version__}-py3-none-any.whl"
WORKDIR = ["--workdir", "gs://my-bucket/runs/extreme-up", "--coordinator", "auto", "--wait", "600"]

PIP = """#!/bin/bash
case "$*" in
  *wheel*) while [[ $1 != --wheel-dir ]]; do shift; done; mkdir -p "$2" && touch "$2/WHEEL" ;;
  *uv) mkdir -p "$HOME/.local/bin" && cp "$FAKE_GCLOUD/host/uv" "$HOME/.local/bin/uv" ;;
esac""".replace("WHEEL", WHEEL)
UV = """#!/bin/bash
case "$*" in
  venv*) mkdir -p "${@: -1}/bin" ;;
  *"./WHEEL[tpu,gcs]") cp "$FAKE_GCLOUD/host/jaxdistill" jaxdistill/bin/jaxdistill ;;
  *) exit 9 ;;
esac""".replace("WHEEL", WHEEL)
JAXDISTILL = """#!/bin/bash
printf '%s\\0' "$@" >"$HOME/arguments"
host=$(basename "$HOME"); echo >>"$FAKE_GCLOUD/starts.$host"
case $(sed -n "$(wc -l <"$FAKE_GCLOUD/starts.$host")p" "$FAKE_GCLOUD/ends") in
  hang) while [[ -e $HOME ]]; do sleep 0.02; done; exit 1 ;;
  crash) echo "jaxdistill: process 1 was killed" >&2; exit 2 ;;
  saved) echo "stopped by SIGTERM after step 5, which is saved; the same command continues"; exit 143 ;;
  done) if [[ $host == 0 ]]; then echo "done: 10 steps"; fi ;;
esac"""


def write_program(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
    path.chmod(0o755)


class Cloud:
    """A copy of the scripts in a checkout with an odd name, and a fake `gcloud` for them."""

    def __init__(self, folder: pathlib.Path):
        self.here, self.root = folder / "cloud", folder / "check out"
        shutil.copytree(ROOT / "tpu_scripts", self.root / "tpu_scripts")
        (self.root / "jaxdistill").mkdir()
        shutil.copy(ROOT / "jaxdistill" / "__init__.py", self.root / "jaxdistill")
        write_program(self.here / "bin" / "gcloud", f'#!/bin/bash\nexec "{sys.executable}" -S "{FAKE}" "$@"')
        write_program(self.here / "bin" / "python3", PIP)
        for name, text in {"uv": UV, "jaxdistill": JAXDISTILL}.items():
            write_program(self.here / "host" / name, text)
        (self.here / "bucket" / "my-bucket" / "data").mkdir(parents=True)
        self.plays()

    def plays(self, *lives: str, ends: str = "") -> None:
        """The states of each queued resource that will be created, and how each start of a training ends."""
        (self.here / "lives").write_text("".join(life + "\n" for life in lives))
        (self.here / "ends").write_text("\n".join(ends.split()) + "\n")

    def run(self, script: str, *arguments: str, code: int = 0, **settings: str) -> subprocess.CompletedProcess:
        path = os.pathsep.join([str(self.here / "bin"), os.environ["PATH"]])
        done = subprocess.run(
            [str(self.root / "tpu_scripts" / script), *arguments],
            cwd=self.root.parent,
            env={"PATH": path, "HOME": "/", "FAKE_GCLOUD": str(self.here), "POLL": "0.05", **SETTINGS, **settings},
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    @property
    def calls(self) -> list[str]:
        """What was asked of gcloud, without the settings that are the same in all of it."""
        log = self.here / "log"
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [" ".join(word for word in line if not word.startswith(("--project=", "--zone="))) for line in lines]

    def made(self) -> list[str]:
        """The calls about TPUs, but for questions about their state."""
        return [call for call in self.calls if call.startswith("compute tpus") and " describe " not in call]


def fake_gcloud():
    """The fake as a module, for its parser."""
    os.environ.setdefault("FAKE_GCLOUD", "/nowhere")
    loader = importlib.machinery.SourceFileLoader("fake_gcloud", str(FAKE))
    spec = importlib.util.spec_from_loader("fake_gcloud", loader)
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    loader.exec_module(module)
    sys.dont_write_bytecode = before
    return module


def wait_for(happened, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)
