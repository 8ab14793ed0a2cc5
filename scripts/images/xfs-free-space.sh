#!/bin/bash
# Makes test-images/filesystem/xfs-free-space.img.zst: free space in so many pieces that its trees have two
# levels, which only a kernel makes. Needs root for a loop mount. Prints what the .toml says.
set -euo pipefail
out=$(dirname "$0")/../../test-images/filesystem
work=$(mktemp -d)
trap 'mountpoint -q "$work/mnt" && umount "$work/mnt"; rm -rf "$work"' EXIT
mkdir "$work/mnt"
truncate -s 32M "$work/img"
mkfs.xfs --unsupported -q -b size=1024 -m rmapbt=1,reflink=1 -L pieces "$work/img"
mount -o loop "$work/img" "$work/mnt"
python3 - "$work/mnt" <<'P'
import ctypes, os, sys
os.chdir(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
PUNCH = 1 | 2  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE

for name in ("small", "medium", "empty"):
    with open(name, "wb") as f:
        f.write(b"x" * {"small": 10, "medium": 5000, "empty": 0}[name])
os.sync()
# Everything that is free, then holes of one to five blocks in it.
with open("rest", "wb") as f:
    end = 0
    for size in [1 << 20, 1 << 16, 1 << 12, 1 << 10]:
        while libc.fallocate(f.fileno(), 0, end, size) == 0:
            end += size
    os.fsync(f.fileno())
    at = 1024
    for number in range(700):
        length = 1 + number % 5
        libc.fallocate(f.fileno(), PUNCH, at * 1024, length * 1024)
        at += 30
    os.ftruncate(f.fileno(), 0 if at * 1024 > end else end)
P
umount "$work/mnt"
xfs_admin -U 0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8fa "$work/img" >/dev/null
xfs_repair -n "$work/img" >/dev/null 2>&1
zstd -19 -q -f "$work/img" -o "$out/xfs-free-space.img.zst"
for ag in 0 1; do
    xfs_db -r -c "agf $ag" -c 'print bnolevel cntlevel rmaplevel freeblks longest' "$work/img" | tr '\n' ' '
    echo
done
echo "tools = \"$(mkfs.xfs -V), Linux $(uname -r)\""
echo "sha256 = \"$(sha256sum <"$work/img" | cut -d' ' -f1)\""
ls -l "$out/xfs-free-space.img.zst"
