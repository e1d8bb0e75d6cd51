"""prune on small files."""

import numpy as np
import pytest
from commands import assert_same, facts, refused, run

import codec
from codec.prune import magnitude


def test_prune_packs_what_is_left(plain, tensors, tmp_path):
    found = facts("prune", plain, tmp_path / "x.safetensors", "--sparsity", "0.9")
    assert [row["name"] for row in found["pruned"]] == ["w", "half"]
    assert all(row["removed"] == round(0.9 * row["weights"]) == row["zeros"] for row in found["pruned"])
    expected = {name: magnitude(a, 0.9) if a.ndim == 2 else a for name, a in tensors.items()}
    assert_same(tmp_path / "x.safetensors", expected)
    with codec.safe_open(tmp_path / "x.safetensors") as model:
        assert {name for name in model if model.info(name).stored_as == "frame"} == {"w", "half"}
        assert model.metadata() == {"format": "pt", "made by": "hand"}
    text = run("prune", plain, tmp_path / "x.safetensors", "--sparsity", "0.9", "--force").stdout
    assert "90.00 %" in text
    assert "with 2 other tensors" in text


@pytest.mark.parametrize("structure", ["element", "row", "column", "filter", "channel", "4x4", "1x8", "2:4"])
@pytest.mark.parametrize("criterion", ["l1", "l2", "random"])
def test_prune_by_every_structure(plain, tensors, tmp_path, structure, criterion):
    share = () if structure == "2:4" else ("--sparsity", "0.5")
    options = ("--structure", structure, "--criterion", criterion, "--seed", "3", "--dense", *share)
    assert run("prune", plain, tmp_path / "x.safetensors", *options).exit_code == 0
    for name in ("w", "half"):
        how = {"structure": structure, "criterion": criterion, "seed": 3}
        mask = codec.prune.masks({name: tensors[name]}, 0.5 if share else None, **how)[name]
        tensors[name] = codec.prune.apply_mask(tensors[name], mask)
    assert_same(tmp_path / "x.safetensors", tensors, "bits")
    with codec.safe_open(tmp_path / "x.safetensors") as model:
        assert {model.info(name).stored_as for name in model} == {"dense"}


def test_prune_all_under_one_threshold(plain, tensors, tmp_path):
    options = ("--sparsity", "0.9", "--global", "--include", "*", "--exclude", "steps", "--dense")
    found = facts("prune", plain, tmp_path / "x.safetensors", *options)
    masks = codec.prune.masks({name: tensors[name] for name in ("w", "half", "bias")}, 0.9)
    assert sum(row["removed"] for row in found["pruned"]) == round(0.9 * (2 * 64 * 256 + 64))
    expected = {name: codec.prune.apply_mask(a, masks[name]) if name in masks else a for name, a in tensors.items()}
    assert_same(tmp_path / "x.safetensors", expected, "bits")


def test_prune_keeps_shards(sharded, tensors, tmp_path):
    for together in ((), ("--global",)):
        folder = tmp_path / f"x{len(together)}"
        folder.mkdir()
        target = folder / "x.safetensors.index.json"
        assert len(facts("prune", sharded, target, "--structure", "2:4", *together)["pruned"]) == 2
        expected = {
            n: codec.prune.apply_mask(tensors[n], codec.prune.mask(tensors[n], structure="2:4")) for n in ("w", "half")
        }
        assert_same(target, tensors | expected)


def test_prune_leaves_nothing_empty_unless_told(plain, tmp_path):
    target = tmp_path / "x.safetensors"
    refused(run("prune", plain, target, "--sparsity", "1"), 2, "--allow-empty")
    found = facts("prune", plain, target, "--sparsity", "1", "--allow-empty")
    assert all(row["zeros"] == row["weights"] for row in found["pruned"])
    found = facts("prune", plain, target, "--sparsity", "0.999", "--structure", "row", "--force")
    assert all(row["removed"] == 63 * 256 for row in found["pruned"])


