"""Damaged checkpoints: a restore raises and names what is damaged, or returns exactly the bits that were saved."""

import json
import os
import pathlib
import random
import re
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils
from test_checkpoint import make_state, same

from jaxdistill.checkpoint import Checkpoints, abstract
from jaxdistill.checksum import checksums, hexadecimal
from jaxdistill.errors import UserError
from jaxdistill.places import file_names, move_folder, place, remote
from jaxdistill.seal import read_seal, write_seal

BOTH = pytest.mark.parametrize("root", ["disk", "bucket"], indirect=True)


@pytest.fixture
def notices():
    return []


@pytest.fixture
def saved(root):
    return save(root / "checkpoints")


def save(folder):
    """A folder with the checkpoints of steps 20 and 30."""
    with Checkpoints(folder) as checkpoints:
        for step in (20, 30):
            checkpoints.save(step, make_state(step))
    return folder


# Random damage. Each kind changes the files of a checkpoint, given as a dict of their bytes; None is a folder.


def flip(files, name, draw):
    data = bytearray(files[name])
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    files[name] = bytes(data)


def cut(files, name, draw):
    files[name] = files[name][: draw.randrange(len(files[name]))]


def overwrite(files, name, draw):
    start, data = draw.randrange(len(files[name])), files[name]
    block = draw.choice([bytes, draw.randbytes])(min(draw.choice([1, 64, 4096]), len(data) - start))
    files[name] = data[:start] + block + data[start + len(block) :]


def extend(files, name, draw):
    files[name] += draw.randbytes(draw.randint(1, 100))


def remove(files, name, draw):
    del files[name]


def swap(files, name, draw):
    other = draw.choice(sorted(files))
    files[name], files[other] = files[other], files[name]


def older(files, name, draw, before):
    """A file of the checkpoint before, of the same name or, where names are random, of a similar one."""
    alike = sorted(other for other in before if other == name) or sorted(
        other for other in before if len(other) == len(name) and other.rpartition("/")[0] == name.rpartition("/")[0]
    )
    files[name] = before[draw.choice(alike)] if alike else b""


def make_folder(files, name, draw):
    files[name] = None


KINDS = (flip, flip, cut, cut, overwrite, extend, remove, swap, older, make_folder)


def read_files(folder):
    return {name: (folder / name).read_bytes() for name in file_names(folder)}


def write_files(folder, before, files):
    """Makes the files of a folder be these, from those that it has."""
    for name in sorted({*before, *files}):
        if name in before and before[name] is None:
            (folder / name).rmdir()
        elif name in before and (name not in files or files[name] is None):
            (folder / name).unlink()
    for name, data in files.items():
        if data is None:
            (folder / name).mkdir()
        elif before.get(name) != data:
            (folder / name).write_bytes(data)


def damage(whole, before, draw, kinds):
    """Damaged files, and how: one file mostly, several at times."""
    files, said = dict(whole), []
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        name = draw.choice(sorted(name for name, data in files.items() if data))
        kind = draw.choice(kinds)
        kind(files, name, draw, *([before] if kind is older else []))
        said.append(f"{kind.__name__} {name}")
    return files, ", ".join(said)


def trials(saved, seed, count, check):
    """Damages checkpoint 30 in one way after the other; how often it was refused."""
    draw, refused = random.Random(seed), 0
    kinds = [kind for kind in KINDS if not (remote(saved) and kind is make_folder)]
    whole, before = read_files(saved / "30"), read_files(saved / "20")
    for number in range(count):
        files, how = damage(whole, before, draw, kinds)
        write_files(saved / "30", whole, files)
        changed = {name for name in whole if files.get(name) != whole[name]}
        try:
            refused += check(changed)
        except BaseException as error:
            raise AssertionError(f"seed {seed}, damage {number}: {how}: {type(error).__name__}: {error}") from error
        write_files(saved / "30", files, whole)
    return refused


def check_here(saved):
    """Restores with and without a fallback; True when the checkpoint was refused, and rightly."""
    wanted, notices = abstract(make_state(0)), []
    checkpoints = Checkpoints(saved, notify=notices.append)

    def check(changed):
        notices.clear()
        try:
            restored = checkpoints.restore(wanted)
        except UserError as error:
            text = str(error)
            assert "(step 20), run the same command with --fallback" in text
            whole = ("30 is not a whole checkpoint of ours: it has no seal", "30 is foreign: its seal says step 20")
            assert any(named in text for named in (*whole, *(str(saved / "30" / name) for name in changed)))
            assert same(checkpoints.restore(wanted, fallback=True), make_state(20))
            assert notices == [
                text.splitlines()[0],
                f"set it aside as {saved / 'bad-30'}",
                "going on from the checkpoint of step 20",
            ]
            put_back(saved)
            return True
        assert same(restored, make_state(30)) and not notices
        return False

    return check


def put_back(saved):
    move_folder(saved / "bad-30", saved / "30")


def test_random_damage_is_refused_or_harmless(saved):
    assert trials(saved, 0, 60, check_here(saved)) > 50


@pytest.mark.parametrize("root", ["bucket"], indirect=True)
def test_random_damage_in_a_bucket_is_refused_or_harmless(saved):
    assert trials(saved, 0, 8, check_here(saved)) > 5


@pytest.mark.slow
@BOTH
def test_hundreds_of_random_damages_are_refused_or_harmless(saved):
    count = 60 if remote(saved) else 600
    assert trials(saved, 1, count, check_here(saved)) > 0.9 * count


