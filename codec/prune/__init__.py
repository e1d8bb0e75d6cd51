"""Which weights go: scores say how much each structure matters, masks say which weights are kept.

Pruning has three steps, and each has one place:

    structures   what goes or stays as one: a weight, n of every m, a block, a row, a kernel, a channel
    scoring      one number per structure: what matters least has the lowest
    masking      False at the lowest; `apply_mask` puts +0.0 there

`mask` and `masks` take the three in one call, for one tensor or for all under one threshold; `magnitude` is the
shortest way to unstructured zeros. `removals` finds that threshold for models that do not fit into memory, and
`mask_of` makes one tensor's mask by it. `role` tells weights from embeddings, norms and biases. Nothing changes the
caller's arrays. codec.prune.checkpoint prunes model files.

>>> import numpy as np
>>> magnitude(np.array([0.5, -0.1, 0.3, -2.0]), 0.5)
array([ 0.5,  0. ,  0. , -2. ])
>>> w = np.array([[1, -3, 2, 0.5], [4, 1, -1, 1]])
>>> apply_mask(w, mask(w, structure="2:4"))
array([[ 0., -3.,  2.,  0.],
       [ 4.,  0.,  0.,  1.]])
"""

from codec.prune.masking import apply_mask, magnitude, magnitude_mask, mask, mask_lowest, mask_of, masks
from codec.prune.roles import role
from codec.prune.scoring import CRITERIA, magnitude_scores, scores
from codec.prune.structures import NAMES, check_structure, fixes_sparsity, structures_of
from codec.prune.thresholds import CAP, removals

__all__ = [
    "CAP",
    "CRITERIA",
    "NAMES",
    "apply_mask",
    "check_structure",
    "fixes_sparsity",
    "magnitude",
    "magnitude_mask",
    "magnitude_scores",
    "mask",
    "mask_lowest",
    "mask_of",
    "masks",
    "removals",
    "role",
    "scores",
    "structures_of",
]
