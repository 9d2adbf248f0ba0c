"""Search beside faiss, usearch, numkong, turbovec and numpy: the same rows, the same queries, one
thread, methods in random order, each with a query of its own turn. After each table it says what
of it was wanted and what was got.

Rows lie around the centers of classes of very different size, spread more along some
directions than along others, and rotated; a query is a held-out row with as much noise as a
student adds (mean cosine about 0.895). Recall is against exact f32 with the same query.
A quarter as many rounds go before, untimed; a method meets data in the caches
only as far as the others leave it there. All run on one core: a program that waits on a core of
its own finds that asleep, slow and with empty caches. Needs numpy, faiss-cpu, usearch, numkong, turbovec, of
which the last stands for its crate: the wheel is the same Rust code. Example:

    python tests/peers/search.py --csv models/results/search.csv
"""

import argparse
import csv
import datetime
import functools
import importlib.metadata
import json
import os
import random
import subprocess
import tempfile
import time
from pathlib import Path

for name in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"]:
    os.environ[name] = "1"

import faiss
import numkong
import numpy as np
import turbovec
from usearch.index import MetricKind, search as usearch_search

import search_wanted
from machine import machine

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ["faiss-cpu", "usearch", "numkong", "turbovec", "numpy"]
K = 10
BATCH = 8
N_QUERIES = 1000
SIZES = [100_000, 1_000_000]


class Method:
    """A way to search, and what came of it."""

    def __init__(self, name, search, batch=1, n_bytes=None):
        """`search` makes seconds and rows of the number of a query."""
        self.name, self.search, self.batch, self.n_bytes = name, search, batch, n_bytes
        # Milliseconds a query, and how many of the exact rows were found.
        self.times, self.hits = [], []

    @property
    def median(self):
        return float(np.median(self.times))

    @property
    def least(self):
        return min(self.times)

    @property
    def recall(self):
        return sum(self.hits) / (K * len(self.hits)) if self.hits else None


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


def largest(scores, k):
    """Where the k largest scores are, the largest first.

    Only the largest of every sixteen are compared at first: numpy's own selection would take
    about as long as all products.
    """
    n_whole = len(scores) // 16 * 16
    grid = np.arange(n_whole).reshape(16, -1)
    firsts = np.argpartition(scores[:n_whole].reshape(grid.shape).max(axis=0), -k)[-k:]
    near = np.append(grid[:, firsts], np.arange(n_whole, len(scores)))
    best = near[np.argpartition(scores[near], -k)[-k:]]
    return best[np.argsort(-scores[best])]


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
        self.methods = []
        while (line := self.process.stdout.readline().strip()) != "ready":
            name, n_bytes, batch = line.split("\t")
            search = functools.partial(self.ask, len(self.methods))
            self.methods.append(Method(f"eyas {name}", search, int(batch), int(n_bytes)))

    def ask(self, way, query):
        self.process.stdin.write(f"{way} {query}\n")
        self.process.stdin.flush()
        took, *found = map(int, self.process.stdout.readline().split())
        return took * 1e-9, found

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def timed(search, q):
    started = time.perf_counter()
    found = search(q)
    return time.perf_counter() - started, found


def peer(name, search, batch=1):
    return Method(name, functools.partial(timed, search), batch)


def faiss_methods(rows, queries):
    dim = rows.shape[1]

    def built(description):
        index = faiss.index_factory(dim, description, faiss.METRIC_INNER_PRODUCT)
        index.train(rows[np.random.default_rng(1).permutation(len(rows))[:50_000]])
        index.add(rows)
        return index

    def searching(index, batch=1, params=None):
        return lambda q: index.search(queries[q : q + batch], K, params=params)[1][0]

    flat = built("Flat")
    yield peer("faiss Flat", searching(flat))
    yield peer(f"faiss Flat x{BATCH}", searching(flat, BATCH), BATCH)
    for name in ["SQfp16", "SQ8"]:
        yield peer(f"faiss {name}", searching(built(name)))
    name = f"PQ{dim // 2}x4fs,RFlat"
    fast = built(name)
    for factor in [10, 20, 50, 100]:
        params = faiss.IndexRefineSearchParameters(k_factor=factor)
        yield peer(f"faiss {name} kf{factor}", searching(fast, params=params))


