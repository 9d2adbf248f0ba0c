"""Whole queries beside OpenCV or Pillow, onnxruntime and faiss: JPEG bytes in memory to rows.

Photographs are asked as they are, and rescaled to 640 x 480 (quality 90). The gallery's rows
lie around embeddings of other photographs of the same folder. The peers run the student that
lies in the bundle and do the same geometry: shorter side to R, centered square of C, of which
only what is kept is resized. Methods take turns in random order; each answers once untimed and
then once timed, another photograph each time, on one thread. `area` is OpenCV's antialiased
resize; `linear` is not antialiased, and `draft` (Pillow) and `reduced` (OpenCV) decode at a
fraction of the size: quicker, and other pixels than the student was trained on, as the cosine to
ours shows. Needs numpy, faiss-cpu, onnxruntime, opencv-python-headless, Pillow. Example:

    cargo bench --workspace --bench query --no-run
    python tests/peers/query.py --bench target/release/deps/query-* --bundle student.bundle \
        --photographs grocery/val --csv models/results/query.csv
"""

import argparse
import csv
import importlib.metadata
import io
import json
import os
import random
import subprocess
import tempfile
import time
from pathlib import Path

for name in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]:
    os.environ[name] = "1"

import cv2
import faiss
import numpy as np
import onnxruntime
from PIL import Image

from machine import machine

K = 10
STAGES = ["decode", "prepare", "encode", "search"]
# What an index must find of the exact ten to count as one that answers equally.
RECALL = 0.99

# Preparations that antialias at full size, as the student's training did.
EQUAL = ["opencv area", "pillow"]


class Eyas:
    """The bench program, which times itself."""

    def __init__(self, program, bundle, folder, images):
        self.process = subprocess.Popen(
            list(map(str, [program, "--serve", bundle, folder, *images])),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ways = []
        while (line := self.process.stdout.readline().strip()) != "ready":
            self.ways.append(line)

    def ask(self, way, image):
        self.process.stdin.write(f"{way} {image}\n")
        self.process.stdin.flush()
        numbers = list(map(int, self.process.stdout.readline().split()))
        return [nanos * 1e-6 for nanos in numbers[:5]], numbers[5:]

    def end(self):
        self.process.stdin.close()
        self.process.wait()


class Preparation:
    """From JPEG bytes to what the student reads; both halves of every way to do it."""

    def __init__(self, spec):
        self.shorter, self.side = spec["resize_shorter"], spec["crop"]
        self.filter = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}[spec["filter"]]
        mean, std = np.float32(spec["mean"]), np.float32(spec["std"])
        self.scale = (1 / 255 / std)[:, None, None]
        self.offset = (-mean / std)[:, None, None]
        self.blob = cv2.dnn.Image2BlobParams()
        self.blob.mean = tuple(map(float, mean * 255))
        self.blob.scalefactor = tuple(map(float, 1 / 255 / std))
        self.blob.swapRB = True

    def box(self, width, height):
        """The square of a source that is kept."""
        size = np.array([width, height])
        resized = self.shorter * size // min(width, height)
        first = np.round((resized - self.side) / 2)
        start, end = first / resized * size, (first + self.side) / resized * size
        return start[0], start[1], end[0], end[1]

    def decode_opencv(self, data):
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)

    def decode_reduced(self, data):
        width, height = Image.open(io.BytesIO(data)).size
        reduction = min(width, height) // self.shorter
        flags = {0: cv2.IMREAD_COLOR, 1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2}
        flags[3] = flags[2]
        flag = flags.get(reduction, cv2.IMREAD_REDUCED_COLOR_4)
        return cv2.imdecode(np.frombuffer(data, np.uint8), flag)

    def resize_opencv(self, image, interpolation):
        left, top, right, bottom = [round(at) for at in self.box(image.shape[1], image.shape[0])]
        size = (self.side, self.side)
        resized = cv2.resize(image[top:bottom, left:right], size, interpolation=interpolation)
        return cv2.dnn.blobFromImageWithParams(resized, self.blob)

    def decode_pillow(self, data, draft=False):
        image = Image.open(io.BytesIO(data))
        if draft:
            image.draft("RGB", (self.shorter, self.shorter))
        image.load()
        return image

    def resize_pillow(self, image):
        box = self.box(*image.size)
        resized = image.resize((self.side, self.side), self.filter, box=box)
        values = np.asarray(resized).transpose(2, 0, 1) * self.scale
        values += self.offset
        return np.ascontiguousarray(values[None])

    def ways(self):
        area = lambda image: self.resize_opencv(image, cv2.INTER_AREA)
        linear = lambda image: self.resize_opencv(image, cv2.INTER_LINEAR)
        return {
            "opencv area": (self.decode_opencv, area),
            "opencv linear": (self.decode_opencv, linear),
            "opencv reduced": (self.decode_reduced, area),
            "pillow": (self.decode_pillow, self.resize_pillow),
            "pillow draft": (lambda data: self.decode_pillow(data, True), self.resize_pillow),
        }