def test_prune_says_what_it_needs(plain, tmp_path):
    target = tmp_path / "x.safetensors"
    refused(run("prune", plain, target), 2, "--structure element needs --sparsity")
    refused(run("prune", plain, target, "--sparsity", "0.5", "--structure", "2:4"), 2, "fixes the sparsity")
    refused(
        run("prune", plain, target, "--sparsity", "0.5", "--structure", "cube"),
        2,
        "--structure='cube'; expected one of",
    )
    refused(run("prune", plain, target, "--sparsity", "1.5"), 2, "--sparsity")
    refused(run("prune", plain, target, "--sparsity", "nan"), 2, "--sparsity nan")
    refused(run("prune", plain, target, "--sparsity", "0.5", "--include", "nothing"), 2, "no tensor has such a name")
    kernels = run("prune", plain, target, "--sparsity", "0.5", "--structure", "kernel")
    refused(kernels, 2, "no tensor to prune: without kernels 'w', 'half'; biases 'bias'")
    refused(run("prune", plain, target, "--sparsity", "0.5", "--cap", "0.6"), 2, "--cap is for --global")
    refused(run("prune", plain, target, "--structure", "2:4", "--global", "--cap", "0.6"), 2, "--cap is for --global")
    low = run("prune", plain, target, "--sparsity", "0.5", "--global", "--cap", "0.4")
    refused(low, 2, "--cap 0.4 keeps every tensor below --sparsity 0.5")
    assert not target.exists()


@pytest.fixture
def named(tmp_path):
    """Weights, and everything that is left alone by default; half of the zeros are -0.0."""
    from commands import write_plain

    rng = np.random.default_rng(0)

    def some(*shape):
        a = rng.standard_normal(shape).astype(np.float32)
        a[rng.random(shape) < 0.6] = 0
        a[rng.random(shape) < 0.3] = -0.0
        return a

    found = {
        "embed_tokens.weight": some(300, 64),
        "layers.0.fc.weight": some(64, 128),
        "layers.0.fc.bias": some(64),
        "layers.0.ln_1.weight": some(64),
        "layers.0.q_norm": some(4, 64),
        "layers.0.conv.weight": some(8, 4, 3, 3),
        "layers.0.scale": some(20000),
        "wpe.weight": some(128, 64),
    }
    return write_plain(tmp_path / "named.safetensors", found), found


@pytest.mark.parametrize("together", [(), ("--global",)])
@pytest.mark.parametrize("dense", [(), ("--dense",)])
def test_prune_leaves_embeddings_norms_and_biases_alone(named, tmp_path, together, dense):
    path, before = named
    target = tmp_path / "x.safetensors"
    found = facts("prune", path, target, "--sparsity", "0.3", *together, *dense)
    assert [row["name"] for row in found["pruned"]] == ["layers.0.fc.weight", "layers.0.conv.weight"]
    assert found["left_alone"] == {
        "embed_tokens.weight": "embedding",
        "layers.0.fc.bias": "bias",
        "layers.0.ln_1.weight": "norm",
        "layers.0.q_norm": "norm",
        "layers.0.scale": "vector",
        "wpe.weight": "embedding",
    }
    with codec.safe_open(target) as model:
        packed = {name for name in model if model.info(name).stored_as == "frame"}
        assert packed == (set() if dense else {row["name"] for row in found["pruned"]})
        for name in found["left_alone"]:
            assert model.get_tensor(name).tobytes() == before[name].tobytes(), name
        signs = 0
        for row in found["pruned"]:
            name = row["name"]
            pruned = model.get_tensor(name)
            assert np.count_nonzero(pruned) == np.count_nonzero(before[name])  # zeros of either sign go first
            kept = np.count_nonzero((before[name] == 0) & np.signbit(before[name])) - np.count_nonzero(
                (pruned == 0) & np.signbit(pruned)
            )
            assert name in packed or row["negative_zeros"] == 0
            assert name not in packed or not np.signbit(pruned[pruned == 0]).any()
            assert 0 <= row["negative_zeros"] <= kept
            signs += row["negative_zeros"]
        assert found["negative_zeros"] == signs
        assert (signs > 0) == (not dense)
    text = run("prune", path, target, "--sparsity", "0.3", *together, *dense, "--force").stdout
    assert "Left alone (--include prunes them too): embeddings 'embed_tokens.weight', 'wpe.weight'; biases " in text
    assert f"{signs:,} negative zeros of the pruned tensors became +0.0" in text or dense
    # Packed tensors that are not pruned stay packed, under the zero rule that they have.
    again = facts("prune", target, tmp_path / "y.safetensors", "--structure", "2:4", "--include", "wpe*", *dense)
    assert [row["name"] for row in again["pruned"]] == ["wpe.weight"]
    with codec.safe_open(target) as model, codec.safe_open(tmp_path / "y.safetensors") as other:
        for name in sorted(set(model) - {"wpe.weight"}):
            assert other.info(name) == model.info(name)
            assert other.get_tensor(name).tobytes() == model.get_tensor(name).tobytes()
    asked = facts("prune", path, target, "--sparsity", "0.3", "--include", "*", *together, *dense, "--force")
    assert len(asked["pruned"]) == len(before)
    assert not asked["left_alone"]


