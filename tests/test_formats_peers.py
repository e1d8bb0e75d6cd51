"""Files of other tools' own implementations are read bit for bit, and ours are read by them."""

import numpy as np
import pytest
from networks import same, tensor

import codec
from codec.formats import FORMATS, open_file, write_file
from codec.formats.base import array_of


def finite(a):
    """Without NaN, whose payload other libraries do not keep where they add."""
    a[~np.isfinite(a)] = 1
    return a


@pytest.mark.parametrize("kind", ["csr", "csc", "bsr", "coo", "dia"])
@pytest.mark.parametrize("dtype", ["F32", "I8", "U16", "BOOL"])
def test_scipy_in_and_out(tmp_path, kind, dtype):
    sparse = pytest.importorskip("scipy.sparse")
    a = finite(tensor((16, 40), dtype, 0.8))
    sparse.save_npz(tmp_path / "theirs.npz", sparse.csr_array(a).asformat(kind))
    same(open_file(tmp_path / "theirs.npz")["theirs"], a)
    write_file({"w": a}, tmp_path / "ours.npz", "scipy", sparse=lambda name: True)
    same(sparse.load_npz(tmp_path / "ours.npz").toarray(), a)


def test_entries_in_any_order_are_what_scipy_makes_of_them(tmp_path):
    sparse = pytest.importorskip("scipy.sparse")
    rows, cols = np.array([3, 0, 3, 1]), np.array([1, 2, 1, 0])
    coo = sparse.coo_array((np.array([1.0, 2, 3, 4], np.float32), (rows, cols)), shape=(4, 4))
    sparse.save_npz(tmp_path / "m.npz", coo)
    same(open_file(tmp_path / "m.npz")["m"], coo.toarray())


@pytest.mark.parametrize("dtype", ["F64", "F32", "I8", "I64", "U16", "BOOL"])
@pytest.mark.parametrize("kind", ["CSR", "CSC", "COO", "COOR", "COOC", "DCSR", "DCSC", "DMATR", "DMATC"])
def test_binsparse_in(tmp_path, kind, dtype):
    binsparse, sparse = pytest.importorskip("binsparse"), pytest.importorskip("scipy.sparse")
    a = tensor((6, 9), dtype, 0.7)
    a[2] = 0
    a[:, 3] = 0
    by_columns = kind in ("CSC", "COOC", "DCSC")
    lines = sparse.csr_array(a.T if by_columns else a)
    major = np.repeat(np.arange(lines.shape[0]), np.diff(lines.indptr))
    common = {"shape": a.shape, "number_of_stored_values": lines.nnz}
    index = {"indices_0": major, "indices_1": lines.indices.astype(np.int64), "values": lines.data}
    if kind.startswith("DMAT"):
        common["number_of_stored_values"] = a.size
        made = {"values": a.reshape(-1, order="F" if kind == "DMATC" else "C")}
    elif kind in ("CSR", "CSC"):
        made = {"pointers_to_1": lines.indptr.astype(np.int64), "indices_1": index["indices_1"], "values": lines.data}
    elif kind in ("DCSR", "DCSC"):
        there = np.flatnonzero(np.diff(lines.indptr))
        pointers = np.r_[0, np.cumsum(np.diff(lines.indptr)[there])]
        made = {"indices_0": there, "pointers_to_1": pointers, "indices_1": index["indices_1"], "values": lines.data}
    else:
        made = index
    cls = getattr(binsparse, f"{kind}Matrix")
    names = {f.name for f in __import__("dataclasses").fields(cls)}
    fitted = {key: value for key, value in {**common, **made}.items() if key in names}
    for name in ("m.bsp.npz", "m.npz"):
        binsparse.save_binsparse(cls(**fitted), tmp_path / name)
        with open_file(tmp_path / name) as source:
            assert source.format == "binsparse"
            same(source["m"], a)


@pytest.mark.parametrize("dtype", FORMATS["binsparse"].writes)
def test_binsparse_out(tmp_path, dtype):
    binsparse = pytest.importorskip("binsparse")
    a = tensor((6, 9), dtype, 0.7)
    write_file({"w": a}, tmp_path / "w.bsp.npz", "binsparse", sparse=lambda name: True)
    found = binsparse.load_binsparse(tmp_path / "w.bsp.npz")
    dense = np.zeros(a.shape, a.dtype)
    rows = np.repeat(np.arange(6), np.diff(found.pointers_to_1.astype(np.int64)))
    dense[rows, found.indices_1] = found.values
    same(dense, a)
    write_file({"v": a.reshape(-1)}, tmp_path / "v.bsp.npz", "binsparse", sparse=lambda name: True)
    same(open_file(tmp_path / "v.bsp.npz")["v"], a.reshape(-1))


@pytest.mark.parametrize("dtype", FORMATS["coreml"].writes)
def test_core_ml_makes_the_same_of_our_blob(tmp_path, dtype):
    a = tensor((5, 3, 7), dtype, 0.7)
    write_file({"w": a}, tmp_path / "m.safetensors", "coreml", sparse=lambda name: True)
    with codec.safe_open(tmp_path / "m.safetensors") as parts:
        blob = {name.removeprefix("w."): array_of(parts.get_stored(name)) for name in parts}
    operations = pytest.importorskip(
        "coremltools.converters.mil.mil.ops.defs.iOS16.constexpr_ops", exc_type=ImportError
    )
    same(operations.constexpr_sparse_to_dense.decompress(blob["nonzero_data"], blob["mask"], blob["shape"]), a)


