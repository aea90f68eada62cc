"""ONNX Runtime's MatMulNBits as a contender (packages onnxruntime and onnx; extra `onnx`).

Owns the graph, its session and the choice between spinning and sleeping threads. One graph holds
several copies of the weight that are multiplied in turn, as an exported decoder does; x and y are
fp32, which its CPU kernel prefers. Threads: as many as torch has.
"""

import time
from typing import Any

import torch

from kernels.linear_lowbit.codes import LowBit

LEVELS = (0, 4)
# Blocks that MatMulNBits knows; a scale for a whole row is repeated for each.
MOST_BLOCK = 128
TRIALS = 5
TRIAL_SECONDS = 0.5
PAUSE = 0.01


def absent() -> str | None:
    """None, or the sentence why it cannot be timed here."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        return f"{error.name} is not installed; pip install 'trimtab[onnx]' brings it"
    return None


def refuse(form: LowBit) -> str | None:
    """None, or the rest of a sentence that begins with MatMulNBits."""
    if form.kind != "int" or form.bits not in (2, 4, 8) or form.zero is not None:
        return f"takes symmetric integers of 2, 4 and 8 bit here, not {form.format}"
    if form.k % min(form.group_size, MOST_BLOCK):
        return f"takes whole blocks of k, not {form.k} in {form.group_size}"
    return None


class Session:
    """`copies` products with the form's matrix in one graph, at an accuracy level."""

    def __init__(self, form: LowBit, copies: int, level: int) -> None:
        self._copies = copies
        model = _model(form, copies, level)
        x = torch.randn(1, form.k)
        tried = {}
        for spinning in (False, True):
            session = _session(model, spinning)
            call = self._bound(session, x)
            call()
            took: list[float] = []
            while len(took) < TRIALS and sum(took) < TRIAL_SECONDS:
                time.sleep(PAUSE)
                if sum(took) < TRIAL_SECONDS / 10:
                    call()
                started = time.perf_counter()
                call()
                took.append(time.perf_counter() - started)
            tried[spinning] = (min(took), session)
        # The better one is kept, whichever that is.
        self.spinning = tried[True][0] < tried[False][0]
        self._session = tried[self.spinning][1]

    def bind(self, x: torch.Tensor) -> Any:
        """A call that runs the graph once over x [M, k]."""
        return self._bound(self._session, x)

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """y fp32 [M, n] of the first copy."""
        outputs = self._session.run(["y0"], {"x": x.float().numpy()})
        return torch.from_numpy(outputs[0])

    def _bound(self, session: Any, x: torch.Tensor) -> Any:
        binding = session.io_binding()
        binding.bind_cpu_input("x", x.float().numpy())
        for i in range(self._copies):
            binding.bind_output(f"y{i}")
        return lambda: session.run_with_iobinding(binding)


def _session(model: bytes, spinning: bool) -> Any:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    return onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])


def _model(form: LowBit, copies: int, level: int) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    block = min(form.group_size, MOST_BLOCK)
    each = 8 // form.bits
    grouped = form.codes.view(form.n, -1, block // each, each)
    packed = grouped[..., 0].clone()
    for place in range(1, each):
        packed |= grouped[..., place] << (place * form.bits)
    blocks = form.k // block
    scale = form.scale.repeat_interleave(blocks // form.groups, dim=1).contiguous()
    nodes, weights, outputs = [], [], []
    for i in range(copies):
        # Each copy differs: ONNX Runtime keeps equal initializers once, and a loop over them would
        # read the cache (found by timing, 1.31).
        other = packed.roll(i // 256, dims=0) ^ (i % 256)
        weights.append(numpy_helper.from_array(other.numpy(), f"w{i}"))
        weights.append(numpy_helper.from_array((scale * (1 + i / 4096)).numpy(), f"s{i}"))
        nodes.append(
            helper.make_node(
                "MatMulNBits",
                ["x", f"w{i}", f"s{i}"],
                [f"y{i}"],
                domain="com.microsoft",
                K=form.k,
                N=form.n,
                bits=form.bits,
                block_size=block,
                accuracy_level=level,
            )
        )
        outputs.append(helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, ["M", form.n]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["M", form.k])
    graph = helper.make_graph(nodes, "copies", [x], outputs, weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    content: bytes = model.SerializeToString()
    return content
