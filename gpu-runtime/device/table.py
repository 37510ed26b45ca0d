#!/usr/bin/env python3
"""One table of what `check` measured: table.py results.jsonl. Goals stand beside figures; nothing is rounded up."""
import json
import sys

GOALS = {"step": (2.5, 1.25, 2.0), "motion": (1.8, 1.15, 1.5), "decode": (None, 1.15, 1.5)}


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    facts = next((row for row in rows if "device" in row), {})
    print(f"# {facts.get('device')}, driver for CUDA {facts.get('driver')}, NVRTC {facts.get('nvrtc')}\n")
    print("| stage | exit | seconds |\n|---|---|---|")
    for row in rows:
        if "exit" in row:
            print(f"| {row['stage']} | {row['exit']} | {row['seconds']} |")
        elif "skipped" in row:
            print(f"| {row['stage']} | {row['skipped']} | |")
    compared = {row["compared"]: row for row in rows if "compared" in row}
    if compared:
        print("\n| program | ours ms | eager ms (x, goal) | compile ms (x, goal) | / floor (goal) | error / PyTorch bf16's (goal) |")
        print("|---|---|---|---|---|---|")
    for name, row in compared.items():
        over_eager, over_compile, of_floor = GOALS[name]
        mine = row["ours_ms"]
        faster = lambda other, goal: "-" if other is None else f"{other:.3f} ({other / mine:.2f}, {goal})"
        print(f"| {name}, {row['frames']} frames | {mine:.3f} | {faster(row['eager_ms'], over_eager)} | "
              f"{faster(row['compile_ms'], over_compile)} | {mine / row['floor_ms']:.2f} ({of_floor}) | "
              f"{row['error']:.2e} / {row['torch_bf16_error']:.2e} = {row['error'] / row['torch_bf16_error']:.2f} (1.25) |")
    for row in rows:
        if "animation_frames" in row:
            step = compared.get("motion" if row["animation_frames"] > 1 else "step", {}).get("back_to_back_ms")
            idle = "-" if step is None else f"{100 * (1 - row['steps'] * step / row['steps_ms']):.2f} % (1 %)"
            print(f"\n{row['animation_frames']} frames, {row['steps']} steps: {row['wall_ms']:.1f} ms in all, steps "
                  f"{row['steps_ms']:.1f}, decoding {row['decode_ms']:.1f}; idle during steps {idle}; loaded in "
                  f"{row['cached_load_s']:.2f} s from caches (2 s), {row['first_load_s']:.2f} s at first; "
                  f"{row['memory_bytes'] / 2**30:.2f} GiB.")
    for row in rows:
        if "trained" in row:
            memory = "-" if row["eager_memory_bytes"] is None else f"{row['eager_memory_bytes'] / 2**30:.2f}"
            print(f"\nTraining, {row['trained']} frames: {row['ours_ms']:.1f} ms a step and {row['memory_bytes'] / 2**30:.2f} GiB, PyTorch "
                  f"{row['eager_ms']:.1f} ms and {memory} GiB.")
    cases = [row for row in rows if "case" in row]
    bad = [row for row in cases if not row["good"]]
    if cases:
        print(f"\n{len(cases)} kernel cases, {len(bad)} out of tolerance or not repeatable.\n")
        print("| case | error (tolerance) | ms | TFLOP/s | GB/s |\n|---|---|---|---|---|")
        for row in sorted(cases, key=lambda row: (row["good"], -row["ms"])):
            mark = "" if row["good"] else "**wrong** "
            print(f"| {mark}{row['case']} | {row['error']:.1e} ({row['tolerance']:.1e}) | {row['ms']:.4f} | "
                  f"{row['tflops']:.1f} | {row['gb_per_s']:.0f} |")


if __name__ == "__main__":
    main()
