"""Two-dimensional convolutions with packed filters: conv2d, and its gradient for the images.

A convolution is a product of the filters, a matrix (filters, channels * height * width), with a matrix that has a
column for every place of the output: the pixels under the filter there (im2col; Chellapilla, Puri and Simard 2006,
"unrolling"). That matrix repeats each pixel once for every position of the filter, so native code lays out only the
columns that a thread multiplies next. Filters that see few channels (groups) are moved over the images themselves.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.lib.stride_tricks import as_strided

from codec import kernels
from codec.arraylike import as_array
from codec.errors import ArgumentError
from codec.frame import check_out
from codec.interop.csr import Csr, entries
from codec.matrix import dimensions, is_int
from codec.packed import PackedTensor
from codec.products import multiply, multiply_pixels
from codec.products.matrices import fill
from codec.products.operands import Kind, apart, in_items, kind_of, row_term

# Of the gradient, bytes of a block of unrolled columns and of the padded images that it is added to; an image and the
# columns of one row of the output may take more.
BLOCK_BYTES = 4 << 20
MOST_STEP = 1 << 31  # numbers of strides, gaps and padding that kernels take
Pair = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """How filters of ``kernel`` pixels move over images; ``padding`` is (top, bottom, left, right)."""

    kernel: Pair
    stride: Pair
    padding: tuple[int, int, int, int]
    dilation: Pair

    @classmethod
    def of(cls, kernel: Pair, stride: Any, padding: Any, dilation: Any) -> Self:
        """From the arguments of conv2d; ArgumentError for those that make no sense."""
        steps, gaps = _pair("stride", stride, 1), _pair("dilation", dilation, 1)
        if not isinstance(padding, str):
            high, wide = _pair("padding", padding, 0)
            return cls(kernel, steps, (high, high, wide, wide), gaps)
        if padding not in ("valid", "same"):
            raise ArgumentError(f"padding={padding!r}; expected an int, two of them, 'valid' or 'same'")
        if padding == "valid":
            return cls(kernel, steps, (0, 0, 0, 0), gaps)
        if steps != (1, 1):
            raise ArgumentError(f"padding='same' with stride={stride!r}; expected stride=1: give padding as numbers")
        high, wide = (gap * (size - 1) for gap, size in zip(gaps, kernel, strict=True))
        return cls(kernel, steps, (high // 2, high - high // 2, wide // 2, wide - wide // 2), gaps)

    @property
    def sizes(self) -> tuple[int, ...]:
        """As kernels take it: of the kernel, of steps and gaps, and of the padding before and behind an image."""
        top, bottom, left, right = self.padding
        return (*self.kernel, *self.stride, *self.dilation, top, left, bottom, right)

    def padded(self, height: int, width: int) -> Pair:
        """Height and width of an image with its padding."""
        top, bottom, left, right = self.padding
        return height + top + bottom, width + left + right

    def output(self, height: int, width: int) -> Pair:
        """Height and width of what an image of that size becomes; ArgumentError where the filter is larger."""
        sizes = []
        for size, kernel, step, gap in zip(
            self.padded(height, width), self.kernel, self.stride, self.dilation, strict=True
        ):
            reach = gap * (kernel - 1) + 1
            if not kernel or size < reach:
                raise ArgumentError(
                    f"an image of {height} x {width} with padding {self.padding} is smaller than a filter of "
                    f"{self.kernel} with dilation {self.dilation}: {size} pixels, expected {max(1, reach)} at least"
                )
            sizes.append((size - reach) // step + 1)
        return sizes[0], sizes[1]

    def under(self, padded: np.ndarray, output: Pair, rows: slice) -> np.ndarray:
        """The pixels under the filter at some rows of the output, as a view of padded images.

        (channels, kernel height, kernel width, images, rows, output width)
        """
        images, channels, down, right = padded.strides
        first = padded[:, :, rows.start * self.stride[0] :]
        return as_strided(
            first,
            (padded.shape[1], *self.kernel, len(padded), rows.stop - rows.start, output[1]),
            (channels, down * self.dilation[0], right * self.dilation[1], images, down * self.stride[0],
             right * self.stride[1]),
        )  # fmt: skip

    def inside(self, height: int, width: int) -> tuple[slice, slice]:
        """Where the image lies in its padding."""
        top, _, left, _ = self.padding
        return slice(top, top + height), slice(left, left + width)


def conv2d(
    x: Any,
    w: PackedTensor,
    bias: Any = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    out: np.ndarray | None = None,
    threads: int | None = None,
) -> np.ndarray:
    """A two-dimensional convolution with packed filters, as torch.nn.functional.conv2d.

    Parameters
    ----------
    x : array-like, (images, channels, height, width) or (channels, height, width)
        An array or a dense torch tensor, of a dtype as for `matvec`.
    w : PackedTensor, (filters, channels / groups, kernel height, kernel width)
        In the default matrix view, which has a row for each filter.
    bias : array-like, (filters,), optional
    stride, dilation : int or (int, int)
        Steps of the filter, and between the pixels under it, along height and width.
    padding : int, (int, int), "valid" or "same"
        Zeros around an image: so many on both sides of height and width; none; or as many as keep its size.
    groups : int
        Channels and filters are divided into so many groups; a filter sees the channels of its group alone.
    out : ndarray, optional
        Where to put the result; of the result's shape and dtype, any strides. It may overlap x and bias, and even the
        memory of w.
    threads : int, optional
        At most this many threads; the result does not depend on it.

    Returns
    -------
    ndarray, (images, filters, output height, output width), without images where x has none
        In the dtype that `matvec` gives. A zero weight contributes nothing, also against an infinity or NaN.

    Raises
    ------
    ArgumentError
        For shapes, dtypes and numbers that do not go together.
    FormatError, ChecksumError
        If w's bytes are damaged.

    Notes
    -----
    Filters and input channels that are zeros as a whole add no multiplications in layouts that keep non-zeros alone.
    Layout "sell", which ``objective="speed"`` takes of floats, multiplies what is left of such filters as fast as a
    dense matrix.

    Beyond x and the result each thread takes 512 KiB of pixels under the filter, or those of 32 places of the output
    where these are more, and the sums that belong to them. Images and results of dtypes that kernels do not take, such
    as integers of less than 64 bits, are converted about 8 MiB at a time, one image at least. An ``out`` whose pixels
    do not lie at equal steps over an image is computed in memory of its own first. With ``groups`` above 1 each thread
    takes only the channels of a group with their padding, and w keeps its non-zero weights with their places, 12 bytes
    or more for each (of integers: w packed once more, as filters for all channels).

    Examples
    --------
    >>> w = codec.encode(np.ones((2, 1, 3, 3), np.float32))
    >>> conv2d(np.ones((1, 5, 5), np.float32), w, padding=1)[0, 0]
    array([4., 6., 6., 6., 4.], dtype=float32)
    """
    _check_filters(w, groups)
    filters, channels, kernel = w.shape[0], w.shape[1] * groups, w.shape[2:]
    cols = channels * prod(kernel)
    images = as_array(x)
    if images.ndim not in (3, 4):
        raise ArgumentError(f"x has {dimensions(images.ndim)}; expected 4, (images, channels, height, width), or 3")
    if images.shape[-3] != channels:
        raise ArgumentError(f"x is {images.shape}; expected {channels} channels, as w has for groups={groups}")
    window = Window.of((kernel[0], kernel[1]), stride, padding, dilation)
    output = window.output(images.shape[-2], images.shape[-1])
    kind = kind_of(w.spans.head.element, images, cols)
    shape = (*images.shape[:-3], filters, *output)
    result = np.empty(shape, kind.result) if out is None else check_out(out, shape, kind.result)
    term = row_term("bias", bias, filters)
    if out is not None and w.spans.overlaps(out):
        whole = conv2d(
            images, w, term, stride=stride, padding=padding, dilation=dilation, groups=groups, threads=threads
        )
        w.spans.put(whole, out)
        return out
    if out is not None:
        images, term = apart(images, out), None if term is None else apart(term, out)
    many, target = (images[None], result[None]) if images.ndim == 3 else (images, result)
    if groups > 1 and kind.acc.is_float:
        _filter(_taps(w, kind.acc.dtype), window, groups, many, target, kind, term, threads)
        return result
    sums = target.reshape(len(many), filters, prod(output)).swapaxes(0, 1)
    multiply_pixels(_for_all_channels(w, groups), many, window.sizes, sums, kind, bias=term, threads=threads)
    if not np.may_share_memory(sums, target):
        target[...] = sums.swapaxes(0, 1).reshape(target.shape)
    return result


def conv2d_input(
    shape: tuple[int, ...],
    w: PackedTensor,
    gradient: np.ndarray,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    threads: int | None = None,
) -> np.ndarray:
    """The gradient for the images of `conv2d`, as torch.nn.grad.conv2d_input.

    Parameters
    ----------
    shape : (images, channels, height, width)
        Of the images.
    w, stride, padding, dilation, groups, threads
        As for `conv2d`.
    gradient : ndarray, (images, filters, output height, output width)
        Of the result; floats.

    Returns
    -------
    ndarray, of that shape
        In the gradient's dtype, summed in float32 (float64 if either is that).

    Raises
    ------
    ArgumentError, FormatError, ChecksumError
        As `conv2d`.

    Examples
    --------
    >>> w = codec.encode(np.ones((1, 1, 2, 2), np.float32))
    >>> conv2d_input((1, 1, 3, 3), w, np.ones((1, 1, 2, 2), np.float32))[0, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]], dtype=float32)
    """
    _check_filters(w, groups)
    matrix = _for_all_channels(w, groups)
    filters, channels, kernel = w.shape[0], w.shape[1] * groups, w.shape[2:]
    cols = channels * prod(kernel)
    window = Window.of((kernel[0], kernel[1]), stride, padding, dilation)
    output = window.output(shape[-2], shape[-1])
    if len(shape) != 4 or shape[1] != channels or gradient.shape != (shape[0], filters, *output):
        raise ArgumentError(
            f"images of {shape} and a gradient of {gradient.shape}; expected (images, {channels}, height, width), and "
            f"(images, {filters}, {output[0]}, {output[1]}) as conv2d gives for them"
        )
    kind = kind_of(w.spans.head.element, gradient, filters)
    result = np.empty(shape, kind.result)
    size = window.padded(shape[-2], shape[-1])
    pixels = prod(size) * channels * kind.acc.width
    padded = np.empty(0)
    for some, rows in _blocks(shape[0], pixels, cols * kind.acc.width, output):
        if rows.start == 0:
            padded = np.zeros((some.stop - some.start, channels, *size), kind.acc.dtype)
        part = gradient[some, :, rows].swapaxes(0, 1).reshape(filters, -1)
        sums = multiply(matrix, part, transposed=True, threads=threads, kind=kind)
        under = window.under(padded, output, rows)
        # One position of the filter at a time: at these places the views do not overlap.
        for (row, col), each in zip(
            np.ndindex(*kernel), sums.reshape(channels, prod(kernel), -1).swapaxes(0, 1), strict=True
        ):
            under[:, row, col] += each.reshape(under[:, row, col].shape)
        if rows.stop == output[0]:
            result[some] = padded[:, :, *window.inside(shape[-2], shape[-1])]
    return result


class _Taps(NamedTuple):
    """Filters by their non-zero weights: where those of each begin, and the column of each in the filters' matrix."""

    starts: np.ndarray
    columns: np.ndarray
    weights: np.ndarray


