"""The tables of `run`: table.py RUNS MEMORY THREADS, files of JSON lines as the programs printed them."""
import json
import sys

MEAN = {"w1": "0.021694 exact", "w2": "1.3116 by all"}


def read(path):
    """Result lines, each with the peak memory of the program that printed it."""
    results, waiting = [], []
    for line in open(path):
        if not line.startswith("{"):
            continue
        row = json.loads(line)
        if "rss_kb" in row:
            for result in waiting:
                result["rss_mib"] = row["rss_kb"] / 1024
            results += waiting
            waiting = []
        elif "tool" in row:
            row.setdefault("bench", row.get("workload"))
            row.setdefault("mean", row.get("mean_wait"))
            if not row["tool"].endswith(" thread"):  # one of several at once: only their sum counts
                waiting.append(row)
    return results


def best(rows, key):
    """The fastest row for each key."""
    fastest = {}
    for row in rows:
        name = key(row)
        if name not in fastest or row["jobs_per_s"] > fastest[name]["jobs_per_s"]:
            fastest[name] = row
    return fastest


def rate(value):
    return f"{value / 1e6:.2f} M" if value >= 1e6 else f"{value:,.0f}"


def ratio(row, reference):
    return "-" if reference is None else f"{row['jobs_per_s'] / reference['jobs_per_s']:.2f}"


def reference(rows, bench, *words):
    """The fastest program of this model whose name has all the words."""
    fitting = [row for (of, tool), row in rows.items() if of == bench and all(word in tool.lower() for word in words)]
    return max(fitting, key=lambda row: row["jobs_per_s"], default=None)


runs = best(read(sys.argv[1]), lambda row: (row["bench"], row["tool"]))
print("\n| model | program | jobs | jobs/s | x simcore | x NexoSim | x SimPy | mean, s | peak RSS, MiB |")
print("|---|---|---|---|---|---|---|---|---|")
for bench in ["w1", "w2"]:
    simcore = reference(runs, bench, "simcore", "1 component") or reference(runs, bench, "simcore", "callbacks")
    peers = [simcore, reference(runs, bench, "nexosim", "threads=1"), reference(runs, bench, "simpy")]
    ordered = sorted((row for (of, _), row in runs.items() if of == bench), key=lambda row: -row["jobs_per_s"])
    for row in ordered:
        name = f"**{row['tool']}**" if row["tool"].startswith("headroom") else row["tool"]
        ratios = " | ".join(ratio(row, peer) for peer in peers)
        print(
            f"| {bench.upper()} | {name} | {row['jobs']:,} | {rate(row['jobs_per_s'])} | {ratios} "
            f"| {row['mean']:.5f} ({MEAN[bench]}) | {row['rss_mib']:.0f} |"
        )

memory = read(sys.argv[2])
if memory:
    print("\n| W1, memory | jobs | peak RSS, MiB | mean wait, s (0.021694 exact) |\n|---|---|---|---|")
    for row in memory:
        print(f"| {row['tool']} | {row['jobs']:,} | {row['rss_mib']:.1f} | {row['mean']:.5f} |")

threads = best(read(sys.argv[3]), lambda row: (row["tool"], row["threads"]))
if threads:
    print("\n| W2, threads | threads | jobs/s | x one thread | mean, s |\n|---|---|---|---|---|")
    for (tool, count), row in sorted(threads.items()):
        print(f"| {tool} | {count} | {rate(row['jobs_per_s'])} | {ratio(row, threads.get((tool, 1)))} | {row['mean']:.5f} |")
