"""Is what the bench measures what users get?

Times the same images with the same student and gallery in three ways, in random order, for some
rounds: `eyas-device bench`, `eyas-device query`, and `eyas query` over a link to `eyas-device serve`.
Prints each one's median of a whole query, and the median of its ratios to the bench of the same round, as JSON.

    python3 tests/peers/tool_time.py --bin target/release --bundle s.bundle --gallery g.gallery photos/*.jpg
"""

import argparse
import json
import random
import statistics
import subprocess


def bench(args):
    said = subprocess.run(
        [f"{args.bin}/eyas-device", "bench", *args.images, "--bundle", args.bundle, "--gallery", args.gallery,
         "--windows", "1", "--at-least-s", str(args.seconds), "--warm-up-s", "0.2", "--top-k", "5", "--json"],
        check=False, capture_output=True, text=True)
    window = json.loads(said.stdout)["windows"][0]
    flags = [flag["flag"] for flag in window["flags"]]
    return window["total"]["median_ms"], window["n"], flags


def of_lines(lines, n_images):
    # One pass over the images is warm-up here too.
    totals = [json.loads(line)["timing_us"]["total"] / 1000 for line in lines.splitlines()][n_images:]
    return statistics.median_low(totals), len(totals), []


def repeated(args):
    return args.images * (1 + args.passes)


def query(args):
    said = subprocess.run(
        [f"{args.bin}/eyas-device", "query", *repeated(args), "--bundle", args.bundle, "--gallery", args.gallery, "--json"],
        check=True, capture_output=True, text=True)
    return of_lines(said.stdout, len(args.images))


def link(args):
    board = f"{args.bin}/eyas-device serve --stdio --bundle {args.bundle} --gallery {args.gallery}"
    said = subprocess.run(
        [f"{args.bin}/eyas", "query", *repeated(args), "--stdio-command", board, "--json"],
        check=True, capture_output=True, text=True)
    return of_lines(said.stdout, len(args.images))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+")
    parser.add_argument("--bin", required=True)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--gallery", required=True)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--passes", type=int, default=20, help="how often all images are asked by `query`")
    args = parser.parse_args()
    ways = {"bench": bench, "query": query, "query over a link": link}
    order = random.Random(0)
    medians = {way: [] for way in ways}
    counts = dict.fromkeys(ways, 0)
    flags = []
    for _ in range(args.rounds):
        turn = list(ways)
        order.shuffle(turn)
        for way in turn:
            median, n, raised = ways[way](args)
            medians[way].append(median)
            counts[way] += n
            flags += raised
    def ratios(values):
        """Of each round to the bench's of the same round: a machine's clock drifts, and rounds are short."""
        return sorted(value / bench for value, bench in zip(values, medians["bench"]))

    print(json.dumps({
        "images": len(args.images),
        "rounds": args.rounds,
        "flags": flags,
        "ways": {
            way: {
                "n": counts[way],
                "median_ms": statistics.median_low(values),
                "min_ms": min(values),
                "max_ms": max(values),
                "ratio_to_bench": statistics.median(ratios(values)),
                "ratio_quartiles": statistics.quantiles(ratios(values), n=4)[::2],
            }
            for way, values in medians.items()
        },
    }, indent=1))


if __name__ == "__main__":
    main()
