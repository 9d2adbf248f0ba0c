"""Class token of DINOv2's ViT-S/14 with random weights, in NumPy from the paper's formulas.

On the command line: dinov2_vits14 IMAGES.f32 SIDE WEIGHTS.safetensors. IMAGES.f32 holds n x 3
x SIDE x SIDE little-endian f32 values. Writes weights under the names of the published
checkpoints, whose positions are those of 518 pixels, to WEIGHTS.safetensors, and for every
image the class token behind the last norm to standard output as f32; all is computed in f64.
Where torch is installed, the interpolation of positions is held against it. Without
arguments it says what packages it found.
"""

import json
import math
import sys

import numpy

CHANNELS, HEADS, BLOCKS, PATCH, TRAINED_SIDE = 384, 6, 12, 14, 518 // 14
EPSILON = 1e-6


def random_weights():
    random = numpy.random.default_rng(5)

    def matrix(rows, columns):
        return random.normal(0, columns**-0.5, (rows, columns))

    def near(center, spread, n):
        return random.normal(center, spread, n)

    weights = {
        "cls_token": near(0, 0.5, (1, 1, CHANNELS)),
        "pos_embed": near(0, 0.5, (1, 1 + TRAINED_SIDE**2, CHANNELS)),
        "mask_token": near(0, 1, (1, CHANNELS)),
        "patch_embed.proj.weight": near(0, 0.04, (CHANNELS, 3, PATCH, PATCH)),
        "patch_embed.proj.bias": near(0, 0.1, CHANNELS),
    }
    for block in range(BLOCKS):
        for layer, outputs, inputs in [
            ("attn.qkv", 3 * CHANNELS, CHANNELS),
            ("attn.proj", CHANNELS, CHANNELS),
            ("mlp.fc1", 4 * CHANNELS, CHANNELS),
            ("mlp.fc2", CHANNELS, 4 * CHANNELS),
        ]:
            weights[f"blocks.{block}.{layer}.weight"] = matrix(outputs, inputs)
            weights[f"blocks.{block}.{layer}.bias"] = near(0, 0.1, outputs)
        for half in "12":
            weights[f"blocks.{block}.norm{half}.weight"] = near(1, 0.2, CHANNELS)
            weights[f"blocks.{block}.norm{half}.bias"] = near(0, 0.1, CHANNELS)
            weights[f"blocks.{block}.ls{half}.gamma"] = near(0.8, 0.2, CHANNELS)
    weights["norm.weight"] = near(1, 0.2, CHANNELS)
    weights["norm.bias"] = near(0, 0.1, CHANNELS)
    return {name: values.astype("<f4") for name, values in weights.items()}


def bicubic(n_trained, n):
    """Matrix from trained rows to new ones: taps of Keys' cubic with a = -0.75."""
    a, scale = -0.75, (n + 0.1) / n_trained
    matrix = numpy.zeros((n, n_trained))
    for new in range(n):
        at = (new + 0.5) / scale - 0.5
        for tap in range(math.floor(at) - 1, math.floor(at) + 3):
            x = abs(at - tap)
            if x <= 1:
                share = (a + 2) * x**3 - (a + 3) * x**2 + 1
            else:
                share = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
            matrix[new, min(max(tap, 0), n_trained - 1)] += share
    return matrix


def positions(trained, n):
    patches = trained[1:].reshape(TRAINED_SIDE, TRAINED_SIDE, CHANNELS)
    matrix = bicubic(TRAINED_SIDE, n)
    fitted = numpy.einsum("yr,xc,rcd->yxd", matrix, matrix, patches)
    check_against_torch(patches, fitted, n)
    return numpy.concatenate([trained[:1], fitted.reshape(n * n, CHANNELS)])


def check_against_torch(patches, fitted, n):
    try:
        import torch
    except ImportError:
        return
    scale = (n + 0.1) / TRAINED_SIDE
    planes = torch.from_numpy(patches).permute(2, 0, 1)[None]
    found = torch.nn.functional.interpolate(planes, scale_factor=(scale, scale), mode="bicubic")
    found = found[0].permute(1, 2, 0).numpy()
    assert found.shape == fitted.shape, found.shape
    assert abs(found - fitted).max() < 1e-9, abs(found - fitted).max()


def layer_norm(x, gain, shift):
    centered = x - x.mean(1, keepdims=True)
    return centered / numpy.sqrt((centered**2).mean(1, keepdims=True) + EPSILON) * gain + shift


def attention(x, weight, bias):
    depth = CHANNELS // HEADS
    q, k, v = ((x @ weight.T + bias).reshape(len(x), 3, HEADS, depth)).transpose(1, 2, 0, 3)
    scores = numpy.exp(q @ k.transpose(0, 2, 1) * depth**-0.5)
    mixed = scores / scores.sum(2, keepdims=True) @ v
    return mixed.transpose(1, 0, 2).reshape(len(x), CHANNELS)


erf = numpy.vectorize(math.erf)


def class_token(weights, image):
    w = weights.get
    n = image.shape[1] // PATCH
    image = image[:, : n * PATCH, : n * PATCH]
    patches = image.reshape(3, n, PATCH, n, PATCH).transpose(1, 3, 0, 2, 4).reshape(n * n, -1)
    x = patches @ w("patch_embed.proj.weight").reshape(CHANNELS, -1).T + w("patch_embed.proj.bias")
    x = numpy.concatenate([w("cls_token")[0], x]) + positions(w("pos_embed")[0], n)
    for block in range(BLOCKS):

        def b(name):
            return w(f"blocks.{block}.{name}")

        normal = layer_norm(x, b("norm1.weight"), b("norm1.bias"))
        mixed = attention(normal, b("attn.qkv.weight"), b("attn.qkv.bias"))
        x = x + b("ls1.gamma") * (mixed @ b("attn.proj.weight").T + b("attn.proj.bias"))
        normal = layer_norm(x, b("norm2.weight"), b("norm2.bias"))
        wide = normal @ b("mlp.fc1.weight").T + b("mlp.fc1.bias")
        active = wide * (1 + erf(wide / math.sqrt(2))) / 2
        x = x + b("ls2.gamma") * (active @ b("mlp.fc2.weight").T + b("mlp.fc2.bias"))
    return layer_norm(x, w("norm.weight"), w("norm.bias"))[0]


def save(weights, path):
    """The safetensors format: length of the header, header, values."""
    header, end = {}, 0
    for name, values in weights.items():
        span = [end, end + values.nbytes]
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": span}
        end = span[1]
    header = json.dumps(header).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        for values in weights.values():
            file.write(values.tobytes())


def main(name, images, side, path):
    assert name == "dinov2_vits14", name
    weights = random_weights()
    save(weights, path)
    images = numpy.fromfile(images, "<f4").reshape(-1, 3, int(side), int(side))
    weights = {name: values.astype("f8") for name, values in weights.items()}
    for image in images.astype("f8"):
        sys.stdout.buffer.write(class_token(weights, image).astype("<f4").tobytes())


if len(sys.argv) > 1:
    main(*sys.argv[1:])
else:
    print("numpy")
