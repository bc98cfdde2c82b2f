"""A graph of ONNX nodes that is built from its inputs to its outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, checker, helper, numpy_helper

OPSET = 17  # read by ONNX Runtime 1.12, OpenVINO 2022.2 and later
IR_VERSION = 8


class Graph:
    """Nodes and constants; values are their names."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def node(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Add a node with one output, and return the name of the output."""
        output = name or f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """Add a constant, and return its name."""
        self._constants[name] = numpy_helper.from_array(np.asarray(value, dtype, order="C"), name)
        return name

    def encode(
        self,
        inputs: dict[str, tuple[str, list[Any]]],
        outputs: dict[str, tuple[str, list[Any]]],
        metadata: dict[str, str],
    ) -> bytes:
        """Return the file: the same bytes for the same graph.

        Parameters
        ----------
        inputs, outputs : dict of str to (str, list)
            By name, the data type, such as ``UINT8``, and the shape; a text is a size that may vary.
        metadata : dict of str to str
            Texts beside the graph.

        Raises
        ------
        onnx.checker.ValidationError
            The graph is not valid.
        """

        def described(values: dict[str, tuple[str, list[Any]]]) -> list[Any]:
            return [
                helper.make_tensor_value_info(name, getattr(TensorProto, kind), shape)
                for name, (kind, shape) in values.items()
            ]

        graph = helper.make_graph(
            self._nodes, "fruits", described(inputs), described(outputs), list(self._constants.values())
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="fruits",
        )
        helper.set_model_props(model, metadata)
        checker.check_model(model, full_check=True)
        encoded: bytes = model.SerializeToString(deterministic=True)
        return encoded
