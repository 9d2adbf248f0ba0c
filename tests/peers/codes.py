"""What each code of a gallery loses on photographs: one teacher, one student, the same queries.

Builds a gallery of DATA's `train` photographs in each code, exports the student of RUN in three
precisions, and asks with the `val` photographs. Differences are to the f32 gallery, query by query,
with the interval that `eyas evaluate --against` gives.

    python3 tests/peers/codes.py --eyas target/release/eyas --teacher grocery-backbones.teacher --run runs/best \\
        --data grocery --work work --out models/results/codes.csv

Needs no Python package. Galleries and bundles that are in WORK already are not made again: give
another program another WORK.
"""

import argparse
import csv
import datetime
import json
import subprocess
import sys
from pathlib import Path

from machine import machine

CODES = ["f32", "f16", "int8", "int8,f16", "int2,f16", "int2,int8"]
PRECISIONS = ["f32", "f16", "int8"]
METRICS = ["recall_at_1", "mean_average_precision_at_r"]


def eyas(args, *words):
    """Runs a command; its standard output."""
    done = subprocess.run([args.eyas, *map(str, words)], cwd=args.work, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"eyas {' '.join(map(str, words))} ended with {done.returncode}")
    return done.stdout


def prepare(args):
    """Galleries and bundles."""
    for codes in CODES:
        if not (args.work / f"{codes}.gallery").exists():
            eyas(args, "gallery", "build", "--teacher", args.teacher, "--data", args.data, "--split", "train",
                 "--cache", args.cache, "--codes", codes, "--out", f"{codes}.gallery")
    if not all((args.work / "bundles" / f"student-{precision}.bundle").exists() for precision in PRECISIONS):
        wanted = [word for precision in PRECISIONS for word in ("--precision", precision)]
        eyas(args, "export", args.run, *wanted, "--data", args.data, "--name", "student", "--out", "bundles")


def measure(args, precision):
    """One row for each gallery."""
    others = [word for codes in CODES[1:] for word in ("--against", f"{codes}.gallery")]
    scored = json.loads(eyas(args, "evaluate", "--bundle", f"bundles/student-{precision}.bundle",
                             "--gallery", f"{CODES[0]}.gallery", "--manifest", args.data, "--split", "val",
                             *others, "--json"))
    of_base = {metric: {"mean": scored[metric]} for metric in METRICS}
    rows = []
    for codes, measured in zip(CODES, [of_base, *scored["against"]]):
        line = {
            "date": datetime.date.today().isoformat(), "commit": args.commit, "machine": machine(),
            "teacher": scored["gallery_embedded_by"], "student": args.student, "precision": precision,
            "gallery": codes, "bytes": (args.work / f"{codes}.gallery").stat().st_size,
            "queries": scored["n_queries"] - scored["n_queries_without_relevant"],
        }
        for metric in METRICS:
            line[metric] = round(measured[metric]["mean"], 6)
            for end in ("difference", "low", "high"):
                value = measured[metric].get(end)
                line[f"{metric}_{end}"] = value if value is None else round(value, 6)
        rows.append(line)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("eyas", "teacher", "run", "data", "work", "out"):
        parser.add_argument(f"--{name}", type=lambda path: Path(path).absolute(), required=True)
    parser.add_argument("--cache", type=lambda path: Path(path).absolute(), help="the teacher's; in WORK if not given")
    parser.add_argument("--commit", help="that the program was built from; the checkout's if not given")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    args.cache = args.cache or args.work / "cache"
    if not args.commit:
        said = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, check=True,
                              stdout=subprocess.PIPE, text=True)
        args.commit = said.stdout.strip()
    recipe = (args.run / "recipe.toml").read_text().splitlines()
    args.student = next(line.split('"')[1] for line in recipe if line.startswith("name = "))
    prepare(args)
    rows = [row for precision in PRECISIONS for row in measure(args, precision)]
    with open(args.out, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
