# Products: x, and the kernels that multiply it.

cdef extern from "product.hpp" namespace "codec" nogil:
    cdef struct COperand "codec::Operand":
        pass

    cdef struct CWindow "codec::Window":
        uint64_t images
        uint64_t channels
        uint64_t height
        uint64_t width
        int64_t image
        int64_t channel
        int64_t line
        int64_t pixel
        uint64_t kernel[2]
        uint64_t stride[2]
        uint64_t dilation[2]
        uint64_t padding[2]
        uint64_t output[2]

    cdef struct Images:
        uint64_t places
        int64_t step

    COperand* new_operand(Type, Type, const void*, Strides, uint64_t, uint64_t) noexcept
    COperand* new_operand(Type, Type, const void*, const CWindow&) noexcept
    void free_operand(COperand*) noexcept
    bint was_used(const COperand*, uint32_t) noexcept

    cdef struct Product:
        Type value
        Type accumulator
        Type result
        COperand* x
        void* y
        Strides at
        Images images
        const void* scale
        const void* bias
        uint64_t batch
        bint transposed
        uint64_t limit
        const ProductKernel* first

    cdef struct CRows "codec::Rows":
        Type value
        Type accumulator
        Type item
        Type term
        const void* x
        const void* bias
        void* y
        uint64_t batch
        bint transposed

    cdef struct CFilters "codec::Filters":
        Type type
        Type item
        CWindow window
        const void* pixels
        uint64_t groups
        uint64_t filters
        uint64_t lines
        uint64_t line
        const uint64_t* starts
        const uint64_t* columns
        const uint8_t* weights
        const uint8_t* bias
        uint8_t* out

    bint c_filter "codec::filter"(const CFilters&, uint32_t) noexcept
    const ProductKernel* find_product(const char*) noexcept
    bint can_run(const ProductKernel&, const Product&) noexcept
    Result c_multiply "codec::multiply"(const CView&, const Product&, uint64_t, uint64_t, uint32_t) noexcept
    Result c_multiply_rows "codec::multiply_rows"(const CView&, const CRows&, uint32_t) noexcept


# In the order of enum Form, enum Direction, enum Codes, enum Items and enum Type.
_FORMS = ("mask", "index", "dense", "sliced", "block")
_DIRECTIONS = ("dot", "axpy")
_CODES = (None, "fours", "bytes")
_ITEMS = ("sums", "bf16", "parts", "i8")
cdef uint8_t kTypes = 14
_TYPES = ("f64", "f32", "f16", "bf16", "e4m3", "e5m2", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "any")


def product_kernels():
    """The product kernels that run here, of the instruction set in use, in the order in which they are asked: the first
    that fits wins.

    Each is a dict: name; form and direction of the panels; value, the weights' type, "any" if they are converted; accumulator,
    the type of x and of the sums; batch, the columns that it is for, (least, most) or (least, None); finite, whether x
    must be; items, what it takes for those of x: as the sums are ("sums"), or x must hold bf16 numbers alone ("bf16"), numbers
    that are sums of three of them ("parts"), or integers of a signed byte ("i8"); codes, those of a codebook that it looks
    up itself: of 4 bits as they are stored ("fours"), or a byte each ("bytes").
    """
    rows = []
    for i in range(kernels().product_count):
        row = &kernels().products[i]
        if row.here != NULL and not row.here():
            continue
        rows.append({
            "name": row.name.decode(),
            "form": _FORMS[<uint8_t>row.form],
            "direction": _DIRECTIONS[<uint8_t>row.direction],
            "value": _TYPES[<uint8_t>row.value],
            "accumulator": _TYPES[<uint8_t>row.accumulator],
            "batch": (row.least, None if row.most == <uint64_t>-1 else row.most),
            "finite": bool(row.finite),
            "items": _ITEMS[<uint8_t>row.items],
            "codes": _CODES[<uint8_t>row.codes],
        })
    return rows


def tile_dot(const uint8_t[::1] a, const uint8_t[::1] b, uint8_t[::1] c, uint32_t m, uint32_t k, uint32_t n, bint signed_bytes):
    """One tile instruction of the set in use, for tests: c (m, n) += a (m, k) b (k, n), row-major, of items of four bytes.

    Those of c are f32, those of a and b pairs of bf16 numbers; or i32 and four signed bytes. ValueError where the set has no tiles.
    """
    if kernels().tiles == NULL:
        raise ValueError("no tiles in this set")
    if not (1 <= m <= 16 and 1 <= k <= 16 and 1 <= n <= 16):
        raise ValueError("tiles of more than 16 rows, or of more than 16 items in a row")
    if <uint64_t>a.shape[0] != 4 * m * k or <uint64_t>b.shape[0] != 4 * k * n or <uint64_t>c.shape[0] != 4 * m * n:
        raise ValueError("tiles of another size")
    kernels().tiles.dot(signed_bytes, m, k, n, &a[0], &b[0], &c[0])


