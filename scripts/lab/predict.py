#!/usr/bin/env python3
"""Asks `guestmend simulate` about every recorded case, compares with what really happened, and writes docs/prediction.md.

    LAB=/folder predict.py [--guestmend target/release/guestmend] [--slim FOLDER] [--only REGEX] [--print]

The images are those that were booted (run.py makes them again where they are gone), or with `--slim` the small ones
of slim.py, unpacked into FOLDER. Exit status 1 when an outcome is wrong or a cause is not the true one.
"""
import argparse, json, os, re, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import boot, cases, faults, run

ROOT = os.path.dirname(os.path.dirname(run.HERE))


def simulate(guestmend, case, disks):
    """(scenario, seconds): the one scenario of this hardware as the program tells it."""
    line = [guestmend, "simulate", "--output", "json", "--allow-path", boot.LAB, "--bus", case["bus"], "--firmware", case["firmware"]]
    if case["first"]:
        line += ["--disk-order", "+%d" % case["first"]]
    start = time.time()
    with tempfile.NamedTemporaryFile("w") as passphrase:
        if case["send"]:
            passphrase.write(case["send"][0][1])
            passphrase.flush()
            line += ["--passphrase-file", passphrase.name]
        done = subprocess.run(line + disks, capture_output=True, text=True)
    seconds = time.time() - start
    try:
        scenarios = json.loads(done.stdout)["scenarios"]
    except (ValueError, KeyError):
        return {"outcome": "no answer", "cause": None, "why": (done.stderr.strip().splitlines() or ["exit %d" % done.returncode])[-1]}, seconds
    wanted = [s for s in scenarios if case["bus"] in s["hardware"] and ("extra=" in s["hardware"] or "=extra" in s["hardware"]) == bool(case["first"])] or scenarios
    if not wanted:
        return {"outcome": "no answer", "cause": None, "why": "no scenario"}, seconds
    return wanted[-1], seconds


def verdict(case, real, told):
    """right, right but another cause, unknown or WRONG."""
    if told["outcome"] == "unknown":
        return "unknown"
    if told["outcome"] != real["outcome"]:
        return "WRONG"
    cause = told["cause"] or {}
    if case["rule"] is None:
        return "right"
    if cause.get("rule") not in case["rule"].split("|"):
        return "other cause"
    where = re.match(r"(/\S+?)(?::(\d+))?(?: |$)", case["where"])
    if where and cause.get("file") and (where[1] != cause["file"] or (where[2] and cause.get("line") and int(where[2]) != cause["line"])):
        return "other place"
    return "right"


def place(cause):
    if not cause:
        return "", ""
    return cause.get("rule") or "", "%s%s" % (cause.get("file") or "", ":%d" % cause["line"] if cause.get("line") else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guestmend", default=ROOT + "/target/release/guestmend")
    parser.add_argument("--slim")
    parser.add_argument("--only", default="")
    parser.add_argument("--print", action="store_true", help="print the table, write nothing")
    a = parser.parse_args()
    book, rows, count, slowest = run.load(), [], {}, 0
    for case in cases.CASES:
        real = book["cases"].get(case["id"])
        if not real or not re.search(a.only, case["id"]):
            continue
        if a.slim:
            import slim
            disks = slim.images(case, a.slim)
            if not disks:
                continue
        else:
            disks = faults.images(case)
        told, seconds = simulate(a.guestmend, case, disks)
        slowest = max(slowest, seconds)
        result = verdict(case, real, told)
        count[result] = count.get(result, 0) + 1
        rule, where = place(told["cause"])
        rows.append((case["id"], case["guest"], case["fault"] or "–", case["hardware"], real["outcome"], told["outcome"], case["rule"] or "–", case["where"] or "–",
                     rule or "–", where or "–", result, real["evidence"], told.get("why", "")))
        print("%-12s %-26s %-18s %-18s %-32s %s %s" % (result, case["id"], real["outcome"], told["outcome"], rule, where, told.get("why", "")), flush=True)
    total = len(rows)
    print("%d cases: %s" % (total, ", ".join("%d %s" % (n, name) for name, n in sorted(count.items()))))
    if not a.print and not a.only:
        write(rows, count, book)
    return 1 if set(count) - {"right", "unknown"} else 0


def write(rows, count, book):
    total = max(len(rows), 1)
    cell = lambda text: str(text).replace("|", " or ")
    lines = ["# Predictions and real boots", "",
             "Every guest of `scripts/lab`, whole and broken, was booted in QEMU, and `guestmend simulate` was asked about the same disks on the same",
             "hardware. `scripts/lab/predict.py` remakes this page from the recorded outcomes (`scripts/lab/outcomes.json`).", "",
             "%d cases: %s. Unknown: %.1f %%." % (len(rows), ", ".join("%d %s" % (n, name) for name, n in sorted(count.items())), 100 * count.get("unknown", 0) / total), "",
             "Booted with " + ", ".join("%s %s" % item for item in sorted(book["tools"].items())) + "; " +
             "; ".join("%s: %s" % (guests, ", ".join("%s %s" % item for item in sorted(versions.items()))) for guests, versions in sorted(book["guests"].items())) + ".", "",
             "| guest | fault | hardware | real outcome | predicted | true cause | where | predicted cause | where | verdict |", "|---|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        lines.append("| " + " | ".join(cell(text) for text in row[1:11]) + " |")
    shown = {row[0] for row in rows}
    corrected = [(id, text) for id, text in cases.CORRECTED.items() if id in shown]
    lines += ["", "## What the boots taught", "",
              "Of these cases %d were told otherwise before they were booted; the simulator was corrected by what was seen. Four older ones" % len(corrected),
              "(`cases.py` names two causes for them) had their second cause added after a difference.", ""]
    lines += ["- `%s`: %s." % item for item in corrected]
    lines += ["", "Later sets were told before they were booted, each with the program as it was then. The first and the fourth are of kinds that had",
              "not been examined: nearly half of each was told wrong. The others are of kinds that had.", ""]
    for what, number, groups in cases.SETS:
        lines.append("%s: %d cases, %d told otherwise." % (what[0].upper() + what[1:], number, sum(len(ids) for ids, _ in groups)))
        lines += [""] if groups else []
        lines += ["- %s: %s." % (", ".join("`%s`" % id for id in ids), text) for ids, text in groups] + [""]
    lines.pop()
    with open(ROOT + "/docs/prediction.md", "w") as page:
        page.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
