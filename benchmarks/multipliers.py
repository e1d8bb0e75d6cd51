"""Other libraries that multiply weights, one class each: what they make of a matrix, and the product itself.

Each takes the dense matrix (rows, cols) in float32 and multiplies it with float32 columns (cols, batch), or in a type
of its own that its name tells. Those whose library is not installed are left out, and `missing` names them.
"""

import importlib.util
from abc import ABC, abstractmethod
from typing import Any

import numpy as np


class Peer(ABC):
    """One way to multiply. ``sparse``: it skips zeros."""

    name: str
    needs: str
    sparse = False
    precision = "F32"

    def __init__(self, dense: np.ndarray) -> None:
        self.weights = self.pack(dense)

    @abstractmethod
    def pack(self, dense: np.ndarray) -> Any:
        """The weights as the library wants them, in memory of their own."""

    def operand(self, x: np.ndarray) -> Any:
        """x, (cols,) or (cols, batch), as the library wants it: this is not timed."""
        return x

    def multiply(self, x: Any) -> Any:
        """The product."""
        return self.weights @ x

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return int(self.weights.nbytes)


class Numpy(Peer):
    """Dense, by NumPy's BLAS."""

    name, needs = "numpy", "numpy"

    def pack(self, dense: np.ndarray) -> Any:
        return dense.copy()


class ScipyCsr(Peer):
    """Compressed sparse rows of SciPy."""

    name, needs, sparse = "scipy CSR", "scipy", True

    def pack(self, dense: np.ndarray) -> Any:
        import scipy.sparse

        return scipy.sparse.csr_matrix(dense)

    @property
    def nbytes(self) -> int:
        return sum(int(a.nbytes) for a in (self.weights.data, self.weights.indices, self.weights.indptr))


class ScipyBsr(ScipyCsr):
    """Blocks of 4 x 4 of SciPy."""

    name = "scipy BSR 4x4"

    def pack(self, dense: np.ndarray) -> Any:
        import scipy.sparse

        return scipy.sparse.bsr_matrix(dense, blocksize=(4, 4))


class TorchBsr(Peer):
    """Blocks of 4 x 4 of torch, multiplied by MKL."""

    name, needs, sparse = "torch BSR 4x4 (MKL)", "torch", True

    def pack(self, dense: np.ndarray) -> Any:
        import torch

        return torch.from_numpy(dense).to_sparse_bsr((4, 4))

    def operand(self, x: np.ndarray) -> Any:
        import torch

        return torch.from_numpy(x)

    @property
    def nbytes(self) -> int:
        parts = (self.weights.values(), self.weights.col_indices(), self.weights.crow_indices())
        return sum(int(one.nbytes) for one in parts)


class Torch(Peer):
    """Dense, by torch (oneDNN or MKL)."""

    name, needs, dtype = "torch", "torch", "float32"

    def pack(self, dense: np.ndarray) -> Any:
        import torch

        return torch.from_numpy(dense.copy()).to(getattr(torch, self.dtype))

    def operand(self, x: np.ndarray) -> Any:
        import torch

        return torch.from_numpy(x).to(getattr(torch, self.dtype))


class TorchBfloat16(Torch):
    """Dense bfloat16, by torch: weights, x and result."""

    name, dtype, precision = "torch BF16", "bfloat16", "BF16"


