# Statistics, counted on demand.

cdef extern from "stats/count.hpp" namespace "codec" nogil:
    cdef struct StatsRequest:
        uint32_t statistic
        uint64_t a
        uint64_t b
        uint64_t* out

    bint find_statistic(const char*, uint32_t*) noexcept
    bint c_statistic_words "codec::statistic_words"(const Grid&, uint32_t, uint64_t, uint64_t, uint64_t*) noexcept
    Result c_count "codec::count"(const Matrix&, uint64_t, uint64_t, const StatsRequest*, uint32_t, const uint8_t*,
                                  const uint8_t*, uint32_t, uint64_t*) noexcept
    Result c_count_view "codec::count"(const CView&, const Grid&, uint64_t, uint64_t, const StatsRequest*, uint32_t, uint32_t) noexcept


cdef uint64_t _statistic(str name, uint64_t a, uint64_t b, const Grid& grid, StatsRequest* request) except? 0:
    """A request without its words; how many there are."""
    cdef bytes encoded = name.encode()
    cdef uint64_t total = 0
    request.a, request.b = a, b
    request.out = NULL
    if not find_statistic(encoded, &request.statistic):
        raise ValueError(f"no statistic {name!r}")
    if not c_statistic_words(grid, request.statistic, a, b, &total):
        raise ValueError(f"statistic {name!r} cannot have these arguments, or this grid")
    return total


cdef class _Requests:
    """What statistics are asked for, and the words that they go to: (name, a, b, out) each."""
    cdef StatsRequest* at
    cdef uint32_t n
    cdef list keep

    def __cinit__(self, list requests, uint64_t rows, uint64_t cols, uint32_t segment_rows, uint32_t segment_cols):
        cdef uint64_t[::1] out
        cdef Grid grid
        cdef uint64_t total
        grid.rows, grid.cols, grid.segment_rows, grid.segment_cols = rows, cols, segment_rows, segment_cols
        self.at = <StatsRequest*>calloc(len(requests) + 1, sizeof(StatsRequest))
        if self.at == NULL:
            raise MemoryError
        self.n, self.keep = 0, []
        _statistic("parts", 0, 0, grid, &self.at[0])  # the grid is one, also where nothing is asked for
        for name, a, b, words in requests:
            total = _statistic(name, a, b, grid, &self.at[self.n])
            out = words
            if <uint64_t>out.shape[0] != total:
                raise ValueError(f"statistic {name!r} takes {total} words")
            if total:
                self.at[self.n].out = &out[0]
            self.keep.append(out)
            self.n += 1

    def __dealloc__(self):
        free(self.at)


def statistic_words(str name, uint64_t a, uint64_t b, uint64_t rows, uint64_t cols, uint32_t segment_rows, uint32_t segment_cols):
    """How many u64 words a statistic takes for a matrix in such segments; what they are stands in its file (stats/)."""
    cdef Grid grid
    cdef StatsRequest request
    grid.rows, grid.cols, grid.segment_rows, grid.segment_cols = rows, cols, segment_rows, segment_cols
    return _statistic(name, a, b, grid, &request)


def count(const uint8_t[::1] dense, keep, uint64_t rows, uint64_t cols, uint32_t segment_rows, uint32_t segment_cols, uint32_t width,
          uint64_t nonzero, uint64_t negative, list requests, uint32_t threads, uint64_t first=0, last=None):
    """Adds the statistics asked for, of segments [first, last), to their words, in one pass over the dense elements of these.

    By default these are all. Returns (result, -0.0 that were not stored). keep: a byte per element, non-zero where it counts as stored, or None for the zero rule. requests: (name, a, b, words)
    each; words are an array of statistic_words(name, a, b, ...), 0 at first.
    """
    cdef const uint8_t* kept_at
    cdef uint64_t end
    cdef Matrix e
    cdef Result r
    cdef uint64_t dropped = 0
    cdef _Requests asked = _Requests(requests, rows, cols, segment_rows, segment_cols)
    e.grid = _grid(rows, cols, segment_rows, segment_cols)
    e.width, e.nonzero, e.negative = width, nonzero, negative
    if width not in (1, 2, 4, 8):
        raise ValueError("elements of another size")
    end = e.grid.segments() if last is None else last
    kept_at = _elements(e, first, end, dense, keep)
    with nogil:
        r = c_count(e, first, end, asked.at, asked.n, _bytes(dense), kept_at, threads, &dropped)
    return _result(r), dropped
