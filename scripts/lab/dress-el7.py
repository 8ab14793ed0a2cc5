#!/usr/bin/env python3
"""Makes g6el of g2: the same system dressed as CentOS 7. Called by build.sh.

os-release, /boot/grub2 with a core.img of that prefix, vmlinuz-K and initramfs-K.img, /etc/grub2.cfg, and a BLS
file that this GRUB does not read.
"""
import os, re, sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from boot import LAB, overlay
from disk import Disk, shell
from faults import Machine, VERSION, rewrite

MACHINE = "0123456789abcdef0123456789abcd02"
OS_RELEASE = """NAME="CentOS Linux"
VERSION="7 (Core)"
ID="centos"
ID_LIKE="rhel fedora"
VERSION_ID="7"
PRETTY_NAME="CentOS Linux 7 (Core)"
CPE_NAME="cpe:/o:centos:centos:7"
"""
ENTRY = """title CentOS Linux ({0}) 7 (Core)
version {0}
linux /vmlinuz-{0}
initrd /initramfs-{0}.img
options root=/dev/mapper/centos-root ro rd.lvm.lv=centos/root rd.lvm.lv=centos/swap console=ttyS0,115200
grub_users $grub_users
grub_arg --unrestricted
grub_class kernel
"""
# core.img is made anew: its prefix names the folder. The disk goes by its label, as it need not be sda in there.
INSTALL = """cd /boot/grub2/i386-pc && grub-mkimage -O i386-pc -p '(hd0,msdos1)/grub2' -o core.img biosdisk part_msdos part_gpt xfs &&
/usr/lib/grub/i386-pc/grub-bios-setup -d /boot/grub2/i386-pc $(readlink -f /dev/disk/guestfs/a)"""


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.lexists(path):
        os.unlink(path)
    with open(path, "w") as file:
        file.write(text)


def dress(root):
    write(root + "/usr/lib/os-release", OS_RELEASE)
    for path in ("/etc/os-release", "/etc/debian_version"):
        if os.path.lexists(root + path):
            os.unlink(root + path)
    os.symlink("../usr/lib/os-release", root + "/etc/os-release")
    write(root + "/etc/centos-release", "CentOS Linux release 7.9.2009 (Core)\n")
    for link in ("redhat-release", "system-release"):
        os.symlink("centos-release", root + "/etc/" + link)
    os.makedirs(root + "/etc/sysconfig", exist_ok=True)
    os.symlink("../default/grub", root + "/etc/sysconfig/grub")
    os.symlink("../boot/grub2/grub.cfg", root + "/etc/grub2.cfg")
    write(root + "/etc/hostname", "g6el\n")
    os.rename(root + "/boot/grub", root + "/boot/grub2")
    os.rename("%s/boot/initrd.img-%s" % (root, VERSION), "%s/boot/initramfs-%s.img" % (root, VERSION))
    rewrite(root + "/boot/grub2/grub.cfg", lambda text: text.replace("initrd.img-" + VERSION, "initramfs-%s.img" % VERSION)
            .replace("/grub/", "/grub2/").replace("Debian GNU/Linux, with Linux", "CentOS Linux, with Linux"))
    write("%s/boot/loader/entries/%s-%s.conf" % (root, MACHINE, VERSION), ENTRY.format(VERSION))
    for name in ("mkconfig", "install", "editenv", "probe"):
        for folder in ("sbin", "bin"):
            if os.path.exists("%s/usr/%s/grub-%s" % (root, folder, name)):
                os.symlink("grub-" + name, "%s/usr/%s/grub2-%s" % (root, folder, name))


def main():
    made = overlay(LAB + "/images/g2.qcow2", LAB + "/work/g6el.qcow2")
    with Disk(made) as disk:
        with Machine("g2", [disk]).whole() as root:
            dress(root)
    shell("guestfish add-drive %s format:qcow2 label:a : run : mount /dev/centos/root / : mount /dev/sda1 /boot : sh \"%s\"" % (made, INSTALL.replace("$", "\\$")))
    shell("qemu-img convert -O qcow2 %s %s/images/g6el.qcow2" % (made, LAB))
    os.unlink(made)


if __name__ == "__main__":
    main()