def test_prune_leaves_what_has_no_such_structures(named, tmp_path):
    path, _ = named
    found = facts("prune", path, tmp_path / "x.safetensors", "--sparsity", "0.5", "--structure", "kernel")
    assert [row["name"] for row in found["pruned"]] == ["layers.0.conv.weight"]
    assert found["left_alone"]["layers.0.fc.weight"] == "without kernels"
    included = facts(
        *("prune", path, tmp_path / "x.safetensors", "--sparsity", "0.5", "--structure", "kernel", "--force"),
        *("--include", "*weight"),
    )
    assert [row["name"] for row in included["pruned"]] == ["layers.0.conv.weight"]
    assert set(included["left_alone"].values()) == {"without kernels"}
    text = run("prune", path, tmp_path / "y.safetensors", "--sparsity", "0.5", "--structure", "kernel").stdout
    assert "without kernels 'layers.0.fc.weight'" in text


def test_prune_caps_what_one_tensor_loses(tmp_path):
    from commands import write_plain

    rng = np.random.default_rng(0)
    sizes = {"small": 0.01, "a": 1, "b": 1}
    tensors = {name: (rng.standard_normal((1000, 8)) * scale).astype(np.float32) for name, scale in sizes.items()}
    path, target = write_plain(tmp_path / "m.safetensors", tensors), tmp_path / "x.safetensors"
    for options, expected in (((), 0.95), (("--cap", "0.8"), 0.8), (("--cap", "1"), 0.999), (("--allow-empty",), 1)):
        found = facts(
            *("prune", path, target, "--sparsity", "0.5", "--structure", "filter", "--global", "--force"), *options
        )
        assert found["pruned"][0]["removed"] == round(expected * 8000)
        assert sum(row["removed"] for row in found["pruned"]) == 12000


def test_prune_names_the_tensor_that_holds_nan(tmp_path):
    from commands import write_plain

    path = write_plain(tmp_path / "m.safetensors", {"a": np.ones((4, 4), "f4"), "b": np.full((4, 4), np.nan, "f4")})
    for together in ((), ("--global",)):
        result = run("prune", path, tmp_path / "x.safetensors", "--sparsity", "0.8", *together)
        refused(result, 2, "16 hold NaN (16 in 'b'), which is never removed")
    refused(run("prune", path, tmp_path / "x.safetensors", "--structure", "2:4"), 2, "tensor 'b': row 0, column 0")
    assert not (tmp_path / "x.safetensors").exists()


