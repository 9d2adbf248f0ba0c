"""Embeds stored images with onnxruntime: NETWORK.onnx IMAGES.f32 SIDE on the command line.

IMAGES.f32 holds n x 3 x SIDE x SIDE little-endian f32 values. Writes the n embeddings
the same way to standard output. Without arguments it only says whether it could.
"""

import sys

import numpy
import onnxruntime

if len(sys.argv) > 1:
    network, images, side = sys.argv[1], sys.argv[2], int(sys.argv[3])
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
