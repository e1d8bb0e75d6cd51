"""How many bytes a planned frame takes, from counts alone."""

from codec.encoding.request import FramePlan
from codec.entropy import CODINGS, NONE
from codec.errors import ArgumentError
from codec.frame import StreamHead, predicted_size
from codec.frame.head import padded, part_alignment
from codec.layouts import StreamKind
from codec.layouts.base import Needs, Sizes
from codec.statistics import Counts


def needs_of(plan: FramePlan) -> Needs:
    """The statistics that ``predict`` looks at."""
    coded = any(plan.allowed(kind) != (NONE,) for kind in plan.kinds)
    return plan.layout.size_needs | (plan.layout.key_needs if coded else frozenset())


def predict(plan: FramePlan, counts: Counts, negative_zeros: int) -> int:
    """Bytes of a frame: exact without the entropy stage, within 1 % with huffman and rans, an upper estimate with zstd.

    A stream of which ``counts`` does not tell the items counts as incompressible. ArgumentError where ``counts`` does
    not tell its size either.
    """
    sizes = plan.values.stream_bytes(plan.layout, plan.spec.grid, plan.spec.element, counts)
    heads, parts = [], 0
    for kind, size in zip(plan.kinds, sizes, strict=True):
        head, nbytes = _stream(plan, kind, size, counts)
        heads.append(head)
        parts += nbytes
    return predicted_size(plan, counts.nnz, negative_zeros, heads, parts)


def _stream(plan: FramePlan, kind: StreamKind, size: Sizes, counts: Counts) -> tuple[StreamHead, int]:
    """How a stream is coded, and the bytes of its parts with their padding."""
    allowed, grid = plan.allowed(kind), plan.spec.grid
    best, least = None, None
    if size is not None and NONE in allowed:
        least = int(size.sum())
        best = StreamHead(kind.name, least), int(padded(size, plan.layout).sum())
    number = 1 if kind.shared else grid.segments
    codings = [name for name in allowed if name != NONE]
    keys = plan.values.key_counts(plan.layout, kind.name, grid, plan.spec.element, counts) if codings else None
    for name in codings:
        found = CODINGS[name].predict(kind.items, keys, least or 0, number)
        if found is None:
            continue
        nbytes, state = found
        if least is None or nbytes + CODINGS[name].header_bytes(state) < least:
            least = nbytes + CODINGS[name].header_bytes(state)
            # Padding of a part is 0 to 7 bytes, each as likely.
            padding = (part_alignment(plan.layout) - 1) * number // 2
            best = StreamHead(kind.name, nbytes, name, state), nbytes + padding
    if best is None and size is not None:  # always coded, and its items are not known: incompressible
        best = StreamHead(kind.name, int(size.sum())), int(padded(size, plan.layout).sum())
    if best is None:
        raise ArgumentError(
            f"the size of stream {kind.name!r} of layout {plan.layout.name} needs stats=tensor_stats(a), with its "
            "block= or group="
        )
    return best
