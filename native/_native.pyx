# cython: language_level=3, freethreading_compatible=True, binding=True
# distutils: language=c++
"""The border between Python and the kernels: buffers in, results out, no GIL in between, no arithmetic of its own.

Only codec.kernels imports this module; it gives the results below their meaning. A result is
(status, segment, stream, found, expected), status 0 for success, in the order of `enum class Status` in kernels.hpp.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free


cdef extern from "engine.hpp" namespace "codec" nogil:
    enum class Status(uint32_t):
        ok
        bad_table
        no_memory

    cdef struct Result:
        Status status
        uint32_t segment
        uint32_t stream
        uint64_t found
        uint64_t expected

    enum class Kind(uint8_t):
        pass
    enum class Layout(uint32_t):
        pass
    enum class Type(uint8_t):
        pass
    enum class Selection(uint32_t):
        pass

    cdef struct Params:
        uint32_t at[4]

    cdef struct HuffmanCode:
        uint32_t width
        Kind kind
        uint32_t low
        uint32_t zeros
        uint64_t first
        uint32_t symbols
        uint8_t lengths[256]

    Status prepare(HuffmanCode&) noexcept

    cdef struct Kernels:
        const char* name
        uint32_t (*crc32c)(uint32_t, const uint8_t*, size_t) noexcept nogil
        void (*assign_codes)(const uint8_t*, uint64_t, uint32_t, Order, const uint64_t*, const uint8_t*, uint32_t, uint8_t*) noexcept nogil

    const Kernels& kernels() noexcept
    Selection c_select "codec::select"(const char*) noexcept
    bint c_built "codec::built"(const char*) noexcept
    bint c_runs_here "codec::runs_here"(const char*) noexcept

    cdef struct Coding:
        uint32_t bits
        uint32_t codes
        uint64_t rows
        bint zero_first

    cdef struct CStream "codec::Stream":
        const uint8_t* base
        const uint64_t* offsets
        const uint32_t* checksums
        const HuffmanCode* code
        bint shared

    cdef struct CView "codec::View":
        uint64_t rows
        uint64_t cols
        uint32_t segment_rows
        uint32_t segment_cols
        Layout layout
        uint32_t width
        Params params
        uint32_t streams
        CStream stream[4]
        uint8_t* checked
        Coding coding

    uint64_t c_segments "codec::segments"(uint64_t, uint64_t, uint32_t, uint32_t) noexcept
    bint inside(const CStream&, uint64_t, uint64_t) noexcept
    Result c_check "codec::check"(const CView&, uint64_t, uint64_t, uint32_t) noexcept
    Result c_decode "codec::decode"(const CView&, uint64_t, uint64_t, uint8_t*, bint, uint64_t*, uint32_t) noexcept

    cdef struct COperand "codec::Operand":
        pass

    COperand* new_operand(Type, Type, const void*, uint64_t, uint64_t) noexcept
    void free_operand(COperand*) noexcept

    cdef struct Product:
        Type value
        Type acc
        const COperand* x
        void* y
        uint64_t batch
        bint transposed
        uint64_t limit
        uint64_t nonzero

    Result c_multiply "codec::multiply"(const CView&, const Product&, uint64_t, uint64_t, uint32_t) noexcept
    Result c_entries "codec::entries"(const CView&, uint64_t, uint64_t, int64_t*, int64_t*, uint8_t*, uint64_t,
                                      uint64_t*) noexcept

    cdef struct Part:
        uint8_t* data
        uint64_t size

    cdef struct CStreams "codec::Streams":
        uint64_t segments
        uint32_t streams
        Part* part
        bint shared[4]
        uint64_t stored
        uint64_t dropped_negatives
        uint64_t refused
        uint32_t bits

    cdef struct Geometry:
        uint64_t rows
        uint64_t cols
        uint32_t segment_rows
        uint32_t segment_cols
        uint32_t width
        uint64_t nonzero
        uint64_t negative

    cdef struct Tally:
        uint64_t stored

    cdef struct Question:
        Kind kind
        uint64_t magnitude
        uint64_t infinity
        uint32_t blocks
        uint32_t groups
        uint32_t block[8][2]
        uint32_t group[8]

    cdef struct Measures:
        Tally* tally
        uint64_t* rows
        uint64_t* cols
        uint64_t* panels
        uint64_t* long_gaps
        uint64_t* long_zero_gaps
        uint64_t* segments

    const uint64_t kTally
    const uint32_t kPerSegment
    uint64_t c_longest_runs "codec::longest_runs"(uint64_t, uint64_t, uint32_t, uint32_t) noexcept
    uint64_t c_panels "codec::panels"(uint64_t, uint64_t, uint32_t, uint32_t) noexcept
    Result c_measure "codec::measure"(const Geometry&, const Question&, const uint8_t*, const uint8_t*, const Measures&,
                                      uint32_t) noexcept
    Result c_measure_view "codec::measure"(const CView&, uint64_t, uint64_t, const Question&, const Measures&,
                                           uint32_t) noexcept
    CStreams* new_streams(uint64_t, uint32_t) noexcept
    void free_streams(CStreams*) noexcept
    bint c_set_part "codec::set_part"(Part&, const uint8_t*, uint64_t) noexcept
    Status c_encode "codec::encode"(const Geometry&, Layout, const Params&, const uint8_t*, const uint8_t*, CStreams*, uint32_t) noexcept
    Status c_encode_csr "codec::encode_csr"(const Geometry&, Layout, const Params&, const int64_t*, const int64_t*, const uint8_t*,
                                            CStreams*, uint32_t) noexcept
    Result c_transcode "codec::transcode"(const CView&, uint64_t, uint64_t, Layout, const Params&, CStreams*,
                                          const uint8_t*, uint32_t) noexcept
    void c_histogram "codec::histogram"(const CStreams*, uint32_t, uint32_t, Kind, uint64_t*, uint64_t*) noexcept
    Status code_stream(CStreams*, uint32_t, const HuffmanCode&, uint32_t) noexcept
    void pack_stream(CStreams*, uint32_t, uint32_t, uint32_t) noexcept
    enum class Order(uint8_t):
        pass
    Status c_kmeans "codec::kmeans"(const double*, const double*, uint64_t, uint32_t, bint, uint32_t, double*) noexcept
    void write_parts(const CStreams*, uint8_t*, const uint64_t*, uint32_t*, uint32_t) noexcept


cdef inline const uint8_t* _bytes(const uint8_t[::1] b) noexcept nogil:
    return &b[0] if b.shape[0] else NULL


cdef tuple _result(Result r):
    return <uint32_t>r.status, r.segment, r.stream, r.found, r.expected


cdef Params _params(tuple params):
    cdef Params p
    cdef Py_ssize_t i
    for i in range(4):
        p.at[i] = params[i] if i < len(params) else 0
    return p


def select(name):
    """Take the instruction set `name` (None: the best here); 0 ok, 1 unknown, 2 not built, 3 not this CPU."""
    cdef bytes encoded
    if name is None:
        return <uint32_t>c_select(NULL)
    encoded = name.encode()
    return <uint32_t>c_select(encoded)


def kernel():
    """The name of the instruction set in use."""
    return kernels().name.decode()


def built(bytes name):
    """Whether the instruction set was compiled in."""
    return c_built(name)


def runs_here(bytes name):
    """Whether the instruction set was compiled in and this CPU has it."""
    return c_runs_here(name)


def crc32c(const uint8_t[::1] data, uint32_t value):
    """CRC-32C of data, continued from value."""
    cdef uint32_t crc
    with nogil:
        crc = kernels().crc32c(value, _bytes(data), data.shape[0])
    return crc


def kmeans(const double[::1] x, weight, bint start, uint32_t rounds, double[::1] centers):
    """Centers of sorted points (weight: theirs, or None) by at most `rounds` of Lloyd's; start: from those in centers."""
    cdef const double[::1] weights
    cdef const double* weight_at = NULL
    cdef Status status
    if weight is not None:
        weights = weight
        if weights.shape[0] != x.shape[0]:
            raise ValueError("one weight for each point")
        weight_at = &weights[0] if weights.shape[0] else NULL
    if x.shape[0] == 0 or not 0 < centers.shape[0] <= 256:
        raise ValueError("no points, or not 1 to 256 centers")
    with nogil:
        status = c_kmeans(&x[0], weight_at, x.shape[0], <uint32_t>centers.shape[0], start, rounds, &centers[0])
    if status != Status.ok:
        raise MemoryError


