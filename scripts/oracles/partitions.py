#!/usr/bin/env python3
"""Compares what we say Linux, GRUB and the partitioning tools see on damaged disks with what they do see.

Usage: scripts/oracles/partitions.py [RANDOM_DAMAGES]        default 240; needs qemu-system-x86_64, grub-fstest, sgdisk, sfdisk, zstd

The disks: test-images/volume/partitions.zst, some made here, and random damage to three of them, half of it with the
checksums fixed. Judges:
linux   a guest's kernel (scripts/oracles/in-guest.py): /sys/block/loopN after `losetup -P`
grub    grub-fstest DISK ls, where the sector size is 512 (it knows no other)
ovmf    the partitions that OVMF's shell maps (package ovmf), up to 150 disks, 27 in each boot
sgdisk  `sgdisk -v` finds no problem on exactly the disks on which we find none
sfdisk  `sfdisk -J`, where it and we find a table of the same kind: the starts

Prints case x judge x verdict; exit 1 when a row differs that is not explained here.
"""
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
# Where the difference is meant.
EXPLAINED = {
    ("gpt entries of 256 bytes", "sgdisk"): "sgdisk knows entries of 128 bytes only",
    ("gpt revision 2", "ovmf"): "EDK2 looks at the revision since 2026; Debian's OVMF of 2022 does not",
}
ACTIVE = "the active flag of a protective MBR is a fact for us, no problem: some BIOSes need it"
FOLLOWS = "sfdisk follows damaged chains, loops and bad entries by its own rules; the kernel sees what we list"


def archive():
    packed = subprocess.run(["zstd", "-dc", ROOT / "test-images/volume/partitions.zst"], capture_output=True, check=True)
    data, at = packed.stdout, 0
    while at < len(data):
        length = data[at]
        name = data[at + 1 : at + 1 + length].decode()
        size, sector_size, count = struct.unpack_from("<QII", data, at + 1 + length)
        at += 17 + length
        sectors = {}
        for _ in range(count):
            (number,) = struct.unpack_from("<Q", data, at)
            sectors[number] = bytearray(data[at + 8 : at + 520])
            at += 520
        yield name, size, sector_size, sectors


