"""conv2d: against the definition, in every block size, for every dtype; shapes and numbers that do not go together."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from products import ROUNDING, STEP, TINY, weights, x_for
from strategies import ELEMENTS, LAYOUT_PARAMS, layout_id

import codec
from codec import _native, convolution
from codec.convolution import conv2d_input
from codec.dtypes import ElementType, element_type


def definition(x, w, stride, padding, dilation, groups):
    """The sum over channels and pixels of the filter, and the sum of magnitudes, in float64 or int64."""
    wide = np.float64 if element_type(x.dtype).is_float else np.int64
    (top, left), (down, right) = padding, stride
    x = np.pad(x.astype(wide), ((0, 0), (0, 0), (top, top), (left, left)))
    w = w.astype(wide)
    filters, channels, high, wideness = w.shape
    height = (x.shape[2] - dilation[0] * (high - 1) - 1) // down + 1
    width = (x.shape[3] - dilation[1] * (wideness - 1) - 1) // right + 1
    found, size = (np.zeros((len(x), filters, height, width), wide) for _ in range(2))
    for f, c, i, j in itertools.product(range(filters), range(channels), range(high), range(wideness)):
        channel = f // (filters // groups) * channels + c
        rows, cols = i * dilation[0], j * dilation[1]
        part = x[:, channel, rows : rows + down * height : down, cols : cols + right * width : right][
            :, :height, :width
        ]
        found[:, f] += w[f, c, i, j] * part
        size[:, f] += abs(w[f, c, i, j] * part)
    return found, size


@st.composite
def cases(draw):
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    least = [max(1, d * (k - 1) + 1 - 2 * p) for d, k, p in zip(dilation, kernel, padding, strict=True)]
    return {
        "x": (draw(st.integers(0, 3)), groups * draw(st.integers(1, 3)), *(n + draw(st.integers(0, 5)) for n in least)),
        "filters": groups * draw(st.integers(1, 3)),
        "kernel": kernel,
        "stride": draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "block": draw(st.sampled_from([1, 300, 5000, 4 << 20])),
        "seed": draw(st.integers(0, 99)),
    }


@given(cases())
@settings(max_examples=60, deadline=None)
def test_it_is_the_definition(case):
    rng = np.random.default_rng(case["seed"])
    geometry = {key: case[key] for key in ("stride", "padding", "dilation", "groups")}
    w = weights(
        (case["filters"], case["x"][1] // case["groups"], *case["kernel"]), element_type("f4"), 0.6, case["seed"]
    )
    x, bias = rng.standard_normal(case["x"]).astype("f4"), rng.standard_normal(case["filters"]).astype("f4")
    expected, size = definition(x, w, **geometry)
    p = codec.encode(w)
    before, convolution.BLOCK_BYTES = convolution.BLOCK_BYTES, case["block"]
    try:
        found = codec.conv2d(x, p, bias, **geometry)
        out = np.empty((*found.shape[:3], 2 * found.shape[3]), "f4")[..., ::2]
        assert codec.conv2d(x, p, bias, out=out, threads=1, **geometry) is out
        gradient = rng.standard_normal(found.shape).astype("f4")
        back = conv2d_input(x.shape, p, gradient, **geometry)
    finally:
        convolution.BLOCK_BYTES = before
    column = bias[:, None, None]
    assert (abs(found - (expected + column)) <= (size + abs(column)) * 1e-5 + 1e-30).all()
    assert np.array_equal(out, found)
    # The adjoint: <conv(x), g> = <x, conv_input(g)>.
    one, other = (expected * gradient).sum(), (x.astype(float) * back).sum()
    assert abs(one - other) <= 1e-4 * (1 + (size * abs(gradient)).sum())


@pytest.mark.parametrize("element", ELEMENTS, ids=lambda e: e.name)
def test_every_dtype(element: ElementType) -> None:
    w, x = weights((5, 3, 3, 2), element, 0.6), x_for(element, (2, 3, 6, 7), 1)
    found = codec.conv2d(x, codec.encode(w), stride=(2, 1), padding=1)
    expected, size = definition(x, w, (2, 1), (1, 1), (1, 1), 1)
    assert found.dtype == x.dtype
    if not element_type(x.dtype).is_float:
        assert np.array_equal(found, expected)
        return
    name = element_type(x.dtype).name
    bound = size * ROUNDING + abs(expected) * 1.01 * STEP[name] + TINY.get(name, 1e-300)
    assert (abs(found.astype(float) - expected) <= bound).all()


@pytest.mark.parametrize("case", LAYOUT_PARAMS, ids=layout_id)
def test_every_layout(case) -> None:
    layout, params = case
    w, x = weights((16, 4, 3, 3), element_type("f4"), 0.8), x_for(element_type("f4"), (4, 9, 9), 2)
    for groups in (1, 2):
        own = w[:, : 4 // groups].copy()
        found = codec.conv2d(x, codec.encode(own, layout=layout, **params), padding="same", groups=groups)
        expected, size = definition(x[None], own, (1, 1), (1, 1), (1, 1), groups)
        assert (abs(found - expected[0]) <= size[0] * ROUNDING + 1e-30).all()


def test_filters_in_groups_are_packed_for_all_channels_once(monkeypatch) -> None:
    w, x = weights((16, 2, 3, 3), element_type("f4"), 0.8), x_for(element_type("f4"), (4, 9, 9), 2)
    p = codec.encode(w)
    first = codec.conv2d(x, p, groups=2)
    monkeypatch.setattr(convolution, "entries", None)  # what packing them again would call
    assert np.array_equal(codec.conv2d(x, p, groups=2), first)
    with pytest.raises(TypeError):
        codec.conv2d(np.concatenate([x, x]), p, groups=4)


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2"])
def test_filters_of_groups_over_wide_lines(dtype) -> None:
    """Lines of every rest of a vector, images of any strides, any number of threads."""
    w = weights((6, 2, 3, 2), element_type("f4"), 0.4)
    p = codec.encode(w, layout="bitmap")
    for width in (3, 20, 87, 150):
        whole = x_for(element_type("f4"), (2, width, 5, 6), 3).astype(dtype)
        for x in (whole.transpose(0, 3, 2, 1), np.repeat(whole, 2, axis=3)[..., ::2].transpose(0, 3, 2, 1)):
            for stride in (1, 2):
                expected, size = definition(x, w, (stride, stride), (1, 1), (1, 1), 3)
                found = codec.conv2d(x, p, stride=stride, padding=1, groups=3)
                assert found.dtype == dtype
                bound = size * ROUNDING + abs(expected) * 1.01 * STEP[element_type(dtype).name] + 1e-7
                assert (abs(found.astype(float) - expected) <= bound).all()
                for threads in (1, 3):
                    same = codec.conv2d(x, p, stride=stride, padding=1, groups=3, threads=threads)
                    assert same.tobytes() == found.tobytes()


def test_filters_outside_their_images_are_refused() -> None:
    """The border proves that every pixel and every weight is there."""
    right = {
        "pixels": np.zeros(4 * 20, np.uint8), "steps": (20, 5, 1), "starts": np.array([0, 1, 2]),
        "offsets": np.array([0, 6]), "weights": np.zeros(8, np.uint8), "bias": np.zeros(8, np.uint8),
        "out": np.ones(4 * 24, np.uint8), "sizes": (1, 2, 3, 4), "type": 1, "threads": 1,
    }  # fmt: skip
    for steps in ((20, 5, 1), (20, 4, 1), (20, 1, 1), (20, 0, 1), (0, 5, 0)):  # also lines that overlap
        right["out"][:] = 1
        _native.filter_images(**{**right, "steps": steps})
        assert not right["out"].any()
    many = {"steps": (0, 1, 1), "sizes": (1, 2, 5000, 60), "out": np.ones(4 * 600_000, np.uint8)}
    _native.filter_images(**{**right, **many, "pixels": np.zeros(4 * 5100, np.uint8)})
    assert not many["out"].any()
    for changed in (
        {"offsets": np.array([0, 7])}, {"offsets": np.array([-1, 6])}, {"starts": np.array([1, 1, 2])},
        {"starts": np.array([0, 3, 2])}, {"starts": np.array([0, 1, 3])}, {"starts": np.array([0, 2])},
        {"weights": np.zeros(4, np.uint8)}, {"bias": np.zeros(4, np.uint8)}, {"out": np.ones(4 * 25, np.uint8)},
        {"sizes": (2, 1, 3, 4), "starts": np.array([0, 2])}, {"steps": (20, 6, 1)}, {"steps": (20, 5, 1 << 63)},
        {"steps": (20, 1 << 63, 1)}, {"type": 0}, {"type": 2}, {"pixels": np.zeros(4 * 20 - 1, np.uint8)},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"pixel|size|back|type"):
            _native.filter_images(**{**right, **changed})


def test_an_image_is_padded_once_for_all_its_blocks(monkeypatch) -> None:
    w, x = weights((4, 3, 3, 3), element_type("f4"), 0.5), x_for(element_type("f4"), (2, 3, 20, 30), 2)
    p, pads, pad = codec.encode(w), [], convolution.Window.pad
    expected = codec.conv2d(x, p, padding=1)
    monkeypatch.setattr(convolution, "BLOCK_BYTES", 1 << 12)
    monkeypatch.setattr(convolution.Window, "pad", lambda *given: pads.append(1) or pad(*given))
    assert np.array_equal(codec.conv2d(x, p, padding=1), expected)
    assert len(pads) == len(x)


def test_zeros_contribute_nothing_and_out_may_overlap() -> None:
    w = np.zeros((2, 2, 1, 1), np.float32)
    w[1, 1] = 2
    x = np.full((1, 2, 3, 3), np.nan, np.float32)
    x[0, 1] = 3
    for groups, own in ((1, w), (2, w[:, 1:].copy())):
        found = codec.conv2d(x, codec.encode(own), groups=groups)
        assert np.array_equal(found[0], [np.zeros((3, 3)), np.full((3, 3), 6)])
    assert codec.conv2d(x, codec.encode(w), out=x) is x
    assert np.array_equal(x[0, 1], np.full((3, 3), 6))


@pytest.mark.parametrize(
    ("x", "options", "words"),
    [
        ((4, 5), {}, "x has 2 dimensions; expected 4"),
        ((2, 5, 5), {}, "expected 3 channels"),
        ((3, 5, 5), {"groups": 2}, "groups=2; expected an int that divides the 3 filters"),
        ((3, 5, 5), {"groups": True}, "groups=True"),
        ((3, 2, 5), {}, "smaller than a filter"),
        ((3, 5, 5), {"stride": 0}, "stride=0; expected an int from 1"),
        ((3, 5, 5), {"stride": (1, 2, 3)}, "two of them"),
        ((3, 5, 5), {"dilation": 1.5}, "dilation=1.5"),
        ((3, 5, 5), {"padding": -1}, "padding=-1"),
        ((3, 5, 5), {"padding": "full"}, "'valid' or 'same'"),
        ((3, 5, 5), {"padding": "same", "stride": 2}, "expected stride=1"),
        ((3, 5, 5), {"bias": np.ones(2)}, r"bias is \(2,\); expected \(3,\)"),
        ((3, 5, 5), {"out": np.ones((3, 3, 3))}, "out is a float64"),
    ],
)
def test_refused(x, options, words) -> None:
    w = codec.encode(np.ones((3, 3, 3, 3), np.float32))
    with pytest.raises(codec.ArgumentError, match=words):
        codec.conv2d(np.ones(x, np.float32), w, **options)


def test_what_is_no_packed_filter_is_refused() -> None:
    x = np.ones((3, 5, 5), np.float32)
    for w, words in (
        (np.ones((3, 3, 3, 3)), "expected a PackedTensor"),
        (codec.encode(np.ones((3, 27))), "w has shape"),
        (codec.encode(np.ones((3, 3, 3, 3)), row_dims=2), "row_dims=2"),
    ):
        with pytest.raises(codec.ArgumentError, match=words):
            codec.conv2d(x, w)


@pytest.mark.parametrize("images", [1, 3])
def test_filters_of_one_pixel_are_a_matrix(images):
    """Images that are columns already are multiplied where they are; results and overlaps as ever."""
    w = weights((9, 7, 1, 1), element_type("f4"), 0.6)
    p = codec.encode(w)
    x = np.random.default_rng(0).standard_normal((images, 7, 17, 19)).astype("f4")
    bias = np.arange(9, dtype="f4")
    expected, size = definition(x, w, (1, 1), (0, 0), (1, 1), 1)
    for pixels in (x, x[:, :, ::-1], x.astype("f8"), np.asfortranarray(x)):
        found = codec.conv2d(pixels, p, bias)
        plain = expected if np.array_equal(pixels, x) else expected[:, :, ::-1]
        assert found.dtype == pixels.dtype
        assert (abs(found - plain - bias[:, None, None]) <= size.max() * 1e-5 + 1e-5).all()
    out = np.empty((images, 9, 17, 19), "f4")
    assert codec.conv2d(x, p, bias, out=out) is out
    assert np.array_equal(out, codec.conv2d(x, p, bias, threads=2))
