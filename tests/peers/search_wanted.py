"""What is wanted of the search, beside what a table of `search.py` holds.

A figure by medians and one by smallest times go with each line; the line is reached if both are.
Ratios of speed are of times: a peer's over ours.
"""

RECALL = 0.999
OPEN_MS = 0.1


def say(what, sign, wanted, got, note=""):
    reached = all(value >= wanted if sign == ">=" else value <= wanted for value in got)
    figures = "".join(f"{value:9.4f}" for value in got)
    verdict = "reached" if reached else "NOT reached"
    print(f"{what:54} {sign} {wanted:<5g} {figures:18}  {verdict:11}  {note}".rstrip())


def short(method):
    return method.name.removeprefix("eyas ")


def ours(methods, codes, batched=False):
    """With the kernel that the library takes: the bench names that one last."""
    kernels = starting(methods, f"eyas {codes} ")
    return [method for method in kernels if (method.batch > 1) == batched][-1]


def starting(methods, prefix):
    return [method for method in methods if method.name.startswith(prefix)]


def recall(method):
    say(f"recall@10 of {short(method)}", ">=", RECALL, [method.recall])


def times_as_fast(wanted, own, other, note=""):
    got = [other.median / own.median, other.least / own.least]
    recalls = f"recall {own.recall:.4f}, theirs {other.recall:.4f}"
    say(f"{short(own)} : {other.name}", ">=", wanted, got, f"{recalls} {note}")


def against_equal(wanted, own, others, kind):
    """Beside the fastest that finds no less than ours."""
    equal = [other for other in others if other.recall >= own.recall]
    if equal:
        fastest = min(equal, key=lambda other: other.median)
        times_as_fast(wanted, own, fastest, "(fastest of no less)")
    else:
        print(f"{short(own)}: no {kind} has as much recall")


def against_nearest_lower(wanted, own, others, kind):
    """Beside the one that finds least less than ours."""
    lower = [other for other in others if other.recall < own.recall]
    if lower:
        nearest = max(lower, key=lambda other: (other.recall, -other.median))
        times_as_fast(wanted, own, nearest, "(nearest lower)")
    else:
        print(f"{short(own)}: no {kind} has less recall")


def scan_rate(scan, read):
    of_bytes = scan.n_bytes / read.n_bytes
    got = [of_bytes * read.median / scan.median, of_bytes * read.least / scan.least]
    rates = [method.n_bytes / method.median / 1e6 for method in (scan, read)]
    say(f"rate of {short(scan)} : {short(read)}", ">=", 0.8, got, "{:.1f} of {:.1f} GB/s".format(*rates))


def batch(methods, codes):
    one, many = ours(methods, codes), ours(methods, codes, batched=True)
    got = [many.median / one.median, many.least / one.least]
    say(f"time of {short(many)} : of one", "<=", 0.25, got)


def show(methods):
    """Prints the list; the method that opens a gallery."""
    named = {method.name: method for method in methods}
    int8, int2 = ours(methods, "int8,f16"), ours(methods, "int2,f16")
    fast, turbo = starting(methods, "faiss PQ"), starting(methods, "turbovec ")
    opening = named["eyas open int8,f16"]
    print(f"{'times as fast, if not said otherwise':54} wanted   {'median':>9}{'min':>9}")
    recall(int8)
    times_as_fast(4, int8, named["faiss Flat"])
    times_as_fast(2.5, int8, named["faiss SQ8"])
    times_as_fast(9, int8, named["usearch exact f16"])
    recall(int2)
    against_equal(1, int2, fast, "PQx4fs,RFlat")
    against_nearest_lower(1, int2, fast, "PQx4fs,RFlat")
    times_as_fast(0.9, int2, named["turbovec 4-bit + f32 40"])
    against_equal(0.9, int2, turbo, "turbovec")
    scan_rate(ours(methods, "int8"), named["eyas read int8"])
    for codes in ["int8,f16", "int8"]:
        batch(methods, codes)
    say(f"{short(opening)}, ms", "<=", OPEN_MS, [opening.median, opening.least])
    return opening


def show_openings(openings):
    """By the number of rows, of which opening should not depend."""
    for n_rows, opening in openings.items():
        what = f"{short(opening)} of {n_rows} rows, ms"
        say(what, "<=", OPEN_MS, [opening.median, opening.least])
