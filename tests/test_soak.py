"""One run, interrupted again and again, ends as the run that nothing interrupted.

Both take minutes on two free cores: `pytest -m slow -n 0 tests/test_soak.py -k few` or `-k many`.
"""

import random
import signal
import time

import numpy as np
import pytest
from processes import Process, environment

from jaxdistill import files
from jaxdistill.checkpoint import Checkpoints
from jaxdistill.metrics import read_lines

DEVICES = 2
STEPS_BETWEEN = 40  # for each interruption, so that the run is not over before the last of them
TIMING = {"positions_per_second", "data_wait", "mfu"}
SETTINGS = {"variant": "up"}
RUN = {"log_every": 1, "save_every": 4, "score_rows": 64}


def lines(workdir):
    """The metrics file without what depends on the clock."""
    found = read_lines(workdir / "metrics.jsonl")
    return [{name: value for name, value in line.items() if name not in TIMING} for line in found]


def count_lines(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def new_lines(run, workdir, more, seconds=300):
    """Waits until a run has written so many lines; those of before it are cut back as it starts."""
    ends, least = time.monotonic() + seconds, count_lines(workdir)
    while count_lines(workdir) < least + more:
        least = min(least, count_lines(workdir))
        assert run.popen.poll() is None, f"over before its end was due: {run.said}"
        assert time.monotonic() < ends, f"no line for {seconds} s: {run.said}"
        time.sleep(0.001)


class Soak:
    """A run that is started, paused and killed; `devices` are those of the next start."""

    def __init__(self, arguments, workdir, draw):
        self.arguments, self.workdir, self.draw = arguments, workdir, draw
        self.devices, self.starts = DEVICES, 0
        self.run = self.start()

    def start(self):
        self.starts += 1
        return Process(self.arguments, environment(self.devices))

    def advance(self):
        new_lines(self.run, self.workdir, self.draw.randint(1, 8))
        time.sleep(self.draw.uniform(0, 0.05))

    def end(self, number, code):
        self.run.popen.send_signal(number)
        assert self.run.ended() == code, self.run.said

    def kill(self):
        self.advance()
        self.end(signal.SIGKILL, -signal.SIGKILL)
        self.run = self.start()

    def kill_while_saving(self):
        self.advance()
        ends = time.monotonic() + 60
        while not any((self.workdir / "checkpoints").glob("partial-*")) and time.monotonic() < ends:
            assert self.run.popen.poll() is None, self.run.said
        self.end(signal.SIGKILL, -signal.SIGKILL)
        self.run = self.start()

    def kill_while_starting(self):
        self.end(signal.SIGKILL, -signal.SIGKILL)
        self.run = self.start()
        time.sleep(self.draw.uniform(0, 5))
        self.end(signal.SIGKILL, -signal.SIGKILL)
        self.run = self.start()

    def stop(self):
        self.advance()
        self.end(signal.SIGTERM, 143)
        assert "stopped by SIGTERM after step" in self.run.said
        self.run = self.start()

    def pause(self):
        self.advance()
        self.run.popen.send_signal(signal.SIGSTOP)
        time.sleep(self.draw.uniform(0, 2))
        self.run.popen.send_signal(signal.SIGCONT)


KINDS = (Soak.kill, Soak.kill, Soak.kill_while_saving, Soak.kill_while_starting, Soak.stop, Soak.pause, Soak.pause)


def finished(run):
    assert run.ended(1200) == 0, run.said


def interrupt(soak, count):
    """Interrupts a run; from the middle on, on other numbers of devices. The steps up to there, and what was done."""
    done, alike = [], 0
    for number in range(count):
        if number == count // 2:
            soak.advance()
            soak.end(signal.SIGKILL, -signal.SIGKILL)
            alike = Checkpoints(soak.workdir / "checkpoints", readonly=True).steps()[-1]
            soak.devices = 4
            soak.run = soak.start()
        elif number > count // 2:
            soak.devices = soak.draw.choice([1, 2, 4, 8])
        kind = soak.draw.choice(KINDS)
        kind(soak)
        done.append(f"{kind.__name__} at {count_lines(soak.workdir)} ({soak.devices})")
    return alike, done


@pytest.mark.slow
@pytest.mark.parametrize("count", [5, 50], ids=["few", "many"])
def test_interruptions_leave_no_trace(tiny_inputs, tmp_path, count):
    """Kills, stops and pauses on two devices, to the bit; then others with other devices too, up to rounding."""
    steps, began = STEPS_BETWEEN * count, time.monotonic()
    workdirs = reference, workdir = tmp_path / "reference", tmp_path / "soaked"
    settings = SETTINGS | {"steps": steps, "held_out": str(tiny_inputs.held_out)}
    commands = [tiny_inputs.arguments(place, RUN, **settings) for place in workdirs]
    finished(Process(commands[0], environment(DEVICES)))
    soak = Soak(commands[1], workdir, random.Random(count))
    try:
        alike, done = interrupt(soak, count)
        finished(soak.run)
    finally:
        soak.run.popen.kill()
    ours, theirs = lines(workdir), lines(reference)
    assert [line["step"] for line in ours] == [line["step"] for line in theirs] == list(range(1, steps + 1))
    assert ours[:alike] == theirs[:alike] and 0 < alike < steps, done
    losses = np.array([[line["loss"] for line in run] for run in (ours, theirs)])
    scores = [files.read_json(place / "scores.json")["scores"] for place in workdirs]
    accuracies = [
        {f"{role} {name}": each[name] for role, each in found.items() for name in ("piece_accuracy", "word_accuracy")}
        for found in scores
    ]
    apart = np.abs(losses[0] / losses[1] - 1).max()
    print(
        f"{len(done)} interruptions, {soak.starts} starts, {time.monotonic() - began:.0f} s; alike to the bit up to "
        f"step {alike} of {steps}, after it losses differ by at most {apart:.1e} of them; held out {accuracies}\n"
        f"{', '.join(done)}"
    )
    assert apart < 1e-3, done
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.02), done
    for role, theirs in scores[1].items():
        assert scores[0][role]["piece_perplexity"] == pytest.approx(theirs["piece_perplexity"], rel=1e-3), done