def _taps(w: PackedTensor, acc: np.dtype) -> _Taps:
    """The filters so, in the dtype of the sums; w keeps them."""
    known = w.spans.products
    if acc not in known:
        _, starts, columns, values = entries(w.reshape(w.shape[0], -1).spans)
        there = values != 0  # a zero weight contributes nothing, kept or not
        known[acc] = _Taps(
            np.concatenate(([0], np.cumsum(there)))[starts].astype(np.uint64),
            columns[there].astype(np.uint64),
            values[there].astype(acc),
        )
    return known[acc]  # type: ignore[no-any-return]


def _filter(
    taps: _Taps,
    window: Window,
    groups: int,
    many: np.ndarray,
    target: np.ndarray,
    kind: Kind,
    bias: np.ndarray | None,
    threads: int | None,
) -> None:
    """The convolution straight from the images and the non-zero weights."""
    acc, count = kind.acc.dtype, kernels.thread_count(threads)
    term = None if bias is None else np.ascontiguousarray(np.broadcast_to(bias.reshape(-1), target.shape[1:2]), acc)
    if not many.size:  # no images, or nothing of them but padding
        fill(target.swapaxes(0, 1), term)
        return
    ready = kind.native and many.dtype.isnative and in_items(many)
    if ready and target.flags.c_contiguous:
        kernels.backend.filter_images(many, window.sizes, groups, *taps, term, target, count)
        return
    for image, own in zip(many, target, strict=True):
        pixels = image[None] if ready else image[None].astype(acc)
        sums = np.empty((1, *own.shape), pixels.dtype)
        kernels.backend.filter_images(pixels, window.sizes, groups, *taps, term, sums, count)
        with np.errstate(over="ignore", invalid="ignore"):  # what a narrow float cannot hold becomes an infinity
            own[...] = sums[0]


