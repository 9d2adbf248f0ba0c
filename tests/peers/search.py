"""Search beside faiss, usearch, turbovec and numpy: the same rows, the same queries, one
thread, methods in random order, each with a query of its own turn.

Rows lie around the centers of classes of very different size, spread more along some
directions than along others, and rotated; a query is a held-out row with as much noise as a
student adds (mean cosine about 0.895). Recall is against exact f32 with the same query.
A quarter as many rounds go before, untimed; a method meets data in the caches
only as far as the others leave it there. Needs numpy, faiss-cpu, usearch, turbovec. Example:

    cargo bench --workspace --bench search --no-run
    python tests/peers/search.py --bench target/release/deps/search-* \
        --rows 100000 --rounds 200 --csv models/results/search.csv
"""

import argparse
import csv
import os
import random
import subprocess
import tempfile
import time
from pathlib import Path

for name in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"]:
    os.environ[name] = "1"

import faiss
import numpy as np
import turbovec
import usearch
from usearch.index import MetricKind, search as usearch_search

from machine import machine

K = 10
BATCH = 8
N_QUERIES = 1000


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def world(n_rows, dim, seed):
    rng = np.random.default_rng(seed)
    n_classes = max(10, n_rows // 5)
    spectrum = np.arange(1, dim + 1) ** -0.7
    rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)
    centers = rng.standard_normal((n_classes, dim)) * np.sqrt(spectrum / spectrum.sum())
    sizes = np.arange(1, n_classes + 1) ** -0.5
    labels = rng.choice(n_classes, size=n_rows + N_QUERIES, p=sizes / sizes.sum())
    flat = np.sqrt(spectrum**0.5 / (spectrum**0.5).sum())
    rows = np.empty((n_rows + N_QUERIES, dim), np.float32)
    for start in range(0, len(rows), 100_000):
        part = labels[start : start + 100_000]
        noise = rng.standard_normal((len(part), dim)) * flat * 0.6
        rows[start : start + len(part)] = unit(centers[part] + noise) @ rotation
    queries = rows[n_rows:]
    noise = rng.standard_normal(queries.shape).astype(np.float32)
    queries = unit(queries + noise * (0.5 / np.sqrt(dim))).astype(np.float32)
    return np.ascontiguousarray(rows[:n_rows]), np.ascontiguousarray(queries)


