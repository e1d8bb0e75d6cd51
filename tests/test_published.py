"""Published sparse formats: the papers' own examples, bit for bit, and the layouts that hold the same positions."""

import numpy as np
import pytest

import codec
from codec.errors import ArgumentError, FormatError
from codec.interop import published
from codec.layouts import make_layout

# EIE, section III-B: the column of 23 entries.
EIE_COLUMN = [0, 0, 1, 2, *[0] * 18, 3]
# EIE, figure 2: which elements of the 16 x 8 matrix are not zero; figure 3 shows PE0 (others by the same rule).
EIE_MATRIX = """
    10101110 01010010 00101001 01000100 01001000 00010001 00001010 10010010
    10000001 10000011 00001000 00100001 10100101 11000010 00111100 00110100
"""
EIE_PES = [
    ([0, 1, 0, 1, 0, 2, 0, 0, 0, 2, 0, 2, 0], [0, 3, 4, 6, 6, 8, 10, 11, 13],
     [(0, 0), (8, 0), (12, 0), (4, 1), (0, 2), (12, 2), (0, 4), (4, 4), (0, 5), (12, 5), (0, 6), (8, 7), (12, 7)]),
    ([2, 0, 0, 2, 0, 0, 0, 1, 0, 1, 0], [0, 2, 4, 4, 6, 6, 6, 9, 11],
     [(9, 0), (13, 0), (1, 1), (13, 1), (1, 3), (5, 3), (1, 6), (9, 6), (13, 6), (5, 7), (9, 7)]),
    ([0, 2, 3, 0, 0, 0, 0, 3, 1, 0], [0, 0, 0, 2, 3, 7, 8, 9, 10],
     [(2, 2), (14, 2), (14, 3), (2, 4), (6, 4), (10, 4), (14, 4), (14, 5), (6, 6), (2, 7)]),
    ([1, 0, 2, 0, 1, 1, 0, 2, 1, 2], [0, 1, 2, 4, 6, 6, 8, 9, 10],
     [(7, 0), (3, 1), (11, 2), (15, 2), (7, 3), (15, 3), (3, 5), (15, 5), (7, 6), (11, 7)]),
]  # fmt: skip
# Eyeriss, the example of run-length compression.
EYERISS = [0, 0, 12, 0, 0, 0, 0, 53, 0, 0, 22]


def streams(p: codec.PackedTensor) -> dict[str, bytes]:
    """The bytes of a one-segment frame's streams."""
    head, data = p.spans.head, codec.dumps(p)
    return {
        stream.name: data[int(parts.offsets[0]) : int(parts.offsets[0]) + stream.length]
        for stream, parts in zip(head.streams, head.parts, strict=True)
    }


def packed_codes(data: bytes, bits: int) -> list[int]:
    """Codes of a relative_index part, read plainly."""
    count, packed = int.from_bytes(data[:4], "little"), int.from_bytes(data[4:], "little")
    return [packed >> at * bits & (1 << bits) - 1 for at in range(count)]


def test_eie_column() -> None:
    values, zeros = published.relative_index(EIE_COLUMN, 4)
    assert (values.tolist(), zeros.tolist()) == ([1, 2, 0, 3], [2, 0, 15, 2])
    assert published.from_relative_index(values, zeros, 23).tolist() == EIE_COLUMN
    p = codec.encode(np.array(EIE_COLUMN, np.uint8), layout="relative_index", bits=4, filler="value", entropy="none")
    found = streams(p)
    assert found["steps"] == bytes([4, 0, 0, 0, 0x02, 0x2F])
    assert found["values"] == bytes([1, 2, 0, 3])
    assert p.nnz == 3