# torch.


@pytest.mark.parametrize("layout", ["sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc", "sparse_coo"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_sparse_tensors_of_torch_come_in(tmp_path, layout):
    torch = pytest.importorskip("torch")
    from codec.arraylike import to_torch

    a = finite(tensor((16, 40), "F32", 0.8))
    blocks = {"blocksize": (4, 8)} if layout in ("sparse_bsr", "sparse_bsc") else {}
    made = to_torch(a).to_sparse(layout=getattr(torch, layout), **blocks)
    torch.save({"w": made, "b": torch.ones(3, dtype=torch.bfloat16)}, tmp_path / "m.pt")
    with open_file(tmp_path / "m.pt") as source:
        assert isinstance(source["w"], codec.PackedTensor)
        same(source["w"], a)
        assert str(source["b"].dtype) == "bfloat16"
    write_file({"w": a}, tmp_path / "ours.pt", "torch")
    found = torch.load(tmp_path / "ours.pt", weights_only=True)["w"]
    assert found.layout == torch.sparse_csr
    same(found.to_dense(), a)


@pytest.mark.parametrize("shape", [(5,), (4, 3, 2, 5)])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_coo_tensors_of_any_shape(tmp_path, shape):
    torch = pytest.importorskip("torch")
    from codec.arraylike import to_torch

    a = finite(tensor(shape, "F32", 0.6))
    write_file({"w": a}, tmp_path / "ours.pt", "torch", sparse=lambda name: True)
    found = torch.load(tmp_path / "ours.pt", weights_only=True)["w"]
    assert found.layout == torch.sparse_coo
    same(found.to_dense(), a)
    same(open_file(tmp_path / "ours.pt")["w"], a)
    twice = torch.sparse_coo_tensor(torch.zeros(len(shape), 2, dtype=torch.int64), torch.tensor([1.0, 2]), shape)
    torch.save({"twice": twice, "a": to_torch(a).to_sparse()}, tmp_path / "theirs.pt")
    with open_file(tmp_path / "theirs.pt") as source:
        assert source["twice"].to_dense().reshape(-1)[0] == 3
        same(source["a"], a)


# MACKO and SpInfer: GPU only, so their papers' and tests' own examples.

MACKO = [
    [0.5498, 0, 0, 0, 0, 0, 0, 0.7124, 0, 0, 0, 0.7998] + [0] * 20,
    [0] * 16 + [1.5] + [0] * 15,
]


def test_macko_arrays(tmp_path):
    torch = pytest.importorskip("torch")
    from codec.interop import published

    for dtype in (np.float16, np.int8):
        a = np.array(MACKO, dtype)
        a[0, 0], a[1, 31] = 1, 3
        rng = np.random.default_rng(1)
        b = (rng.integers(-100, 100, (37, 90)) * (rng.random((37, 90)) < 0.06)).astype(dtype)
        for number, matrix in enumerate((a, b, np.zeros((3, 40), dtype))):
            matrix = matrix + dtype(0)
            path = tmp_path / f"{number}.pt"
            write_file({"up.weight": matrix}, path, "macko", sparse=lambda name: True)
            found = torch.load(path, weights_only=True)
            assert list(found) == [f"up.c_{part}" for part in range(5)]
            expected = published.macko(matrix)
            for part, array in zip(range(3), expected, strict=True):
                assert np.array_equal(found[f"up.c_{part}"].numpy(), array)
            assert [found["up.c_3"], found["up.c_4"]] == [*matrix.shape]
            same(open_file(path)["up.weight"], matrix)


def test_tca_bme_arrays(tmp_path):
    from codec.interop import published

    rng = np.random.default_rng(2)
    a = np.where(rng.random((128, 192)) < 0.3, rng.standard_normal((128, 192)), 0).astype(np.float16)
    write_file({"w": a}, tmp_path, "tca-bme")
    stem = tmp_path / "w"
    maps = np.fromfile(f"{stem}.ltile.bin", "<u8").reshape(2, 3, 4, 4, 4)
    values, offsets = np.fromfile(f"{stem}.NZWeights.bin", "<f2"), np.fromfile(f"{stem}.gtile.bin", "<i4")
    strips = np.fromfile(f"{stem}.mtile.bin", "<i4").reshape(2, 3, 4)
    for row in range(2):
        for col in range(3):
            at = start = int(offsets[row * 3 + col])
            for strip in range(4):
                assert strips[row, col, strip] == at - start
                for across in range(4):
                    top, left = row * 64 + strip * 16, col * 64 + across * 16
                    bitmaps, found = published.tca_tile(a[top : top + 16, left : left + 16])
                    assert maps[row, col, strip, across].tolist() == bitmaps.tolist()
                    assert values[at : at + len(found)].tolist() == found.tolist()
                    at += len(found)
            assert offsets[row * 3 + col + 1] == start + -(-(at - start) // 8) * 8
    sizes = np.fromfile(f"{stem}.OutputSizes.bin", "<i4").tolist()
    assert sizes == [len(values), 7, 24, 384]
    same(open_file(tmp_path)["w"], a)
