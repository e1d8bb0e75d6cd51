"""Activations packed at run time, as behind a ReLU: how fast they are packed, unpacked, and multiplied.

float32 activations of a few sizes and shares of zeros, into layout bitmap without an entropy stage, one thread. Speeds
are in GB of dense float32 activations a second, medians over rounds; input and result are as warm as in a program that
has just made the activations. "memcpy" copies them once. The product is that of the packed activations with packed
weights of 4096 columns and 90 % zeros; "x dense" compares it with the product of the dense activations.
"""

from functools import partial

import numpy as np
from datasets import values_of
from measure import Cell, Table, arguments, emit, interleaved, median, one_thread, times_as_fast

import codec

SHAPES = ((1, 4096), (8, 4096), (32, 4096), (256, 4096), (1024, 4096))
ZEROS = (0.5, 0.65, 0.8, 0.95)


def activations(shape: tuple[int, int], zeros: float) -> np.ndarray:
    """What a ReLU leaves of a normal distribution with so many zeros."""
    a = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return np.maximum(a - np.quantile(a, zeros).astype(np.float32), 0)


def main() -> None:
    one_thread()
    parser = arguments(__doc__ or "")
    parser.add_argument("--seconds", type=float, default=0.5, metavar="S", help="for each point")
    options = parser.parse_args()
    weights = values_of(options.weights, 1024 * 4096).reshape(1024, 4096)
    w = codec.encode(codec.prune.magnitude(weights, 0.9), objective="speed")
    rows: list[list[Cell]] = []
    for shape in SHAPES:
        for zeros in ZEROS:
            a = activations(shape, zeros)
            packed = codec.encode(a, layout="bitmap", entropy="none")
            out, room = np.empty_like(a), np.empty_like(a)
            if codec.decode(packed).tobytes() != a.tobytes():
                raise SystemExit("the activations do not come back")
            if codec.linear(packed, w).tobytes() != codec.linear(a, w).tobytes():
                raise SystemExit("the product of packed activations is another")
            times = interleaved(
                {
                    "encode": partial(codec.encode, a, layout="bitmap", entropy="none"),
                    "decode": partial(codec.decode, packed, out=out),
                    "memcpy": partial(np.copyto, room, a),
                    "packed": partial(codec.linear, packed, w),
                    "dense": partial(codec.linear, a, w),
                },
                seconds=options.seconds,
                most=2000,
            )
            speed = [a.nbytes / median(times[name]) / 1e9 for name in ("encode", "decode", "memcpy")]
            row: list[Cell] = [f"{shape[0]} x {shape[1]}", f"{zeros:.0%}", a.nbytes, packed.nbytes]
            rows.append([*row, *speed, times_as_fast(times["packed"], times["dense"])])
    columns = [
        "activations",
        "zeros",
        "bytes",
        "packed",
        "encode GB/s",
        "decode GB/s",
        "memcpy GB/s",
        "x dense",
    ]
    emit(options, [Table("float32 activations in layout bitmap, one thread", columns, rows, left=2)])


if __name__ == "__main__":
    main()