def test_prune_folds_halves(tmp_path):
    from commands import write_plain

    rng = np.random.default_rng(0)
    orig, mask = rng.standard_normal((64, 64)).astype("f4"), (rng.random((64, 64)) < 0.5).astype("f4")
    other = rng.standard_normal((64, 64)).astype("f4")
    path, target = tmp_path / "m.safetensors", tmp_path / "x.safetensors"
    write_plain(path, {"fc.weight_orig": orig, "o.weight": other, "fc.weight_mask": mask})
    result = run("prune", path, target, "--sparsity", "0.7")
    assert "1 tensor in two halves, weights and mask, left as they are; --fold multiplies them first" in result.stderr
    assert "Left alone (--include prunes them too): halves of pairs 'fc.weight_orig', 'fc.weight_mask'" in result.stdout
    assert_same(target, {"fc.weight_orig": orig, "o.weight": magnitude(other, 0.7), "fc.weight_mask": mask}, "bits")
    whole = np.where(mask != 0, orig, np.float32(0))
    for options in ((), ("--global",), ("--dense",)):
        found = facts("prune", path, target, "--sparsity", "0.7", "--fold", *options, "--force")
        assert found["folded"] == 1
        together = codec.prune.masks({"fc.weight": whole, "o.weight": other}, 0.7)
        expected = {"fc.weight": magnitude(whole, 0.7), "o.weight": magnitude(other, 0.7)}
        if "--global" in options:
            expected = {
                "fc.weight": codec.prune.apply_mask(whole, together["fc.weight"]),
                "o.weight": codec.prune.apply_mask(other, together["o.weight"]),
            }
        assert_same(target, expected, "bits")
    kept = facts("prune", path, target, "--sparsity", "0.7", "--fold", "--include", "o.*", "--force")
    assert_same(target, {"fc.weight": whole, "o.weight": magnitude(other, 0.7)}, "bits")
    assert kept["folded"] == 1
    write_plain(path, {"fc.weight_orig": orig, "fc.weight_mask": mask})
    refused(run("prune", path, tmp_path / "y", "--sparsity", "0.7"), 2, "halves of pairs", "--fold multiplies")
    write_plain(path, {"fc.weight_orig": orig, "o.weight": other})
    refused(run("prune", path, tmp_path / "y", "--sparsity", "0.7", "--fold"), 2, "'fc.weight_mask' is missing")
    write_plain(path, {"fc.weight_orig": orig, "fc.weight_mask": mask[:1]})
    refused(run("prune", path, tmp_path / "y", "--sparsity", "0.7", "--fold"), 2, "fc.weight_mask': has shape (1, 64)")


def test_prune_a_folder(sharded, tensors, tmp_path):
    (sharded.parent / "config.json").write_text("{}")
    for together in ((), ("--global",)):
        target = tmp_path / f"pruned{len(together)}"
        found = facts("prune", sharded.parent, target, "--sparsity", "0.9", *together)
        assert found["output"] == str(target / "model.safetensors.index.json")
        assert (target / "config.json").read_text() == "{}"
        masks = codec.prune.masks({name: tensors[name] for name in ("w", "half")}, 0.9)
        expected = {
            n: codec.prune.apply_mask(tensors[n], masks[n]) if together else magnitude(tensors[n], 0.9) for n in masks
        }
        assert_same(target, tensors | expected)
    assert facts("prune", sharded.parent, "--structure", "2:4")["output"].endswith(
        "model.pruned/model.safetensors.index.json"
    )


def test_tied_names_of_embeddings_are_left_alone_together(tmp_path):
    embed = np.random.default_rng(0).standard_normal((64, 64)).astype("f4")
    embed[::2] = 0
    path = tmp_path / "m.safetensors"
    codec.save_file({"lm_head.weight": embed, "embed.weight": embed, "fc.weight": embed[:32]}, path)
    found = facts("prune", path, tmp_path / "x.safetensors", "--sparsity", "0.9")
    assert found["left_alone"] == {"lm_head.weight": "embedding", "embed.weight": "embedding"}
    with codec.safe_open(tmp_path / "x.safetensors") as model:
        assert sorted(filter(None, (model.info(name).alias_of for name in model)))
