#!/usr/bin/env python3
"""Compares Eyas' pixels with Pillow's on a folder of photographs; needs Pillow and numpy.

    cargo build --release -p eyas-shared --example pixels
    python3 tests/golden/pixels/compare.py target/release/examples/pixels FOLDER N

Takes N JPEG files of the folder, drawn with a fixed seed. Line (a) gives the pixels that
Eyas decoded to Pillow's resize, line (b) lets Pillow decode, too.
"""
import pathlib, random, struct, subprocess, sys
import numpy as np
from PIL import Image, ImageOps

SPECS = [(f, s, c) for f in ("bilinear", "bicubic") for s, c in ((160, 160), (224, 224), (256, 224))]


def eyas(example, files, *arguments):
    out = subprocess.run([example, *arguments, *files], check=True, stdout=subprocess.PIPE).stdout
    at = 0
    for _ in files:
        width, height = struct.unpack_from("<II", out, at)
        yield np.frombuffer(out, np.uint8, width * height * 3, at + 8).reshape(height, width, 3)
        at += 8 + width * height * 3


def cropped(image, filter_name, shorter, crop):
    width, height = image.size
    longer = int(shorter * max(width, height) / min(width, height))
    size = (shorter, longer) if width <= height else (longer, shorter)
    image = image.resize(size, getattr(Image.Resampling, filter_name.upper()))
    left, top = round((size[0] - crop) / 2.0), round((size[1] - crop) / 2.0)
    return np.asarray(image.crop((left, top, left + crop, top + crop)))


class Differences:
    def __init__(self):
        self.samples = self.total = self.different = self.largest = 0

    def add(self, ours, theirs):
        assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
        distance = np.abs(ours.astype(int) - theirs.astype(int))
        self.samples += distance.size
        self.total += int(distance.sum())
        self.different += int((distance > 0).sum())
        self.largest = max(self.largest, int(distance.max()))

    def __str__(self):
        return (f"largest {self.largest}, mean {self.total / self.samples:.3f}, "
                f"different {100 * self.different / self.samples:.1f} % of {self.samples}")


def main():
    example, folder, count = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
    files = sorted(folder.rglob("*.jpg"))
    random.Random(1).shuffle(files)
    files = files[:count]
    seen = {}
    for i in range(0, len(files), 50):
        part = files[i:i + 50]
        decoded = list(eyas(example, part, "decode"))
        pillow = [ImageOps.exif_transpose(Image.open(file)).convert("RGB") for file in part]
        for ours, theirs in zip(decoded, pillow):
            seen.setdefault("decode", Differences()).add(ours, np.asarray(theirs))
        for spec in SPECS:
            name = "{} {} {}".format(*spec)
            for ours, pixels, image in zip(eyas(example, part, "crop", *map(str, spec)), decoded, pillow):
                seen.setdefault(f"(a) {name}", Differences()).add(ours, cropped(Image.fromarray(pixels), *spec))
                seen.setdefault(f"(b) {name}", Differences()).add(ours, cropped(image, *spec))
    print(len(files), "files")
    for name in sorted(seen):
        print(f"{name}: {seen[name]}")


main()
