"""Opens the guests' qcow2 images for breaking: a raw view, its partitions as loop devices, its files mounted.

The raw view is a FUSE export of qemu-storage-daemon: no nbd, no appliance, a third of a second. The kernel here has
no device-mapper and no md, so logical volumes and array members are found by their offsets.
"""
import contextlib, json, os, re, subprocess, tempfile, time

from boot import LAB, image_format, overlay


def shell(line):
    done = subprocess.run(line, shell=True, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError("%s: %s %s" % (line, done.stdout[-300:], done.stderr[-600:]))
    return done.stdout


class Disk:
    """`with Disk(qcow2) as disk`: bytes by `read`/`write`, parts by `loop`, files by `mount`."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        os.makedirs(LAB + "/tmp", exist_ok=True)
        descriptor, self.raw = tempfile.mkstemp(prefix="raw.", dir=LAB + "/tmp")
        os.close(descriptor)
        self.daemon = subprocess.Popen(["qemu-storage-daemon", "--blockdev", "driver=file,filename=%s,node-name=file" % self.path,
                                        "--blockdev", "driver=%s,file=file,node-name=disk" % image_format(self.path),
                                        "--export", "type=fuse,id=export,node-name=disk,mountpoint=%s,writable=on" % self.raw], stderr=subprocess.PIPE)
        while os.stat(self.raw).st_size == 0:
            if self.daemon.poll() is not None:
                raise RuntimeError(self.daemon.stderr.read().decode())
            time.sleep(0.1)
        return self

    def __exit__(self, *_):
        subprocess.run(["sync", "-f", self.raw])
        self.daemon.terminate()
        self.daemon.wait()
        os.unlink(self.raw)

    @property
    def size(self):
        return os.stat(self.raw).st_size

    def read(self, offset, length):
        with open(self.raw, "rb") as file:
            file.seek(offset)
            return file.read(length)

    def write(self, offset, data):
        with open(self.raw, "r+b") as file:
            file.seek(offset)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def zero(self, offset, length):
        self.write(offset, bytes(length))

    @contextlib.contextmanager
    def loop(self, part):
        device = shell("losetup -f --show -o %d --sizelimit %d %s" % (*part, self.raw)).strip()
        try:
            yield device
        finally:
            subprocess.run(["sync", "-f", self.raw])
            shell("losetup -d " + device)

    @contextlib.contextmanager
    def mount(self, part, options=""):
        with self.loop(part) as device:
            folder = tempfile.mkdtemp(prefix="mount.", dir=LAB + "/tmp")
            shell("mount %s %s %s" % ("-o " + options if options else "", device, folder))
            try:
                yield folder
            finally:
                shell("umount -R " + folder)
                os.rmdir(folder)

    def partitions(self):
        table = json.loads(shell("sfdisk -J " + self.raw))["partitiontable"]["partitions"]
        return [(entry["start"] * 512, entry["size"] * 512) for entry in table]

    def logical_volume(self, physical, group, name):
        """(offset, length) of a linear LV, from the text of the newest metadata."""
        text = self.read(physical[0] + 4096, 1 << 20).decode("latin1")
        text = text[text.rindex(group + " {"):]
        number = lambda key, where: int(re.search(key + r" = (\d+)", where).group(1))
        volume = text[text.index("\n%s {" % name):]
        start = int(re.search(r'"pv0", (\d+)', volume).group(1))
        extent = number("extent_size", text)
        return physical[0] + (number("pe_start", text) + start * extent) * 512, number("extent_count", volume) * extent * 512


@contextlib.contextmanager
def chroot(folder):
    """What dracut and update-initramfs want to find in a chroot."""
    for line in ("-t proc proc %s/proc", "-t sysfs sysfs %s/sys", "--bind /dev %s/dev", "-t tmpfs tmpfs %s/tmp"):
        shell("mount " + line % folder)
    try:
        yield lambda line: shell("chroot %s %s 2>&1" % (folder, line))
    finally:
        for name in ("proc", "sys", "dev", "tmp"):
            subprocess.run(["umount", "-l", folder + "/" + name])
