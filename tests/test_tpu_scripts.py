"""The launch scripts: dry runs, and runs against a `gcloud` that knows the documented arguments and plays a slice."""

import os
import re
import shlex
import shutil
import signal
import subprocess

import pytest
from cloud import ODD, ROOT, WHEEL, WORKDIR, Cloud, fake_gcloud, wait_for


@pytest.fixture
def cloud(tmp_path) -> Cloud:
    return Cloud(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "compute tpus queued-resources create a --zone=z --node-id=a --accelerator-type=v6e-8",
        "compute tpus queued-resources create a --zone=z --node-id=a --accelerator-type=v6e-8 --runtime-version=v -s",
        "compute tpus queued-resources create a --zone=z --runtime-version=v --accelerator-type=v6e-8",
        "compute tpus queued-resources create a --zone z --node-id=a --runtime-version=v --accelerator-type=v6e-8",
        "compute tpus queued-resources delete --zone=z",
        "compute tpus queued-resources delete a --zone=z --force=true",
        "compute tpus tpu-vm create a --zone=z",
        "compute tpus tpu-vm ssh a --zone=z --workers=all --command=true",
        "storage rsync -r a gs://b",
        "storage cat gs://b --range",
    ],
)
def test_the_fake_refuses_what_gcloud_refuses(cloud, line):
    path = str(cloud.here / "bin" / "gcloud")
    done = subprocess.run([path, *shlex.split(line)], env={"FAKE_GCLOUD": str(cloud.here)}, capture_output=True)
    assert done.returncode == 2 and b"ERROR" in done.stderr and cloud.calls == []


def dry(cloud: Cloud, script: str, *arguments: str, **settings: str) -> list[list[str]]:
    """The commands that a dry run prints, none of which it runs."""
    lines = cloud.run(script, *arguments, DRY_RUN="1", **settings).stdout.splitlines()
    words = [shlex.split(line) for line in lines]
    assert [shlex.join(line) for line in words] == lines and cloud.calls == []
    parser = fake_gcloud().parse
    for line in words:
        if line[0] == "gcloud":
            parser(line[1:])
    return words


def test_dry_runs_print_every_command(cloud, tmp_path):
    where = ["--project=my-project", "--zone=us-west4-a"]
    queued, vm = (["gcloud", "compute", "tpus", name] for name in ("queued-resources", "tpu-vm"))
    created = [*queued, "create", "extreme-up", "--node-id=extreme-up", *where, "--accelerator-type=v5litepod-32"]
    created += ["--runtime-version=v2-alpha-tpuv5-lite", "--spot"]
    described = [*queued, "describe", "extreme-up", *where, "--format=value(state.state)"]
    deleted = [*queued, "delete", "extreme-up", *where, "--force", "--quiet"]
    assert dry(cloud, "create.sh") == [created, described]
    assert dry(cloud, "create.sh", PROVISIONING="reserved")[0] == [*created[:-1], "--reserved"]
    assert dry(cloud, "create.sh", PROVISIONING="on-demand")[0] == created[:-1]
    assert dry(cloud, "delete.sh") == [deleted]
    files = [tmp_path / "it's a corpus", tmp_path / "vocab.txt"]
    files[0].mkdir()
    files[1].touch()
    assert dry(cloud, "stage.sh", *map(str, files)) == [
        ["gcloud", "storage", "rsync", str(files[0]), "gs://my-bucket/data/it's a corpus", "--recursive"],
        ["gcloud", "storage", "cp", str(files[1]), "gs://my-bucket/data/vocab.txt"],
    ]
    dist = f"{cloud.root}/dist"
    *_, scp, ssh = installed = dry(cloud, "install.sh")
    copied = [f"{dist}/{WHEEL}", f"{cloud.root}/tpu_scripts/job.sh", "extreme-up:"]
    assert scp == [*vm, "scp", *copied, *where, "--worker=all"]
    assert ssh[:-1] == [*vm, "ssh", "extreme-up", *where, "--worker=all"]
    assert "gcloud storage rsync gs://my-bucket/data data --recursive" in ssh[-1]
    (train,) = trained = dry(cloud, "train.sh", "extreme", *ODD)
    assert train[:-1] == ssh[:-1]
    job = ["bash", "job.sh", "start", "jaxdistill/bin/jaxdistill", "train", "extreme", *ODD, *WORKDIR]
    assert shlex.split(train[-1].removeprefix("--command=")) == job
    assert dry(cloud, "resume.sh", "extreme", *ODD) == [described, deleted, created, described, *installed, *trained]
    assert [line[1:5] for line in dry(cloud, "watch.sh")] == [
        described[1:5],
        ["storage", "cat", "--range=-2000", "gs://my-bucket/runs/extreme-up/metrics.jsonl"],
        [*ssh[1:5]],
        [*ssh[1:5]],
    ]


