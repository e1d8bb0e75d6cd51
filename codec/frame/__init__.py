"""One tensor's bytes (spec section 4): a head, which is prefix, header and segment table, then the parts.

The frame knows bytes, not meaning. build.py makes one, proof.py proves the head of one, spans.py hands its parts to
the kernels.
"""

from codec.frame.build import build, predicted_size, restated
from codec.frame.head import MAGIC, VERSION, Description, Head, Parts, StreamHead
from codec.frame.memory import aligned, aligned_copy
from codec.frame.proof import Read, parse, read_head
from codec.frame.spans import Packed, Spans, check_out, in_memory, on_demand

__all__ = [
    "MAGIC",
    "VERSION",
    "Description",
    "Head",
    "Packed",
    "Parts",
    "Read",
    "Spans",
    "StreamHead",
    "aligned",
    "aligned_copy",
    "build",
    "check_out",
    "in_memory",
    "on_demand",
    "parse",
    "predicted_size",
    "read_head",
    "restated",
]
