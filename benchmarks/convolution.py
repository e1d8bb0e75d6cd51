"""Convolutions with packed filters beside torch's dense ones, interleaved, one thread, float32.

Layers of 1x1 and 3x3 filters of the sizes of efficientnet_lite0 and VGG-16, with real weights: pruned by magnitude to
80 % zeros, with half of the filters removed, and depthwise ones with all weights; at one image and at eight. "x torch"
is the median over the rounds of torch's time by ours in the same round.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from datasets import values_of
from measure import Cell, Table, arguments, emit, interleaved, median, note, one_thread, times_as_fast

import codec

# Filters, channels, pixels of a side of the kernel and of the image.
LAYERS = (
    (96, 16, 1, 112), (144, 24, 1, 56), (240, 40, 1, 28), (480, 80, 1, 14), (672, 112, 1, 14), (1152, 192, 1, 7),
    (192, 1152, 1, 7), (320, 1152, 1, 7), (1280, 320, 1, 7),
    (64, 64, 3, 224), (128, 128, 3, 112), (256, 256, 3, 56), (512, 512, 3, 28), (512, 512, 3, 14),
)  # fmt: skip
# Channels and pixels of a side of the image, for 3x3 filters of one channel each.
DEPTHWISE = ((32, 112), (144, 56), (240, 28), (672, 14), (1152, 7))
SPARSITY = 0.8


def cases(weights: Any) -> Iterator[tuple[str, np.ndarray, int, int]]:
    """What was pruned, the filters, groups, and the side of the image."""
    for filters, channels, kernel, side in LAYERS:
        shape = (filters, channels, kernel, kernel)
        dense = values_of(weights, int(np.prod(shape))).reshape(shape)
        yield f"{SPARSITY:.0%} zeros", codec.prune.magnitude(dense, SPARSITY), 1, side
        kept = codec.prune.mask(dense, 0.5, structure="filter")
        yield "half of the filters", codec.prune.apply_mask(dense, kept), 1, side
    for channels, side in DEPTHWISE:
        yield "depthwise", values_of(weights, 9 * channels).reshape(channels, 1, 3, 3), channels, side


def main() -> None:
    one_thread()
    parser = arguments(__doc__ or "")
    parser.add_argument("--images", nargs="*", type=int, default=(1, 8), metavar="N", help="images at a time")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="for each layer")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[list[Cell]] = []
    for what, dense, groups, side in cases(options.weights):
        filters, channels, kernel, _ = dense.shape
        packed, weights = codec.encode(dense, objective="speed", batch=32), torch.from_numpy(dense)
        how = {"padding": kernel // 2, "groups": groups}
        for images in options.images:
            note(f"{what}: {dense.shape}, {images} images of {side} x {side}")
            x = np.random.default_rng(1).standard_normal((images, channels * groups, side, side)).astype(np.float32)
            own = partial(codec.conv2d, x, packed, **how)
            peer = partial(torch.nn.functional.conv2d, torch.from_numpy(x), weights, **how)
            exact = peer().numpy()
            if not np.allclose(own(), exact, rtol=0, atol=1e-4 * np.abs(exact).max()):
                raise SystemExit(f"{dense.shape}: the result is wrong")
            times = interleaved({"codec": own, "torch": peer}, seconds=options.seconds)
            row: list[Cell] = [what, f"{filters} x {channels}", f"{kernel} x {kernel}", str(side), str(images)]
            row += [times_as_fast(times["codec"], times["torch"]), *(1e3 * median(t) for t in times.values())]
            rows.append(row)
    columns = ["pruned", "filters x channels", "kernel", "side", "images", "x torch", "codec ms", "torch ms"]
    emit(options, [Table("Convolutions, one thread", columns, rows, left=5)])


if __name__ == "__main__":
    main()
