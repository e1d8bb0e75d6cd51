# Codings of the entropy stage, and the choice of their codes.

cdef extern from "entropy/huffman.hpp" namespace "codec" nogil:
    cdef struct HuffmanCode:
        uint32_t width
        Kind kind
        uint32_t low
        uint32_t zeros
        uint64_t first
        uint32_t symbols
        uint8_t lengths[256]

    Status prepare(HuffmanCode&) noexcept


cdef extern from "entropy/rans.hpp" namespace "codec" nogil:
    cdef struct RansCode:
        uint32_t width
        Kind kind
        uint32_t low
        uint32_t zeros
        uint64_t first
        uint32_t symbols
        uint32_t lanes
        uint16_t counts[256]

    Status prepare_counts "codec::prepare"(RansCode&) noexcept


cdef extern from "entropy/choose.hpp" namespace "codec" nogil:
    cdef struct KeyCounts:
        const uint64_t* counts
        uint64_t size
        uint32_t shift
        uint64_t first
        uint64_t or_of_keys

    cdef struct ChosenCode:
        uint32_t low
        uint32_t zeros
        uint32_t symbols
        uint64_t first
        uint8_t lengths[256]
        uint64_t bits_high
        uint64_t bits_low

    cdef struct ChosenCounts:
        uint32_t low
        uint32_t zeros
        uint32_t symbols
        uint64_t first
        uint16_t counts[256]
        uint64_t bits_high
        uint64_t bits_low

    bint c_code_lengths "codec::code_lengths"(const uint64_t*, uint32_t, uint32_t, uint8_t*) noexcept
    bint c_choose_code "codec::choose_code"(const KeyCounts&, uint32_t, Kind, uint32_t, uint32_t, ChosenCode&) noexcept
    bint c_choose_counts "codec::choose_counts"(const KeyCounts&, uint32_t, Kind, uint32_t, ChosenCounts&) noexcept


def code_lengths(const uint64_t[::1] counts, uint32_t max_length):
    """Lengths of the code words of at most `max_length` bits (1 to 15) that code up to 256 counts in the fewest bits."""
    cdef uint8_t lengths[256]
    cdef bint done = 1 <= max_length <= 15 and counts.shape[0] <= 256
    if done and counts.shape[0]:
        with nogil:
            done = c_code_lengths(&counts[0], <uint32_t>counts.shape[0], max_length, lengths)
    if not done:
        raise ValueError("not a length from 1 to 15 bits, more counts than code words, or counts that add up to 2**63 or more")
    return (<char*>lengths)[:counts.shape[0]] if counts.shape[0] else b""


_NO_COUNTS = "not counts of such keys, or they add up to 2**63 or more"


cdef KeyCounts _key_counts(const uint64_t[::1] counts, uint32_t shift, uint64_t first, uint64_t or_of_keys, uint32_t width,
                           uint8_t kind) except *:
    cdef KeyCounts keys
    if width not in (1, 2, 4, 8) or kind > 2 or (kind == 2 and width == 1) or not 1 <= counts.shape[0] <= 65536:
        raise ValueError("not a type of items, or not 1 to 65536 counts")
    keys.counts, keys.size = &counts[0], <uint64_t>counts.shape[0]
    keys.shift, keys.first, keys.or_of_keys = shift, first, or_of_keys
    return keys


def choose_code(const uint64_t[::1] counts, uint32_t shift, uint64_t first, uint64_t or_of_keys, uint32_t width, uint8_t kind,
                uint32_t max_length, uint32_t bits=0):
    """The Huffman code that takes the fewest bits for keys of which counts[i] have (key >> shift) - first == i.

    bits: of a key, where items have fewer than their width says; 0: all. (low, zeros, first, lengths, bits of the items)
    """
    cdef KeyCounts keys = _key_counts(counts, shift, first, or_of_keys, width, kind)
    cdef ChosenCode chosen
    cdef bint done
    if not 8 <= max_length <= 15:
        raise ValueError("not 8 to 15 bits for the longest code word of these counts")
    with nogil:
        done = c_choose_code(keys, width, <Kind>kind, max_length, bits, chosen)
    if not done:
        raise ValueError(_NO_COUNTS)
    coded = chosen.bits_low if not chosen.bits_high else (<object>chosen.bits_high << 64) | chosen.bits_low
    return chosen.low, chosen.zeros, chosen.first, (<char*>chosen.lengths)[:chosen.symbols], coded


def choose_counts(const uint64_t[::1] counts, uint32_t shift, uint64_t first, uint64_t or_of_keys, uint32_t width, uint8_t kind,
                  uint32_t bits=0):
    """The same for rANS: (low, zeros, first, the symbols' counts of 2**12 as bytes of uint16, bits of the items)."""
    cdef KeyCounts keys = _key_counts(counts, shift, first, or_of_keys, width, kind)
    cdef ChosenCounts chosen
    cdef bint done
    with nogil:
        done = c_choose_counts(keys, width, <Kind>kind, bits, chosen)
    if not done:
        raise ValueError(_NO_COUNTS)
    coded = chosen.bits_low if not chosen.bits_high else (<object>chosen.bits_high << 64) | chosen.bits_low
    return chosen.low, chosen.zeros, chosen.first, (<char*>chosen.counts)[:2 * chosen.symbols], coded


cdef class Coder:
    """A coding of the entropy stage, prepared for the items of one stream; each coding has a class of its own."""
    cdef CCoder coder

    def __dealloc__(self):
        free(<void*>self.coder.state)


cdef class HuffmanCoder(Coder):
    """A prepared Huffman code. Raises ValueError for one that is not complete or does not fit its items."""

    def __cinit__(self, uint32_t width, uint8_t kind, uint32_t low, uint32_t zeros, uint64_t first, const uint8_t[::1] lengths):
        cdef Py_ssize_t i
        cdef HuffmanCode* code
        if not 1 <= lengths.shape[0] <= 256:
            raise ValueError("a code has 1 to 256 symbols")
        code = <HuffmanCode*>calloc(1, sizeof(HuffmanCode))
        if code == NULL:
            raise MemoryError
        self.coder.coding, self.coder.width, self.coder.state = Coding.huffman, width, code
        code.width, code.kind = width, <Kind>kind
        code.low, code.zeros, code.first = low, zeros, first
        code.symbols = <uint32_t>lengths.shape[0]
        for i in range(lengths.shape[0]):
            code.lengths[i] = lengths[i]
        if prepare(code[0]) != Status.ok:
            raise ValueError("not a complete code for its items")


cdef class RansCoder(Coder):
    """A prepared table of rANS, of 2**lanes lanes. Raises ValueError for one that does not add up or does not fit its items."""

    def __cinit__(self, uint32_t width, uint8_t kind, uint32_t low, uint32_t zeros, uint64_t first, uint32_t lanes,
                  const uint16_t[::1] counts):
        cdef Py_ssize_t i
        cdef RansCode* code
        if not 1 <= counts.shape[0] <= 256:
            raise ValueError("a table has 1 to 256 symbols")
        code = <RansCode*>calloc(1, sizeof(RansCode))
        if code == NULL:
            raise MemoryError
        self.coder.coding, self.coder.width, self.coder.state = Coding.rans, width, code
        code.width, code.kind = width, <Kind>kind
        code.low, code.zeros, code.first, code.lanes = low, zeros, first, lanes
        code.symbols = <uint32_t>counts.shape[0]
        for i in range(counts.shape[0]):
            code.counts[i] = counts[i]
        if prepare_counts(code[0]) != Status.ok:
            raise ValueError("not a complete table for its items")
