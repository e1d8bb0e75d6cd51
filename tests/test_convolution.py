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


def test_what_filters_in_groups_are_is_worked_out_once(monkeypatch) -> None:
    """For any number of groups where they are moved over the images; integers for each."""
    w, x = weights((16, 2, 3, 3), element_type("f4"), 0.8), x_for(element_type("f4"), (4, 9, 9), 2)
    p, more = codec.encode(w), np.concatenate([x, x])
    first, second = codec.conv2d(x, p, groups=2), codec.conv2d(more, codec.encode(w), groups=4)
    q, whole = codec.encode((9 * w).astype("i2")), (9 * x).astype("i2")
    third = codec.conv2d(whole, q, groups=2)
    monkeypatch.setattr(convolution, "entries", None)  # what would read them again
    assert np.array_equal(codec.conv2d(x, p, groups=2), first)
    assert np.array_equal(codec.conv2d(more, p, groups=4), second)
    assert np.array_equal(codec.conv2d(whole, q, groups=2), third)
    with pytest.raises(TypeError):
        codec.conv2d(np.concatenate([whole, whole]), q, groups=4)


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


def test_what_a_filter_cannot_be_is_refused() -> None:
    """The border proves that every pixel and every weight is there."""
    right = {
        "pixels": np.zeros((2, 2, 3, 4), "f4"), "item": 1, "sizes": (2, 2, 1, 1, 1, 1, 0, 0, 0, 1), "groups": 2,
        "starts": np.array([0, 1, 3], "u8"), "columns": np.array([0, 3, 3], "u8"), "weights": np.zeros(12, np.uint8),
        "bias": np.zeros(8, np.uint8), "out": np.ones(4 * 32, np.uint8), "type": 1, "threads": 1,
    }  # fmt: skip
    _native.filter_images(**right)
    assert not right["out"].any()
    _native.filter_images(**{**right, "pixels": right["pixels"][:, ::-1, ::-1]})
    for changed in (
        {"columns": np.array([0, 4, 0], "u8")}, {"columns": np.array([0, 1 << 63, 0], "u8")},
        {"starts": np.array([1, 1, 3], "u8")}, {"starts": np.array([0, 4, 3], "u8")}, {"starts": np.zeros(0, "u8")},
        {"starts": np.array([0, 1, 2], "u8")}, {"starts": np.array([0, 3], "u8")}, {"weights": np.zeros(8, np.uint8)},
        {"bias": np.zeros(4, np.uint8)}, {"out": np.ones(4 * 31, np.uint8)}, {"groups": 0}, {"groups": 3},
        {"sizes": (2, 2, 1, 1, 1, 1)}, {"sizes": (2, 2, 1, 0, 1, 1, 0, 0, 0, 1)}, {"type": 0}, {"type": 2},
        {"sizes": (5, 2, 1, 1, 1, 1, 0, 0, 0, 1)}, {"sizes": (2, 2, 1, 1, 1, 1, 0, 0, 0, -1)}, {"item": 0}, {"item": 2},
        {"pixels": np.zeros((2, 2, 12), "f4")}, {"pixels": np.zeros((2, 0, 3, 4), "f4")},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"pixels|size|back|type|behind|larger|divide"):
            _native.filter_images(**{**right, **changed})
    huge = {"sizes": (1 << 30, 1 << 30, 1, 1, 1, 1, 1 << 30, 1 << 30, 0, 0)}
    with pytest.raises(ValueError, match="no sizes"):
        _native.filter_images(**{**right, **huge})
    wide = (2, 2, 1 << 30, 1 << 30, 1, 1, 1 << 30, 1 << 30, 0, 0)
    with pytest.raises(MemoryError):
        _native.filter_images(**{**right, "sizes": wide, "out": np.ones(4 * 16, np.uint8)})


