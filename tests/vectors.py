"""The golden vectors of spec/vectors, and what is expected of each."""

import hashlib
import json
from pathlib import Path
from typing import Any

import head
import make_vectors
import numpy as np

SPEC = Path(make_vectors.__file__).parent
VECTORS = SPEC / "vectors"
MANIFEST: dict[str, dict[str, Any]] = json.loads((VECTORS / "manifest.json").read_text(encoding="utf-8"))
DECODE = sorted(name for name in MANIFEST if name.startswith("decode/"))
REJECT = sorted(name for name in MANIFEST if name.startswith("reject/"))


def is_model(name: str) -> bool:
    return MANIFEST[name]["file"].endswith(".safetensors")


def check(found: np.ndarray, expect: dict[str, Any]) -> None:
    """A tensor against a row of the manifest; one of a type that section 2 lacks is read as bytes."""
    if expect["dtype"] in head.DTYPES:
        assert list(found.shape) == expect["shape"]
        assert found.dtype == head.DTYPES[expect["dtype"]]
    assert hashlib.sha256(found.tobytes()).hexdigest() == expect["sha256"]
