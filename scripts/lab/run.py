#!/usr/bin/env python3
"""Makes, boots and records the cases of cases.py.

    LAB=/folder run.py [--only REGEX] [--healthy] [--faults] [--jobs 2] [--redo] [--list]

$LAB/images holds the guests (build.sh). Each image with a fault is made once, as an overlay in $LAB/cases; each
boot's log goes to $LAB/logs; each outcome is written to outcomes.json at once, so that a run that was cut goes on
where it stopped: what is recorded is not booted again without --redo.
"""
import argparse, concurrent.futures, fcntl, json, os, re, subprocess, sys, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import boot, cases, faults

HERE = os.path.dirname(os.path.abspath(__file__))
OUTCOMES = HERE + "/outcomes.json"

# Fails on the healthy guest as well: mdadm --monitor wants a mail address, and the guest's mdadm.conf has none.
ALWAYS_FAILED = {"mdmonitor.service"}

# Not the guest's doing: a timer interrupt that came too late on a busy host.
ARTEFACT = re.compile(r"IO-APIC \+ timer doesn't work")


def load():
    try:
        return json.load(open(OUTCOMES))
    except FileNotFoundError:
        return {"tools": {}, "guests": {}, "cases": {}}


def save(book):
    """One case a line, with what the case is: small, complete for the tests, and a diff shows which boot changed."""
    for case in cases.CASES:
        if case["id"] in book["cases"]:
            for key in ("rule", "where"):
                book["cases"][case["id"]].pop(key, None)
            known = {key: case[key] for key in ("guest", "fault", "bus", "firmware", "first", "rule", "where", "disks") if case[key] not in (None, 0)}
            book["cases"][case["id"]].update(known, **({"unlocked": True} if case["send"] else {}))
    lines = ["  %s: %s" % (json.dumps(id), json.dumps(case, sort_keys=True, ensure_ascii=False)) for id, case in sorted(book["cases"].items())]
    text = '{\n "tools": %s,\n "guests": %s,\n "cases": {\n%s\n }\n}\n' % (
        json.dumps(book["tools"], sort_keys=True), json.dumps(book["guests"], sort_keys=True), ",\n".join(lines))
    with open(OUTCOMES + ".new", "w") as file:
        file.write(text)
    os.replace(OUTCOMES + ".new", OUTCOMES)


def tool_versions():
    packages = ["qemu-system-x86", "ovmf", "seabios"]
    shown = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${Version}\n"] + packages, capture_output=True, text=True).stdout
    return dict(line.split() for line in shown.splitlines())


def guest_versions():
    """What the guests are made of, from the package databases of their base trees."""
    wanted = {"linux-image-cloud-amd64": "kernel", "systemd": "systemd", "grub-common": "grub", "dracut": "dracut", "initramfs-tools": "initramfs-tools", "lvm2": "lvm2", "mdadm": "mdadm", "cryptsetup": "cryptsetup"}
    versions = {}
    for base, guests in (("deb", "g1 g1usr g3 g4 g5luks g5md g8data"), ("dracut", "g2 g2usr g6el g7 g9data")):
        shown = subprocess.run(["dpkg-query", "--admindir=%s/work/base-%s/var/lib/dpkg" % (boot.LAB, base), "-W", "-f", "${Package} ${Version}\n"] + list(wanted),
                               capture_output=True, text=True).stdout
        versions[guests] = {wanted[name]: version for name, version in (line.split() for line in shown.splitlines() if " " in line.strip())}
    return versions


def run(case):
    disks = faults.images(case)
    log = "%s/logs/%s.log" % (boot.LAB, case["id"])
    for attempt in range(3):
        result = boot.boot(disks, case["bus"], case["firmware"], case["first"], case["send"], check=True, log=log)
        slow = result.pop("slow", False)
        # On a busy host devices time out that are there, and emulated machines reset. What nobody broke is believed only the third time.
        late = not case["rule"] and (result["outcome"] == "reboot-loop" or result["outcome"] == "emergency" and "Timed out" in result["cause"])
        if not late and not ARTEFACT.search(result["evidence"]):
            break
        if slow and attempt == 2:
            raise RuntimeError("the host was too busy")
    inspected = result.get("inspected", {})
    failed = [unit for unit in inspected.get("failed", "").split() if unit not in ALWAYS_FAILED]
    if result["outcome"] == "login" and failed:
        result.update(outcome="degraded", evidence="failed: " + " ".join(failed))
    elif result["outcome"] == "login" and not inspected:
        # Nobody could log in to ask; the console shows what failed.
        with open(log, "rb") as console:
            shown = re.findall(r"\[FAILED\] (.*)", boot.clean(console.read()))
        if shown:
            result.update(outcome="degraded", evidence="failed: " + shown[0].strip())
    elif result["outcome"] == "login" and "_" in inspected.get("arrays", ""):
        result.update(outcome="degraded", evidence="/proc/mdstat: " + inspected["arrays"])
    result["load"] = round(os.getloadavg()[0], 1)
    with open(boot.LAB + "/outcomes.lock", "w") as lock:  # two runs may record side by side
        fcntl.flock(lock, fcntl.LOCK_EX)
        book = load()
        book["tools"], book["guests"] = tool_versions(), guest_versions()
        book["cases"][case["id"]] = {key: value for key, value in result.items() if value not in ({}, "", None)}
        save(book)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose `id guest fault hardware` matches")
    parser.add_argument("--healthy", action="store_true", help="only guests without a fault")
    parser.add_argument("--faults", action="store_true", help="only guests with a fault")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--make", action="store_true", help="make the images and boot nothing")
    parser.add_argument("--redo", action="store_true")
    parser.add_argument("--list", action="store_true")
    a = parser.parse_args()
    for folder in ("logs", "tmp"):
        os.makedirs("%s/%s" % (boot.LAB, folder), exist_ok=True)
    os.nice(1)
    done = {} if a.redo else load()["cases"]
    todo = [case for case in cases.CASES if case["id"] not in done and (not a.faults or case["fault"]) and (not a.healthy or not case["fault"])
            and re.search(a.only, "%s %s %s %s" % (case["id"], case["guest"], case["fault"], case["hardware"]))]
    if a.list:
        for case in todo:
            print("%-28s %-7s %-28s %s" % (case["id"], case["guest"], case["fault"] or "-", case["hardware"]))
        return 0

    def one(case):
        # Two runs side by side share the work: a case is theirs who locks it.
        claim = open("%s/tmp/%s.claim" % (boot.LAB, case["id"]), "w")
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        if case["id"] in load()["cases"] and not a.redo:
            return True
        try:
            if a.make:
                print(case["id"], *faults.images(case), flush=True)
                return True
            result = run(case)
            print("%s %-28s %-18s %4ds %s" % (time.strftime("%H:%M:%S"), case["id"], result["outcome"], result["seconds"], result["evidence"][:90]), flush=True)
            return True
        except Exception as error:  # one case that cannot be made must not stop the others
            print("%s %-28s NOT RUN: %s" % (time.strftime("%H:%M:%S"), case["id"], error), flush=True)
            return False

    with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
        return 0 if all(list(pool.map(one, todo))) else 1


if __name__ == "__main__":
    sys.exit(main())
