"""Whether "this is none of them" can be believed: half of the Grocery Store classes as unknown.

For each random half of the classes: the known classes' training photographs make the teacher's
projection, the gallery and the student; a quarter of all classes is unknown while thresholds are
found (split `calibrate`), another quarter while they are judged (split `test`), each with all its
photographs. Known queries are photographs of `val.txt`, every other one of a class on either side.
Nothing that is asked was trained on, and no class that is unknown in the test was seen before.

    python3 tests/peers/open_set.py --eyas target/release/eyas --data grocery --weights weights \\
        --halves 3 --work work --out models/results/open-set.csv

Needs the program with libtorch, and no Python package. What is in WORK already is not made again.
"""

import argparse
import csv
import json
import os
import random
import subprocess
import sys
from pathlib import Path

NETWORKS = ["edgetpu_cls.onnx", "mnv2_zoo.onnx", "mnv1.onnx"]
START = "squeezenet1_1_tv.safetensors"
RECIPE = "models/recipes/grocery-labels.toml"


def images(data):
    """(split, path, class number) of train.txt and val.txt; name and kind by class number."""
    with open(data / "classes.csv", newline="") as file:
        rows = list(csv.reader(file))[1:]
    names = {int(row[1]): row[0] for row in rows}
    kinds = {int(row[1]): row[3] for row in rows}
    listed = []
    for split in ("train", "val"):
        for line in (data / f"{split}.txt").read_text().splitlines():
            path, number, _ = (field.strip() for field in line.split(","))
            listed.append((split, path, int(number)))
    return listed, names, kinds