cdef Strides _strides(const Py_buffer* at, uint64_t width, int most=2) except *:
    """Those of (n,), (n, batch) or, with three dimensions at most, (n, images, places) items of so many bytes, in items."""
    cdef Strides strides
    if not 1 <= at.ndim <= most or <uint64_t>at.itemsize != width:
        raise ValueError("an array of other items, or of more dimensions")
    for i in range(at.ndim):
        if at.strides[i] % at.itemsize:
            raise ValueError("an array whose strides are not whole items")
    strides.row = at.strides[0] // at.itemsize
    strides.column = at.strides[at.ndim - 1] // at.itemsize if at.ndim > 1 else 1
    return strides


cdef int _check_types(uint8_t item, uint8_t value, uint8_t accumulator) except -1:
    """ValueError where x and the result cannot be of type `item` for weights and sums of these types."""
    if item >= kTypes or value >= kTypes or accumulator >= kTypes or not widens_to(<Type>item, <Type>accumulator):
        raise ValueError("no such type, or items that do not widen to sums of that type")
    return 0


cdef Strides _columns(const Py_buffer* at, uint64_t width, bint across, uint64_t n) except *:
    """Those of (n, batch) or (n,) items, or with `across` of the transpose of (batch, n), at addresses that suit them."""
    cdef Strides strides = _strides(at, width)
    across = across and at.ndim == 2
    if <uint64_t>at.shape[at.ndim - 1 if across else 0] != n or <size_t>at.buf % width:
        raise ValueError("an array of another size, or not aligned")
    if across:
        strides.row, strides.column = strides.column, strides.row
    return strides


cdef uint64_t _batch(const Py_buffer* at, bint across) noexcept:
    cdef uint64_t batch = 1
    if across and at.ndim == 2:
        return at.shape[0]
    for i in range(1, at.ndim):
        batch *= <uint64_t>at.shape[i]
    return batch


cdef CWindow _window(const Py_buffer* at, uint64_t item, sizes) except *:
    """Filters of sizes (kernel, stride, dilation, padding before, padding behind), two of each, on pixels (images, channels,
    height, width).
    """
    cdef CWindow window
    cdef uint64_t reach, size
    if (at.ndim != 4 or <uint64_t>at.itemsize != item or len(sizes) != 10 or min(sizes[:6]) < 1 or min(sizes) < 0
            or max(sizes) > 1 << 31 or sizes[0] * sizes[1] * at.shape[1] > 1 << 48):
        raise ValueError("pixels of another shape or type, or no sizes of a filter")
    for i in range(4):
        if at.strides[i] % at.itemsize or at.shape[i] == 0:
            raise ValueError("no pixels, or strides that are not whole items")
    window.images, window.channels, window.height, window.width = at.shape[0], at.shape[1], at.shape[2], at.shape[3]
    window.image, window.channel = at.strides[0] // at.itemsize, at.strides[1] // at.itemsize
    window.line, window.pixel = at.strides[2] // at.itemsize, at.strides[3] // at.itemsize
    for i in range(2):
        window.kernel[i], window.stride[i], window.dilation[i] = sizes[i], sizes[2 + i], sizes[4 + i]
        window.padding[i] = sizes[6 + i]
        reach = window.dilation[i] * (window.kernel[i] - 1) + 1
        size = <uint64_t>at.shape[2 + i] + window.padding[i] + <uint64_t>sizes[8 + i]
        if size < reach:
            raise ValueError("a filter that is larger than the images")
        window.output[i] = (size - reach) // window.stride[i] + 1
    return window


cdef class Operand:
    """A product's x, (n, batch) or (n,), and what kernels make of it for weights of type `value`.

    Its items, of type `item`, widen to the type of the sums. With `window`, (kernel, stride, dilation, padding before, padding
    behind) of two ints each, side by side, x is pixels (images, channels, height, width), and the product is with those under
    a filter: a row for each of its channels and pixels, a column for each place.
    """
    cdef COperand* operand
    cdef Py_buffer at
    cdef Type value, item, accumulator
    cdef uint64_t n, batch, width

    def __cinit__(self, x, uint8_t item, uint8_t value, uint8_t accumulator, window=None):
        _check_types(item, value, accumulator)
        self.value, self.item, self.accumulator = <Type>value, <Type>item, <Type>accumulator
        self.width = item_bytes(self.accumulator)
        PyObject_GetBuffer(x, &self.at, PyBUF_STRIDED_RO)
        cdef Strides strides
        cdef CWindow pixels
        if window is None:
            strides = _strides(&self.at, item_bytes(self.item))
            self.n, self.batch = self.at.shape[0], _batch(&self.at, False)
            self.operand = new_operand(self.item, self.accumulator, self.at.buf, strides, self.n, self.batch)
        else:
            pixels = _window(&self.at, item_bytes(self.item), window)
            self.n = pixels.channels * pixels.kernel[0] * pixels.kernel[1]
            self.batch = pixels.images * pixels.output[0] * pixels.output[1]
            self.operand = new_operand(self.item, self.accumulator, self.at.buf, pixels)
        if self.operand == NULL:
            raise MemoryError

    def __dealloc__(self):
        free_operand(self.operand)
        PyBuffer_Release(&self.at)

    @property
    def kernels(self):
        """Names of the product kernels that have multiplied it so far."""
        return [kernels().products[i].name.decode() for i in range(kernels().product_count) if was_used(self.operand, i)]


