"""Pickles that contradict themselves: refused by name, and nothing loaded."""

import json
import os

import numpy as np
import pytest

from codec.errors import ArgumentError, FormatError
from codec.formats import format_of, open_file, write_file
from codec.formats.torch import read_tensor

torch = pytest.importorskip("torch")


def saved(path, value):
    torch.save(value, path)
    return path


@pytest.mark.parametrize(
    "checkpoint", [{"state_dict": {1: torch.ones(2)}}, {"state_dict": {"w": torch.ones(2)}, "compression_sched": {
        "masks_dict": {3: torch.ones(2)}}}, {7: torch.ones(2)}]
)  # fmt: skip
def test_names_that_are_no_texts(tmp_path, checkpoint):
    with pytest.raises(FormatError, match="expected a text"):
        open_file(saved(tmp_path / "m.pt", checkpoint))


def test_what_lies_beside_a_model_is_told(tmp_path):
    with open_file(saved(tmp_path / "m.pt", {"state_dict": {"w": torch.ones(2)}, "epoch": 3, "ema": {}})) as source:
        assert list(source) == ["w"]
        assert source.notes == ["left out, as they are no tensors of the model: 'epoch', 'ema'"]
    with pytest.raises(FormatError, match="with the models 'state_dict', 'model'; expected one"):
        open_file(saved(tmp_path / "m.pt", {"state_dict": {}, "model": {}}))


@pytest.mark.parametrize("file", ["../x.bin", "/x.bin", "..", "x\0.bin", "link.bin"])
def test_shards_are_regular_files_of_their_folder(tmp_path, file):
    saved(tmp_path / "x.bin", {"a": torch.ones(2)})
    os.symlink("x.bin", tmp_path / "link.bin")
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": file}}))
    with pytest.raises(FormatError, match=r"not a bare file name|is a link"):
        open_file(tmp_path)


def test_a_shard_without_its_tensor(tmp_path):
    saved(tmp_path / "x.bin", {"a": torch.ones(2)})
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "x.bin", "b": "x.bin"}}))
    with pytest.raises(FormatError, match=r"tensor 'b': .*x\.bin' lacks it"):
        open_file(tmp_path)
    index.write_text("{")
    with pytest.raises(FormatError, match=r"index\.json': not valid JSON"):
        open_file(tmp_path)


def test_layouts_that_are_not_read():
    with pytest.raises(FormatError, match=r"a tensor of layout torch\._mkldnn; expected one of strided"):
        read_tensor(torch.ones(4, 4).to_mkldnn())


@pytest.mark.filterwarnings("ignore:Sparse")
def test_sparse_tensors_larger_than_their_file(tmp_path):
    count = 1 << 34
    indices = torch.zeros(1, dtype=torch.int64).expand(2, count)
    w = torch.sparse_coo_tensor(indices, torch.ones(1).expand(count), (8, 8), check_invariants=False)
    with open_file(saved(tmp_path / "m.pt", {"w": w})) as source, pytest.raises(FormatError, match="that repeats"):
        source["w"]


@pytest.mark.filterwarnings("ignore:Sparse")
def test_arrays_of_a_sparse_tensor_without_dimensions(tmp_path):
    parts = torch.tensor([0, 1]), torch.tensor(0), torch.ones(1)
    w = torch.sparse_csr_tensor(*parts, size=(1, 4), check_invariants=False)
    with open_file(saved(tmp_path / "m.pt", {"w": w})) as source, pytest.raises(FormatError, match="'w': "):
        source["w"]


def macko(tmp_path, **changed):
    a = np.zeros((3, 40), np.float16)
    a[0, 3] = 1
    write_file({"m.weight": a}, tmp_path / "m.pt", "macko")
    state = torch.load(tmp_path / "m.pt", weights_only=True) | changed
    return saved(tmp_path / "m.pt", state)


def test_a_tensor_of_macko_that_is_there_twice(tmp_path):
    path = macko(tmp_path, **{"m.weight": torch.ones(3, 40)})
    with pytest.raises(FormatError, match=r"'m\.weight': is in the file twice"):
        open_file(path, "macko")
    sources = {"m.weight": np.eye(64, dtype=np.float16), "m.c_0": np.ones(3, np.float16)}
    with pytest.raises(ArgumentError, match=r"'m\.c_0': another tensor's part"):
        write_file(sources, tmp_path / "x.pt", "macko")


def test_lists_of_macko_larger_than_their_file(tmp_path):
    path = macko(tmp_path, **{"m.c_1": torch.zeros(1, dtype=torch.uint8).expand(1 << 40)})
    with open_file(path) as source, pytest.raises(FormatError, match="that repeats"):
        source["m.weight"]


def test_names_that_only_end_as_those_of_macko(tmp_path):
    state = {f"enc_{number}": torch.ones(4, 4) for number in range(5)}
    path = saved(tmp_path / "m.pt", state)
    assert format_of(str(path)).name == "torch"
    with open_file(path) as source:
        assert sorted(source) == sorted(state)
