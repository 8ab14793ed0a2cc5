#!/usr/bin/env python3
"""Compares what the readers say of other projects' FAT, btrfs, XFS and exFAT samples with what their makers' checkers say.

corpus.py SURVEY [CORPUS [FAMILY...]]   SURVEY is the program made of crates/storage/examples/survey

Prints for each image: the checker's verdict, ours, and the first line of each where they differ. A checker looks at
everything, a reader at what lies on the way to names and contents: what the checker finds elsewhere is explained by
the kind of its finding, in EXPLAINED. Exit status 1 when something is missed and not explained, or does not end.
"""
import collections
import csv
import os
import re
import subprocess
import sys
import tempfile

CHECKERS = {
    "fat": ["fsck.fat", "-n"],
    "btrfs": ["btrfs", "check", "--readonly"],
    "xfs": ["xfs_repair", "-n", "-f", "-o", "force_geometry"],
    "exfat": ["fsck.exfat", "-n"],
}
MAX_SIZE = 3 << 30

# Family, what the checker says, why a reader does not see it.
EXPLAINED = [
    ("exfat", r".", "exFAT is recognised, not read"),
    ("fat", r"Free cluster summary|cluster count wrong|FSInfo|free cluster", "counts of free clusters"),
    ("fat", r"Orphaned|Reclaimed|unused clusters|not allocated to any", "clusters of no file"),
    ("fat", r"[Ll]abel", "two labels: each as it is"),
    ("fat", r"Duplicate|duplicate", "names twice: listed as they are"),
    ("fat", r"Wrong checksum for long file name", "a long name of another entry: the short one is shown, as by Linux"),
    ("fat", r"File size is \d+ bytes, cluster chain length is > \d+", "clusters beyond a file's size"),
    ("fat", r"only 1 or 2 FATs", "more tables than the checker takes; Linux takes them"),
    ("fat", r"share clusters", "clusters of two files"),
    ("fat", r"according to fat_length", "how the type is told: as Linux does"),
    ("btrfs", r"invalid total_bytes", "superblock: a size that only an allocator asks for"),
    ("btrfs", r"qgroup|Qgroup", "quota groups"),
    ("btrfs", r"free space|space cache|cache generation|super bytes used", "free space"),
    ("btrfs", r"backpointer|ref mismatch|extent item|extent tree|referencer|backref|tree reloc|owner ref|block group|shared data|extent\[|"
              r"metadata level mismatch|bad extent|chunk|Chunk|dev extent|device extent|errors found in extent|skinny",
     "the extent tree, chunks' accounting, device extents: who uses which bytes"),
    ("btrfs", r"csum (?:missing|exists)|csum tree|errors found in csum|orphan csum|overlap", "checksums without their data"),
    ("btrfs", r"nbytes wrong|isize wrong|link count wrong|unresolved ref|errors \d+|orphan|odd (?:csum|file)|file extent|"
              r"fs roots|fs root|no inode item|dir item|inode mode|root \d+ inode|root refs|log",
     "links, sizes and counts against each other"),
    ("xfs", r"agf|agi|freeblk|sb_|bno|rmap|inobt|finobt|refcount|free (?:space|inode)|would reset", "free space and counts"),
    ("xfs", r"attempting to find secondary superblock", "an external log, which has no superblock"),
    ("xfs", r"dirty log|needs to be replayed|valuable metadata|ALERT", "a dirty log"),
]


def run(command, timeout=120):
    environment = dict(os.environ, LC_ALL="C")
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout, env=environment)
    except subprocess.TimeoutExpired:
        return None, "no end within %d s" % timeout
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


def unpack(corpus, row, image):
    path = os.path.join(corpus, row["path"])
    subprocess.run([sys.executable, os.path.join(corpus, "unpack.py"), path, image], check=True)
    if "metadump" in row["feat"] and row["fam"] == "btrfs":
        code, said = run(["btrfs-image", "-r", image, image + ".restored"])
        if code != 0:
            return said.strip().splitlines()[-1:] or ["btrfs-image fails"]
        os.replace(image + ".restored", image)
    return None


