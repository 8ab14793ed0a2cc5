#!/usr/bin/env python3
"""Speed of what lies between the disk and the file system, page cache warm.

Usage: scripts/bench/volume.py      needs sgdisk, mkfs.vfat, mke2fs, mkfs.xfs, lvm (as root), cryptsetup, 3 GiB in /dev/shm

Encryption beside what `cryptsetup benchmark` says of the kernel in the same run; a striped array beside its members; the
limits are the project's own.
"""
import os
import re
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def guest(folder):
    """Four partitions: EFI system, boot (ext4), a volume group with root (XFS) and swap, data (ext4)."""
    disk = folder / "guest.raw"
    with open(disk, "wb") as file:
        file.truncate(2 << 30)
    run("sgdisk", "-n1:2048:+64M", "-t1:ef00", "-n2:0:+256M", "-n3:0:+1G", "-t3:8e00", "-n4:0:0", str(disk))
    starts = {int(n): (int(s), int(e)) for n, s, e in re.findall(r"^ +(\d+) +(\d+) +(\d+)", run("sgdisk", "-p", str(disk)), re.M)}

    def put(number, make, offset=0, size=None):
        first, last = starts[number]
        part = folder / "part"
        with open(part, "wb") as file:
            file.truncate(size or (last - first + 1) * 512)
        make(str(part))
        run("dd", f"if={part}", f"of={disk}", "bs=64K", "conv=notrunc,sparse", "oflag=seek_bytes", f"seek={first * 512 + offset}")

    put(1, lambda part: run("mkfs.vfat", part))
    put(2, lambda part: run("mke2fs", "-q", "-t", "ext4", part))
    put(4, lambda part: run("mke2fs", "-q", "-t", "ext4", part))
    loop = None

    def group(part):
        nonlocal loop
        loop = run("losetup", "-f", "--show", part).strip()
        try:
            config = f'devices {{ filter=["a|{loop}|","r|.*|"] use_devicesfile=0 }} global {{ activation=0 }} backup {{ backup=0 archive=0 }}'
            for command in (["pvcreate", loop], ["vgcreate", "guest", loop],
                            ["lvcreate", "-an", "-Zn", "-Wn", "-n", "root", "-L", "768M", "guest"],
                            ["lvcreate", "-an", "-Zn", "-Wn", "-n", "swap", "-L", "128M", "guest"]):
                run("lvm", *command[:1], "--config", config, *command[1:])
        finally:
            run("losetup", "-d", loop)

    put(3, group)
    # The first extent of a physical volume lies at 1 MiB; root comes first, swap behind it.
    put(3, lambda part: run("mkfs.xfs", "-q", part), 1 << 20, 768 << 20)
    put(3, lambda part: run("mkswap", part), (1 << 20) + (768 << 20), 128 << 20)
    return disk


def main():
    run("cargo", "build", "-q", "--release", "--example", "bench_volume", cwd=ROOT)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    bench = str(target / "release/examples/bench_volume")
    print(f"{'what':<42} {'ours':>12} {'beside':>36} {'limit':>14}")
    kernel = {}
    try:
        out = run("cryptsetup", "benchmark", "-c", "aes-xts", "-s", "512")
        kernel = dict(zip(("encryption", "decryption"), re.findall(r"([\d.]+) MiB/s", out)))
    except (OSError, subprocess.CalledProcessError):
        pass
    beside = f"kernel {float(kernel['decryption']) / 1024:.2f} GiB/s" if kernel else "-"
    for sector in ("512", "4096"):
        speed, wall = map(float, run(bench, "xts", sector).split())
        ours = f"{speed:.2f} GiB/s"
        print(f"{'AES-256-XTS, sectors of ' + sector:<42} {ours:>12} {f'wall clock {wall:.2f}, ' + beside:>36} {'≥ 1.5 a core':>14}")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        files = []
        for number in range(4):
            path = folder / f"member{number}"
            with open(path, "wb") as file:
                for _ in range(256):
                    file.write(os.urandom(1 << 20))
            files.append(str(path))
        for chunk in ("4096", "65536", "524288"):
            ours, members, ratio = run(bench, "striped", chunk, *files).split()
            print(f"{f'striped over 4, chunks of {chunk}':<42} {ours:>6} GiB/s {f'members {members} GiB/s':>36} {'≥ 0.9: ' + ratio:>14}")
        for path in files[1:]:
            with open(files[0], "ab") as to, open(path, "rb") as part:
                to.write(part.read())
            os.unlink(path)
        speed, wall, plain = map(float, run(bench, "scan", files[0]).split())
        ours, beside = f"{speed:.2f} GiB/s", f"wall clock {wall:.2f}, plain read {plain:.2f}"
        print(f"{'search for lost partitions, 1 GiB of noise':<42} {ours:>12} {beside:>36} {'≥ 1 GiB/s':>14}")
        os.unlink(files[0])
        disk = guest(folder)
        milliseconds, read, reads, nodes = run(bench, "stack", str(disk)).split()
        print(f"{f'the stack of 4 partitions + LVM, {nodes} devices':<42} {milliseconds:>9} ms {f'{int(read) / 1024:.0f} KiB in {reads} reads':>36} {'< 5 ms, 2 MiB':>14}")


main()
