"""Layout context: its model finds what there is to find, and its bytes are the same everywhere."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sets import printed_by_every_set

import codec
from codec import kernels
from codec.entropy import context_plain as plain
from codec.entropy.context_model import NEGATED, RAW, Model
from codec.layouts.context import Context

RNG = np.random.default_rng(0)
START = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def same_values() -> None:
    """Each test draws the same values, whichever tests ran before it."""
    RNG.bit_generator.state = START


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def pruned(a: np.ndarray, sparsity: float) -> np.ndarray:
    return np.where(np.abs(a) < np.quantile(np.abs(a), sparsity), a.dtype.type(0), a)


def model_of(a: np.ndarray) -> Model:
    """The model that is chosen for a matrix in one segment."""
    rows, cols = a.shape
    streams = kernels.Streams(rows, cols, rows, cols, a.itemsize, (1 << 8 * a.itemsize) - 1, 0, Context.number, (), 1)
    streams.encode(kernels.octets(a), None, 1)
    return plain.read_model(bytes(streams.part(0, 0)), rows, cols, a.itemsize)


def coded_bits(a: np.ndarray) -> float:
    """Bits per weight of the coded parts, which come back."""
    p = codec.encode(a, layout="context")
    assert codec.decode(codec.dumps(p)).tobytes() == a.tobytes()
    return 8 * p.parts["coded"] / a.size


def entropy(share: float) -> float:
    return float(-share * np.log2(share) - (1 - share) * np.log2(1 - share))


def test_independent_zeros_take_their_entropy() -> None:
    for share in (0.5, 0.1, 0.01):
        a = np.where(RNG.random((600, 800)) < share, np.float32(1), np.float32(0))
        found = coded_bits(a)
        assert found < entropy(share) * 1.005 + 0.003
        assert model_of(a).classes == 1


def test_rows_and_columns_of_different_density_are_classes() -> None:
    odds = RNG.standard_normal((600, 1)) + RNG.standard_normal(400)
    share = 1 / (1 + np.exp(-odds))
    a = np.where(RNG.random(share.shape) < share, np.float32(1), np.float32(0))
    model = model_of(a)
    assert model.rows.coded
    assert model.cols.coded
    assert coded_bits(a) < float(np.mean([entropy(one) for one in share.ravel()])) + 0.03


def test_dead_blocks_rows_and_columns_cost_next_to_nothing() -> None:
    blocks = np.repeat(np.repeat(RNG.random((80, 100)) < 0.2, 8, axis=0), 4, axis=1)
    a = np.where(blocks, np.float32(1), np.float32(0))
    assert [one[:2] for one in model_of(a).blocks] == [(8, 4)]
    assert coded_bits(a) < entropy(0.2) / 32 * 1.2
    lines = np.zeros((300, 400), np.float32)
    lines[::3, RNG.random(400) < 0.5] = 1
    assert coded_bits(lines) < 0.02


def test_lines_that_are_dead_by_chance_are_not_said() -> None:
    a = np.where(RNG.random((384, 384)) < 0.001, np.float32(1), np.float32(0))
    assert not model_of(a).rows.dead
    assert not model_of(a).cols.dead
    live = RNG.random(384) < 0.3
    a = np.where(live & (RNG.random((384, 384)) < 0.02), np.float32(1), np.float32(0))
    model = model_of(a)
    assert model.cols.dead
    assert not model.rows.dead
    assert model.cols.symbols is not None
    assert np.array_equal(model.cols.symbols > 0, a.any(axis=0))


def test_few_values_take_a_small_table() -> None:
    few = np.where(RNG.random((300, 300)) < 0.001, RNG.integers(-40, 40, (300, 300)), 0).astype(np.int8)
    many = RNG.integers(-40, 40, (300, 300)).astype(np.int8)
    assert model_of(few).scale < 9
    assert model_of(many).scale == 12
    # Also where there are so many raw bits that states fill registers.
    raw = few_of_many_raw_bits()
    assert model_of(raw).scale < 9
    assert model_of(raw).lanes >= 16
    assert coded_bits(raw) < 8000 / 90_000 * 52 + entropy(8 / 90) + 0.05


def few_of_many_raw_bits() -> np.ndarray:
    rng = np.random.default_rng(3)
    a = np.zeros(90_000)
    a[rng.choice(90_000, 8000, replace=False)] = 1 + rng.random(8000)
    return a.reshape(300, 300)


def test_two_of_four_takes_the_entropy_of_a_group() -> None:
    grouped = np.abs(normal(400, 100, 4))
    a = (np.argsort(np.argsort(grouped)) < 2).astype(np.float32).reshape(400, 400)
    assert model_of(a).group == 4
    assert coded_bits(a) < np.log2(6) / 4 + 0.015


def smooth(rows: int, cols: int, along: int, seed: int = 0) -> np.ndarray:
    """Noise of which elements beside each other in a row have so many of their terms in common."""
    noise = np.random.default_rng(seed).standard_normal((rows, cols + along))
    return np.cumsum(noise, axis=1)[:, along:] - np.cumsum(noise, axis=1)[:, :-along]


def test_elements_beside_each_other_tell_of_each_other() -> None:
    # As in images: what lies beside an element and what lies a line of 28 above it.
    field = smooth(300, 784, 8)
    field[:, 28:] += field[:, :-28].copy()
    a = np.where(field > np.quantile(field, 0.9), normal(300, 784), np.float32(0))
    model = model_of(a)
    assert model.group == 784
    assert {1, 28} <= set(model.near)
    mask = np.where(a != 0, np.float32(1), np.float32(0))
    assert coded_bits(mask) < 0.8 * entropy(0.1)
    # In kernels of 3 x 3, also where a row has too many of them to be a group.
    field = np.repeat(normal(64, 200), 9, axis=1) + normal(64, 1800)
    mask = np.where(field > np.quantile(field, 0.9), np.float32(1), np.float32(0))
    assert model_of(mask).group == 9
    assert coded_bits(mask) < 0.97 * entropy(0.1)


def test_raw_bits_that_are_zero_in_a_panel_are_left_out() -> None:
    a = pruned(normal(1200, 384), 0.5)
    some = a.copy()
    some[:420] = some[:420].astype(np.float16)
    assert set(model_of(some).left_out) == {0, 13}
    assert not model_of(a).left_out
    assert coded_bits(some) < coded_bits(a) - 0.9 * 13 * 0.5 * 420 / 1200


def test_what_values_tell() -> None:
    a = pruned(normal(400, 500), 0.5)
    whole = coded_bits(a)
    # Exact up-casts of 16 bits cost what these cost.
    half = a.astype(np.float16)
    assert coded_bits(half.astype(np.float32)) < coded_bits(half) * 1.01
    # A sign that is always the same costs nothing, nor does a value that is.
    assert coded_bits(np.abs(a)) < whole - 0.45
    assert coded_bits(np.where(a != 0, np.float32(-3.7), np.float32(0))) < 1.01
    # Rows of another scale get tables of their own.
    rows = np.exp(2 * RNG.standard_normal((400, 1)))
    scaled = np.rint(np.clip(a * rows * 20, -127, 127)).astype(np.int8)
    assert len(model_of(scaled).tables) > 1


def test_eight_bits_are_a_sign_and_a_size() -> None:
    sizes = np.clip(np.rint(pruned(normal(300, 400), 0.5) * 30), -127, 127).astype(np.int8)
    assert model_of(sizes).sign == NEGATED
    # The least integer has no size.
    sizes[0, 0] = -128
    assert model_of(sizes).sign != NEGATED
    assert codec.decode(codec.encode(sizes, layout="context")).tobytes() == sizes.tobytes()
    assert model_of(pruned(normal(300, 400), 0.5).astype(ml_dtypes.float8_e4m3fn).view(np.uint8)).sign == RAW


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_columns_of_one_sign_say_it_once(dtype: str) -> None:
    sizes = np.clip(np.abs(pruned(normal(600, 256), 0.5)) * 30, 0, 127)
    sizes = np.rint(sizes) if dtype == "int8" else sizes
    columns, values = np.where(RNG.random(256) < 0.5, -1, 1), np.where(RNG.random((600, 256)) < 0.05, -1, 1)
    # Adding 0 makes zeros of negative ones.
    plain = coded_bits((sizes * np.where(RNG.random((600, 256)) < 0.5, -1, 1) + 0.0).astype(dtype))
    assert coded_bits((sizes * columns * values + 0.0).astype(dtype)) < plain - 0.5 * (1 - entropy(0.05)) + 0.03


def test_columns_of_one_sign_and_of_other_sizes_come_back() -> None:
    """Whichever part of the columns the least class stands in, it is symbol 0 of the columns, which has to occur."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        a = np.abs(rng.standard_normal((400, 60))) * np.exp(rng.standard_normal((1, 60)))
        a = pruned(np.where(rng.random(a.shape) < rng.choice([0.03, 0.97], 60), -a, a).astype(np.float32), 0.6)
        assert codec.decode(codec.dumps(codec.encode(a, layout="context"))).tobytes() == a.tobytes()


