"""From the bytes of photographs to a tensor, beside OpenCV and Pillow: one thread, methods in
random order, each time with another photograph.

Two things are timed: decoding alone, and the whole way to a normalized 3 x CROP x CROP tensor
of the shorter side CROP. Pillow resizes as Eyas does; OpenCV once by `INTER_AREA`, which also
looks at every pixel, and once by `INTER_LINEAR`, which does not and gives other pixels. The
photographs come as they are and, with --size, resized to others first (bicubic, quality 90).
A quarter as many rounds go before, untimed. Needs numpy, opencv-python-headless, Pillow. Example:

    cargo build --release --workspace --example pixels
    python tests/peers/pixels.py --example target/release/examples/pixels \\
        --size 640x480 --csv models/results/pixels.csv PHOTOGRAPHS
"""

import argparse
import csv
import io
import os
import platform
import random
import subprocess
import tempfile
import time
from pathlib import Path

for name in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]:
    os.environ[name] = "1"

import cv2
import numpy as np
import PIL
from PIL import Image

MEAN = np.float32([0.485, 0.456, 0.406])
STD = np.float32([0.229, 0.224, 0.225])


def photographs(folder, n_files, size, to, seed):
    """Writes a sample of the photographs of a folder to another one."""
    found = sorted(folder.rglob("*.jpg"))
    random.Random(seed).shuffle(found)
    files = []
    for path in found[:n_files]:
        content = path.read_bytes()
        if size:
            image = Image.open(io.BytesIO(content)).convert("RGB")
            scale = max(size[0] / image.width, size[1] / image.height)
            across, down = round(image.width * scale), round(image.height * scale)
            image = image.resize((across, down), Image.BICUBIC)
            left, top = (across - size[0]) // 2, (down - size[1]) // 2
            image = image.crop((left, top, left + size[0], top + size[1]))
            out = io.BytesIO()
            image.save(out, "JPEG", quality=90)
            content = out.getvalue()
        files.append(to / f"{len(files)}.jpg")
        files[-1].write_bytes(content)
    return files


def normalized(image):
    """Rounds as torchvision does: three operations, channels first."""
    tensor = (image.astype(np.float32) / np.float32(255) - MEAN) / STD
    return np.ascontiguousarray(tensor.transpose(2, 0, 1))


def with_opencv(content, crop, interpolation):
    image = cv2.cvtColor(cv2.imdecode(content, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    height, width = image.shape[:2]
    shorter = min(height, width)
    size = (crop * width // shorter, crop * height // shorter)
    image = cv2.resize(image, size, interpolation=interpolation)
    left, top = (size[0] - crop) // 2, (size[1] - crop) // 2
    return normalized(image[top : top + crop, left : left + crop])


def with_pillow(content, crop):
    image = Image.open(io.BytesIO(content)).convert("RGB")
    shorter = min(image.size)
    size = (crop * image.width // shorter, crop * image.height // shorter)
    image = image.resize(size, Image.BILINEAR)
    left, top = (size[0] - crop) // 2, (size[1] - crop) // 2
    return normalized(np.asarray(image.crop((left, top, left + crop, top + crop))))


class Eyas:
    """The example program, which times itself."""

    def __init__(self, program, files, crop):
        self.process = subprocess.Popen(
            [program, "serve", "bilinear", str(crop), str(crop), *map(str, files)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline().strip() == "ready"

    def ask(self, file):
        self.process.stdin.write(f"{file}\n")
        self.process.stdin.flush()
        decoding, preparing = map(int, self.process.stdout.readline().split())
        return decoding * 1e-9, (decoding + preparing) * 1e-9


def methods(files, crop):
    """Name, and a function from the number of a file to seconds."""
    contents = [path.read_bytes() for path in files]
    arrays = [np.frombuffer(content, np.uint8) for content in contents]

    def timed(work):
        def run(file):
            started = time.perf_counter()
            work(file)
            return time.perf_counter() - started

        return run

    def area(file):
        return with_opencv(arrays[file], crop, cv2.INTER_AREA)

    def linear(file):
        return with_opencv(arrays[file], crop, cv2.INTER_LINEAR)

    return {
        "decode, opencv": timed(lambda file: cv2.imdecode(arrays[file], cv2.IMREAD_COLOR)),
        "decode, pillow": timed(lambda file: Image.open(io.BytesIO(contents[file])).load()),
        "tensor, opencv area": timed(area),
        "tensor, opencv linear": timed(linear),
        "tensor, pillow": timed(lambda file: with_pillow(contents[file], crop)),
    }


def machine():
    model = "unknown CPU"
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), model)
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of photographs")
    parser.add_argument("--example", required=True, help="the example program `pixels`")
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--size", help="WIDTHxHEIGHT to bring the photographs to")
    parser.add_argument("--crop", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--csv", type=Path, help="file that the figures are appended to")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    size = tuple(map(int, args.size.split("x"))) if args.size else None
    order = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        files = photographs(args.folder, args.files, size, Path(folder), args.seed)
        peers = methods(files, args.crop)
        eyas = Eyas(args.example, files, args.crop)
        times = {name: [] for name in ["decode, eyas", "tensor, eyas", *peers]}
        load = []
        for turn in range(-(args.rounds // 4), args.rounds):
            load.append(os.getloadavg()[0])
            names = ["eyas", *peers]
            order.shuffle(names)
            file = order.randrange(len(files))
            for name in names:
                if name == "eyas":
                    took = dict(zip(["decode, eyas", "tensor, eyas"], eyas.ask(file)))
                else:
                    took = {name: peers[name](file)}
                if turn >= 0:
                    for name, seconds in took.items():
                        times[name].append(seconds * 1e3)
        eyas.process.stdin.close()
        eyas.process.wait()
    print(f"{len(files)} photographs, {args.size or 'as they are'}, crop {args.crop}, "
        f"{args.rounds} rounds, seed {args.seed}")
    print(f"{machine()}; load {np.median(load):.1f} (median); opencv {cv2.__version__}, "
        f"Pillow {PIL.__version__}, numpy {np.__version__}")
    print(f"{'method':24} {'quartile ms':>12} {'median':>9} {'x eyas':>7} {'(quartile)':>10}")
    table = []
    for name, took in times.items():
        base = times[f"{name.split(',')[0]}, eyas"]
        low, median = np.percentile(took, 25), np.median(took)
        ratio, low_ratio = median / np.median(base), low / np.percentile(base, 25)
        print(f"{name:24} {low:12.4f} {median:9.4f} {ratio:7.2f} {low_ratio:10.2f}")
        table.append([args.size or "as they are", args.crop, args.rounds, name, low, median, ratio])
    if args.csv:
        new = not args.csv.exists()
        with args.csv.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                head = ["size", "crop", "rounds", "method", "quartile_ms", "median_ms"]
                writer.writerow([*head, "times_eyas"])
            writer.writerows(table)


if __name__ == "__main__":
    main()
