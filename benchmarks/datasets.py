"""What is measured: real networks, pruned copies in every dtype, layers of real values, every case of a layout."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from measure import note

import codec
from codec.demo import real_weights
from codec.dtypes import BY_NAME, element_type
from codec.layouts import LAYOUTS
from codec.prune import magnitude, magnitude_mask

Tensors = dict[str, np.ndarray]
T = TypeVar("T")

# Every layout with every parameter that changes its bytes.
CASES: list[tuple[str, dict[str, Any]]] = [
    (layout.name, one.given) for layout in LAYOUTS.values() for one in layout.variants()
]

DTYPES = ("F32", "BF16", "F16", "F8_E4M3", "F8_E5M2", "I8")
# What a tensor's largest magnitude becomes in dtypes of 8 bits, as quantisers scale it: the largest finite number.
_LARGEST = {
    "F8_E4M3": 448.0,
    "F8_E5M2": 57344.0,
    "I8": 127.0,
}
COLD_BYTES = 200_000_000  # several times the last-level cache of one socket


def entropies(layout: str, every: tuple[str, ...]) -> tuple[str, ...]:
    """Those entropy stages of ``every`` that a layout takes."""
    if LAYOUTS[layout].self_coded:
        return ("auto",)
    return ("huffman",) if LAYOUTS[layout]().always_coded else every


def case_name(case: tuple[str, Mapping[str, Any]]) -> str:
    """A layout and its parameters in a word: csr of=zeros."""
    return " ".join([case[0], *(f"{k}={v}" for k, v in case[1].items())])


def load(path: Path) -> Tensors:
    """All tensors of a safetensors file."""
    with codec.safe_open(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def minilm() -> tuple[str, Tensors]:
    """MiniLM from the user's cache, fetched at the first call; its name, or that of what came in its place."""
    weights = real_weights(note)
    return weights.title, load(weights.path)


def networks(folder: Path) -> Iterator[tuple[str, Tensors]]:
    """MiniLM, and every network in a folder."""
    yield minilm()
    for path in sorted(folder.glob("*.safetensors")):
        yield path.stem, load(path)


def is_prunable(a: np.ndarray) -> bool:
    """Floating-point weights of two or more dimensions; biases and normalisation are never pruned."""
    return a.ndim >= 2 and element_type(a.dtype).is_float


def pruned(tensors: Tensors, sparsity: float) -> Tensors:
    """Every prunable tensor without its smallest weights, by its own magnitudes; what is removed is +0.0."""
    return {name: magnitude(a, sparsity) if is_prunable(a) else a for name, a in tensors.items()}


def pruned_by_product(tensors: Tensors, sparsity: float) -> Tensors:
    """As `pruned`, but multiplied by the mask as torch's pruning does: what was negative becomes -0.0."""
    return {name: a * magnitude_mask(a, sparsity) if is_prunable(a) else a for name, a in tensors.items()}


def cast(a: np.ndarray, name: str) -> np.ndarray:
    """A float tensor in another dtype of the format; to 8 bits by its largest magnitude. Integers stay as they are."""
    element = BY_NAME[name]
    if not element_type(a.dtype).is_float or a.dtype == element.dtype:
        return a
    wide = a.astype(np.float32, copy=False)
    if name in _LARGEST and a.size:
        wide = wide * np.float32(_LARGEST[name] / (float(np.abs(wide).max()) or 1.0))
    return (np.rint(wide) if name == "I8" else wide).astype(element.dtype)


def values_of(folder: Path, count: int) -> np.ndarray:
    """`count` real weights as one row, in an order that has no structure (repeated where there are not as many)."""
    found = [
        a.reshape(-1).astype(np.float32) for _, tensors in networks(folder) for a in tensors.values() if is_prunable(a)
    ]
    flat = np.resize(np.concatenate(found), count)
    np.random.default_rng(0).shuffle(flat)
    return flat


class Cold(Generic[T]):
    """Copies of one operand, taken in turn, so many that whichever comes next has left the caches."""

    def __init__(self, nbytes: int, copy: Callable[[], T]) -> None:
        self._copies = [copy() for _ in range(max(2, -(-COLD_BYTES // max(1, nbytes))))]
        self._next = 0

    def __iter__(self) -> Iterator[T]:
        return iter(self._copies)

    def take(self) -> T:
        """The copy that was not used for the longest time."""
        self._next = (self._next + 1) % len(self._copies)
        return self._copies[self._next]


def cold_packed(p: codec.PackedTensor) -> Cold[codec.PackedTensor]:
    """Copies of a packed tensor, each in memory of its own."""
    data = codec.dumps(p)
    return Cold(p.nbytes, lambda: codec.loads(data, copy=True))


def cold_dense(a: np.ndarray) -> Cold[np.ndarray]:
    """Copies of an array."""
    return Cold(a.nbytes, a.copy)