def test_symbols_begin_at_the_least_value() -> None:
    a = pruned(normal(300, 400), 0.99)
    model = model_of(a)
    assert model.fine > 0
    least = int(np.abs(a[a != 0]).min().view(np.uint32))
    assert 0 <= least - model.base < 1 << model.low - model.fine


def test_few_elements_have_a_probability_for_each_pair_of_classes() -> None:
    share = np.where(np.arange(600) < 200, 0.05, 0.002)[:, None] * np.where(np.arange(400) < 40, 8, 1)
    share[:200, :40] = 0.06  # not what rows and columns tell
    a = np.where(RNG.random((600, 400)) < share, np.float32(1), np.float32(0))
    assert coded_bits(a) < float(np.mean([entropy(one) for one in share.ravel()])) + 0.005


@pytest.mark.parametrize(
    "a",
    [
        np.zeros((500, 600), np.float32),
        np.eye(1, 300_000, 77, dtype=np.float32),
        np.full((300, 400), 3.25, np.float32),
        np.frombuffer(np.random.default_rng(1).bytes(1 << 20), np.uint32).reshape(512, 512),
        np.frombuffer(np.random.default_rng(2).bytes(1 << 10), np.uint8).reshape(32, 32),
    ],
    ids=["zeros", "one", "constant", "random", "random KB"],
)
def test_never_larger_than_raw_but_for_the_head(a: np.ndarray) -> None:
    p = codec.encode(a)
    head = p.nbytes - sum(p.parts[name] for name in p.entropy)
    assert p.nbytes <= a.nbytes + head + 64
    assert codec.decode(p).tobytes() == a.tobytes()


