#!/usr/bin/env python3
"""Fills a volume that ntfs-3g has mounted (`compression`, `streams_interface=xattr`), and lists one.

ntfs-tree.py make DIR [small]   fills DIR
ntfs-tree.py list DIR           prints the lines that the `ntfs_tree` example prints
"""
import contextlib
import io
import os
import random
import re
import stat
import struct
import sys

import tree

ROOT = os.fsencode(sys.argv[2])
RNG = random.Random(5)


def at(*names):
    return os.path.join(ROOT, *(n if isinstance(n, bytes) else n.encode() for n in names))


def put(path, data):
    with open(path, "wb") as file:
        file.write(data)


def text(length):
    words = [RNG.randbytes(RNG.randint(2, 9)).hex().encode() for _ in range(300)]
    out = bytearray()
    while len(out) < length:
        out += RNG.choice(words) + b" "
    return bytes(out[:length])


def reparse(path, tag, data, directory=False):
    os.mkdir(path) if directory else put(path, b"")
    os.setxattr(path, "system.ntfs_reparse_data", struct.pack("<IHH", tag, len(data), 0) + data)


def link(path, tag, target, flags=None, directory=False):
    name = target.encode("utf-16-le")
    data = struct.pack("<HHHH", 0, len(name), len(name) + 2, 0)
    data += (struct.pack("<I", flags) if flags is not None else b"") + name + b"\0\0\0\0"
    reparse(path, tag, data, directory)


def make(small):
    os.mkdir(at("files"))
    sizes = [0, 1, 60, 400, 600, 700, 1000, 1024, 4095, 4096, 4097, 65535, 65536, 65537, 1000003]
    for size in sizes if small else sizes + [8 << 20, 40 << 20]:
        put(at("files", "size%d" % size), tree.pattern(size, size))
    with open(at("files", "sparse"), "wb") as file:
        for offset in (5, 1 << 20, 3 << 20):
            file.seek(offset)
            file.write(tree.pattern(5000, offset))
        file.truncate(5 << 20)
    if not small:
        with open(at("files", "huge"), "wb") as file:
            file.seek((1 << 42) + 7)
            file.write(b"the end")
    # Holes between, and two files that take turns: runs for several MFT records.
    count = 300 if small else 2000
    cluster = os.statvfs(ROOT).f_bsize
    step = min(cluster, 8192)
    with open(at("files", "holes"), "wb") as file:
        for number in range(count if cluster <= 8192 else 100):
            file.seek(number * 2 * cluster)
            file.write(tree.pattern(step, number))
    with open(at("files", "even"), "wb", 0) as even, open(at("files", "odd"), "wb", 0) as odd:
        for number in range(count if cluster <= 8192 else 20):
            even.write(tree.pattern(cluster, number))
            odd.write(tree.pattern(cluster, -number))

    # Compressed: what packs well, what does not, both, holes, changed inside.
    os.mkdir(at("packed"))
    attributes = struct.unpack("<I", os.getxattr(at("packed"), "system.ntfs_attrib"))[0]
    with contextlib.suppress(OSError):
        os.setxattr(at("packed"), "system.ntfs_attrib", struct.pack("<I", attributes | 0x800))
    for size in (0, 100, 5000, 65536, 65537, 131072, 700001) if small else (0, 100, 5000, 65536, 131072, 700001, 5 << 20):
        put(at("packed", "text%d" % size), text(size))
    put(at("packed", "noise"), RNG.randbytes(300000))
    put(at("packed", "mixed"), b"".join(text(50000) + RNG.randbytes(70000) + bytes(90000) for _ in range(5)))
    put(at("packed", "zeros"), bytes(1 << 20))
    put(at("packed", "run"), b"x" * 300000)
    with open(at("packed", "holes"), "wb") as file:
        for offset in (0, 200000, 1000000):
            file.seek(offset)
            file.write(text(30000))
        file.truncate(1500000)

    os.mkdir(at("links"))
    for length in (1, 59, 100, 336, 700, 1000, 2000):
        os.symlink(("../0123456789abcdefghijklmnopqrstuv" * 70)[:length], at("links", "to%d" % length))
    os.symlink("/äbs/€/😀", at("links", "absolute"))
    for number in range(40 if small else 300):
        os.link(at("files", "size60"), at("links", "hard%d" % number))
    os.mkfifo(at("links", "fifo"))
    os.mknod(at("links", "char"), stat.S_IFCHR | 0o620, os.makedev(4, 65))
    os.mknod(at("links", "block"), stat.S_IFBLK | 0o660, os.makedev(259, 20000))

    os.mkdir(at("reparse"))
    link(at("reparse", "relative"), 0xA000000C, r"..\files\size60", 1)
    link(at("reparse", "rooted"), 0xA000000C, r"\files\size60", 1)
    link(at("reparse", "full"), 0xA000000C, r"\??\C:\files\size60", 0)
    link(at("reparse", "directory"), 0xA000000C, r"..\files", 1, True)
    link(at("reparse", "junction"), 0xA0000003, "\\??\\C:\\files", None, True)
    reparse(at("reparse", "lx"), 0xA000001D, struct.pack("<I", 2) + "../files/ä".encode())

    os.mkdir(at("streams"))
    for count, length in ((1, 10), (3, 200), (30, 100), (2, 3000), (2, 30000), (1, 65536)):
        path = at("streams", "s%d_%d" % (count, length))
        put(path, tree.pattern(length, count))
        for index in range(count):
            os.setxattr(path, "user.name%d" % index, tree.pattern(length, index))
    os.mkdir(at("streams", "dir"))
    os.setxattr(at("streams", "dir"), "user.on dir", b"x")

    os.mkdir(at("directories"))
    for count in (0, 1, 10, 200, 1500) if small else (0, 1, 10, 200, 3000, 20000):
        path = at("directories", "d%d" % count)
        os.mkdir(path)
        entries = [b"entry-%d-%s" % (n, b"n" * (n % 50)) for n in range(count)]
        RNG.shuffle(entries)
        for entry in entries:
            put(os.path.join(path, entry), b"")
        for entry in entries[::7] if count >= 200 else []:
            os.unlink(os.path.join(path, entry))
    os.mkdir(at("names"))
    names = ["a" * 255, "ä" * 127, "€" * 85, "😀" * 63, "Case", "case", "CASE", "ÄÖ", "äö", " space ", "dot.", "a:b?*<>|", "line\nfeed", "back\\slash"]
    for name in [name.encode() for name in names] + [b"lone-\xed\xa0\xbd", b"\xed\xb0\x80"]:
        try:
            put(at("names", name), name)
        except OSError as error:
            print("note: %r: %s" % (name, error.strerror), file=sys.stderr)
    deep = at("deep")
    for level in range(20 if small else 60):
        os.mkdir(deep)
        deep = os.path.join(deep, b"level%d" % level)
    os.utime(at("files", "size60"), ns=(0, -5 * 10**9))
    os.utime(at("files", "size1"), ns=(0, 1700000000123456700))


def list_tree():
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        tree.list_tree(os.fsdecode(ROOT))
    prefix = os.fsdecode(ROOT).rstrip("/")
    for line in out.getvalue().splitlines():
        fields = line.split("\t")
        # Absolute targets are shown below the mount point, and devices with the size of their data.
        target = re.sub("^%s(?=/)" % re.escape(prefix), "", fields[11])
        if target != fields[11]:
            fields[6], fields[11] = str(int(fields[6]) - len(prefix)), target
        if fields[1] in "cb":
            fields[6] = "0"
        print("\t".join(fields))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make("small" in sys.argv[3:])
    else:
        list_tree()
