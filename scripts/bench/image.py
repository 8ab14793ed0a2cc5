#!/usr/bin/env python3
"""Speed of disk images against QEMU's tools, on the same files in the same run, page cache warm.

Usage: scripts/bench/image.py [GIBIBYTES] [RUNS]     default 4 and 5; needs qemu-img, qemu-io, room in /dev/shm

Every row is a pair of commands in turn (A B A B …); the ratio is the median of theirs over ours, wall clock:
above 1 we are faster. The limits are the project's own.
"""
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SELF = Path(__file__).resolve()
ROOT = SELF.parents[2]


def content(path, gibibytes):
    """What a guest holds: half of it the host's own programs and texts, the rest noise and repetition."""
    noise = os.urandom(32 << 20)
    text = b"".join(b"line %d: the quick brown fox jumps over the lazy dog\n" % n for n in range(40000))[: 2 << 20]
    tar = subprocess.Popen(["tar", "cf", "-", "/usr/lib", "/usr/bin", "/usr/share"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with open(path, "wb") as file:
        for number in range(gibibytes * 128):
            piece = tar.stdout.read(4 << 20) if number % 128 < 64 else b""
            file.write(piece.ljust(4 << 20, b"\1"))
            file.write(text + noise[(number * 37 % 30) << 20 :][: 2 << 20])
    tar.kill()


def once(command):
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {command}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def row(name, ours, theirs, runs, limit, before=lambda: None):
    ratios, walls, peak = [], [], 0
    for number in range(runs + 1):
        before()
        wall, memory = once(ours)
        before()
        other, _ = once(theirs)
        if number:
            ratios.append(other / wall)
            walls.append((wall, other))
        peak = max(peak, memory)
    ratio = statistics.median(ratios)
    a, b = (statistics.median(side) for side in zip(*walls))
    verdict = "ok" if ratio >= limit else "MISSED"
    print(f"{name:<34} {a * 1000:9.1f} {b * 1000:9.1f} {ratio:7.2f} (limit {limit}) {verdict}  peak {peak:.0f} MiB", flush=True)
    return ratio >= limit


def main():
    gibibytes = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    if not shutil.which("qemu-img"):
        print("skipped: qemu-img is not installed")
        return 0
    build = ["cargo", "build", "--release", "--quiet", "--manifest-path", ROOT / "Cargo.toml"]
    subprocess.run(build, check=True)
    subprocess.run([*build, "-p", "guestmend-image", "--example", "reads"], check=True)
    release = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    tool, reads = str(release / "guestmend"), str(release / "examples/reads")
    good = True
    with tempfile.TemporaryDirectory() as work, tempfile.TemporaryDirectory(dir="/dev/shm") as fast:
        os.chdir(work)
        # In a process of its own: what this one holds would count as the peak memory of all that it starts.
        subprocess.run([sys.executable, str(SELF), "--content", "disk.raw", str(gibibytes)], check=True)
        out = [f"{fast}/ours.raw", f"{fast}/theirs.raw"]

        def clean():
            for file in out:
                Path(file).unlink(missing_ok=True)

        def full_read(name, file, limit):
            ours = [tool, "image", "convert", "--to", "raw", file, out[0]]
            return row(name, ours, ["qemu-img", "convert", "-O", "raw", file, out[1]], runs, limit, clean)

        print(f"{'case':<34} {'ours ms':>9} {'qemu ms':>9} {'ratio':>7}")
        for name, fmt, options, limit in [
            ("read qcow2", "qcow2", [], 1.0),
            ("read vmdk", "vmdk", [], 1.0),
            ("read vhdx", "vhdx", [], 1.0),
            ("read vhd", "vpc", [], 1.0),
            ("read vdi", "vdi", [], 1.0),
            ("read qcow2 zlib", "qcow2", ["-c"], 1.7),
            ("read qcow2 zstd", "qcow2", ["-c", "-o", "compression_type=zstd"], 1.7),
            ("read vmdk streamOptimized", "vmdk", ["-o", "subformat=streamOptimized"], 1.7),
        ]:
            file = f"disk.{fmt}"
            subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", fmt, *options, "disk.raw", file], check=True)
            good &= full_read(name, file, limit)
            clean()
            if name == "read qcow2":
                size, stride, count = gibibytes << 30, 518983680, 400_000
                for depth in (1, 16):
                    theirs = ["qemu-img", "bench", "-f", "qcow2", "-d", str(depth), "-c", str(count), "-s", "4096", "-S", str(stride), file]
                    good &= row(f"4 KiB reads, depth {depth}", [reads, file, str(count), str(stride), str(depth)], theirs, runs, 1.0)
            Path(file).unlink()
        subprocess.run("qemu-img create -q -f qcow2 -o preallocation=metadata check.qcow2 64G".split(), check=True)
        good &= row("check qcow2, 64 GiB allocated", [tool, "image", "check", "check.qcow2"], ["qemu-img", "check", "check.qcow2"], runs, 1.5)
        for fmt in ("qcow2", "vhdx", "vmdk"):
            # VHDX needs large blocks for 64 TiB; VMDK's sparse extents end at 2 TiB.
            size = {"vmdk": "2040G"}.get(fmt, "64T")
            subprocess.run(["qemu-img", "create", "-q", "-f", fmt, f"huge.{fmt}", size], check=True)
            wall, peak = min(once([tool, "image", "info", f"huge.{fmt}"]) for _ in range(5))
            verdict = "ok" if wall < 0.005 and peak < 16 else "MISSED"
            good &= verdict == "ok"
            print(f"{'open ' + fmt + ' of ' + size:<34} {wall * 1000:9.1f} ms, peak {peak:.1f} MiB (limits 5 ms, 16 MiB) {verdict}")
    return 0 if good else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--content"]:
        sys.exit(content(sys.argv[2], int(sys.argv[3])))
    sys.exit(main())
