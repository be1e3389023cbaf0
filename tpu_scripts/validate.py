"""Parses what the launch scripts make with the parsers of the programs that will read it; `validate.sh` runs it.

- kubernetes: the Job inside the JobSet is read into the client's models, which raise for what must be there or is of
  another type, and written again: a field that they do not know would be missing then. A JobSet is a custom resource,
  which the client has no models for: its own fields are compared with those of jobset_types.go (v1alpha2).
- skypilot: the task is read as `sky jobs launch` reads it. Prices and zones are not looked up, nothing is started.
- gcloud, where one is installed: its own parser reads every command that the dry runs print, by
  `gcloud meta lint-gcloud-commands`, without a network or a configuration.

Each parser must refuse a misspelt field or flag too.
"""

import importlib.metadata
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable

import sky
import yaml
from kubernetes.client import ApiClient

HERE = pathlib.Path(__file__).parent
SETTINGS = {"PROJECT": "my-project", "ZONE": "us-west4-a", "NAME": "extreme-up", "BUCKET": "gs://my-bucket"}
SETTINGS |= {"IMAGE": "us-docker.pkg.dev/my-project/jobs/jaxdistill:1", "QUEUE": "tpus"}
TRAIN = ["extreme", "--corpus", "data/it's a corpus", "--variant", "up"]
JOBSET = {
    "": {"apiVersion", "kind", "metadata", "spec"},
    "metadata": {"name", "namespace", "labels", "annotations"},
    "spec": {"failurePolicy", "network", "replicatedJobs", "successPolicy", "suspend", "ttlSecondsAfterFinished"},
    "failurePolicy": {"maxRestarts", "restartStrategy", "rules"},
    "rules": {"name", "action", "onJobFailureReasons", "targetReplicatedJobs"},
    "replicatedJobs": {"name", "groupName", "replicas", "template", "dependsOn"},
}
ACTIONS = {"FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"}


def script(name: str, *arguments: str, **settings: str) -> str:
    """What a script prints."""
    environment = {**os.environ, **SETTINGS, **settings}
    done = subprocess.run([HERE / name, *arguments], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def check_jobset(text: str) -> None:
    """Raises ValueError where a JobSet is not as its API says."""
    made = yaml.safe_load(text)
    policy, jobs = made["spec"]["failurePolicy"], made["spec"]["replicatedJobs"]
    parts = {"": [made], "metadata": [made["metadata"]], "spec": [made["spec"]], "failurePolicy": [policy]}
    for name, values in {**parts, "rules": policy["rules"], "replicatedJobs": jobs}.items():
        unknown = {key for value in values for key in value} - JOBSET[name]
        if unknown:
            raise ValueError(f"JobSet {name}: {unknown} unknown")
    if not {rule["action"] for rule in policy["rules"]} <= ACTIONS:
        raise ValueError("JobSet: an unknown action")
    client = ApiClient()
    for job in jobs:
        read = client.deserialize(json.dumps(job["template"]), "V1JobTemplateSpec", "application/json")
        if client.sanitize_for_serialization(read) != job["template"]:
            raise ValueError("kubernetes does not know a field of the Job")


def check_task(text: str) -> None:
    """Raises ValueError where a task is not as SkyPilot says."""
    task = sky.Task.from_yaml_str(text)
    (resources,) = task.resources
    read = (resources.use_spot, resources.accelerators, resources.zone, resources.accelerator_args)
    if read != (True, {"tpu-v5litepod-32": 1}, "us-west4-a", {"runtime_version": "v2-alpha-tpuv5-lite"}):
        raise ValueError(f"SkyPilot reads another slice: {read}")
    if resources.job_recovery != {"strategy": "FAILOVER", "max_restarts_on_errors": 5}:
        raise ValueError(f"SkyPilot reads another recovery: {resources.job_recovery}")


def check_gcloud(command: str) -> None:
    """Raises ValueError where gcloud's parser does not take a command."""
    with tempfile.TemporaryDirectory() as folder:
        asked = ["gcloud", "meta", "lint-gcloud-commands", f"--command-string={command}"]
        environment = {**os.environ, "CLOUDSDK_CONFIG": folder, "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"}
        said = subprocess.run(asked, env=environment, stdout=subprocess.PIPE, check=True).stdout
    (result,) = json.loads(said)
    if not result["success"]:
        raise ValueError(result["error_message"])


def refuses(check: Callable[[str], None], text: str, right: str, wrong: str) -> None:
    """Raises AssertionError where a check takes a misspelt text."""
    assert right in text, right
    try:
        check(text.replace(right, wrong))
    except Exception:  # Each parser has errors of its own.
        return
    raise AssertionError(f"{check.__name__} took {wrong}")


def main() -> None:
    """Checks all there is, and says what was checked."""
    jobset = script("render.sh", "jobset.yaml", *TRAIN)
    check_jobset(jobset)
    for right in ("maxRestarts", "podFailurePolicy", "initContainers", "restartPolicy", "containerPort"):
        refuses(check_jobset, jobset, right, f"{right}s")
    print(f"JobSet: read by kubernetes {importlib.metadata.version('kubernetes')}, all fields known")
    task = script("render.sh", "skypilot.yaml", *TRAIN)
    check_task(task)
    for right in ("use_spot", "file_mounts", "max_restarts_on_errors", "runtime_version"):
        refuses(check_task, task, right, f"{right}s")
    print(f"SkyPilot task: read by skypilot {importlib.metadata.version('skypilot')}")
    if not shutil.which("gcloud"):
        print("gcloud is not installed: its commands were not checked")
        return
    names = {"create.sh": [], "stage.sh": [str(HERE)], "install.sh": [], "train.sh": TRAIN, "watch.sh": []}
    lines = [line for name, more in names.items() for line in script(name, *more, DRY_RUN="1").splitlines()]
    lines += (
        script("delete.sh", DRY_RUN="1").splitlines()
        + script("stage.sh", str(HERE / "job.sh"), DRY_RUN="1").splitlines()
    )
    commands = sorted({line for line in lines if line.startswith("gcloud ")})
    for command in commands:
        check_gcloud(command)
    refuses(check_gcloud, commands[0], "--", "--un")
    print(f"gcloud: its parser takes all {len(commands)} commands of the scripts")


if __name__ == "__main__":
    main()
