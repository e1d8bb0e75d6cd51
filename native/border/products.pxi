# Products: x, and the kernels that multiply it.

cdef extern from "product.hpp" namespace "codec" nogil:
    cdef struct COperand "codec::Operand":
        pass

    COperand* new_operand(Type, const void*, uint64_t, uint64_t) noexcept
    void free_operand(COperand*) noexcept
    bint was_used(const COperand*, uint32_t) noexcept

    cdef struct Product:
        Type value
        Type accumulator
        COperand* x
        void* y
        uint64_t batch
        bint transposed
        uint64_t limit
        const ProductKernel* first

    const ProductKernel* find_product(const char*) noexcept
    bint can_run(const ProductKernel&, const Product&) noexcept
    Result c_multiply "codec::multiply"(const CView&, const Product&, uint64_t, uint64_t, uint32_t) noexcept


# In the order of enum Form, enum Direction and enum Type.
_FORMS = ("mask", "index", "dense", "sliced")
_DIRECTIONS = ("dot", "axpy")
_TYPES = ("f64", "f32", "f16", "bf16", "e4m3", "e5m2", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "any")


def product_kernels():
    """The product kernels of the instruction set in use, in the order in which they are asked: the first that fits wins.

    Each is a dict: name; form and direction of the panels; value, the weights' type, "any" if they are converted; accumulator,
    the type of x and of the sums; batch, the columns that it is for, (least, most) or (least, None); finite, whether x
    must be.
    """
    rows = []
    for i in range(kernels().product_count):
        row = &kernels().products[i]
        rows.append({
            "name": row.name.decode(),
            "form": _FORMS[<uint8_t>row.form],
            "direction": _DIRECTIONS[<uint8_t>row.direction],
            "value": _TYPES[<uint8_t>row.value],
            "accumulator": _TYPES[<uint8_t>row.accumulator],
            "batch": (row.least, None if row.most == <uint64_t>-1 else row.most),
            "finite": bool(row.finite),
        })
    return rows


cdef class Operand:
    """A product's x (n, batch), in the type of the sums, and what its kernels make of it for weights of type `value`."""
    cdef COperand* operand
    cdef Py_buffer at
    cdef Type value, accumulator
    cdef uint64_t n, batch, width

    def __cinit__(self, x, uint8_t value, uint8_t accumulator, uint64_t n, uint64_t batch):
        if value >= len(_TYPES) - 1 or accumulator >= len(_TYPES) - 1:
            raise ValueError("no such type")
        self.value, self.accumulator, self.n, self.batch = <Type>value, <Type>accumulator, n, batch
        self.width = item_bytes(self.accumulator)
        PyObject_GetBuffer(x, &self.at, PyBUF_SIMPLE)
        if <object>n * batch * self.width != self.at.len:
            raise ValueError("x of another size")
        self.operand = new_operand(self.accumulator, self.at.buf, n, batch)
        if self.operand == NULL:
            raise MemoryError

    def __dealloc__(self):
        free_operand(self.operand)
        PyBuffer_Release(&self.at)

    @property
    def kernels(self):
        """Names of the product kernels that have multiplied it so far."""
        return [kernels().products[i].name.decode() for i in range(kernels().product_count) if was_used(self.operand, i)]
