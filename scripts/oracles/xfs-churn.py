#!/usr/bin/env python3
"""xfs-churn.py DIR SEED OPERATIONS [[--quiet] COMMAND...]: changes files below DIR at random; the same seed does the same.

Keeps some removed files open, and runs COMMAND, which shuts the file system down, while they are, or
after they were closed.
"""
import fcntl
import os
import random
import subprocess
import sys
import time

root, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = random.Random(seed)
os.chdir(root)
names, folders, held = [], ["."], []
FICLONE, FICLONERANGE = 0x40049409, 0x4020940D


def fresh(folder):
    return "%s/%s%d" % (folder, "n" * rng.choice([1, 8, 40, 200]), rng.randrange(10**9))


def is_regular(path):
    return os.path.isfile(path) and not os.path.islink(path)


def write(path, flags=0):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o600 + rng.randrange(64))
    for _ in range(rng.choice([0, 1, 1, 2, 5])):
        os.pwrite(fd, rng.randbytes(rng.choice([1, 100, 4096, 30000])), rng.choice([0, 0, 1, 5]) * rng.randrange(1, 60000))
    if rng.random() < 0.1:
        os.fsync(fd)
    return fd


def step():
    kind = rng.randrange(100)
    if kind < 30 or not names:
        path = fresh(rng.choice(folders))
        os.close(write(path))
        names.append(path)
    elif kind < 36:
        path = fresh(rng.choice(folders))
        os.mkdir(path)
        folders.append(path)
    elif kind < 48:
        path = names.pop(rng.randrange(len(names)))
        if rng.random() < 0.05:
            held.append(os.open(path, os.O_RDWR) if is_regular(path) else -1)
        os.unlink(path)
    elif kind < 56:
        index = rng.randrange(len(names))
        path = fresh(rng.choice(folders))
        os.rename(names[index], path)
        names[index] = path
    elif kind < 60:
        path = fresh(rng.choice(folders))
        os.link(rng.choice(names), path, follow_symlinks=False)
        names.append(path)
    elif kind < 66:
        path = fresh(rng.choice(folders))
        os.symlink("t" * rng.choice([1, 50, 300, 1000]), path)
        names.append(path)
    elif kind < 74:
        path = rng.choice(names)
        for _ in range(rng.choice([1, 1, 5, 30])):
            name = "user.a%d" % rng.randrange(60)
            os.setxattr(path if is_regular(path) else rng.choice(folders), name,
                        rng.randbytes(rng.choice([0, 10, 200, 3000, 20000])))
    elif kind < 77:
        path = rng.choice(names)
        for name in os.listxattr(path, follow_symlinks=False)[:10]:
            if name.startswith("user."):
                os.removexattr(path, name, follow_symlinks=False)
    elif kind < 84:
        path = rng.choice(names)
        if is_regular(path):
            os.truncate(path, rng.choice([0, 1, 5000, 100000, 1 << 22]))
    elif kind < 92:
        path = rng.choice(names)
        if is_regular(path):
            os.close(write(path))
    elif kind < 95:
        first, second = rng.choice(names), fresh(rng.choice(folders))
        if is_regular(first):
            with open(first, "rb") as source, open(second, "wb") as target:
                names.append(second)
                fcntl.ioctl(target.fileno(), FICLONE, source.fileno())
    elif kind < 97:
        path = rng.choice(names)
        if is_regular(path):
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), rng.randrange(100000), 1 + rng.randrange(200000))
    elif kind < 98:
        path = rng.choice(names)
        if is_regular(path):
            os.chown(path, rng.randrange(70000), rng.randrange(70000))
            os.chmod(path, rng.randrange(0o7777) | 0o400)
            os.utime(path, ns=(rng.randrange(1 << 60), rng.randrange(1 << 61)))
    elif kind < 99:
        path = fresh(rng.choice(folders))
        with open(path, "wb") as file:  # many extents
            names.append(path)
            for index in range(rng.choice([5, 50, 300])):
                file.seek(index * 20000)
                file.write(b"%d" % index)
            file.flush()
            if rng.random() < 0.5:
                os.fsync(file.fileno())
    else:
        folder = fresh(".")
        os.mkdir(folder)
        for index in range(rng.choice([20, 200, 700])):
            path = "%s/entry-%d-%s" % (folder, index, "m" * rng.randrange(40))
            os.mknod(path, 0o600 | (0o020000 if index % 9 == 0 else 0o010000), os.makedev(5, index))
            names.append(path)
    if rng.random() < 0.003:
        os.sync()


for _ in range(count):
    try:
        step()
    except OSError as error:
        if error.errno == 5:
            break
if sys.argv[4:5] == ["--quiet"]:
    # Removed files are gone for good, as far as the kernel gets in a moment.
    for fd in held:
        if fd >= 0:
            os.close(fd)
    time.sleep(0.3)
    del sys.argv[4]
if len(sys.argv) > 4:
    subprocess.run(sys.argv[4:], check=True)
