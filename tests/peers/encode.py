"""Encoding beside other runtimes: the same ONNX files, one thread, in random order.

Networks are those that `eyas zoo --onnx` writes, untrained: weights do not change how long
they take. One network after the other, its methods take turns in random order; each runs once
untimed and then once timed, so that a network's weights lie where its own last run left them.
Outputs are compared with onnxruntime's first. With `--full-int8` the same networks take their
turns in full-int8 too, in the engine and in onnxruntime, from one file as well. ncnn gets what pnnx makes of the ONNX file, and
LiteRT what `tflite.py` writes. Peers that are not installed are left out, with a line that
says so. Needs numpy and onnxruntime; ncnn with pnnx, and ai-edge-litert with onnx, when they
are to be compared. Example:

    cargo bench --workspace --bench encode --no-run
    python tests/peers/encode.py --eyas target/release/eyas \
        --bench target/release/deps/encode-* --csv models/results/encode.csv
"""

import argparse
import csv
import importlib.metadata
import importlib.util
import os
import random
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime

from machine import machine

NETWORKS = """eyas-xs:160 eyas-s:160 eyas-m:160 squeezenet1_1:160 squeezenet1_1:224
mobilenet_v3_small:160 mobilenet_v3_small:224 mobilenet_v2:160 mobilenet_v2_035:160
shufflenet_v2_x0_5:160 resnet-narrow:160""".split()

# Least cosine to onnxruntime's output: f32 sums in another order and Winograd tiles. Maps
# that are rounded to bytes fall on the other side of a half now and then.
AGREES = {"f32": 0.99999, "full-int8": 0.998}


class Eyas:
    """The bench program, which times itself."""

    def __init__(self, program, paths, side, threads):
        self.process = subprocess.Popen(
            [program, "--serve", *(f"{side}:{path}" for path in paths), "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ways, self.multiply_adds = [], 0
        while (line := self.process.stdout.readline().strip()) != "ready":
            name, multiply_adds, _ = line.split("\t")
            self.multiply_adds = max(self.multiply_adds, int(multiply_adds))
            self.ways.append(tuple(name.split()))

    def ask(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().split()

    def methods(self, network, pixels, folder):
        """The engine with the best instructions is `eyas`, tract as it comes `tract`."""
        path = folder / "pixels.f32"
        pixels.tofile(path)
        best = [way for _, way in self.ways if way != "tract"][-1]
        for number, (file, way) in enumerate(self.ways):
            if file == network.name:
                name = {best: "eyas", "tract": "tract"}.get(way, f"eyas {way}")
                run = lambda number=number: int(self.ask(number)[0]) * 1e-9
                yield name, run, np.array(self.ask(f"{number} {path}"), np.float32)

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def timed(work):
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def in_onnxruntime(path, pixels, threads, _):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Its threads sleep while the others have their turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    bound = session.io_binding()
    image = onnxruntime.OrtValue.ortvalue_from_numpy(pixels)
    bound.bind_ortvalue_input(session.get_inputs()[0].name, image)
    # Written to the same place every time: no allocation is timed.
    shape = session.get_outputs()[0].shape
    output = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32))
    bound.bind_ortvalue_output(session.get_outputs()[0].name, output)
    session.run_with_iobinding(bound)
    return lambda: timed(lambda: session.run_with_iobinding(bound)), output.numpy()


def in_ncnn(path, pixels, threads, folder):
    import ncnn

    # The package's own module wants torch; the program in it does not.
    package = Path(importlib.util.find_spec("pnnx").submodule_search_locations[0])
    shape = ",".join(map(str, pixels.shape))
    words = [package / "pnnx", path, f"inputshape=[{shape}]", "fp16=0"]
    subprocess.run(words, check=True, capture_output=True, cwd=folder)
    stem = path.stem.replace("-", "_")
    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    if net.load_param(str(folder / f"{stem}.ncnn.param")) != 0:
        raise RuntimeError("ncnn can not read what pnnx wrote")
    net.load_model(str(folder / f"{stem}.ncnn.bin"))
    image = ncnn.Mat(pixels[0])

    def run():
        extractor = net.create_extractor()
        extractor.input("in0", image)
        return extractor.extract("out0")[1]

    # `image` does not own its pixels, nor does `run` own the network's.
    run.keeps = pixels
    return lambda: timed(run), np.array(run())


def in_litert(path, pixels, threads, folder):
    from ai_edge_litert.interpreter import Interpreter

    import tflite

    target = folder / "network.tflite"
    tflite.convert(path, target)
    interpreter = Interpreter(str(target), num_threads=threads)
    interpreter.allocate_tensors()
    (image,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(image["index"], np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)))
    interpreter.invoke()
    embedding = interpreter.get_tensor(output["index"])
    return lambda: timed(interpreter.invoke), embedding


