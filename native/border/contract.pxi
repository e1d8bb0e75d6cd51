# What every part of the border needs of contract.hpp, grid.hpp and view.hpp.

cdef extern from "contract.hpp" namespace "codec" nogil:
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
    enum class Order(uint8_t):
        pass
    enum class Layout(uint32_t):
        pass
    enum class Type(uint8_t):
        pass
    enum class Form(uint8_t):
        pass
    enum class Direction(uint8_t):
        pass
    enum class Codes(uint8_t):
        pass
    enum class Items(uint8_t):
        pass
    uint32_t item_bytes(Type) noexcept
    bint widens_to(Type, Type) noexcept

    const uint32_t kLayouts
    const uint32_t kStreams
    const uint32_t kParams

    cdef struct Strides:
        int64_t row
        int64_t column

    cdef struct Params:
        uint32_t at[16]

    enum class Coding(uint32_t):
        huffman
        rans

    cdef struct ProductKernel:
        const char* name
        Form form
        Direction direction
        Type value
        Type accumulator
        uint64_t least
        uint64_t most
        bint finite
        bint (*here)() noexcept
        Codes codes
        Items items

    cdef struct TileKernels:
        void (*dot)(bint, uint32_t, uint32_t, uint32_t, const void*, const void*, void*) noexcept nogil

    cdef struct Kernels:
        const char* name
        uint32_t (*crc32c)(uint32_t, const uint8_t*, size_t) noexcept nogil
        const ProductKernel* products
        uint32_t product_count
        const TileKernels* tiles
        void (*assign_codes)(const uint8_t*, uint64_t, uint32_t, Order, const uint64_t*, const uint8_t*, uint32_t, uint8_t*) noexcept nogil

    enum class Selection(uint32_t):
        pass
    const Kernels& kernels() noexcept
    Selection c_select "codec::select"(const char*) noexcept
    bint c_built "codec::built"(const char*) noexcept
    bint c_runs_here "codec::runs_here"(const char*) noexcept


cdef extern from "grid.hpp" namespace "codec" nogil:
    cdef cppclass Grid:
        uint64_t rows
        uint64_t cols
        uint32_t segment_rows
        uint32_t segment_cols
        bint valid() noexcept
        uint64_t segments() noexcept
        uint64_t segment_at(uint64_t) noexcept
        uint64_t element_at(uint64_t) noexcept


cdef extern from "view.hpp" namespace "codec" nogil:
    cdef struct CCoder "codec::Coder":
        Coding coding
        uint32_t width
        const void* state

    cdef struct ValueCoding:
        uint32_t bits
        uint32_t codes
        uint64_t rows
        bint zero_first

    cdef struct CStream "codec::Stream":
        const uint8_t* base
        uint64_t size
        const uint64_t* offsets
        const uint32_t* lengths
        const uint32_t* checksums
        const CCoder* coder
        bint shared

    cdef struct CView "codec::View":
        Grid grid
        Layout layout
        uint32_t width
        Params params
        uint32_t alignment
        uint64_t first
        uint64_t count
        uint32_t streams
        CStream stream[16]
        uint8_t* checked
        ValueCoding coding
        uint8_t shared_checked

    cdef struct Stored:
        uint64_t least
        uint64_t most

    bint inside(const CStream&, uint64_t, uint32_t) noexcept
    Result c_check "codec::check"(const CView&, uint64_t, uint64_t, uint32_t) noexcept
    Result c_decode "codec::decode"(const CView&, uint64_t, uint64_t, uint8_t*, bint, Stored*, uint32_t) noexcept
    Result c_entries "codec::entries"(const CView&, uint64_t, uint64_t, int64_t*, int64_t*, uint8_t*, uint64_t,
                                      uint64_t*) noexcept


cdef inline const uint8_t* _bytes(const uint8_t[::1] b) noexcept nogil:
    return &b[0] if b.shape[0] else NULL


cdef tuple _result(Result r):
    return <uint32_t>r.status, r.segment, r.stream, r.found, r.expected


cdef Layout _layout(uint32_t number, uint32_t width, Py_ssize_t streams) except *:
    if number >= kLayouts or width not in (1, 2, 4, 8) or streams > <Py_ssize_t>kStreams:
        raise ValueError("no such layout or width, or more streams than any layout has")
    return <Layout>number


cdef Params _params(tuple params) except *:
    cdef Params p
    cdef Py_ssize_t i
    if len(params) > <Py_ssize_t>kParams:
        raise ValueError("more parameters than any layout has")
    for i in range(<Py_ssize_t>kParams):
        p.at[i] = params[i] if i < len(params) else 0
    return p


cdef Grid _grid(uint64_t rows, uint64_t cols, uint32_t segment_rows, uint32_t segment_cols) except *:
    cdef Grid grid
    grid.rows, grid.cols, grid.segment_rows, grid.segment_cols = rows, cols, segment_rows, segment_cols
    if not grid.valid():
        raise ValueError("segments that are not whole rows, or pieces of one")
    return grid
