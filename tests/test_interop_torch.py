"""torch: dense and sparse tensors out and in, values bit for bit, no flag believed, one error for what cannot be."""

from typing import Any, Self

import numpy as np
import pytest
from interop import dense, quiet, same
from strategies import ELEMENTS, LAYOUT_PARAMS

import codec
from codec.dtypes import BY_NAME, ElementType, element_type

torch: Any = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta state:UserWarning")

TORCH = {e.name: str(e.dtype) for e in ELEMENTS} | {"BOOL": "bool"}


def torch_bits(tensor: Any) -> bytes:
    """A dense torch tensor's bytes."""
    return bytes(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


@pytest.mark.parametrize("element", ELEMENTS, ids=lambda e: e.name)
def test_torch_strided(element: ElementType) -> None:
    for number, shape in enumerate([(), (5,), (6, 9), (0, 3), (2, 3, 4), (1, 7, 5)]):
        a = dense(shape, element, number)
        p = codec.encode(a)
        t = p.to_torch()
        assert str(t.dtype) == f"torch.{TORCH[element.name]}"
        assert tuple(t.shape) == shape
        assert torch_bits(t) == a.tobytes()
        for again in (codec.encode(t), codec.PackedTensor.from_torch(t)):
            assert codec.dumps(again) == codec.dumps(p)
    grad = torch.nn.Parameter(torch.arange(12.0).reshape(3, 4))
    same(codec.encode(grad.T).to_dense(), np.arange(12.0, dtype="f4").reshape(3, 4).T)


@pytest.mark.parametrize("name", ["F64", "F32", "F16", "BF16", "I8", "U8", "I16", "I32", "I64", "BOOL"])
def test_torch_sparse(name: str) -> None:
    element = BY_NAME[name]
    for number, (layout, params) in enumerate(LAYOUT_PARAMS):
        for shape in ((6, 8), (1, 70), (0, 4)):
            a = quiet(shape, element, number)
            p = codec.encode(a, layout=layout, **params)
            for form in ("csr", "coo"):
                t = p.to_torch(form)
                assert str(t.layout) == f"torch.sparse_{form}"
                assert torch_bits(t.to_dense()) == a.tobytes()
                back = codec.PackedTensor.from_torch(t, layout=layout, **params)
                assert codec.dumps(back) == codec.dumps(p)
            if shape == (6, 8):
                blocks = p.to_torch().to_sparse_bsr((2, 4))
                same(codec.PackedTensor.from_torch(blocks).to_dense(), a)


def test_torch_untidy_and_refused() -> None:
    twice = torch.sparse_coo_tensor(
        torch.tensor([[1, 0, 1], [2, 0, 2]]), torch.tensor([1.0, 2.0, 3.0]), (2, 3), check_invariants=True
    )
    same(codec.PackedTensor.from_torch(twice).to_dense(), twice.to_dense().numpy())
    with pytest.raises(codec.ArgumentError, match="3 dimensions; expected a matrix"):
        codec.PackedTensor.from_torch(torch.ones(2, 2, 2).to_sparse())
    with pytest.raises(codec.ArgumentError, match="with 3 dimensions; expected a matrix"):
        codec.PackedTensor.from_torch(torch.ones(2, 2, 2).to_sparse_csr())
    with pytest.raises(codec.ArgumentError, match=r"use PackedTensor\.from_torch"):
        codec.encode(torch.eye(3).to_sparse())
    with pytest.raises(codec.ArgumentError, match="cannot code dtype complex64; expected one of float64"):
        codec.PackedTensor.from_torch(torch.ones(2, dtype=torch.complex64))
    for wrong in (np.ones(2), None):
        with pytest.raises(codec.ArgumentError, match="expected a torch tensor"):
            codec.PackedTensor.from_torch(wrong)
    p = codec.encode(dense((2, 3, 4), element_type("float32")))
    with pytest.raises(codec.ArgumentError, match="layout='csc'; expected strided, csr or coo"):
        p.to_torch("csc")
    with pytest.raises(codec.ArgumentError, match=r"torch's csr holds matrices; this tensor has 3 dimensions"):
        p.to_torch("csr")


def test_flags_are_not_believed() -> None:
    """Neither is_coalesced, nor that torch checked the invariants of a layout."""
    indices, values = torch.tensor([[1, 0, 1, 0], [2, 1, 0, 1]]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    expected = np.array([[0, 6, 0], [3, 0, 1]], np.float32)
    flagged = torch.sparse_coo_tensor(indices, values, (2, 3), is_coalesced=True, check_invariants=False)
    same(codec.PackedTensor.from_torch(flagged).to_dense(), expected)
    rows = torch.sparse_csr_tensor([0, 2, 4], [1, 1, 2, 0], [2.0, 4.0, 1.0, 3.0], (2, 3), check_invariants=False)
    same(codec.PackedTensor.from_torch(rows).to_dense(), expected)
    columns = torch.sparse_csc_tensor([0, 1, 3, 4], [1, 0, 0, 1], [3.0, 2.0, 4.0, 1.0], (2, 3), check_invariants=False)
    same(codec.PackedTensor.from_torch(columns).to_dense(), expected)
    for layout, wrong in (
        (torch.sparse_coo, lambda: torch.sparse_coo_tensor(indices + 2, values, (2, 3), check_invariants=False)),
        (torch.sparse_coo, lambda: torch.sparse_coo_tensor(indices - 3, values, (2, 3), check_invariants=False)),
        (torch.sparse_csr, lambda: torch.sparse_csr_tensor([0, 9], [0], [1.0], (1, 3), check_invariants=False)),
        (torch.sparse_csr, lambda: torch.sparse_csr_tensor([0, 1], [7], [1.0], (1, 3), check_invariants=False)),
        (torch.sparse_csc, lambda: torch.sparse_csc_tensor([0, 1], [7], [1.0], (3, 1), check_invariants=False)),
    ):
        tensor = wrong()
        assert tensor.layout == layout
        with pytest.raises(codec.ArgumentError, match=r"lies outside|pointers"):
            codec.PackedTensor.from_torch(tensor)


@pytest.mark.parametrize("name", ["F32", "BF16", "F8_E4M3", "I8", "BOOL"])
def test_duplicates_are_added_up_in_their_dtype(name: str) -> None:
    dtype = getattr(torch, TORCH[name])
    indices, values = torch.tensor([[1, 0, 1], [2, 0, 2]]), torch.tensor([1.0, 1.0, 1.0]).to(dtype)
    twice = torch.sparse_coo_tensor(indices, values, (2, 3), check_invariants=True)
    found = codec.PackedTensor.from_torch(twice).to_dense()
    same(found, np.array([[1, 0, 0], [0, 0, 2]]).astype(BY_NAME[name].dtype))


@pytest.mark.parametrize("name", ["F32", "F16", "BF16", "I8", "BOOL"])
def test_columns_and_blocks(name: str) -> None:
    element = BY_NAME[name]
    for shape, blocks in (((6, 8), [(1, 1), (2, 4), (3, 2), (6, 8)]), ((1, 70), [(1, 7)]), ((0, 4), [(1, 2)])):
        a = quiet(shape, element, 1)
        t = codec.encode(a).to_torch()
        same(codec.PackedTensor.from_torch(t.to_sparse_csc()).to_dense(), a)
        if name not in ("BF16", "F16") or shape[0]:
            for block in blocks:
                same(codec.PackedTensor.from_torch(t.to_sparse_bsr(block)).to_dense(), a)
                same(codec.PackedTensor.from_torch(t.to_sparse_bsc(block)).to_dense(), a)
    swapped = torch.sparse_bsr_tensor(
        [0, 2], [1, 0], torch.arange(8.0).reshape(2, 2, 2), (2, 4), check_invariants=False
    )
    same(codec.PackedTensor.from_torch(swapped).to_dense(), np.array([[4, 5, 0, 1], [6, 7, 2, 3]], np.float32))


def test_rows_are_those_of_the_tensor() -> None:
    """Whatever the matrix view is that it was coded as."""
    for shape in ((2, 3), (65, 130), (3, 1), (0, 4), (4, 0)):
        a = dense(shape, BY_NAME["F32"])
        a[np.isnan(a)] = 1
        for row_dims in (0, 1, 2):
            p = codec.encode(a, row_dims=row_dims)
            for form in ("strided", "csr", "coo"):
                assert tuple(p.to_torch(form).shape) == shape
                assert torch_bits(p.to_torch(form).to_dense()) == a.tobytes()


class Wrapper(torch.Tensor):  # type: ignore[misc]
    """A tensor class without storage, as quantisation libraries and distributed tensors have it."""

    @staticmethod
    def __new__(cls, inner: Any) -> Self:
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return Wrapper(torch.empty(args[0].shape, device="meta", dtype=args[0].dtype))
        raise NotImplementedError(f"{func} is not for wrappers")


def fake() -> Any:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return torch.empty(2, 3)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: torch.empty(2, 3, device="meta"), "on the meta device, which holds no elements: load"),
        (lambda: torch.quantize_per_tensor(torch.ones(2, 3), 0.1, 0, torch.qint8), r"torch\.qint8.*int_repr"),
        (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), r"nested torch tensor.*unbind"),
        (lambda: torch.ones(2, 3).to_mkldnn(), r"layout torch\._mkldnn; expected .*to_dense"),
        (lambda: Wrapper(torch.ones(2, 3)), "Wrapper whose elements cannot be read .* expected a tensor with storage"),
        (fake, "FakeTensor whose elements cannot be read"),
        (lambda: torch.nn.parameter.UninitializedParameter(), "uninitialized parameter"),
        (lambda: torch.ones(2, 3, dtype=torch.complex64), "cannot code dtype complex64; expected one of float64"),
        (lambda: torch.ones(2, 3).to(torch.float8_e4m3fnuz), "cannot code dtype float8_e4m3fnuz; expected one of"),
        (lambda: torch.ones(2, 3, dtype=torch.complex64).conj(), "cannot code dtype complex64"),
    ],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:.*quant.*:DeprecationWarning")
