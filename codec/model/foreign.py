"""What a file is that is not a safetensors file, told by its first bytes, and how to make a model file of it."""

from codec.frame import MAGIC

LOOK = 512  # bytes from the start of a file that tell what it is

_CONVERT = "`codec convert` makes a model file of it"
_KNOWN: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: `git lfs pull` fetches that"),
    (MAGIC, "one packed tensor without a model file around it: codec.loads reads it"),
    (b"GGUF", "a GGUF file: convert the model that it was made from, or export its tensors with the package gguf"),
    (
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file, as Keras writes: read it with h5py, and codec.save_file writes the arrays",
    ),
    (b"\x93NUMPY", "a NumPy array: codec.save_file({'name': numpy.load(path)}, 'model.safetensors') stores it"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstandard: decompress it first"),
    (b"\x1f\x8b", "compressed with gzip: decompress it first"),
    (b"<!DOCTYPE", "a web page, probably an error message instead of the file: fetch it again"),
    (b"<html", "a web page, probably an error message instead of the file: fetch it again"),
)
# Files of these names hold weights; where a model is packed from safetensors, they would double it.
WEIGHT_SUFFIXES = (
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".onnx_data", ".gguf", ".tflite"),
    *(".npz", ".npy", ".pkl", ".pickle", ".ot"),
)


def what_it_is(first: bytes, path: str = "") -> str | None:
    """What a file of another kind is and what to do with it, or None where its first bytes do not tell.

    >>> what_it_is(b"GGUF\\x03\\x00").partition(":")[0]
    'a GGUF file'
    """
    for start, words in _KNOWN:
        if first.startswith(start):
            return words
    if first.startswith(b"PK\x03\x04"):
        member = first[30 : 30 + int.from_bytes(first[26:28], "little")]
        if member.endswith(b".npy"):
            return (
                "NumPy arrays (.npz): `codec convert` reads a sparse matrix of scipy, and "
                "codec.save_file(dict(numpy.load(path)), 'model.safetensors') stores others"
            )
        if member.endswith((b"/data.pkl", b"/version", b"/byteorder", b"/.format_version")):
            return f"a PyTorch checkpoint, a zip of pickles: {_CONVERT}, with weights_only=True"
        return "a zip archive: unpack it first"
    if first[:1] == b"\x80" and first[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return f"a pickle, as old PyTorch checkpoints are: {_CONVERT}, with weights_only=True"
    if first[4:8] == b"TFL3":
        return f"a TFLite model: {_CONVERT}"
    # A protobuf: field 1 of ONNX is ir_version (a small integer), and the name of the producer follows.
    if path.endswith(".onnx") or (first[:1] == b"\x08" and b"\0" < first[1:2] < b"\x20" and first[2:3] == b"\x12"):
        return f"an ONNX model: {_CONVERT}"
    if first[:1] == b"{":
        return "JSON: give the *.index.json of a sharded model, or a .safetensors file"
    if not first.strip(b"\0"):
        return "nothing but zero bytes so far, as a download that was cut off leaves: fetch it again"
    return None
