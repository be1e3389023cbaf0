import numpy as np
import pytest

from jaxdistill.data.draws import below, draw, key, uniform

MASK = 2**64 - 1


def splitmix(state: int) -> int:
    """The published SplitMix64: one output of a generator in the given state."""
    state = (state + 0x9E3779B97F4A7C15) & MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def test_is_splitmix64():
    # The first outputs of the reference implementation with seed 1234567.
    stream = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert draw(1234567, np.arange(5)).tolist() == stream
    assert key(1234567) == stream[0] == splitmix(1234567)


def test_coordinates_chain():
    keys = draw(key(3, "mix", "teacher", 9), np.arange(4))
    bits = draw(keys[:, None], np.arange(6)[None])
    for row in range(4):
        for place in range(6):
            chained = splitmix(
                splitmix(key(3, "mix", "teacher", 9) + row * 0x9E3779B97F4A7C15) + place * 0x9E3779B97F4A7C15
            )
            assert bits[row, place] == chained & MASK


def test_leaves_its_arguments_alone():
    counters, keys = np.arange(5, dtype=np.uint64), np.arange(5, dtype=np.uint64)
    draw(keys, counters)
    assert counters.tolist() == keys.tolist() == list(range(5))


def test_keys_differ():
    keys = [
        key(s, *parts)
        for s in (0, 1, -1)
        for parts in ((), ("a",), ("b",), ("a", 0), ("a", 1), (0,), ("a", "b"), ("b", "a"), ("ab",))
    ]
    assert len(set(keys)) == len(keys)


def chi_square(counts: np.ndarray) -> float:
    """Standardised: about normal when all cells are equally likely."""
    expected = counts.sum() / counts.size
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = counts.size - 1
    return (statistic - freedom) / np.sqrt(2 * freedom)


COORDINATES = {
    "position": lambda n: draw(draw(key(1, "p", 5), np.array([7])), np.arange(n)),
    "row": lambda n: draw(draw(key(1, "p", 5), np.arange(n)), np.array([3])),
    "step": lambda n: np.array([draw(draw(key(1, "p", step), np.array([7])), np.array([3]))[0] for step in range(n)]),
    "seed": lambda n: np.array([draw(draw(key(seed, "p", 5), np.array([7])), np.array([3]))[0] for seed in range(n)]),
}


@pytest.mark.parametrize("name", COORDINATES)
def test_uniform_along_every_coordinate(name):
    n = 1 << (13 if name in ("step", "seed") else 17)
    bits = COORDINATES[name](n)
    for shift in (0, 8, 24, 40, 56):
        cells = ((bits >> np.uint64(shift)) & np.uint64(255)).astype(int)
        assert abs(chi_square(np.bincount(cells, minlength=256))) < 5
    pairs = (bits[:-1] >> np.uint64(60)) * np.uint64(16) + (bits[1:] >> np.uint64(60))
    assert abs(chi_square(np.bincount(pairs.astype(int), minlength=256))) < 5
    assert abs(uniform(bits).mean() - 0.5) < 5 * np.sqrt(1 / 12 / n)


def test_purposes_steps_and_neighbouring_rows_are_uncorrelated():
    n, rows = 1024, np.arange(256)

    def block(purpose, step, seed=0, shift=0):
        return uniform(draw(draw(key(seed, purpose, step), rows + shift)[:, None], np.arange(n)[None])).ravel()

    base = block("pieces", 4)
    for other in (
        block("action", 4),
        block("pieces", 5),
        block("pieces", 4, seed=1),
        block("pieces", 4, shift=1),
        np.roll(base, 1),
    ):
        assert abs(np.corrcoef(base, other)[0, 1]) < 5 / np.sqrt(base.size)
        cells = (base * 16).astype(int) * 16 + (other * 16).astype(int)
        assert abs(chi_square(np.bincount(cells, minlength=256))) < 5


def test_uniform_and_below_ranges():
    ends = np.array([0, MASK], np.uint64)
    assert uniform(ends)[0] == 0.0 and 1 - 1e-15 < uniform(ends)[1] < 1.0
    assert below(ends, 7).tolist() == [0, 6]
    assert below(ends, np.array([3, 30522])).tolist() == [0, 30521]
    counts = np.bincount(below(draw(2, np.arange(200_000)), 1000), minlength=1000)
    assert abs(chi_square(counts)) < 5