def assign_codes(const uint8_t[::1] items, uint32_t width, uint8_t order, const uint64_t[::1] bounds, const uint8_t[::1] codes,
                 uint8_t[::1] out):
    """The code of each item, by the interval that its ordered bits fall in; bounds: where intervals but the first begin."""
    cdef uint64_t n = out.shape[0]
    cdef const uint64_t* bounds_at = &bounds[0] if bounds.shape[0] else NULL
    if (width not in (1, 2, 4, 8) or <uint64_t>items.shape[0] != n * width or bounds.shape[0] > 255
            or codes.shape[0] != bounds.shape[0] + 1 or order > 2):
        raise ValueError("arrays of another size")
    if n:
        with nogil:
            kernels().assign_codes(&items[0], n, width, <Order>order, bounds_at, &codes[0], <uint32_t>bounds.shape[0], &out[0])


cdef class Code:
    """A prepared Huffman code. Raises ValueError for one that is not complete or does not fit its items."""
    cdef HuffmanCode* code

    def __cinit__(self, uint32_t width, uint8_t kind, uint32_t low, uint32_t zeros, uint64_t first, const uint8_t[::1] lengths):
        if not 1 <= lengths.shape[0] <= 256:
            raise ValueError("a code has 1 to 256 symbols")
        self.code = <HuffmanCode*>calloc(1, sizeof(HuffmanCode))
        if self.code == NULL:
            raise MemoryError
        self.code.width, self.code.kind = width, <Kind>kind
        self.code.low, self.code.zeros, self.code.first = low, zeros, first
        self.code.symbols = <uint32_t>lengths.shape[0]
        cdef Py_ssize_t i
        for i in range(lengths.shape[0]):
            self.code.lengths[i] = lengths[i]
        if prepare(self.code[0]) != Status.ok:
            raise ValueError("not a complete code for its items")

    def __dealloc__(self):
        free(self.code)


