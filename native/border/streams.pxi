# Tensors being encoded.

cdef extern from "encode.hpp" namespace "codec" nogil:
    cdef struct Part:
        uint8_t* data
        uint64_t size

    cdef struct CStreams "codec::Streams":
        uint64_t segments
        uint32_t streams
        Part* part
        Part shared[16]
        uint64_t stored
        uint64_t dropped_negatives
        uint64_t refused

    cdef struct Matrix:
        Grid grid
        uint32_t width
        uint64_t nonzero
        uint64_t negative

    CStreams* new_streams(uint64_t, uint32_t) noexcept
    void free_streams(CStreams*) noexcept
    bint c_set_part "codec::set_part"(Part&, const uint8_t*, uint64_t) noexcept
    Status c_encode "codec::encode"(const Matrix&, uint64_t, uint64_t, Layout, const Params&, const uint8_t*, const uint8_t*,
                                    CStreams*, uint32_t) noexcept
    Status c_encode_csr "codec::encode_csr"(const Matrix&, Layout, const Params&, const int64_t*, const int64_t*, const uint8_t*,
                                            CStreams*, uint32_t) noexcept
    Result c_transcode "codec::transcode"(const CView&, const Grid&, uint64_t, uint64_t, Layout, const Params&, CStreams*,
                                          const uint8_t*, uint32_t) noexcept
    void c_key_range "codec::key_range"(const CStreams*, uint32_t, uint32_t, Kind, uint64_t*, uint64_t*) noexcept
    uint64_t c_histogram "codec::histogram"(const CStreams*, uint32_t, uint32_t, Kind, uint32_t, uint64_t, uint64_t*,
                                            uint64_t) noexcept
    Status code_stream(CStreams*, uint32_t, const CCoder&, uint32_t) noexcept
    void pack_bits(CStreams*, uint32_t, uint32_t, uint32_t) noexcept
    void move_parts(CStreams*, uint8_t*, const uint64_t*, uint32_t*, uint32_t) noexcept


cdef const uint8_t* _elements(const Matrix& e, uint64_t first, uint64_t last, const uint8_t[::1] dense, keep) except? NULL:
    """Where `keep` lies, or NULL for None; ValueError for other elements than those of segments [first, last)."""
    cdef const uint8_t[::1] kept
    cdef uint64_t count
    if not first <= last <= e.grid.segments():
        raise ValueError("segments out of range")
    count = e.grid.element_at(last) - e.grid.element_at(first) if first < last else 0
    if <uint64_t>dense.shape[0] != count * e.width:
        raise ValueError("dense of another size")
    if keep is None:
        return NULL
    kept = keep
    if <uint64_t>kept.shape[0] != count:
        raise ValueError("keep of another size")
    return _bytes(kept)


