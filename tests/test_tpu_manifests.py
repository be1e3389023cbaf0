"""What is launched elsewhere: a JobSet for GKE, a task for SkyPilot; and what the page about pods shows."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml
from cloud import GKE, ODD, ROOT, WHEEL, WORKDIR, Cloud

SCRIPTS = sorted((ROOT / "tpu_scripts").glob("*.sh"))


@pytest.fixture
def cloud(tmp_path) -> Cloud:
    return Cloud(tmp_path)


def test_shellcheck():
    found = shutil.which("shellcheck", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))
    if found is None:
        pytest.skip("shellcheck is not installed: it comes with the extra `test`")
    result = subprocess.run([found, "-x", "-P", "SCRIPTDIR", *SCRIPTS], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_programs_are_executable_and_extras_exist():
    for script in SCRIPTS:
        assert os.access(script, os.X_OK) == (script.name not in ("common.sh", "settings.sh")), script
    setup = (ROOT / "setup.py").read_text()
    for path in (ROOT / "tpu_scripts").iterdir():
        for extras in re.findall(r"\[([a-z]+(?:,[a-z]+)*)\]", path.read_text()) if path.suffix != ".py" else ():
            assert all(f'"{extra}": [' in setup for extra in extras.split(",")), (path, extras)


def render(cloud: Cloud, *arguments: str, **settings: str) -> dict:
    return yaml.safe_load(cloud.run("render.sh", *arguments, **GKE, **settings).stdout)


def test_the_jobset(cloud):
    made = render(cloud, "jobset.yaml", "extreme", *ODD)
    assert (made["apiVersion"], made["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert made["metadata"]["name"] == "extreme-up"
    assert made["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "tpus"}
    (job,) = made["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert job["replicas"] == 1 and spec["parallelism"] == spec["completions"] == 8 and spec["backoffLimit"] == 0
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x8",
        "cloud.google.com/gke-spot": "true",
    }
    (container,) = pod["containers"]
    assert container["args"] == ["train", "extreme", *ODD, *WORKDIR] and container["image"] == GKE["IMAGE"]
    assert container["resources"] == {"requests": {"google.com/tpu": "4"}, "limits": {"google.com/tpu": "4"}}
    assert pod["initContainers"][0]["command"][-3:] == ["gs://my-bucket/data", "/data", "--recursive"]
    reserved = render(cloud, "jobset.yaml", "extreme", "x", PROVISIONING="reserved")
    selector = reserved["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["nodeSelector"]
    assert "cloud.google.com/gke-spot" not in selector


def test_the_skypilot_task(cloud):
    made = render(cloud, "skypilot.yaml", "extreme", *ODD, ACCELERATOR_TYPE="v6e-8", RUNTIME_VERSION="v2-alpha-tpuv6e")
    resources = made["resources"]
    assert resources["accelerators"] == "tpu-v6e-8" and resources["use_spot"] is True
    assert resources["accelerator_args"] == {"runtime_version": "v2-alpha-tpuv6e"}
    assert resources["infra"] == "gcp/*/us-west4-a" and resources["job_recovery"]["max_restarts_on_errors"] == 5
    command = ["jaxdistill/bin/jaxdistill", "train", "extreme", *ODD, *WORKDIR]
    assert shlex.split(made["run"].splitlines()[-1]) == ["exec", *command]
    assert made["file_mounts"] == {
        "~/data": "gs://my-bucket/data",
        f"~/{WHEEL}": f"dist/{WHEEL}",
    }
    assert render(cloud, "skypilot.yaml", "extreme", "x", PROVISIONING="on-demand")["resources"]["use_spot"] is False


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (["jobset.yaml", "extreme", "a\nb"], {}, "line break"),
        (["jobset.yaml", "extreme", "x"], {"QUEUE": ""}, "QUEUE is not set"),
        (["jobset.yaml", "extreme", "x"], {"GKE_HOSTS": "many"}, "GKE_HOSTS is 'many': give a number"),
        (["jobset.yaml", "extreme", "--workdir=x"], {}, "leave --workdir out"),
        (["jobset.yaml", "extreme", "x"], {"GKE_HOSTS": "many"}, "GKE_HOSTS is 'many': give a number"),
        (["jobset.yaml", "extreme", "--workdir=x"], {}, "leave --workdir out"),
        (["skypilot.yaml", "extreme"], {"PROVISIONING": "reserved"}, "spot or on-demand"),
        (["settings.sh", "extreme"], {}, "neither"),
        (["jobset.yaml"], {}, "its knobs"),
    ],
)
def test_render_refuses(cloud, arguments, settings, said):
    assert said in cloud.run("render.sh", *arguments, code=2, **(GKE | settings)).stderr


def blocks() -> list[str]:
    page = (ROOT / "docs" / "pods.md").read_text(encoding="utf-8")
    return re.findall(r"^```console\n(.*?)^```$", page, re.M | re.S)


def test_the_page_shows_what_dry_runs_print(cloud):
    """Each block: `$ DRY_RUN=1 tpu_scripts/NAME ARGUMENTS`, and its output, without the folder of the checkout."""
    shown = [block for block in blocks() if block.startswith("$ DRY_RUN=1 tpu_scripts/")]
    assert {shlex.split(block.splitlines()[0])[2][12:] for block in shown} >= {"create.sh", "install.sh", "train.sh"}
    for name in ("corpus", "teacher"):
        (cloud.root.parent / name).mkdir()
    (cloud.root.parent / "vocab.txt").touch()
    for block in shown:
        command, _, expected = block.replace("\\\n", "").partition("\n")
        script, *arguments = shlex.split(command)[2:]
        printed = cloud.run(script.removeprefix("tpu_scripts/"), *arguments, DRY_RUN="1").stdout
        said = [[word.replace(f"{cloud.root}/", "") for word in shlex.split(line)] for line in printed.splitlines()]
        said = [[word if word != str(cloud.root) else "." for word in line] for line in said]
        assert said == [shlex.split(line) for line in expected.splitlines()], command


@pytest.mark.slow
def test_validate_sh():
    """The parsers of kubernetes and skypilot, in an environment of their own, and gcloud's where it is installed."""
    done = subprocess.run([ROOT / "tpu_scripts" / "validate.sh"], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "JobSet" in done.stdout and "SkyPilot" in done.stdout
