#!/usr/bin/env python3
"""Makes g1usr of g1 and g2usr of g2: the same systems with /usr on a partition of its own. Called by build.sh.

The disk grows by a partition behind the others: ext4 on g1usr, XFS on g2usr. Whatever the initramfs is, it has to mount
/usr before it can hand over: /sbin/init lies there.
"""
import os, subprocess, sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from boot import LAB, overlay
from disk import Disk, shell
from faults import Machine

MAKE = {"g1": "mkfs.ext4 -q -U 11111111-aaaa-4bbb-8ccc-0000000000a1 -L usr", "g2": "mkfs.xfs -q -f -m uuid=22222222-aaaa-4bbb-8ccc-0000000000a2 -L usr"}
LINE = {"g1": "UUID=11111111-aaaa-4bbb-8ccc-0000000000a1 /usr ext4 defaults 0 2\n", "g2": "UUID=22222222-aaaa-4bbb-8ccc-0000000000a2 /usr xfs defaults 0 2\n"}


def main():
    guest = sys.argv[1]
    made = overlay("%s/images/%s.qcow2" % (LAB, guest), "%s/work/%susr.qcow2" % (LAB, guest))
    shell("qemu-img resize -q %s +1G" % made)
    with Disk(made) as disk:
        subprocess.run(["sfdisk", "-q", "--append", disk.raw], input=b"type=83\n", check=True)
        machine = Machine(guest, [disk])
        part = disk.partitions()[-1]
        with disk.loop(part) as device:
            shell("%s %s" % (MAKE[guest], device))
        machine.root_part = machine.root_part if guest == "g2" else disk.partitions()[0]
        with machine.root() as root, disk.mount(part) as usr:
            shell("cp -a %s/usr/. %s/ && rm -rf %s/usr && mkdir %s/usr" % (root, usr, root, root))
            with open(root + "/etc/fstab", "a") as fstab:
                fstab.write(LINE[guest])
            with open(root + "/etc/hostname", "w") as name:
                name.write(guest + "usr\n")
    shell("qemu-img convert -O qcow2 %s %s/images/%susr.qcow2" % (made, LAB, guest))
    os.unlink(made)


if __name__ == "__main__":
    main()
