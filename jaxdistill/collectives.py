"""What a compiled program sends between its devices, read from its text."""

import dataclasses
import math
import re
from collections.abc import Mapping

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.-]+ = (?P<type>\(.*?\)|\S+) (?P<kind>[\w-]+)\(")
_CALLED = re.compile(r"\b(?:body|to_apply|calls|true_computation|false_computation)=%?([\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'known_trip_count"?:\{"?n"?:"?(\d+)')
_GROUPS = re.compile(r"replica_groups=\{\{([\d,]*)\}|replica_groups=\[(\d+),(\d+)\]")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of the program.

    Attributes:
      kind: one of `KINDS`.
      shape: of what it returns, as the text has it.
      times: how often a run of the program performs it: the product of the trip counts of the loops around it.
      payload: bytes of the larger of what goes in and what comes out, on each device, each time.
      devices: that take part together.
    """

    kind: str
    shape: str
    times: int
    payload: int
    devices: int

    @property
    def wire(self) -> float:
        """Bytes that each device must send, each time: an all-reduce is a scatter of sums and a gather of them."""
        if self.kind == "collective-permute":
            return self.payload
        return (2 if self.kind == "all-reduce" else 1) * self.payload * (self.devices - 1) / self.devices


def collectives(text: str, devices: int) -> list[Collective]:
    """The collectives of a compiled program, those of loops with how often they happen.

    Args:
      text: `compiled.as_text()`.
      devices: of the program.

    Raises:
      ValueError: a loop with collectives in it does not say how often it runs.
    """
    computations, entry = _computations(text)
    found: list[Collective] = []

    def walk(name: str, times: int) -> None:
        for line in computations[name]:
            instruction = _INSTRUCTION.match(line)
            if not instruction:
                continue
            kind = instruction["kind"].removesuffix("-start")
            if kind in KINDS:
                found.append(_collective(kind, line, instruction["type"], times, devices))
                continue
            called = [*_CALLED.findall(line)]
            for names in _BRANCHES.findall(line):
                called += [name.strip().lstrip("%") for name in names.split(",")]
            trips = 1
            if kind == "while":
                said = _TRIPS.search(line)
                if not said and any(_speaks(computations, inner) for inner in called):
                    raise ValueError(f"no trip count: {line}")
                trips = int(said[1]) if said else 1
            for inner in called:
                walk(inner, times * trips)

    walk(entry, 1)
    return found


def wire_bytes(found: list[Collective]) -> dict[str, float]:
    """Bytes that each device sends in one run of the program, by kind."""
    totals: dict[str, float] = {}
    for one in found:
        totals[one.kind] = totals.get(one.kind, 0.0) + one.times * one.wire
    return totals


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    computations: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        head = _COMPUTATION.match(line)
        if head:
            lines = computations[head["name"]] = []
            entry = head["name"] if head["entry"] else entry
        else:
            lines.append(line)
    return computations, entry


def _speaks(computations: Mapping[str, list[str]], name: str) -> bool:
    """Whether a computation, or one that it calls, has a collective."""
    for line in computations[name]:
        instruction = _INSTRUCTION.match(line)
        if instruction and instruction["kind"].removesuffix("-start") in KINDS:
            return True
        if any(_speaks(computations, inner) for inner in _CALLED.findall(line)):
            return True
    return False


def _collective(kind: str, line: str, shape: str, times: int, devices: int) -> Collective:
    groups = _GROUPS.search(line)
    together = devices
    if groups:
        together = int(groups[3]) if groups[3] else len(groups[1].split(",")) if groups[1] else devices
    size = _size(shape)
    if kind == "reduce-scatter":
        size *= together
    return Collective(kind, shape, times, size, together)


def _size(shape: str) -> int:
    parts = re.findall(r"(\w+)\[([\d,]*)\]", shape)
    return sum(_BYTES[kind] * math.prod(int(n) for n in sizes.split(",") if n) for kind, sizes in parts)