def test_tensors_that_cannot_be_read(make: Any, says: str) -> None:
    tensor = make()
    for ask in (
        codec.encode,
        codec.tensor_stats,
        codec.PackedTensor.from_torch,
        lambda t: codec.encode(np.eye(2, dtype=np.float32)) @ t,
        lambda t: codec.linear(np.ones(3, np.float32), codec.encode(np.eye(3, dtype=np.float32)), t),
    ):
        with pytest.raises(codec.ArgumentError, match=says):
            ask(tensor)


def test_sparse_tensors_that_cannot_be_read() -> None:
    hybrid = torch.sparse_coo_tensor(torch.tensor([[0, 1]]), torch.ones(2, 3), (2, 3), check_invariants=True)
    with pytest.raises(codec.ArgumentError, match=r"hybrid .*\(2, 3\): 1 of its dimensions are sparse.*to_dense"):
        codec.PackedTensor.from_torch(hybrid)
    values = torch.sparse_csr_tensor([0, 1], [0], torch.ones(1, 2), (1, 1, 2), check_invariants=True)
    with pytest.raises(codec.ArgumentError, match="hybrid"):
        codec.PackedTensor.from_torch(values)
    with pytest.raises(codec.ArgumentError, match="meta device"):
        codec.PackedTensor.from_torch(torch.empty(3, 3, device="meta", layout=torch.sparse_csr))
    with pytest.raises(codec.ArgumentError, match="cannot code dtype complex64"):
        codec.PackedTensor.from_torch(torch.eye(3, dtype=torch.complex64).to_sparse())