PEERS = {
    "onnxruntime": (in_onnxruntime, ["onnxruntime"]),
    "ncnn": (in_ncnn, ["ncnn", "pnnx"]),
    "litert": (in_litert, ["ai_edge_litert", "onnx"]),
}
DISTRIBUTIONS = {"ai_edge_litert": "ai-edge-litert"}


def installed():
    """Names of the peers that are here; says which are not."""
    here = []
    for peer, (_, modules) in PEERS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if missing:
            print(f"{peer} is left out: {', '.join(missing)} is not installed")
        else:
            here.append(peer)
    return here


def versions(peers):
    modules = [name for peer in peers for name in PEERS[peer][1]]
    names = [DISTRIBUTIONS.get(name, name) for name in modules]
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def write_network(eyas, name, side, precision, folder):
    """The ONNX file, or nothing if this `eyas` can not write it."""
    words = [eyas, "zoo", name, "--side", str(side), "--runs", "1", "--onnx", folder]
    done = subprocess.run([*words, "--precision", precision], capture_output=True, text=True)
    if done.returncode != 0:
        print(f"{name} in {precision} is left out: {done.stderr.strip().splitlines()[-1]}")
        return None
    return folder / (f"{name}.onnx" if precision == "f32" else f"{name}-{precision}.onnx")


def cosine(a, b):
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def ready(eyas, path, pixels, peers, threads, folder):
    """Name, function to seconds, and cosine to onnxruntime's output, of every method."""
    methods = list(eyas.methods(path, pixels, folder))
    for peer in peers:
        try:
            run, output = PEERS[peer][0](path, pixels, threads, folder)
        except (ValueError, RuntimeError, subprocess.CalledProcessError) as error:
            print(f"{path.stem} is left out of {peer}: {error}")
            continue
        methods.append((peer, run, output))
    (wanted,) = [output for name, _, output in methods if name == "onnxruntime"]
    return [(name, run, cosine(output, wanted)) for name, run, output in methods]