cdef class _Term:
    """The bytes of a scale or bias, as many as are expected."""
    cdef Py_buffer at

    def __cinit__(self, term, uint64_t size):
        PyObject_GetBuffer(term, &self.at, PyBUF_SIMPLE)
        if <uint64_t>self.at.len != size:
            raise ValueError("a scale or bias of another size")

    def __dealloc__(self):
        PyBuffer_Release(&self.at)


cdef class _Pixels:
    """Pixels (images, channels, height, width) under a filter of these sizes (see Operand)."""
    cdef Py_buffer at
    cdef CWindow window

    def __cinit__(self, pixels, uint64_t item, sizes):
        PyObject_GetBuffer(pixels, &self.at, PyBUF_STRIDED_RO)
        self.window = _window(&self.at, item, sizes)

    def __dealloc__(self):
        PyBuffer_Release(&self.at)


def filter_images(pixels, uint8_t item, tuple sizes, uint64_t groups, const uint64_t[::1] starts,
                  const uint64_t[::1] columns, const uint8_t[::1] weights, bias, uint8_t[::1] out, uint8_t type, uint32_t threads):
    """Filters over images, by their non-zero weights, into out (images, filters, height, width).

    pixels: (images, channels, height, width) of type `item`, as is out; sizes: see Operand. starts: where the weights of each
    filter begin. columns: of each weight, its place in the filter, counted over the channels of a group. bias: an item for
    each filter, or None; with the weights of type `type`, f64 or f32.
    """
    cdef CFilters f
    cdef _Pixels images
    cdef const uint8_t[::1] term
    cdef uint64_t width, cols, wrong = 0
    cdef bint made
    cdef Py_ssize_t i
    _check_types(item, item, type)
    if type > 1:  # f64 and f32 come first
        raise ValueError("sums of another type than f32 and f64")
    f.type, f.item = <Type>type, <Type>item
    width = item_bytes(f.type)
    images = _Pixels(pixels, item_bytes(f.item), sizes)
    f.window, f.pixels, f.groups = images.window, images.at.buf, groups
    f.filters = <uint64_t>starts.shape[0] - 1 if starts.shape[0] else 0
    if groups == 0 or f.window.channels % groups or f.filters % groups:
        raise ValueError("groups that do not divide the channels and the filters")
    places = <object>f.window.images * f.filters * f.window.output[0] * f.window.output[1]
    if places * item_bytes(f.item) != out.shape[0] or starts.shape[0] == 0:
        raise ValueError("out or starts of another size")
    cols = f.window.channels // groups * f.window.kernel[0] * f.window.kernel[1]
    if (starts[0] != 0 or starts[starts.shape[0] - 1] != <uint64_t>columns.shape[0]
            or weights.shape[0] != columns.shape[0] * <Py_ssize_t>width):
        raise ValueError("columns or weights of another size")
    f.starts = &starts[0]
    f.columns = &columns[0] if columns.shape[0] else NULL
    for i in range(starts.shape[0] - 1):
        wrong |= f.starts[i + 1] < f.starts[i]
    if wrong:
        raise ValueError("starts that go back")
    for i in range(columns.shape[0]):
        wrong |= f.columns[i] >= cols
    if wrong:
        raise ValueError("a column behind the filter")
    if out.shape[0] == 0:
        return
    f.lines = f.window.height + f.window.padding[0] + sizes[8]
    f.line = f.window.width + f.window.padding[1] + sizes[9]
    if <object>f.lines * f.line * f.window.channels > 1 << 48:
        raise MemoryError
    f.bias = NULL
    if bias is not None:
        term = bias
        if <uint64_t>term.shape[0] != f.filters * width:
            raise ValueError("bias of another size")
        f.bias = _bytes(term)
    f.weights, f.out = _bytes(weights), &out[0]
    with nogil:
        made = c_filter(f, threads)
    if not made:
        raise MemoryError
