"""Writes a convolutional ONNX network as a LiteRT file, without TensorFlow.

Knows what `eyas zoo --onnx` writes, channels last and f32: convolution with its activation
fused, pooling, concatenation, channel shuffle, the head and its normalization. Padding that
is neither "same" nor none in LiteRT's sense becomes an operation of its own, as in other
converters. Not for networks from elsewhere: what is not known is refused by name.
"""

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import numpy_helper

SAME, VALID = schema.Padding.SAME, schema.Padding.VALID
FUSED = schema.ActivationFunctionType
FLOAT = schema.TensorType.FLOAT32


def pair(node, name, default):
    values = node.get(name, [default] * 2)
    if len(set(values)) != 1:
        raise ValueError(f"{node['name']}: {name} {values} differ by direction")
    return values[0]


class Writer:
    def __init__(self, path):
        graph = onnx.load(path).graph
        self.values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.nodes = [self.read(node) for node in graph.node]
        self.users = {}
        for node in self.nodes:
            for name in node["inputs"]:
                self.users.setdefault(name, []).append(node)
        self.done = set()
        self.buffers = [schema.BufferT()]
        self.tensors, self.operators, self.codes, self.known = [], [], [], {}
        (image,), (embedding,) = graph.input, graph.output
        _, channels, height, width = [d.dim_value for d in image.type.tensor_type.shape.dim]
        self.known[image.name] = self.tensor(image.name, [1, height, width, channels])
        inputs = [self.known[image.name]]
        for node in self.nodes:
            if node["output"] not in self.done:
                getattr(self, node["op"], self.unknown)(node)
        self.inputs, self.outputs = inputs, [self.known[embedding.name]]

    @staticmethod
    def read(node):
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        named = {"op": node.op_type, "name": node.name, "inputs": list(node.input)}
        return attributes | named | {"output": node.output[0]}

    def unknown(self, node):
        raise ValueError(f"{node['name']}: no LiteRT form of {node['op']} is known here")

    def tensor(self, name, shape, values=None):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, [int(n) for n in shape], FLOAT
        if values is not None:
            if values.dtype == np.int32:
                tensor.type = schema.TensorType.INT32
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
            tensor.buffer = len(self.buffers)
            self.buffers.append(buffer)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(self, name, values):
        return self.tensor(name, values.shape, values)

    def integers(self, name, values):
        return self.constant(name, np.array(values, np.int32))

    def shape(self, tensor):
        return self.tensors[tensor].shape

    def push(self, kind, inputs, shape, output, options=None, **fields):
        """An operation; `output` is the name that the ONNX graph knows its result by."""
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        known = [c.builtinCode for c in self.codes]
        if code.builtinCode not in known:
            self.codes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = [c.builtinCode for c in self.codes].index(code.builtinCode)
        result = self.tensor(output, shape)
        operator.inputs, operator.outputs = inputs, [result]
        if options:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(schema, options + "T")()
            for name, value in fields.items():
                setattr(operator.builtinOptions, name, value)
        self.operators.append(operator)
        self.known[output] = result
        return result

    def fused(self, node):
        """The activation that is the one user of a node, and the name of what it gives."""
        users = self.users.get(node["output"], [])
        if len(users) == 1 and (kind := self.activation(users[0])):
            self.done.add(users[0]["output"])
            return kind, users[0]["output"]
        return FUSED.NONE, node["output"]

    def activation(self, node):
        """What LiteRT fuses for a node, if it is one."""
        if node["op"] == "Clip" and self.bounds(node) == [0.0, 6.0]:
            return FUSED.RELU6
        return FUSED.RELU if node["op"] == "Relu" else None

    def bounds(self, node):
        return [float(self.values[name]) for name in node["inputs"][1:]]

    def padded(self, node, source, kernel, stride, value=0.0):
        """Source, LiteRT's padding, and the side of the result."""
        pads = node.get("pads", [0] * 4)
        side = self.shape(source)[1]
        out = (side + pads[0] + pads[2] - kernel) // stride + 1
        whole = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        same = [whole // 2] * 2 + [whole - whole // 2] * 2
        if pads == [0] * 4:
            return source, VALID, out
        if pads == same:
            return source, SAME, out
        if len(set(pads)) != 1:
            raise ValueError(f"{node['name']}: pads {pads} differ by side")
        name, by = f"{node['output']}.padded", [[0, 0], [pads[0]] * 2, [pads[0]] * 2, [0, 0]]
        n, _, _, channels = self.shape(source)
        shape = [n, side + 2 * pads[0], side + 2 * pads[0], channels]
        inputs = [source, self.integers(f"{name}.by", by)]
        if value == 0.0:
            return self.push("PAD", inputs, shape, name, "PadOptions"), VALID, out
        inputs.append(self.constant(f"{name}.value", np.array([value], np.float32)))
        return self.push("PADV2", inputs, shape, name, "PadV2Options"), VALID, out

    def Conv(self, node):
        source, weight, bias = node["inputs"]
        source, values = self.known[source], self.values[weight]
        outputs, per_group, kernel, _ = values.shape
        stride = pair(node, "strides", 1)
        source, padding, side = self.padded(node, source, kernel, stride)
        activation, output = self.fused(node)
        fields = {"padding": padding, "strideW": stride, "strideH": stride}
        kind = "CONV_2D", "Conv2DOptions"
        if node.get("group", 1) == 1:
            values = values.transpose(0, 2, 3, 1)
        elif per_group == 1 and node["group"] == outputs:
            values = values.transpose(1, 2, 3, 0)
            kind = "DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions"
            fields["depthMultiplier"] = 1
        else:
            raise ValueError(f"{node['name']}: {node['group']} groups")
        inputs = [source, self.constant(weight, values), self.constant(bias, self.values[bias])]
        shape = [1, side, side, outputs]
        self.push(kind[0], inputs, shape, output, kind[1], fusedActivationFunction=activation, **fields)

    def same_shape(self, kind, node, options=None, **fields):
        sources = [self.known[name] for name in node["inputs"] if name in self.known]
        largest = max((self.shape(source) for source in sources), key=np.prod)
        self.push(kind, sources, largest, fields.pop("output", node["output"]), options, **fields)

    def Relu(self, node):
        self.same_shape("RELU", node)

    def Clip(self, node):
        if not self.activation(node):
            raise ValueError(f"{node['name']}: bounds {self.bounds(node)}")
        self.same_shape("RELU6", node)

    def Add(self, node):
        activation, output = self.fused(node)
        self.same_shape("ADD", node, "AddOptions", output=output, fusedActivationFunction=activation)

    def Mul(self, node):
        self.same_shape("MUL", node, "MulOptions")

    def HardSigmoid(self, node):
        (source,), output = node["inputs"], node["output"]
        users = self.users[output]
        if len(users) == 1 and sorted(users[0]["inputs"]) == sorted([source, output]):
            self.done.add(users[0]["output"])
            self.same_shape("HARD_SWISH", node, output=users[0]["output"])
            return
        three, sixth = [
            self.constant(f"{output}.{name}", np.array([value], np.float32))
            for name, value in [("three", 3.0), ("sixth", 1 / 6)]
        ]
        source = self.known[source]
        shape, name = self.shape(source), f"{output}.moved"
        relu6 = {"fusedActivationFunction": FUSED.RELU6}
        moved = self.push("ADD", [source, three], shape, name, "AddOptions", **relu6)
        self.push("MUL", [moved, sixth], shape, output, "MulOptions")

    def MaxPool(self, node):
        kernel, stride = pair(node, "kernel_shape", 1), pair(node, "strides", 1)
        if node.get("ceil_mode", 0):
            raise ValueError(f"{node['name']}: ceil_mode")
        source = self.known[node["inputs"][0]]
        lowest = float(np.finfo(np.float32).min)
        source, padding, side = self.padded(node, source, kernel, stride, lowest)
        fields = {"padding": padding, "strideW": stride, "strideH": stride}
        fields |= {"filterWidth": kernel, "filterHeight": kernel}
        shape = [1, side, side, self.shape(source)[3]]
        self.push("MAX_POOL_2D", [source], shape, node["output"], "Pool2DOptions", **fields)

    def Concat(self, node):
        sources = [self.known[name] for name in node["inputs"]]
        shape = list(self.shape(sources[0]))
        shape[3] = sum(self.shape(source)[3] for source in sources)
        self.push("CONCATENATION", sources, shape, node["output"], "ConcatenationOptions", axis=3)

    def Slice(self, node):
        start, end, axis = [int(self.values[name][0]) for name in node["inputs"][1:]]
        source = self.known[node["inputs"][0]]
        if axis != 1:
            raise ValueError(f"{node['name']}: axis {axis}")
        shape = [*self.shape(source)[:3], end - start]
        bounds = {"begin": [0, 0, 0, start], "size": shape}
        bounds = [self.integers(f"{node['output']}.{k}", v) for k, v in bounds.items()]
        self.push("SLICE", [source, *bounds], shape, node["output"], "SliceOptions")

    def Reshape(self, node):
        """The first of three that shuffle channels: their groups are the last axis here."""
        shape = self.values[node["inputs"][1]]
        (transpose,) = self.users[node["output"]]
        (back,) = self.users[transpose["output"]]
        if transpose.get("perm") != [0, 2, 1, 3] or back["op"] != "Reshape":
            raise ValueError(f"{node['name']}: no shuffle of channels")
        self.done |= {transpose["output"], back["output"]}
        source = self.known[node["inputs"][0]]
        _, side, _, channels = self.shape(source)
        groups, output = int(shape[1]), back["output"]
        table = [side * side, groups, channels // groups]
        columns = [table[0], table[2], table[1]]
        whole = [1, side, side, channels]
        at = self.reshape(source, table, f"{output}.table")
        by = self.integers(f"{output}.by", [0, 2, 1])
        at = self.push("TRANSPOSE", [at, by], columns, f"{output}.columns", "TransposeOptions")
        self.reshape(at, whole, output)

    def reshape(self, source, shape, output):
        wanted = self.integers(f"{output}.shape", shape)
        return self.push("RESHAPE", [source, wanted], shape, output, "ReshapeOptions", newShape=shape)

    def GlobalAveragePool(self, node):
        source = self.known[node["inputs"][0]]
        axes = self.integers(f"{node['output']}.axes", [1, 2])
        shape = [1, 1, 1, self.shape(source)[3]]
        self.push("MEAN", [source, axes], shape, node["output"], "ReducerOptions", keepDims=True)

    def Flatten(self, node):
        source = self.known[node["inputs"][0]]
        if self.shape(source)[1] != 1:
            raise ValueError(f"{node['name']}: a map, not a vector")
        self.reshape(source, [1, self.shape(source)[3]], node["output"])

    def Gemm(self, node):
        source, weight, bias = node["inputs"]
        if not node.get("transB", 0):
            raise ValueError(f"{node['name']}: weights are not transposed")
        values = self.values[weight]
        inputs = [self.known[source], self.constant(weight, values)]
        inputs.append(self.constant(bias, self.values[bias]))
        shape = [1, values.shape[0]]
        self.push("FULLY_CONNECTED", inputs, shape, node["output"], "FullyConnectedOptions")

    def ReduceL2(self, node):
        """With the maximum and quotient that follow: x / max(|x|, tiny)."""
        (least,) = self.users[node["output"]]
        (quotient,) = self.users[least["output"]]
        if [least["op"], quotient["op"]] != ["Max", "Div"]:
            raise ValueError(f"{node['name']}: no normalization")
        self.done |= {least["output"], quotient["output"]}
        self.same_shape("L2_NORMALIZATION", node, "L2NormOptions", output=quotient["output"])

    def bytes(self):
        graph = schema.SubGraphT()
        graph.name, graph.tensors, graph.operators = "network", self.tensors, self.operators
        graph.inputs, graph.outputs = self.inputs, self.outputs
        model = schema.ModelT()
        model.version, model.description = 3, "network"
        model.operatorCodes, model.subgraphs, model.buffers = self.codes, [graph], self.buffers
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def convert(source, target):
    """Writes the ONNX file `source` as the LiteRT file `target`, channels last."""
    target.write_bytes(Writer(source).bytes())
