#!/usr/bin/env python3
"""Compares what e2fsck finds in the damaged images of its own test suite with what the ext4 reader names.

ext4-corpus.py SURVEY [CORPUS]   SURVEY is the program made of crates/filesystem-ext4/examples/survey.rs

Prints a table: class of problem, images in which e2fsck finds it, named by us, not on the path of what is read,
missed. Where e2fsck names an inode, an error for that inode counts, and an inode that no name leads to is off the
path. Exit status 1 when anything is missed.
"""
import bz2
import collections
import gzip
import os
import re
import subprocess
import sys
import tempfile

# What e2fsck says; the class; what of ours names it (None: never read, and so explained), and whether the message
# is about one inode, whose number is the first group.
RULES = [
    (r"Found invalid V2 journal superblock fields|External journal has multiple", "fields that version 1 of a journal does not have", None),
    (r"bad block inode|bad block list|bad blocks inode|[Rr]esize_?inode|reserved inode|[Bb]ad blocks? (?!for)|located in a bad block",
     "reserved inodes that are not files", None),
    (r"[Ss]uperblock has an invalid journal|[Jj]ournal superblock is corrupt|Journal transaction .* corrupt|"
     r"superblock doesn't have has_journal|Journal checksum error|corruption found in journal",
     "journal", r"replay|journal"),
    (r"[Bb]ad (?:required|desired) extra isize|has_journal flag is clear|lacks LARGE|feature flag\(s\) set, but|MMP",
     "superblock: fields that only a writer needs", None),
    (r"[Ss]uperblock checksum", "superblock: checksum", r"superblock"),
    (r"Extended attribute in inode \d+ has a hash", "hash of an attribute: not compared, as in the kernel", None),
    (r"[Ee]xtended attribute block \d+ (?:has h_blocks|is corrupt)|Error reading extended attribute block", "attribute block", r"attribute"),
    (r"Duplicate entry|non-unique filename|UTF-8", "names twice, or not UTF-8: listed as they are", None),
    (r"[Ff]irst entry|[Ss]econd entry|'\.\.?' directory entry", "'.' and '..': names that are not asked for", None),
    (r"Inode (\d+) has INLINE_DATA_FL flag but extended attribute not found|Inode (\d+) has inline data .* junk", "inline data",
     r"inline|attributes|directory entry|i_block"),
    (r"INLINE_DATA_FL flag on filesystem|Fast symlink \d+ has EXTENT|looks like it is really|is an illegal|has dtime set|extra size \(1\)|"
     r"too big\.  Truncate|unused inodes area", "fields and flags that change nothing that is read", None),
    (r"extent tree could be more shallow|should be at block", "advice", None),
    (r"Logical start \d+ does not match", "extent tree: a first file block that is too low", None),
    (r"Encrypted entry .* too short", "encrypted names: bytes without a meaning here", None),
    (r"Signal|SEGV|double free|\[0x", "e2fsck 1.47.0 itself fails", None),
    (r"Illegal block #-?\d+ \(7303014\)|Inode 13 has illegal block\(s\)\.  Clear\? no$", "a fast symlink that e2fsck 1.47.0 takes for a mapped one", None),
    (r"Illegal indirect block \(", "block map: place", r"block map|extent tree"),
    (r"Symlink /high_(?:link|fastlink) ", "upper half of a symlink's size: not used, as in the kernel", None),
    (r"short read", "a device that is too short", r"s_blocks_count|journal"),
    (r"Bad magic number|superblock is corrupt|Superblock invalid|superblock could not be read", "superblock", r"superblock"),
    (r"Corrupt group descriptor|Group descriptors look bad|(?:Inode table|[Bb]lock bitmap|[Ii]node bitmap) for group \d+ is not in group",
     "group descriptor: place", r"group descriptor"),
    (r"group descriptor checksums are invalid|Group descriptor \d+ checksum is", "group descriptor: checksum", r"group descriptor"),
    (r"backup superblock|does not match with backup", "backup superblock", r"backup superblock"),
    (r"External journal", "journal on another device", r"journal"),
    (r"MMP block", "multiple-mount protection: only a writer asks", None),
    (r"Inode (\d+) passes checks, but checksum does not match", "inode: checksum", r"inode at"),
    (r"Inode (\d+)(?: \(.*?\))? has (?:illegal block|an invalid extent|too many illegal)|Too many illegal blocks in inode (\d+)|"
     r"Illegal block #-?\d+ \(\d+\) in inode (\d+)|Illegal indirect block found.*|Error while iterating over blocks in inode (\d+)",
     "block map: place", r"block map|extent tree"),
    (r"Inode (\d+),? (?:has an invalid extent node|extent block passes checks|extent tree .* corrupt|has corrupt extent)|"
     r"Inode (\d+), .*(?:extent|interior node)|Inode (\d+) has zero length extent|Inode (\d+) has out of order extents",
     "extent tree", r"extent tree"),
    (r"Directory inode (\d+) has an? unallocated block|Directory inode (\d+) has extent marked uninitialized", "directory: hole", r"directory"),
    (r"Directory inode (\d+), block #\d+, offset \d+: directory corrupted|Directory inode (\d+), block #\d+: directory passes checks but fails|"
     r"Directory inode (\d+), block #\d+, offset \d+: directory has no checksum",
     "directory block", r"directory|inode attributes|inode at|block map|extent"),
    (r"Inode (\d+) has a bad extended attribute block|Extended attribute block for inode (\d+) |"
     r"Inode (\d+) extended attribute is corrupt|Inode (\d+) has illegal extended attribute value inode|[Ee]xtended attribute in inode (\d+) ",
     "extended attributes", r"attribute|i_file_acl|e_|h_"),
    (r"Symlink .*\(inode #(\d+)\) is invalid", "symlink", r"."),
    (r"[Ii]node (\d+) \(.*\) has invalid mode", "inode: mode", r"i_mode"),
    (r"Entry .* has deleted/unused inode (\d+)", "entry that leads to a deleted inode", r"i_mode|i_links_count|number"),
    (r"Entry .* has invalid inode #: \d+|points to inode \(\d+\) located in a bad block", "entry: inode number", r"directory entry|inode"),
    (r"root inode|Root inode", "root directory", r"."),
    (r"Inode (\d+) has INLINE_DATA_FL flag but extended attribute not found|Inode (\d+) has inline data .* junk|inline data",
     "inline data", r"inline|attributes|directory entry|i_block"),
    (r"Entry .* has illegal characters in its name|Entry .* has a zero-length name|Entry .* is duplicate|Duplicate entry",
     "entry: name", r"directory entry|name"),
    (r"(?:Missing|Invalid inode number for|First entry|Second entry|Directory entry for) '\.\.?'|'\.\.' in ",
     "'.' and '..': names that are not asked for", None),
    (r"HTREE|HTree|Problem in HTREE", "order within a directory index: names are read without it", None),
    (r"multiply-claimed|Multiply-claimed|conflicts with critical metadata|shared block", "blocks with two owners: needs a map of all blocks", None),
    (r"bitmap|Bitmap|BLOCK_UNINIT|INODE_UNINIT|unused inodes count", "bitmaps and their flags: only writing reads them", None),
    (r"count wrong|ref count is|i_blocks is|i_size is|Directories count", "counts that others follow from", None),
    (r"zero dtime|orphan|Orphan|Deleted inode", "orphans and deleted inodes", None),
    (r"Unattached|Unconnected|lost\+found", "files that no name leads to", None),
    (r"quota|QUOTA|Quota", "quota files", None),
    (r"bad block inode|bad block list|[Rr]esize inode|reserved inode|[Bb]ad blocks? ", "reserved inodes that are not files", None),
    (r"incorrect filetype|i_file_acl|i_faddr|i_frag|i_fsize|i_dir_acl|i_blocks_hi|imagic|casefold|flag set|EXTENTS_FL|INDEX_FL|Special|"
     r"illegal (?:block|character) device|encrypt|too big\. Truncate|non-zero size|missing EXTENTS|has the .* flag|immutable|INLINE_DATA_FL flag on",
     "fields and flags that change nothing that is read", None),
    (r"could be shorter|could be narrower|Optimize", "advice", None),
    (r"too big\. IGNORED|causes (?:directory|file|symlink) to be too big", "blocks beyond the end of a file", None),
]
# Not findings.
TALK = re.compile(
    r"^(?:$|e2fsck |Pass \d|Restarting|Running additional|WARNING|Warning: skipping|Illegal block number passed|Error writing block|.* \d+/\d+ files|"
    r".*WARNING: Filesystem still has errors|Relocating|Note:|the backup|of the inode table|may lie only|running e2fsck|Inode table .* relocat|"
    r"is corrupt, and you|filesystem\.|or$|e2fsck -b|The filesystem size|If the device|    |You can remove|that the block|If the block|IGNORED|"
    r"Fix\?|Clear|Suppress|Connect|Delete|Clone|Salvage|Split|Relocate|File |\s|has \d+ multiply|<|\(There|Free |Update|Truncate|Expand|Create\?|"
    r"e2fsck: (?:aborted|Cannot)|or append-only|or inline-data|extent|Recreate|This doesn't bode|Rename|Programming error|Interior extent|filesystem |e2fsck: Trying|.*contains a .* file system|Directory <|not compatible|Filesystem did not|Continue|Adding|Group \d+|Padding)")


