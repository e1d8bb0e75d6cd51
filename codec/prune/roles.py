"""What a tensor is to a model, by its name and shape: weights that pruning is for, or what is better left alone.

Embeddings are looked up, not multiplied, so that zeros in them save no time and cost rare tokens their meaning; norms,
biases and other vectors are few numbers that every output depends on. Nothing but the name tells most of them apart, so
that this is a guess, made in one place and reported wherever it decides.
"""

import re

# Each is searched for in the parts of a name between its dots, in lower case.
_ROLES = (
    ("mask", re.compile(r"_mask$")),
    ("bias", re.compile(r"(^|_)bias$")),
    ("embedding", re.compile(r"embed|^w[tp]e$|(^|_)emb(_|$)|^shared$")),
    ("norm", re.compile(r"norm|^ln(_|\d|$)|^bn\d*$")),
)


def role(name: str, shape: tuple[int, ...]) -> str:
    """ "weight", or why a tensor is left alone by default: "mask", "bias", "embedding", "norm" or "vector".

    Parameters
    ----------
    name : str
        As models of the usual libraries call their parameters.
    shape : tuple of int
        What has fewer than two dimensions and no telling name is a "vector".

    Examples
    --------
    >>> role("model.embed_tokens.weight", (32000, 4096)), role("h.0.attn.c_attn.weight", (768, 2304))
    ('embedding', 'weight')
    """
    parts = re.split(r"[./]", name.lower())
    for found, pattern in _ROLES:
        if any(pattern.search(part) for part in parts):
            return found
    return "weight" if len(shape) >= 2 else "vector"