def unrolled(x, w, stride, padding):
    """The definition by a matrix product in float64, for more and larger filters."""
    high, wide = w.shape[2:]
    x = np.pad(x.astype(float), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    under = np.lib.stride_tricks.sliding_window_view(x, (high, wide), (2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nchwij,fcij->nfhw", under, w.astype(float), optimize=True)


# Of the last, eight rows of a slice have the same columns.
@pytest.mark.parametrize("layout", ["dense", "bitmap", "csr", "sell", "half of sell"])
def test_many_columns_and_bands_of_rows(layout: str) -> None:
    """More places than a thread lays out at a time, of several images; filters in several bands; any threads."""
    element = element_type("f4")
    if layout == "half of sell":
        w = weights((100, 300, 3, 3), element, 0)
        w[::2] = w[:, 5:200] = 0
    else:
        w = weights((100, 300, 3, 3), element, 0.6)
    p = codec.encode(w, layout=layout.split()[-1])
    for stride, padding, side in ((1, 1, 9), (2, 2, 17)):
        x = x_for(element, (3, 300, side, side + 2), 4)
        expected, size = (unrolled(*pair, stride, padding) for pair in ((x, w), (abs(x), abs(w))))
        found = codec.conv2d(x, p, stride=stride, padding=padding, threads=1)
        assert (abs(found - expected) <= size * ROUNDING + 1e-30).all()
        for threads in (2, 3, 16):
            assert np.array_equal(codec.conv2d(x, p, stride=stride, padding=padding, threads=threads), found)
        each = [codec.conv2d(image, p, stride=stride, padding=padding) for image in x]
        assert np.array_equal(np.stack(each), found)


@pytest.mark.parametrize("name", ["F16", "BF16"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_pixels_of_16_bits_are_rounded_once(name: str, kernel: int) -> None:
    """The result is that of the same pixels in float32, rounded; whatever their strides, and of parts that are decoded
    ahead, too.
    """
    dtype = next(e.dtype for e in ELEMENTS if e.name == name)
    w = weights((70, 5, kernel, kernel), element_type("f4"), 0.6)
    whole = x_for(element_type("f4"), (3, 5, 12, 17), 6).astype(dtype)
    bias = np.arange(70, dtype="f4")
    for p in (codec.encode(w, layout="sell"), codec.encode(w, layout="csr", entropy="zstd")):
        for x in (whole, whole[:, :, ::-1, ::2], np.asfortranarray(whole)):
            for stride in (1, 2):
                wide = codec.conv2d(x.astype("f4"), p, bias, stride=stride, padding=1)
                assert codec.conv2d(x, p, bias, stride=stride, padding=1).tobytes() == wide.astype(dtype).tobytes()


def test_a_large_result_goes_past_the_cache() -> None:
    """The same as that of its parts, at any address, over images whose places are no whole strips."""
    w = weights((300, 3, 1, 1), element_type("f4"), 0.4)
    p, x = codec.encode(w, layout="sell"), x_for(element_type("f4"), (3, 3, 49, 51), 7)
    memory = np.empty(3 * 300 * 49 * 51 + 3, "f4")
    assert memory.nbytes > 8 << 20
    expected = np.stack([codec.conv2d(image, p) for image in x])
    for threads in (1, 3):
        out = memory[threads:][: expected.size].reshape(expected.shape)
        assert np.array_equal(codec.conv2d(x, p, out=out, threads=threads), expected)
    assert (
        codec.conv2d(x.astype("f2"), p).tobytes() == codec.conv2d(x.astype("f2").astype("f4"), p).astype("f2").tobytes()
    )


def test_images_that_are_all_padding_and_results_of_any_strides() -> None:
    w, bias = weights((3, 2, 3, 3), element_type("f4"), 0.5), np.arange(3, dtype="f4")
    p = codec.encode(w)
    found = codec.conv2d(np.zeros((2, 2, 0, 4), "f4"), p, bias, padding=2)
    assert np.array_equal(found, np.broadcast_to(bias[:, None, None], (2, 3, 2, 6)))
    assert codec.conv2d(np.zeros((0, 2, 4, 4), "f4"), p, bias).shape == (0, 3, 2, 2)
    x = x_for(element_type("f4"), (2, 2, 6, 7), 3)
    expected = codec.conv2d(x, p, bias, padding=1)
    for axes in ((0, 1, 3, 2), (1, 0, 2, 3), (3, 1, 0, 2)):
        out = np.empty(tuple(expected.shape[axis] for axis in axes), "f4").transpose(np.argsort(axes))
        assert codec.conv2d(x, p, bias, padding=1, out=out) is out
        assert np.array_equal(out, expected)
    assert np.array_equal(codec.conv2d(x.astype(">f4"), p, bias, padding=1), expected)
    data = codec.dumps(p)
    memory = np.zeros(len(data) + expected.nbytes, np.uint8)
    memory[: len(data)] = np.frombuffer(data, np.uint8)
    out = memory[64 : 64 + expected.nbytes].view("f4").reshape(expected.shape)
    assert np.array_equal(codec.conv2d(x, codec.loads(memory[: len(data)]), bias, padding=1, out=out), expected)


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