cdef class Counter:
    """What one tensor's sizes depend on, counted (stats.inc): `tally` as struct Tally lists it, and counts by place.

    blocks and groups: up to eight (rows, columns) and eight sizes to count beside the ones that always are.
    """
    cdef Question question
    cdef Measures measures
    cdef uint64_t rows_, cols_
    cdef uint32_t segment_rows, segment_cols
    cdef readonly object tally, rows, cols, panels, long_gaps, long_zero_gaps, segments

    def __init__(self, uint64_t rows, uint64_t cols, uint32_t segment_rows, uint32_t segment_cols, uint8_t kind, uint64_t magnitude,
                 uint64_t infinity, tuple blocks, tuple groups, make):
        """make(n): an array of n zeros, uint64."""
        cdef uint64_t[::1] at
        cdef uint64_t many = c_segments(rows, cols, segment_rows, segment_cols)
        cdef uint64_t longest = many * c_longest_runs(rows, cols, segment_rows, segment_cols)
        cdef uint32_t i
        if len(blocks) > 8 or len(groups) > 8 or not all(r and c for r, c in blocks) or not all(1 <= m <= 64 for m in groups):
            raise ValueError("at most eight block shapes, and eight groups of 1 to 64")
        self.rows_, self.cols_, self.segment_rows, self.segment_cols = rows, cols, segment_rows, segment_cols
        self.question.kind, self.question.magnitude, self.question.infinity = <Kind>kind, magnitude, infinity
        self.question.blocks, self.question.groups = <uint32_t>len(blocks), <uint32_t>len(groups)
        for i in range(self.question.blocks):
            self.question.block[i][0], self.question.block[i][1] = blocks[i]
        for i in range(self.question.groups):
            self.question.group[i] = groups[i]
        self.tally = make(kTally)
        self.rows = make(rows * ((cols - 1) // segment_cols + 1) if many else rows)
        self.cols, self.long_gaps, self.long_zero_gaps = make(cols), make(longest), make(longest)
        self.panels = make(c_panels(rows, cols, segment_rows, segment_cols))
        self.segments = make(many * kPerSegment)
        at = self.tally
        self.measures.tally = <Tally*>&at[0]
        if not many:
            return
        at = self.rows
        self.measures.rows = &at[0]
        at = self.cols
        self.measures.cols = &at[0]
        at = self.panels
        self.measures.panels = &at[0]
        at = self.segments
        self.measures.segments = &at[0]
        self.measures.long_gaps = self.measures.long_zero_gaps = NULL
        if longest:
            at = self.long_gaps
            self.measures.long_gaps = &at[0]
            at = self.long_zero_gaps
            self.measures.long_zero_gaps = &at[0]

    cdef _check(self, uint64_t rows, uint64_t cols, uint32_t segment_rows, uint32_t segment_cols):
        if rows != self.rows_ or cols != self.cols_ or segment_rows != self.segment_rows or segment_cols != self.segment_cols:
            raise ValueError("another matrix or grid")

    def count(self, const uint8_t[::1] dense, keep, uint32_t width, uint64_t nonzero, uint64_t negative, uint32_t threads):
        """From dense elements; keep: a byte per element, non-zero where it counts as stored, or None for the zero rule."""
        cdef const uint8_t[::1] kept
        cdef const uint8_t* kept_at = NULL
        cdef Geometry g
        cdef Result r
        g.rows, g.cols, g.segment_rows, g.segment_cols = self.rows_, self.cols_, self.segment_rows, self.segment_cols
        g.width, g.nonzero, g.negative = width, nonzero, negative
        if width not in (1, 2, 4, 8) or <uint64_t>dense.shape[0] != g.rows * g.cols * width:
            raise ValueError("dense of another size")
        if keep is not None:
            kept = keep
            if <uint64_t>kept.shape[0] != g.rows * g.cols:
                raise ValueError("keep of another size")
            kept_at = _bytes(kept)
        with nogil:
            r = c_measure(g, self.question, _bytes(dense), kept_at, self.measures, threads)
        return _result(r)


cdef class Operand:
    """A product's x (n, batch), in the accumulator's type, as its kernels read it for weights of type `value`."""
    cdef COperand* operand
    cdef Py_buffer at
    cdef Type value, acc
    cdef uint64_t n, batch, width

    def __cinit__(self, x, uint8_t value, uint8_t acc, uint64_t width, uint64_t n, uint64_t batch):
        PyObject_GetBuffer(x, &self.at, PyBUF_SIMPLE)
        if <uint64_t>self.at.len != n * batch * width:
            raise ValueError("x of another size")
        self.value, self.acc, self.n, self.batch, self.width = <Type>value, <Type>acc, n, batch, width
        self.operand = new_operand(self.value, self.acc, self.at.buf, n, batch)
        if self.operand == NULL:
            raise MemoryError

    def __dealloc__(self):
        free_operand(self.operand)
        PyBuffer_Release(&self.at)


cdef class View:
    """The proved spans of one tensor's streams.

    streams: (buffer, offsets, checksums, Code or None, shared) each; offsets are segments + 1 positions in the buffer, which
    must have 64 readable bytes past the last. checked: a writable byte per segment, or None to check nothing.
    """
    cdef CView view
    cdef uint64_t segments
    cdef list keep

    def __init__(self, uint64_t rows, uint64_t cols, uint32_t segment_rows, uint32_t segment_cols, uint32_t layout, uint32_t width,
                 tuple params, list streams, checked, tuple coding=(0, 0, 0, False)):
        cdef const uint8_t[::1] buffer
        cdef const uint64_t[::1] offsets
        cdef const uint32_t[::1] checksums
        cdef uint8_t[::1] flags
        cdef Code code
        cdef uint32_t s
        self.view.rows, self.view.cols = rows, cols
        self.view.segment_rows, self.view.segment_cols = segment_rows, segment_cols
        self.view.layout, self.view.width, self.view.params = <Layout>layout, width, _params(params)
        self.view.streams = <uint32_t>len(streams)
        self.segments = c_segments(rows, cols, segment_rows, segment_cols)
        self.keep = [streams, checked]
        if len(streams) > 4:
            raise ValueError("a layout has at most four streams")
        for s in range(self.view.streams):
            buffer, offsets, checksums, code, self.view.stream[s].shared = streams[s]
            if <uint64_t>offsets.shape[0] != self.segments + 1 or <uint64_t>checksums.shape[0] != self.segments:
                raise ValueError("a stream has one offset and one checksum for each segment, and one offset more")
            self.view.stream[s].base = _bytes(buffer)
            self.view.stream[s].offsets = &offsets[0]
            self.view.stream[s].checksums = &checksums[0] if self.segments else NULL
            self.view.stream[s].code = code.code if code is not None else NULL
            if not inside(self.view.stream[s], self.segments, buffer.shape[0]):
                raise ValueError("a part lies outside its buffer")
        self.view.checked = NULL
        self.view.coding.bits, self.view.coding.codes, self.view.coding.rows, self.view.coding.zero_first = coding
        if self.view.coding.bits > 8 or (self.view.coding.bits and not self.view.streams):
            raise ValueError("codes of more than 8 bits, or without streams")
        if checked is not None and self.segments:
            flags = checked
            if <uint64_t>flags.shape[0] != self.segments:
                raise ValueError("one flag for each segment")
            self.view.checked = &flags[0]

    def check(self, uint64_t first, uint64_t last, uint32_t threads):
        """Compare the checksums of segments [first, last)."""
        cdef Result r
        self._check_range(first, last)
        with nogil:
            r = c_check(self.view, first, last, threads)
        return _result(r)

    def decode(self, uint64_t first, uint64_t count, uint8_t[::1] out, bint always, uint32_t threads):
        """Elements [first, first + count) in row-major order, dense, into out; (result, entries in the segments read)."""
        cdef Result r
        cdef uint64_t stored = 0
        cdef uint64_t size = self.view.rows * self.view.cols
        if first > size or count > size - first or <uint64_t>out.shape[0] != count * self.view.width:
            raise ValueError("elements out of range, or out of another size")
        cdef uint8_t* to = &out[0] if out.shape[0] else NULL
        with nogil:
            r = c_decode(self.view, first, count, to, always, &stored, threads)
        return _result(r), stored

    def multiply(self, uint64_t first, uint64_t last, Operand x, y, bint transposed, uint64_t limit, uint64_t nonzero,
                 uint32_t threads):
        """y += W x, or W^T x, over segments [first, last); y is (m, batch) in the accumulator's type."""
        cdef Product w
        cdef Result r
        cdef Py_buffer y_at
        cdef uint64_t m = self.view.cols if transposed else self.view.rows
        self._check_range(first, last)
        if x.n != (self.view.rows if transposed else self.view.cols):
            raise ValueError("x of another size")
        w.value, w.acc, w.x, w.batch, w.transposed, w.limit, w.nonzero = (
            x.value, x.acc, x.operand, x.batch, transposed, limit, nonzero)
        PyObject_GetBuffer(y, &y_at, PyBUF_WRITABLE)
        try:
            if <uint64_t>y_at.len != m * x.batch * x.width:
                raise ValueError("y of another size")
            w.y = y_at.buf
            with nogil:
                r = c_multiply(self.view, w, first, last, threads)
        finally:
            PyBuffer_Release(&y_at)
        return _result(r)

    def entries(self, uint64_t first, uint64_t last, int64_t[::1] starts, int64_t[::1] indices, uint8_t[::1] values,
                uint64_t count):
        """The stored entries of segments [first, last) as CSR arrays, behind the `count` there; (result, count after)."""
        cdef Result r
        self._check_range(first, last)
        if <uint64_t>starts.shape[0] != self.view.rows + 1 or values.shape[0] != indices.shape[0] * self.view.width:
            raise ValueError("arrays of another size")
        cdef int64_t* columns = &indices[0] if indices.shape[0] else NULL
        cdef uint8_t* items = &values[0] if values.shape[0] else NULL
        cdef uint64_t room = <uint64_t>indices.shape[0]
        if count > room:
            raise ValueError("more entries than room")
        with nogil:
            r = c_entries(self.view, first, last, &starts[0], columns, items, room, &count)
        return _result(r), count

    def measure(self, uint64_t first, uint64_t last, Counter counter, uint32_t threads):
        """Adds what sizes depend on to a counter of the same matrix and grid."""
        cdef Result r
        self._check_range(first, last)
        counter._check(self.view.rows, self.view.cols, self.view.segment_rows, self.view.segment_cols)
        with nogil:
            r = c_measure_view(self.view, first, last, counter.question, counter.measures, threads)
        return _result(r)

    cdef _check_range(self, uint64_t first, uint64_t last):
        if not first <= last <= self.segments:
            raise ValueError("segments out of range")


cdef class Streams:
    """One tensor's streams while it is being encoded."""
    cdef CStreams* streams
    cdef Geometry geometry
    cdef Layout layout
    cdef Params params

    def __cinit__(self, uint64_t rows, uint64_t cols, uint32_t segment_rows, uint32_t segment_cols, uint32_t width, uint64_t nonzero,
                  uint64_t negative, uint32_t layout, tuple params, uint32_t streams, uint32_t bits=0):
        self.geometry.rows, self.geometry.cols = rows, cols
        self.geometry.segment_rows, self.geometry.segment_cols = segment_rows, segment_cols
        self.geometry.width, self.geometry.nonzero, self.geometry.negative = width, nonzero, negative
        self.layout, self.params = <Layout>layout, _params(params)
        self.streams = new_streams(c_segments(rows, cols, segment_rows, segment_cols), streams)
        if self.streams == NULL:
            raise MemoryError
        self.streams.bits = bits

    def __dealloc__(self):
        free_streams(self.streams)

    cdef _done(self, Status status):
        if status == Status.no_memory:
            raise MemoryError

    def encode(self, const uint8_t[::1] dense, keep, uint32_t threads):
        """From dense elements; keep: a byte per element, non-zero where it is stored, or None for the zero rule."""
        cdef const uint8_t[::1] kept
        cdef const uint8_t* kept_at = NULL
        cdef Status status
        if <uint64_t>dense.shape[0] != self.geometry.rows * self.geometry.cols * self.geometry.width:
            raise ValueError("dense of another size")
        if keep is not None:
            kept = keep
            if <uint64_t>kept.shape[0] != self.geometry.rows * self.geometry.cols:
                raise ValueError("keep of another size")
            kept_at = _bytes(kept)
        with nogil:
            status = c_encode(self.geometry, self.layout, self.params, _bytes(dense), kept_at, self.streams, threads)
        self._done(status)

    def encode_csr(self, const int64_t[::1] starts, const int64_t[::1] indices, const uint8_t[::1] values, uint32_t threads):
        """From CSR arrays that the caller has proved: starts ascending within indices, indices ascending and in range."""
        cdef Status status
        cdef const int64_t* columns = &indices[0] if indices.shape[0] else NULL
        if <uint64_t>starts.shape[0] != self.geometry.rows + 1 or values.shape[0] != indices.shape[0] * self.geometry.width:
            raise ValueError("arrays of another size")
        with nogil:
            status = c_encode_csr(self.geometry, self.layout, self.params, &starts[0], columns, _bytes(values), self.streams, threads)
        self._done(status)

    def transcode(self, View source, uint64_t first, uint64_t last, uint32_t threads, codes=None):
        """Segments [first, last) from another layout of the same matrix and grid; codes: 256 bytes, what each code becomes."""
        cdef Result r
        cdef const uint8_t[::1] table
        cdef const uint8_t* table_at = NULL
        if codes is not None:
            table = codes
            if table.shape[0] != 256 or not source.view.coding.bits:
                raise ValueError("not a table of 256 codes, or a source without codes")
            table_at = &table[0]
        source._check_range(first, last)
        if (source.view.rows != self.geometry.rows or source.view.cols != self.geometry.cols
                or source.view.segment_rows != self.geometry.segment_rows or source.view.segment_cols != self.geometry.segment_cols
                or (1 if table_at != NULL else source.view.width) != self.geometry.width):
            raise ValueError("another matrix or grid")
        with nogil:
            r = c_transcode(source.view, first, last, self.layout, self.params, self.streams, table_at, threads)
        return _result(r)

    @property
    def stored(self):
        """Entries stored so far."""
        return self.streams.stored

    @property
    def refused(self):
        """(segment, position, count) of the first entry that the layout cannot say, or None."""
        cdef uint64_t found = self.streams.refused
        return None if found == <uint64_t>-1 else (found >> 32, (found & 0xFFFFFFFF) >> 8, found & 0xFF)

    @property
    def dropped_negatives(self):
        """Entries equal to -0.0 that were not stored."""
        return self.streams.dropped_negatives

    cdef Part* _part(self, uint64_t segment, uint32_t stream) except NULL:
        if segment >= self.streams.segments or stream >= self.streams.streams:
            raise IndexError("no such part")
        return &self.streams.part[segment * self.streams.streams + stream]

    def sizes(self, uint32_t stream, uint64_t[::1] out):
        """Bytes of each part of a stream."""
        cdef Py_ssize_t i
        if stream >= self.streams.streams or <uint64_t>out.shape[0] != self.streams.segments:
            raise ValueError("no such stream, or out of another size")
        for i in range(out.shape[0]):
            out[i] = self.streams.part[i * self.streams.streams + stream].size

    def part(self, uint64_t segment, uint32_t stream):
        """One part's bytes."""
        cdef Part* part = self._part(segment, stream)
        return (<char*>part.data)[:part.size] if part.size else b""

    def set_part(self, uint64_t segment, uint32_t stream, const uint8_t[::1] data):
        """Put other bytes in a part's place."""
        if not c_set_part(self._part(segment, stream)[0], _bytes(data), data.shape[0]):
            raise MemoryError

    def share(self, uint32_t stream, const uint8_t[::1] data):
        """Make a stream one that all segments share, and say what it holds; before anything is encoded."""
        if stream >= self.streams.streams:
            raise ValueError("no such stream")
        self.streams.shared[stream] = True
        if self.streams.segments:
            self.set_part(0, stream, data)

    def histogram(self, uint32_t stream, uint32_t width, uint8_t kind, uint64_t[::1] counts):
        """Adds a stream's keys to counts (by their top 16 bits; 8 for width 1); returns the OR of all keys."""
        cdef uint64_t every = 0
        if stream >= self.streams.streams or width not in (1, 2, 4, 8) or counts.shape[0] != (256 if width == 1 else 65536):
            raise ValueError("no such stream, width or counts of another size")
        with nogil:
            c_histogram(self.streams, stream, width, <Kind>kind, &counts[0], &every)
        return every

    def code(self, uint32_t stream, Code code, uint32_t threads):
        """Huffman-code every part of a stream."""
        cdef Status status
        if stream >= self.streams.streams:
            raise ValueError("no such stream")
        with nogil:
            status = code_stream(self.streams, stream, code.code[0], threads)
        self._done(status)

    def pack(self, uint32_t stream, uint32_t bits, uint32_t threads):
        """Codes of a byte each to codes of `bits`, in every part of a stream."""
        if stream >= self.streams.streams or not 1 <= bits <= 8:
            raise ValueError("no such stream, or not 1 to 8 bits")
        with nogil:
            pack_stream(self.streams, stream, bits, threads)

    def write(self, uint8_t[::1] frame, const uint64_t[::1] offsets, uint32_t[::1] checksums, uint32_t threads):
        """Copies the parts to their offsets (by stream, then segment) and fills in their checksums."""
        cdef Py_ssize_t i, n = offsets.shape[0]
        if <uint64_t>n != self.streams.segments * self.streams.streams or checksums.shape[0] != n:
            raise ValueError("one offset and one checksum for each part")
        for i in range(n):
            if (offsets[i] > <uint64_t>frame.shape[0]
                    or self.streams.part[i % self.streams.segments * self.streams.streams + i // self.streams.segments].size
                    > <uint64_t>frame.shape[0] - offsets[i]):
                raise ValueError("a part lies outside the frame")
        if n == 0:
            return
        with nogil:
            write_parts(self.streams, &frame[0], &offsets[0], &checksums[0], threads)
