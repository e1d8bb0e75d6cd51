"""Model files: many tensors in one safetensors file, packed or as themselves (spec section 8).

In the order of imports:

    disk        bytes of files, at positions
    foreign     what a file is that is no safetensors file
    container   the safetensors file: its header, proved before use
    atomic      files that appear when they are whole, and nothing left behind by those that fail
    index       what the file's metadata say of its tensors, and all checksums
    carried     tensors as their bytes, of every dtype that safetensors has
    file        one open model file
    reader      an open model: information, tensors, slices, verify
    shards      which file a path means, and models of many files
    opening     safe_open, load_file, load
    packing     which tensors are packed, how, and which are stored once
    writer      save_file, save
    huggingface what config.json says of a folder's weights
    output      which files a model is written to, and which others come along
    reindexing  the index made again
    journal     which of them are finished
    checkpoint  encode_checkpoint, decode_checkpoint: whole folders, shard by shard, resumable
"""

from codec.model.checkpoint import CheckpointReport, decode_checkpoint, encode_checkpoint
from codec.model.file import naming
from codec.model.opening import load, load_file, safe_open
from codec.model.packing import worth_packing
from codec.model.reader import ModelFile, TensorCheck, TensorInfo, TensorSlice, VerifyReport
from codec.model.reindexing import reindex
from codec.model.writer import save, save_file

__all__ = [
    "CheckpointReport",
    "ModelFile",
    "TensorCheck",
    "TensorInfo",
    "TensorSlice",
    "VerifyReport",
    "decode_checkpoint",
    "encode_checkpoint",
    "load",
    "load_file",
    "naming",
    "reindex",
    "safe_open",
    "save",
    "save_file",
    "worth_packing",
]
