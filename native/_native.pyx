# cython: language_level=3, freethreading_compatible=True, binding=True
# distutils: language=c++
"""The border between Python and the kernels: buffers in, results out, no GIL in between, no arithmetic of its own.

Only codec.kernels imports this module; it gives the results below their meaning. A result is
(status, segment, stream, found, expected), status 0 for success, in the order of `enum class Status` in contract.hpp.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_STRIDED, PyBUF_STRIDED_RO, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

include "border/contract.pxi"
include "border/basics.pxi"
include "border/codings.pxi"
include "border/products.pxi"
include "border/view.pxi"
include "border/streams.pxi"
include "border/statistics.pxi"