def test_entropy_does_not_apply() -> None:
    a = pruned(normal(20, 30), 0.5)
    for entropy_stage in ("none", "huffman", "rans", "zstd"):
        with pytest.raises(codec.ArgumentError, match="does not apply to layout context"):
            codec.encode(a, layout="context", entropy=entropy_stage)
    assert codec.encode(a, objective="memory").layout != "context"


def test_disk_takes_it_for_pruned_weights() -> None:
    assert codec.encode(pruned(normal(384, 384), 0.8)).layout == "context"


_PRINT = """
import hashlib, numpy as np, codec
rng, found = np.random.default_rng(0), hashlib.sha256()
for dtype in ("float32", "float16", "int8", "int32"):
    for keep in (0.5, 0.03):
        a = rng.standard_normal((700, 300)) * np.exp(rng.standard_normal((700, 1)) / 2) * 20
        a[np.abs(a) < np.quantile(np.abs(a), 1 - keep)] = 0
        found.update(codec.dumps(codec.encode(np.clip(a, -120, 120).astype(dtype), layout="context", threads=1)))
        a[:, 1:] += a[:, :-1] * (np.abs(a[:, :-1]) > 20)
        found.update(codec.dumps(codec.encode(np.clip(a, -120, 120).astype(dtype), layout="context", threads=1)))
a = np.zeros(90_000)
a[rng.choice(90_000, 8000, replace=False)] = 1 + rng.random(8000)
found.update(codec.dumps(codec.encode(a.reshape(300, 300), layout="context", threads=1)))
print(found.hexdigest())
"""


def test_every_instruction_set_writes_the_same() -> None:
    assert len(printed_by_every_set(_PRINT)) == 1


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_structured_matrices_come_back(data: st.DataObject) -> None:
    rows, cols = data.draw(st.integers(1, 300)), data.draw(st.sampled_from([1, 4, 9, 63, 64, 384, 20_000]))
    rows = min(rows, 400_000 // cols)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    spread: Any = data.draw(st.sampled_from([0, 0.5, 2]))
    a = rng.standard_normal((rows, cols)) * np.exp(spread * rng.standard_normal((rows, 1)))
    a *= np.exp(spread * rng.standard_normal(cols))
    a[np.abs(a) < np.quantile(np.abs(a), data.draw(st.sampled_from([0, 0.5, 0.9, 0.999])))] = 0
    if data.draw(st.booleans()):
        r, c = data.draw(st.sampled_from([(1, 4), (8, 4), (16, 1), (3, 9)]))
        live = rng.random((rows // r + 1, cols // c + 1)) < 0.3
        a *= np.repeat(np.repeat(live, r, axis=0), c, axis=1)[:rows, :cols]
    if cols > 9 and data.draw(st.booleans()):
        a *= smooth(rows, cols, 4, data.draw(st.integers(0, 9))) > 1
    if data.draw(st.booleans()):
        a[: rows // 2] = np.rint(4 * a[: rows // 2]) / 4
    dtype = data.draw(st.sampled_from(["float32", "float16", "float64", "int8", "int16", "uint8"]))
    integers = np.dtype(dtype).kind != "f"
    scale = 100 / (np.abs(a).max() or 1) if integers else 1
    found = (np.abs(a * scale) if dtype == "uint8" else np.clip(a * scale, -6e4, 6e4)).astype(dtype)
    found[found == 0] = 0
    assert codec.decode(codec.dumps(codec.encode(found, layout="context"))).tobytes() == found.tobytes()
