"""Pruning takes the memory of one tensor and little more: weights go in their own memory, a piece at a time."""

import os
import subprocess
import sys

import numpy as np
import pytest
from commands import write_plain
from hypothesis import given, settings
from hypothesis import strategies as st

import codec
from codec import prune
from codec.dtypes import BY_NAME
from codec.elements import Pieces
from codec.encoding.pack import Made, pack_array
from codec.errors import ArgumentError
from codec.prune.masking import remove, removed

SIDE = 4096

# The peak of a command over what its imports take, as a share of a file. ru_maxrss begins with that of the process that
# started this one; VmHWM is this one's own.
PEAK = """
import resource, sys
from click.testing import CliRunner
from codec.cli import main

def peak():
    try:
        with open("/proc/self/status") as status:
            return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

CliRunner().invoke(main, ["prune", "--help"])
before = peak()
result = CliRunner().invoke(main, ["prune", *sys.argv[2:]])
assert result.exit_code == 0, result.output
print((peak() - before) / int(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A file of one tensor of 67 MB."""
    weights = np.random.default_rng(0).standard_normal((SIDE, SIDE), np.float32)
    return write_plain(tmp_path_factory.mktemp("memory") / "one.safetensors", {"w": weights})


@pytest.mark.parametrize(
    "options",
    [
        "--global --sparsity 0.9",
        "--global --sparsity 0.5 --dense",
        "--sparsity 0.5 --dense",
        "--global --structure 4x4 --sparsity 0.9",
        "--global --structure row --sparsity 0.5 --dense",
        "--structure 2:4 --dense",
    ],
)
def test_a_file_of_one_tensor_is_pruned_in_little_more_than_its_memory(one, tmp_path, options):
    arguments = [str(SIDE * SIDE * 4), str(one), str(tmp_path / "out.safetensors"), *options.split()]
    # What glibc keeps of freed memory depends on the order of calls, and is up to a tenth: here large blocks go back.
    plain = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "400000"}
    done = subprocess.run([sys.executable, "-c", PEAK, *arguments], capture_output=True, text=True, env=plain)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) <= 1.3


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A file of one packed tensor, whose dense form is three times as large."""
    folder = tmp_path_factory.mktemp("packed")
    weights = prune.magnitude(np.random.default_rng(0).standard_normal((SIDE, SIDE), np.float32), 0.6)
    for name, value in (("packed", {"w": weights}), ("two", {"a": weights[: SIDE // 2], "b": weights[SIDE // 2 :]})):
        codec.save_file(value, folder / f"{name}.safetensors", objective="memory")
    return folder


@pytest.mark.parametrize("name", ["packed", "two"])
@pytest.mark.parametrize("options", ["--sparsity 0.8 --objective memory", "--sparsity 0.5 --dense"])
def test_a_packed_tensor_is_pruned_without_its_dense_form(packed, tmp_path, name, options):
    source = packed / f"{name}.safetensors"
    arguments = [str(os.path.getsize(source)), str(source), str(tmp_path / "out.safetensors"), "--global"]
    plain = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "400000"}
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *arguments, *options.split()], capture_output=True, text=True, env=plain
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) <= 1.3


@given(st.data())
@settings(deadline=None, max_examples=30)
def test_pieces_are_pruned_as_the_whole_is(data):
    element = data.draw(st.sampled_from(list(BY_NAME.values())))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    shapes = [{"a": (300, 700), "b": (7, 13)}, {"a": (70_001, 3)}, {"a": (1, 1), "b": (5, 70_001)}]
    shapes = data.draw(st.sampled_from(shapes))
    whole = {name: random.integers(-9, 9, shape).astype(element.dtype) for name, shape in shapes.items()}
    if element.is_float:
        whole["a"].reshape(-1)[0] = np.nan
        whole["a"][random.random(shapes["a"]) < 0.2] = -0.0
    pieces = {
        name: Pieces(a.dtype, a.shape, lambda first, count, a=a: a.reshape(-1)[first : first + count])
        for name, a in whole.items()
    }
    share = data.draw(st.sampled_from([0.0, 0.3, 0.6, 0.9]))
    counts = prune.removals(whole, share)
    assert prune.removals(pieces, share) == counts
    for name, a in whole.items():
        found = removed(pieces[name], counts[name])
        expected = prune.apply_mask(a, prune.mask_of(a, counts[name]))
        assert np.concatenate([*found]).tobytes() == expected.tobytes()
        first, count = a.size // 3, a.size // 2
        assert found.read(first, count).tobytes() == expected.reshape(-1)[first : first + count].tobytes()
        frame, _ = pack_array(found)
        assert frame.tobytes() == codec.dumps(codec.encode(expected))


@given(st.data())
def test_removing_in_place_is_what_the_mask_says(data):
    element = data.draw(st.sampled_from(list(BY_NAME.values())))
    structure = data.draw(st.sampled_from(["element", "2:4", "1:3", "row", "column", "3x5", "4x1", "1x7"]))
    shape = data.draw(st.sampled_from([(300, 700), (7, 13), (1, 1), (70_001, 3), (5, 70_001), (0, 4)]))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    a = random.integers(-9, 9, shape).astype(element.dtype)
    if element.is_float:
        a[random.random(shape) < 0.2] = -0.0
    how = {"structure": structure, "criterion": data.draw(st.sampled_from(prune.CRITERIA))}
    count = prune.removals({"": a}, None if ":" in structure else 0.6, allow_empty=True, **how)[""]
    mask = prune.mask_of(a, count, **how)
    found = a.copy()
    assert remove(found, count, **how) == a.size - np.count_nonzero(mask)
    assert found.tobytes() == prune.apply_mask(a, mask).tobytes()


def test_what_cannot_be_removed_in_place():
    nan = np.full((2, 2), np.nan)
    with pytest.raises(ArgumentError, match="expected 0 to 0, the structures that hold no NaN"):
        remove(nan, 1)
    with pytest.raises(ArgumentError, match='structure="1:2" fixes the sparsity; leave count=1 out'):
        remove(nan, 1, structure="1:2")
    with pytest.raises(ArgumentError, match="row 0, column 0: more than 1 of 2 weights are NaN"):
        remove(nan, None, structure="1:2")


@pytest.mark.parametrize("zero", ["value", "bits"])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9, 0.99, 1.0])
def test_an_array_that_is_given_up_is_packed_to_the_same_bytes(sparsity, zero):
    random = np.random.default_rng(0)
    for dtype in ("float32", "float16", "int8", "bool"):
        a = (random.integers(-50, 50, (600, 700)) * (random.random((600, 700)) >= sparsity)).astype(dtype)
        if dtype.startswith("float"):
            a[0, :9] = -0.0
        made, _ = pack_array(Made(a.copy), zero=zero)
        assert made.tobytes() == codec.dumps(codec.encode(a, zero=zero))