def test_eie_matrix_on_four_elements() -> None:
    rows = EIE_MATRIX.split()
    # Every element holds its own position, so that values show where they came from.
    matrix = np.array(
        [[(r * 8 + c + 1) * int(bit) for c, bit in enumerate(row)] for r, row in enumerate(rows)], np.int16
    )
    found = published.eie_columns(matrix, pes=4)
    for (v, z, p), (zeros, pointers, positions) in zip(found, EIE_PES, strict=True):
        assert z.tolist() == zeros
        assert p.tolist() == pointers
        assert [divmod(int(value) - 1, 8) for value in v] == positions
    assert np.array_equal(published.from_eie_columns(found, 16), matrix)
    # The layout counts over whole segments: one column of one element as a vector gives the same codes.
    p = codec.encode(matrix[0::4, 0].copy(), layout="relative_index", bits=4, filler="value", entropy="none")
    assert packed_codes(streams(p)["steps"], 4) == EIE_PES[0][0][:3]


def test_deep_compression_relative_index() -> None:
    # Section 2, figure: values 3.4, 0.9, 1.7 at 1, 4 and 15 with 3 bits; the differences there count from position 0.
    line = np.zeros(15, np.float32)
    line[[0, 3, 14]] = [3.4, 0.9, 1.7]
    values, zeros = published.relative_index(line, 3)
    assert (zeros + 1).tolist() == [1, 3, 8, 3]
    assert values.tolist() == line[[0, 3, 1, 14]].tolist()
    assert int(np.cumsum(zeros + 1)[2]) == 12
    p = codec.encode(line, layout="relative_index", bits=3, filler="value", entropy="none")
    assert packed_codes(streams(p)["steps"], 3) == [0, 2, 7, 2]
    assert np.frombuffer(streams(p)["values"], np.float32).tolist() == values.tolist()


def test_eyeriss() -> None:
    line = np.array(EYERISS, np.int16)
    runs, levels = published.eyeriss_pairs(line)
    assert list(zip(runs.tolist(), levels.tolist(), strict=True)) == [(2, 12), (4, 53), (2, 22)]
    assert published.eyeriss_words(line, last=False).tolist() == [0x100061000D44002C]
    assert published.eyeriss_words(line).tolist() == [0x100061000D44002D]
    assert published.from_eyeriss_words([0x100061000D44002D], 11, np.int16).tolist() == EYERISS
    runs, levels = published.eyeriss_pairs([*[0] * 40, 7])
    assert list(zip(runs.tolist(), levels.tolist(), strict=True)) == [(31, 0), (8, 7)]
    p = codec.encode(line, layout="run_length", preset="eyeriss", entropy="none")
    assert dict(p.params) == {"bits": 5}
    word = 1 << 63 | sum(
        (run | level << 5) << 21 * slot for slot, (run, level) in enumerate([(2, 12), (4, 53), (2, 22)])
    )
    assert streams(p)["words"] == word.to_bytes(8, "little")
    p = codec.encode(np.array([*[0] * 40, 7], np.int16), layout="run_length", preset="eyeriss", entropy="none")
    word = 1 << 63 | 31 | (8 | 7 << 5) << 21 | 31 << 42  # the third pair is what fills a last word
    assert streams(p)["words"] == word.to_bytes(8, "little")
    with pytest.raises(ArgumentError, match="two bytes"):
        codec.encode(np.zeros(3, np.float32), layout="run_length", preset="eyeriss")
    with pytest.raises(ArgumentError, match="which has 5"):
        codec.encode(line, layout="run_length", preset="eyeriss", bits=4)


