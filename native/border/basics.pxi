# The instruction set in use, checksums and codebooks.

cdef extern from "codebook/kmeans.hpp" namespace "codec" nogil:
    Status c_kmeans "codec::kmeans"(const double*, const double*, uint64_t, uint32_t, bint, uint32_t, double*) noexcept

cdef extern from "pool.hpp" namespace "codec" nogil:
    ctypedef void (*Region)(void (*)(void*), void*, unsigned, unsigned) noexcept
    uint32_t c_default_threads "codec::default_threads"() noexcept
    void c_lend_threads "codec::lend_threads"(Region) noexcept
    void c_borrow_threads "codec::borrow_threads"(uint32_t) noexcept


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


def default_threads():
    """Threads of a call that says nothing: CODEC_NUM_THREADS (0 where it is no number from 1 to 64), or one per CPU."""
    return c_default_threads()


def lend_threads(size_t region):
    """Lend the threads of an OpenMP runtime, by the address of its GOMP_parallel."""
    c_lend_threads(<Region>region)


def borrow_threads(uint32_t team):
    """From now on products of this thread run on a team of so many lent threads; 0: on the pool."""
    c_borrow_threads(team)


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