def _check_filters(w: Any, groups: int) -> None:
    """ArgumentError for what is no packed tensor of four dimensions in the default matrix view, and for groups that do
    not divide the filters.
    """
    if not isinstance(w, PackedTensor):
        raise ArgumentError(f"w is a {type(w).__name__}; expected a PackedTensor (codec.encode makes one)")
    if w.ndim != 4 or w.row_dims != 1:
        raise ArgumentError(
            f"w has shape {w.shape} and row_dims={w.row_dims}; expected (filters, channels, height, width) and "
            "row_dims=1: encode it as such"
        )
    if not is_int(groups) or groups < 1 or w.shape[0] % groups:
        raise ArgumentError(f"groups={groups!r}; expected an int that divides the {w.shape[0]} filters of w")


def _for_all_channels(w: PackedTensor, groups: int) -> PackedTensor:
    """The filters as a matrix with a column for every channel; those of other groups' channels are zeros."""
    if groups == 1:
        return w
    known = w.spans.products
    if groups not in known:
        (rows, cols), starts, indices, values = entries(w.reshape(w.shape[0], -1).spans)
        group = np.repeat(np.arange(rows) // (rows // groups), np.diff(starts))
        whole = PackedTensor.of_csr(Csr((rows, cols * groups), starts, indices + group * cols, values))
        known[groups] = whole.to_layout(objective="speed")
    return known[groups]  # type: ignore[no-any-return]


def _blocks(images: int, pixels: int, column: int, output: Pair) -> Iterator[tuple[slice, slice]]:
    """(images, rows of the output) of blocks that together are everything, in order, each of about BLOCK_BYTES.

    ``pixels`` are the bytes of a padded image, ``column`` those of an unrolled column. A block is some whole images, or
    some rows of one.
    """
    height, width = output
    each = pixels + column * height * width
    if each <= BLOCK_BYTES:
        step = BLOCK_BYTES // max(1, each)
        yield from ((slice(n, min(n + step, images)), slice(0, height)) for n in range(0, images, step))
        return
    step = max(1, BLOCK_BYTES // max(1, column * width))
    for n in range(images):
        yield from ((slice(n, n + 1), slice(row, min(row + step, height))) for row in range(0, height, step))


def _pair(name: str, value: Any, least: int) -> Pair:
    if type(value) is int and least <= value <= MOST_STEP:  # as most are; what follows takes longer than some layers
        return value, value
    both = value if isinstance(value, tuple | list) else (value, value)
    if len(both) != 2 or not all(is_int(one) and least <= one <= MOST_STEP for one in both):
        raise ArgumentError(f"{name}={value!r}; expected an int from {least} to {MOST_STEP}, or two of them")
    return int(both[0]), int(both[1])
