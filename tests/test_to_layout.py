"""One layout to another, segment by segment: the bytes of encoding anew, whatever segments either of them takes."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import writer
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import LAYOUT_PARAMS, complete, entropies, layout_id, meets, seeded, under_rule

import codec
from codec.dtypes import element_type
from codec.entropy import CODINGS
from codec.layouts import make_layout
from codec.matrix import TensorSpec

ELEMENT = element_type("bfloat16")
every_layout = pytest.mark.parametrize("source", LAYOUT_PARAMS, ids=layout_id)
# Several segments: of whole rows, the last of them lower, and of pieces of rows; and such that layouts take segments of
# other heights than each other, which ends within those of the other.
SHAPES = [(700, 700), (9, 60_000), (70, 12_000), (130, 4_400), (130, 3_000), (2, 300_000)]
LANES = ("bitmap", {"order": "lanes"})


@cache
def anew(shape: tuple[int, ...], number: int, entropy: str) -> bytes:
    """The frame of a case, encoded from the array."""
    layout, params = LAYOUT_PARAMS[number]
    return codec.dumps(codec.encode(seeded(shape, ELEMENT, 0.7), layout=layout, entropy=entropy, **params))


@every_layout
def test_to_layout_equals_encoding_anew(source: tuple[str, dict[str, Any]]) -> None:
    starts = entropies(source[0])
    for turn, shape in enumerate(((40, 70), (1, 300_000), (0, 4), (3,))):
        a = seeded(shape, ELEMENT, 0.7)
        frames = [codec.encode(a, layout=source[0], entropy=start, **source[1]) for start in starts]
        # Each start meets each layout at one of the shapes: what is decoded does not depend on where it goes.
        for number, (layout, params) in enumerate(LAYOUT_PARAMS):
            if turn and not meets(source, number, turn, 4):
                continue
            p = frames[(number + turn) % len(frames)]
            assert codec.dumps(p.to_layout(layout, **params)) == anew(shape, number, "auto")
        for p in frames:
            objective = ("disk", "memory", "speed")[turn % 3]
            assert codec.dumps(p.to_layout(objective=objective)) == codec.dumps(codec.encode(a, objective=objective))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@every_layout
def test_segments_of_other_heights(source: tuple[str, dict[str, Any]], shape: tuple[int, ...]) -> None:
    a = seeded(shape, ELEMENT, 0.7)
    # Parts in zstd are decoded ahead of the kernels, a few segments at a time: every second target is given them.
    starts = ("none", "zstd") if "none" in entropies(source[0]) else ("auto",)
    frames = [codec.encode(a, layout=source[0], entropy=start, **source[1]) for start in starts]
    turn = SHAPES.index(shape)
    for number, (layout, params) in enumerate(LAYOUT_PARAMS):
        if not meets(source, number, turn, len(SHAPES)) and LANES not in (source, (layout, params)):
            continue
        entropy, p = entropies(layout)[0], frames[number // len(SHAPES) % len(frames)]
        q = p.to_layout(layout, entropy=entropy, threads=1 + number % 3, **params)
        assert codec.dumps(q) == anew(shape, number, entropy)


def test_the_shapes_have_segments_of_other_heights() -> None:
    specs = [TensorSpec.of("bfloat16", shape) for shape in SHAPES]
    heights = [(spec.grid.segment_rows, make_layout(*LANES).grid(spec).segment_rows) for spec in specs]
    assert heights == [(192, 192), (3, 9), (12, 64), (32, 64), (48, 64), (1, 1)]


@given(
    st.integers(1, 400),
    st.integers(1, 9_000),
    st.sampled_from(["none", *CODINGS]),
    st.sampled_from(LAYOUT_PARAMS),
    st.integers(1, 3),
)
@settings(max_examples=40, deadline=None)
def test_lanes_and_others_of_any_shape(
    rows: int, cols: int, entropy: str, other: tuple[str, dict[str, Any]], threads: int
) -> None:
    element = element_type("int8")
    a = under_rule(seeded((rows, cols), element, 0.8), "value", element)
    for one, two in ((LANES, other), (other, LANES)):
        p = codec.encode(a, layout=one[0], entropy=entropy if entropy in entropies(one[0]) else "auto", **one[1])
        q = p.to_layout(two[0], entropy=entropies(two[0])[0], threads=threads, **two[1])
        assert codec.dumps(q) == codec.dumps(codec.encode(a, layout=two[0], entropy=entropies(two[0])[0], **two[1]))


@every_layout
def test_from_segments_that_codec_does_not_make(source: tuple[str, dict[str, Any]]) -> None:
    """Any writer may cut a matrix as it likes (spec section 3); what codec writes is cut as ever."""
    a = seeded((37, 23), ELEMENT, 0.7)
    params = complete(*source, a).params
    if source[0] == "n_m":
        params["n"] = params["m"]  # other groups, where rows are cut
    for number, segment in enumerate([(5, 23), (36, 23), (1, 23), (1, 10), (37, 23)]):
        coding = "none" if number % 2 else "zstd"
        codings = dict.fromkeys(("values", "mask", "steps", "columns", "patterns", "words"), coding)
        draft = writer.encode(
            a.view(np.uint16), ELEMENT.name, source[0], params=params, segment=segment, codings=codings
        )
        p = codec.loads(draft.build())
        assert (p.spans.head.grid.segment_rows, p.spans.head.grid.segment_cols) == segment
        for target, (layout, wanted) in enumerate(LAYOUT_PARAMS):
            if meets(source, target, number, 5):
                assert codec.dumps(p.to_layout(layout, threads=2, **wanted)) == anew((37, 23), target, "auto")


@every_layout
def test_kept_negative_zeros_stay_in_every_layout(source: tuple[str, dict[str, Any]]) -> None:
    """A zero that mask= keeps is stored as it is, and no conversion loses its sign."""
    a = np.zeros((4, 8), np.float32)
    a[0, 1], a[2, 3] = 1, -0.0
    mask = np.zeros(a.shape, bool)
    mask[0, 1] = mask[2, 3] = True
    p = codec.encode(a, layout=source[0], mask=mask, **source[1])
    for layout, params in LAYOUT_PARAMS:
        assert p.to_layout(layout, **params).to_dense().tobytes() == a.tobytes()