def write_lists(args, half):
    """half-N.csv; half-N-far.csv without unknown classes of a kind that the gallery has;
    half-N-95.csv with a twentieth of the gallery held back."""
    listed, names, kinds = images(args.data)
    order = sorted(names)
    random.Random(half).shuffle(order)
    part = {number: ("known", "calibrate", "test")[(i >= 41) + (i >= 61)] for i, number in enumerate(order)}
    known_kinds = {kinds[number] for number in names if part[number] == "known"}
    seen, rows = {}, []
    for split, path, number in listed:
        if part[number] != "known":
            where = part[number]
        elif split == "train":
            where = "train"
        else:
            seen[number] = seen.get(number, 0) + 1
            where = "calibrate" if (seen[number] - 1 + number) % 2 == 0 else "test"
        far = part[number] == "known" or kinds[number] not in known_kinds
        rows.append((names[number], os.path.relpath(args.data / path, args.work), where, far))
    held = random.Random(half)
    lists = {
        "": rows,
        "-far": [row for row in rows if row[3]],
        "-95": [(r[0], r[1], "held" if r[2] == "train" and held.random() < 0.05 else r[2], r[3]) for r in rows],
    }
    for name, chosen in lists.items():
        with open(args.work / f"half-{half}{name}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["label", "path", "split", "is_query", "is_gallery"])
            for label, path, where, _ in chosen:
                writer.writerow([label, path, where, int(where != "train"), int(where == "train")])


def eyas(args, *words):
    """Runs a command; its standard output, empty where a bound can not be held. 1 is an answer too."""
    done = subprocess.run([args.eyas, *map(str, words)], cwd=args.work, stdout=subprocess.PIPE, text=True)
    if done.returncode == 2 and "--bound" in words:
        return ""
    if done.returncode not in (0, 1):
        sys.exit(f"eyas {' '.join(map(str, words))} ended with {done.returncode}")
    return done.stdout


def prepare(args, half):
    """Teacher, galleries, student and bundles of a half."""
    teacher, run, cache = f"h{half}.teacher", f"run-{half}", ("--cache", "cache")
    have = lambda name: (args.work / name).exists()
    if not have(teacher):
        networks = [args.weights / name for name in NETWORKS]
        eyas(args, "teacher", "import", *networks, "--output", "feature", "--data", f"half-{half}.csv",
             "--dim", 80, "--learned-whitening", *cache, "--threads", args.threads, "--out", teacher)
    for out, data, codes in [
        (f"h{half}.gallery", f"half-{half}.csv", "f16"),
        (f"h{half}-95.gallery", f"half-{half}-95.csv", "f16"),
        (f"h{half}-f32.gallery", f"half-{half}.csv", "f32"),
    ]:
        if not have(out):
            eyas(args, "gallery", "build", "--teacher", teacher, "--data", data, "--split", "train",
                 *cache, "--codes", codes, "--out", out)
    if not have(f"bundles/h{half}-int8.bundle"):
        recipe = args.recipe.read_text().replace("\ndim = 128", "\ndim = 80")
        (args.work / "recipe.toml").write_text(recipe)
        eyas(args, "train", "recipe.toml", "--data", f"half-{half}.csv", "--teacher", teacher, *cache,
             "--start", args.weights / START, "--seed", half, "--threads", args.threads, "--out", run)
        eyas(args, "export", run, "--precision", "f32", "--precision", "f16", "--precision", "int8",
             "--name", f"h{half}", "--out", "bundles")


def measure(args, half):
    """One row for each calibration and way to ask."""
    rows = []

    def row(what, precision="int8", rate=0.05, data="", gallery="", check_gallery=None, find=(), ask=()):
        lists = f"half-{half}{data}.csv"
        cache = ("--cache", f"student-{half}")
        out = f"calibrated-{half}.bundle"
        given = ("--gallery", f"h{half}{gallery}.gallery", "--data", lists, *cache, "--json")
        text = eyas(args, "calibrate", "--bundle", f"bundles/h{half}-{precision}.bundle", *given,
                    "--split", "calibrate", "--false-match-rate", rate, *find, "--out", out)
        if not text:
            rows.append({"half": half, "what": what, "precision": precision, "wanted": rate})
            return
        found = json.loads(text)
        given = ("--gallery", f"h{half}{gallery if check_gallery is None else check_gallery}.gallery", *given[2:])
        checked = json.loads(eyas(args, "calibrate", "--check", "--bundle", out, *given, "--split", "test", *ask))
        evidence, rates = found["evidence"], checked["rates"]
        line = {
            "half": half, "what": what, "precision": precision, "wanted": rate,
            "standing": checked["standing"],
            "calibrate_known": evidence["n_known"], "calibrate_unknown": evidence["n_unknown"],
            "calibrate_unknown_labels": evidence["n_unknown_labels"],
            "independent": round(evidence["n_unknown"] / evidence["design_effect"], 1),
            "match_score": round(found["thresholds"]["match_score"], 4),
            "unknown_score": round(found["thresholds"]["unknown_score"], 4),
            "margin": round(found["thresholds"]["margin"], 4),
            "bound": round(evidence["false_match_bound"], 4),
            "wanted_wrong_match": round(evidence["wanted_wrong_match_rate"], 4),
            "calibrate_right_match": evidence["right_matches"], "calibrate_wrong_match": evidence["wrong_matches"],
            "test_known": rates["false_reject"]["n"], "test_unknown": rates["false_match"]["n"],
            "test_unknown_labels": rates["n_unknown_labels"],
            "auroc": round(rates["auroc"], 4), "holds": int(checked["holds"]),
        }
        for name in ("false_match", "unknown_rejected", "false_reject", "right_match", "wrong_match", "first_right"):
            line[name] = round(rates[name]["share"], 4)
            line[name + "_low"], line[name + "_high"] = (round(end, 4) for end in rates[name]["interval"])
        rows.append(line)

    for rate in (0.01, 0.02, 0.05, 0.1, 0.2):
        row("plain", rate=rate)
        row("other kinds only", rate=rate, data="-far")
    for precision in ("f16", "f32"):
        row("plain", precision=precision)
    for rate in (0.05, 0.1, 0.2):
        row("per label", rate=rate, find=("--per-label",))
        row("bound", rate=rate, find=("--bound",))
    # The margin between two labels: 0.05 is what the other rows ask for.
    for rate in (0.1, 0.2, 0.5):
        for wrong in (0.05, 0.02, 0.01):
            row(f"wrong matches {wrong}", rate=rate, find=("--wrong-match-rate", wrong))
    row("f32 gallery, calibrated with f16", check_gallery="-f32")
    row("gallery grown by a twentieth", gallery="-95", check_gallery="")
    for votes in (5, 10, 20):
        row(f"{votes} votes", ask=("--vote", votes))
    for n in (3, 5, 10):
        for alpha in (1, 3):
            row(f"expanded by {n}, alpha {alpha}", ask=("--expand", n, "--alpha", alpha))
    for views in (2, 3):
        row(f"{views} views as one", ask=("--views", views))
    return rows


def main():
    parser = argparse.ArgumentParser()
    for name in ("eyas", "data", "weights", "work", "out"):
        parser.add_argument(f"--{name}", type=lambda path: Path(path).absolute(), required=True)
    parser.add_argument("--recipe", type=lambda path: Path(path).absolute(), default=Path(RECIPE).absolute())
    parser.add_argument("--halves", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of training: another number gives another student")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    rows = []
    for half in range(args.halves):
        write_lists(args, half)
        prepare(args, half)
        rows += measure(args, half)
        with open(args.out, "w", newline="") as file:
            names = list(dict.fromkeys(name for line in rows for name in line))
            writer = csv.DictWriter(file, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