def test_macko() -> None:
    matrix = np.zeros((4, 40))
    for row, column, value in [(0, 0, 1), (0, 16, 2), (0, 39, 3), (1, 17, 4), (3, 15, 5), (3, 32, 6)]:
        matrix[row, column] = value
    floats, ints = published.macko(matrix), published.macko(matrix.astype(np.int8))
    assert floats.values.dtype == np.float16
    assert floats.values.tolist() == [1, 2, 0, 3, 0, 4, 5, 0, 6, 0, 0, 0, 0, 0, 0, 0]
    assert floats.deltas.tolist() == [240, 111, 31, 255, 0, 0, 0, 0]
    assert floats.row_pointers.tolist() == [0, 4, 6, 6, 9]
    assert ints.values.dtype == np.int8
    assert ints.values.tolist() == [1, 2, 0, 3, 0, 4, 0, 0, 0, 5, 0, 6, 0, 0, 0, 0]
    assert ints.deltas.tolist() == [240, 111, 31, 255, 255, 15, 0, 0]
    assert ints.row_pointers.tolist() == [0, 4, 7, 9, 12]
    for found in (floats, ints):
        assert np.array_equal(published.from_macko(found, 40), matrix)


# compressed-tensors, format "sparse-bitmask".
BITMASK = [[0, 5, 0, 0, 0, 0, 0, 7, 1, 0], [0] * 10, [3, 0, 0, 0, 0, 0, 0, 0, 0, 9]]
# hipSPARSELt, 2:4.
TWO_OF_FOUR = [[1, 2, 0, 0], [0, 0, 3, 4], [0, 6, 7, 0], [0, 6, 0, 8]]
# SpInfer, a tile of 16 x 16.
TCA = [(0, 0, 1), (0, 9, 2), (9, 0, 3), (7, 7, 4), (15, 15, 5)]


def test_sparse_bitmask() -> None:
    found = published.sparse_bitmask(BITMASK)
    assert found.bitmask.tolist() == [[130, 1], [0, 0], [1, 2]]
    assert found.compressed.tolist() == [5, 7, 1, 3, 9]
    assert found.row_offsets is not None
    assert found.row_offsets.tolist() == [0, 3, 3]
    assert found.shape.tolist() == [3, 10]
    assert published.from_bitmask(found).tolist() == BITMASK
    special = published.sparse_bitmask(np.array([[-0.0, np.nan, 0.0]], np.float32))
    assert special.bitmask.tolist() == [[2]]
    # Rows begin on bytes there; a layout has no gaps between rows.
    p = codec.encode(np.array(BITMASK, np.uint8), layout="bitmap", entropy="none")
    bits = np.unpackbits(found.bitmask, axis=1, bitorder="little")[:, :10]
    assert streams(p)["mask"] == np.packbits(bits, bitorder="little").tobytes()
    assert streams(p)["values"] == bytes(found.compressed.tolist())


def test_two_of_four() -> None:
    found = published.two_of_four(TWO_OF_FOUR)
    assert found.values.tolist() == [[1, 2], [3, 4], [6, 7], [6, 8]]
    assert found.indices.tolist() == [[0, 1], [2, 3], [1, 2], [1, 3]]
    assert published.from_two_of_four(found).tolist() == TWO_OF_FOUR
    # PyTorch: a code for each set of entries, also where they are fewer than two.
    codes = {
        (0, 1): 0b0100, (0, 2): 0b1000, (1, 2): 0b1001, (0, 3): 0b1100, (1, 3): 0b1101, (2, 3): 0b1110,
        (): 0b1110, (3,): 0b1110, (2,): 0b1110, (1,): 0b1001, (0,): 0b1000,
    }  # fmt: skip
    for entries, code in codes.items():
        row = np.zeros((1, 4), np.float16)
        row[0, list(entries)] = 7
        first, second = published.two_of_four(row).indices[0].tolist()
        assert first | second << 2 == code
        assert np.array_equal(published.from_two_of_four(published.two_of_four(row)), row)


