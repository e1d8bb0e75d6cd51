"""Dtypes that are only carried: they never stand in the way of a file, and come out as they went in."""

import ml_dtypes
import numpy as np
import pytest
from commands import facts, run
from models import pruned, read_json, same

import codec
from codec.errors import ArgumentError
from codec.model import load_file, safe_open, save_file
from codec.model.container import CARRIED, header_bytes

# name -> dtype, shape, bytes: one tensor of every dtype that cannot be packed.
ODD = {
    dtype.lower(): (dtype, [16, 24], np.random.default_rng(n).bytes(16 * 24 * bits // 8))
    for n, (dtype, (bits, _)) in enumerate(CARRIED.items())
}


@pytest.fixture
def odd(tmp_path):
    """A plain file with such tensors and one that can be packed."""
    w = pruned(64, 64)
    tensors = {**ODD, "w": ("F32", [64, 64], w.tobytes())}
    header = header_bytes([(name, dtype, shape) for name, (dtype, shape, _) in tensors.items()], {})
    (tmp_path / "odd.safetensors").write_bytes(header + b"".join(data for *_, data in tensors.values()))
    return tmp_path / "odd.safetensors", w


def raw_tensors(path):
    header, data = read_json(path)
    header.pop("__metadata__", None)
    return {n: (e["dtype"], e["shape"], data[slice(*e["data_offsets"])]) for n, e in header.items()}


@pytest.mark.parametrize("options", [(), ("--include", "w"), ("--layout", "bitmap"), ("--include", "*")])
def test_encode_verify_and_decode(odd, tmp_path, options):
    path, w = odd
    found = facts("encode", path, tmp_path / "p.safetensors", *options)
    assert found["packed"] == 1
    assert {name: raw_tensors(found["output"])[name] for name in ODD} == ODD
    assert facts("verify", found["output"])["checked"] == len(ODD) + 1
    checked = facts("verify", found["output"], "--against", path)
    assert checked["ok"]
    assert checked["compared_under"] == {"bits": len(ODD), "value": 1}
    assert run("decode", found["output"], tmp_path / "d.safetensors").exit_code == 0
    assert raw_tensors(tmp_path / "d.safetensors") == {**ODD, "w": ("F32", [64, 64], w.tobytes())}
    assert facts("convert", found["output"], tmp_path / "c.safetensors", "--objective", "speed")["converted"] == 1
    assert {name: raw_tensors(tmp_path / "c.safetensors")[name] for name in ODD} == ODD


def test_encode_says_what_it_only_copies(odd, tmp_path):
    result = run("encode", odd[0], tmp_path / "p.safetensors")
    assert f"{len(ODD)} tensors of dtypes that cannot be packed copied as they are" in result.stderr
    assert run("encode", odd[0], tmp_path / "q.safetensors", "-q").stderr == ""


def test_prune_copies_them(odd, tmp_path):
    assert run("prune", odd[0], tmp_path / "p.safetensors", "--sparsity", "0.9").exit_code == 0
    assert {name: raw_tensors(tmp_path / "p.safetensors")[name] for name in ODD} == ODD


def test_verify_shows_where_they_differ(odd, tmp_path):
    path, _ = odd
    facts("encode", path, tmp_path / "p.safetensors")
    raw = bytearray(path.read_bytes())
    at = bytes(raw).index(ODD["f4"][2]) + 50
    raw[at] ^= 1
    path.write_bytes(raw)
    found = facts("verify", tmp_path / "p.safetensors", "--against", path, status=1)
    assert [fault["fault"] for fault in found["faults"]] == ["tensor 'f4': first differs at byte 50 of its data"]


def test_damage_to_them_is_found(odd, tmp_path):
    facts("encode", odd[0], tmp_path / "p.safetensors")
    raw = bytearray((tmp_path / "p.safetensors").read_bytes())
    raw[bytes(raw).index(ODD["f4"][2]) + 50] ^= 1
    (tmp_path / "p.safetensors").write_bytes(raw)
    for verb, more in (("verify", ()), ("decode", (tmp_path / "d.safetensors",)), ("encode", ("-o", tmp_path / "x"))):
        result = run(verb, tmp_path / "p.safetensors", *more, "--force" if more else "-q")
        assert result.exit_code == 1
        assert "tensor 'f4'" in result.output
        assert "damaged" in result.output


def test_arrays_where_numpy_has_the_dtype(odd):
    with safe_open(odd[0]) as model:
        for name, (dtype, shape, data) in ODD.items():
            known = CARRIED[dtype][1]
            if known is None:
                with pytest.raises(ArgumentError, match=f"tensor '{name}'"):
                    model.get_tensor(name)
            else:
                same(model.get_tensor(name), np.frombuffer(data, known).reshape(shape))
                same(model.get_slice(name)[3:5], np.frombuffer(data, known).reshape(shape)[3:5])


NUMPY = ["complex64", "float8_e8m0fnu", "float8_e4m3fnuz", "float8_e5m2fnuz"]


@pytest.mark.parametrize("dtype", NUMPY)
@pytest.mark.parametrize("shape", [(), (5,), (6, 7), (3, 0)])
def test_numpy_arrays_are_stored_as_they_are(tmp_path, dtype, shape):
    known = np.dtype(dtype if dtype == "complex64" else getattr(ml_dtypes, dtype))
    raw = np.random.default_rng(0).integers(0, 256, (int(np.prod(shape)), known.itemsize), np.uint8)
    array = raw.reshape(-1).view(known).reshape(shape)
    save_file({"x": array, "t": array.T, "w": pruned(64, 64)}, tmp_path / "m")
    same(load_file(tmp_path / "m")["x"], array)
    same(load_file(tmp_path / "m")["t"], array.T.copy())
    if shape and dtype == "complex64":
        save_file({"x": array.astype(">c8")}, tmp_path / "m")
        same(load_file(tmp_path / "m")["x"], array)


@pytest.mark.parametrize("dtype", ["float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn", "int4", "uint2"])
def test_arrays_that_numpy_does_not_pack_are_refused(tmp_path, dtype):
    with pytest.raises(ArgumentError, match=f"tensor 'x': NumPy's {dtype} holds one element in each byte"):
        save_file({"x": np.zeros(8, getattr(ml_dtypes, dtype))}, tmp_path / "m")


def test_a_plan_cannot_pack_them(tmp_path):
    with pytest.raises(ArgumentError, match="tensor 'x': dtype C64 cannot be packed"):
        save_file({"x": np.zeros(8, np.complex64)}, tmp_path / "m", plan={"x": "csr"})
    save_file({"x": np.zeros(8, np.complex64)}, tmp_path / "m", plan={"*": "csr", "x": "dense"})
    save_file({"x": np.zeros(8, np.complex64)}, tmp_path / "m", plan={"*": "csr"})


def test_torch_tensors_are_stored_as_they_are(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    names = {
        "float8_e8m0fnu": "F8_E8M0", "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ",
        "float4_e2m1fn_x2": "F4",
    }  # fmt: skip
    bits = torch.arange(24, dtype=torch.uint8).reshape(4, 6)
    tensors = {name: bits.view(getattr(torch, name)) for name in names if hasattr(torch, name)}
    tensors["complex64"] = torch.complex(torch.ones(3, 2), torch.zeros(3, 2)).conj()
    save_file(tensors, tmp_path / "m")
    found = raw_tensors(tmp_path / "m")
    for name in tensors.keys() & names.keys():
        wide = [4, 12] if name == "float4_e2m1fn_x2" else [4, 6]
        assert found[name] == (names[name], wide, bytes(range(24)))
    assert found["complex64"] == ("C64", [3, 2], np.full(6, np.complex64(1).conj()).tobytes())
    with safe_open(tmp_path / "m", framework="pt") as model:
        for name in tensors.keys() - {"float4_e2m1fn_x2"}:
            again = model.get_tensor(name)
            assert again.dtype == tensors[name].dtype
            assert torch.equal(again.view(torch.uint8), tensors[name].resolve_conj().view(torch.uint8))


def test_torch_tensors_without_elements_to_read_are_named(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for tensor in (
        torch.empty(3, 2, device="meta"),
        torch.empty(3, 2, device="meta", dtype=torch.complex64),
        torch.empty(3, 2, dtype=torch.complex128),
        torch.eye(3).to_sparse(),
        torch.eye(3, dtype=torch.complex64).to_sparse(),
        Unreadable(),
    ):
        with pytest.raises(ArgumentError, match="tensor 'bad'"):
            save_file({"good": torch.ones(2), "bad": tensor}, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


class Unreadable:
    """An array of another library that raises its own errors."""

    def __array__(self, dtype=None, copy=None):
        raise KeyError("no such block")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_tensors_whose_size_cannot_even_be_asked_for(tmp_path):
    """A lazy module's parameters, nested tensors, and whatever raises errors of its own."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    for tensors, says in (
        (torch.nn.LazyLinear(4).state_dict(), "'weight': an uninitialized parameter .*: run the module once"),
        (torch.nn.LazyBatchNorm1d().state_dict(), "'.*': an uninitialized parameter .*: run the module once"),
        ({"w": nested}, r"'w': a nested torch tensor; .* \(tensor.unbind\(\)\)"),
        ({"w": nested.to(torch.complex64)}, r"'w': a nested torch tensor; .* \(tensor.unbind\(\)\)"),
        ({"w": Unreadable()}, r"'w': a Unreadable that NumPy cannot read \(KeyError.*give a NumPy array"),
    ):
        for save in (
            codec.save,
            lambda tensors: save_file(tensors, tmp_path / "m"),
            lambda tensors: save_file(tensors, tmp_path / "m", progress=lambda *_: None),
        ):
            with pytest.raises(ArgumentError, match=f"^tensor {says}"):
                save(tensors)
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_what_has_no_nbytes(tmp_path):
    seen = []
    save_file({"a": [[1.0, 2.0]], "b": np.ones(3)}, tmp_path / "m", progress=lambda *told: seen.append(told))
    assert seen == [(16, 40, "a"), (40, 40, "b")]


def test_torch_resolves_signs_of_what_is_only_carried():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    z = torch.tensor([1 + 2j, -3j], dtype=torch.complex64)
    for view in (torch._neg_view(z), torch._neg_view(z.conj())):
        assert codec.load(codec.save({"w": view}))["w"].tolist() == view.resolve_conj().resolve_neg().tolist()


def test_inspect_lists_them(odd):
    assert {row["dtype"] for row in facts("inspect", odd[0])["tensors"]} == {*CARRIED, "F32"}