def quantised(dense: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of 8 bits, and a scale for each row."""
    scale = np.maximum(np.abs(dense).max(axis=1), 1e-30) / 127
    return np.rint(dense / scale[:, None]).astype(np.int8), scale.astype(np.float32)


class TorchInt8(Torch):
    """Dense weights of 8 bits, a scale for each row, by torch; x and result are float32, a line for each column."""

    name, precision = "torch int8 weights", "I8"

    def pack(self, dense: np.ndarray) -> Any:
        import torch

        weights, scale = quantised(dense)
        self.scale = torch.from_numpy(scale)
        return torch.from_numpy(weights)

    def operand(self, x: np.ndarray) -> Any:
        import torch

        return torch.from_numpy(np.ascontiguousarray(x.reshape(len(x), -1).T))

    def multiply(self, x: Any) -> Any:
        import torch

        return torch.ops.aten._weight_int8pack_mm(x, self.weights, self.scale)


class Runtime(Peer):
    """Dense weights that a runtime for whole models prepares as it likes; x and result are lines of a batch."""

    def operand(self, x: np.ndarray) -> Any:
        return np.ascontiguousarray(x.reshape(len(x), -1).T)

    @property
    def nbytes(self) -> int:
        return self.held

    def shaped(self, lines: np.ndarray) -> np.ndarray:
        """The result as other peers give it."""
        return lines[0] if len(lines) == 1 else lines.T


class OnnxRuntime(Runtime):
    """ONNX Runtime on the CPU."""

    name, needs = "ONNX Runtime", "onnxruntime"

    def pack(self, dense: np.ndarray) -> Any:
        import onnx
        import onnxruntime

        self.held = dense.nbytes
        ends = [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, n])
            for name, n in (("x", dense.shape[1]), ("y", dense.shape[0]))
        ]
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)], "product", ends[:1], ends[1:],
            [onnx.numpy_helper.from_array(dense, "w")],
        )  # fmt: skip
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def multiply(self, x: Any) -> Any:
        return self.shaped(self.weights.run(None, {"x": x})[0])


class OpenVino(Runtime):
    """OpenVINO on the CPU."""

    name, needs = "OpenVINO", "openvino"
    bits, computed_in = 32, "f32"

    def constant(self, dense: np.ndarray) -> Any:
        """The weights in the model."""
        import openvino

        return openvino.opset13.constant(dense)

    def pack(self, dense: np.ndarray) -> Any:
        import openvino

        self.held = dense.size * self.bits // 8
        ops = openvino.opset13
        x = ops.parameter(openvino.PartialShape([-1, dense.shape[1]]), np.float32)
        model = openvino.Model([ops.matmul(x, self.constant(dense), False, True)], [x])
        hints = {
            "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": self.computed_in,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",  # or x would be rounded to 8 bits where weights are
        }  # fmt: skip
        return openvino.Core().compile_model(model, "CPU", hints).create_infer_request()

    def multiply(self, x: Any) -> Any:
        return self.shaped(self.weights.infer({0: x}, share_inputs=True, share_outputs=True)[0])


class OpenVinoBfloat16(OpenVino):
    """Dense bfloat16, by OpenVINO: weights and sums of pairs; x and result are float32."""

    name, precision = "OpenVINO BF16", "BF16"
    bits, computed_in = 16, "bf16"


class OpenVinoInt8(OpenVino):
    """Dense weights of 8 bits, a scale for each row, by OpenVINO; x, sums and result are float32."""

    name, precision, bits = "OpenVINO int8 weights", "I8", 8

    def constant(self, dense: np.ndarray) -> Any:
        import openvino

        ops = openvino.opset13
        weights, scale = quantised(dense)
        return ops.multiply(ops.convert(ops.constant(weights), np.float32), ops.constant(scale[:, None]))


class TorchCsr(Torch):
    """Compressed sparse rows of torch, multiplied by MKL."""

    name, sparse = "torch CSR (MKL)", True

    def pack(self, dense: np.ndarray) -> Any:
        return super().pack(dense).to_sparse_csr()

    @property
    def nbytes(self) -> int:
        parts = (self.weights.values(), self.weights.col_indices(), self.weights.crow_indices())
        return sum(int(one.nbytes) for one in parts)


PEERS: tuple[type[Peer], ...] = (
    Numpy, Torch, TorchBfloat16, TorchInt8, OnnxRuntime, OpenVino, OpenVinoBfloat16, OpenVinoInt8,
    ScipyCsr, ScipyBsr, TorchBsr, TorchCsr,
)  # fmt: skip


def present() -> list[type[Peer]]:
    """The peers whose library is installed."""
    return [peer for peer in PEERS if importlib.util.find_spec(peer.needs)]


def missing() -> list[str]:
    """Names of the others."""
    return [peer.name for peer in PEERS if not importlib.util.find_spec(peer.needs)]
