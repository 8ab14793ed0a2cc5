#!/bin/bash
# Makes test-images/filesystem/ntfs-{512,4kn}.img.zst: volumes that ntfs-3g filled.
# Needs root and /dev/fuse. Writes the images and prints what their .toml say.
set -euo pipefail
out=$(dirname "$0")/../../test-images/filesystem
work=$(mktemp -d)
trap 'mountpoint -q "$work/mnt" && umount "$work/mnt"; rm -rf "$work"' EXIT
mkdir "$work/mnt"
make() { # name size mkntfs-options...
  local name=$1 size=$2
  shift 2
  truncate -s "$size" "$work/img"
  mkntfs -q -Q -F -L "Test ä" "$@" "$work/img" >/dev/null 2>&1
  ntfs-3g -o streams_interface=xattr,compression "$work/img" "$work/mnt"
  python3 - "$work/mnt" <<'P'
import os, struct, sys
os.chdir(sys.argv[1])
cluster = os.statvfs(".").f_bsize

def put(path, data):
    with open(path, "wb") as f:
        f.write(data)

def numbers(length, start=0):
    """Bytes in which every four hold their number."""
    return b"".join(struct.pack("<I", (start + n) & 0xffffffff) for n in range(-(-length // 4)))[:length]

def reparse(path, tag, data, directory=False):
    os.mkdir(path) if directory else put(path, b"")
    os.setxattr(path, "system.ntfs_reparse_data", struct.pack("<IHH", tag, len(data), 0) + data)

def link(path, tag, target, flags=None, directory=False):
    name = target.encode("utf-16-le")
    data = struct.pack("<HHHH", 0, len(name), len(name) + 2, 0)
    data += (struct.pack("<I", flags) if flags is not None else b"") + name + b"\0\0\0\0"
    reparse(path, tag, data, directory)

put("small", b"small\n")
put("empty", b"")
put("large", numbers(100000))
with open("sparse", "wb") as f:
    f.write(numbers(1500))
    f.seek(1 << 20)
    f.write(b"b" * 500)
    f.truncate(5 << 20)
# Every second cluster is a hole: with small clusters an attribute list of several records.
with open("holes", "wb") as f:
    for number in range(500 if cluster == 512 else 20):
        f.seek(2 * number * cluster)
        f.write(struct.pack("<I", number) * (cluster // 4))
os.mkdir("packed")
attributes = struct.unpack("<I", os.getxattr("packed", "system.ntfs_attrib"))[0]
if cluster <= 4096:
    os.setxattr("packed", "system.ntfs_attrib", struct.pack("<I", attributes | 0x800))
put("packed/text", b"".join(b"line %d of a text that packs\n" % n for n in range(2000)))
put("packed/numbers", numbers(20000))
put("packed/mixed", b"x" * 9000 + numbers(12000, 1 << 24) + bytes(20000) + b"end")
os.mkdir("streams")
put("streams/file", b"main")
os.setxattr("streams/file", "user.small", b"stream")
os.setxattr("streams/file", "user.large", numbers(5000))
put("streams/many", b"many")
for number in range(25):
    os.setxattr("streams/many", "user.stream-%02d" % number, b"%02d" % number * 30)
os.mkdir("links")
os.link("small", "links/hard")
os.symlink("../small", "links/interix")
os.mkfifo("links/fifo")
os.mknod("links/char", 0o020600, os.makedev(4, 65))
link("links/relative", 0xA000000C, r"..\small", 1)
link("links/full", 0xA000000C, r"\??\C:\packed\text", 0)
link("links/junction", 0xA0000003, "\\??\\C:\\packed", None, True)
link("links/volume", 0xA0000003, "\\??\\Volume{01234567-89ab-cdef-0123-456789abcdef}\\", None, True)
reparse("links/wof", 0x80000017, struct.pack("<IIII", 1, 2, 1, 0))
reparse("links/cloud", 0x9000601A, b"\0" * 16)
os.mkdir("directory")
for number in range(300):
    put("directory/an-entry-with-a-long-name-%03d" % (number * 7 % 300), b"")
os.mkdir("names")
for name in ["Case", "case", "ÄÖ", "😀" * 20, "n" * 255]:
    put("names/" + name, name.encode())
put(b"names/lone-\xed\xa0\xbd", b"lone")
os.utime("small", ns=(1000000000123456700, 1700000000123456700))
P
  umount "$work/mnt"
  zstd -19 -q -f "$work/img" -o "$out/$name.img.zst"
  echo "$name: sha256 = \"$(sha256sum <"$work/img" | cut -d' ' -f1)\", size = $(stat -c %s "$work/img"), packed $(stat -c %s "$out/$name.img.zst")"
}
make ntfs-512 6M -c 512
make ntfs-4kn 24M -s 4096 -c 65536
echo "tools = \"$(mkntfs --version 2>&1 | sed -n 2p), $(ntfs-3g --version 2>&1 | head -1)\""
