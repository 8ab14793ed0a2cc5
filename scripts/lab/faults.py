"""The breakages: each a function that breaks one machine's disks. `images(case)` makes what a case boots.

Where a fault of the founding lab is repeated, its number (b1 … b23) is in the comment.
"""
import contextlib, fcntl, os, re, shutil, struct, subprocess, sys, tempfile

from boot import LAB, overlay
from disk import Disk, chroot, shell

FAULTS = {}
VERSION = "6.1.0-56-cloud-amd64"
GONE = "deadbeef-0000-4000-8000-000000000000"
# Two overlays of one XFS guest have one UUID, and both may be mounted here at a time.
OPTIONS = {"g2": "nouuid", "g2usr": "nouuid", "g9data": "nouuid", "g6el": "nouuid", "g4": "subvol=@,compress=zstd"}
DISKS = {"g5md": ["g5md-a", "g5md-b"], "g8data": ["g8data-a", "g8data-b"], "g9data": ["g9data-a", "g9data-b"]}
# Those with a volume group of this layout.
LVM = ("g2", "g2usr", "g6el", "g9data")
ROOT_UUID = "11111111-aaaa-4bbb-8ccc-000000000001"


def fault(function):
    FAULTS[function.__name__.replace("_", "-")] = function
    return function


class Machine:
    """The disks of one guest and where its file systems are."""

    def __init__(self, guest, disks):
        self.guest, self.disks, self.disk = guest, disks, disks[0]
        parts = self.parts = self.disk.partitions()
        if guest in LVM:
            self.root_part, self.boot_part = self.disk.logical_volume(parts[1], "centos", "root"), parts[0]
        elif guest == "g5luks":
            self.root_part, self.boot_part = None, parts[0]
        elif guest == "g5md":
            data = struct.unpack("<Q", self.disk.read(parts[0][0] + 4096 + 128, 8))[0] * 512
            size = struct.unpack("<Q", self.disk.read(parts[0][0] + 4096 + 80, 8))[0] * 512
            self.root_part, self.boot_part = (parts[0][0] + data, size), None
        elif guest in ("g1usr", "g7"):
            self.root_part, self.boot_part = parts[-2 if guest == "g1usr" else 1], None
        else:
            self.root_part, self.boot_part = parts[-1], None
        # /usr, or what is /home by its type alone.
        self.usr_part = parts[-1] if guest.endswith("usr") else None
        self.home_part = parts[2] if guest == "g7" else None
        self.initrd = "initramfs-%s.img" % VERSION if guest == "g6el" else "initrd.img-" + VERSION
        self.kernel = "vmlinuz-" + VERSION

    @contextlib.contextmanager
    def root(self):
        with self.disk.mount(self.root_part, OPTIONS.get(self.guest, "")) as folder:
            yield folder

    @contextlib.contextmanager
    def boot(self):
        """The folder that the running guest calls /boot."""
        with self.disk.mount(self.boot_part or self.root_part, OPTIONS.get(self.guest, "")) as folder:
            yield folder if self.boot_part else folder + "/boot"

    @contextlib.contextmanager
    def whole(self):
        """The root with /boot mounted in it."""
        with self.root() as folder:
            if not self.boot_part:
                yield folder
                return
            with self.disk.loop(self.boot_part) as device:
                shell("mount %s %s %s/boot" % ("-o nouuid" if self.guest in LVM else "", device, folder))
                try:
                    yield folder
                finally:
                    shell("umount %s/boot" % folder)

    def edit(self, path, change):
        """Rewrites a file of the root; a change that changes nothing is a mistake of ours."""
        with self.root() as folder:
            rewrite(folder + path, change)

    def append(self, path, text):
        self.edit(path, lambda old: old + text)

    def grub_cfg(self, change):
        with self.boot() as folder:
            rewrite(folder + ("/grub2" if self.guest == "g6el" else "/grub") + "/grub.cfg", change)

    def command_line(self, change):
        """Changes the kernel's command line in every menu entry."""
        self.grub_cfg(lambda text: re.sub(r"(?m)^(\tlinux\t\S+ )(.*)$", lambda line: line[1] + change(line[2]), text))

    def mtools(self, name, *arguments):
        shell("MTOOLS_SKIP_CHECK=1 %s -i %s@@%d %s" % (name, self.disk.raw, self.parts[0][0], " ".join(arguments)))


def rewrite(path, change):
    with open(path) as file:
        old = file.read()
    new = change(old)
    assert new != old, "nothing to change in " + path
    with open(path, "w") as file:
        file.write(new)


