#!/usr/bin/env python3
"""Makes the small images with which CI checks predictions: what the simulator reads of each case, and nothing else.

    LAB=/folder slim.py [--guestmend target/release/guestmend] [--only GUEST-REGEX]

A guest's initramfs is replaced by an equivalent one whose programs and modules are all but empty (names, modes and links
stay, and so do configuration, scripts and the modules.* indexes); the fault is applied to that; the simulator runs on
the case's hardware with GUESTMEND_TRACE_READS; and of all clusters only those that it read are kept. Out come, in
test-images/lab, one image a guest and per fault an overlay of the clusters that differ: GUEST.N.qcow2.zst and
GUEST.FAULT.N.qcow2.zst, N the number of the disk. `predict.py --slim FOLDER` unpacks and judges them.
"""
import argparse, os, re, shutil, stat, subprocess, sys, tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import boot, cases, faults, predict, run
from boot import LAB
from disk import Disk, shell

OUT = os.path.dirname(os.path.dirname(run.HERE)) + "/test-images/lab"
CLUSTER = 4096
# More than that is a search of the whole disk for lost file systems; in the slim image it finds what is left there. A check of an ext4 reads its
# inodes and directories, some ten thousand.
MANY = 40000
# These make a new initramfs out of the guest's programs: it is slimmed afterwards.
REBUILD = {"dracut-no-virtio", "dracut-no-lvm", "lvm-filter", "initramfs-tools-no-virtio", "root-md0-conf", "lvm-devices-listed", "lvm-devices-other", "lvm-devices-number",
           "blacklist-in-image", "install-in-image", "lvm-volume-list", "lvm-auto-list"}
PACKERS = {b"\x28\xb5\x2f\xfd": ("zstd -q -dc", "zstd -q -19 -c"), b"\x1f\x8b": ("gzip -dc", "gzip -9nc"), b"\xfd7zXZ": ("xz -dc", "xz --check=crc32 -c")}


def pipe(line, data):
    done = subprocess.run(line, shell=True, input=data, capture_output=True)
    if done.returncode:
        raise RuntimeError(line + ": " + done.stderr.decode())
    return done.stdout


def is_program(name, data):
    return data[:4] == b"\x7fELF" or re.search(r"\.ko(\.\w+)?$", name) or len(data) > 1 << 20


