"""Halves that torch.nn.utils.prune leaves are folded to what the module computes with, and told when one is missing."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import codec
from codec.interop import fold_masks
from codec.interop.folding import masked_pairs, single_halves


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", ml_dtypes.bfloat16, "i1"])
@pytest.mark.parametrize("mask_dtype", ["f4", ml_dtypes.bfloat16, "?", "i8"])
def test_halves_become_one(dtype: Any, mask_dtype: Any) -> None:
    rng = np.random.default_rng(0)
    orig, mask = (rng.standard_normal((5, 7)) * 9).astype(dtype), (rng.random((5, 7)) < 0.5).astype(mask_dtype)
    bias, other = np.ones(5, dtype), np.zeros(3)
    tensors = {"a": other, "fc.weight_orig": orig, "fc.bias": bias, "fc.weight_mask": mask}
    found = fold_masks(tensors)
    assert list(found) == ["a", "fc.weight", "fc.bias"]
    assert found["a"] is other
    assert found["fc.bias"] is bias
    assert found["fc.weight"].dtype == orig.dtype
    assert found["fc.weight"].tobytes() == np.where(mask != 0, orig, np.zeros_like(orig)).tobytes()
    assert list(tensors) == ["a", "fc.weight_orig", "fc.bias", "fc.weight_mask"]


def test_what_pruning_removes_is_positive_zero() -> None:
    special = np.array([-1, np.inf, np.nan, -0.0, -np.inf, 2], np.float32)
    found = fold_masks({"w_orig": special, "w_mask": np.array([0, 0, 0, 1, 1, 1])})["w"]
    assert found.tobytes() == np.array([0, 0, 0, -0.0, -np.inf, 2], np.float32).tobytes()


def test_as_torch_prunes() -> None:
    torch = pytest.importorskip("torch")
    from torch.nn.utils import prune

    model = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.Conv2d(2, 3, 3), torch.nn.GRU(3, 4))
    prune.l1_unstructured(model[0], "weight", 0.5)
    prune.l1_unstructured(model[0], "bias", 0.5)
    prune.ln_structured(model[1], "weight", 0.3, 2, 0)
    prune.random_unstructured(model[2], "weight_ih_l0", 0.5)
    found = fold_masks(model.state_dict())
    for module, name in ((model[0], "weight"), (model[0], "bias"), (model[1], "weight"), (model[2], "weight_ih_l0")):
        prune.remove(module, name)
    expected = model.state_dict()
    assert sorted(found) == sorted(expected)
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name])
    model.load_state_dict(found)


def test_pairs_by_their_names() -> None:
    assert not masked_pairs(["w_orig", "w", "w_mask", "_orig", "_mask", "x_mask", "y_orig"])
    assert [pair.name for pair in masked_pairs(["b_mask", "b_orig", "a.w_mask", "a.w_orig"])] == ["b", "a.w"]
    assert single_halves(["a.weight_orig", "b.weight_mask", "bias_mask", "c_orig"]) == [
        "a.weight_orig",
        "b.weight_mask",
        "bias_mask",
        "c_orig",
    ]
    # Spectral normalisation, masks of other kinds, and models that have all three.
    assert not single_halves(["w_orig", "w_u", "w_v", "attention_mask", "x.weight", "x.weight_mask", "_mask", "_orig"])
    assert not single_halves(["b_mask", "b_orig", "weight"])


def test_what_cannot_be_folded_names_the_tensor() -> None:
    one = np.ones((2, 3))
    for tensors, says in (
        ({"a.weight_orig": one}, r"tensor 'a\.weight_orig': 'a\.weight_mask' is missing.*add that, or rename it"),
        ({"a.weight_mask": one}, r"tensor 'a\.weight_mask': 'a\.weight_orig' is missing"),
        ({"w_orig": one, "w_mask": one.T}, r"tensor 'w_mask': has shape \(3, 2\), 'w_orig' has \(2, 3\)"),
        ({"w_orig": one, "w_mask": one / 2}, "tensor 'w_mask': has values other than 0 and 1"),
        ({"w_orig": one, "w_mask": one * np.nan}, "tensor 'w_mask': has values other than 0 and 1"),
        ({"w_orig": one.astype(complex), "w_mask": one}, "tensor 'w_orig': cannot code dtype complex128"),
        ([one], "tensors is a list; expected a mapping"),
    ):
        with pytest.raises(codec.ArgumentError, match=says):
            fold_masks(tensors)  # type: ignore[arg-type]


# Other tools.


def test_names_of_other_tools() -> None:
    names = ["a.weight", "a.weight_mask", "b.weight", "b.mask", "c.parametrizations.weight.original", "c.bias"]
    names += ["c.parametrizations.weight.0.mask", "attention.mask", "d.weight"]
    assert [pair.name for pair in masked_pairs(names)] == ["c.weight"]
    assert [(pair.name, pair.mask) for pair in masked_pairs(names, beside=True)] == [
        ("a.weight", "a.weight_mask"),
        ("b.weight", "b.mask"),
        ("c.weight", "c.parametrizations.weight.0.mask"),
    ]
    assert single_halves(["p.parametrizations.weight.original", "p.bias"]) == ["p.parametrizations.weight.original"]
    # Other parametrizations have tensors of their own.
    assert not single_halves(["p.parametrizations.weight.original", "p.parametrizations.weight.0._u"])
    assert not single_halves(["p.parametrizations.weight.original0", "p.parametrizations.weight.original1"])


def test_masks_beside_weights_are_multiplied() -> None:
    w, mask = np.array([[1.0, -2], [3, 4]]), np.array([[True, False], [False, True]])
    for tensors in ({"m.weight": w, "m.mask": mask}, {"m.weight": w, "m.weight_mask": mask.astype(np.float32)}):
        found = fold_masks(tensors)
        assert list(found) == ["m.weight"]
        assert found["m.weight"].tobytes() == np.where(mask, w, 0).tobytes()


def test_distiller() -> None:
    w, mask = np.ones((2, 2)), np.eye(2)
    checkpoint = {
        "epoch": 3,
        "state_dict": {"module.fc.weight": w, "module.fc.bias": w[0]},
        "compression_sched": {"masks_dict": {"fc.weight": mask, "fc.bias": None}},
        "extras": {},
    }
    found = fold_masks(checkpoint)
    assert list(found) == ["module.fc.weight", "module.fc.bias"]
    assert np.array_equal(found["module.fc.weight"], mask)
    checkpoint["compression_sched"] = {"masks_dict": {"other.weight": mask}}
    with pytest.raises(codec.ArgumentError, match=r"a mask for tensor 'other\.weight', which the model does not have"):
        fold_masks(checkpoint)
    with pytest.raises(codec.ArgumentError, match="expected one: give that alone"):
        fold_masks({"state_dict": {}, "model": {}})


def test_torch_ao_pruning() -> None:
    torch = pytest.importorskip("torch")
    from torch.ao.pruning import WeightNormSparsifier

    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Linear(32, 16))
    sparsifier = WeightNormSparsifier(sparsity_level=0.5, sparse_block_shape=(1, 4))
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
    sparsifier.step()
    with pytest.raises(codec.ArgumentError, match=r"sparsifier\.state_dict\(\); save that with the model's"):
        fold_masks(model.state_dict())
    optimizer = {"state": {0: {"step": 1}}, "groups": []}
    found = fold_masks({"model": model.state_dict(), "s": sparsifier.state_dict(), "optimizer": optimizer})
    sparsifier.squash_mask()
    expected = model.state_dict()
    assert sorted(found) == sorted(expected)
    assert 0.4 < float((found["0.weight"] == 0).float().mean()) < 0.6
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name])