def images(case):
    """The images that a case boots: the guest's own, or overlays with the fault in them, made once."""
    sources = ["%s/images/%s.qcow2" % (LAB, name) for name in DISKS.get(case["guest"], [case["guest"]])]
    made = sources
    if case["fault"]:
        os.makedirs(LAB + "/cases", exist_ok=True)
        with open("%s/cases/%s.%s.lock" % (LAB, case["guest"], case["fault"]), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            made = ["%s/cases/%s.%s.%d.qcow2" % (LAB, case["guest"], case["fault"], i) for i in range(len(sources))]
            if not all(map(os.path.exists, made)):
                make(case["guest"], case["fault"], sources, made)
    return [made[i] for i in case["disks"]] if case["disks"] else made


def make(guest, name, sources, made):
    for source, path in zip(sources, made):
        overlay(source, path + ".new")
    after = None
    with contextlib.ExitStack() as stack:
        machine = Machine(guest, [stack.enter_context(Disk(path + ".new")) for path in made])
        after = FAULTS[name](machine)
    if after:
        after(sources[0], made[0] + ".new")
    for path in made:
        os.rename(path + ".new", path)


# fstab and crypttab

def fstab(line):
    return lambda machine: machine.append("/etc/fstab", line + "\n")


for name, line in {
    "fstab-data-gone": "UUID=%s /data ext4 defaults 0 2" % GONE,  # b17
    "fstab-data-nofail": "UUID=%s /data ext4 defaults,nofail 0 2" % GONE,
    "fstab-data-noauto": "UUID=%s /data ext4 noauto 0 2" % GONE,
    "fstab-data-netdev": "UUID=%s /data ext4 defaults,_netdev 0 0" % GONE,
    "fstab-data-automount": "UUID=%s /data ext4 noauto,x-systemd.automount 0 0" % GONE,
    "fstab-data-forever": "UUID=%s /data ext4 defaults,x-systemd.device-timeout=0 0 0" % GONE,
    "fstab-data-short": "UUID=%s /data ext4 defaults,x-systemd.device-timeout=5 0 0" % GONE,
    "fstab-type-unknown": "LABEL=root /data ext9 defaults 0 0",  # b3type
    "fstab-garbage": "UUID=%s /data\n/dev/vdb1\n<<<<<<< HEAD" % GONE,  # b3field
    "fstab-nofail-overruled": "UUID=%s /data ext4 nofail,fail 0 0" % GONE,
    "fstab-swap-gone": "UUID=%s none swap sw 0 0" % GONE,
    "fstab-tmpfs-option": "tmpfs /data tmpfs bogus=1 0 0",
    "fstab-tmpfs-fine": "tmpfs /data tmpfs size=10m 0 0",
    "fstab-bind-gone": "/srv/nowhere /data none bind 0 0",
    "fstab-bind-file": "/etc/hostname/nowhere /data none bind 0 0",
    "fstab-nfs": "server.invalid:/export /data nfs defaults 0 0",
    "fstab-no-path": "UUID=%s none ext4 defaults 0 0" % GONE,
    "fstab-vdb1": "/dev/vdb1 /data ext4 defaults 0 2",
}.items():
    FAULTS[name] = fstab(line)


@fault
def fstab_crlf(m):
    m.edit("/etc/fstab", lambda text: text.replace("\n", "\r\n"))


@fault
def fstab_empty(m):
    m.edit("/etc/fstab", lambda text: "")


@fault
def fstab_root_uuid(m):
    m.edit("/etc/fstab", lambda text: re.sub(r"^UUID=\S+", "UUID=" + GONE, text))


@fault
def fstab_root_bare(m):
    m.edit("/etc/fstab", lambda text: re.sub(r"^UUID=\S+", "/dev/vdz1", text))


@fault
def fstab_esp_typo(m):  # b2
    m.edit("/etc/fstab", lambda text: text.replace("3333-EEEE", "3333-EEEF"))


@fault
def fstab_esp_case(m):
    m.edit("/etc/fstab", lambda text: text.replace("3333-EEEE", "3333-eeee"))


@fault
def fstab_esp_option(m):
    m.edit("/etc/fstab", lambda text: text.replace("umask=0077", "umask=0077,bogus=1"))


@fault
def fstab_boot_type(m):
    m.edit("/etc/fstab", lambda text: text.replace("/boot xfs", "/boot ext4"))


@fault
def fstab_boot_uuid(m):  # b1, repaired
    m.edit("/etc/fstab", lambda text: text.replace("/dev/vda1", "UUID=22222222-aaaa-4bbb-8ccc-0000000000b2"))


@fault
def fstab_home_subvol(m):
    m.edit("/etc/fstab", lambda text: text.replace("subvol=@home", "subvol=@house"))


@fault
def crypttab_gone(m):  # b23
    m.append("/etc/crypttab", "data UUID=%s none luks\n" % GONE)
    m.append("/etc/fstab", "/dev/mapper/data /data ext4 defaults 0 2\n")


@fault
def crypttab_gone_nofail(m):
    m.append("/etc/crypttab", "data UUID=%s none luks,nofail\n" % GONE)
    m.append("/etc/fstab", "/dev/mapper/data /data ext4 defaults,nofail 0 2\n")


@fault
def crypttab_only(m):
    m.append("/etc/crypttab", "data UUID=%s none luks\n" % GONE)


# GRUB's configuration

def command_line(change):
    return lambda machine: machine.command_line(change)


ROOT = r"root=\S+"
for name, change in {
    "root-uuid-wrong": lambda line: re.sub(ROOT, "root=UUID=99999999-aaaa-4bbb-8ccc-000000000009", line),  # b5
    "root-partuuid-wrong": lambda line: re.sub(ROOT, "root=PARTUUID=99999999-01", line),
    "root-label": lambda line: re.sub(ROOT, "root=LABEL=root", line),
    "root-vda1": lambda line: re.sub(ROOT, "root=/dev/vda1", line),
    "root-lv-wrong": lambda line: line.replace("centos-root ", "centos-roott ").replace("centos/root ", "centos/roott "),  # b5lvm
    "root-missing": lambda line: re.sub(ROOT + " ", "", line),
    "swap-lv-gone": lambda line: line.replace("rd.lvm.lv=centos/swap", "rd.lvm.lv=centos/swap_old"),
    "rd-lvm-off": lambda line: line + " rd.lvm=0",
    "no-rd-lvm": lambda line: re.sub(r"rd.lvm.lv=\S+ ", "", line),
    "rootfstype-wrong": lambda line: line + " rootfstype=ext4" if "centos" in line else line + " rootfstype=xfs",
    "rootflags-bogus": lambda line: line + " rootflags=bogus=1",
    "subvol-wrong": lambda line: line.replace("subvol=@", "subvol=@root"),
    "subvol-missing": lambda line: line.replace("rootflags=subvol=@ ", ""),
    "resume-gone": lambda line: line + " resume=UUID=" + GONE,
    "rescue-target": lambda line: line + " systemd.unit=rescue.target",
    "emergency-target": lambda line: line + " systemd.unit=emergency.target",
    "target-missing": lambda line: line + " systemd.unit=nothing.target",
    "init-wrong": lambda line: line + " init=/sbin/nothing",
    "init-shell": lambda line: line + " init=/bin/sh",
    "fstab-off": lambda line: line + " fstab=no",
    "rd-break": lambda line: line + " rd.break",
    "rd-luks-gone": lambda line: line + " rd.luks.uuid=" + GONE,
    "rd-md-gone": lambda line: line + " rd.md.uuid=deadbeef:00000000:00000000:deadbeef",
}.items():
    FAULTS[name] = command_line(change)


@fault
def root_sda1(m):  # b15
    m.command_line(lambda line: re.sub(ROOT, "root=/dev/sda1", line))
    m.edit("/etc/fstab", lambda text: re.sub(r"^UUID=\S+", "/dev/sda1", text))


@fault
def grub_cfg_gone(m):  # b4
    with m.boot() as folder:
        os.unlink(folder + "/grub/grub.cfg")


@fault
def grub_cfg_empty(m):
    m.grub_cfg(lambda text: "")


@fault
def grub_cfg_cut(m):
    """Ends in the middle of the first entry, as after a full disk."""
    m.grub_cfg(lambda text: text[:text.index("\tlinux\t")])


@fault
def grub_search_stale(m):
    m.grub_cfg(lambda text: re.sub(r"(search .*)" + ROOT_UUID, r"\g<1>" + GONE, text))


@fault
def grub_search_and_hint_stale(m):
    m.grub_cfg(lambda text: re.sub(r"(search .*)" + ROOT_UUID, r"\g<1>" + GONE, text).replace("set root='hd0,msdos1'", "set root='hd0,msdos5'"))


@fault
def grub_hint_stale(m):
    m.grub_cfg(lambda text: text.replace("hd0,msdos1", "hd3,msdos5"))


@fault
def grub_kernel_path(m):  # b19entry
    m.grub_cfg(lambda text: re.sub(r"(vmlinuz|initrd\.img)-6\.1\.0-56", r"\1-6.1.0-99", text))


@fault
def grub_initrd_path(m):
    m.grub_cfg(lambda text: text.replace("initrd.img-6.1.0-56", "initrd.img-6.1.0-99"))


@fault
def grub_no_initrd_line(m):
    m.grub_cfg(lambda text: re.sub(r"(?m)^\tinitrd\t.*\n", "", text))


@fault
def grub_default_gone(m):
    m.grub_cfg(lambda text: re.sub(r'set default="\$\{saved_entry\}"', 'set default="9"', text))


@fault
def grubenv_entry_gone(m):  # b19
    with m.boot() as folder:
        shell("grub-editenv %s/grub/grubenv set saved_entry=gnulinux-5.10.0-99-amd64-advanced" % folder)


@fault
def grubenv_garbage(m):
    with m.boot() as folder, open(folder + "/grub/grubenv", "r+b") as file:
        file.write(b"\xff" * 1024)


@fault
def grub_modules_gone(m):  # b4mod
    with m.boot() as folder:
        shutil.rmtree(folder + "/grub/i386-pc")


@fault
def grub_module_gone(m):
    """The one file system module is in core.img; a module that grub.cfg only asks for is not needed."""
    with m.boot() as folder:
        os.unlink(folder + "/grub/i386-pc/gzio.mod")


@fault
def grub_linux_module_gone(m):
    with m.boot() as folder:
        os.unlink(folder + "/grub/i386-pc/linux.mod")


# Boot code and partition tables

@fault
def mbr_code_zero(m):  # b6
    m.disk.zero(0, 440)


@fault
def mbr_code_and_signature_zero(m):  # b6sig
    m.disk.zero(0, 440)
    m.disk.zero(510, 2)


@fault
def mbr_signature_zero(m):
    m.disk.zero(510, 2)


@fault
def mbr_table_zero(m):  # b9mbr
    m.disk.zero(446, 64)


@fault
def core_zero(m):  # b7
    m.disk.zero(512, 2047 * 512)


@fault
def core_tail_zero(m):
    """The first 16 sectors stay: the loader starts and finds rubbish behind."""
    m.disk.zero(17 * 512, 2030 * 512)


@fault
def boot_img_elsewhere(m):
    m.disk.write(0x5c, struct.pack("<Q", 9000))


@fault
def core_prefix_wrong(m):
    with tempfile.TemporaryDirectory() as folder:
        shell("grub-mkimage -O i386-pc -d %s/work/base-deb/usr/lib/grub/i386-pc -p '(,msdos3)/boot/grub' -o %s/core biosdisk part_msdos ext2" % (LAB, folder))
        core = bytearray(open(folder + "/core", "rb").read())
    core += bytes(-len(core) % 512)
    # The block list of diskboot.img: the rest of the image lies from sector 2 on.
    core[0x1f4:0x200] = struct.pack("<QHH", 2, len(core) // 512 - 1, 0x820)
    m.disk.write(512, bytes(core))


@fault
def gpt_primary_zero(m):  # b8, b8uefi
    m.disk.zero(512, 512)


@fault
def gpt_both_zero(m):
    m.disk.zero(512, 512)
    m.disk.zero(m.disk.size - 512, 512)


@fault
def gpt_backup_zero(m):
    m.disk.zero(m.disk.size - 512, 512)


@fault
def gpt_crc(m):
    """One bit of the primary's entries: the checksum of the array no longer fits."""
    m.disk.write(1024 + 120, bytes([m.disk.read(1024 + 120, 1)[0] ^ 1]))


@fault
def pmbr_zero(m):
    m.disk.zero(446, 64)


# EFI system partition

@fault
def esp_fallback_gone(m):  # b16
    m.mtools("mdel", "::/EFI/BOOT/BOOTX64.EFI")


@fault
def esp_tree_gone(m):  # b16all
    m.mtools("mdeltree", "::/EFI")


@fault
def esp_debian_gone(m):
    """Only the vendor's folder is gone: the fallback path still boots."""
    m.mtools("mdeltree", "::/EFI/debian")


@fault
def esp_fallback_cut(m):
    with tempfile.TemporaryDirectory() as folder:
        m.mtools("mcopy", "::/EFI/BOOT/BOOTX64.EFI", folder + "/x")
        os.truncate(folder + "/x", os.path.getsize(folder + "/x") // 2)
        m.mtools("mcopy", "-o", folder + "/x", "::/EFI/BOOT/BOOTX64.EFI")


@fault
def esp_boot_sector_zero(m):
    m.disk.zero(m.parts[0][0], 512)


def shim(m, files):
    """Debian's shim, by Microsoft's and Debian's own signatures, as RHEL and Fedora lay it out."""
    folder = LAB + "/shim"
    if not os.path.exists(folder):
        os.makedirs(folder)
        shell("cd %s && apt-get download shim-signed shim-helpers-amd64-signed && for deb in *.deb; do dpkg -x $deb .; done && mv usr/lib/shim/* ." % folder)
    for name, path in files:
        m.mtools("mcopy", "-o", "%s/%s" % (folder, name), "::" + path)


FALLBACK = [("shimx64.efi.signed", "/EFI/BOOT/BOOTX64.EFI"), ("fbx64.efi.signed", "/EFI/BOOT/fbx64.efi"), ("shimx64.efi.signed", "/EFI/debian/shimx64.efi")]


@fault
def esp_shim_fallback(m):
    shim(m, FALLBACK + [("BOOTX64.CSV", "/EFI/debian/BOOTX64.CSV")])


@fault
def esp_shim_no_list(m):
    shim(m, FALLBACK)


@fault
def esp_shim_list_stale(m):
    shim(m, FALLBACK + [("BOOTX64.CSV", "/EFI/debian/BOOTX64.CSV")])
    m.mtools("mdel", "::/EFI/debian/shimx64.efi")


@fault
def esp_shim_only(m):
    """Without a fallback program shim starts the GRUB beside it."""
    m.mtools("mcopy", "::/EFI/debian/grubx64.efi", "::/EFI/BOOT/grubx64.efi")
    shim(m, FALLBACK[:1])


@fault
def esp_shim_alone(m):
    shim(m, FALLBACK[:1])


def selinux(m, kind, *arguments):
    with m.root() as folder:
        os.makedirs(folder + "/etc/selinux", exist_ok=True)
        with open(folder + "/etc/selinux/config", "w") as file:
            file.write("# SELINUX= can take one of three values\nSELINUX=%s\nSELINUXTYPE=targeted\n" % kind)
    m.command_line(lambda line: " ".join([line, "security=selinux", *arguments]))


@fault
def selinux_no_policy(m):
    selinux(m, "enforcing")


@fault
def selinux_not_enforced(m):
    selinux(m, "enforcing", "enforcing=0")


@fault
def selinux_permissive(m):
    selinux(m, "permissive")


@fault
def selinux_off(m):
    selinux(m, "enforcing", "selinux=0")


@fault
def esp_type(m):
    """The partition's type says Linux: firmware does not care."""
    shell("sgdisk -t1:8300 " + m.disk.raw)


# Kernel and initramfs

@fault
def kernel_empty(m):  # b18
    with m.boot() as folder:
        os.truncate(folder + "/" + m.kernel, 0)


@fault
def kernel_half(m):
    with m.boot() as folder:
        os.truncate(folder + "/" + m.kernel, os.path.getsize(folder + "/" + m.kernel) // 2)


@fault
def kernel_gone(m):
    with m.boot() as folder:
        os.unlink(folder + "/" + m.kernel)


@fault
def kernel_text(m):
    """The right length, but not a kernel."""
    with m.boot() as folder, open(folder + "/" + m.kernel, "r+b") as file:
        file.write(b"not a kernel\n" * 4096)


@fault
def initrd_gone(m):  # b13
    with m.boot() as folder:
        os.unlink(folder + "/" + m.initrd)


@fault
def initrd_empty(m):
    with m.boot() as folder:
        os.truncate(folder + "/" + m.initrd, 0)


@fault
def initrd_half(m):
    with m.boot() as folder:
        os.truncate(folder + "/" + m.initrd, os.path.getsize(folder + "/" + m.initrd) // 2)


@fault
def initrd_cut_end(m):
    """The last 4 KiB are missing."""
    with m.boot() as folder:
        os.truncate(folder + "/" + m.initrd, os.path.getsize(folder + "/" + m.initrd) - 4096)


@fault
def initrd_garbage_behind(m):
    with m.boot() as folder, open(folder + "/" + m.initrd, "ab") as file:
        file.write(b"garbage!" * 512)


@fault
def initrd_zeros_behind(m):
    with m.boot() as folder, open(folder + "/" + m.initrd, "ab") as file:
        file.write(bytes(4096))


def dracut(folder):
    with chroot(folder) as run:
        run("dracut -q --force --kver %s /boot/initrd.img-%s" % (VERSION, VERSION))


@fault
def dracut_no_virtio(m):  # b14
    with m.whole() as folder:
        rewrite(folder + "/etc/dracut.conf.d/lab.conf", lambda text: re.sub(
            r"add_drivers.*", 'add_drivers+=" xfs ata_piix dm_mod "\nomit_drivers+=" virtio_blk virtio_scsi virtio_pci "', text))
        dracut(folder)


@fault
def dracut_no_lvm(m):
    with m.whole() as folder:
        rewrite(folder + "/etc/dracut.conf.d/lab.conf", lambda text: text.replace('" lvm dm "', '" dm "').replace(
            'omit_dracutmodules+=" ', 'omit_dracutmodules+=" lvm '))
        dracut(folder)


@fault
def lvm_filter(m):  # b21
    with m.whole() as folder:
        rewrite(folder + "/etc/lvm/lvm.conf", lambda text: text.replace("devices {", 'devices {\n\tfilter = [ "a|^/dev/sda.*|", "r|.*|" ]', 1))
        rewrite(folder + "/etc/dracut.conf.d/lab.conf", lambda text: text + 'lvmconf="yes"\n')
        dracut(folder)


@fault
def lvm_filter_root_only(m):
    """The same filter in the root file system alone: the initramfs has none, the volumes are active already."""
    m.edit("/etc/lvm/lvm.conf", lambda text: text.replace("devices {", 'devices {\n\tfilter = [ "a|^/dev/sda.*|", "r|.*|" ]', 1))


def lvm_devices(m, kind, name, change=lambda pv: pv):
    """LVM's devices file, in use, in the image and on the root file system."""
    # pv_header behind the label in sector 1: the identifier.
    pv = change(m.disk.read(m.parts[1][0] + 512 + 32, 32).decode())
    with m.whole() as folder:
        rewrite(folder + "/etc/lvm/lvm.conf", lambda text: text.replace("devices {", "devices {\n\tuse_devicesfile = 1", 1))
        os.makedirs(folder + "/etc/lvm/devices", exist_ok=True)
        with open(folder + "/etc/lvm/devices/system.devices", "w") as file:
            file.write("VERSION=1.1.1\nIDTYPE=%s IDNAME=%s DEVNAME=/dev/sdx2 PVID=%s PART=2\n" % (kind, name, pv))
        rewrite(folder + "/etc/dracut.conf.d/lab.conf", lambda text: text + 'lvmconf="yes"\ninstall_items+=" /etc/lvm/devices/system.devices "\n')
        dracut(folder)


@fault
def lvm_devices_listed(m):
    lvm_devices(m, "devname", "/dev/sdx2")


@fault
def lvm_devices_other(m):
    lvm_devices(m, "devname", "/dev/sdx2", lambda pv: pv[::-1])


@fault
def lvm_devices_number(m):
    """By a number that the machine's disk does not have: what a copy comes to."""
    lvm_devices(m, "sys_wwid", "naa.600140500000000000000000000abcde")


@fault
def initramfs_tools_no_virtio(m):
    with m.root() as folder:
        with open(folder + "/etc/initramfs-tools/conf.d/modules", "w") as file:
            file.write("MODULES=list\n")
        with open(folder + "/etc/initramfs-tools/modules", "a") as file:
            file.write("ata_piix\nsd_mod\n")
        with chroot(folder) as run:
            run("update-initramfs -u -k " + VERSION)


@fault
def modules_gone(m):
    with m.root() as folder:
        shutil.rmtree(folder + "/usr/lib/modules/" + VERSION)


# LVM, md, LUKS

def mirror(m):
    """Both halves get what was written to the first."""
    offset, length = m.root_part
    shell("dd if=%s of=%s bs=1M skip=%d seek=%d count=%d iflag=skip_bytes,count_bytes oflag=seek_bytes conv=notrunc status=none"
          % (m.disks[0].raw, m.disks[1].raw, offset, offset, length))


@fault
def root_md0(m):
    m.command_line(lambda line: re.sub(r"root=\S+", "root=/dev/md0", line))
    mirror(m)


@fault
def root_md0_conf(m):
    m.command_line(lambda line: re.sub(r"root=\S+", "root=/dev/md0", line))
    with m.root() as folder:
        rewrite(folder + "/etc/mdadm/mdadm.conf", lambda text: re.sub(r"UUID=\S+", "UUID=00000000:00000000:00000000:00000001", text))
        with chroot(folder) as run:
            run("update-initramfs -u -k " + VERSION)
    mirror(m)


@fault
def lvm_mda_zero(m):  # b10
    m.disk.zero(m.parts[1][0] + 4096, 512)


@fault
def lvm_label_zero(m):
    m.disk.zero(m.parts[1][0] + 512, 512)


@fault
def lvm_text_byte(m):
    """One byte of the metadata's text: its checksum no longer fits."""
    area = m.disk.read(m.parts[1][0] + 4096, 1 << 20)
    m.disk.write(m.parts[1][0] + 4096 + area.rindex(b"centos {") + 30, b"#")


@fault
def md_superblock_zero(m):
    m.disks[1].zero(m.parts[0][0] + 4096, 4096)


@fault
def md_superblocks_zero(m):
    for disk in m.disks:
        disk.zero(m.parts[0][0] + 4096, 4096)


@fault
def luks_magic_zero(m):
    m.disk.zero(m.parts[1][0], 8)


@fault
def luks_keyslots_zero(m):
    m.disk.zero(m.parts[1][0] + 4096, 1 << 20)


# File systems

@fault
def ext4_superblock_zero(m):  # b11
    m.disk.zero(m.root_part[0] + 1024, 1024)


@fault
def xfs_root_superblock_zero(m):
    m.disk.zero(m.root_part[0], 512)


@fault
def xfs_boot_superblock_zero(m):
    m.disk.zero(m.boot_part[0], 512)


@fault
def btrfs_superblock_zero(m):
    m.disk.zero(m.root_part[0] + 65536, 4096)


@fault
def ext4_error_flag(m):
    """The kernel's mark of errors found: fsck runs at boot and finds none."""
    with m.disk.loop(m.root_part) as device:
        shell("debugfs -w -R 'ssv state 2' " + device)


@fault
def journal_dirty(m):
    """The disk as it is while the file system is mounted and written to: a crash, or a snapshot of a running guest."""
    frozen = tempfile.mktemp(prefix="frozen.", dir=LAB + "/tmp")
    with m.root() as folder:
        os.makedirs(folder + "/var/tmp/w", exist_ok=True)
        for i in range(200):
            with open("%s/var/tmp/w/%d" % (folder, i), "w") as file:
                file.write("data\n" * 100)
        shell("sync -f " + folder)
        subprocess.run(["sync", "-f", m.disk.raw])
        shell("cp --sparse=always %s %s" % (m.disk.raw, frozen))

    def replace(source, path):
        shell("qemu-img convert -O qcow2 %s %s && qemu-img rebase -b %s -F qcow2 %s" % (frozen, path, source, path))
        os.unlink(frozen)
    return replace


# Userspace

@fault
def init_gone(m):  # b22init
    with m.root() as folder:
        os.unlink(folder + "/usr/sbin/init")


@fault
def systemd_empty(m):  # b22systemd
    with m.root() as folder:
        os.truncate(folder + "/usr/lib/systemd/systemd", 0)


@fault
def loader_gone(m):
    """ld.so: every program of the guest needs it."""
    with m.root() as folder:
        os.unlink(folder + "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")


@fault
def libc_empty(m):
    with m.root() as folder:
        os.truncate(folder + "/usr/lib/x86_64-linux-gnu/libc.so.6", 0)


def default_target(target):
    def change(m):
        with m.root() as folder:
            link = folder + "/etc/systemd/system/default.target"
            os.unlink(link)
            os.symlink(target, link)
    return change


FAULTS["default-rescue"] = default_target("/lib/systemd/system/rescue.target")
FAULTS["default-dangling"] = default_target("/lib/systemd/system/graphical-desktop.target")
FAULTS["default-emergency"] = default_target("/lib/systemd/system/emergency.target")


@fault
def usr_lib_modules_load(m):
    """A module that does not exist: systemd-modules-load fails, nothing waits for it."""
    with m.root() as folder, open(folder + "/etc/modules-load.d/lab.conf", "w") as file:
        file.write("no_such_module\n")


@fault
def machine_id_gone(m):
    with m.root() as folder:
        os.unlink(folder + "/etc/machine-id")


# Units

def unit(folder, name, text, *links):
    """A unit of the administrator's, with links to it such as `multi-user.target.wants`."""
    base = folder + "/etc/systemd/system"
    with open("%s/%s" % (base, name), "w") as file:
        file.write(text)
    for link in links:
        os.makedirs("%s/%s" % (base, link), exist_ok=True)
        os.symlink("/etc/systemd/system/" + name, "%s/%s/%s" % (base, link, name))


def mask(*units):
    def change(m):
        with m.root() as folder:
            for name in units:
                os.symlink("/dev/null", "%s/etc/systemd/system/%s" % (folder, name))
    return change


def with_unit(name, text, *links):
    def change(m):
        with m.root() as folder:
            unit(folder, name, text, *links)
    return change


def all_of(*changes):
    def change(m):
        for each in changes:
            each(m)
    return change


DATA_GONE = "UUID=%s /data ext4 defaults 0 2" % GONE
MOUNT_GONE = "[Unit]\nDescription=data\n[Mount]\nWhat=/dev/disk/by-uuid/%s\nWhere=/data\nType=ext4\n" % GONE
NO_PROGRAM = "[Unit]\nDescription=agent\n%s[Service]\n%sExecStart=/usr/local/bin/no-such-program\n"
for name, change in {
    "mask-basic": mask("basic.target"),
    "mask-data": all_of(fstab(DATA_GONE), mask("data.mount")),
    "mask-local-fs": all_of(fstab(DATA_GONE), mask("local-fs.target")),
    "mask-udevd": mask("systemd-udevd.service", "systemd-udevd-kernel.socket", "systemd-udevd-control.socket"),
    "unit-mount-overrides": all_of(fstab(DATA_GONE), with_unit("data.mount", "[Mount]\nWhat=tmpfs\nWhere=/data\nType=tmpfs\n")),
    "unit-mount-required": with_unit("data.mount", MOUNT_GONE, "local-fs.target.requires"),
    "unit-mount-wanted": with_unit("data.mount", MOUNT_GONE, "multi-user.target.wants"),
    "unit-mount-device-wanted": with_unit("data.mount", MOUNT_GONE.replace("[Mount]", "DefaultDependencies=no\n[Mount]"), "multi-user.target.wants"),
    "service-gone": with_unit("agent.service", NO_PROGRAM % ("", ""), "multi-user.target.wants"),
    "service-gone-sysinit": with_unit("agent.service", NO_PROGRAM % ("DefaultDependencies=no\nBefore=sysinit.target\n", "Type=oneshot\n"), "sysinit.target.requires"),
    "service-gone-required": with_unit("agent.service", NO_PROGRAM % ("Before=multi-user.target\n", "Type=oneshot\n"), "multi-user.target.requires"),
    "service-user-gone": with_unit("agent.service", "[Service]\nUser=nobody-here\nExecStart=/bin/sleep 1000\n", "multi-user.target.wants"),
    "service-empty": with_unit("other.service", "[Service]\n", "multi-user.target.wants"),
    "service-condition": with_unit("agent.service", NO_PROGRAM % ("ConditionPathExists=/no/such/file\n", ""), "multi-user.target.wants"),
    "service-cycle": with_unit("agent.service", "[Unit]\nBefore=local-fs.target\nAfter=network.target\n[Service]\nType=oneshot\nExecStart=/bin/true\n", "local-fs.target.requires"),
    "service-local-fs": with_unit("agent.service", NO_PROGRAM % ("DefaultDependencies=no\nBefore=local-fs.target\n", "Type=oneshot\n"), "local-fs.target.requires"),
    "fstab-required-by": fstab("UUID=%s /data ext4 x-systemd.required-by=multi-user.target 0 0" % GONE),
    "fstab-requires-unit": fstab("tmpfs /data tmpfs x-systemd.requires=nothing.service 0 0"),
    "fstab-on-file": fstab("tmpfs /etc/hostname tmpfs defaults 0 0"),
    "fstab-swapfile": fstab("/swapfile none swap sw 0 0"),
    "fstab-twice": all_of(fstab("tmpfs /data tmpfs defaults 0 0"), fstab(DATA_GONE)),
    "fstab-off-data": all_of(fstab(DATA_GONE), command_line(lambda line: line + " fstab=no")),
    "fstab-noauto-auto": fstab("UUID=%s /data ext4 noauto,auto 0 0" % GONE),
    "mask-by-word": all_of(fstab(DATA_GONE), command_line(lambda line: line + " systemd.mask=data.mount")),
    "single": command_line(lambda line: line + " single"),
    "runlevel-3": command_line(lambda line: line + " 3"),
    "break": command_line(lambda line: line + " break=premount"),
    "blacklist-word": command_line(lambda line: line + " modprobe.blacklist=virtio_blk"),
    "rd-driver-blacklist": command_line(lambda line: line + " rd.driver.blacklist=virtio_blk"),
    "driver-pre": command_line(lambda line: line + " rd.driver.pre=virtio_blk modprobe.blacklist=virtio_blk"),
    "timeout-forever": lambda m: m.grub_cfg(lambda text: re.sub(r"set timeout=1\b", "set timeout=-1", text)),
    "superusers": lambda m: m.grub_cfg(lambda text: 'set superusers="root"\npassword root secret\n' + re.sub(r" --unrestricted", "", text)),
}.items():
    FAULTS[name] = change


@fault
def service_dangling(m):
    """A link to a unit that is gone: systemd passes it over."""
    with m.root() as folder:
        os.symlink("/lib/systemd/system/gone.service", folder + "/etc/systemd/system/multi-user.target.wants/gone.service")


@fault
def multi_user_gone(m):
    """The default is graphical.target, and what that requires is gone."""
    default_target("/lib/systemd/system/graphical.target")(m)
    with m.root() as folder:
        os.unlink(folder + "/usr/lib/systemd/system/multi-user.target")


@fault
def default_masked(m):
    default_target("/dev/null")(m)


@fault
def os_release_gone(m):
    with m.root() as folder:
        for path in ("/etc/os-release", "/usr/lib/os-release"):
            if os.path.lexists(folder + path):
                os.unlink(folder + path)


@fault
def mount_points_gone(m):
    """What a copy of a tree without proc, sys, dev and run lacks."""
    with m.root() as folder:
        for name in ("proc", "sys", "dev", "run"):
            shutil.rmtree("%s/%s" % (folder, name))


@fault
def passwd_empty(m):
    with m.root() as folder:
        os.truncate(folder + "/etc/passwd", 0)



@fault
def dbus_gone(m):
    with m.root() as folder:
        os.unlink(folder + "/usr/bin/dbus-daemon")


@fault
def fs_full(m):
    """Not one block is left."""
    with m.root() as folder:
        with open(folder + "/var/filler", "wb") as file:
            try:
                while True:
                    file.write(bytes(1 << 20))
                    file.flush()
            except OSError:
                pass



@fault
def fsck_gone(m):
    with m.root() as folder:
        os.unlink(folder + "/usr/sbin/fsck.ext4")


@fault
def blacklist_in_image(m):
    with m.root() as folder:
        with open(folder + "/etc/modprobe.d/lab.conf", "w") as file:
            file.write("blacklist virtio_blk\n")
        with chroot(folder) as run:
            run("update-initramfs -u -k " + VERSION)


@fault
def install_in_image(m):
    with m.root() as folder:
        with open(folder + "/etc/modprobe.d/lab.conf", "w") as file:
            file.write("install virtio_blk /bin/false\n")
        with chroot(folder) as run:
            run("update-initramfs -u -k " + VERSION)


def lvm_conf(text):
    """Words for a section of lvm.conf, on the root file system and in the image."""
    section = text.split(" ", 1)[0]

    def change(m):
        with m.whole() as folder:
            rewrite(folder + "/etc/lvm/lvm.conf", lambda old: old.replace(section + " {", text, 1))
            rewrite(folder + "/etc/dracut.conf.d/lab.conf", lambda old: old + 'lvmconf="yes"\n')
            dracut(folder)
    return change


FAULTS["lvm-volume-list"] = lvm_conf('activation {\n\tvolume_list = [ "other" ]')
FAULTS["lvm-auto-list"] = lvm_conf('activation {\n\tauto_activation_volume_list = [ "other" ]')


def shrink(mib):
    """Cuts the end of the disk off, as a copy onto a smaller one does."""
    def change(m):
        size = m.disk.size - (mib << 20)
        return lambda source, path: shell("qemu-img resize -q --shrink %s %d" % (path, size))
    return change


FAULTS["disk-shrunk"] = shrink(256)
FAULTS["disk-shrunk-little"] = shrink(1)


@fault
def initrd_microcode(m):
    """The first archive alone: an update of the processor's microcode, and no /init."""
    with m.boot() as folder, tempfile.TemporaryDirectory() as made:
        os.makedirs(made + "/kernel/x86/microcode")
        with open(made + "/kernel/x86/microcode/GenuineIntel.bin", "wb") as file:
            file.write(bytes(2048))
        shell("cd %s && find . | cpio -oH newc --quiet > %s/%s" % (made, folder, m.initrd))


@fault
def initrd_other_kernel(m):
    """The image of another kernel: its modules lie in another directory."""
    with m.boot() as folder:
        path = folder + "/" + m.initrd
        shell("cp %s %s.at" % (path, path))
        with open(path + ".at", "rb") as file:
            data = file.read()
        at = data.index(b"\x28\xb5\x2f\xfd")
        done = subprocess.run("zstd -q -dc", shell=True, input=data[at:], capture_output=True, check=True).stdout
        done = subprocess.run("zstd -q -3 -c", shell=True, input=done.replace(VERSION.encode(), b"6.1.0-55-cloud-amd64"), capture_output=True, check=True).stdout
        with open(path, "wb") as file:
            file.write(data[:at] + done)
        os.unlink(path + ".at")


def encrypted_file(words, key=None, mount=False):
    """A volume for data in a file of the root, for crypttab."""
    def change(m):
        with m.root() as folder, tempfile.TemporaryDirectory() as made:
            shell("truncate -s 8M %s/plain && mkfs.ext4 -q %s/plain && qemu-img convert -f raw -O luks --object secret,id=s,data=labpass "
                  "-o key-secret=s,iter-time=10 %s/plain %s/var/data.luks" % (made, made, made, folder))
            if key:
                with open(folder + "/etc/data.key", "w") as file:
                    file.write(key)
                os.chmod(folder + "/etc/data.key", 0o600)
        m.append("/etc/crypttab", "data /var/data.luks %s\n" % words)
        if mount:
            m.append("/etc/fstab", "/dev/mapper/data /data ext4 defaults 0 2\n")
    return change


FAULTS["crypttab-asks"] = encrypted_file("none luks")
FAULTS["crypttab-asks-nofail"] = encrypted_file("none luks,nofail")
FAULTS["crypttab-noauto"] = encrypted_file("none luks,noauto")
FAULTS["crypttab-key"] = encrypted_file("/etc/data.key luks", "labpass", True)
FAULTS["crypttab-key-wrong"] = encrypted_file("/etc/data.key luks", "other", True)
FAULTS["crypttab-key-gone"] = encrypted_file("/etc/data.key luks", None, True)
FAULTS["crypttab-name-wrong"] = all_of(encrypted_file("/etc/data.key luks", "labpass"), fstab("/dev/mapper/date /data ext4 defaults 0 2"))


# A second set, predicted before the first of it was booted.

def removed(*paths):
    def change(m):
        with m.root() as folder:
            for path in paths:
                (shutil.rmtree if os.path.isdir(folder + path) and not os.path.islink(folder + path) else os.unlink)(folder + path)
    return change


def drop_in(unit, text):
    def change(m):
        with m.root() as folder:
            os.makedirs("%s/etc/systemd/system/%s.d" % (folder, unit))
            with open("%s/etc/systemd/system/%s.d/lab.conf" % (folder, unit), "w") as file:
                file.write(text)
    return change


for name, change in {
    "mask-remount": mask("systemd-remount-fs.service"),
    "mask-sysinit": mask("sysinit.target"),
    "mask-multi-user": mask("multi-user.target"),
    "mask-dbus-socket": mask("dbus.socket"),
    "mask-emergency": all_of(fstab(DATA_GONE), mask("emergency.target")),
    "no-on-failure": all_of(fstab(DATA_GONE), drop_in("local-fs.target", "[Unit]\nOnFailure=\n")),
    "service-requires-gone": with_unit("agent.service", "[Unit]\nRequires=other.service\n[Service]\nExecStart=/bin/true\n", "multi-user.target.wants"),
    "service-drop-in-gone": drop_in("systemd-user-sessions.service", "[Service]\nExecStart=\nExecStart=/usr/bin/gone\n"),
    "fstab-cdrom": fstab("/dev/sr0 /media iso9660 ro 0 0"),
    "fstab-overlay": fstab("overlay /data overlay lowerdir=/gone,upperdir=/gone/u,workdir=/gone/w 0 0"),
    "fstab-root-twice": fstab("LABEL=root /data ext4 defaults 0 0"),
    "fstab-swap-on-root": fstab("LABEL=root none swap sw 0 0"),
    "fstab-proc": fstab("proc /proc proc defaults 0 0\nsysfs /sys sysfs defaults 0 0"),
    "fstab-gone": removed("/etc/fstab"),
    "fstab-quoted": fstab('UUID="%s" /data ext4 defaults 0 2' % GONE),
    "fstab-bom": lambda m: m.edit("/etc/fstab", lambda text: "\ufeff" + text),
    "blacklist-on-root": lambda m: m.edit("/etc/modprobe.d/mdadm.conf", lambda text: text + "blacklist virtio_blk\n"),
    "blacklist-xfs": command_line(lambda line: line + " rd.driver.blacklist=xfs"),
    "blacklist-virtio-pci": command_line(lambda line: line + " module_blacklist=virtio_pci"),
    "mem-little": command_line(lambda line: line + " mem=96M"),
    "root-by-label": command_line(lambda line: re.sub(ROOT, "root=/dev/disk/by-label/root", line)),
    "root-rw": command_line(lambda line: re.sub(r"\bro\b", "rw", line)),
    "grub-crlf": lambda m: m.grub_cfg(lambda text: text.replace("\n", "\r\n")),
    "grub-brace": lambda m: m.grub_cfg(lambda text: text[:text.rindex("}")] + text[text.rindex("}") + 1:]),
    "grub-default-recovery": lambda m: m.grub_cfg(lambda text: re.sub(r'set default="\$\{saved_entry\}"', 'set default="1"', text)),
    "modules-dep-gone": removed("/usr/lib/modules/%s/modules.dep" % VERSION, "/usr/lib/modules/%s/modules.dep.bin" % VERSION),
    "libmount-gone": removed("/usr/lib/x86_64-linux-gnu/libmount.so.1"),
    "lib-link-gone": removed("/lib"),
    "sbin-link-gone": removed("/sbin"),
    "bin-link-gone": removed("/bin"),
    "lib64-link-gone": removed("/lib64"),
    "udev-rules-gone": removed("/usr/lib/udev/rules.d"),
}.items():
    FAULTS[name] = change


@fault
def grubenv_next_entry(m):
    """Boots the recovery entry once."""
    with m.boot() as folder:
        shell("grub-editenv %s/grub/grubenv set next_entry=1" % folder)


@fault
def systemd_not_executable(m):
    with m.root() as folder:
        os.chmod(folder + "/usr/lib/systemd/systemd", 0o644)


@fault
def initrd_mode(m):
    with m.boot() as folder:
        os.chmod(folder + "/" + m.initrd, 0)


@fault
def esp_fallback_empty(m):
    with tempfile.TemporaryDirectory() as folder:
        open(folder + "/x", "w").close()
        m.mtools("mcopy", "-o", folder + "/x", "::/EFI/BOOT/BOOTX64.EFI")


# A third set, to see how often a new case is told right at first sight.

for name, change in {
    "swapfile-nofail": fstab("/swapfile none swap sw,nofail 0 0"),
    "nofail-wrong-type": fstab("LABEL=root /data xfs nofail 0 0"),
    "root-label-case": lambda m: m.edit("/etc/fstab", lambda text: re.sub(r"^UUID=\S+", "LABEL=ROOT", text)),
    "fstab-run": fstab("tmpfs /run tmpfs defaults 0 0"),
    "esp-noauto": lambda m: m.edit("/etc/fstab", lambda text: text.replace("3333-EEEE", "3333-EEEF").replace("umask=0077", "umask=0077,noauto")),
    "boot-line-gone": lambda m: m.edit("/etc/fstab", lambda text: re.sub(r"(?m)^/dev/vda1 .*\n", "", text)),
    "home-subvolid": lambda m: m.edit("/etc/fstab", lambda text: text.replace("subvol=@home", "subvolid=99999")),
    "failure-reboots": with_unit("agent.service", NO_PROGRAM % ("FailureAction=reboot-force\n", ""), "multi-user.target.wants"),
    "failure-is-emergency": with_unit("agent.service", NO_PROGRAM % ("OnFailure=emergency.target\n", ""), "multi-user.target.wants"),
    "service-gone-basic": with_unit("agent.service", NO_PROGRAM % ("DefaultDependencies=no\nBefore=basic.target\n", "Type=oneshot\n"), "basic.target.requires"),
    "mask-udev-trigger": mask("systemd-udev-trigger.service"),
    "rd-lvm-vg": command_line(lambda line: re.sub(r"rd.lvm.lv=\S+ ", "", line) + " rd.lvm.vg=centos"),
    "rd-lvm-vg-other": command_line(lambda line: re.sub(r"rd.lvm.lv=\S+ ", "", line) + " rd.lvm.vg=other"),
    "root-xfs-uuid": command_line(lambda line: re.sub(ROOT, "root=UUID=22222222-aaaa-4bbb-8ccc-000000000002", line)),
    "libpam-gone": removed("/usr/lib/x86_64-linux-gnu/libpam.so.0"),
    "ld-conf-gone": removed("/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.cache"),
    "grubenv-gone": removed("/boot/grub/grubenv"),
    "mdadm-conf-gone": all_of(removed("/etc/mdadm/mdadm.conf"), lambda m: mirror(m)),
}.items():
    FAULTS[name] = change

FAULTS["disk-quarter"] = shrink(1536)


@fault
def default_own(m):
    """The default target is a file of the administrator's."""
    with m.root() as folder:
        os.unlink(folder + "/etc/systemd/system/default.target")
        with open(folder + "/etc/systemd/system/default.target", "w") as file:
            file.write("[Unit]\nRequires=multi-user.target\nAfter=multi-user.target\nAllowIsolate=yes\n")


@fault
def default_empty(m):
    with m.root() as folder:
        os.unlink(folder + "/etc/systemd/system/default.target")
        open(folder + "/etc/systemd/system/default.target", "w").close()


@fault
def root_partuuid(m):
    signature = struct.unpack("<I", m.disk.read(440, 4))[0]
    m.command_line(lambda line: re.sub(ROOT, "root=PARTUUID=%08x-01" % signature, line))


import faults_early  # noqa: E402, F401 - its breakages are put among these
