#!/bin/bash
# Makes test-images/filesystem/btrfs-*.zst: what mkfs.btrfs --rootdir cannot make, so a kernel has to.
# Needs root for loop mounts. Writes the images and prints what their .toml files say.
set -euo pipefail
out=$(cd "$(dirname "$0")/../../test-images/filesystem" && pwd)
work=$(mktemp -d)
loops=()
detach() {
    mountpoint -q "$work/mnt" && umount "$work/mnt"
    for loop in "${loops[@]}"; do losetup -d "$loop"; done
    loops=()
}
trap 'detach; rm -rf "$work"' EXIT
mkdir "$work/mnt"
attach() {
    for image in "$@"; do loops+=("$(losetup -f --show "$image")"); done
    btrfs device scan "${loops[@]}" >/dev/null
}
pack() { # name images...
    local name=$1
    shift
    cat "$@" >"$work/all"
    zstd -19 -q -f "$work/all" -o "$out/$name.img.zst"
    echo "$name: sha256 = \"$(sha256sum <"$work/all" | cut -d' ' -f1)\", size = $(stat -c %s "$work/all"), packed $(stat -c %s "$out/$name.img.zst")"
}
echo "tools = \"$(mkfs.btrfs -V), Linux $(uname -r)\""

# Line N of a file of text is `line N of a text that fills files, and packs well`.
cat >"$work/text.py" <<'P'
import sys
def text(length):
    out = bytearray()
    number = 0
    while len(out) < length:
        out += b"line %d of a text that fills files, and packs well\n" % number
        number += 1
    return bytes(out[:length])
P

# One device: everything that is within a file system.
truncate -s 32M "$work/img"
mkfs.btrfs -q -M -n 4096 -O ^no-holes -L 'one device' -U 0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9 "$work/img" >/dev/null 2>&1
attach "$work/img"
for codec in zlib lzo zstd; do
    mount -o "compress-force=$codec,max_inline=2048" "${loops[0]}" "$work/mnt"
    PYTHONPATH=$work python3 - "$work/mnt/$codec" <<'P'
import os, sys
from text import text
os.mkdir(sys.argv[1])
os.chdir(sys.argv[1])
for length in (100, 1500, 5000, 300001):
    open("text%d" % length, "wb").write(text(length))
open("zeros", "wb").write(bytes(200000))
# A few extents of which only a part is left.
open("patched", "wb").write(text(200000))
os.sync()
with open("patched", "r+b") as f:
    for at in (30000, 100000, 150001):
        f.seek(at)
        f.write(b"x" * 5000)
        f.flush()
        os.fsync(f.fileno())
P
    umount "$work/mnt"
done
mount -o max_inline=2048 "${loops[0]}" "$work/mnt"
PYTHONPATH=$work python3 - "$work/mnt" <<'P'
import fcntl, os, socket, stat, subprocess, sys
from text import text
os.chdir(sys.argv[1])
run = lambda *words: subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
os.mkdir("files")
open("files/empty", "wb").close()
open("files/inline", "wb").write(text(2000))
open("files/plain", "wb").write(text(10001))
with open("files/sparse", "wb") as f:
    f.write(b"a" * 5000)
    f.seek(50000)
    f.write(b"b" * 5000)
    f.truncate(100000)
with open("files/reserved", "wb") as f:
    os.posix_fallocate(f.fileno(), 0, 65536)
    f.seek(20000)
    f.write(b"c" * 1000)
with open("files/fragmented", "wb") as f:
    for block in range(400):
        f.seek(block * 8192)
        f.write(b"%04d" % block * 1024)
open("files/unsummed", "wb").close()
run("chattr", "+C", "files/unsummed")
open("files/unsummed", "wb").write(text(9000))
with open("files/cloned", "wb") as to, open("files/plain", "rb") as source:
    fcntl.ioctl(to.fileno(), 0x40049409, source.fileno())
os.mkdir("nodes")
os.mkfifo("nodes/fifo")
os.mknod("nodes/char", stat.S_IFCHR | 0o620, os.makedev(4, 65))
os.mknod("nodes/block", stat.S_IFBLK | 0o660, os.makedev(259, 200000))
socket.socket(socket.AF_UNIX).bind("nodes/socket")
os.symlink("target", "nodes/link")
os.symlink("/" + "t" * 1500, "nodes/long")
os.link("files/inline", "nodes/hard")
os.mkdir("many")
for number in range(500):
    open("many/entry-%d" % number, "wb").close()
# Names with the same hash share one item.
for name in (b"ABCDE", b"\xb04\xafAD"):
    open(b"many/" + name, "wb").close()
os.setxattr("files/plain", "user.one", b"1")
os.setxattr("files/plain", "user.large", b"0123456789" * 300)
os.setxattr("files/plain", "security.selinux", b"system_u:object_r:etc_t:s0\0")
os.chown("files/plain", 1000, 100000)
os.chmod("files/plain", 0o4751)
os.utime("files/plain", ns=(1, 1700000000123456789))
run("btrfs", "subvolume", "create", "@")
os.makedirs("@/etc")
open("@/etc/fstab", "wb").write(b"UUID=x / btrfs subvol=@ 0 0\n")
run("btrfs", "subvolume", "create", "@/var")
open("@/var/log", "wb").write(b"log\n")
run("btrfs", "subvolume", "snapshot", "-r", "@", "snapshots")
open("@/etc/fstab", "wb").write(b"changed\n")
run("btrfs", "subvolume", "set-default", "@")
P
detach
pack btrfs-one "$work/img"

# Several devices, everything in chunks of one profile.
for profile in raid0:2 raid1:2 raid1c4:4 raid10:4 raid5:3 raid6:4; do
    name=${profile%:*} images=()
    for ((number = 0; number < ${profile#*:}; number++)); do
        rm -f "$work/$number"
        truncate -s 96M "$work/$number"
        images+=("$work/$number")
    done
    mkfs.btrfs -q -M -n 4096 -d "$name" -m "$name" -L "$name" "${images[@]}" >/dev/null 2>&1
    attach "${images[@]}"
    mount "${loops[0]}" "$work/mnt"
    PYTHONPATH=$work python3 -c 'import sys; from text import text; open(sys.argv[1], "wb").write(text(400001))' "$work/mnt/text400001"
    mkdir "$work/mnt/directory"
    touch "$work/mnt/directory/entry-"{1..100}
    detach
    pack "btrfs-$name" "${images[@]}"
done

# A log tree: what was fsynced after the last commit, as a power cut leaves it.
rm "$work/img"
truncate -s 32M "$work/img"
mkfs.btrfs -q -M -n 4096 -L log "$work/img" >/dev/null 2>&1
attach "$work/img"
mount -o commit=300 "${loops[0]}" "$work/mnt"
PYTHONPATH=$work python3 - "$work/mnt" "$work/img" "$work/cut" <<'P'
import os, shutil, sys
os.chdir(sys.argv[1])
open("fstab", "wb").write(b"old\n")
os.sync()
with open("fstab", "wb") as f:
    f.write(b"newer and longer\n")
    f.flush()
    os.fsync(f.fileno())
shutil.copyfile(sys.argv[2], sys.argv[3])
P
detach
pack btrfs-log "$work/cut"
ls -l "$out"/btrfs-*