def test_create_waits_for_the_slice_and_goes_on_waiting(cloud):
    cloud.plays("WAITING_FOR_RESOURCES PROVISIONING ACTIVE")
    said = cloud.run("create.sh").stderr
    assert re.findall(r"is (\w+)", said) == ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
    cloud.run("create.sh")
    assert [call.split()[3] for call in cloud.made()] == ["create"]


@pytest.mark.parametrize(
    ("life", "said"), [("PROVISIONING FAILED", "will not become active"), ("SUSPENDED", "will not")]
)
def test_create_says_when_there_will_be_no_slice(cloud, life, said):
    cloud.plays(life)
    assert said in cloud.run("create.sh", code=2).stderr
    assert "tpu_scripts/delete.sh first" in cloud.run("create.sh", code=2).stderr
    cloud.run("delete.sh")
    assert [call.split()[3] for call in cloud.made()] == ["create", "delete"]


@pytest.mark.parametrize("name", ["PROJECT", "ZONE", "NAME", "BUCKET"])
def test_a_missing_setting_is_named(cloud, name):
    for script in ("create.sh", "install.sh", "watch.sh", "delete.sh"):
        assert f"{name} is not set" in cloud.run(script, code=2, **{name: ""}).stderr
    assert f"{name} is not set" in cloud.run("resume.sh", "extreme", code=2, **{name: ""}).stderr
    assert cloud.calls == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"NAME": "two words"}, "NAME is 'two words'"),
        ({"NAME": "Upper"}, "a letter first"),
        ({"NAME": "a" * 41}, "at most 40"),
        ({"BUCKET": "my-bucket"}, "write gs://NAME"),
        ({"BUCKET": "gs://my-bucket/"}, "without a / at the end"),
        ({"ZONE": "us'west"}, "only letters, digits"),
        ({"ZONE": "--quiet"}, "no - first"),
        ({"LOST": "often"}, "LOST is 'often': give a number"),
        ({"PROVISIONING": "cheap"}, "spot, reserved or on-demand"),
        ({"SETTINGS": "/nowhere/settings.sh"}, "/nowhere/settings.sh"),
    ],
)
def test_a_bad_setting_is_refused(cloud, settings, said):
    failed = cloud.run("delete.sh", code=1 if "SETTINGS" in settings else 2, **settings)
    assert said in failed.stderr and cloud.calls == []


def test_settings_are_read_from_a_file_and_the_environment_wins(cloud, tmp_path):
    settings = tmp_path / "second job.sh"
    settings.write_text('source "$HERE/settings.sh"; NAME=second; : "${PROVISIONING:=reserved}"\n')
    (line,) = dry(cloud, "delete.sh", SETTINGS=str(settings))
    assert "second" in line


