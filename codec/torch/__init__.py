"""torch: modules that multiply straight from packed weights, and models in files (extra ``[torch]``, CPU).

In the order of imports:

    internals   names of torch that are not public
    frames      the packed tensor that lies in a torch buffer, proved once
    threads     torch's own threads, for products beside torch's work
    operators   torch.ops.codec: linear and conv2d, and their fake implementations
    derivatives what the operators are to reverse and forward mode and to torch.vmap
    transposing the transpose of a packed matrix, packed anew
    modules     SparseLinear, SparseConv1D, SparseConv2d
    weights     which weights of a model a product can use, and what holds the others back
    models      compress_model, to_dense, parameter_count
    files       save_model, load_model

>>> import torch
>>> import codec.torch
>>> model = codec.torch.compress_model(torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU()))  # doctest: +SKIP
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("codec.torch needs PyTorch, which is not installed here: pip install 'codec[torch]'") from error

from codec.arraylike import from_torch as to_numpy
from codec.arraylike import to_torch as from_numpy
from codec.interop.folding import fold_masks
from codec.torch import derivatives as _derivatives  # noqa: F401  # known to torch from here on
from codec.torch.files import load_model, save_model
from codec.torch.models import compress_model, parameter_count, to_dense
from codec.torch.modules import SparseConv1D, SparseConv2d, SparseLinear

__all__ = [
    "SparseConv1D",
    "SparseConv2d",
    "SparseLinear",
    "compress_model",
    "fold_masks",
    "from_numpy",
    "load_model",
    "parameter_count",
    "save_model",
    "to_dense",
    "to_numpy",
]