class Disk:
    """Sectors of 512 bytes that are not zero."""

    def __init__(self, size, sector_size, sectors):
        self.size, self.sector_size, self.sectors = size, sector_size, {n: bytearray(s) for n, s in sectors.items()}

    def copy(self):
        return Disk(self.size, self.sector_size, self.sectors)

    def read(self, at, length):
        out = bytearray()
        for number in range(at // 512, (at + length + 511) // 512):
            out += self.sectors.get(number, bytes(512))
        return out[at % 512 : at % 512 + length]

    def write(self, at, content):
        for index, byte in enumerate(content):
            number = (at + index) // 512
            self.sectors.setdefault(number, bytearray(512))[(at + index) % 512] = byte

    def fix(self, at):
        """The checksums of the header at byte `at` and its array."""
        header = self.read(at, self.sector_size)
        lba, count, size = struct.unpack_from("<QII", header, 0x48)
        if count * size <= MIB and lba * self.sector_size + count * size <= self.size:
            self.write(at + 0x58, struct.pack("<I", zlib.crc32(self.read(lba * self.sector_size, count * size))))
        header = self.read(at, self.sector_size)
        covered = min(struct.unpack_from("<I", header, 0xC)[0], self.sector_size)
        header[0x10:0x14] = bytes(4)
        self.write(at + 0x10, struct.pack("<I", zlib.crc32(header[:covered])))

    def store(self, path):
        with open(path, "wb") as file:
            file.truncate(self.size)
            for number, sector in self.sectors.items():
                if number * 512 < self.size:
                    file.seek(number * 512)
                    file.write(sector[: self.size - number * 512])


def entry(kind, start, sectors, flag=0):
    return struct.pack("<B3xB3xII", flag, kind, start, sectors)


def boot_sector(*entries):
    return b"".join(entries).ljust(64, b"\0") + b"\x55\xaa"


def record(disk, sector, *entries):
    disk.write(sector * disk.sector_size + 446, boot_sector(*entries))


def made(bases):
    def mbr(*entries, size=64 * MIB, sector_size=512):
        disk = Disk(size, sector_size, {})
        record(disk, 0, *entries)
        return disk

    def gpt(base="g512", **fields):
        disk = bases[base].copy()
        places = dict(first=(0x28, "<Q"), last=(0x30, "<Q"), entry_size=(0x54, "<I"), count=(0x50, "<I"), revision=(8, "<I"))
        last = disk.size - disk.sector_size
        for name, value in fields.items():
            for at in (disk.sector_size, last):
                disk.write(at + places[name][0], struct.pack(places[name][1], value))
        for at in (disk.sector_size, last):
            disk.fix(at)
        return disk

    yield "mbr type 0 with a length", mbr(entry(0, 2048, 2048), entry(0x83, 4096, 2048))
    yield "mbr entry at sector 0 (isohybrid)", mbr(entry(0x17, 0, 8192, 0x80), entry(0xEF, 100, 50))
    yield "mbr overlap", mbr(entry(0x83, 2048, 4096), entry(0x83, 4096, 4096))
    yield "mbr past the end", mbr(entry(0x83, 2048, 4096), entry(0x83, 8192, 1 << 30), entry(0x83, 1 << 30, 8))
    yield "mbr bad boot indicator", mbr(entry(0x83, 2048, 4096, 0x7F))
    yield "mbr no partition", mbr()
    yield "mbr length 2^32-1", mbr(entry(0x83, 0xFFFFFFFF, 0xFFFFFFFF), entry(0x83, 2048, 0xFFFFFFFF))
    disk = mbr(entry(5, 256, 8000), entry(0x83, 9000, 100), sector_size=4096)
    record(disk, 256, entry(0x83, 8, 100), entry(5, 1000, 500))
    record(disk, 1256, entry(0x82, 8, 100))
    yield "mbr 4096", disk
    disk = mbr(entry(5, 2048, 60000))
    record(disk, 2048, entry(5, 4096, 4096), entry(0x83, 100, 200), entry(0x83, 300, 10), entry(0x83, 59999, 10))
    record(disk, 6144, entry(0x83, 7, 70), entry(0x83, 90, 5), entry(0x83, 100, 4000), entry(0x83, 101, 3996))
    yield "mbr link first, four entries", disk
    disk = mbr(entry(5, 2048, 60000), entry(0x0F, 70000, 60000), entry(0x85, 69000, 500))
    for sector in (2048, 70000, 69000):
        record(disk, sector, entry(0x83, 64, 64))
    yield "mbr three extended", disk
    disk = mbr(entry(5, 2048, 100000))
    for index in range(120):
        record(disk, 2048 + index * 100, entry(5, (index + 1) * 100, 100))
    record(disk, 2048 + 12000, entry(0x83, 10, 10))
    yield "mbr 120 empty records", disk
    disk = mbr(entry(5, 2048, 120000))
    for index in range(300):
        record(disk, 2048 + index * 100, entry(0x83, 10, 10), entry(5, (index + 1) * 100, 100))
    yield "mbr 300 logical", disk
    disk = mbr(entry(0x83, 2048, 100))
    disk.write(0, b"\xeb\x3c\x90MSDOS5.0\0\2\4\4\0\2\0\2\0\0\xf8")
    disk.write(54, b"FAT16   ")
    yield "fat boot sector with an entry", disk
    disk = disk.copy()
    disk.write(446, b"\x12")
    yield "fat boot sector", disk
    yield "gpt entries of 256 bytes", gpt(entry_size=256, count=64)
    yield "gpt 300 entries", gpt(count=300)
    yield "gpt first usable past the end", gpt(first=1 << 40)
    yield "gpt last usable before first", gpt(last=20)
    yield "gpt revision 2", gpt(revision=0x20000)
    disk = gpt()
    disk.write(454, struct.pack("<I", 2))
    yield "pmbr starts at 2", disk
    disk = gpt()
    disk.write(446, entry(0x83, 2048, 100) + entry(0xEE, 1, 100))
    yield "pmbr second entry", disk
    disk = gpt()
    disk.write(446, b"\x80")
    yield "pmbr active", disk
    disk = gpt()
    disk.write(446, b"\x33")
    yield "pmbr bad boot indicator", disk
    disk = gpt()
    disk.write(510, b"\0\0")
    yield "pmbr without signature", disk
    for end, name in ((43006, "one before its start"), (2046, "far before its start"), (1 << 50, "past the end")):
        disk = gpt()
        disk.write(1024 + 128 + 0x28, struct.pack("<Q", end))
        disk.fix(512)
        yield f"gpt entry 2 ends {name}", disk
    disk = bases["g4k"].copy()
    disk.sector_size = 512
    yield "gpt for 4096, disk of 512", disk
    disk = bases["g512"].copy()
    disk.sector_size = 4096
    yield "gpt for 512, disk of 4096", disk


def damages(bases, count):
    rng = random.Random(20261126)
    for index in range(count):
        base = ("g512", "m", "g4k")[index % 3]
        disk = bases[base].copy()
        size, last = disk.sector_size, disk.size - disk.sector_size
        if base == "m":
            ranges = [(n * 512 + 446, n * 512 + 512) for n in disk.sectors]
        else:
            ranges = [(size, size + 92)] * 3 + [(2 * size, 2 * size + 640)] * 2 + [(last, last + 92), (446, 512)]
        for _ in range(rng.randint(1, 3)):
            start, end = rng.choice(ranges)
            width = rng.choice((1, 2, 4, 8))
            at = start + rng.randrange((end - start) // width) * width
            old = int.from_bytes(disk.read(at, width), "little")
            new = rng.choice((0, 1, -1, old + 1, old - 1, old ^ (1 << rng.randrange(8 * width)), rng.randrange(200000)))
            disk.write(at, (new % (1 << 8 * width)).to_bytes(width, "little"))
        if base != "m" and index % 2:
            disk.fix(size)
            disk.fix(last)
        yield f"damage {index} to {base}", disk


def ours(names):
    example = ["cargo", "run", "-q", "-p", "guestmend-volume", "--example", "partitions", "--"]
    out = subprocess.run(example + names, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    found, now = [], None
    for line in out.splitlines():
        word, _, rest = line.partition(" ")
        if word == "disk":
            now = {"problems": []}
            found.append(now)
        elif word == "problem":
            now["problems"].append(rest)
        else:
            verdict, _, rest = rest.partition(" [")
            listed, _, said = rest.partition("]")
            now[word] = verdict, [tuple(map(int, one.split(","))) for one in listed.split()], said.strip()
    return found


def linux(disks, folder):
    """Runs the guest over one file that holds all disks, and reads back what it saw of each."""
    big, script, at = folder / "all", "", 0
    with open(big, "wb") as file:
        for index, (_, disk) in enumerate(disks):
            for number, sector in disk.sectors.items():
                if number * 512 < disk.size:
                    file.seek(at + number * 512)
                    file.write(sector)
            script += f"one {index} {at} {disk.size} {disk.sector_size}\n"
            at += disk.size
        file.truncate(at)
    # By its path: the shell prefers its own losetup.
    prologue = """one() {
  d=$(/sbin/losetup -f); /sbin/losetup -P -b $4 -o $2 --sizelimit $3 $d /dev/vda || echo failed $1
  b=${d#/dev/}; echo case $1
  for p in /sys/block/$b/${b}p*; do [ -e $p/start ] && echo $(cat $p/partition $p/start $p/size); done
  /sbin/losetup -d $d
}
"""
    (folder / "script").write_text(prologue + script)
    guest = [ROOT / "scripts/oracles/in-guest.py", "--timeout", "1500", "--disk", f"{big}:raw", folder / "script"]
    out = subprocess.run(guest, capture_output=True, text=True)
    seen, now = {}, None
    for line in out.stdout.splitlines():
        if match := re.fullmatch(r"case (\d+)", line):
            now = seen.setdefault(int(match[1]), [])
        elif (match := re.fullmatch(r"(\d+) (\d+) (\d+)", line)) and now is not None:
            now.append((int(match[1]), int(match[2]) * 512, min(int(match[3]) * 512, 2**64 - 1)))
    if not seen:
        sys.exit(out.stdout + out.stderr)
    os.unlink(big)
    return seen


def ovmf(disks, folder):
    """Boots OVMF to its shell, which lists all partitions with their device paths, and reads them back from the console."""
    code, seen = Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), {}
    if not code.exists():
        print("skipped: ovmf is not installed")
        return seen
    shutil.copy("/usr/share/OVMF/OVMF_VARS_4M.fd", folder / "vars")
    for first in range(0, min(len(disks), 150), 27):
        log = folder / "console"
        log.write_bytes(b"")
        machine = ["-accel", "tcg", "-machine", "q35", "-m", "256", "-nodefaults", "-display", "none", "-nic", "none"]
        flash = "if=pflash,format=raw,snapshot=on,file="
        machine += ["-serial", f"file:{log}", "-drive", f"{flash}{code}", "-drive", f"{flash}{folder}/vars"]
        batch = range(first, min(first + 27, len(disks), 150))
        for index in batch:
            # The firmware restores copies of a GPT: not in our files.
            machine += ["-drive", f"if=none,id=d{index},format=raw,snapshot=on,file={folder}/{index}.raw"]
            sizes = f"logical_block_size={disks[index][1].sector_size},physical_block_size=4096"
            machine += ["-device", f"virtio-blk-pci,drive=d{index},addr={index - first + 3:#x},{sizes}"]
        guest = subprocess.Popen(["qemu-system-x86_64", *machine])
        text = ""
        for _ in range(240):
            time.sleep(1)
            text = re.sub(r"\x1b\[[0-9;=]*[A-Za-z]|\s", "", log.read_text(errors="replace"))
            if "Shell>" in text or guest.poll() is not None:
                break
        guest.kill()
        guest.wait()
        if "Shell>" not in text:
            print("ovmf did not get to its shell")
            continue
        for index in batch:
            unit, found = disks[index][1].sector_size, set()
            path = rf"PciRoot\(0x0\)/Pci\(0x{index - first + 3:X},0x0\)((?:/HD\([^)]*\))+)"
            for hard_disk in re.findall(path, text):
                last = hard_disk.split("/HD(")[-1].rstrip(")").split(",")
                found.add((int(last[3], 16) * unit, int(last[4], 16) * unit))
            seen[index] = sorted(found)
    return seen


def tool(*arguments):
    return subprocess.run(arguments, capture_output=True, text=True, errors="replace", timeout=60)


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 240
    found = list(archive())
    bases = {name: Disk(*rest) for name, *rest in found}
    disks = [(name, disk) for name, disk in bases.items()] + list(made(bases)) + list(damages(bases, count))
    wrong, totals, last = 0, {}, None
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        folder = Path(folder)
        names = []
        for index, (_, disk) in enumerate(disks):
            disk.store(folder / f"{index}.raw")
            names.append(f"{folder}/{index}.raw:{disk.sector_size}")
        said, kernel, firmware = ours(names), linux(disks, folder), ovmf(disks, folder)
        for index, (name, disk) in enumerate(disks):
            path, we, row, why = folder / f"{index}.raw", said[index], {}, {}
            row["linux"] = (sorted(we["linux"][1]), sorted(kernel.get(index, ["missing"])))
            if index in firmware:
                row["ovmf"] = (sorted({one[1:] for one in we["ovmf"][1]}), firmware[index])
            if disk.sector_size == 512:
                listed = tool("grub-fstest", path, "ls").stdout
                grub = sorted(int(n) for n in re.findall(r"\(loop0,(?:gpt|msdos)(\d+)\)", listed))
                mine = sorted(number for number, _, _ in we["grub"][1])
                if "entries were looked at" in we["grub"][2]:
                    grub = [n for n in grub if n <= 4096]
                row["grub"] = (mine, grub)
                if we["table"][0] == "gpt":
                    verdict = tool("sgdisk", "-v", path)
                    complaint = r"Warning|Caution: (invalid|Found)|corrupt|Creating new|Problem|Disk is too small|may miss some"
                    is_clean = "No problems found" in verdict.stdout
                    is_clean &= not re.search(complaint, verdict.stdout + verdict.stderr)
                    row["sgdisk"] = (not we["problems"], is_clean)
                    if "marked as active" in verdict.stdout:
                        why["sgdisk"] = ACTIVE
                listed = tool("sfdisk", "-J", path).stdout
                # Its JSON of a table with control characters in a name does not parse.
                try:
                    table = json.loads(listed)["partitiontable"]
                except json.JSONDecodeError:
                    table = {}
                if table.get("label") == we["table"][0] and we["linux"][0] == "accepts":
                    theirs = sorted(one["start"] * 512 for one in table.get("partitions", []) if one["size"])
                    row["sfdisk"] = (sorted(start for _, start, _ in we["table"][1]), theirs)
                    if row["linux"][0] == row["linux"][1]:
                        why["sfdisk"] = FOLLOWS
            cells = []
            for judge, (mine, theirs) in row.items():
                same = mine == theirs
                reason = EXPLAINED.get((name, judge), why.get(judge))
                state = "same" if same else "explained" if reason else "DIFFERS"
                totals[judge, state] = totals.get((judge, state), 0) + 1
                what = "" if judge == "sgdisk" else f" {len(theirs)}"
                differs = f"{judge} {state}: we {mine}, it {theirs}"[:300]
                cells.append(differs if state == "DIFFERS" else f"{judge}{what} {state}")
                wrong += state == "DIFFERS"
            if not name.startswith("damage") or any("DIFFERS" in cell for cell in cells):
                print(f"{name:36} {' | '.join(cells)}")
    for reason in [ACTIVE, FOLLOWS, *(f"{case}: {reason}" for (case, _), reason in EXPLAINED.items())]:
        print(f"explained: {reason}")
    for (judge, state), number in sorted(totals.items()):
        print(f"{judge}: {number} {state}")
    sys.exit(wrong > 0)


main()