def test_what_is_staged_and_trained_arrives_as_it_was_given(cloud, tmp_path):
    corpus = tmp_path / "it's a corpus"
    corpus.mkdir()
    (corpus / "words.bin").write_bytes(b"words")
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    cloud.plays("ACTIVE", ends="hang")
    cloud.run("create.sh")
    cloud.run("stage.sh", str(corpus), str(tmp_path / "vocab.txt"))
    assert "is not there" in cloud.run("stage.sh", "nothing", code=2).stderr
    for path in ("/", ".", f"{corpus}/.."):
        assert "has no name to go by" in cloud.run("stage.sh", path, code=2).stderr
    assert "two of them" in cloud.run("stage.sh", str(corpus), f"{tmp_path}/./it's a corpus", code=2).stderr
    cloud.run("install.sh")
    cloud.run("train.sh", "extreme", "--teacher", *ODD)
    for host in "01":
        assert (cloud.here / host / "data" / "it's a corpus" / "words.bin").read_bytes() == b"words"
        wait_for(lambda host=host: (cloud.here / host / "arguments").exists())
        arguments = (cloud.here / host / "arguments").read_text().split("\0")[:-1]
        assert arguments == ["train", "extreme", "--teacher", *ODD, *WORKDIR]
    (cloud.here / "bucket" / "my-bucket" / "runs" / "extreme-up").mkdir(parents=True)
    lines = [f'{{"step": {step}}}' for step in range(1, 6)]
    (cloud.here / "bucket" / "my-bucket" / "runs" / "extreme-up" / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert cloud.run("watch.sh").stdout.splitlines() == ["ACTIVE", *lines[2:], "running", "running"]
    assert "running here already" in cloud.run("train.sh", "extreme", code=1).stderr
    cloud.run("delete.sh")


def test_resume_outlives_preemption_crash_and_restart(cloud):
    """Preempted while it runs; on the second slice a crash and a stop by SIGTERM; then the end."""
    first = "WAITING_FOR_RESOURCES PROVISIONING ACTIVE ACTIVE ACTIVE SUSPENDING SUSPENDED"
    cloud.plays(first, "PROVISIONING ACTIVE", ends="hang crash saved done")
    said = cloud.run("resume.sh", "extreme", "--variant", "up").stderr
    set_up = ["scp", "ssh", "ssh"]
    assert [call.split()[3] for call in cloud.made() if "status" not in call] == [
        *["create", *set_up],
        *["delete", "create", *set_up],
        *["ssh", "ssh"],  # the end of the log, and a start: after the crash
        *["ssh", "ssh"],  # and after SIGTERM
    ]
    assert (cloud.here / "starts.0").read_text() == (cloud.here / "starts.1").read_text() == "\n" * 4
    events = ["is SUSPENDED", "process 1 was killed", "failure 1 of", "stopped by SIGTERM", "failure 2 of"]
    places = [said.index(event) for event in events]
    assert places == sorted(places) and "gs://my-bucket/runs/extreme-up is finished" in said
    page = (ROOT / "docs" / "pods.md").read_text(encoding="utf-8")
    shown = next(block for block in page.split("```")[1::2] if "resume.sh: " in block)
    assert _without_waiting(shown.removeprefix("\n")) == _without_waiting(said)
    again = cloud.run("resume.sh", "extreme", "--variant", "up").stderr
    assert "is finished" in again and sum(" create " in call for call in cloud.made()) == 2


def _without_waiting(said: str) -> list[str]:
    """Lines but for those of jobs that were seen running, which is a matter of time."""
    return [line for line in said.splitlines() if not line.endswith("its job running")]


def test_resume_tells_its_own_command_from_others(cloud):
    cloud.plays("ACTIVE", ends="done done hang")
    cloud.run("create.sh")
    cloud.run("install.sh")
    cloud.run("train.sh", "extreme", "--dry-run")
    wait_for(lambda: cloud.run("watch.sh").stdout.splitlines().count("done") == 2)
    assert "is finished" in cloud.run("resume.sh", "extreme", "--steps", "9").stderr
    assert (cloud.here / "0" / "arguments").read_text().split("\0")[:4] == ["train", "extreme", "--steps", "9"]
    cloud.run("train.sh", "extreme", "--steps", "8")
    said = cloud.run("resume.sh", "extreme", "--steps", "9", code=2).stderr
    assert "another command runs on extreme-up" in said
    cloud.run("delete.sh")


@pytest.mark.parametrize("words", [["--workdir", "x"], ["--workdir=x"], ["--coordinator=a:1"], ["--wait", "9"]])
def test_what_the_scripts_set_is_not_set_twice(cloud, words):
    for script in ("train.sh", "resume.sh"):
        said = cloud.run(script, "extreme", *words, code=2).stderr
        assert f"leave {words[0].partition('=')[0]} out" in said and cloud.calls == []


def test_no_answer_is_not_waited_for_without_end(cloud):
    (cloud.here / "broken").touch()
    for script in (["create.sh"], ["resume.sh", "extreme"]):
        said = cloud.run(*script, code=2, LOST="3").stderr
        assert 3 <= said.count("PERMISSION_DENIED") <= 4 and "gave up after 3 looks without an answer" in said
    few = cloud.here / "few"
    few.mkdir()
    for tool in ("bash", "dirname", "sed"):
        (few / tool).symlink_to(shutil.which(tool))
    assert "gcloud is not installed" in cloud.run("create.sh", code=2, PATH=str(few)).stderr


def test_resume_gives_up_after_too_many_failures(cloud):
    assert "LIMIT is 'abc'" in cloud.run("resume.sh", "extreme", code=2, LIMIT="abc").stderr
    cloud.plays("ACTIVE", ends="crash " * 9)
    said = cloud.run("resume.sh", "extreme", code=2, LIMIT="2").stderr
    assert "failure 2 of at most 2" in said and "delete.sh" in said
    assert (cloud.here / "starts.0").read_text() == "\n" * 2
    cloud.run("delete.sh")
    cloud.plays(*["PROVISIONING FAILED"] * 2)
    said = cloud.run("resume.sh", "extreme", code=2, LIMIT="2").stderr
    assert said.count("the request failed") == 2


def test_a_job_says_how_it_is(tmp_path):
    script = shutil.copy(ROOT / "tpu_scripts" / "job.sh", tmp_path)

    def job(*arguments, code=0):
        done = subprocess.run(["bash", script, *arguments], capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stdout.strip()

    def ends_as(expected):
        wait_for(lambda: job("status") != "running")
        assert job("status") == expected

    job("stop", code=2)
    assert job("status") == "absent"
    job("start", "bash", "-c", "echo 'done: 10 steps'")
    ends_as("done")
    job("start", "bash", "-c", "echo saved; exit 143")
    ends_as("stopped: 143")
    job("start", "no-such-program")
    assert (tmp_path / "train.log.1").read_text() == "saved\n"
    ends_as("stopped: 127")
    job("start", "bash", "-c", "echo $$ $PPID; exec sleep 60")
    wait_for(lambda: len((tmp_path / "train.log").read_text().split()) == 2)
    assert job("status") == "running"
    job("start", "true", code=1)
    child, parent = map(int, (tmp_path / "train.log").read_text().split())
    for process in (parent, child):
        assert os.getpgid(process) != os.getpgid(0)
        os.kill(process, signal.SIGKILL)
    ends_as("stopped: killed")