def test_views_that_torch_resolves_late() -> None:
    z = torch.tensor([1 + 2j, 3 - 4j]).conj()
    assert z.imag.is_neg()
    same(codec.encode(z.imag).to_dense(), np.array([-2, 4], np.float32))
    for dtype in (torch.bfloat16, torch.float64):
        t = torch._neg_view(torch.tensor([1.0, -2.0], dtype=dtype))
        found = codec.encode(t).to_dense()
        assert found.astype(np.float64).tolist() == [-1, 2]
        assert codec.matvec(codec.encode(np.eye(2, dtype=np.float32)), t).astype(np.float64).tolist() == [-1, 2]
    sub = torch.ones(2, 3).as_subclass(type("Sub", (torch.Tensor,), {}))
    same(codec.encode(sub).to_dense(), np.ones((2, 3), np.float32))
    turned = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3).T
    assert codec.encode(turned).to_dense().astype(float).tolist() == [[0, 3], [1, 4], [2, 5]]


def test_a_dtype_that_an_older_torch_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch, "uint16")
    with pytest.raises(codec.ArgumentError, match=r"torch 2.* has no dtype uint16: take the NumPy array"):
        codec.encode(np.ones(3, np.uint16)).to_torch()


def test_slices_of_a_file_as_tensors(tmp_path: Any) -> None:
    a = dense((6, 9), BY_NAME["BF16"])
    codec.save_file({"w": a, "b": a[0]}, tmp_path / "m.safetensors")
    with codec.safe_open(tmp_path / "m.safetensors", "pt", mmap=True) as model:
        for name, whole in (("w", a), ("b", a[0])):
            for key in (slice(None, None, -1), slice(1, 4), 2, ...):
                found = model.get_slice(name)[key]
                assert found.dtype == torch.bfloat16
                assert torch_bits(found) == np.asarray(whole[key]).tobytes()


