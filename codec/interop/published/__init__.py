"""Published sparse formats, array by array as their papers have them, for tools that speak them.

Our own layouts keep the same positions in other bytes (segments, checksums, our own bit orders): `relative_index` with
``filler="value"`` is what EIE, Deep Compression, SCNN and MACKO do, `run_length` what Eyeriss does, `bitmap` what
compressed-tensors' bitmasks and SpInfer do, `n_m` what 2:4 sparsity does.
"""

from codec.interop.published.masks import (
    Bitmask,
    TwoOfFour,
    from_bitmask,
    from_tca_tile,
    from_two_of_four,
    sparse_24_bitmask,
    sparse_bitmask,
    tca_tile,
    two_of_four,
)
from codec.interop.published.relative import (
    Columns,
    Macko,
    Relative,
    eie_columns,
    eyeriss_pairs,
    eyeriss_words,
    from_eie_columns,
    from_eyeriss_words,
    from_macko,
    from_relative_index,
    macko,
    relative_index,
)

__all__ = [
    "Bitmask",
    "Columns",
    "Macko",
    "Relative",
    "TwoOfFour",
    "eie_columns",
    "eyeriss_pairs",
    "eyeriss_words",
    "from_bitmask",
    "from_eie_columns",
    "from_eyeriss_words",
    "from_macko",
    "from_relative_index",
    "from_tca_tile",
    "from_two_of_four",
    "macko",
    "relative_index",
    "sparse_24_bitmask",
    "sparse_bitmask",
    "tca_tile",
    "two_of_four",
]
