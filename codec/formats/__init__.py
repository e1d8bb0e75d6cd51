"""Models and tensors in the files of other tools, in and out: one file for each format, one row in FORMATS.

    base         what a format is: a place that may hold it, an open source, the format itself
    positions    positions and values of other tools, proved, as packed tensors and back
    safetensors  plain tensors, and formats that keep a sparse one in several plain ones
    archives     .npz archives, and formats with a file for each tensor
    sparsity     TFLite's tree of levels
    registry     which formats there are, which of them a path holds, opening it
    conversion   from one format to another: which tensors go sparse, which files are written
    chunks       codecs for the chunks of zarr and numcodecs arrays

The other modules are the formats. Sparse matrices of libraries in memory cross in `codec.interop`.
"""

from codec.formats.base import Format, Place, Source
from codec.formats.conversion import Conversion, write_file
from codec.formats.registry import FORMATS, format_of, open_file, support

__all__ = ["FORMATS", "Conversion", "Format", "Place", "Source", "format_of", "open_file", "support", "write_file"]
