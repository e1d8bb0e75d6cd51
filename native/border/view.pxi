# Frames being read.

cdef class View:
    """The proved spans of segments [first, first + count) of one tensor's streams.

    streams: (buffer, offsets, lengths, checksums, Coder or None, shared) each, an item of the arrays for each of those
    segments, or one in all for a shared stream. A part behind which the buffer has fewer than 64 bytes is read from a
    copy. checked: a writable byte per segment, or None to check nothing. A part is checked by its checksum, and then
    the zero bytes that follow it up to a multiple of `alignment`; shared parts once for the view. coding: bits of a
    code, the number of the stream that is codes, rows that share a group of the codebook (0: all), whether code 0 is
    zero.
    Segments have the frame's own numbers everywhere; in a result on a shared part the segment says nothing.
    """
    cdef CView view
    cdef uint64_t segments
    cdef list keep

    def __init__(self, uint64_t rows, uint64_t cols, uint32_t segment_rows, uint32_t segment_cols, uint32_t layout, uint32_t width,
                 tuple params, uint64_t first, list streams, checked, tuple coding=(0, 0xFFFFFFFF, 0, False), uint32_t alignment=1):
        cdef const uint8_t[::1] buffer
        cdef const uint64_t[::1] offsets
        cdef const uint32_t[::1] lengths
        cdef const uint32_t[::1] checksums
        cdef uint8_t[::1] flags
        cdef Coder coder
        cdef uint32_t s
        cdef Py_ssize_t parts
        self.view.grid = _grid(rows, cols, segment_rows, segment_cols)
        self.view.layout, self.view.width, self.view.params = _layout(layout, width, len(streams)), width, _params(params)
        if alignment == 0 or alignment & (alignment - 1):
            raise ValueError("an alignment that is no power of two")
        self.view.alignment = alignment
        self.view.streams = <uint32_t>len(streams)
        self.view.shared_checked = False
        self.segments = self.view.grid.segments()
        self.keep = [streams, checked]
        self.view.first, self.view.count = first, 0
        for stream in streams:
            if not stream[5]:
                self.view.count = len(stream[1])
                break
        if first > self.segments or self.view.count > self.segments - first:
            raise ValueError("segments out of range")
        for s in range(self.view.streams):
            buffer, offsets, lengths, checksums, coder, self.view.stream[s].shared = streams[s]
            parts = 1 if self.view.stream[s].shared else <Py_ssize_t>self.view.count
            if offsets.shape[0] != parts or lengths.shape[0] != parts or checksums.shape[0] != parts:
                raise ValueError("a stream has an offset, a length and a checksum for each segment, a shared one has one in all")
            if coder is not None and (coder.coder.state == NULL or self.view.stream[s].shared):
                raise ValueError("not a coder of any coding, or one of a shared stream")
            self.view.stream[s].base, self.view.stream[s].size = _bytes(buffer), <uint64_t>buffer.shape[0]
            self.view.stream[s].offsets = &offsets[0] if parts else NULL
            self.view.stream[s].lengths = &lengths[0] if parts else NULL
            self.view.stream[s].checksums = &checksums[0] if parts else NULL
            self.view.stream[s].coder = &coder.coder if coder is not None else NULL
            if parts and not inside(self.view.stream[s], parts, alignment):
                raise ValueError("a part lies outside its buffer")
        self.view.checked = NULL
        self.view.coding.bits, self.view.coding.codes, self.view.coding.rows, self.view.coding.zero_first = coding
        if self.view.coding.bits > 8 or (self.view.coding.bits and not (
                self.view.streams and self.view.stream[self.view.streams - 1].shared)):
            raise ValueError("codes of more than 8 bits, or without a codebook")
        if checked is not None and self.view.count:
            flags = checked
            if <uint64_t>flags.shape[0] != self.view.count:
                raise ValueError("one flag for each segment")
            self.view.checked = &flags[0]

    def check(self, uint64_t first, uint64_t last, uint32_t threads):
        """Check the shared parts and those of segments [first, last), whatever was checked before."""
        cdef Result r
        self._check_range(first, last)
        with nogil:
            r = c_check(self.view, first, last, threads)
        return _result(r)

    def decode(self, uint64_t first, uint64_t count, uint8_t[::1] out, bint always, uint32_t threads):
        """Elements [first, first + count) in row-major order, dense, into out; (result, entries of the segments read: at least, at most)."""
        cdef Result r
        cdef Stored stored = Stored(0, 0)
        cdef uint64_t size = self.view.grid.rows * self.view.grid.cols
        if first > size or count > size - first or <uint64_t>out.shape[0] != count * self.view.width:
            raise ValueError("elements out of range, or out of another size")
        self._check_elements(first, count)
        cdef uint8_t* to = &out[0] if out.shape[0] else NULL
        with nogil:
            r = c_decode(self.view, first, count, to, always, &stored, threads)
        return _result(r), stored.least, stored.most

    def multiply(self, uint64_t first, uint64_t last, Operand x, y, bint transposed, uint64_t limit, uint32_t threads,
                 scale=None, bias=None, kernel=None):
        """y = (W x) scale + bias, or of W^T, over segments [first, last); y is (m, batch), (m,) or (m, images, places) in the type
        of x or of the sums.

        scale, bias: contiguous, an item of the sums' type for each row of y. limit: of integers, the largest |weight| that cannot overflow a
        sum. kernel: the name of a product kernel to take wherever a panel fits it; ValueError where it is not for such a
        product. Where the segments before `first` are in y, these go on from there (see product.hpp): y has the type of the sums
        unless the segments are all.
        """
        cdef Product w
        cdef Result r
        cdef Py_buffer y_at
        cdef _Term factor = None, term = None
        cdef bytes name
        cdef uint64_t m = self.view.grid.cols if transposed else self.view.grid.rows
        self._check_range(first, last)
        if x.n != (self.view.grid.rows if transposed else self.view.grid.cols) or item_bytes(x.value) != self.view.width:
            raise ValueError("x of another size, or for weights of another type")
        w.value, w.accumulator, w.x, w.batch, w.transposed, w.limit = x.value, x.accumulator, x.operand, x.batch, transposed, limit
        w.first = w.scale = w.bias = NULL
        if kernel is not None:
            name = kernel.encode()
            w.first = find_product(name)
            if w.first == NULL or not can_run(w.first[0], w):
                raise ValueError(f"no product kernel {kernel!r}, or not for such a product")
        if scale is not None:
            factor = _Term(scale, m * x.width)
            w.scale = factor.at.buf
        if bias is not None:
            term = _Term(bias, m * x.width)
            w.bias = term.at.buf
        PyObject_GetBuffer(y, &y_at, PyBUF_STRIDED | PyBUF_WRITABLE)
        try:
            w.result = x.accumulator if <uint64_t>y_at.itemsize == x.width else x.item
            if w.result != x.accumulator and (first != 0 or last != self.segments):
                raise ValueError("parts of sums in another type than theirs")
            w.at = _strides(&y_at, item_bytes(w.result), 3)
            w.images.places = y_at.shape[2] if y_at.ndim == 3 else 0
            w.images.step = y_at.strides[1] // y_at.itemsize if y_at.ndim == 3 else 0
            if <uint64_t>y_at.shape[0] != m or _batch(&y_at, False) != x.batch:
                raise ValueError("y of another size")
            w.y = y_at.buf
            with nogil:
                r = c_multiply(self.view, w, first, last, threads)
        finally:
            PyBuffer_Release(&y_at)
        return _result(r)

    def multiply_array(self, uint8_t item, uint8_t value, uint8_t accumulator, bint transposed, x, y, bint across, bias,
                       uint32_t threads):
        """y = W x + bias, or of W^T, of floats of type `item`: x is (n, batch) or (n,), y is (m, batch) or (m,).

        With `across` x is (batch, n) and y is (batch, m). bias: None, or (m,) contiguous items of the sums' type. The view
        holds all segments. ValueError for arrays of another size, or that kernels cannot take as they lie.
        """
        cdef Product w
        cdef Result r
        cdef Py_buffer x_at, y_at
        cdef Strides from_at
        cdef _Term term = None
        cdef uint64_t n = self.view.grid.rows if transposed else self.view.grid.cols
        cdef uint64_t m = self.view.grid.cols if transposed else self.view.grid.rows
        self._check_range(0, self.segments)
        _check_types(item, value, accumulator)
        if item_bytes(<Type>value) != self.view.width:
            raise ValueError("weights of another type")
        w.value, w.accumulator, w.result, w.transposed, w.limit = <Type>value, <Type>accumulator, <Type>item, transposed, 0
        w.images.places, w.images.step = 0, 0
        w.first = w.scale = w.bias = NULL
        if bias is not None:
            term = _Term(bias, m * item_bytes(w.accumulator))
            w.bias = term.at.buf
        PyObject_GetBuffer(x, &x_at, PyBUF_STRIDED_RO)
        try:
            PyObject_GetBuffer(y, &y_at, PyBUF_STRIDED | PyBUF_WRITABLE)
            try:
                from_at, w.batch = _columns(&x_at, item_bytes(w.result), across, n), _batch(&x_at, across)
                w.at, w.y = _columns(&y_at, item_bytes(w.result), across, m), y_at.buf
                if w.batch != _batch(&y_at, across) or x_at.ndim != y_at.ndim:
                    raise ValueError("y of another size")
                w.x = new_operand(w.result, w.accumulator, x_at.buf, from_at, n, w.batch)
                if w.x == NULL:
                    raise MemoryError
                with nogil:
                    r = c_multiply(self.view, w, 0, self.segments, threads)
                    free_operand(w.x)
            finally:
                PyBuffer_Release(&y_at)
        finally:
            PyBuffer_Release(&x_at)
        return _result(r)

    def multiply_at(self, uint8_t item, uint8_t value, uint8_t accumulator, bint transposed, size_t x, uint64_t batch,
                    size_t y, size_t bias, bint wide_bias, uint32_t threads, uint32_t team):
        """y = x W^T + bias, or x W + bias where transposed, of floats by their addresses, which the caller vouches for.

        x (batch, inputs) and y (batch, outputs) are row-major, of type `item`; bias (outputs,) may be 0 for none, and is of
        that type, or with `wide_bias` of the accumulator's. The view holds all segments. team: see borrow_threads.
        """
        cdef CRows r
        cdef Result found
        self._check_range(0, self.segments)
        _check_types(item, value, accumulator)
        if item_bytes(<Type>value) != self.view.width:
            raise ValueError("weights of another type")
        r.value, r.accumulator, r.item, r.batch, r.transposed = <Type>value, <Type>accumulator, <Type>item, batch, transposed
        r.term = r.accumulator if wide_bias else r.item
        r.x, r.bias, r.y = <const void*>x, <const void*>bias, <void*>y
        with nogil:
            c_borrow_threads(team)
            found = c_multiply_rows(self.view, r, threads)
            c_borrow_threads(0)
        return _result(found)

    def entries(self, uint64_t first, uint64_t last, int64_t[::1] starts, int64_t[::1] indices, uint8_t[::1] values,
                uint64_t count):
        """The stored entries of segments [first, last) as CSR arrays, behind the `count` there; (result, count after)."""
        cdef Result r
        self._check_range(first, last)
        if <uint64_t>starts.shape[0] != self.view.grid.rows + 1 or values.shape[0] != indices.shape[0] * self.view.width:
            raise ValueError("arrays of another size")
        cdef int64_t* columns = &indices[0] if indices.shape[0] else NULL
        cdef uint8_t* items = &values[0] if values.shape[0] else NULL
        cdef uint64_t room = <uint64_t>indices.shape[0]
        if count > room:
            raise ValueError("more entries than room")
        with nogil:
            r = c_entries(self.view, first, last, &starts[0], columns, items, room, &count)
        return _result(r), count

    def count(self, uint64_t first, uint64_t last, uint32_t segment_rows, uint32_t segment_cols, list requests, uint32_t threads):
        """Adds the statistics of segments [first, last) of any grid of the matrix to their words (see count).

        The view must hold the elements of these segments; the words are for the whole matrix.
        """
        cdef Result r
        cdef Grid grid = _grid(self.view.grid.rows, self.view.grid.cols, segment_rows, segment_cols)
        cdef _Requests asked = _Requests(requests, grid.rows, grid.cols, segment_rows, segment_cols)
        self._check_segments(grid, first, last)
        with nogil:
            r = c_count_view(self.view, grid, first, last, asked.at, asked.n, threads)
        return _result(r)

    cdef _check_range(self, uint64_t first, uint64_t last):
        if not self.view.first <= first <= last <= self.view.first + self.view.count:
            raise ValueError("segments that the view does not hold")

    cdef _check_elements(self, uint64_t first, uint64_t count):
        """Whether the view holds the segments of elements [first, first + count), which the matrix has."""
        if count:
            self._check_range(self.view.grid.segment_at(first), self.view.grid.segment_at(first + count - 1) + 1)

    cdef _check_segments(self, Grid grid, uint64_t first, uint64_t last):
        """Whether the view holds the elements of segments [first, last) of another grid of its matrix."""
        if not first <= last <= grid.segments():
            raise ValueError("segments out of range")
        if first < last:
            self._check_elements(grid.element_at(first), grid.element_at(last) - grid.element_at(first))
