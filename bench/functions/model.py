"""Writes a network of the shape of ResNet-50 with random weights, 102 MB, as ONNX.

usage: model.py FILE
"""

import sys

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))  # width, blocks, stride of the first block
EXPANSION = 4
CLASSES = 1000


class Network:
    def __init__(self):
        self.chance = numpy.random.Generator(numpy.random.PCG64(1))
        self.nodes, self.weights = [], []

    def add(self, kind, inputs, **attributes):
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def weight(self, *shape, scale):
        name = f"w{len(self.weights)}"
        values = self.chance.standard_normal(shape, dtype=numpy.float32) * numpy.float32(scale)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def convolution(self, data, fan_in, fan_out, side, stride=1, gain=2.0):
        # Weights of such a size keep the values of all layers in bounds.
        scale = (gain / (fan_in * side * side)) ** 0.5
        inputs = [data, self.weight(fan_out, fan_in, side, side, scale=scale), self.weight(fan_out, scale=0.01)]
        pads, strides = [side // 2] * 4, [stride] * 2
        return self.add("Conv", inputs, kernel_shape=[side, side], pads=pads, strides=strides)

    def block(self, data, fan_in, width, stride):
        fan_out = width * EXPANSION
        inner = self.add("Relu", [self.convolution(data, fan_in, width, 1)])
        inner = self.add("Relu", [self.convolution(inner, width, width, 3, stride)])
        inner = self.convolution(inner, width, fan_out, 1, gain=0.2)
        if fan_in != fan_out or stride != 1:
            data = self.convolution(data, fan_in, fan_out, 1, stride, gain=1.0)
        return self.add("Relu", [self.add("Add", [inner, data])])


def main(path):
    network = Network()
    data = network.add("Relu", [network.convolution("picture", 3, 64, 7, 2)])
    data = network.add("MaxPool", [data], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])
    channels = 64
    for width, blocks, stride in STAGES:
        for number in range(blocks):
            data = network.block(data, channels, width, stride if number == 0 else 1)
            channels = width * EXPANSION
    data = network.add("Flatten", [network.add("GlobalAveragePool", [data])])
    scale = channels**-0.5
    last = [data, network.weight(channels, CLASSES, scale=scale), network.weight(CLASSES, scale=0.01)]
    network.nodes.append(helper.make_node("Gemm", last, ["scores"]))
    floats = TensorProto.FLOAT
    graph = helper.make_graph(
        network.nodes,
        "network",
        [helper.make_tensor_value_info("picture", floats, [1, 3, 224, 224])],
        [helper.make_tensor_value_info("scores", floats, [1, CLASSES])],
        network.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