def interesting(family, said):
    noise = {
        "fat": r"^fsck\.fat|^\S+: \d+ files|^$|^Leaving|^  ?Auto|^ *Not auto|^  Fixing|^\d+\)|^[0-9?]",
        "btrfs": r"^\[\d|^Opening|^Checking|^UUID|^found|^total|^btree|^file data|^ referenced|^$|^parent transid.*\(ignor|^ERROR: errors|^WARNING",
        "xfs": r"^Phase| - |^$|^No modify|would (?:be|have) .* flush|geometry|^Repair may|the image and",
        "exfat": r"^$|version",
    }[family]
    return [line.strip() for line in said.splitlines() if not re.search(noise, line)]


def main():
    survey = sys.argv[1]
    beside = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../shared/corpus")
    corpus = sys.argv[2] if len(sys.argv) > 2 else os.environ.get("GUESTMEND_CORPUS", beside)
    families = sys.argv[3:] or list(CHECKERS)
    counts = collections.Counter()
    with open(os.path.join(corpus, "MANIFEST.tsv"), newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    work = tempfile.TemporaryDirectory()
    for row in rows:
        family = row["fam"]
        is_image = row["role"] == "data" or row["path"].endswith((".fsck", ".xxd"))
        if family not in families or not is_image:
            continue
        # A sample's name says more than its length: one is of 2 TiB, most of it holes.
        if row["role"] == "data" and int(row["clen"] or MAX_SIZE + 1) > MAX_SIZE or "2tb" in row["path"]:
            counts[family, "too large, not looked at"] += 1
            continue
        image = os.path.join(work.name, "image")
        for name in os.listdir(work.name):
            os.remove(os.path.join(work.name, name))
        failed = unpack(corpus, row, image)
        if failed:
            counts[family, "not unpacked: btrfs-image refuses"] += 1
            print("%-8s %-60s not unpacked: %s" % (family, row["path"][-60:], failed[0][:80]))
            continue
        code, said = run(CHECKERS[family] + [image])
        lines = interesting(family, said)
        theirs = code != 0 or family == "fat" and bool(lines)
        our_code, ours = run([survey, image])
        ours = ours.splitlines()
        problems = [line.split("\t", 1)[1] for line in ours if line.startswith("problem\t")]
        note = ""
        if our_code != 0:
            verdict = "FAIL: ends with %s" % our_code
            note = ours[-1] if ours else ""
        elif theirs and problems:
            verdict = "both"
        elif not theirs and not problems:
            verdict = "neither"
        elif problems:
            is_part = problems[0].startswith("device cannot be read: device ")
            verdict = "explained: one of several devices" if is_part else "ours alone"
            note = problems[0]
        else:
            # All lines that say something of their own.
            why = [next((why for fam, pattern, why in EXPLAINED if fam == family and re.search(pattern, line)), None) for line in lines]
            known = sorted({reason for reason in why if reason})
            if ours and ours[0].startswith("none\t") and "No valid Btrfs found" in said:
                verdict = "explained: not recognised, by the checker neither"
            elif known:
                verdict = "explained: " + known[0]
            elif code is None:
                verdict = "explained: the checker does not end"
            else:
                verdict = "MISSED"
            note = lines[0] if lines else "exit %s" % code
        counts[family, verdict] += 1
        print("%-8s %-60s %s%s" % (family, row["path"][-60:], verdict, "  (%s)" % note[:150] if note else ""), flush=True)
    print()
    bad = 0
    for (family, verdict), count in sorted(counts.items()):
        print("%-8s %4d  %s" % (family, count, verdict))
        bad += count if verdict.startswith(("FAIL", "MISSED")) else 0
    sys.exit(bool(bad))


main()
