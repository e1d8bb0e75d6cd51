"""Sparse matrices of other libraries, in and out without a dense copy, and published sparse formats.

csr.py proves arrays of other libraries and brings them into one form, CSR; scipy.py and torch.py know where each
library keeps its arrays; published/ has the formats of papers, array by array. Dense arrays and tensors cross in
codec.arraylike.
"""

from codec.interop.csr import Csr
from codec.interop.folding import fold_masks
from codec.interop.scipy import from_scipy, to_scipy
from codec.interop.torch import from_torch, to_torch

__all__ = ["Csr", "fold_masks", "from_scipy", "from_torch", "to_scipy", "to_torch"]
