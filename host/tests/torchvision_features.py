"""Pooled features of a published network with random weights, and the weights: torchvision's,
or BN-Inception of Cadene's port, the package `pretrainedmodels`.

On the command line: NAME IMAGES.f32 SIDE WEIGHTS.safetensors. IMAGES.f32 holds n x 3 x SIDE x
SIDE little-endian f32 values. Writes the state dict to WEIGHTS.safetensors and, for every
image, four vectors to standard output as f32: the last map's mean, its maximum, their sum,
and its generalized mean with exponent 3. A transformer's class token is a map of one place.
Without arguments it says what packages it found.
"""

import importlib.util
import json
import pathlib
import sys

import numpy
import torch
import torchvision


def port_of_bninception():
    """The module of the port, without the rest of its package, which needs other packages."""
    package = importlib.util.find_spec("pretrainedmodels")
    if package is None:
        return None
    path = pathlib.Path(package.origin).parent / "models" / "bninception.py"
    spec = importlib.util.spec_from_file_location("bninception", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def randomize(name, model, images):
    """Batch norm that does something: fresh networks have the identity there.

    Statistics are those of the images and of noise, then shifted: with any others the
    features of deep networks hardly depend on the image, and nothing would show.
    """
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_(0.0, 0.1)
        norm.momentum = None
        norm.train()
    last_map(name, model, torch.cat([images, torch.randn(6, *images.shape[1:])]))
    for norm in norms:
        norm.eval()
        norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn_like(norm.bias)
        norm.running_var *= torch.empty_like(norm.bias).uniform_(0.5, 2.0)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d) and module.bias is not None:
            module.bias.normal_(0.0, 0.1)
        if isinstance(module, torch.nn.LayerNorm):
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0.0, 0.1)
    if name == "vit_b_16":
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0.0, 0.1)
            if name in ("class_token", "encoder.pos_embedding"):
                parameter.normal_(0.0, 0.5)


def last_map(name, model, images):
    if name.startswith("resnet"):
        layers = list(model.children())[:-2]
    elif name.startswith("shufflenet"):
        layers = list(model.children())[:-1]
    elif name == "vgg16":
        layers = list(model.features)[:-1]
    elif name == "bninception":
        return model.features(images)
    elif name == "vit_b_16":
        layers = [model, torch.nn.Unflatten(1, (-1, 1, 1))]
    else:
        layers = [model.features]
    return torch.nn.Sequential(*layers)(images)


def save(tensors, path):
    """The safetensors format: length of the header, header, values."""
    header, data = {}, []
    end = 0
    for name, tensor in tensors.items():
        values = tensor.contiguous().numpy().tobytes()
        dtype = {torch.float32: "F32", torch.int64: "I64"}[tensor.dtype]
        span = [end, end + len(values)]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": span}
        data.append(values)
        end += len(values)
    header = json.dumps(header).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        file.write(b"".join(data))


@torch.no_grad()
def main(name, images, side, weights):
    torch.manual_seed(7)
    torch.set_num_threads(1)
    images = numpy.fromfile(images, "<f4").reshape(-1, 3, int(side), int(side))
    images = torch.from_numpy(images)
    if name == "mobilenet_v2_035":
        model = torchvision.models.mobilenet_v2(weights=None, width_mult=0.35).eval()
    elif name == "bninception":
        model = port_of_bninception().BNInception().eval()
    elif name == "vit_b_16":
        model = torchvision.models.vit_b_16(weights=None, image_size=int(side)).eval()
        model.heads = torch.nn.Identity()
    else:
        model = getattr(torchvision.models, name)(weights=None).eval()
    randomize(name, model, images)
    save(model.state_dict(), weights)
    found = last_map(name, model, images)
    mean, largest = found.mean((2, 3)), found.amax((2, 3))
    gem = found.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3)
    pooled = torch.stack([mean, largest, mean + largest, gem], 1)
    sys.stdout.buffer.write(pooled.numpy().astype("<f4").tobytes())


if len(sys.argv) > 1:
    main(*sys.argv[1:])
else:
    print("torchvision", "pretrainedmodels" if port_of_bninception() else "")
