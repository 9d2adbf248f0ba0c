"""Compares two builds of `eyas-device`, such as one for this machine and one for a board.

    compare.py [--images FOLDER] MATERIAL THIS OTHER...

MATERIAL is what `cargo run --example material` wrote, THIS a program of this machine, OTHER...
the command line of the other one, with its emulator. Every bundle and gallery is read by both,
every bundle answers photographs from every gallery, and self-tests are run. Everything that the
programs say must be equal, to the last bit of every score: those in `axes.gallery` are the
components of embeddings. Where tract computes a part of the network ("remainder"), whose kernels
differ from one processor to the other, scores may differ by TRACT.

Bundles and galleries of a folder that holds others, such as a demo's, can be compared as well:
those of one space are paired.

Exit code 1 if anything differs. Needs nothing but Python 3.8.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

# A few units in the last place of sums of a few hundred terms, which both then normalize.
TRACT = 2e-6

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "pixels"

# What says how long something took, and with what instructions.
NOT_COMPARED = {"timing_us", "instructions"}


def run(command, arguments):
    """The JSON lines that a command says, without what may differ, and its exit code."""
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1):
        sys.exit(f"{' '.join(command)} {arguments[0]} failed: {done.stderr.strip()}")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for line in lines:
        for name in NOT_COMPARED:
            line.pop(name, None)
    return done.returncode, lines


def difference(this, other, tolerance):
    """The first place where two values differ by more than the tolerance, or None."""
    if isinstance(this, dict) and isinstance(other, dict) and this.keys() == other.keys():
        places = this.keys()
    elif isinstance(this, list) and isinstance(other, list) and len(this) == len(other):
        places = range(len(this))
    elif isinstance(this, float) and isinstance(other, float):
        return None if this == other or abs(this - other) <= tolerance else f": {this!r}, {other!r}"
    else:
        return None if this == other else f": {this!r}, {other!r}"
    for place in places:
        found = difference(this[place], other[place], tolerance)
        if found:
            return f" {place}{found}"
    return None


def by_row(lines):
    """Matches in the order of rows, for scores that may change places."""
    for line in lines:
        for match in line.get("matches", []):
            del match["rank"]
        line.get("matches", []).sort(key=lambda match: match["name"])
    return lines


class Comparison:
    def __init__(self, this, other):
        self.this, self.other = this, other
        self.n_equal, self.different, self.n_scores = 0, [], 0

    def check(self, arguments, tolerance=0.0):
        (this_code, this), (other_code, other) = (
            run(command, arguments) for command in (self.this, self.other)
        )
        if tolerance:
            this, other = by_row(this), by_row(other)
        self.n_scores += sum(len(line.get("matches", [])) for line in this)
        found = difference(this, other, tolerance)
        if this_code != other_code:
            found = f": exit codes {this_code} and {other_code}"
        if found:
            self.different.append(f"{' '.join(map(str, arguments[:6]))} differs at{found}")
        else:
            self.n_equal += 1


def main():
    parser = argparse.ArgumentParser(usage="compare.py [--images FOLDER] MATERIAL THIS OTHER...")
    parser.add_argument("--images", type=Path, default=GOLDEN)
    parser.add_argument("material", type=Path)
    parser.add_argument("this")
    parser.add_argument("other", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    comparison = Comparison([options.this], options.other)

    spaces = {}
    for path in sorted(options.material.glob("*.bundle")) + sorted(options.material.glob("*.gallery")):
        comparison.check(["info", path, "--json"])
        _, [info] = run([options.this], ["info", path, "--json"])
        spaces[path] = info["space_id"]
    bundles = [path for path in spaces if path.suffix == ".bundle"]
    galleries = [path for path in spaces if path.suffix == ".gallery"]
    for bundle in bundles:
        tolerance = TRACT if bundle.name.startswith("remainder") else 0.0
        comparison.check(["selftest", "--bundle", bundle, "--json"], tolerance)
        for gallery in galleries:
            if spaces[gallery] != spaces[bundle] or (tolerance and gallery.stem != "axes"):
                continue
            pair = ["--bundle", bundle, "--gallery", gallery]
            comparison.check(
                ["query", *pair, "--top-k", 64, "--json", options.images], tolerance
            )
    for difference_found in comparison.different:
        print(f"compare: {difference_found}", file=sys.stderr)
    print(
        f"compare: {comparison.n_equal} of {comparison.n_equal + len(comparison.different)} "
        f"comparisons equal, {comparison.n_scores} scores"
    )
    sys.exit(1 if comparison.different or not comparison.n_equal else 0)


if __name__ == "__main__":
    main()
