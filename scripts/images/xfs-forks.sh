#!/bin/bash
# Makes test-images/filesystem/xfs-forks.img.zst: what mkfs.xfs -p cannot make, so a kernel has to.
# Needs root for a loop mount. Writes the image and prints what its .toml says.
set -euo pipefail
out=$(dirname "$0")/../../test-images/filesystem
work=$(mktemp -d)
trap 'mountpoint -q "$work/mnt" && umount "$work/mnt"; rm -rf "$work"' EXIT
mkdir "$work/mnt"
truncate -s 32M "$work/img"
mkfs.xfs --unsupported -q -b size=1024 -n size=4096 -m reflink=1 -L forks "$work/img"
mount -o loop "$work/img" "$work/mnt"
python3 - "$work/mnt" <<'P'
import fcntl, os, struct, sys
os.chdir(sys.argv[1])

# 1300 extents, a tree of two levels: every second block was written and holds its number.
with open("fragmented", "wb") as f:
    os.posix_fallocate(f.fileno(), 0, 1300 * 1024)
    for block in range(0, 1300, 2):
        os.pwrite(f.fileno(), struct.pack(">I", block) * 256, block * 1024)

# Written, hole, written again; then blocks past the end of the file.
with open("sparse", "wb") as f:
    f.write(b"a" * 1500)
    f.seek(5000)
    f.write(b"b" * 500)
os.system("fallocate -n -o 8192 -l 8192 sparse")

# Two files over the same blocks, and one that stopped sharing.
with open("shared-1", "wb") as f:
    f.write(b"shared " * 1000)
for name in ("shared-2", "unshared"):
    with open("shared-1", "rb") as src, open(name, "wb") as dst:
        fcntl.ioctl(dst.fileno(), 0x40049409, src.fileno())  # FICLONE
with open("unshared", "r+b") as f:
    f.write(b"own " * 1750)

# A directory of many pieces, spread by files between them; links need no inodes.
os.mkdir("directory")
open("linked", "wb").close()
for number in range(600):
    os.link("linked", "directory/a-name-that-takes-some-room-%04d" % number)
    if number % 60 == 0:
        with open("between-%04d" % number, "wb") as f:
            f.write(b"x")
        os.sync()

# Attributes in several leaves under a node, and values of their own blocks.
open("attributes", "wb").close()
for number in range(60):
    os.setxattr("attributes", "user.number-%02d" % number, b"%02d" % number * 30)
os.setxattr("attributes", "security.selinux", b"system_u:object_r:etc_t:s0\0")
os.setxattr("attributes", "user.large", b"0123456789abcdef" * 600)
os.setxattr("attributes", "trusted.largest", b"0123456789abcdef" * 4096)
os.symlink("/" + "target/" * 140, "link")
P
umount "$work/mnt"
# Another UUID gives the image the `metauuid` feature and an empty log, which packs better.
xfs_admin -U 0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9 "$work/img" >/dev/null
xfs_repair -n "$work/img" >/dev/null 2>&1
zstd -19 -q -f "$work/img" -o "$out/xfs-forks.img.zst"
echo "tools = \"$(mkfs.xfs -V), Linux $(uname -r)\""
echo "sha256 = \"$(sha256sum <"$work/img" | cut -d' ' -f1)\""
ls -l "$out/xfs-forks.img.zst"
