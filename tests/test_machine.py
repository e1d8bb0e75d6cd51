"""Times: the model adds up, profiles are files, and a short measurement answers every question."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import facts, refused, run

import codec
from codec.costs.inverse import granularity, sparsity_for_bytes, sparsity_for_speedup
from codec.costs.machine import MachineProfile, cached, profile_machine
from codec.costs.machine.libraries import Libraries
from codec.costs.machine.measure import executed
from codec.costs.machine.model import BATCHES, FAR, Row, sizes
from codec.costs.machine.profile import OPERATIONS, cache_path, this_cpu
from codec.costs.machine.timing import Group, complete, take_turns, warm_and_timed


def made_up(**changes: object) -> MachineProfile:
    """A machine with round figures: 1 us for a call, 1 ns for a non-zero and column, 0.1 ns for an element."""
    fixed, none = (1e-6,), (0.0,)
    element = (1e-10,) * len(BATCHES), tuple(1e-10 + 1e-9 * batch for batch in BATCHES)
    rows = tuple(Row(name, params, "F32", fixed, none, none, element, none) for name, params in executed())
    whole = tuple(replace(row, element=((1e-10,), (3e-10,))) for row in rows)
    library = (tuple(max(5e-10, 2.5e-10 * batch) for batch in BATCHES),) * len(sizes(1))
    dense = tuple(
        Row("numpy", {"dtype": "float32", "width": 4, "aligned": aligned}, "F32", fixed, none, none, library, none)
        for aligned in (False, True)
    )
    whole_machine = MachineProfile(
        this_cpu(), "scalar", 4, ((1e6, 1e11), (1e8, 1e10)), 1e10, 4.0, 2.0, (0.0, 1.0),
        {"products": rows, "dense": dense, "decode": whole, "encode": whole},
    )  # fmt: skip
    return replace(whole_machine, **changes)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MachineProfile:
    """The machine of round figures as the cached one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path(cache_path()).parent.mkdir(parents=True)
    machine = made_up()
    machine.save(cache_path())
    return machine


def test_the_model_adds_up() -> None:
    machine = made_up()
    options = {"layout": "csr", "shape": (500, 200), "dtype": "float32", "sparsity": 0.9}
    one = machine.predict("matvec", **options)
    assert one.seconds == pytest.approx(1e-6 + 1e5 * (1e-10 + 0.1e-9), rel=0.01)
    assert one.low <= one.seconds <= one.high
    many = machine.predict("matmul", **options, batch=64)
    assert many.seconds == pytest.approx(1e-6 + 1e5 * (1e-10 + 6.4e-9), rel=0.01)
    assert one.seconds < machine.predict("matmul", **options, batch=3).seconds < many.seconds
    assert machine.predict("matmul", **options, batch=64, threads=4).seconds < many.seconds / 3
    assert (
        machine.predict("decode", **options).seconds < machine.predict("decode", **options | {"sparsity": 0.1}).seconds
    )
    tiny = machine.predict("matvec", **options | {"shape": (4, 4)})
    assert tiny.bound_by == "overhead"
    wide = machine.predict("matvec", layout="csr", shape=(8192, 8192), dtype="float32", sparsity=0.1, cold=True)
    slow = replace(machine, bandwidth=((1e6, 1e9), (1e8, 1e9)))
    assert wide.bound_by == "look-ups"
    assert (
        slow.predict("matvec", layout="csr", shape=(64, 64), dtype="float32", sparsity=0.1, cold=True).bound_by
        == "bytes"
    )
    assert machine.predict(
        "matvec", layout=None, shape=(500, 200), dtype="float32", sparsity=0
    ).seconds == pytest.approx(1e-6 + 1e5 * 5e-10, rel=0.01)
    far = replace(
        machine,
        tables={**machine.tables, "products": tuple(replace(r, far=(6.4e-8,)) for r in machine.tables["products"])},
    )
    near, beyond = (
        m.predict("matmul", layout="csr", shape=(64, FAR), dtype="float32", sparsity=0.5, batch=64).seconds
        for m in (machine, far)
    )
    assert beyond - near == pytest.approx(64 * FAR * 0.5 * 6.4e-8, rel=0.05)
    warm, cold = (machine.predict("matvec", **options, cold=cold).seconds for cold in (False, True))
    nbytes = codec.encoded_nbytes("csr", (500, 200), "float32", sparsity=0.9)
    assert cold - warm == pytest.approx(nbytes * (1e-10 - 1e-11))


