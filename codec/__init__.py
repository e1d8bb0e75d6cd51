"""codec makes pruning pay: the smallest lossless file for pruned weights, and products straight from its bytes.

The path, and the modules in its order:

    array -> layouts (where the values are) -> entropy (how their bytes are coded) -> frame (one tensor's bytes)
          -> modelfile (many frames in one safetensors file) -> back, or straight into a product

`codec.tensor` shows the whole path in a screen; README.md has the map.
"""

from codec import prune
from codec.breakeven import BreakEven, break_even
from codec.choose import encoded_nbytes
from codec.errors import ArgumentError, ChecksumError, CodecError, FormatError, VersionError
from codec.kernels import threadpool_limits
from codec.modelfile import load_file, safe_open, save_file
from codec.product import linear, matmul, matvec
from codec.stats import TensorStats, tensor_stats
from codec.tensor import PackedTensor, decode, dumps, encode, loads

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "BreakEven",
    "ChecksumError",
    "CodecError",
    "FormatError",
    "PackedTensor",
    "TensorStats",
    "VersionError",
    "break_even",
    "decode",
    "dumps",
    "encode",
    "encoded_nbytes",
    "linear",
    "load_file",
    "loads",
    "matmul",
    "matvec",
    "prune",
    "safe_open",
    "save_file",
    "tensor_stats",
    "threadpool_limits",
]