def test_two_of_four_is_the_layouts() -> None:
    p = codec.encode(np.array(TWO_OF_FOUR, np.uint8), layout="n_m", entropy="none")
    assert dict(p.params) == {"m": 4, "n": 2}
    values, indices = published.two_of_four(TWO_OF_FOUR)
    masks = (1 << indices.astype(int)).sum(axis=1).tolist()
    assert streams(p)["patterns"] == bytes([masks[0] | masks[1] << 4, masks[2] | masks[3] << 4])
    assert streams(p)["values"] == bytes(values.reshape(-1).tolist())
    # Published sizes: 9/16 of dense for two bytes, 10/16 for one.
    rng = np.random.default_rng(7)
    for dtype, share in ((np.float16, 9 / 16), (np.int8, 10 / 16)):
        a = np.ones((4096, 1024), dtype)
        a.reshape(-1, 4)[
            np.arange(1 << 20)[:, None], rng.permuted(np.tile(np.arange(4), (1 << 20, 1)), axis=1)[:, :2]
        ] = 0
        p = codec.encode(a, layout="n_m", entropy="none")
        assert sum(p.parts.values()) == share * a.nbytes
        assert np.array_equal(p.to_dense(), a)


def test_sparse_24_bitmask() -> None:
    row = np.array([[1, 0, 0, 2, 0, 0, 2, 3], [0, 0, 0, 0, 0, 4, 0, 0]], np.float32)
    found = published.sparse_24_bitmask(row)
    assert found.compressed.tolist() == [[1, 2, 2, 3], [0, 0, 0, 4]]
    assert found.bitmask.tolist() == [[0b11001001], [0b00110011]]
    assert found.shape.tolist() == [[2], [8]]
    assert found.row_offsets is None
    assert np.array_equal(published.from_bitmask(found), row)
    p = codec.encode(row[:1], layout="n_m", entropy="none")
    assert streams(p)["patterns"] == found.bitmask[:1].tobytes()
    assert streams(p)["values"] == found.compressed[:1].tobytes()


def test_tca_tile() -> None:
    tile = np.zeros((16, 16), np.float16)
    for row, column, value in TCA:
        tile[row, column] = value
    bitmaps, values = published.tca_tile(tile)
    expected = [0x8000000000000001, 0x0000000000000100, 0x0000000000000002, 0x8000000000000000]
    assert bitmaps.tolist() == expected
    assert values.tolist() == [1, 4, 3, 2, 5]
    assert np.array_equal(published.from_tca_tile(bitmaps, values), tile)