def test_statistics_and_sparsities_tell_the_same() -> None:
    a = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    a = np.where(np.random.default_rng(1).random(a.shape) < 0.75, np.float32(0), a)
    stats = codec.tensor_stats(a)
    machine = made_up()
    counted = machine.predict("matvec", layout="bitmap", shape=a.shape, dtype=a.dtype, stats=stats)
    expected = machine.predict("matvec", layout="bitmap", shape=a.shape, dtype=a.dtype, sparsity=stats.sparsity)
    assert counted.seconds == pytest.approx(expected.seconds, rel=0.01)


@pytest.mark.parametrize(
    ("operation", "options", "message"),
    [
        ("conv", {}, "operation='conv'"),
        ("matvec", {"batch": 0}, "batch=0"),
        ("matvec", {"threads": True}, "threads=True"),
        ("matvec", {"sparsity": None}, "one of sparsity= and stats="),
        ("matvec", {"layout": "cheese"}, "cheese"),
        ("matmul", {"dtype": "int32"}, "products of int32 weights were not measured"),
        ("decode", {"layout": None}, "'decode' needs a layout"),
    ],
)
def test_what_is_not_predicted(operation: str, options: dict, message: str) -> None:
    asked = {"layout": "csr", "shape": (64, 64), "dtype": "float32", "sparsity": 0.5, **options}
    with pytest.raises(codec.ArgumentError, match=message):
        made_up().predict(operation, **asked)


def test_break_even_by_other_metrics() -> None:
    machine = made_up()
    found = codec.break_even("csr", (512, 512), "float32", metric="matvec", machine=machine)
    assert found.sparsity == pytest.approx(0.6, abs=0.02)  # 0.1 ns and 1 ns for a non-zero against 0.5 ns
    assert codec.break_even("csr", (512, 512), "float32", metric="matmul", batch=64, machine=machine).sparsity > 0.7
    assert codec.break_even("csr", (256, 256), "float32", metric="decode", machine=machine).sparsity is not None
    energy = codec.break_even("csr", (512, 512), "float32", metric="energy", batch=4)
    assert energy.sparsity < codec.break_even("csr", (512, 512), "float32").sparsity  # zeros are not multiplied with
    for options in (
        {"metric": "matvec", "batch": 2},
        {"metric": "matmul", "headers": False},
        {"metric": "joy"},
        {"batch": 2},
    ):
        with pytest.raises(codec.ArgumentError, match=r"expected|belong"):
            codec.break_even("csr", (64, 64), "float32", machine=machine if "metric" in options else None, **options)


def test_times_without_a_profile_say_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cached() is None
    with pytest.raises(codec.ArgumentError, match="codec config --measure"):
        codec.break_even("csr", (64, 64), "float32", metric="matvec")
    with pytest.raises(codec.ArgumentError, match="codec config --measure"):
        sparsity_for_speedup((64, 64), "float32", 2.0)
    refused(run("breakeven", "--shape", "64x64", "--metric", "matvec"), 2, "codec config --measure")


def test_a_profile_of_another_processor_is_none(kept: MachineProfile, plain: Path) -> None:
    assert cached() == kept
    replace(kept, cpu="another").save(cache_path())
    assert cached() is None
    refused(run("breakeven", "--shape", "64x64", "--metric", "matvec"), 2, "codec config --measure")


def test_profiles_are_files(tmp_path: Path) -> None:
    path, machine = tmp_path / "machine.json", made_up()
    machine.save(path)
    assert MachineProfile.load(path) == machine
    good = json.loads(path.read_text())
    for change in (
        {"codec_profile": 9}, {"cpu": None, "more": 1}, {"densities": [1, "x"]}, {"tables": {}}, {"tables": 3},
        {"tables": {**good["tables"], "products": [{"layout": "csr"}]}}, {"bandwidth": [[1, float("nan")]]},
    ):  # fmt: skip
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(codec.ArgumentError, match="no machine profile"):
            MachineProfile.load(path)
    path.write_text("{")
    with pytest.raises(codec.ArgumentError, match="no machine profile"):
        MachineProfile.load(path)