def usearch_method(halves, queries):
    def search(q):
        return usearch_search(halves, queries[q], K, MetricKind.IP, exact=True, threads=1).keys

    return peer("usearch exact f16", search)


def numpy_method(rows, queries):
    scores = np.empty(len(rows), np.float32)
    return peer("numpy f32", lambda q: largest(np.dot(rows, queries[q], out=scores), K))


def reranked(rows, query, found):
    return found[np.argsort(-(rows[found] @ query))[:K]]


def numkong_products(rows, queries, dtype):
    """A function from the number of a query to its products with all rows.

    The query is what is packed: that is the quickest of what numkong has for a single one.
    """
    products = numkong.empty((len(rows), 1), dtype=dtype)
    view = np.asarray(products)[:, 0]

    def multiply(q):
        numkong.dots_packed(rows, numkong.dots_pack(queries[q : q + 1]), out=products)
        return view

    return multiply


def numkong_methods(rows, queries, halves, queries16):
    # All rows have one scale, so that products of codes are in the order of scores.
    codes = np.rint(rows * (127 / np.abs(rows).max())).astype(np.int8)
    scales = 127 / np.abs(queries).max(axis=1, keepdims=True)
    products = numkong_products(codes, np.rint(queries * scales).astype(np.int8), "int32")
    products16 = numkong_products(halves, queries16, "float32")
    yield peer("numkong f16", lambda q: largest(products16(q), K))
    for n_candidates in [40, 100]:
        yield peer(
            f"numkong i8 + f32 {n_candidates}",
            lambda q, n=n_candidates: reranked(rows, queries[q], largest(products(q), n)),
        )


def turbovec_methods(rows, queries):
    sample = rows[np.random.default_rng(2).permutation(len(rows))[:4096]]

    def searching(index, n_candidates):
        def search(q):
            found = index.search(queries[q : q + 1], n_candidates)[1][0].astype(np.int64)
            return reranked(rows, queries[q], found)

        return search

    for bits, counts in [(4, [40, 100, 200, 400, 1000]), (2, [400, 1000])]:
        index = turbovec.TurboQuantIndex(rows.shape[1], bits)
        if hasattr(index, "calibrate"):
            index.calibrate(sample)
        index.add(rows)
        index.prepare()
        for count in counts:
            yield peer(f"turbovec {bits}-bit + f32 {count}", searching(index, count))


def peers(rows, queries):
    halves, queries16 = rows.astype(np.float16), queries.astype(np.float16)
    return [
        *faiss_methods(rows, queries),
        usearch_method(halves, queries16),
        numpy_method(rows, queries),
        *numkong_methods(rows, queries, halves, queries16),
        *turbovec_methods(rows, queries),
    ]


