#!/usr/bin/env python3
"""Fills a mounted file system with what guests have and what readers stumble over. Needs root for devices."""
import os
import random
import shutil
import struct
import subprocess
import sys

root = sys.argv[1]
large = len(sys.argv) > 2 and sys.argv[2] == "large"
rng = random.Random(4)


def put(path, data):
    with open(os.path.join(root, path), "wb") as file:
        file.write(data)


def xattr(path, name, value):
    try:
        os.setxattr(os.path.join(root, path), name, value, follow_symlinks=False)
    except OSError as error:
        print(f"note: {name} ({len(value)} bytes): {error.strerror}", file=sys.stderr)


for folder in ["etc", "files", "links", "nodes", "dirs", "xattrs"]:
    os.makedirs(os.path.join(root, folder))
put("etc/fstab", b"UUID=1 / ext4 defaults 0 1\n")
sizes = [0, 1, 59, 60, 61, 100, 155, 156, 157, 400, 1023, 1024, 1025, 4095, 4096, 4097, 49152, 49153, 300000, 5 << 20]
for size in sizes + ([64 << 20] if large else []):
    put(f"files/{size}", rng.randbytes(size))
with open(os.path.join(root, "files/sparse"), "wb") as file:
    for offset in [8192, 1_000_000, 50_000_000, 3_000_000_000]:
        file.seek(offset)
        file.write(rng.randbytes(100))
    file.truncate(4_000_000_001)
with open(os.path.join(root, "files/reserved"), "wb") as file:
    try:
        os.posix_fallocate(file.fileno(), 0, 400_000)
    except OSError:
        pass
    file.write(rng.randbytes(10_000))
# One block of every second, so that no two are neighbours.
block = os.statvfs(root).f_bsize
with open(os.path.join(root, "files/fragmented"), "wb") as file:
    for number in range(2000):
        file.seek(number * 2 * block)
        file.write(rng.randbytes(block))
for length in [1, 59, 60, 61, 155, 400, 1000, 1023] + ([4095] if block >= 4096 else []):
    os.symlink("/".join(["t" * 199] * 30)[:length].rstrip("/").ljust(length, "t"), os.path.join(root, f"links/{length}"))
os.makedirs(os.path.join(root, "links/every"))
for length in range(1, 300):
    os.symlink("s" * length, os.path.join(root, f"links/every/{length}"))
os.makedirs(os.path.join(root, "/".join(["deep"] * 100)))
put("/".join(["deep"] * 100) + "/bottom", b"at the bottom")
# Longer than 2 TiB, where the format lets a file be; else as long as it may.
with open(os.path.join(root, "files/huge"), "wb") as file:
    for offset in [(1 << 41) + 7, (1 << 34) - 100]:
        try:
            file.seek(offset)
            file.write(b"far out")
            break
        except OSError:
            continue
os.link(os.path.join(root, "etc/fstab"), os.path.join(root, "links/hard"))
os.mkfifo(os.path.join(root, "nodes/fifo"))
for name, kind, major, minor in [("char", 0o020640, 5, 1), ("char-new", 0o020600, 300, 70000), ("block", 0o060660, 8, 17)]:
    os.mknod(os.path.join(root, "nodes", name), kind, os.makedev(major, minor))
import socket
sock = socket.socket(socket.AF_UNIX)
os.chdir(os.path.join(root, "nodes"))
sock.bind("socket")
os.chdir("/")
put("files/odd-owner", b"x")
os.chown(os.path.join(root, "files/odd-owner"), 70_000, 100_000)
os.chmod(os.path.join(root, "files/odd-owner"), 0o6751)
for seconds in [-5, 0, 2**31 + 5, 2**32 + 9]:
    put(f"files/time{seconds}", b"")
    os.utime(os.path.join(root, f"files/time{seconds}"), ns=(0, seconds * 10**9 + 123_456_789))
put("files/" + "n" * 255, b"long name")
with open(os.fsencode(root) + b"/files/\xff\n\\ ", "wb") as file:
    file.write(b"odd name")
for count in [10, 200, 3000] + ([20000] if large else []):
    os.makedirs(os.path.join(root, f"dirs/{count}"))
    for number in range(count):
        os.close(os.open(os.path.join(root, f"dirs/{count}/name-{number:x}-{'y' * (number % 60)}"), os.O_CREAT | os.O_WRONLY))
for number in range(0, 200, 3):
    os.unlink(os.path.join(root, f"dirs/200/name-{number:x}-{'y' * (number % 60)}"))
put("xattrs/file", b"content")
for name, length in [("user.short", 5), ("security.selinux", 30), ("trusted.thing", 40), ("user.empty", 0),
                     ("user.medium", 300), ("user.ea_inode", 20_000), ("user.ea_inode.max", 65_536)]:
    xattr("xattrs/file", name, rng.randbytes(length))
os.makedirs(os.path.join(root, "xattrs/folder"))
acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in [
    (1, 7, 0xFFFFFFFF), (2, 5, 1000), (4, 5, 0xFFFFFFFF), (8, 1, 2000), (16, 7, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF)])
xattr("xattrs/file", "system.posix_acl_access", acl)
xattr("xattrs/folder", "system.posix_acl_access", acl)
xattr("xattrs/folder", "system.posix_acl_default", acl)
