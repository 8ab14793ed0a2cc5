#!/usr/bin/env python3
"""Following the boot of whole guests, beside the tools that unpack the same initramfs images.

    boot.py [--runs 11] IMAGE INITRD...     (IMAGE: a guest; INITRD: its initramfs images on the default path, in the guest)

`check` may take as long as `zstd -dc` and its like take for the initramfs, and 60 ms more; a matrix of 30 machines and more
100 ms above that; memory 96 MiB. Medians of runs that take turns.
"""
import argparse, os, statistics, subprocess, sys, tempfile, time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOOL = os.environ.get("GUESTMEND", ROOT + "/target/release/guestmend")
MAGIC = [(b"\x28\xb5\x2f\xfd", ["zstd", "-dc"]), (b"\x1f\x8b", ["gzip", "-dc"]), (b"\xfd7zXZ\0", ["xz", "-dc"]), (b"BZh", ["bzip2", "-dc"]),
         (b"\x02\x21\x4c\x18", ["lz4", "-dc"]), (b"\x5d\0\0", ["xz", "--format=lzma", "-dc"])]


def once(command, stdin=None):
    """(milliseconds, peak in MiB)"""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    return (time.perf_counter() - start) * 1000, usage.ru_maxrss / 1024


def compressed(initrd, folder):
    """The compressed part behind the uncompressed archives, in a file, and the tool that unpacks it."""
    at = 0
    while initrd[at:at + 4] == b"0707":
        while True:
            size, name = int(initrd[at + 54:at + 62], 16), int(initrd[at + 94:at + 102], 16)
            is_end = initrd[at + 110:at + 120] == b"TRAILER!!!"
            at += (110 + name + 3) // 4 * 4
            at += (size + 3) // 4 * 4
            if is_end:
                break
        while at < len(initrd) and initrd[at] == 0:
            at += 1
    for magic, tool in MAGIC:
        if initrd[at:].startswith(magic):
            with open(folder + "/part", "wb") as file:
                file.write(initrd[at:])
            return tool
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("image")
    parser.add_argument("initrd", nargs="+")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tools = []
        for number, path in enumerate(a.initrd):
            os.mkdir("%s/%d" % (folder, number))
            tool = compressed(subprocess.run([TOOL, "cat", a.image, path], capture_output=True, check=True).stdout, "%s/%d" % (folder, number))
            if tool:
                tools.append((tool, "%s/%d/part" % (folder, number)))
        matrix = [TOOL, "simulate", "--matrix", a.image]
        ours, theirs, all_of, one, peak = [], [], [], [], 0
        for _ in range(a.runs + 1):
            ms, memory = once([TOOL, "check", a.image])
            ours.append(ms)
            theirs.append(sum(once(tool, open(path, "rb"))[0] for tool, path in tools))
            peak = max(peak, memory)
            one.append(once([TOOL, "simulate", a.image])[0])
            ms, memory = once(matrix)
            all_of.append(ms)
            peak = max(peak, memory)
        machines = len(__import__("json").loads(subprocess.run(matrix + ["--output", "json"], capture_output=True, text=True).stdout)["scenarios"])
    check, peers, single, table = (statistics.median(times[1:]) for times in (ours, theirs, one, all_of))
    verdict = lambda ok: "ok" if ok else "MISSED"
    print("%s: check %.0f ms; %s %.0f ms; ratio %.2f; limit %.0f ms: %s" % (
        os.path.basename(a.image), check, ", ".join(" ".join(tool) for tool, _ in tools) or "nothing to unpack", peers, check / max(peers, 1), peers + 60,
        verdict(check <= peers + 60)))
    print("  matrix of %d machines: %.0f ms more than one (limit 100): %s" % (machines, table - single, verdict(table - single <= 100)))
    print("  peak %.0f MiB (limit 96): %s" % (peak, verdict(peak <= 96)))
    return 0 if check <= peers + 60 and table - single <= 100 and peak <= 96 else 1


if __name__ == "__main__":
    sys.exit(main())