def test_any_matrix_comes_back() -> None:
    rng = np.random.default_rng(5)
    for density in (0.0, 0.02, 0.3, 1.0):
        matrix = (rng.integers(1, 100, (37, 90)) * (rng.random((37, 90)) < density)).astype(np.int8)
        for bits, pes in ((1, 1), (4, 3), (16, 40)):
            assert np.array_equal(published.from_eie_columns(published.eie_columns(matrix, pes, bits), 37), matrix)
        assert np.array_equal(published.from_macko(published.macko(matrix), 90), matrix)
        assert np.array_equal(published.from_macko(published.macko(matrix.astype(np.float16)), 90), matrix)
        assert np.array_equal(published.from_bitmask(published.sparse_bitmask(matrix)), matrix)
        tile = matrix[:16, :16]
        assert np.array_equal(published.from_tca_tile(*published.tca_tile(tile)), tile)
        pairs = matrix[:, :88].copy()
        pairs.reshape(-1, 4)[np.cumsum(pairs.reshape(-1, 4) != 0, axis=1) > 2] = 0
        assert np.array_equal(published.from_two_of_four(published.two_of_four(pairs)), pairs)
        assert np.array_equal(published.from_bitmask(published.sparse_24_bitmask(pairs)), pairs)
        line = matrix.reshape(-1).astype(np.int16)
        assert np.array_equal(published.from_eyeriss_words(published.eyeriss_words(line), line.size, np.int16), line)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(FormatError, match="past the segment's 3 elements"):
        published.from_relative_index([1, 2], [1, 2], 3)
    with pytest.raises(FormatError, match="zero counts"):
        published.from_relative_index([1, 2], [1], 3)
    with pytest.raises(FormatError, match="pointers"):
        published.from_macko(published.Macko(np.ones(8, np.int8), np.zeros(4, np.uint8), np.array([0, 9], np.int32)), 4)
    with pytest.raises(ArgumentError, match="2 dimensions"):
        published.relative_index(np.zeros((2, 2)))
    for function in (published.two_of_four, published.sparse_24_bitmask):
        with pytest.raises(ArgumentError, match="row 1, columns 4 to 7"):
            function([[0] * 8, [1, 1, 0, 0, 1, 0, 1, 1]])
        with pytest.raises(ArgumentError, match="multiple of 4"):
            function([[0, 1]])
    with pytest.raises(ArgumentError, match="16 x 16"):
        published.tca_tile(np.zeros((8, 8)))
    with pytest.raises(FormatError, match="ascend"):
        published.from_two_of_four(published.TwoOfFour(np.ones((1, 2)), np.array([[3, 1]])))
    with pytest.raises(FormatError, match="ascend"):
        published.from_two_of_four(published.TwoOfFour(np.ones((1, 3)), np.array([[3, 1, 2]])))
    with pytest.raises(FormatError, match="2 values for 3 bits"):
        published.from_bitmask(published.sparse_bitmask([[1, 1, 1]])._replace(compressed=np.ones(2)))
    with pytest.raises(FormatError, match=r"bitmask of uint8 and shape"):
        published.from_bitmask(published.sparse_bitmask([[1, 1, 1]])._replace(shape=np.array([1, 9])))
    with pytest.raises(FormatError, match="a shape of 3 numbers; expected the rows and the columns"):
        published.from_bitmask(published.sparse_bitmask([[1, 1, 1]])._replace(shape=np.array([1, 3, 1])))
    with pytest.raises(ArgumentError, match="cannot code dtype object"):
        published.two_of_four([[None] * 4])
    assert len(published.eie_columns(np.eye(4), pes=np.int64(2), bits=np.uint8(4))) == 2
    for bits in (0, 17, True, 4.0):
        with pytest.raises(ArgumentError, match=r"bits=.*; expected an int from 1 to 16"):
            published.relative_index([1], bits)  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="4 bitmaps with 1 bits for 2 values"):
        published.from_tca_tile(np.array([1, 0, 0, 0], np.uint64), [1, 2])


def test_arrays_of_other_types_are_refused() -> None:
    with pytest.raises(FormatError, match="zero counts are float64; expected integers"):
        published.from_relative_index([1, 2], [0.5, 1.5], 5)
    with pytest.raises(FormatError, match="indices are float64"):
        published.from_two_of_four(published.TwoOfFour(np.ones((1, 2)), np.array([[0.5, 1.5]])))
    with pytest.raises(FormatError, match="deltas are int64; expected uint8"):
        published.from_macko(published.Macko(np.ones(8, np.int8), np.zeros(4, np.int64), np.array([0, 1])), 4)
    with pytest.raises(FormatError, match="pointers"):
        published.from_macko(published.Macko(np.ones(8, np.int8), np.zeros(4, np.uint8), np.zeros(0, np.int32)), 4)
    with pytest.raises(FormatError, match="a bitmask of int64"):
        published.from_bitmask(published.sparse_bitmask([[1, 1, 1]])._replace(bitmask=np.array([[7]])))
    with pytest.raises(ArgumentError, match="expected one of two bytes"):
        published.from_eyeriss_words(published.eyeriss_words(np.ones(3, np.int16)), 3, np.float32)
    with pytest.raises(ArgumentError, match="without pointers"):
        published.from_eie_columns([published.Columns(np.ones(0), np.zeros(0, int), np.zeros(0, int))], 3)