def unpack(folder, target):
    for name, opener in [("image.gz", gzip.open), ("image.bz2", bz2.open), ("image", open)]:
        path = os.path.join(folder, name)
        if os.path.exists(path):
            with opener(path, "rb") as packed, open(target, "wb") as image:
                while piece := packed.read(1 << 20):
                    if piece.count(0) == len(piece):
                        image.seek(len(piece), 1)
                    else:
                        image.write(piece)
                image.truncate(image.tell())
            return True
    return False


def judge(text, survey):
    """The classes in what e2fsck says of one image: class -> verdict."""
    errors, reachable, general = collections.defaultdict(list), set(), []
    for line in survey.splitlines():
        kind, *rest = line.split("\t")
        if kind == "inode":
            reachable.add(int(rest[0]))
        elif kind == "error":
            errors[int(rest[0])].append(rest[-1])
        elif kind == "problem":
            general.append(rest[0])
    ours = general + [error for found in errors.values() for error in found]
    verdicts, unknown = {}, []
    for line in dict.fromkeys(text.splitlines()):
        for pattern, name, named in RULES:
            match = re.search(pattern, line)
            if not match:
                continue
            number = next((int(group) for group in match.groups() if group), None)
            if named is None:
                verdict = "off"
            elif number is not None and errors.get(number):
                verdict = "named"
            elif number is not None and number not in reachable:
                # What leads there may be damaged itself; then that is what is named.
                verdict = "off"
            elif number is None and any(re.search(named, error) for error in ours):
                verdict = "named"
            else:
                verdict = "missed"
            order = ["off", "named", "missed"]
            if order.index(verdict) >= order.index(verdicts.get(name, ("off",))[0]):
                verdicts[name] = (verdict, line)
            break
        else:
            if not TALK.match(line):
                unknown.append(line)
    return verdicts, unknown


