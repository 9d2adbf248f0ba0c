"""Embeds stored images with onnxruntime: NETWORK.onnx IMAGES.f32 SIDE on the command line.

IMAGES.f32 holds n x 3 x SIDE x SIDE little-endian f32 values. Writes the n embeddings
the same way to standard output, after the file has passed onnx's full check where onnx is
installed. Without arguments it only says whether it could, and check.
"""

import json
import sys

import numpy
import onnxruntime

try:
    import onnx
except ImportError:
    onnx = None


def check(path):
    """Valid by onnx's own reckoning, with names that a viewer can show."""
    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path)
    names = [node.name for node in model.graph.node]
    assert all(names) and len(set(names)) == len(names), "a node without a name of its own"
    for node in model.graph.node:
        assert node.name == node.output[0], (node.name, node.output[0])
    for key, value in ((it.key, it.value) for it in model.metadata_props):
        if key in ("rounding", "input_size", "resize", "crop", "mean", "std", "metrics"):
            json.loads(value)


if len(sys.argv) == 1:
    print("can check" if onnx else "can not check")
else:
    network, images, side = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if onnx:
        check(network)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    (embedding,) = session.get_outputs()
    assert (image.name, image.shape) == ("image", [1, 3, side, side]), (image.name, image.shape)
    assert embedding.name == "embedding", embedding.name
    assert session.get_modelmeta().custom_metadata_map["producer"] == "eyas"
    pixels = numpy.fromfile(images, "<f4").reshape(-1, 1, 3, side, side)
    for one in pixels:
        (found,) = session.run(["embedding"], {"image": one})
        sys.stdout.buffer.write(found.astype("<f4").tobytes())
