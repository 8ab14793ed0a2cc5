#!/usr/bin/env python3
"""Lists a mounted tree in the form of a crate's examples/list.rs: the kernel's word on what is there."""
import hashlib
import os
import stat
import sys

LETTERS = {stat.S_IFREG: "-", stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFCHR: "c", stat.S_IFBLK: "b",
           stat.S_IFIFO: "p", stat.S_IFSOCK: "s"}


def escape(data):
    return "".join(chr(b) if 0x21 <= b <= 0x7E and b != 0x5C else f"\\{b:02x}" for b in data)


def digest(path, size):
    """SHA-256 of the content; of files of more than 8 GiB, of the first and the last MiB."""
    with open(path, "rb") as file:
        if size <= 8 << 30:
            return hashlib.file_digest(file, "sha256").hexdigest()
        first = file.read(1 << 20)
        file.seek(size - (1 << 20))
        return hashlib.sha256(first + file.read()).hexdigest()


def line(root, path):
    host = root + path
    found = os.lstat(host)
    kind = stat.S_IFMT(found.st_mode)
    detail = ""
    if kind == stat.S_IFREG:
        detail = digest(host, found.st_size)
    elif kind == stat.S_IFLNK:
        detail = escape(os.readlink(host))
    elif kind != stat.S_IFDIR:
        detail = f"{os.major(found.st_rdev)},{os.minor(found.st_rdev)}"
    names = sorted(os.fsencode(name) for name in os.listxattr(host, follow_symlinks=False))
    values = [(name, os.getxattr(host, name, follow_symlinks=False)) for name in names]
    xattrs = " ".join(f"{escape(name)}={hashlib.sha256(value).hexdigest()}" for name, value in values)
    mode = f"{LETTERS[kind]}{stat.S_IMODE(found.st_mode):04o}"
    seconds, nanoseconds = divmod(found.st_mtime_ns, 10**9)
    return "\t".join([escape(path), mode, str(found.st_uid), str(found.st_gid), str(found.st_nlink),
                      str(found.st_size), str(found.st_blocks * 512), f"{seconds}.{nanoseconds:09}", detail, xattrs])


def main():
    root = os.fsencode(sys.argv[1])
    lines = [line(root, b"")]
    for folder, folders, files in os.walk(root):
        lines += [line(root, os.path.join(folder, name)[len(root):]) for name in folders + files]
    # As bytes, like the other side: all but ASCII is escaped.
    print("\n".join(sorted(lines)))


main()