def test_inverse_questions() -> None:
    shape = (1024, 1024)
    half = sparsity_for_bytes({"w": (shape, "float16"), "v": (shape, "float16")}, 2 << 20)
    assert half == pytest.approx(0.5625, abs=0.002)  # a bitmap of 1 + 16 d bits is 8
    assert sparsity_for_bytes([(shape, "float16")], 4 << 20) == 0.0
    assert sparsity_for_bytes([(shape, "float16")], 10) is None
    for wrong in (float("nan"), -1, "4 GB"):
        with pytest.raises(codec.ArgumentError, match="expected a number from 0 on"):
            sparsity_for_bytes([(shape, "float16")], wrong)
    blocks = sparsity_for_bytes([(shape, "float16")], 1 << 20, structure="4x4")
    assert blocks is not None
    assert blocks < half
    machine = made_up()
    at, _ = sparsity_for_speedup(shape, "float32", 2.0, machine=machine)
    assert at == pytest.approx(0.85, abs=0.02)  # 0.25 ns: 0.1 and 0.15 of a non-zero
    assert sparsity_for_speedup(shape, "float32", 1000.0, machine=machine) is None
    with pytest.raises(codec.ArgumentError, match="faster=0"):
        sparsity_for_speedup(shape, "float32", 0, machine=machine)
    found = granularity(shape, "float16", 0.8, ["4x4", "filter", "2:4"])
    assert found["4x4"][1] < 0.8
    assert found["2:4"][0] > found["4x4"][0]


def test_verbs_with_a_profile(kept: MachineProfile, plain: Path, tmp_path: Path) -> None:
    text = run("breakeven", "--shape", "512x512", "--dtype", "F32", "--metric", "matvec").stdout
    assert "dense takes 132 us" in text
    told = facts("breakeven", "--shape", "512x512", "--metric", "energy", "--batch", "8")
    assert told["unit"] == "joules"
    refused(run("breakeven", "--shape", "8x8", "--metric", "decode", "--plot", tmp_path / "a.svg"), 2, "--metric bytes")
    refused(run("breakeven", plain, "--metric", "decode"), 2, "needs --shape")
    refused(run("breakeven", plain, "--batch", "8"), 2, "--batch is for --metric matmul")
    refused(run("breakeven", "--shape", "8x8", "--batch", "8"), 2, "--batch is for --metric matmul")
    refused(run("plan", plain, "--batch", "8"), 2, 'with "speed"')
    planned = facts("plan", plain, "--objective", "speed", "--batch", "4")
    rows = {row["name"]: row for row in planned["tensors"]}
    assert rows["w"]["seconds"] < rows["w"]["dense_seconds"]
    assert rows["bias"]["seconds"] is None
    assert "speed-up" in run("plan", plain, "--objective", "speed").stdout
    limited = facts("plan", plain, "--objective", "speed", "--limit", planned["nbytes"])
    assert limited["nbytes"] <= planned["nbytes"]
    refused(run("plan", plain, "--objective", "speed", "--limit", "10"), 2, "the smallest choice of layouts")


def test_groups_take_turns_by_the_time_they_had() -> None:
    """A time is the lower quartile of runs; a group of slow calls has fewer rounds, and one without any has one."""
    log: list[str] = []

    def call(name: str, turns: int) -> Callable[[], object]:
        return lambda: log.append(name) or sum(range(turns))

    quick, slow = Group(warm_and_timed([call("quick", 1000)])), Group([(0, call("slow", 20_000)), (1, call("too", 10))])
    take_turns([quick, slow], 0.02)
    assert log.count("quick") > 2 * log.count("slow") > 0
    assert log.count("slow") == log.count("too")
    assert slow.seconds[0] > 4 * slow.seconds[1] > 0
    late = Group([(0, call("late", 1))])
    complete([quick, late])
    assert log.count("late") == 1
    assert late.seconds.shape == (1,)


def test_dense_libraries_that_fail_are_named() -> None:
    with Libraries() as libraries:
        libraries.wait()
        with pytest.raises(codec.CodecError, match=r"could not be measured.*could not convert"):
            libraries.turn("cheese")  # type: ignore[arg-type]


def test_a_short_measurement_answers_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its times are not compared with anything: that would fail on a busy machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    told: list[float] = []
    machine = profile_machine(1, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1
    assert cached() == machine
    assert {row.layout for row in machine.tables["products"]} == {name for name, _ in executed()}
    assert any(row.layout == "numpy" for row in machine.tables["dense"])
    for dtype in ("float64", "float32", "float16", "bfloat16", "int8"):
        for operation in OPERATIONS:
            for name, params in executed():
                options = {"shape": (300, 200), "dtype": dtype, "sparsity": 0.8, "batch": 1, **params}
                found = machine.predict(operation, layout=name, **options)
                assert 0 < found.low <= found.seconds <= found.high
        assert machine.predict("matmul", layout=None, shape=(300, 200), dtype=dtype, sparsity=0, batch=7).seconds > 0
    for seconds in (0, "long", float("nan")):
        with pytest.raises(codec.ArgumentError, match="seconds="):
            profile_machine(seconds)