def pipeline(decode, prepare, session, search, embeddings):
    """A function from the number and bytes of an image to milliseconds and rows."""
    (name,) = [value.name for value in session.get_inputs()]

    def run(number, data):
        moments = [time.perf_counter()]
        image = decode(data)
        moments.append(time.perf_counter())
        values = prepare(image)
        moments.append(time.perf_counter())
        embedding = session.run(None, {name: values})[0]
        moments.append(time.perf_counter())
        found = search(embedding)[1][0]
        moments.append(time.perf_counter())
        embeddings[number] = embedding[0]
        stages = [(b - a) * 1e3 for a, b in zip(moments, moments[1:])]
        return [sum(stages), *stages], found.tolist()

    return run


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def indexes(rows):
    """Name, and search of one query, of what faiss offers for so many rows."""
    dim = rows.shape[1]

    def built(description):
        index = faiss.index_factory(dim, description, faiss.METRIC_INNER_PRODUCT)
        index.train(rows)
        index.add(rows)
        return index

    def searching(index, params=None):
        return lambda query: index.search(query, K, params=params)

    for name in ["Flat", "SQfp16", "SQ8"]:
        yield name, searching(built(name))
    fast = built(f"PQ{dim // 2}x4fs,RFlat")
    for factor in [2, 5, 10, 20]:
        params = faiss.IndexRefineSearchParameters(k_factor=factor)
        yield f"PQ{dim // 2}x4fs,RFlat kf{factor}", searching(fast, params)
    graph = built("HNSW32")
    for width in [16, 32, 64, 128]:
        params = faiss.SearchParametersHNSW(efSearch=width)
        yield f"HNSW32 ef{width}", searching(graph, params)
    lists = built("IVF100,Flat")
    for n in [2, 5, 10, 20]:
        yield f"IVF100,Flat np{n}", searching(lists, faiss.SearchParametersIVF(nprobe=n))


def exact(rows, queries):
    return np.argsort(-(queries @ rows.T), axis=1, kind="stable")[:, :K]


def share(found, wanted):
    """Of the first row, and of all ten."""
    first = np.mean([a[0] == b[0] for a, b in zip(found, wanted)])
    return float(first), float(np.mean([len({*a} & {*b}) / K for a, b in zip(found, wanted)]))


def quickest(candidates, rows, queries):
    """Name and search of the quickest index that finds what it must, and of the exact one."""
    wanted, taken = exact(rows, queries), []
    for name, search in candidates:
        times, found = [], []
        for turn in range(3):
            for query in queries:
                started = time.perf_counter()
                rows_found = search(query[None])[1][0].tolist()
                times.append(time.perf_counter() - started)
                found.append(rows_found)
        recall = share(found[-len(queries) :], wanted)[1]
        taken.append((float(np.median(times)) * 1e3, recall, name, search))
        print(f"  faiss {name:20} {taken[-1][0]:7.4f} ms, recall@{K} {recall:.4f}")
    fits = min(entry for entry in taken if entry[1] >= RECALL)
    return {"Flat": taken[0][3], fits[2]: fits[3]}


