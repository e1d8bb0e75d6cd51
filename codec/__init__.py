"""codec makes pruning pay: the smallest lossless file for pruned weights, and products straight from its bytes.

The path, and the modules in its order:

    array -> layouts (where the values are) -> entropy (how their bytes are coded) -> frame (one tensor's bytes)
          -> model (many frames in one safetensors file) -> back, or straight into a product

`codec.tensor` shows the whole path in a screen; codec/README.md has the map.
"""

from codec import formats, prune
from codec.convolution import conv2d
from codec.costs import BreakEven, MachineProfile, Plan, break_even, plan, profile_machine
from codec.encoding.sizes import encoded_nbytes
from codec.encoding.stats import tensor_stats
from codec.errors import ArgumentError, ChecksumError, CodecError, FormatError, VersionError
from codec.kernels import threadpool_limits
from codec.model import decode_checkpoint, encode_checkpoint, load, load_file, safe_open, save, save_file
from codec.packed import PackedTensor
from codec.products import linear, matmul, matvec
from codec.statistics import TensorStats
from codec.tensor import decode, dumps, encode, loads

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "BreakEven",
    "ChecksumError",
    "CodecError",
    "FormatError",
    "MachineProfile",
    "PackedTensor",
    "Plan",
    "TensorStats",
    "VersionError",
    "break_even",
    "conv2d",
    "decode",
    "decode_checkpoint",
    "dumps",
    "encode",
    "encode_checkpoint",
    "encoded_nbytes",
    "formats",
    "linear",
    "load",
    "load_file",
    "loads",
    "matmul",
    "matvec",
    "plan",
    "profile_machine",
    "prune",
    "safe_open",
    "save",
    "save_file",
    "tensor_stats",
    "threadpool_limits",
]