@pytest.mark.parametrize(
    ("layout", "params"), [("relative_index", {"bits": 2, "filler": "value"}), ("run_length", {"bits": 2})]
)
def test_a_kept_zero_that_would_be_a_filler_is_refused(layout: str, params: dict) -> None:
    a = np.zeros((3, 5), np.float32)
    a[0, 1] = 1
    mask = a != 0
    mask[1, 0] = True  # three zeros behind the entry
    with pytest.raises(ArgumentError, match=r'row 1, column 0: .*filler="escape"'):
        codec.encode(a, mask=mask, layout=layout, **params)
    p = codec.encode(a, mask=mask, layout="relative_index", bits=2)
    with pytest.raises(ArgumentError, match="row 1, column 0"):
        p.to_layout(layout, **params)
    mask[0, 4] = True  # two zeros behind the entry: none of a filler's
    p = codec.encode(a, mask=mask, layout=layout, **params)
    assert p.nnz == 3
    assert codec.loads(codec.dumps(p)).to_layout("csr").nnz == 3
    assert np.array_equal(p.to_dense(), a)


@pytest.mark.parametrize(("sparsity", "most"), [(0.9, 0.133), (0.95, 0.074)])
def test_sizes_at_random_zeros(sparsity: float, most: float) -> None:
    import ml_dtypes

    shape = (4096, 4096)
    size = codec.encoded_nbytes("relative_index", shape, ml_dtypes.bfloat16, sparsity=sparsity, entropy="none")
    assert size <= most * 2 * 4096 * 4096
    rng = np.random.default_rng(6)
    a = (rng.random(shape) >= sparsity).astype(ml_dtypes.bfloat16)
    p = codec.encode(a, layout="relative_index", entropy="none")
    assert p.nbytes <= most * p.dense_nbytes
    assert abs(p.nbytes - size) < 0.003 * size
    # Exact from the counts, and no other number of bits is smaller.
    stats = codec.tensor_stats(a)
    for params in ({}, {"bits": 3}, {"bits": 7, "filler": "value"}, {"bits": 5, "of": "zeros"}):
        exact = codec.encoded_nbytes("relative_index", shape, a.dtype, stats=stats, entropy="none", **params)
        assert exact == codec.encode(a, layout="relative_index", entropy="none", **params).nbytes >= p.nbytes
    exact = codec.encoded_nbytes("run_length", shape, a.dtype, stats=stats, entropy="none")
    assert exact == codec.encode(a, layout="run_length", entropy="none").nbytes


def test_parameters() -> None:
    a = np.eye(4, dtype=np.float32)
    for params in (
        {"bits": 0},
        {"bits": 17},
        {"bits": True},
        {"filler": "zero"},
        {"of": "all"},
        {"of": "zeros", "filler": "value"},
    ):
        with pytest.raises(ArgumentError):
            codec.encode(a, layout="relative_index", **params)
    with pytest.raises(ArgumentError, match="bits=17"):
        codec.encode(a, layout="run_length", bits=17)
    assert codec.encode(np.zeros((0, 4)), layout="relative_index").params["bits"] == 1


@pytest.mark.parametrize("layout", ["relative_index", "run_length"])
def test_ideal_bits(layout: str) -> None:
    shape = (64, 1 << 19)
    for sparsity in (0.3, 0.9, 0.99):
        for params in ({"bits": 4, "filler": "value"}, {"bits": 5}, {"bits": 3, "of": "zeros"}, {}):
            if layout == "run_length":
                params = {"bits": 5}
            size = codec.encoded_nbytes(layout, shape, np.float16, sparsity=sparsity, entropy="none", **params)
            ideal = make_layout(layout, params).ideal_bits(sparsity, 16) * shape[0] * shape[1] / 8
            assert abs(size - ideal) < 0.003 * ideal + 40 * 256  # a table row for each of 256 segments
    if layout == "relative_index":
        assert make_layout(layout, {"bits": 4, "filler": "value"}).ideal_bits(1.0, 16) == pytest.approx(20 / 16)
    else:
        assert make_layout(layout, {"bits": 4}).ideal_bits(1.0, 16) == pytest.approx(64 / 3 / 16)