def test_damage_of_every_kind_is_made():
    whole = {f"{folder}/{name}": bytes(range(100)) for folder in "ab" for name in "xyz"}
    draw, kinds = random.Random(0), set()
    for _ in range(200):
        _, how = damage(whole, {"a/x": b"old"}, draw, KINDS)
        kinds |= set(re.findall(r"(\w+) \w/", how))
    assert kinds == {kind.__name__ for kind in KINDS}


# Several processes


def digits(state):
    """Checksums of all arrays of a state, which may be spread over processes."""
    named = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}
    return {name: hexadecimal(value) for name, value in jax.device_get(checksums(named)).items()}


def trials_on_processes(folder, seed, count):
    """`trials` in one of several processes that have joined: process 0 damages, and all of them must say the same."""
    folder, first, notices = place(folder), jax.process_index() == 0, []
    with Checkpoints(folder, notify=notices.append) as checkpoints:
        for step in (20, 30):
            checkpoints.save(step, make_state(step), wait=True)
        wanted, states = abstract(make_state(0)), {step: digits(make_state(step)) for step in (20, 30)}

        def check(changed):
            multihost_utils.sync_global_devices("damaged")
            try:
                told, found = "", digits(checkpoints.restore(wanted))
            except UserError as error:
                told, found = str(error), digits(checkpoints.restore(wanted, fallback=True))
            assert found == states[20 if told else 30]
            heard = np.zeros(2000, np.uint8)
            heard[: len(told.encode()[:2000])] = np.frombuffer(told.encode()[:2000], np.uint8)
            everyone = np.asarray(multihost_utils.process_allgather(heard))
            assert (everyone == everyone[0]).all(), told
            if told and first:
                put_back(folder)
            multihost_utils.sync_global_devices("checked")
            return bool(told)

        if first:
            return trials(folder, seed, count, check)
        return sum(check(set()) for _ in range(count))


PROCESS = """
import sys
import jax
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
if sys.argv[3].startswith("gs://"):
    import fake_bucket
    fake_bucket.connect()
from test_damage import trials_on_processes
print("refused", trials_on_processes(sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))
"""


def run_processes(folder, seed, count):
    """What two processes of four devices printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    root = pathlib.Path(__file__).parents[1]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "4",
        "XLA_FLAGS": "--xla_cpu_collective_call_terminate_timeout_seconds=600",
        "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")]),
    }
    children = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, address, str(index), str(folder), str(seed), str(count)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    try:
        said = [child.communicate(timeout=1200)[0] for child in children]
    finally:
        for child in children:
            child.kill()
    assert [child.returncode for child in children] == [0, 0], "\n".join(said)
    return said


@pytest.mark.slow
@BOTH
def test_hundreds_of_random_damages_on_two_processes(root):
    count = 30 if remote(root) else 300
    said = run_processes(root / "checkpoints", 2, count)
    refused = [int(re.search(r"^refused (\d+)$", text, re.MULTILINE)[1]) for text in said]
    assert refused[0] == refused[1] > 0.85 * count


# Damage with a name


def break_missing_file(folder):
    next((folder / "state").rglob("d/*")).unlink()


def break_missing_seal(folder):
    (folder / "seal.json").unlink()


def break_missing_state(folder):
    shutil.rmtree(folder / "state")


def break_empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def break_seal_is_a_folder(folder):
    (folder / "seal.json").unlink()
    (folder / "seal.json").mkdir()


def break_seal_is_other_json(folder):
    (folder / "seal.json").write_text("[1, 2]")


def break_renamed(folder):
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / "20", folder)


def break_checksum(folder):
    seal = json.loads((folder / "seal.json").read_text())
    seal["arrays"]["step"]["checksum"] = "0" * 16
    (folder / "seal.json").write_text(json.dumps(seal))


def break_arrays_behind_consistent_files(folder):
    arrays = read_seal(folder, 30)["arrays"]
    shutil.rmtree(folder / "state")
    shutil.copytree(folder.parent / "20" / "state", folder / "state")
    (folder / "seal.json").unlink()
    write_seal(folder, 30, arrays)


BREAKS = {
    break_missing_file: "can't be read: No such file",
    break_missing_seal: "it has no seal.json",
    break_missing_state: "can't be read: No such file",
    break_empty: "it has no seal.json",
    break_seal_is_a_folder: "can't be read: Is a directory",
    break_seal_is_other_json: "seal.json is torn or altered",
    break_renamed: "is foreign: its seal says step 20",
    break_checksum: "seal.json is torn or altered",
    break_arrays_behind_consistent_files: "the array .* does not match the checksum it was saved with",
}


@pytest.mark.parametrize("breaks", BREAKS, ids=lambda breaks: breaks.__name__)
def test_bad_checkpoint(saved, notices, breaks):
    breaks(saved / "30")
    wanted = abstract(make_state(0))
    with Checkpoints(saved, notify=notices.append) as checkpoints:
        with pytest.raises(UserError, match=BREAKS[breaks]) as caught:
            checkpoints.restore(wanted)
        assert "(step 20), run the same command with --fallback" in str(caught.value)
        assert checkpoints.steps() == [20, 30] and not notices
        assert same(checkpoints.restore(wanted, fallback=True), make_state(20))
        assert checkpoints.steps() == [20]
        assert re.search(BREAKS[breaks], notices[0])
        assert notices[1:] == [f"set it aside as {saved / 'bad-30'}", "going on from the checkpoint of step 20"]
        assert (saved / "bad-30").is_dir()
        checkpoints.save(30, make_state(30), wait=True)
        assert same(checkpoints.restore(wanted), make_state(30))
