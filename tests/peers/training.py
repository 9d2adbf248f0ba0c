"""Training speed beside PyTorch: the same network, batch, threads and augmentation.

Runs `eyas bench-training` and the same recipe in PyTorch (torchvision's network, PIL,
a DataLoader), in another random order each round, and prints inputs per second of all. PyTorch
runs twice: as it lays out maps by itself (`torch`), and with network and images in its
`channels_last` format, for which its users have to ask (`torch cl`). Behind `together` stands
its share of training alone, and its share of what the rates of loader and training allow
where both use the same cores. Needs torch and torchvision. Example:

    python tests/peers/training.py --eyas target/release/eyas \
        --recipe models/recipes/grocery-reg.toml --data grocery --list train.txt \
        --start squeezenet1_1.safetensors --threads 2 --steps 20 --rounds 3

`--list` names the images of the split, one path a line or first in a comma-separated line,
relative to the data folder; without it all JPEG and PNG files below the folder are taken.

On a GPU (`--compute gpu --precision bf16`) PyTorch trains eagerly with torch.autocast, with a
gradient scaler in f16, and its DataLoader pins memory; the share of time that the GPU was busy
is sampled by nvidia-smi beside both. Its samples cover up to a second each, so measure for many
seconds: `--steps 1000`. Images are prepared on as many threads (Eyas) or processes (PyTorch) as
the machine has cores, 8 at most, whatever `--threads` says.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import threading
import time
import tomllib
from pathlib import Path

import torch
import torchvision
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

WARMUP_STEPS = 3
FILTERS = {
    "bilinear": transforms.InterpolationMode.BILINEAR,
    "bicubic": transforms.InterpolationMode.BICUBIC,
}


def network(name, dim):
    """A backbone of torchvision with global average pooling and a linear head."""
    if name.startswith("squeezenet"):
        body, width = torchvision.models.get_model(name).features, 512
    elif name.startswith("resnet"):
        whole = torchvision.models.get_model(name)
        body, width = nn.Sequential(*list(whole.children())[:-2]), whole.fc.in_features
    else:
        raise SystemExit(f"`{name}` has no counterpart here: take a squeezenet or a resnet")
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, dim))


class Images(Dataset):
    """Augmented views of images with random unit vectors as targets."""

    def __init__(self, paths, recipe):
        augmentation, pixels = recipe["augmentation"], recipe["input"]
        jitter = augmentation["jitter"]
        steps = [
            transforms.RandomResizedCrop(
                pixels["crop"],
                scale=augmentation["crop_area"],
                ratio=augmentation["crop_aspect"],
                interpolation=FILTERS[pixels["filter"]],
            )
        ]
        if augmentation["mirror"]:
            steps.append(transforms.RandomHorizontalFlip())
        if jitter > 0:
            steps.append(transforms.ColorJitter(jitter, jitter, jitter))
        steps += [transforms.ToTensor(), transforms.Normalize(pixels["mean"], pixels["std"])]
        self.change = transforms.Compose(steps)
        self.paths = paths
        self.targets = nn.functional.normalize(torch.randn(len(paths), recipe["dim"]))

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, idx):
        with Image.open(self.paths[idx]) as image:
            return self.change(image.convert("RGB")), self.targets[idx]


class Busy:
    """The busy share of the first GPU, sampled while this is open."""

    def __init__(self, is_gpu):
        self.samples = []
        self.sampler = None
        if not is_gpu:
            return
        query = ["--id=0", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        self.sampler = subprocess.Popen(
            ["nvidia-smi", *query, "--loop-ms=200"], stdout=subprocess.PIPE, text=True
        )
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.sampler.stdout:
            if line.strip().isdigit():
                self.samples.append((time.time(), int(line)))

    def share(self, window):
        """Mean of the samples in a window of seconds since 1970; NaN if there are none."""
        since, until = window
        inside = [share for at, share in self.samples if since <= at <= until]
        return sum(inside) / len(inside) / 100 if inside else float("nan")

    def close(self):
        if self.sampler:
            self.sampler.terminate()
            self.sampler.wait()


def loader(images, recipe, args):
    """A fresh DataLoader: workers start with every iterator, as in an epoch."""
    is_gpu = args.compute == "gpu"
    return DataLoader(
        images,
        batch_size=recipe["batch"]["images"],
        shuffle=True,
        drop_last=True,
        num_workers=min(os.cpu_count(), 8) if is_gpu else args.threads,
        persistent_workers=True,
        pin_memory=is_gpu,
    )


def batches(source, n_steps):
    """`n_steps` batches, over as many epochs as it takes."""
    done = 0
    while True:
        for batch in source:
            yield batch
            done += 1
            if done == n_steps:
                return


class Trainer:
    """AdamW and regression of unit vectors, in f32 or under autocast."""

    KINDS = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}

    def __init__(self, recipe, layout, args):
        self.device = torch.device("cuda:0" if args.compute == "gpu" else "cpu")
        self.layout = layout
        self.kind = self.KINDS[args.precision]
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.kind == torch.float16
        )
        self.model = network(recipe["architecture"], recipe["dim"]).train().to(self.device)
        self.model = self.model.to(memory_format=layout)
        settings = recipe["optimizer"]
        if settings["kind"] != "adamw":
            raise SystemExit("the counterpart here knows AdamW only")
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=1e-9, weight_decay=settings["weight_decay"]
        )

    def step(self, images, targets):
        images = images.to(self.device, non_blocking=True, memory_format=self.layout)
        targets = targets.to(self.device, non_blocking=True)
        self.optimizer.zero_grad(set_to_none=True)
        is_mixed = self.kind != torch.float32
        with torch.autocast(self.device.type, self.kind, enabled=is_mixed):
            outputs = self.model(images)
        outputs = nn.functional.normalize(outputs.float())
        loss = 0.5 * (outputs - targets).square().sum(1).mean()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.item()


def torch_speed(images, recipe, layout, args):
    """Inputs per second: loader, training, together; then when the last two ran."""
    n_steps = args.steps
    torch.set_num_threads(args.threads)
    rows = n_steps * recipe["batch"]["images"]
    trainer = Trainer(recipe, layout, args)
    side = recipe["input"]["crop"]
    made = torch.randn(recipe["batch"]["images"], 3, side, side)
    targets = nn.functional.normalize(torch.randn(len(made), recipe["dim"]))
    for _ in range(WARMUP_STEPS):
        trainer.step(made, targets)
    started, since = time.time(), time.perf_counter()
    for _ in range(n_steps):
        trainer.step(made, targets)
    training = rows / (time.perf_counter() - since)
    windows = [(started, time.time())]

    since = time.perf_counter()
    for _ in batches(loader(images, recipe, args), n_steps):
        pass
    loading = rows / (time.perf_counter() - since)

    started, since = time.time(), time.perf_counter()
    for batch in batches(loader(images, recipe, args), n_steps):
        trainer.step(*batch)
    together = rows / (time.perf_counter() - since)
    return (loading, training, together), [*windows, (started, time.time())]


def eyas_speed(args):
    """The same of `eyas bench-training`."""
    words = [args.eyas, "bench-training", args.recipe, "--data", args.data, "--split", args.split]
    words += ["--compute", args.compute, "--precision", args.precision]
    words += ["--threads", str(args.threads), "--steps", str(args.steps)]
    if args.start:
        words += ["--start", args.start]
    said = json.loads(subprocess.run([*words, "--json"], check=True, stdout=subprocess.PIPE).stdout)
    parts = ("loader", "training", "together")
    windows = [said["training_window"], said["together_window"]]
    return tuple(said[f"{part}_per_second"] for part in parts), windows


def image_paths(args):
    root = Path(args.data)
    if args.list:
        lines = (root / args.list).read_text().splitlines()
        return [root / line.split(",")[0].strip() for line in lines if line.strip()]
    endings = {".jpg", ".jpeg", ".png"}
    return sorted(path for path in root.rglob("*") if path.suffix.lower() in endings)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--eyas", required=True, help="the program")
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="train")
    parser.add_argument("--list", help="file of the split's images in the data folder")
    parser.add_argument("--start", help="starting weights for eyas; they cost no time")
    parser.add_argument("--compute", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--precision", choices=("f32", "bf16", "f16"), default="f32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    recipe = tomllib.loads(Path(args.recipe).read_text())
    if recipe["batch"]["kind"] != "shuffled" or recipe["batch"]["views"] != 1:
        raise SystemExit("the counterpart here knows shuffled batches of one view only")
    random.seed(1)
    torch.manual_seed(1)
    images = Images(image_paths(args), recipe)
    is_gpu = args.compute == "gpu"
    if is_gpu and not torch.cuda.is_available():
        raise SystemExit("this PyTorch finds no GPU")
    where = torch.cuda.get_device_name(0) if is_gpu else f"CPU, {args.threads} threads"
    print(f"{where}, {args.precision}, PyTorch {torch.__version__}")
    names = ["loader", "training", "together", "of training", "of possible"]
    names += ["busy train.", "busy toget."] if is_gpu else []
    print(f"{'round':8}{'':10}" + "".join(f"{name:>12}" for name in names))
    methods = {
        "eyas": lambda: eyas_speed(args),
        "torch": lambda: torch_speed(images, recipe, torch.contiguous_format, args),
        "torch cl": lambda: torch_speed(images, recipe, torch.channels_last, args),
    }
    seen = {who: [] for who in methods}
    for round_idx in range(args.rounds):
        for who in random.sample(list(methods), len(methods)):
            busy = Busy(is_gpu)
            try:
                speeds, windows = methods[who]()
            finally:
                busy.close()
            shares = [busy.share(window) for window in windows] if is_gpu else []
            loading, training, together = speeds
            possible = 1 / (1 / loading + 1 / training)
            seen[who].append((*speeds, together / training, together / possible))
            cells = [f"{x:12.1f}" for x in speeds]
            cells += [f"{x:12.2f}" for x in (*seen[who][-1][3:], *shares)]
            print(f"{round_idx + 1:<8}{who:10}" + "".join(cells), flush=True)
    medians = {
        who: [statistics.median(column) for column in zip(*rounds)]
        for who, rounds in seen.items()
    }
    for who, median in medians.items():
        cells = [f"{x:12.1f}" for x in median[:3]] + [f"{x:12.2f}" for x in median[3:]]
        print(f"{'median':8}{who:10}" + "".join(cells))
    for who in ("torch", "torch cl"):
        ratios = [ours / theirs for ours, theirs in zip(medians["eyas"][:3], medians[who])]
        name = f"eyas / {who}"
        print(f"{name:18}" + "".join(f"{ratio:12.2f}" for ratio in ratios))


if __name__ == "__main__":
    main()