cdef class Streams:
    """One tensor's streams while it is being encoded."""
    cdef CStreams* streams
    cdef Matrix elements
    cdef Layout layout
    cdef Params params

    def __cinit__(self, uint64_t rows, uint64_t cols, uint32_t segment_rows, uint32_t segment_cols, uint32_t width, uint64_t nonzero,
                  uint64_t negative, uint32_t layout, tuple params, uint32_t streams):
        self.elements.grid = _grid(rows, cols, segment_rows, segment_cols)
        self.elements.width, self.elements.nonzero, self.elements.negative = width, nonzero, negative
        self.layout, self.params = _layout(layout, width, streams), _params(params)
        self.streams = new_streams(self.elements.grid.segments(), streams)
        if self.streams == NULL:
            raise MemoryError

    def __dealloc__(self):
        free_streams(self.streams)

    cdef _done(self, Status status):
        if status == Status.no_memory:
            raise MemoryError

    def encode(self, const uint8_t[::1] dense, keep, uint32_t threads, uint64_t first=0, last=None):
        """Segments [first, last) from their dense elements, by default all.

        keep: a byte per element, non-zero where it is stored, or None for the zero rule.
        """
        cdef uint64_t end = self.elements.grid.segments() if last is None else last
        cdef const uint8_t* kept_at = _elements(self.elements, first, end, dense, keep)
        cdef Status status
        with nogil:
            status = c_encode(self.elements, first, end, self.layout, self.params, _bytes(dense), kept_at, self.streams, threads)
        self._done(status)

    def encode_csr(self, const int64_t[::1] starts, const int64_t[::1] indices, const uint8_t[::1] values, uint32_t threads):
        """From CSR arrays that the caller has proved: starts ascending within indices, indices ascending and in range."""
        cdef Status status
        cdef const int64_t* columns = &indices[0] if indices.shape[0] else NULL
        if <uint64_t>starts.shape[0] != self.elements.grid.rows + 1 or values.shape[0] != indices.shape[0] * self.elements.width:
            raise ValueError("arrays of another size")
        with nogil:
            status = c_encode_csr(self.elements, self.layout, self.params, &starts[0], columns, _bytes(values), self.streams, threads)
        self._done(status)

    def transcode(self, View source, uint64_t first, uint64_t last, uint32_t threads, codes=None):
        """Segments [first, last) from another layout of the same matrix, in any grid; the source must hold their elements.

        codes: 256 bytes, what each code becomes.
        """
        cdef Result r
        cdef const uint8_t[::1] table
        cdef const uint8_t* table_at = NULL
        if codes is not None:
            table = codes
            if table.shape[0] != 256 or not source.view.coding.bits:
                raise ValueError("not a table of 256 codes, or a source without codes")
            table_at = &table[0]
        if (source.view.grid.rows != self.elements.grid.rows or source.view.grid.cols != self.elements.grid.cols
                or (1 if table_at != NULL else source.view.width) != self.elements.width):
            raise ValueError("another matrix")
        source._check_segments(self.elements.grid, first, last)
        with nogil:
            r = c_transcode(source.view, self.elements.grid, first, last, self.layout, self.params, self.streams, table_at, threads)
        return _result(r)

    @property
    def stored(self):
        """Entries stored so far, zeros that were kept among them."""
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
        if stream < self.streams.streams and self.streams.shared[stream].data != NULL:
            return &self.streams.shared[stream]
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
        """One part's bytes; of a shared stream, whatever the segment, what it holds."""
        cdef Part* part = self._part(segment, stream)
        return (<char*>part.data)[:part.size] if part.size else b""

    def set_part(self, uint64_t segment, uint32_t stream, const uint8_t[::1] data):
        """Put other bytes in a part's place."""
        if not c_set_part(self._part(segment, stream)[0], _bytes(data), data.shape[0]):
            raise MemoryError

    def share(self, uint32_t stream, const uint8_t[::1] data):
        """Make a stream one that all segments share, and say what it holds; before anything is encoded. It has no parts."""
        if stream >= self.streams.streams:
            raise ValueError("no such stream")
        if not c_set_part(self.streams.shared[stream], _bytes(data), data.shape[0]):
            raise MemoryError

    cdef _check_items(self, uint32_t stream, uint32_t width):
        if stream >= self.streams.streams or width not in (1, 2, 4, 8) or self.streams.shared[stream].data != NULL:
            raise ValueError("no such stream, one that all segments share, or items of another width")

    def key_range(self, uint32_t stream, uint32_t width, uint8_t kind):
        """The least and the largest key of a stream's items; (2**64 - 1, 0) where there is none."""
        cdef uint64_t least, most
        self._check_items(stream, width)
        with nogil:
            c_key_range(self.streams, stream, width, <Kind>kind, &least, &most)
        return least, most

    def histogram(self, uint32_t stream, uint32_t width, uint8_t kind, uint32_t shift, uint64_t first, uint64_t[::1] counts):
        """Adds a stream's items to counts by (key >> shift) - first, where that is inside; returns the OR of all keys."""
        cdef uint64_t or_of_keys
        self._check_items(stream, width)
        if shift > 63 or counts.shape[0] == 0:
            raise ValueError("a shift of more than 63 bits, or no counts")
        with nogil:
            or_of_keys = c_histogram(self.streams, stream, width, <Kind>kind, shift, first, &counts[0], counts.shape[0])
        return or_of_keys

    def code(self, uint32_t stream, Coder coder, uint32_t threads):
        """Put every part of a stream through a coding of the entropy stage."""
        cdef Status status
        if coder.coder.state == NULL:
            raise ValueError("not a coder of any coding")
        self._check_items(stream, coder.coder.width)
        with nogil:
            status = code_stream(self.streams, stream, coder.coder, threads)
        self._done(status)

    def pack_bits(self, uint32_t stream, uint32_t bits, uint32_t threads):
        """Codes of a byte each to codes of `bits`, in every part of a stream."""
        self._check_items(stream, 1)
        if not 1 <= bits <= 8:
            raise ValueError("not 1 to 8 bits")
        with nogil:
            pack_bits(self.streams, stream, bits, threads)

    def move(self, uint8_t[::1] frame, const uint64_t[::1] offsets, uint32_t[::1] checksums, uint32_t threads):
        """Moves the parts to their offsets (by stream, then segment) and fills in their checksums; not those of shared streams."""
        cdef Py_ssize_t i, n = offsets.shape[0]
        cdef uint32_t stream
        cdef uint64_t size
        if <uint64_t>n != self.streams.segments * self.streams.streams or checksums.shape[0] != n:
            raise ValueError("one offset and one checksum for each part")
        for i in range(n):
            stream = <uint32_t>(<uint64_t>i // self.streams.segments)
            if self.streams.shared[stream].data != NULL:
                continue
            size = self.streams.part[<uint64_t>i % self.streams.segments * self.streams.streams + stream].size
            if offsets[i] > <uint64_t>frame.shape[0] or size > <uint64_t>frame.shape[0] - offsets[i]:
                raise ValueError("a part lies outside the frame")
        if n == 0:
            return
        with nogil:
            move_parts(self.streams, &frame[0], &offsets[0], &checksums[0], threads)