def main():
    survey = sys.argv[1]
    here = os.path.dirname(os.path.abspath(__file__))
    corpus = sys.argv[2] if len(sys.argv) > 2 else os.environ.get("GUESTMEND_CORPUS", os.path.join(here, "../../../shared/corpus"))
    table = collections.defaultdict(collections.Counter)
    missed, images = [], 0
    root = os.path.join(corpus, "e2fsprogs")
    for case in sorted(os.listdir(root)):
        with tempfile.TemporaryDirectory() as lab:
            image = os.path.join(lab, "image")
            if not unpack(os.path.join(root, case), image):
                print(f"skipped: {case} has no image")
                continue
            images += 1
            try:
                text = subprocess.run(["e2fsck", "-fn", image], capture_output=True, timeout=20).stdout
            except subprocess.TimeoutExpired as late:
                text = (late.stdout or b"")[:1 << 20]
            try:
                found = subprocess.run([survey, image], capture_output=True, timeout=20, check=True).stdout
            except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
                print(f"FAILED: {case}: {error}")
                missed.append(case)
                continue
        verdicts, unknown = judge(text.decode("utf-8", "replace"), found.decode("utf-8", "replace"))
        for line in unknown:
            print(f"unsorted: {case}: {line}")
        for name, (verdict, line) in verdicts.items():
            table[name][verdict] += 1
            if verdict == "missed":
                missed.append(case)
                print(f"missed: {case}: {name}: {line}")
    print(f"{images} images")
    print(f"{'class of problem':<64} {'images':>6} {'named':>6} {'off':>6} {'missed':>6}")
    for name, counts in sorted(table.items(), key=lambda item: (item[1]["named"] + item[1]["missed"] == 0, item[0])):
        print(f"{name:<64} {counts.total():>6} {counts['named']:>6} {counts['off']:>6} {counts['missed']:>6}")
    sys.exit(1 if missed else 0)


main()