def measure(methods, rounds, seed):
    times = {name: [] for name, _, _ in methods}
    order = random.Random(seed)
    for turn in range(-(rounds // 10), rounds):
        order.shuffle(methods)
        for name, run, _ in methods:
            run()
            took = run()
            if turn >= 0:
                times[name].append(took * 1e3)
    return times


def show(rows):
    """One line a network, from minima and from medians."""
    for statistic in ["median", "min"]:
        print(f"\n{statistic}, ms; peers: how many times as long as eyas")
        head = f"{'network':20} {'side':>4} {'MMAC':>6} {'eyas':>7} {'ort':>7} {'eyas/ort':>8}"
        print(head + "".join(f" {name:>7}" for name in ["tract", "ncnn", "litert", "avx2"]))
        for row in rows:
            at = {name: figures[statistic] for name, figures in row["methods"].items()}
            others = [
                f"{at[name] / at['eyas']:7.2f}" if name in at else f"{'':7}"
                for name in ["tract", "ncnn", "litert", "eyas Avx2"]
            ]
            print(
                f"{row['network']:20} {row['side']:4} {row['mmac']:6.1f} {at['eyas']:7.3f} "
                f"{at['onnxruntime']:7.3f} {at['eyas'] / at['onnxruntime']:8.2f} {' '.join(others)}"
            )


def show_full_int8(rows):
    """One line a network: full-int8 in both, and how many times as long f32 takes."""
    for statistic in ["median", "min"]:
        print(f"\nfull-int8, {statistic}, ms; f32: how many times as long as full-int8")
        head = f"{'network':20} {'side':>4} {'eyas':>7} {'ort':>7} {'eyas/ort':>8}"
        print(head + "".join(f" {name:>8}" for name in ["eyas f32", "ort f32", "avx2", "cosine"]))
        for row in rows:
            at = {name: figures[statistic] for name, figures in row["methods"].items()}
            if "eyas full-int8" not in at:
                continue
            mine, theirs = at["eyas full-int8"], at["onnxruntime full-int8"]
            avx2 = at.get("eyas Avx2 full-int8", float("nan")) / at.get("eyas Avx2", float("nan"))
            agreement = row["methods"]["eyas full-int8"]["cosine"]
            print(
                f"{row['network']:20} {row['side']:4} {mine:7.3f} {theirs:7.3f} "
                f"{mine / theirs:8.2f} {at['eyas'] / mine:8.2f} "
                f"{at['onnxruntime'] / theirs:8.2f} {avx2:8.2f} {agreement:8.5f}"
            )


def write_csv(path, rows, threads, rounds):
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if is_new:
            head = ["network", "side", "mmac", "threads", "rounds", "method"]
            writer.writerow([*head, "min_ms", "median_ms", "cosine_to_onnxruntime"])
        for row in rows:
            network = [row["network"], row["side"], f"{row['mmac']:.1f}", threads, rounds]
            for name, at in row["methods"].items():
                figures = [f"{at['min']:.4f}", f"{at['median']:.4f}", f"{at['cosine']:.8f}"]
                writer.writerow([*network, name, *figures])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--eyas", required=True, help="the program `eyas`")
    parser.add_argument("--bench", required=True, help="the bench program `encode`")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, metavar="NAME:SIDE")
    parser.add_argument("--full-int8", action="store_true", help="measure that precision too")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--csv", type=Path, help="file that the figures are appended to")
    args = parser.parse_args()
    peers = installed()
    rows, load, apart = [], [], []
    for network in args.networks:
        name, side = network.split(":")
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            precisions = ["f32", "full-int8"] if args.full_int8 else ["f32"]
            paths = {
                precision: path
                for precision in precisions
                if (path := write_network(args.eyas, name, int(side), precision, folder))
            }
            if "f32" not in paths:
                continue
            shape = (1, 3, int(side), int(side))
            pixels = np.random.default_rng(args.seed).standard_normal(shape).astype(np.float32)
            eyas = Eyas(args.bench, paths.values(), side, args.threads)
            methods = ready(eyas, paths["f32"], pixels, peers, args.threads, folder)
            if rounded := paths.get("full-int8"):
                # tract computes f32 around the rounding: nothing that it would be chosen for.
                here = ready(eyas, rounded, pixels, ["onnxruntime"], args.threads, folder)
                methods += [
                    (f"{method} full-int8", run, agreement)
                    for method, run, agreement in here
                    if method != "tract"
                ]
            times = measure(methods, args.rounds, args.seed)
            load.append(os.getloadavg()[0])
            figures = {
                method: {"min": min(at), "median": float(np.median(at)), "cosine": agreement}
                for method, _, agreement in methods
                for at in [times[method]]
            }
            needed = lambda m: AGREES["full-int8" if m.endswith("full-int8") else "f32"]
            apart += [
                (network, m, at["cosine"])
                for m, at in figures.items()
                if at["cosine"] < needed(m)
            ]
            mmac = eyas.multiply_adds / 1e6
            rows.append({"network": name, "side": int(side), "mmac": mmac, "methods": figures})
            eyas.end()
    print(f"{args.threads} thread(s), {args.rounds} rounds, seed {args.seed}")
    print(f"{machine()}; load {np.median(load):.1f} (median); {versions(peers)}")
    show(rows)
    if args.full_int8:
        show_full_int8(rows)
    if args.csv:
        write_csv(args.csv, rows, args.threads, args.rounds)
    for network, method, agreement in apart:
        print(f"{network}: {method} does not agree with onnxruntime: cosine {agreement:.7f}")
    raise SystemExit(1 if apart else 0)


if __name__ == "__main__":
    main()
