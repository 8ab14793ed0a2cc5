#!/usr/bin/env python3
"""Compares our NTFS reader with ntfs-3g on the corpus, damaged images too. Needs root, /dev/fuse, ntfs-3g.

usage: ntfs-corpus.py NTFS_TREE CORPUS [WORD...]   images whose path has one of the words
A line an image: files that both read alike, that only one of them reads, that both refuse, that they read
differently (which must not be); then what was found at opening.
"""
import csv
import os
import struct
import subprocess
import sys
import tempfile
import time

import tree

TREE, CORPUS, WORDS = sys.argv[1], sys.argv[2], sys.argv[3:]


def unpack(packed, image, work):
    """As the corpus' unpack.py, but archives with holes stay small: those of terabytes take hours otherwise."""
    if ".tar." in packed:
        out = os.path.join(work, "out")
        os.mkdir(out)
        subprocess.run(["tar", "-xSf", packed, "-C", out], check=True)
        found = sorted(os.path.join(folder, name) for folder, _, names in os.walk(out) for name in names)
        os.rename(found[0], image)
        return
    subprocess.run([sys.executable, os.path.join(CORPUS, "unpack.py"), packed, image], check=True)


def partition(image):
    """Cuts the first NTFS partition out of a disk."""
    with open(image, "rb") as file:
        head = file.read(512)
    if head[3:7] == b"NTFS" or head[510:] != b"\x55\xaa":
        return
    for number in range(4):
        entry = head[446 + 16 * number:][:16]
        start, count = struct.unpack("<II", entry[8:])
        if entry[4] == 7:
            subprocess.run(["dd", "if=" + image, "of=" + image + ".part", "bs=64K", "conv=sparse", "iflag=skip_bytes,count_bytes",
                            "skip=%d" % (start * 512), "count=%d" % (count * 512)], check=True, stderr=subprocess.DEVNULL)
            os.rename(image + ".part", image)
            return


def fields(line):
    parts = line.rstrip("\n").split("\t")
    if len(parts) == 13:
        parts[3] = "-"  # Windows counts DOS names as links, ntfs-3g too
        if parts[1] in "cb":
            parts[6] = "-"
    return parts


def theirs(mount):
    lines, todo, seen = {}, [(b".", os.fsencode(mount))], set()
    while todo:
        shown, path = todo.pop()
        name = tree.escape(shown)
        try:
            line = fields(tree.line(shown, path))
            if line[11].startswith(mount + "/"):
                line[6], line[11] = str(int(line[6]) - len(mount)), line[11][len(mount):]
            lines[name] = line
            if lines[name][1] == "d" and lines[name][8] not in seen:
                seen.add(lines[name][8])
                todo += [(shown + b"/" + entry, os.path.join(path, entry)) for entry in os.listdir(path)]
        except OSError as error:
            lines[name] = [name, "error", error.strerror]
    return lines


def compare(path, image, mount):
    start = time.time()
    run = subprocess.run(["timeout", "120", TREE, "--go-on", image], capture_output=True, text=True, errors="replace")
    took = time.time() - start
    ours = {line.split("\t")[0]: fields(line) for line in run.stdout.splitlines()}
    mounted = subprocess.run(["ntfs-3g", "-o", "ro,streams_interface=xattr", image, mount], capture_output=True, text=True)
    other = {}
    if mounted.returncode == 0:
        try:
            other = theirs(mount)
        finally:
            subprocess.run(["umount", mount], check=True)
    counts = dict(alike=0, ours=0, theirs=0, neither=0, different=0)
    notes = []
    for name in sorted(ours.keys() | other.keys()):
        one, two = ours.get(name, ["", "error", "absent"]), other.get(name, ["", "error", "absent"])
        good = one[1] != "error", two[1] != "error"
        if good == (True, True):
            key = "alike" if one == two else "different"
        else:
            key = {(True, False): "ours", (False, True): "theirs", (False, False): "neither"}[good]
        counts[key] += 1
        if key in ("different", "theirs"):
            notes.append("    %s\n      ours   %s\n      theirs %s" % (name[:100], "\t".join(one[1:])[:250], "\t".join(two[1:])[:250]))
    word = "ok" if run.returncode in (0, 1) and not counts["different"] else "FAIL"
    print("%s  %s  exit %d, %.1f s, %s%s" % (path, word, run.returncode, took, counts, "" if mounted.returncode == 0 else "  ntfs-3g: " + mounted.stderr.split("\n")[0]))
    for line in run.stderr.splitlines()[:6]:
        print("   ", line[:200])
    print("\n".join(notes[:4]), flush=True)


with open(os.path.join(CORPUS, "MANIFEST.tsv")) as file:
    rows = list(csv.DictReader(file, delimiter="\t"))
for row in rows:
    path = row["path"]
    if "ntfs" not in row["fmt"] or "fragment" in row["fam"] or row["role"] != "data":
        continue
    if WORDS and not any(word in path for word in WORDS):
        continue
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as work:
        image, mount = os.path.join(work, "image"), os.path.join(work, "mnt")
        os.mkdir(mount)
        unpack(os.path.join(CORPUS, path), image, work)
        partition(image)
        compare(path, image, mount)