class Eyas:
    """The bench program, which times itself."""

    def __init__(self, program, rows, queries, folder):
        for name, values in [("rows", rows), ("queries", queries)]:
            values.tofile(folder / f"{name}.f32")
        words = [program, "--serve", folder / "rows.f32", folder / "queries.f32"]
        self.process = subprocess.Popen(
            [*map(str, words), str(rows.shape[1]), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ways = []
        while (line := self.process.stdout.readline().strip()) != "ready":
            name, n_bytes, batch = line.split("\t")
            self.ways.append((name, int(n_bytes), int(batch)))

    def ask(self, way, query):
        self.process.stdin.write(f"{way} {query}\n")
        self.process.stdin.flush()
        took, *found = map(int, self.process.stdout.readline().split())
        return took * 1e-9, found


def timed(work):
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def peers(rows, queries):
    """Name, batch, and a function from the number of a query to seconds and rows."""
    dim = rows.shape[1]
    one = lambda q: queries[q : q + 1]
    methods = []

    def add(name, search, batch=1):
        methods.append((name, batch, lambda q: timed(lambda: search(q))))

    def built(description, train=True):
        index = faiss.index_factory(dim, description, faiss.METRIC_INNER_PRODUCT)
        index.train(rows[np.random.default_rng(1).permutation(len(rows))[:50_000]])
        index.add(rows)
        return index

    flat = built("Flat")
    add("faiss Flat", lambda q: flat.search(one(q), K)[1][0])
    add("faiss Flat x8", lambda q: flat.search(queries[q : q + BATCH], K)[1][0], BATCH)
    for name in ["SQfp16", "SQ8"]:
        index = built(name)
        add(f"faiss {name}", lambda q, index=index: index.search(one(q), K)[1][0])
    fast = built(f"PQ{dim // 2}x4fs,RFlat")
    for factor in [10, 20, 50, 100]:
        params = faiss.IndexRefineSearchParameters(k_factor=factor)
        add(
            f"faiss PQ{dim // 2}x4fs,RFlat kf{factor}",
            lambda q, params=params: fast.search(one(q), K, params=params)[1][0],
        )
    halves = rows.astype(np.float16)
    queries16 = queries.astype(np.float16)
    add(
        "usearch exact f16",
        lambda q: usearch_search(
            halves, queries16[q], K, MetricKind.IP, exact=True, threads=1
        ).keys,
    )

    def numpy_search(q):
        scores = rows @ queries[q]
        best = np.argpartition(scores, -K)[-K:]
        return best[np.argsort(-scores[best])]

    add("numpy f32", numpy_search)
    sample = rows[np.random.default_rng(2).permutation(len(rows))[:4096]]
    for bits, n_candidates in [(4, 40), (4, 100), (4, 1000), (2, 400), (2, 1000)]:
        index = turbovec.TurboQuantIndex(dim, bits)
        if hasattr(index, "calibrate"):
            index.calibrate(sample)
        index.add(rows)
        index.prepare()

        def search(q, index=index, n_candidates=n_candidates):
            found = index.search(one(q), n_candidates)[1][0].astype(np.int64)
            scores = rows[found] @ queries[q]
            return found[np.argsort(-scores)[:K]]

        add(f"turbovec {bits}-bit + f32 {n_candidates}", search)
    return methods


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bench", required=True, help="the bench program `search`")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--recall", type=int, default=0, help="queries for recall beside the timed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--csv", type=Path, help="file that the figures are appended to")
    args = parser.parse_args()
    faiss.omp_set_num_threads(1)
    rows, queries = world(args.rows, args.dim, args.seed)
    # `folder` holds some gigabytes for a million rows.
    with tempfile.TemporaryDirectory() as folder:
        eyas = Eyas(args.bench, rows, queries, Path(folder))
        methods = peers(rows, queries)
        sizes = {}
        for way, (name, n_bytes, batch) in enumerate(eyas.ways):
            methods.append((f"eyas {name}", batch, lambda q, way=way: eyas.ask(way, q)))
            sizes[f"eyas {name}"] = n_bytes
        exact = {}
        times = {name: [] for name, _, _ in methods}
        hits = {name: [] for name, _, _ in methods}
        order = random.Random(args.seed)
        warm_up = args.rounds // 4
        load = []
        for turn in range(-warm_up, args.rounds):
            load.append(os.getloadavg()[0])
            order.shuffle(methods)
            for name, batch, search in methods:
                q = order.randrange(N_QUERIES - BATCH)
                if q not in exact:
                    scores = rows @ queries[q]
                    best = np.argpartition(scores, -K)[-K:]
                    exact[q] = set(best.tolist())
                took, found = search(q)
                if turn >= 0:
                    times[name].append(took / batch * 1e3)
                    if len(found):
                        hits[name].append(len(exact[q] & set(map(int, found))) / K)
        for name, batch, search in methods:
            if name in sizes and "open" in name or "read" in name:
                continue
            for q in range(args.recall):
                if q not in exact:
                    scores = rows @ queries[q]
                    exact[q] = set(np.argpartition(scores, -K)[-K:].tolist())
                found = search(q)[1]
                hits[name].append(len(exact[q] & set(map(int, found))) / K)
        eyas.process.stdin.close()
        eyas.process.wait()
    base = float(np.median(times["faiss Flat"]))
    base_min = min(times["faiss Flat"])
    versions = (
        f"faiss {faiss.__version__}, usearch {usearch.__version__}, numpy {np.__version__}, "
        "turbovec 1.1.2"
    )
    print(f"{args.rows} rows x {args.dim}, top {K}, {args.rounds} rounds, seed {args.seed}, "
        f"recall from {args.rounds + args.recall} queries")
    print(f"{machine()}; load {np.median(load):.1f} (median); {versions}")
    print(f"{'method':36} {'min ms':>9} {'median':>9} {'x Flat':>7} {'(min)':>7} {'recall@10':>10}")
    table = []
    for name in sorted(times, key=lambda name: np.median(times[name])):
        median, least = float(np.median(times[name])), min(times[name])
        recall = float(np.mean(hits[name])) if hits[name] else None
        shown = "" if recall is None else f"{recall:.4f}"
        print(
            f"{name:36} {least:9.4f} {median:9.4f} {base / median:7.2f} {base_min / least:7.2f} "
            f"{shown:>10}"
        )
        table.append([args.rows, args.dim, args.rounds, name, least, median, recall, sizes.get(name)])
    if args.csv:
        new = not args.csv.exists()
        with args.csv.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                head = ["rows", "dim", "rounds", "method", "min_ms", "median_ms", "recall_at_10"]
                writer.writerow([*head, "bytes_scanned"])
            writer.writerows(table)


if __name__ == "__main__":
    main()
