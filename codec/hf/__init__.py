"""transformers: models that run from packed weights (extra ``[hf]``).

After ``import codec.hf``, ``from_pretrained`` reads folders that `save_pretrained` or ``codec encode`` wrote:

    config      CodecConfig: what config.json says of packed weights
    quantizer   how transformers loads them
    saving      save_pretrained

Without codec.hf such a folder is an error in transformers, as its weights have names that it does not look for.

>>> import codec.hf
>>> from transformers import AutoModelForCausalLM
>>> model = AutoModelForCausalLM.from_pretrained("Llama-packed")  # doctest: +SKIP
"""

try:
    import transformers as _transformers  # noqa: F401
except ImportError as error:
    raise ImportError("codec.hf needs transformers, which is not installed here: pip install 'codec[hf]'") from error

from codec.hf.config import CodecConfig
from codec.hf.quantizer import CodecQuantizer
from codec.hf.saving import save_pretrained

__all__ = ["CodecConfig", "CodecQuantizer", "save_pretrained"]