def turns(methods, rounds, seed):
    """Number of the turn, method and number of its query; turns below 0 warm up."""
    order = random.Random(seed)
    for turn in range(-(rounds // 4), rounds):
        for method in order.sample(methods, len(methods)):
            yield turn, method, order.randrange(N_QUERIES - BATCH)


def take_turns(methods, exact, rounds, seed):
    """Fills in what came of the methods; the median of the load."""
    drawn = list(turns(methods, rounds, seed))
    # Beforehand: it reads all rows, and would leave the caches cold to whoever comes next.
    for _, _, q in drawn:
        exact(q)
    load = []
    for turn, method, q in drawn:
        took, found = method.search(q)
        if turn < 0:
            continue
        load.append(os.getloadavg()[0])
        method.times.append(took / method.batch * 1e3)
        if len(found):
            method.hits.append(len(exact(q) & set(map(int, found))))
    return float(np.median(load))


def ask_more(methods, exact, n_queries):
    """Recall from more queries than were timed, of those that find anything."""
    for method in methods:
        for q in range(n_queries if method.hits else 0):
            found = method.search(q)[1]
            method.hits.append(len(exact(q) & set(map(int, found))))


def measure(program, n_rows, rounds, n_more, args):
    """All methods, ours in the order in which the bench names them, and the load."""
    rows, queries = world(n_rows, args.dim, args.seed)
    exact = functools.cache(lambda q: set(largest(rows @ queries[q], K).tolist()))
    # `folder` holds some gigabytes for a million rows.
    with tempfile.TemporaryDirectory() as folder:
        eyas = Eyas(program, rows, queries, Path(folder))
        methods = [*peers(rows, queries), *eyas.methods]
        load = take_turns(methods, exact, rounds, args.seed)
        ask_more(methods, exact, n_more)
        eyas.end()
    return methods, load


def show(methods):
    (base,) = [method for method in methods if method.name == "faiss Flat"]
    print(f"{'method':36} {'min ms':>9} {'median':>9} {'x Flat':>7} {'(min)':>7} {'recall@10':>10}")
    for method in sorted(methods, key=lambda method: method.median):
        recall = "" if method.recall is None else f"{method.recall:.4f}"
        words = f"{method.name:36} {method.least:9.4f} {method.median:9.4f} "
        words += f"{base.median / method.median:7.2f} {base.least / method.least:7.2f} "
        print(words + f"{recall:>10}")


def commit():
    """Of the checkout, with a plus where files differ from it."""
    # Without the lock, and so without writing, a session beside this one can go on with git.
    words = "git --no-optional-locks describe --always --exclude * --dirty=+".split()
    return subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def records(methods, size, run):
    """What the CSV says of each method."""
    for method in sorted(methods, key=lambda method: method.median):
        yield {
            **size,
            "method": method.name,
            "min_ms": round(method.least, 6),
            "median_ms": round(method.median, 6),
            "recall_at_10": None if method.recall is None else round(method.recall, 6),
            "bytes_scanned": method.n_bytes,
            **run,
        }


def write_csv(path, table):
    """Replaces the file as a whole."""
    new = path.with_name(f"{path.name}.new")
    with new.open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    os.replace(new, path)


def built_program():
    """Builds the bench; its path."""
    words = "cargo bench --workspace --bench search --no-run --message-format json".split()
    without = {"LIBTORCH", "LIBTORCH_USE_PYTORCH"}
    env = {name: value for name, value in os.environ.items() if name not in without}
    said = subprocess.run(words, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True)
    messages = map(json.loads, said.stdout.splitlines())
    artifacts = [entry for entry in messages if entry["reason"] == "compiler-artifact"]
    (program,) = [entry["executable"] for entry in artifacts if entry["target"]["name"] == "search"]
    return program


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bench", help="the bench program `search`; built if not given")
    parser.add_argument("--rows", type=int, action="append", help=f"may be repeated; else {SIZES}")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--rounds", type=int, help="else 100, and 30 from a million rows on")
    parser.add_argument("--recall", type=int, help="queries for recall beside the timed; else twice --rounds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--csv", type=Path, help="file that the figures replace")
    args = parser.parse_args()
    program = args.bench or built_program()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    faiss.omp_set_num_threads(1)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    run = {"date": datetime.date.today().isoformat(), "commit": commit(), "machine": machine()}
    table, openings = [], {}
    for n_rows in args.rows or SIZES:
        rounds = args.rounds or (100 if n_rows < 1_000_000 else 30)
        n_more = 2 * rounds if args.recall is None else args.recall
        methods, load = measure(program, n_rows, rounds, n_more, args)
        print(f"{n_rows} rows x {args.dim}, top {K}, {rounds} rounds, seed {args.seed}, "
            f"recall from {rounds + n_more} queries")
        print(f"{', '.join(run.values())}; load {load:.1f} (median); {versions}")
        show(methods)
        openings[n_rows] = search_wanted.show(methods)
        print(flush=True)
        size = {"rows": n_rows, "dim": args.dim, "rounds": rounds}
        table += records(methods, size, {**run, "load": round(load, 2), "versions": versions})
        if args.csv:
            write_csv(args.csv, table)
    if len(openings) > 1:
        search_wanted.show_openings(openings)


if __name__ == "__main__":
    main()