def rescaled(photographs, folder):
    """The same, cut to 4:3 and rescaled to 640 x 480."""
    paths = []
    for number, path in enumerate(photographs):
        image = Image.open(path).convert("RGB")
        width, height = image.size
        width, height = min(width, height * 4 / 3), min(height, width * 3 / 4)
        left, top = (image.width - width) / 2, (image.height - height) / 2
        box = (left, top, left + width, top + height)
        paths.append(folder / f"{number}.jpg")
        image.resize((640, 480), Image.LANCZOS, box=box).save(paths[-1], quality=90)
    return paths


def embedded(args, folder, images):
    """How the student wants its pixels, and ours' embeddings of the images."""
    words = [args.bench, "--embed", args.bundle, folder, *images]
    said = subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True)
    values = np.fromfile(folder / "embeddings.f32", np.float32)
    return json.loads(said.stdout), values.reshape(len(images), -1)


def around(centers, n_rows, seed):
    """Rows near centers; a row's cosine to its own is about 0.9."""
    rng = np.random.default_rng(seed)
    picked = centers[rng.integers(len(centers), size=n_rows)]
    noise = rng.standard_normal(picked.shape) * 0.5 / np.sqrt(picked.shape[1])
    return np.ascontiguousarray(unit(picked + noise).astype(np.float32))


