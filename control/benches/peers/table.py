"""Medians of headroom and its peers from the raw log of `run`, as Markdown."""

import re
import statistics
import sys

STAGE = re.compile(r"^=+ (\w+)")
HEADING = re.compile(r"^-- (.*)")
RUN = re.compile(r"^(?:\w+ )?(closed|open|batch) (\d+)((?: \w+=\d+)*): .*?([\d.]+) jobs/s(.*)")
LATENCY = re.compile(r"p50=\s*([\d.]+).*?p99=\s*([\d.]+)")


def read(path):
    """(program, mode, amount, detail) -> [(rate, p50, p99)], in order of appearance."""
    runs, stage, program, last = {}, "", None, None
    for line in open(path, encoding="utf-8"):
        if found := STAGE.match(line):
            stage, last = found[1], None
            continue
        if heading := HEADING.match(line):
            program, last = heading[1].strip(), None
            if not program.startswith(("headroom", stage)):
                program = f"{stage}, {program}"
            continue
        if found := RUN.match(line):
            mode, amount, detail, rate, rest = found.groups()
            last = runs.setdefault((program, mode, int(amount), detail.strip()), [])
            last.append([float(rate), None, None])
            line = rest
        if last and last[-1][1] is None and (found := LATENCY.search(line)):
            last[-1][1:] = [float(found[1]), float(found[2])]
    return runs


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def main():
    rows = []
    for (program, mode, amount, detail), runs in read(sys.argv[1]).items():
        rate, p50, p99 = (median(run[at] for run in runs) for at in range(3))
        rows.append((program, mode, amount, detail, len(runs), rate, p50, p99))
    if not rows:
        sys.exit(f"no figures in {sys.argv[1]}")
    own = {(mode, amount): rate for program, mode, amount, _, _, rate, _, _ in rows if program.startswith("headroom")}
    print("| program | load | runs | jobs/s | headroom / it | p50, p99 ms |\n|---|---|---|---|---|---|")
    for program, mode, amount, detail, count, rate, p50, p99 in rows:
        load = {"closed": f"{amount} in flight", "open": f"{amount}/s", "batch": f"64 a request, {amount} in flight"}[mode]
        ratio = "" if program.startswith("headroom") or mode == "open" else f"{own[mode, amount] / rate:.1f}" if (mode, amount) in own else ""
        latency = "" if p50 is None else f"{p50:.2f}, {p99:.2f}"
        name = f"{program} {detail}".strip()
        print(f"| {name} | {load} | {count} | {rate:,.0f} | {ratio} | {latency} |")


main()
