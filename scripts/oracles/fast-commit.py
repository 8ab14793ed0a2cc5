#!/usr/bin/env python3
"""Changes a mounted ext4 by small steps, each with an fsync, then cuts it off as a power failure would.

fast-commit.py prepare DIR         fills DIR; the caller syncs
fast-commit.py change DIR SEED STEPS
"""
import fcntl
import os
import random
import struct
import subprocess
import sys

root = sys.argv[2]


def path(*names):
    return os.path.join(root, *names)


def sync(name):
    fd = os.open(name, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def write(name, data, offset=None, keep=True):
    with open(name, "r+b" if keep and os.path.exists(name) else "wb") as file:
        file.seek(0 if offset is None else offset, os.SEEK_END if offset is None else os.SEEK_SET)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def content(rng, length):
    """Bytes of this length; with PLAIN set, such as can be packed."""
    if "PLAIN" in os.environ:
        return (b"%08x" % rng.getrandbits(32) * (length // 8 + 1))[:length]
    return rng.randbytes(length)


def settle():
    """An fsync of a directory is a whole commit; one of any file is a fast one."""
    write(path("marker"), b"x")


def prepare():
    rng = random.Random(1)
    for folder, count in [("small", 5), ("middle", 120), ("wide", 2500)]:
        os.mkdir(path(folder))
        for number in range(count):
            with open(path(folder, f"old-{number}-{'n' * (number % 40)}"), "wb") as file:
                file.write(content(rng, number % 7 * 1500))
    with open(path("small", "fragmented"), "wb") as file:
        for number in range(400):
            file.seek(number * 8192)
            file.write(content(rng, 4096))
    with open(path("small", "xattrs"), "wb") as file:
        file.write(b"x" * 5000)
    os.setxattr(path("small", "xattrs"), "user.long", b"v" * 700)
    os.setxattr(path("small", "xattrs"), "security.selinux", b"label")


def files(folder):
    return [entry.path for entry in os.scandir(path(folder)) if entry.is_file(follow_symlinks=False)]


def change(seed, steps):
    rng = random.Random(seed)
    fresh = 0
    for _ in range(steps):
        folder = rng.choice(["small", "small", "middle", "wide"])
        name = path(folder, f"new-{seed}-{fresh}-{'m' * rng.randrange(120)}")
        fresh += 1
        old = rng.choice(files(folder))
        size = os.stat(old).st_size
        kind = rng.choice(KINDS)
        if kind == "create":
            write(name, content(rng, rng.choice([0, 10, 5000, 100_000])))
        elif kind == "append":
            write(old, content(rng, rng.randrange(1, 20_000)))
        elif kind == "overwrite":
            write(old, content(rng, rng.randrange(1, 9000)), rng.randrange(0, size + 1))
        elif kind == "sparse":
            write(old, content(rng, 4096), rng.randrange(0, 400) * 4096)
        elif kind == "truncate":
            os.truncate(old, rng.randrange(0, size + 5000))
            sync(old)
        elif kind == "rename":
            os.rename(old, name)
            sync(name)
        elif kind == "replace":
            write(name, content(rng, 3000))
            os.rename(name, old)
            sync(old)
        elif kind == "unlink":
            os.unlink(old)
            settle()
        elif kind == "link":
            os.link(old, name)
            sync(name)
        elif kind == "reserve":
            fd = os.open(old, os.O_RDWR)
            os.posix_fallocate(fd, size, rng.randrange(1, 300_000))
            os.fsync(fd)
            os.close(fd)
        elif kind == "mkdir":
            os.mkdir(name)
            write(os.path.join(name, "inside"), b"inside" * 100)
        elif kind == "rmdir":
            os.mkdir(name)
            settle()
            os.rmdir(name)
            settle()
        elif kind == "mode":
            os.chmod(old, rng.choice([0o600, 0o4755]))
            os.chown(old, rng.randrange(70_000), rng.randrange(70_000))
            sync(old)
        elif kind == "symlink":
            os.symlink("t" * rng.randrange(1, 59), name)
            settle()


ALL = "create append overwrite sparse truncate rename replace unlink link reserve mkdir rmdir mode symlink".split()
KINDS = os.environ.get("KINDS", " ".join(ALL)).split()
if sys.argv[1] == "prepare":
    prepare()
else:
    change(int(sys.argv[3]), int(sys.argv[4]))
    # EXT4_IOC_SHUTDOWN without a flush of the log.
    fd = os.open(root, os.O_RDONLY)
    fcntl.ioctl(fd, 0x8004587D, struct.pack("I", 2))
