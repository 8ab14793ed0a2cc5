#!/usr/bin/env python3
"""Make a tree of files that a file system reader may get wrong, and list a tree.

tree.py make DIR [small]   fills DIR; `small` leaves out what needs more than a few MiB
tree.py list DIR           prints the lines that the `*_tree` examples print, from a mounted file system
"""
import errno
import hashlib
import os
import stat
import sys


def pattern(length, seed):
    """Deterministic bytes in which every block differs from every other."""
    out = bytearray()
    counter = 0
    while len(out) < length:
        out += hashlib.sha256(b"%d/%d" % (seed, counter)).digest() * 16
        counter += 1
    return bytes(out[:length])


def write(path, content):
    with open(path, "wb") as file:
        file.write(content)


def fragment(path, extents, block=4096):
    """Writes `extents` blocks with as many holes between them: at least that many extents."""
    with open(path, "wb") as file:
        for index in range(extents):
            file.seek(index * 2 * block)
            file.write(pattern(block, index))


def make(root, small):
    join = lambda *names: os.path.join(root, *names)
    os.mkdir(join("files"))
    sizes = [0, 1, 60, 511, 512, 1024, 4095, 4096, 4097, 65536, 1000003]
    for size in sizes if small else sizes + [8 << 20, 64 << 20]:
        write(join("files", "size%d" % size), pattern(size, size))
    with open(join("files", "sparse"), "wb") as file:
        for offset in (5, 1 << 20, 10 << 20):
            file.seek(offset)
            file.write(pattern(5000, offset))
        file.truncate(20 << 20)
    with open(join("files", "huge"), "wb") as file:
        file.seek((1 << 42) + 7)
        file.write(b"the end")
    with open(join("files", "unwritten"), "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 300000)
        file.seek(100000)
        file.write(pattern(9999, 9))
    fragment(join("files", "fragmented"), 200 if small else 2000)

    os.mkdir(join("links"))
    for length in (1, 59, 60, 100, 336, 400, 1000, 1023):
        os.symlink(("/0123456789abcdefghijklmnopqrstuv" * 40)[:length], join("links", "to%d" % length))
    os.link(join("files", "size60"), join("links", "hard"))

    os.mkdir(join("nodes"))
    os.mkfifo(join("nodes", "fifo"))
    os.mknod(join("nodes", "char"), stat.S_IFCHR | 0o620, os.makedev(4, 65))
    os.mknod(join("nodes", "block"), stat.S_IFBLK | 0o660, os.makedev(259, 200000))

    os.mkdir(join("attributes"))
    for count, length in ((1, 30), (3, 200), (20, 100), (150, 150), (2, 3000), (3, 30000), (1, 65536)):
        path = join("attributes", "x%d_%d" % (count, length))
        write(path, b"x")
        for index in range(count):
            try:
                os.setxattr(path, "user.name%d" % index, pattern(length, index))
            except OSError as error:  # btrfs takes what fits a leaf
                if error.errno not in (errno.ENOSPC, errno.E2BIG):
                    raise
        os.setxattr(path, "trusted.t", b"trust")
        os.setxattr(path, "security.selinux", b"unconfined_u:object_r:user_home_t:s0\0")
    os.setxattr(join("attributes"), "security.selinux", b"system_u:object_r:etc_t:s0\0")
    os.symlink("target", join("attributes", "link"))
    os.setxattr(join("attributes", "link"), "trusted.on.link", b"", follow_symlinks=False)

    os.mkdir(join("directories"))
    for count in (0, 1, 10, 200, 3000) if small else (0, 1, 10, 200, 3000, 20000):
        path = join("directories", "d%d" % count)
        os.mkdir(path)
        for index in range(count):
            write(os.path.join(path, "entry-%d-%s" % (index, "n" * (index % 50))), b"")
        for index in range(0, count, 7):
            if count >= 200:
                os.unlink(os.path.join(path, "entry-%d-%s" % (index, "n" * (index % 50))))
    write(join("directories", "d10", os.fsdecode(b"\xe4\xf6 \n\\ name")), b"odd")
    deep = join("directories", "deep")
    for level in range(30):
        os.mkdir(deep)
        deep = os.path.join(deep, "level%d" % level)

    os.chown(join("files", "size1"), 1000, 100000)
    os.chmod(join("files", "size60"), 0o4751)
    os.chmod(join("nodes"), 0o1777)
    os.utime(join("files", "size60"), ns=(1, -1))
    os.utime(join("files", "size1"), ns=(0, 1700000000123456789))


def escape(raw):
    """As Rust's `escape_ascii`."""
    special = {9: "\\t", 10: "\\n", 13: "\\r", 34: '\\"', 39: "\\'", 92: "\\\\"}
    return "".join(special.get(b) or (chr(b) if 32 <= b < 127 else "\\x%02x" % b) for b in raw)


def line(shown, path):
    st = os.lstat(path)
    mode = st.st_mode
    letter = stat.filemode(mode)[0]
    content = "-"
    if stat.S_ISREG(mode):
        digest = hashlib.sha256()
        if st.st_size > 1 << 40:
            content = "huge"
        else:
            with open(path, "rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
            content = digest.hexdigest()
    target = escape(os.readlink(path)) if stat.S_ISLNK(mode) else "-"
    # The kernel shows ACLs a second time in another form.
    try:
        names = [n for n in os.listxattr(path, follow_symlinks=False) if not n.startswith("system.")]
    except OSError as error:  # squashfs without any
        if error.errno != errno.ENOTSUP:
            raise
        names = []
    value = lambda name: hashlib.sha256(os.getxattr(path, name, follow_symlinks=False)).hexdigest()[:16]
    xattrs = ["%s=%s" % (escape(os.fsencode(n)), value(n)) for n in sorted(names)]
    device = (os.major(st.st_rdev), os.minor(st.st_rdev))
    size = 0 if stat.S_ISDIR(mode) else st.st_size
    seconds, nanoseconds = divmod(st.st_mtime_ns, 10**9)
    fields = [
        escape(shown), letter, "%04o" % (mode & 0o7777), st.st_nlink, st.st_uid, st.st_gid, size,
        "%d.%09d" % (seconds, nanoseconds), st.st_ino, "%d:%d" % device, content, target, ",".join(xattrs),
    ]
    return "\t".join(map(str, fields))


def list_tree(root):
    todo = [(b".", os.fsencode(root))]
    while todo:
        shown, path = todo.pop()
        print(line(shown, path))
        if stat.S_ISDIR(os.lstat(path).st_mode):
            for name in os.listdir(path):
                todo.append((shown + b"/" + name, os.path.join(path, name)))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2], "small" in sys.argv[3:])
    else:
        list_tree(sys.argv[2])