def peers(args, folder, spec, searches):
    """Name, way to run, and embeddings by image, of every combination."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = str(folder / "student.onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    methods = {}
    for name, (decode, prepare) in Preparation(spec).ways().items():
        for index, search in searches.items():
            embeddings = {}
            run = pipeline(decode, prepare, session, search, embeddings)
            methods[f"{name} + ort + {index}"] = (run, embeddings)
    return methods


def measure(methods, images, data, rounds, seed):
    """Milliseconds of every method: whole, and its stages."""
    order = random.Random(seed)
    times = {name: [] for name in methods}
    for turn in range(-(rounds // 10), rounds):
        for name in order.sample(sorted(methods), len(methods)):
            for number in order.sample(images, 2):
                took, _ = methods[name][0](number, data[number])
            if turn >= 0:
                times[name].append(took)
    return {name: np.array(at) for name, at in times.items()}


def agreement(methods, images, data, rows, ours):
    """Of each method: cosine to our embeddings (mean, least), and the shares of its rows that
    the exact search finds with its own embeddings, and with ours."""
    table = {}
    wanted = exact(rows, ours[images])
    for name, (run, embeddings) in methods.items():
        found = [run(number, data[number])[1] for number in images]
        own = ours[images] if embeddings is None else np.stack([embeddings[n] for n in images])
        cosines = np.sum(unit(own) * unit(ours[images]), axis=1)
        own_share = share(found, exact(rows, own))
        table[name] = [float(cosines.mean()), float(cosines.min()), *own_share, *share(found, wanted)]
    return table


def show(size, times, agreed, base):
    print(f"\n{size}: ms (median of whole queries; stages are medians of their own)")
    head = f"{'method':46} {'median':>8} {'min':>8} {'x eyas':>7}"
    head += "".join(f" {stage:>8}" for stage in STAGES)
    print(head + f" {'cosine':>8} {'least':>8} {'recall':>7} {'top 1':>6} {'top 10':>6}")
    medians = {name: np.median(at, axis=0) for name, at in times.items()}
    for name in sorted(times, key=lambda name: medians[name][0]):
        whole, *stages = medians[name]
        mean, least, _, recall, first, ten = agreed[name]
        words = f"{name:46} {whole:8.3f} {times[name][:, 0].min():8.3f} "
        words += f"{whole / medians[base][0]:7.2f}" + "".join(f" {at:8.3f}" for at in stages)
        print(words + f" {mean:8.5f} {least:8.5f} {recall:7.4f} {first:6.3f} {ten:6.3f}")


def conclude(times, base):
    """How many times as long as ours the quicker of the peers takes that resize with
    antialiasing at full size, with the exact index and with the quickest that will do."""
    equal = [name for name in times if name.split(" + ")[0] in EQUAL]
    for index in sorted({name.split(" + ")[-1] for name in equal}):
        names = [name for name in equal if name.endswith(f" + {index}")]
        for statistic, of in [("median", np.median), ("min", np.min)]:
            taken = {name: float(of(times[name][:, 0])) for name in names}
            name = min(taken, key=taken.get)
            ratio = taken[name] / float(of(times[base][:, 0]))
            print(f"{statistic}: {name} takes {ratio:.2f} times as long as {base}")


def write_csv(path, student, rows):
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if is_new:
            head = ["student", "image", "method", "min_ms", "median_ms"]
            head += [f"{stage}_ms" for stage in STAGES] + ["cosine_mean", "cosine_min"]
            head += ["own_top_1", "own_top_10", "same_top_1", "same_top_10"]
            writer.writerow(head)
        for image, name, times, agreed in rows:
            medians = np.median(times, axis=0)
            figures = [times[:, 0].min(), *medians, *agreed]
            writer.writerow([student, image, name, *[f"{value:.5f}" for value in figures]])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bench", required=True, help="the bench program `query`")
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--photographs", type=Path, required=True, help="folder of JPEG files")
    parser.add_argument("--queries", type=int, default=64)
    parser.add_argument("--centers", type=int, default=200)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--csv", type=Path, help="file that the figures are appended to")
    args = parser.parse_args()
    faiss.omp_set_num_threads(1)
    cv2.setNumThreads(1)
    photographs = sorted(args.photographs.rglob("*.jpg"))
    random.Random(args.seed).shuffle(photographs)
    photographs = photographs[: args.queries + args.centers]
    asked = photographs[: args.queries]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "rescaled").mkdir()
        images = [*asked, *rescaled(asked, folder / "rescaled"), *photographs[args.queries :]]
        spec, embeddings = embedded(args, folder, images)
        rows = around(embeddings[2 * len(asked) :], args.rows, args.seed)
        rows.tofile(folder / "rows.f32")
        images = images[: 2 * len(asked)]
        data = [path.read_bytes() for path in images]
        ours = embeddings[: len(images)]
        print(f"{len(rows)} rows x {rows.shape[1]}, top {K}; {spec}")
        searches = quickest(indexes(rows), rows, ours)
        methods = peers(args, folder, spec, searches)
        eyas = Eyas(args.bench, args.bundle, folder, images)
        for way, codes in enumerate(eyas.ways):
            run = lambda number, _, way=way: eyas.ask(way, number)
            methods[f"eyas {codes}"] = (run, None)
        base = f"eyas {eyas.ways[0]}"
        sizes = {"as they are": range(len(asked)), "640 x 480": range(len(asked), len(images))}
        table = []
        print(f"{args.rounds} rounds, seed {args.seed}, {len(asked)} photographs")
        modules = ["faiss-cpu", "onnxruntime", "opencv-python-headless", "Pillow", "numpy"]
        versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in modules)
        print(f"{machine()}; {versions}")
        for size, numbers in sizes.items():
            numbers = list(numbers)
            agreed = agreement(methods, numbers, data, rows, ours)
            times = measure(methods, numbers, data, args.rounds, args.seed)
            show(size, times, agreed, base)
            conclude(times, base)
            table += [(size, name, at, agreed[name]) for name, at in times.items()]
        print(f"load {os.getloadavg()[0]:.1f}")
        eyas.end()
    if args.csv:
        write_csv(args.csv, args.bundle.stem, table)


if __name__ == "__main__":
    main()
