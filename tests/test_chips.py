"""The table of chips, and what names of hardware mean."""

import re

import jax
import pytest

from jaxdistill import chips, sharding
from jaxdistill.errors import UserError


@pytest.mark.parametrize(
    ("name", "count", "devices", "hosts"),
    [
        ("v4-32", 16, 16, 4),  # TensorCores: the Cloud TPU page of v4 lists v4-32 as 16 chips on 4 hosts
        ("v5p-8", 4, 4, 1),
        ("v3-32", 16, 32, 4),  # each core is a device of its own
        ("v2-8", 4, 8, 1),
        ("v5e-32", 32, 32, 4),  # chips: its page lists 4x8 as 32 chips on 4 hosts
        ("v6e-8", 8, 8, 1),
        ("h200-1", 1, 1, 1),
        ("a100-16", 16, 16, 2),
        ("cpu-2", 2, 1, 1),
    ],
)
def test_names_count_what_google_counts(name, count, devices, hosts):
    found = chips.find_hardware(name)
    assert (found.chips, found.devices, found.hosts) == (count, devices, hosts)
    assert str(found).startswith(f"{name}: {count} ")


def test_the_paper_s_cores_are_half_as_many_chips():
    assert "16 x TPU v4 (32 TensorCores)" in str(chips.find_hardware("v4-32"))
    assert "TensorCores" not in str(chips.find_hardware("v5e-32"))


@pytest.mark.parametrize("name", ["", "v4", "v4-0", "v4-x", "v9-8", "v4-31", "v5e-512", "cpu-", "h200-1.5", "v5e-08"])
def test_hardware_that_is_not_there_is_refused(name):
    with pytest.raises(UserError, match=re.escape(name or "''")):
        chips.find_hardware(name)


@pytest.mark.parametrize("name", chips.CHIPS)
def test_figures_are_of_the_right_kind(name):
    """A slip of a unit is a factor of 8 or 1,000: ratios between the figures of a chip are never far from these."""
    chip = chips.CHIPS[name]
    assert chip.source
    assert 4e13 < chip.bfloat16 < 1e15 and chip.bfloat16 / 2 <= chip.float32 * 1.01 <= chip.bfloat16 * 1.01
    assert 50 < chip.bfloat16 / chip.bandwidth < 600  # FLOP for a byte
    assert 15 < chip.bandwidth / chip.memory < 80  # times that its memory could be read in a second
    assert 0.05 < chip.link / chip.bandwidth < 0.6
    assert chip.beyond < chip.link
    assert 0.7 < chip.room * chip.devices / chip.memory < 1


def test_all_that_is_compared_exists():
    found = [chips.find_hardware(name) for name in chips.COMPARED]
    assert {each.chip.kind for each in found} == {chip.kind for chip in chips.CHIPS.values()}


def test_gpus_of_several_hosts_have_a_slower_network():
    one, two = chips.find_hardware("h100-8"), chips.find_hardware("h100-16")
    assert one.link > 5 * two.link
    assert chips.find_hardware("v5e-8").link == chips.find_hardware("v5e-256").link
    assert chips.find_hardware("v3-8").link == chips.CHIPS["v3"].link / 2  # two devices share a chip's links


@pytest.mark.parametrize(
    ("kind", "name"),
    [("TPU v5 lite", "v5e"), ("TPU v5p", "v5p"), ("TPU v6 lite", "v6e"), ("TPU v4", "v4"), ("NVIDIA H200", "h200")],
)
def test_jax_s_names_are_known(kind, name):
    assert chips.find_chip(kind) is chips.CHIPS[name]


def test_a_cpu_has_no_peak():
    assert chips.find_chip("cpu") is None
    assert chips.peak_flops(sharding.make_mesh(1, 1)) is None


def test_a_mesh_has_the_rate_of_its_devices(monkeypatch):
    mesh = sharding.make_mesh(1, 4)
    monkeypatch.setattr(chips, "find_chip", lambda kind: chips.CHIPS["v3"])
    assert chips.peak_flops(mesh) == 2 * chips.CHIPS["v3"].bfloat16
    assert len(jax.devices()) >= 4