def test_torch_operands() -> None:
    w = dense((6, 9), BY_NAME["I8"])
    x = torch.arange(9, dtype=torch.bfloat16)
    found = codec.matvec(codec.encode(w), x)
    assert np.array_equal(found.astype(np.float32), (w @ np.arange(9.0)).astype(found.dtype).astype(np.float32))


def short(tensor: Any, nbytes: int = 0) -> Any:
    """The tensor with its storage freed or shrunk, as FSDP leaves parameters: shape and strides stay."""
    tensor.untyped_storage().resize_(nbytes)
    return tensor


def full(dtype: Any = torch.float32) -> Any:
    return torch.full((64, 64), 3.0).to(dtype)


@pytest.mark.parametrize(
    ("make", "found", "needed"),
    [
        (lambda: short(full()), 0, 16384),
        (lambda: short(full(), 100), 100, 16384),
        (lambda: short(full(), 16383), 16383, 16384),
        (lambda: short(full(torch.bfloat16)), 0, 8192),
        (lambda: short(full().T, 100), 100, 16384),
        (lambda: short(full()[1:, ::2], 16376), 16376, 16380),
        (lambda: short(torch._neg_view(full())), 0, 16384),
        (lambda: short(torch.nn.Parameter(full())), 0, 16384),
        (lambda: short(torch.ones(1).expand(64, 64)), 0, 4),
    ],
)
def test_storage_that_does_not_hold_the_elements(make: Any, found: int, needed: int) -> None:
    """torch reads whatever memory comes there."""
    says = f"storage holds {found} bytes; expected at least {needed}, as shape .*freed or shrunk, so gather the full"
    w, tensor = codec.encode(np.eye(64, dtype=np.float32)), make()
    for ask in (
        codec.encode,
        codec.tensor_stats,
        codec.PackedTensor.from_torch,
        lambda t: w @ t,
        lambda t: codec.linear(t, w),
        lambda t: codec.linear(np.ones(64, np.float32), w, t),
        lambda t: codec.encode([np.ones(tuple(t.shape)), t]),
        lambda t: codec.encode(np.ones(4096), values="codebook", codebook=t),
        lambda t: codec.prune.magnitude(t, 0.5),
        lambda t: codec.prune.masks({"w": t}, 0.5),
    ):
        with pytest.raises(codec.ArgumentError, match=says):
            ask(tensor)
    with pytest.raises(codec.ArgumentError, match=f"^tensor 'w': a torch tensor whose {says}"):
        codec.save({"v": torch.ones(3), "w": make()})


