"""Tensors for tests: every dtype, shape class and kind of zero, as hypothesis strategies and as seeded arrays."""

import numpy as np
from hypothesis import strategies as st

from codec.dtypes import BY_NAME, ElementType
from codec.elements import elements_of
from codec.encoding.choose import plan_of
from codec.encoding.request import EncodeRequest
from codec.encoding.sources import ArraySource
from codec.entropy import CHOICES
from codec.layouts import LAYOUTS, Layout, make_layout

# Every layout with every parameter that changes its bytes.
LAYOUT_PARAMS = [(layout.name, one.given) for layout in LAYOUTS.values() for one in layout.variants()]
ENTROPIES = (*(name for name in CHOICES if name != "auto"), "auto")
ELEMENTS = list(BY_NAME.values())


def layout_id(case: tuple[str, dict[str, object]]) -> str:
    """A test id."""
    return "-".join([case[0], *(f"{k}={v}" for k, v in case[1].items())])


def entropies(layout: str) -> tuple[str, ...]:
    """The entropy stages that a layout takes."""
    if LAYOUTS[layout].self_coded:
        return ("auto",)
    return ("auto", "huffman") if LAYOUTS[layout]().always_coded else ENTROPIES


def meets(source: tuple[str, dict[str, object]], target: int, turn: int, turns: int) -> bool:
    """Whether a layout goes to another in this turn: each pair of them meets in one, and none meets all in one.

    What lies between the two is the same for all pairs (native/forms/flat.inc): in every turn each layout is read, and
    each is written.
    """
    return (LAYOUT_PARAMS.index(source) + target) % turns == turn


def complete(layout: str, params: dict[str, object], a: np.ndarray, zero: str = "value") -> Layout:
    """A layout with every choice made for that matrix."""
    source = ArraySource(elements_of(a, zero=zero), 1)
    return plan_of(EncodeRequest.of(layout, params), make_layout(layout, params), source).layout


def seeded(shape: tuple[int, ...], element: ElementType, sparsity: float, seed: int = 0) -> np.ndarray:
    """Random bit patterns (NaN payloads, infinities and denormals among them), a share of zeros, a few of them -0.0."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))
    if element.name == "BOOL":
        bits = rng.integers(0, 2, size).astype(np.uint8)
    else:
        bits = np.frombuffer(rng.bytes(size * element.width), element.unsigned).copy()
    bits[rng.random(size) < sparsity] = 0
    if element.sign_bit:
        bits[rng.random(size) < 0.05 * sparsity] = element.sign_bit
    return bits.view(element.dtype).reshape(shape)


def under_rule(a: np.ndarray, zero: str, element: ElementType) -> np.ndarray:
    """What decoding must give back, bit for bit."""
    bits = a.copy().reshape(-1).view(element.unsigned)
    if zero == "value" and element.sign_bit:
        bits[bits == element.sign_bit] = 0
    return bits.view(element.dtype).reshape(a.shape)


@st.composite
def tensors(draw: st.DrawFn) -> np.ndarray:
    """Small tensors of any dtype, with sides 0 to 70 and 0 to 4 dimensions."""
    element = draw(st.sampled_from(ELEMENTS))
    shape = tuple(draw(st.lists(st.integers(0, 9), max_size=4))) or draw(
        st.sampled_from([(), (70,), (65, 70), (130, 3)])
    )
    return seeded(shape, element, draw(st.sampled_from([0.0, 0.5, 0.9, 1.0])), draw(st.integers(0, 2**32 - 1)))
