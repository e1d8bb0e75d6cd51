"""Streams of items of every type, for tests of the entropy stage."""

import numpy as np
from hypothesis import strategies as st

from codec import entropy
from codec.entropy import Items, KeyCounts

TYPES = [(1, "unsigned"), (1, "signed")] + [(w, k) for w in (2, 4, 8) for k in entropy.KINDS]


def keys_of(items, kind):
    """Keys by their definition, one Python int at a time."""
    bits = 8 * items.itemsize
    for item in items.tolist():
        yield item ^ (1 << (bits - 1)) if kind == "signed" else item % (1 << (bits - 1)) if kind == "float" else item


def count(items, kind):
    keys = list(keys_of(items, kind))
    shift, first, bins = KeyCounts.bins(Items(items.itemsize, kind), *((min(keys), max(keys)) if keys else (1, 0)))
    histogram, or_of_keys = np.zeros(bins, np.uint64), 0
    for key in keys:
        histogram[(key >> shift) - first] += np.uint64(1)
        or_of_keys |= key
    return KeyCounts(histogram, shift, first, or_of_keys)


@st.composite
def streams(draw):
    """A type and items of it: any bits, few values, narrow ranges, trailing zero bits, special floats."""
    width, kind = draw(st.sampled_from(TYPES))
    bits = 8 * width
    number = st.integers(0, 2**bits - 1)
    shift = draw(st.integers(0, bits - 1))
    base = draw(number)
    special = [0, 1 << (bits - 1), 2**bits - 1]
    if width == 4:
        special += np.array([np.nan, -np.nan, np.inf, -0.0, 1.0, 5e-324], "<f4").view("<u4").tolist()
        special.append(0x7F800001)  # a signalling NaN
    item = draw(
        st.sampled_from(
            [
                number,
                st.just(base),
                st.just(0),
                number.map(lambda n: n >> shift << shift),
                st.integers(0, 300).map(lambda n: (base + n) % 2**bits),
                st.sampled_from(special),
            ]
        )
    )
    return np.array(draw(st.lists(item, max_size=60)), f"<u{width}"), kind


def flips(data):
    """Every change of one bit."""
    number = int.from_bytes(data, "little")
    return [(number ^ 1 << bit).to_bytes(len(data), "little") for bit in range(8 * len(data))]