def test_no_garbage_is_stored(tmp_path: Any) -> None:
    for dtype in (torch.float32, torch.complex64, torch.float8_e8m0fnu):
        for tensors in ({"w": short(full(dtype))}, {"a": short(full(dtype)), "w": torch.ones(2)}):
            with pytest.raises(
                codec.ArgumentError, match=r"^tensor '[aw]': a torch tensor whose storage holds 0 bytes"
            ):
                codec.save_file(tensors, tmp_path / "m", progress=lambda *_: None)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(codec.ArgumentError, match=r"^mask: a torch tensor whose storage holds 0 bytes"):
        codec.encode(np.zeros((64, 64)), mask=short(full(torch.bool)))
    same(codec.encode(short(full()[:2], 512)).to_dense(), np.full((2, 64), 3, np.float32))
    same(codec.encode(short(full()[64:])).to_dense(), np.zeros((0, 64), np.float32))


@pytest.mark.parametrize("form", ["coo", "csr", "csc", "bsr"])
def test_sparse_arrays_whose_storage_was_freed(form: str) -> None:
    eye = torch.eye(64)
    for name in ("values", "indices") if form == "coo" else ("values", "c_indices", "indices"):
        t = eye.to_sparse() if form == "coo" else eye.to_sparse_bsr((2, 2)) if form == "bsr" else None
        t = getattr(eye, f"to_sparse_{form}")() if t is None else t
        across = "row" if form == "csc" else "col"
        wanted = {"values": "values", "c_indices": f"c{'col' if form == 'csc' else 'row'}_indices"}
        part = getattr(t, f"_{name}" if form == "coo" else wanted.get(name, f"{across}_indices"))()
        short(part, part.untyped_storage().nbytes() - 8)
        with pytest.raises(codec.ArgumentError, match=r"a torch tensor whose storage holds \d+ bytes"):
            codec.PackedTensor.from_torch(t)


def test_inside_transforms_of_functions() -> None:
    """What functionalize passes in has a storage of the right size, without memory."""

    def ask(t: Any) -> Any:
        for read in (codec.encode, lambda t: codec.save({"w": t}), lambda t: codec.save({"w": t.to(torch.complex64)})):
            with pytest.raises(codec.ArgumentError, match=r"give the plain tensor behind it"):
                read(t)
        return t.sum()

    torch.func.functionalize(ask)(full())
    torch.func.vmap(ask)(full())
    torch.func.grad(ask)(full())


def test_lists_of_tensors() -> None:
    halves = [torch.ones(3, dtype=torch.bfloat16), (torch.zeros(3, dtype=torch.bfloat16))]
    assert codec.encode(halves).to_dense().astype(float).tolist() == [[1, 1, 1], [0, 0, 0]]
    assert codec.encode([[torch.tensor(2.0), 1.0]]).to_dense().tolist() == [[2, 1]]
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(codec.ArgumentError, match="a list, which is not an array"):
        codec.encode(loop)


def test_layouts_by_the_names_of_torch() -> None:
    p = codec.encode(np.eye(3, dtype=np.float32))
    for asked, layout in (
        ("sparse_csr", torch.sparse_csr),
        (torch.sparse_csr, torch.sparse_csr),
        ("sparse_coo", torch.sparse_coo),
        (torch.sparse_coo, torch.sparse_coo),
        ("torch.sparse_coo", torch.sparse_coo),
        (torch.strided, torch.strided),
    ):
        assert p.to_torch(asked).layout == layout
    for wrong in (torch.sparse_csc, "sparse", None, ["csr"]):
        with pytest.raises(codec.ArgumentError, match=r"^layout=.*; expected strided, csr or coo"):
            p.to_torch(wrong)