def slim_cpio(archive):
    """One newc archive with its programs emptied."""
    out, at = [], 0
    while True:
        header = archive[at:at + 110]
        if header[:6] != b"070701":
            raise ValueError("not a newc header at %d" % at)
        field = lambda i: int(header[6 + 8 * i:14 + 8 * i], 16)
        size, name_size = field(6), field(11)
        name = archive[at + 110:at + 110 + name_size - 1].decode()
        start = at + (110 + name_size + 3) // 4 * 4
        data = archive[start:start + size]
        if stat.S_ISREG(field(1)) and is_program(name, data):
            data = data[:4]  # a file without content is one that a cut archive never filled
        header = header[:54] + b"%08X" % len(data) + header[62:]
        entry = header + archive[at + 110:at + 110 + name_size]
        entry += bytes(-len(entry) % 4) + data
        out.append(entry + bytes(-len(entry) % 4))
        at = (start + size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return b"".join(out), at


def slim_initramfs(image):
    """All segments: plain ones as they are, the compressed one unpacked and packed again with the same program."""
    at, out = 0, b""
    while image[at:at + 6] == b"070701":
        small, length = slim_cpio(image[at:])
        out += small + bytes(-len(small) % 512)
        at += length
        while at < len(image) and image[at] == 0:
            at += 1
    for magic, (unpack, pack) in PACKERS.items():
        if image[at:].startswith(magic):
            return out + pipe(pack, slim_cpio(pipe(unpack, image[at:]))[0])
    if at < len(image):
        raise ValueError("unknown compression: %r" % image[at:at + 6])
    return out


def slim_boot(paths, guest):
    """Slims the initramfs in images of a guest; both halves of a mirror get the same blocks."""
    opened = [Disk(path).__enter__() for path in paths]
    try:
        machine = faults.Machine(guest, opened)
        with machine.boot() as folder:
            with open(folder + "/" + machine.initrd, "r+b") as file:
                small = slim_initramfs(file.read())
                file.seek(0)
                file.write(small)
                file.truncate()
        for other in opened[1:] if guest == "g5md" else []:
            offset, length = machine.root_part
            shell("dd if=%s of=%s bs=1M skip=%d seek=%d count=%d iflag=skip_bytes,count_bytes oflag=seek_bytes conv=notrunc,sparse status=none"
                  % (opened[0].raw, other.raw, offset, offset, length))
    finally:
        for disk in opened:
            disk.__exit__()


def prepared(guest, fault):
    """The full images with slimmed initramfs, and with the fault where there is one; made once."""
    folder = LAB + "/slim"
    os.makedirs(folder, exist_ok=True)
    names = faults.DISKS.get(guest, [guest])
    bases = ["%s/%s.%d.qcow2" % (folder, guest, i) for i in range(len(names))]
    if not all(map(os.path.exists, bases)):
        for name, path in zip(names, bases):
            boot.overlay("%s/images/%s.qcow2" % (LAB, name), path + ".new")
        slim_boot([path + ".new" for path in bases], guest)
        for path in bases:
            os.rename(path + ".new", path)
    if not fault:
        return bases
    made = ["%s/%s.%s.%d.qcow2" % (folder, guest, fault, i) for i in range(len(names))]
    if not all(map(os.path.exists, made)):
        faults.make(guest, fault, bases, made)
        if fault in REBUILD:
            slim_boot(made, guest)
    return made


# Kept whole in every guest's own image, so that a simulator that asks for a little more finds it.
KEPT = ["/etc/systemd", "/etc/lvm", "/etc/selinux", "/etc/default", "/etc/initramfs-tools", "/etc/dracut.conf.d", "/etc/mdadm", "/etc/modprobe.d", "/etc/udev",
        "/etc/cryptsetup-initramfs", "/usr/lib/systemd/system", "/usr/lib/modprobe.d", "/usr/lib/dracut/dracut.conf.d"]


def clusters_kept(guestmend, disks):
    """{disk: set of clusters} of the folders of KEPT."""
    def read():
        common = ["--allow-path", LAB]
        with tempfile.TemporaryDirectory(dir=LAB + "/tmp") as folder:
            for i, path in enumerate(KEPT):
                further = [word for disk in disks[1:] for word in ("--disk", disk)]
                subprocess.run([guestmend, "cp-out", *common, *further, disks[0], path, "%s/%d" % (folder, i)], capture_output=True)
    return traced(disks, read)


def clusters_read(guestmend, case, disks):
    """{disk: set of clusters} that the simulator reads on the hardware of a case."""
    return traced(disks, lambda: predict.simulate(guestmend, case, disks))


def traced(disks, action):
    with tempfile.NamedTemporaryFile("r") as trace:
        os.environ["GUESTMEND_TRACE_READS"] = trace.name
        action()
        del os.environ["GUESTMEND_TRACE_READS"]
        read = {disk: set() for disk in disks}
        for line in trace:
            disk, offset, length = line.rsplit(" ", 2)
            offset, length = int(offset), int(length)
            read[disk].update(range(offset // CLUSTER, (offset + max(length, 1) - 1) // CLUSTER + 1))
        return read


def contents(path, numbers):
    """The named clusters of an image."""
    with Disk(path) as disk, open(disk.raw, "rb") as file:
        found = {}
        for number in sorted(numbers):
            file.seek(number * CLUSTER)
            found[number] = file.read(CLUSTER)
        return found, disk.size


def pack(path, name):
    shell("zstd -q -19 -f -o %s/%s.zst %s" % (OUT, name, path))
    return os.path.getsize("%s/%s.zst" % (OUT, name))


def write(path, clusters):
    with Disk(path) as disk, open(disk.raw, "r+b") as file:
        for number, data in clusters.items():
            file.seek(number * CLUSTER)
            file.write(data)


def make(guestmend, guest):
    group = [case for case in cases.CASES if case["guest"] == guest]
    bases = prepared(guest, None)
    wanted = clusters_kept(guestmend, bases)  # of the guest's own disks
    of_fault = {}                             # fault → {image: clusters}
    for case in group:
        try:
            disks = prepared(guest, case["fault"])
        except Exception as error:
            print("%-28s left out: %s" % (case["id"], error))
            continue
        chosen = [disks[i] for i in case["disks"]] if case["disks"] else disks
        for path, numbers in clusters_read(guestmend, case, chosen).items():
            if case["fault"] and len(numbers) > MANY:
                numbers = {number for number in numbers if number < 256}
            wanted[bases[disks.index(path)]] |= numbers
            if case["fault"]:
                of_fault.setdefault(case["fault"], {disk: set() for disk in disks})[path] |= numbers
    total, base_data = 0, {}
    with tempfile.TemporaryDirectory(dir=LAB + "/tmp") as folder:
        for i, path in enumerate(bases):
            base_data[path], size = contents(path, wanted[path])
            name = "%s.%d.qcow2" % (guest, i)
            shell("qemu-img create -q -f qcow2 -o cluster_size=%d %s/%s %d" % (CLUSTER, folder, name, size))
            write(folder + "/" + name, {n: data for n, data in base_data[path].items() if data.strip(b"\0")})
            total += pack(folder + "/" + name, name)
            print("%-40s %6d clusters %8d bytes" % (name, len(wanted[path]), total), flush=True)
        for fault, disks in of_fault.items():
            for i, (path, numbers) in enumerate(disks.items()):
                data, size = contents(path, numbers | wanted[bases[i]])
                changed = {n: bytes_ for n, bytes_ in data.items() if bytes_ != base_data[bases[i]][n]}
                name = "%s.%s.%d.qcow2" % (guest, fault, i)
                shell("qemu-img create -q -f qcow2 -o cluster_size=%d -F qcow2 -b %s.%d.qcow2 %s/%s %d" % (CLUSTER, guest, i, folder, name, size))
                write(folder + "/" + name, changed)
                packed = pack(folder + "/" + name, name)
                total += packed
                print("%-40s %6d clusters %8d bytes" % (name, len(changed), packed), flush=True)
    print("%s: %d bytes" % (guest, total), flush=True)


def images(case, folder):
    """Unpacks the images of a case; None where it has none."""
    names = faults.DISKS.get(case["guest"], [case["guest"]])
    paths = []
    os.makedirs(folder, exist_ok=True)
    for i in range(len(names)):
        wanted = ["%s.%d.qcow2" % (case["guest"], i)] + (["%s.%s.%d.qcow2" % (case["guest"], case["fault"], i)] if case["fault"] else [])
        for name in wanted:
            if not os.path.exists("%s/%s.zst" % (OUT, name)):
                return None
            if not os.path.exists(folder + "/" + name):
                shell("zstd -q -d -f -o %s/%s %s/%s.zst" % (folder, name, OUT, name))
        paths.append(folder + "/" + wanted[-1])
    return [paths[i] for i in case["disks"]] if case["disks"] else paths


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guestmend", default=predict.ROOT + "/target/release/guestmend")
    parser.add_argument("--only", default="")
    a = parser.parse_args()
    os.makedirs(OUT, exist_ok=True)
    for guest in sorted({case["guest"] for case in cases.CASES}):
        if re.search(a.only, guest):
            make(a.guestmend, guest)
    return 0


if __name__ == "__main__":
    sys.exit(main())
