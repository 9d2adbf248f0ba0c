"""Memory and time of `eyas evaluate` on a large gallery: no peer, one process, its peak.

Makes embeddings (labels are directions, images are directions with noise), imports them as a
teacher and a gallery, lets some other images of the same labels ask, and reports the most memory
that the evaluation had: all of it, and the part that no file stands behind (sampled 100 times a
second). The mapped gallery counts in the first and can be given back at any time. Example:

    python tests/peers/evaluate_memory.py --eyas target/release/eyas --rows 1000000 --dim 512 \\
        --queries 10000 --folder memory

The folder takes about 4 bytes for each number of the gallery, and is left behind. Needs numpy.
"""

import argparse
import hashlib
import json
import os
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
from machine import machine

ROWS_AT_ONCE = 1 << 16
NOISE = 3.0  # length, beside a label of length 1: many an image is nearer to another label


def image_id(content):
    """The first half of the hash of the file, as lists name images."""
    return hashlib.sha256(content).hexdigest()[:32]


def rows(labels, directions, random):
    noise = random.standard_normal((len(labels), directions.shape[1]), dtype=np.float32)
    found = directions[labels] + NOISE / directions.shape[1] ** 0.5 * noise
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def gallery_rows(folder, args, directions, random):
    """`rows.npy` and the list that says what each row shows."""
    shape = (args.rows, args.dim)
    matrix = np.lib.format.open_memmap(folder / "rows.npy", "w+", np.float16, shape)
    for first in range(0, args.rows, ROWS_AT_ONCE):
        labels = np.arange(first, min(args.rows, first + ROWS_AT_ONCE)) % args.labels
        matrix[first : first + len(labels)] = rows(labels, directions, random)
    matrix.flush()
    with open(folder / "rows.csv", "w") as out:
        out.write("label,path,id\n")
        for row in range(args.rows):
            out.write(f"l{row % args.labels},r/{row},{image_id(b'row %d' % row)}\n")


def asking_rows(folder, args, directions, random):
    """`asks.npy` and files with a content of their own, which is what names an image. Nobody
    looks at their pixels: the teacher knows the embeddings."""
    labels = np.arange(args.queries) % args.labels
    np.save(folder / "asks.npy", rows(labels, directions, random).astype(np.float32))
    (folder / "q").mkdir(exist_ok=True)
    with open(folder / "asks.csv", "w") as out:
        out.write("label,path,split\n")
        for query in range(args.queries):
            (folder / f"q/{query}").write_bytes(b"query %d" % query)
            out.write(f"l{labels[query]},q/{query},val\n")


def own_memory(pid):
    """Bytes of a process that no file stands behind."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return 0


def measured(words):
    """Output, seconds, and the most memory in all and of its own."""
    begun = time.monotonic()
    child = subprocess.Popen(words, stdout=subprocess.PIPE)
    own = [0]
    done = threading.Event()

    def sample():
        while not done.wait(0.01):
            own[0] = max(own[0], own_memory(child.pid))

    sampler = threading.Thread(target=sample)
    sampler.start()
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    done.set()
    sampler.join()
    if child.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, words))}: ended with {child.returncode}")
    return output, time.monotonic() - begun, usage.ru_maxrss << 10, own[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--eyas", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--labels", type=int, default=5_000)
    parser.add_argument("--codes", default="f16")
    parser.add_argument("--folder", type=Path, required=True)
    args = parser.parse_args()

    folder = args.folder
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1)
    directions = random.standard_normal((args.labels, args.dim), dtype=np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    gallery_rows(folder, args, directions, random)
    asking_rows(folder, args, directions, random)

    def eyas(*words):
        return measured([args.eyas, *words])

    asks, teacher, gallery = (folder / name for name in ("asks.csv", "asks.teacher", "rows.gallery"))
    imported = ["teacher", "import", folder / "asks.npy", "--data", asks, "--no-projection"]
    eyas(*imported, "--out", teacher)
    written = ["gallery", "import", folder / "rows.npy", "--list", folder / "rows.csv"]
    eyas(*written, "--teacher", teacher, "--codes", args.codes, "--out", gallery)
    scored = ["evaluate", "--teacher", teacher, "--gallery", gallery, "--manifest", asks]
    output, seconds, peak, own = eyas(*scored, "--split", "val", "--json")
    found = json.loads(output)

    print(f"machine  {machine()}")
    print(f"gallery  {args.rows} x {args.dim}, {args.codes}, {gallery.stat().st_size / 1e6:.0f} MB")
    print(f"queries  {args.queries} of {args.labels} labels")
    print(f"time     {seconds:.1f} s")
    print(f"memory   {peak / 1e6:.0f} MB at most, {own / 1e6:.0f} MB of them its own")
    print(json.dumps(found.get("teacher", found))[:400])


if __name__ == "__main__":
    main()
