"""The cases: guest × fault × hardware, and the true cause, known because we broke it.

`case(id, guest, fault, hardware, rule, where)`. Hardware is a bus, `+N` when N blank disks come first, and `uefi`
where the firmware is not BIOS. `rule` is the id of the rule that the break violates (None: it boots), `where` the
file, line (`FILE:LINE what`) or structure that a person has to look at; two ids are divided by `|` where both say it. Order is the order of boots: breadth first.
"""
CASES = []
UNLOCK = (("Please unlock disk", "labpass"),)


def case(id, guest, fault=None, hardware="virtio-blk", rule=None, where=None, send=(), disks=None):
    bus, _, firmware = hardware.partition(" ")
    bus, _, first = bus.partition("+")
    assert id not in {c["id"] for c in CASES}, id
    CASES.append(dict(id=id, guest=guest, fault=fault, hardware=hardware, bus=bus, first=int(first or 0), firmware=firmware or "bios",
                      rule=rule, where=where, send=send, disks=disks))


FSTAB_VDA1 = dict(rule="fstab.unstable-device|fstab.unresolved-source", where="/etc/fstab:2 /dev/vda1")
NO_AHCI = dict(rule="kernel.bus-driver-unavailable", where="ahci: neither in the kernel nor in the initramfs")

# Healthy guests, each on its own hardware and on others.
case("g1-virtio", "g1")
case("g2-virtio", "g2")
case("g3-virtio", "g3", hardware="virtio-blk uefi")
case("g4-virtio", "g4")
case("g5luks-virtio-typed", "g5luks", send=UNLOCK)
case("g5luks-virtio", "g5luks", rule="luks.header-or-key", where="/etc/crypttab:1 cryptroot, no passphrase typed")
case("g5md-virtio", "g5md")
case("g6el-virtio", "g6el")
case("g6el-virtio+1", "g6el", hardware="virtio-blk+1", **FSTAB_VDA1)
case("g1-virtio+1", "g1", hardware="virtio-blk+1")
case("g2-virtio+1", "g2", hardware="virtio-blk+1", **FSTAB_VDA1)
case("g1-scsi", "g1", hardware="virtio-scsi")
case("g1-ide", "g1", hardware="ide")
case("g1-nvme", "g1", hardware="nvme")
case("g1-sata", "g1", hardware="sata", **NO_AHCI)
case("g2-scsi", "g2", hardware="virtio-scsi", **FSTAB_VDA1)
case("g2-ide", "g2", hardware="ide", **FSTAB_VDA1)
case("g2-nvme", "g2", hardware="nvme", **FSTAB_VDA1)
case("g2-sata", "g2", hardware="sata", **NO_AHCI)
case("g1-virtio-uefi", "g1", hardware="virtio-blk uefi", rule="fw.no-boot-path|hyp.firmware-mismatch", where="no EFI system partition")
case("g3-virtio-bios", "g3", hardware="virtio-blk", rule="fw.no-boot-path|hyp.firmware-mismatch|mbr.boot-code-unusable", where="no boot code in the MBR")
case("g4-virtio-uefi", "g4", hardware="virtio-blk uefi", rule="fw.no-boot-path|hyp.firmware-mismatch", where="no EFI system partition")
case("g3-scsi", "g3", hardware="virtio-scsi uefi")
case("g3-ide", "g3", hardware="ide uefi")
case("g3-nvme", "g3", hardware="nvme uefi")
case("g3-sata", "g3", hardware="sata uefi", **NO_AHCI)
case("g3-virtio+1", "g3", hardware="virtio-blk+1 uefi")
case("g4-scsi", "g4", hardware="virtio-scsi")
case("g4-ide", "g4", hardware="ide")
case("g4-nvme", "g4", hardware="nvme")
case("g4-sata", "g4", hardware="sata", **NO_AHCI)
case("g4-virtio+1", "g4", hardware="virtio-blk+1")

# /etc/fstab and /etc/crypttab. Line 1 is the root; what we add is line 2.
F2 = "/etc/fstab:2"
case("b17-fstab-data", "g1", "fstab-data-gone", rule="fstab.unresolved-source", where=F2)
case("fstab-nofail", "g1", "fstab-data-nofail")
case("fstab-noauto", "g1", "fstab-data-noauto")
case("fstab-netdev", "g1", "fstab-data-netdev")
case("fstab-automount", "g1", "fstab-data-automount")
case("fstab-forever", "g1", "fstab-data-forever", rule="fstab.option-hazard|fstab.unresolved-source", where=F2)
case("b3type", "g1", "fstab-type-unknown", rule="fstab.fstype-wrong", where=F2)
case("b3field", "g1", "fstab-garbage", rule="fstab.unresolved-source", where=F2)
case("b2-fstab-esp", "g3", "fstab-esp-typo", "virtio-blk uefi", rule="fstab.unresolved-source", where=F2)
case("b23-crypttab", "g1", "crypttab-gone", rule="luks.crypttab-unresolved", where="/etc/crypttab")
case("fstab-swap", "g1", "fstab-swap-gone")

# GRUB and the command line.
case("b4-grub-cfg-gone", "g1", "grub-cfg-gone", rule="grub.cfg-missing", where="/boot/grub/grub.cfg")
case("b4mod", "g1", "grub-modules-gone", rule="grub.modules-missing", where="/boot/grub/i386-pc/normal.mod")
case("b5-root-uuid", "g1", "root-uuid-wrong", rule="cmdline.root-unresolved", where="/boot/grub/grub.cfg:99 root=")
case("b5lvm", "g2", "root-lv-wrong", rule="cmdline.root-unresolved", where="/boot/grub/grub.cfg:99 root=/dev/mapper/centos-roott")
case("swap-lv-gone", "g2", "swap-lv-gone", rule="cmdline.rd-device-missing", where="/boot/grub/grub.cfg:99 rd.lvm.lv=centos/swap_old")
case("b6-mbr-code", "g1", "mbr-code-zero", rule="mbr.boot-code-unusable", where="disk 0, bytes 0-439")
case("b6sig", "g1", "mbr-code-and-signature-zero", rule="mbr.signature-missing", where="disk 0, bytes 510-511")
case("b7-core", "g1", "core-zero", rule="grub.core-damaged|grub.boot-to-core", where="disk 0, sectors 1-2047")
case("b8-gpt", "g4", "gpt-primary-zero", rule="gpt.primary-invalid", where="disk 0, LBA 1")
case("b8uefi", "g3", "gpt-primary-zero", "virtio-blk uefi")
case("b9mbr", "g1", "mbr-table-zero", rule="grub.core-prefix-unresolvable", where="disk 0, bytes 446-509: no partitions")
case("b10-lvm-mda", "g2", "lvm-mda-zero", rule="lvm.metadata-damaged", where="disk 0 partition 2, byte 4096")
case("b11-ext4-sb", "g1", "ext4-superblock-zero", rule="fs.wrong-type-or-missing", where="disk 0 partition 1, byte 1024")
case("b12-ext4-dirty", "g1", "journal-dirty")
case("b12-xfs-dirty", "g2", "journal-dirty")
case("b13-initrd-gone", "g1", "initrd-gone", rule="grub.entry-file-missing", where="/boot/grub/grub.cfg:101")
case("b14-no-virtio", "g2", "dracut-no-virtio", rule="initramfs.missing-driver", where="/boot/initrd.img-6.1.0-56-cloud-amd64 virtio_blk")
case("b14-no-virtio-ide", "g2", "dracut-no-virtio", "ide", **FSTAB_VDA1)
case("b15-sda1", "g1", "root-sda1", rule="cmdline.root-bare-device|cmdline.root-unresolved", where="/boot/grub/grub.cfg:99 root=/dev/sda1")
case("b15-sda1-ide", "g1", "root-sda1", "ide")
case("b16-esp", "g3", "esp-fallback-gone", "virtio-blk uefi", rule="esp.no-fallback-loader", where="disk 0 partition 1: EFI/BOOT/BOOTX64.EFI")
case("b16all", "g3", "esp-tree-gone", "virtio-blk uefi", rule="esp.no-fallback-loader|fw.no-boot-path", where="disk 0 partition 1: EFI/BOOT/BOOTX64.EFI")
case("b18-kernel-empty", "g1", "kernel-empty", rule="kernel.image-invalid", where="/boot/vmlinuz-6.1.0-56-cloud-amd64")
case("b19-grubenv", "g1", "grubenv-entry-gone")
case("b19entry", "g1", "grub-kernel-path", rule="grub.entry-file-missing", where="/boot/grub/grub.cfg:99")
case("b21-lvm-filter", "g2", "lvm-filter", rule="lvm.filter-excludes", where="/boot/initrd.img-6.1.0-56-cloud-amd64 etc/lvm/lvm.conf filter")
case("b22-init", "g1", "init-gone", rule="init.missing", where="/sbin/init")
case("b22-systemd", "g1", "systemd-empty", rule="init.missing", where="/usr/lib/systemd/systemd is empty")

# More of the kind.
case("kernel-half", "g1", "kernel-half", rule="kernel.image-invalid", where="/boot/vmlinuz-6.1.0-56-cloud-amd64 cut")
case("initrd-half", "g1", "initrd-half", rule="initramfs.corrupt", where="/boot/initrd.img-6.1.0-56-cloud-amd64 cut")
case("initrd-half-dracut", "g2", "initrd-half", rule="initramfs.corrupt", where="/boot/initrd.img-6.1.0-56-cloud-amd64 cut")
case("initrd-garbage", "g1", "initrd-garbage-behind")
case("initramfs-tools-no-virtio", "g1", "initramfs-tools-no-virtio", rule="initramfs.missing-driver", where="/boot/initrd.img-6.1.0-56-cloud-amd64 virtio_blk")
case("initramfs-tools-no-virtio-ide", "g1", "initramfs-tools-no-virtio", "ide")
case("default-rescue", "g1", "default-rescue", rule="systemd.default-target-broken", where="/etc/systemd/system/default.target")
case("default-dangling", "g1", "default-dangling", rule="systemd.default-target-broken", where="/etc/systemd/system/default.target")
case("rescue-target", "g1", "rescue-target", rule="cmdline.debug-leftover", where="/boot/grub/grub.cfg:99 systemd.unit=rescue.target")
case("resume-gone", "g1", "resume-gone")
# RULES and dracut's own script say that it goes on; booted, systemd waits for ever.
case("resume-gone-dracut", "g2", "resume-gone", rule="cmdline.resume-stale", where="/boot/grub/grub.cfg resume=")
case("rootfstype-wrong", "g1", "rootfstype-wrong", rule="cmdline.root-unresolved", where="/boot/grub/grub.cfg:99 rootfstype=xfs")
case("rootfstype-wrong-dracut", "g2", "rootfstype-wrong", rule="cmdline.root-unresolved", where="/boot/grub/grub.cfg:99 rootfstype=ext4")
case("subvol-wrong", "g4", "subvol-wrong", rule="cmdline.root-unresolved|fs.btrfs-incomplete", where="/boot/grub/grub.cfg:99 rootflags=subvol=@root")
case("search-stale", "g1", "grub-search-stale")
case("search-and-hint-stale", "g1", "grub-search-and-hint-stale", rule="grub.cfg-search-stale", where="/boot/grub/grub.cfg:94")
case("core-prefix", "g1", "core-prefix-wrong", rule="grub.core-prefix-unresolvable", where="core.img: prefix (,msdos3)/boot/grub")
case("mbr-signature", "g1", "mbr-signature-zero", rule="mbr.signature-missing", where="disk 0, bytes 510-511")
case("md-only-a", "g5md", disks=[0], rule="md.degraded-or-missing", where="the array lacks a member")
case("md-only-b", "g5md", disks=[1], rule="md.degraded-or-missing", where="the array lacks a member")
case("md-superblock", "g5md", "md-superblock-zero", rule="md.degraded-or-missing", where="the array lacks a member")
case("md-superblocks", "g5md", "md-superblocks-zero", rule="md.degraded-or-missing", where="disks 0 and 1, partition 1, byte 4096")
case("luks-magic", "g5luks", "luks-magic-zero", rule="luks.header-or-key", where="disk 0 partition 2, byte 0")
case("init-wrong", "g1", "init-wrong")
case("subvol-missing", "g4", "subvol-missing", rule="init.missing", where="/boot/grub/grub.cfg:99 no rootflags=subvol=@")
case("modules-gone", "g3", "modules-gone", "virtio-blk uefi", rule="kernel.modules-missing", where="/usr/lib/modules/6.1.0-56-cloud-amd64 (vfat for /boot/efi)")
case("boot-uuid+1", "g2", "fstab-boot-uuid", "virtio-blk+1")
case("boot-uuid-scsi", "g2", "fstab-boot-uuid", "virtio-scsi")
case("boot-uuid-nvme", "g2", "fstab-boot-uuid", "nvme")
case("root-vda1", "g1", "root-vda1")
case("root-vda1+1", "g1", "root-vda1", "virtio-blk+1", rule="cmdline.root-bare-device|cmdline.root-unresolved", where="/boot/grub/grub.cfg:99 root=/dev/vda1")
case("loader-gone", "g1", "loader-gone", rule="rootfs.libs-missing", where="/lib64/ld-linux-x86-64.so.2")
case("lvm-label", "g2", "lvm-label-zero", rule="lvm.pv-missing", where="disk 0 partition 2, byte 512")
case("xfs-root-sb", "g2", "xfs-root-superblock-zero", rule="fs.wrong-type-or-missing", where="centos/root, byte 0")
case("btrfs-sb", "g4", "btrfs-superblock-zero", rule="fs.wrong-type-or-missing", where="disk 0 partition 2, byte 65536")
case("grub-cfg-empty", "g1", "grub-cfg-empty", rule="grub.cfg-missing", where="/boot/grub/grub.cfg")
case("grub-cfg-cut", "g1", "grub-cfg-cut", rule="grub.cfg-syntax", where="/boot/grub/grub.cfg its end")
case("grub-no-initrd", "g1", "grub-no-initrd-line", rule="grub.no-initrd", where="/boot/grub/grub.cfg:86")
case("grub-linux-mod", "g1", "grub-linux-module-gone", rule="grub.modules-missing", where="/boot/grub/i386-pc/linux.mod")
case("fstab-root-uuid", "g1", "fstab-root-uuid", rule="fstab.root-mismatch|fstab.unresolved-source", where="/etc/fstab:1")
case("fstab-esp-case", "g3", "fstab-esp-case", "virtio-blk uefi", rule="fstab.unresolved-source", where=F2)
case("fstab-esp-option", "g3", "fstab-esp-option", "virtio-blk uefi", rule="fstab.option-hazard", where=F2)
case("fstab-boot-type", "g2", "fstab-boot-type", rule="fstab.fstype-wrong", where=F2)
case("fstab-home-subvol", "g4", "fstab-home-subvol", rule="fstab.option-hazard", where=F2)
case("fstab-empty", "g1", "fstab-empty", rule="fstab.root-mismatch", where="/etc/fstab no line for /")
case("fstab-crlf", "g1", "fstab-crlf")
case("fstab-fail-last", "g1", "fstab-nofail-overruled", rule="fstab.unresolved-source", where=F2)
# systemd makes the directory that is to be bound.
case("fstab-bind", "g1", "fstab-bind-gone")
case("fstab-bind-file", "g1", "fstab-bind-file", rule="fstab.mountpoint-or-bind-invalid", where=F2)
case("crypttab-nofail", "g1", "crypttab-gone-nofail")
case("crypttab-only", "g1", "crypttab-only")
case("esp-debian-gone", "g3", "esp-debian-gone", "virtio-blk uefi")
case("esp-fallback-cut", "g3", "esp-fallback-cut", "virtio-blk uefi", rule="esp.loader-pair-broken", where="disk 0 partition 1: EFI/BOOT/BOOTX64.EFI is cut")
case("esp-boot-sector", "g3", "esp-boot-sector-zero", "virtio-blk uefi", rule="esp.fs-damaged-or-full", where="disk 0 partition 1, byte 0")
case("esp-type", "g3", "esp-type", "virtio-blk uefi")
case("gpt-backup", "g4", "gpt-backup-zero")
case("gpt-both-uefi", "g3", "gpt-both-zero", "virtio-blk uefi", rule="gpt.primary-invalid", where="disk 0, LBA 1 and the last")
case("lvm-filter-root-only", "g2", "lvm-filter-root-only")
case("root-partuuid", "g1", "root-partuuid-wrong", rule="cmdline.root-unresolved", where="/boot/grub/grub.cfg:99 root=PARTUUID=99999999-01")
case("rd-luks-gone", "g2", "rd-luks-gone", rule="cmdline.rd-device-missing", where="/boot/grub/grub.cfg:99 rd.luks.uuid=")
# RULES says that dracut activates nothing then; booted, it activates all, by a mistake in its own test.
case("no-rd-lvm", "g2", "no-rd-lvm")
case("rd-lvm-off", "g2", "rd-lvm-off", rule="cmdline.root-unresolved", where="/boot/grub/grub.cfg:99 rd.lvm=0")
case("root-lv-wrong-el", "g6el", "root-lv-wrong", rule="cmdline.root-unresolved", where="/boot/grub2/grub.cfg:99 root=/dev/mapper/centos-roott")
case("init-shell", "g1", "init-shell", rule="cmdline.debug-leftover", where="/boot/grub/grub.cfg:99 init=/bin/sh")
case("emergency-target", "g1", "emergency-target", rule="cmdline.debug-leftover", where="/boot/grub/grub.cfg:99 systemd.unit=emergency.target")
case("grubenv-garbage", "g1", "grubenv-garbage")
case("initrd-cut-end", "g1", "initrd-cut-end", rule="initramfs.corrupt", where="/boot/initrd.img-6.1.0-56-cloud-amd64 its last 4 KiB are missing")

# The healthy guests on the rest of the hardware.
case("g5luks-scsi", "g5luks", hardware="virtio-scsi", rule="luks.header-or-key", where="/etc/crypttab:1 cryptroot, no passphrase typed")
case("g5luks-nvme-typed", "g5luks", hardware="nvme", send=UNLOCK)
# Without its passphrase nothing says whether the kernel itself has the driver.
case("g5luks-sata", "g5luks", hardware="sata", rule="kernel.bus-driver-unavailable|initramfs.missing-driver", where="ahci: neither in the kernel nor in the initramfs")
case("g5md-scsi", "g5md", hardware="virtio-scsi")
case("g5md-ide", "g5md", hardware="ide")
case("g5md-nvme", "g5md", hardware="nvme")
case("g5md-sata", "g5md", hardware="sata", **NO_AHCI)
case("g5md-virtio+1", "g5md", hardware="virtio-blk+1")
case("g6el-scsi", "g6el", hardware="virtio-scsi", **FSTAB_VDA1)
case("g6el-ide", "g6el", hardware="ide", **FSTAB_VDA1)
case("g6el-nvme", "g6el", hardware="nvme", **FSTAB_VDA1)
case("g6el-sata", "g6el", hardware="sata", **NO_AHCI)
case("g2-virtio-uefi", "g2", hardware="virtio-blk uefi", rule="fw.no-boot-path|hyp.firmware-mismatch", where="no EFI system partition")
case("g1-nvme+1", "g1", hardware="nvme+1")
case("g1-scsi+1", "g1", hardware="virtio-scsi+1")
case("g1-ide+1", "g1", hardware="ide+1")
case("g3-nvme+1", "g3", hardware="nvme+1 uefi")
case("g4-scsi+1", "g4", hardware="virtio-scsi+1")
case("g2-scsi+1", "g2", hardware="virtio-scsi+1", **FSTAB_VDA1)
case("g1-nvme-uefi", "g1", hardware="nvme uefi", rule="fw.no-boot-path|hyp.firmware-mismatch", where="no EFI system partition")
case("g3-ide-bios", "g3", hardware="ide", rule="fw.no-boot-path|hyp.firmware-mismatch|mbr.boot-code-unusable", where="no boot code in the MBR")

# What stops before the kernel does so on every bus.
case("b4-nvme", "g1", "grub-cfg-gone", "nvme", rule="grub.cfg-missing", where="/boot/grub/grub.cfg")
case("b4-sata", "g1", "grub-cfg-gone", "sata", rule="grub.cfg-missing", where="/boot/grub/grub.cfg")
case("b4mod-scsi+1", "g1", "grub-modules-gone", "virtio-scsi+1", rule="grub.modules-missing", where="/boot/grub/i386-pc/normal.mod")
case("b8-gpt-nvme", "g4", "gpt-primary-zero", "nvme", rule="gpt.primary-invalid", where="disk 0, LBA 1")
case("b6sig-ide+1", "g1", "mbr-code-and-signature-zero", "ide+1", rule="mbr.signature-missing", where="disk 0, bytes 510-511")
case("b9mbr-sata", "g1", "mbr-table-zero", "sata", rule="grub.core-prefix-unresolvable", where="disk 0, bytes 446-509: no partitions")
case("b11-scsi", "g1", "ext4-superblock-zero", "virtio-scsi", rule="fs.wrong-type-or-missing", where="disk 0 partition 1, byte 1024")
case("core-prefix-ide", "g1", "core-prefix-wrong", "ide", rule="grub.core-prefix-unresolvable", where="core.img: prefix (,msdos3)/boot/grub")
case("b16-esp-nvme", "g3", "esp-fallback-gone", "nvme uefi", rule="esp.no-fallback-loader", where="disk 0 partition 1: EFI/BOOT/BOOTX64.EFI")
case("b18-ide", "g1", "kernel-empty", "ide", rule="kernel.image-invalid", where="/boot/vmlinuz-6.1.0-56-cloud-amd64")
case("kernel-gone", "g1", "kernel-gone", rule="grub.entry-file-missing", where="/boot/grub/grub.cfg:99")
case("kernel-text", "g1", "kernel-text", rule="kernel.image-invalid", where="/boot/vmlinuz-6.1.0-56-cloud-amd64")
case("core-tail", "g1", "core-tail-zero", rule="grub.core-damaged", where="disk 0, sectors 17-2046")
case("boot-img-elsewhere", "g1", "boot-img-elsewhere", rule="grub.boot-to-core", where="disk 0, byte 0x5c")
case("gpt-crc", "g4", "gpt-crc", rule="gpt.primary-invalid", where="disk 0, LBA 2")
case("gpt-both", "g4", "gpt-both-zero", rule="gpt.primary-invalid", where="disk 0, LBA 1 and the last")
case("pmbr-zero", "g4", "pmbr-zero", rule="gpt.primary-invalid", where="disk 0, bytes 446-509: no protective MBR")
case("xfs-boot-sb", "g2", "xfs-boot-superblock-zero", rule="fs.wrong-type-or-missing", where="disk 0 partition 1, byte 0")
case("xfs-boot-sb-el", "g6el", "xfs-boot-superblock-zero", rule="fs.wrong-type-or-missing", where="disk 0 partition 1, byte 0")
case("grub-initrd-path", "g1", "grub-initrd-path", rule="grub.entry-file-missing", where="/boot/grub/grub.cfg:101")
case("initrd-empty", "g1", "initrd-empty", rule="initramfs.corrupt", where="/boot/initrd.img-6.1.0-56-cloud-amd64 is empty")
case("g5luks-uefi", "g5luks", hardware="virtio-blk uefi", rule="fw.no-boot-path|hyp.firmware-mismatch", where="no EFI system partition")
case("g5md-uefi", "g5md", hardware="virtio-blk uefi", rule="fw.no-boot-path|hyp.firmware-mismatch", where="no EFI system partition")
case("g6el-uefi", "g6el", hardware="ide uefi", rule="fw.no-boot-path|hyp.firmware-mismatch", where="no EFI system partition")
case("pre-grub-cfg-empty-nvme", "g1", "grub-cfg-empty", "nvme", rule="grub.cfg-missing", where="/boot/grub/grub.cfg")
case("pre-grub-cfg-cut-sata", "g1", "grub-cfg-cut", "sata", rule="grub.cfg-syntax", where="/boot/grub/grub.cfg its end")
case("pre-btrfs-sb-ide", "g4", "btrfs-superblock-zero", "ide", rule="fs.wrong-type-or-missing", where="disk 0 partition 2, byte 65536")
case("pre-mbr-signature-scsi", "g1", "mbr-signature-zero", "virtio-scsi", rule="mbr.signature-missing", where="disk 0, bytes 510-511")
case("pre-b4mod-ide", "g1", "grub-modules-gone", "ide", rule="grub.modules-missing", where="/boot/grub/i386-pc/normal.mod")
case("pre-xfs-boot-sb-sata", "g2", "xfs-boot-superblock-zero", "sata", rule="fs.wrong-type-or-missing", where="disk 0 partition 1, byte 0")
case("pre-b8-gpt+1", "g4", "gpt-primary-zero", "virtio-blk+1", rule="gpt.primary-invalid", where="disk 0, LBA 1")
case("pre-gpt-crc-scsi", "g4", "gpt-crc", "virtio-scsi", rule="gpt.primary-invalid", where="disk 0, LBA 2")
case("pre-core-prefix+1", "g1", "core-prefix-wrong", "virtio-blk+1", rule="grub.core-prefix-unresolvable", where="core.img: prefix (,msdos3)/boot/grub")
case("pre-b16all-sata", "g3", "esp-tree-gone", "sata uefi", rule="esp.no-fallback-loader|fw.no-boot-path", where="disk 0 partition 1: EFI/BOOT/BOOTX64.EFI")
case("pre-b16-esp+1", "g3", "esp-fallback-gone", "virtio-blk+1 uefi", rule="esp.no-fallback-loader", where="disk 0 partition 1: EFI/BOOT/BOOTX64.EFI")

# Further buses, with SeaBIOS: Debian's OVMF has no driver for them (g3 on pvscsi ended in its shell), VMware's firmware has. And LVM's devices file.
case("g1-pvscsi", "g1", hardware="pvscsi")
case("g2-pvscsi", "g2", hardware="pvscsi", **FSTAB_VDA1)
case("g4-pvscsi", "g4", hardware="pvscsi")
case("g1-megasas", "g1", hardware="megasas", rule="kernel.bus-driver-unavailable", where="megaraid_sas: neither in the kernel nor in the initramfs")
case("g2-lsi53c895a", "g2", hardware="lsi53c895a", rule="kernel.bus-driver-unavailable", where="sym53c8xx: neither in the kernel nor in the initramfs")
case("lvm-devices-listed", "g2", "lvm-devices-listed")
case("lvm-devices-other", "g2", "lvm-devices-other", rule="lvm.devices-file-excludes", where="/boot/initrd.img-6.1.0-56-cloud-amd64 its etc/lvm/devices/system.devices")
case("lvm-devices-number", "g2", "lvm-devices-number", rule="lvm.devices-file-excludes", where="/boot/initrd.img-6.1.0-56-cloud-amd64 its etc/lvm/devices/system.devices")

# shim, with and without its fallback program, as RHEL's and Fedora's EFI system partitions have them.
ESP = "disk 0 partition 1: "
case("shim-fallback", "g3", "esp-shim-fallback", "virtio-blk uefi")
case("shim-no-list", "g3", "esp-shim-no-list", "virtio-blk uefi", rule="esp.fallback-csv-broken", where=ESP + "no EFI/debian/BOOTX64.CSV")
case("shim-list-stale", "g3", "esp-shim-list-stale", "virtio-blk uefi", rule="esp.fallback-csv-broken", where=ESP + "EFI/debian/shimx64.efi")
case("shim-only", "g3", "esp-shim-only", "virtio-blk uefi")
case("shim-alone", "g3", "esp-shim-alone", "virtio-blk uefi", rule="esp.loader-pair-broken", where=ESP + "EFI/BOOT/grubx64.efi")

# SELinux without a policy; AppArmor is Debian's own choice, so that the command line asks for the other.
case("selinux-no-policy", "g1", "selinux-no-policy", rule="selinux.config-invalid", where="/etc/selinux/config:3 SELINUXTYPE=targeted")
case("selinux-not-enforced", "g1", "selinux-not-enforced", rule="selinux.config-invalid", where="/etc/selinux/config:3 SELINUXTYPE=targeted")
case("selinux-permissive", "g1", "selinux-permissive", rule="selinux.config-invalid", where="/etc/selinux/config:3 SELINUXTYPE=targeted")
# Debian's kernel does not know selinux=0.
case("selinux-off", "g1", "selinux-off", rule="selinux.config-invalid", where="/etc/selinux/config:3 SELINUXTYPE=targeted")

# A root that fstab calls by a path that is not there: mount(8) does not look at it when it mounts anew.
case("fstab-root-bare", "g1", "fstab-root-bare")

# An array called by its number.
case("root-md0", "g5md", "root-md0")
case("root-md0-conf", "g5md", "root-md0-conf", rule="md.conf-stale", where="/boot/initrd.img-6.1.0-56-cloud-amd64 its etc/mdadm/mdadm.conf")

# From the default target on: units, what they start, and what systemd makes of crypttab.
TARGET = "systemd.default-target-broken"
case("default-emergency", "g1", "default-emergency", rule=TARGET, where="/etc/systemd/system/default.target")
case("default-masked", "g1", "default-masked", rule=TARGET, where="/etc/systemd/system/default.target")
case("multi-user-gone", "g1", "multi-user-gone", rule=TARGET, where="multi-user.target, which graphical.target requires")
case("target-missing", "g1", "target-missing", rule="cmdline.debug-leftover", where="/boot/grub/grub.cfg:99 systemd.unit=nothing.target")
case("mask-basic", "g1", "mask-basic", rule=TARGET, where="/etc/systemd/system/basic.target")
case("mask-local-fs", "g1", "mask-local-fs", rule=TARGET, where="/etc/systemd/system/local-fs.target")
# A mask takes what requires the unit with it: local-fs.target, and with that the root stays read-only.
case("mask-data", "g1", "mask-data", rule=TARGET, where="/etc/systemd/system/data.mount")
case("mask-by-word", "g1", "mask-by-word", rule="cmdline.debug-leftover|systemd.default-target-broken", where="/boot/grub/grub.cfg:99 systemd.mask=data.mount")
case("mask-udevd", "g1", "mask-udevd")
case("mask-udevd-esp", "g3", "mask-udevd", "virtio-blk uefi", rule=TARGET, where="/etc/systemd/system/systemd-udevd.service")
case("unit-mount-overrides", "g1", "unit-mount-overrides")
case("unit-mount-required", "g1", "unit-mount-required", rule="systemd.unit-broken", where="/etc/systemd/system/data.mount:4")
case("unit-mount-wanted", "g1", "unit-mount-wanted")
case("service-gone", "g1", "service-gone", rule="systemd.unit-broken", where="/etc/systemd/system/agent.service")
case("service-gone-sysinit", "g1", "service-gone-sysinit", rule="systemd.unit-broken", where="/etc/systemd/system/agent.service")
case("service-gone-required", "g1", "service-gone-required", rule="systemd.unit-broken", where="/etc/systemd/system/agent.service")
case("service-local-fs", "g1", "service-local-fs", rule="systemd.unit-broken", where="/etc/systemd/system/agent.service")
case("service-user-gone", "g1", "service-user-gone", rule="systemd.unit-broken", where="/etc/systemd/system/agent.service")
case("service-dangling", "g1", "service-dangling")
case("service-empty", "g1", "service-empty")
case("service-condition", "g1", "service-condition")
case("service-cycle", "g1", "service-cycle")
case("dbus-gone", "g1", "dbus-gone", rule="systemd.unit-broken", where="/usr/lib/systemd/system/dbus.service:9")
case("passwd-empty", "g1", "passwd-empty")
case("fs-full", "g1", "fs-full")
case("fsck-gone", "g1", "fsck-gone")
case("machine-id-gone", "g1", "machine-id-gone")
case("modules-load", "g1", "usr-lib-modules-load")
case("single", "g1", "single", rule="cmdline.debug-leftover", where="/boot/grub/grub.cfg:99 single")
case("runlevel-3", "g1", "runlevel-3")
case("libc-empty", "g1", "libc-empty", rule="rootfs.libs-missing", where="/usr/lib/x86_64-linux-gnu/libc.so.6")
case("os-release-gone", "g2", "os-release-gone", rule="init.missing", where="/etc/os-release")
case("os-release-gone-initramfs-tools", "g1", "os-release-gone")
case("mount-points-gone", "g1", "mount-points-gone", rule="rootfs.mount-points-missing", where="/dev")
case("mount-points-gone-dracut", "g2", "mount-points-gone", rule="rootfs.mount-points-missing", where="/dev")
case("crypttab-asks", "g1", "crypttab-asks", rule="luks.header-or-key", where="/etc/crypttab")
case("crypttab-asks-nofail", "g1", "crypttab-asks-nofail")
case("crypttab-noauto", "g1", "crypttab-noauto")
case("crypttab-key", "g1", "crypttab-key")
case("crypttab-key-wrong", "g1", "crypttab-key-wrong", rule="luks.header-or-key", where="/etc/crypttab")
case("crypttab-key-gone", "g1", "crypttab-key-gone", rule="luks.header-or-key", where="/etc/crypttab")
case("crypttab-name-wrong", "g1", "crypttab-name-wrong", rule="fstab.unresolved-source", where="/etc/fstab:2")

# More of fstab.
case("fstab-short", "g1", "fstab-data-short", rule="fstab.unresolved-source", where=F2)
case("fstab-nfs", "g1", "fstab-nfs", rule="fstab.fstype-wrong", where=F2)
case("fstab-no-path", "g1", "fstab-no-path")
case("fstab-off", "g1", "fstab-off-data", rule="cmdline.debug-leftover", where="/boot/grub/grub.cfg:99 fstab=no")
case("fstab-tmpfs", "g1", "fstab-tmpfs-fine")
case("fstab-tmpfs-option", "g1", "fstab-tmpfs-option", rule="fstab.option-hazard", where=F2)
case("fstab-vdb1", "g1", "fstab-vdb1", rule="fstab.unstable-device", where=F2)
case("fstab-vdb1+1", "g1", "fstab-vdb1", "virtio-blk+1")
case("fstab-required-by", "g1", "fstab-required-by")
case("fstab-requires-unit", "g1", "fstab-requires-unit", rule="fstab.option-hazard", where=F2)
case("fstab-on-file", "g1", "fstab-on-file", rule="fstab.mountpoint-or-bind-invalid", where=F2)
case("fstab-swapfile", "g1", "fstab-swapfile", rule="fstab.swap-missing", where=F2)
case("fstab-twice", "g1", "fstab-twice")
case("fstab-noauto-auto", "g1", "fstab-noauto-auto", rule="fstab.unresolved-source", where=F2)

# More of what comes before.
case("timeout-forever", "g1", "timeout-forever", rule="grub.default-unresolved", where="/boot/grub/grub.cfg timeout=-1")
case("superusers", "g1", "superusers", rule="grub.default-unresolved", where="/boot/grub/grub.cfg:1 superusers")
case("grub-default-gone", "g1", "grub-default-gone")
case("grub-hint-stale", "g1", "grub-hint-stale")
case("grub-module-gone", "g1", "grub-module-gone")
case("root-label", "g1", "root-label")
case("root-missing", "g1", "root-missing", rule="cmdline.root-unresolved", where="/boot/grub/grub.cfg:99 no root=")
case("root-missing-dracut", "g2", "root-missing", rule="cmdline.root-unresolved", where="/boot/grub/grub.cfg:99 no root=")
case("rootflags-bogus", "g1", "rootflags-bogus", rule="cmdline.root-unresolved|fstab.option-hazard", where="/boot/grub/grub.cfg:99 rootflags=")
case("break", "g1", "break", rule="cmdline.debug-leftover", where="/boot/grub/grub.cfg:99 break=premount")
case("rd-break", "g2", "rd-break", rule="cmdline.debug-leftover", where="/boot/grub/grub.cfg:99 rd.break")
case("rd-md-gone", "g2", "rd-md-gone", rule="cmdline.rd-device-missing", where="/boot/grub/grub.cfg:99 rd.md.uuid=")
BLACKLIST = "modprobe.storage-blacklisted"
case("blacklist-word", "g1", "blacklist-word", rule=BLACKLIST, where="/boot/grub/grub.cfg:99 modprobe.blacklist=virtio_blk")
case("blacklist-word-ide", "g1", "blacklist-word", "ide")
case("blacklist-word-dracut", "g2", "blacklist-word", rule=BLACKLIST, where="/boot/grub/grub.cfg:99 modprobe.blacklist=virtio_blk")
case("rd-driver-blacklist", "g2", "rd-driver-blacklist", rule=BLACKLIST, where="/boot/grub/grub.cfg:99 rd.driver.blacklist=virtio_blk")
case("driver-pre", "g2", "driver-pre")
case("blacklist-in-image", "g1", "blacklist-in-image", rule=BLACKLIST, where="/boot/initrd.img-6.1.0-56-cloud-amd64 its etc/modprobe.d/lab.conf")
case("install-in-image", "g1", "install-in-image", rule=BLACKLIST, where="/boot/initrd.img-6.1.0-56-cloud-amd64 its etc/modprobe.d/lab.conf")
case("dracut-no-lvm", "g2", "dracut-no-lvm", rule="initramfs.root-stack-missing", where="/boot/initrd.img-6.1.0-56-cloud-amd64 lvm")
case("initrd-zeros-behind", "g1", "initrd-zeros-behind")
case("initrd-microcode", "g1", "initrd-microcode", rule="initramfs.corrupt", where="/boot/initrd.img-6.1.0-56-cloud-amd64 no /init")
case("initrd-other-kernel", "g1", "initrd-other-kernel", rule="initramfs.kernel-mismatch|initramfs.missing-driver", where="/boot/initrd.img-6.1.0-56-cloud-amd64 lib/modules/6.1.0-55-cloud-amd64")
case("lvm-volume-list", "g2", "lvm-volume-list", rule="lvm.activation-disabled", where="/boot/initrd.img-6.1.0-56-cloud-amd64 its etc/lvm/lvm.conf")
case("lvm-auto-list", "g2", "lvm-auto-list")
case("lvm-text-byte", "g2", "lvm-text-byte", rule="lvm.metadata-damaged", where="disk 0 partition 2")
case("luks-keyslots", "g5luks", "luks-keyslots-zero", rule="luks.header-or-key", where="disk 0 partition 2")
case("ext4-error-flag", "g1", "ext4-error-flag")
case("disk-shrunk", "g1", "disk-shrunk", rule="part.out-of-bounds", where="disk 0 partition 1")
case("disk-shrunk-little", "g1", "disk-shrunk-little", rule="part.out-of-bounds", where="disk 0 partition 1")
case("disk-shrunk-gpt", "g4", "disk-shrunk", rule="gpt.primary-invalid|part.out-of-bounds", where="disk 0 partition 2")
# No volume lies where the end was.
case("disk-shrunk-lvm", "g2", "disk-shrunk-little")

# The same disk twice, as where a copy is attached to repair it.
case("twice-ext4", "g1", disks=[0, 0])
case("twice-lvm", "g2", disks=[0, 0], rule="id.duplicate", where="both disks hold the physical volume")
case("twice-uefi", "g3", hardware="virtio-blk uefi", disks=[0, 0])
case("twice-btrfs", "g4", disks=[0, 0], rule="id.duplicate", where="both disks hold the file system")

# A second set of the same kinds; what was told before the first of it was booted stands in docs/prediction.md.
case("mask-remount", "g1", "mask-remount", rule=TARGET, where="/etc/systemd/system/systemd-remount-fs.service")
case("mask-sysinit", "g1", "mask-sysinit", rule=TARGET, where="/etc/systemd/system/sysinit.target")
case("mask-multi-user", "g1", "mask-multi-user", rule=TARGET, where="/etc/systemd/system/default.target")
case("mask-dbus-socket", "g1", "mask-dbus-socket", rule=TARGET, where="/etc/systemd/system/dbus.socket")
case("mask-emergency", "g1", "mask-emergency")
# A dependency cannot be taken back by a drop-in.
case("no-on-failure", "g1", "no-on-failure", rule="fstab.unresolved-source", where=F2)
case("service-requires-gone", "g1", "service-requires-gone")
case("service-drop-in-gone", "g1", "service-drop-in-gone", rule="systemd.unit-broken", where="/etc/systemd/system/systemd-user-sessions.service.d/lab.conf:3")
case("fstab-cdrom", "g1", "fstab-cdrom", rule="fstab.unstable-device|fstab.unresolved-source", where=F2)
case("fstab-overlay", "g1", "fstab-overlay", rule="fstab.mountpoint-or-bind-invalid", where=F2)
case("fstab-root-twice", "g1", "fstab-root-twice")
case("fstab-swap-on-root", "g1", "fstab-swap-on-root", rule="fs.wrong-type-or-missing|fstab.fstype-wrong", where=F2)
case("fstab-proc", "g1", "fstab-proc")
case("fstab-gone", "g1", "fstab-gone", rule="fstab.root-mismatch", where="/etc/fstab no line for /")
case("fstab-quoted", "g1", "fstab-quoted", rule="fstab.unresolved-source", where=F2)
case("fstab-bom", "g1", "fstab-bom")
case("blacklist-on-root", "g1", "blacklist-on-root")
case("blacklist-xfs", "g2", "blacklist-xfs", rule=BLACKLIST, where="/boot/grub/grub.cfg:99 rd.driver.blacklist=xfs")
case("blacklist-virtio-pci", "g1", "blacklist-virtio-pci", rule=BLACKLIST, where="/boot/grub/grub.cfg:99 module_blacklist=virtio_pci")
case("root-by-label", "g1", "root-by-label")
case("root-rw", "g1", "root-rw")
case("root-rw-dracut", "g2", "root-rw")
case("grub-crlf", "g1", "grub-crlf")
case("grub-brace", "g1", "grub-brace")
case("grub-default-recovery", "g1", "grub-default-recovery", rule="cmdline.debug-leftover", where="/boot/grub/grub.cfg")
case("grubenv-next-entry", "g1", "grubenv-next-entry", rule="cmdline.debug-leftover", where="/boot/grub/grub.cfg")
case("modules-dep-gone", "g3", "modules-dep-gone", "virtio-blk uefi", rule="kernel.modules-missing", where="/usr/lib/modules/6.1.0-56-cloud-amd64")
case("libmount-gone", "g1", "libmount-gone", rule="rootfs.libs-missing", where="libmount.so.1")
case("libmount-gone-dracut", "g2", "libmount-gone", rule="rootfs.libs-missing", where="libmount.so.1")
case("lib-link-gone", "g1", "lib-link-gone", rule="init.missing", where="/sbin/init")
case("sbin-link-gone", "g1", "sbin-link-gone", rule="init.missing", where="/sbin/init")
case("bin-link-gone", "g1", "bin-link-gone", rule="systemd.unit-broken", where="/bin/mount")
case("lib64-link-gone", "g1", "lib64-link-gone", rule="rootfs.libs-missing", where="/lib64/ld-linux-x86-64.so.2")
case("systemd-not-executable", "g1", "systemd-not-executable", rule="init.missing", where="/sbin/init")
case("systemd-not-executable-dracut", "g2", "systemd-not-executable", rule="init.missing", where="/sbin/init")
case("initrd-mode", "g1", "initrd-mode")
case("esp-fallback-empty", "g3", "esp-fallback-empty", "virtio-blk uefi", rule="esp.loader-pair-broken", where=ESP + "EFI/BOOT/BOOTX64.EFI is empty")
case("twice-el", "g6el", disks=[0, 0], rule="id.duplicate", where="both disks hold the physical volume")
case("twice-md", "g5md", disks=[0, 1, 0, 1])
case("twice-ext4-nvme", "g1", hardware="nvme", disks=[0, 0])

# A third set, told with the program as it was after the second.
case("swapfile-nofail", "g1", "swapfile-nofail", rule="fstab.swap-missing", where=F2)
case("nofail-wrong-type", "g1", "nofail-wrong-type", rule="fstab.fstype-wrong", where=F2)
case("root-label-case", "g1", "root-label-case", rule="fstab.unresolved-source|fstab.root-mismatch", where="/etc/fstab:1")
case("fstab-run", "g1", "fstab-run")
case("esp-noauto", "g3", "esp-noauto", "virtio-blk uefi")
case("boot-line-gone", "g2", "boot-line-gone")
case("home-subvolid", "g4", "home-subvolid", rule="fstab.option-hazard", where=F2)
case("failure-reboots", "g1", "failure-reboots", rule="systemd.unit-broken", where="/etc/systemd/system/agent.service")
case("failure-is-emergency", "g1", "failure-is-emergency", rule="systemd.unit-broken", where="/etc/systemd/system/agent.service")
case("service-gone-basic", "g1", "service-gone-basic", rule="systemd.unit-broken", where="/etc/systemd/system/agent.service")
case("mask-udev-trigger", "g3", "mask-udev-trigger", "virtio-blk uefi", rule=TARGET, where="/etc/systemd/system/systemd-udev-trigger.service")
case("rd-lvm-vg", "g2", "rd-lvm-vg")
case("rd-lvm-vg-other", "g2", "rd-lvm-vg-other", rule="cmdline.rd-device-missing|cmdline.root-unresolved", where="/boot/grub/grub.cfg:99 rd.lvm.vg=other")
case("root-xfs-uuid", "g2", "root-xfs-uuid")
case("libpam-gone", "g1", "libpam-gone", rule="rootfs.libs-missing", where="libpam.so.0")
case("ld-conf-gone", "g1", "ld-conf-gone")
case("grubenv-gone", "g1", "grubenv-gone")
case("mdadm-conf-gone", "g5md", "mdadm-conf-gone")
case("disk-quarter", "g1", "disk-quarter", rule="part.out-of-bounds", where="disk 0 partition 1")
case("default-own", "g1", "default-own")
case("default-empty", "g1", "default-empty", rule=TARGET, where="/etc/systemd/system/default.target")
case("root-partuuid-right", "g1", "root-partuuid")

# A fourth set: what the initramfs mounts besides the root, checks, updates before the boot, types of partitions, data volumes.
case("g1usr-virtio", "g1usr")
case("g2usr-virtio", "g2usr")
case("g7-virtio", "g7")
case("g8data-virtio", "g8data")
case("g1usr-scsi+1", "g1usr", hardware="virtio-scsi+1")
case("g7-nvme", "g7", hardware="nvme")
case("g8data-scsi", "g8data", hardware="virtio-scsi")
case("g1usr-sata", "g1usr", hardware="sata", **NO_AHCI)
case("g7-uefi", "g7", hardware="virtio-blk uefi", rule="fw.no-boot-path|hyp.firmware-mismatch", where="no EFI system partition")
USR = dict(g1usr="/etc/fstab:2 /usr", g2usr="/etc/fstab:4 /usr")
for guest, where in USR.items():
    case(guest + "-uuid-gone", guest, "usr-uuid-gone", rule="fstab.unresolved-source", where=where)
    case(guest + "-line-gone", guest, "usr-line-gone", rule="init.missing", where="/sbin/init as nothing mounts /usr")
    case(guest + "-type-wrong", guest, "usr-type-wrong", rule="fstab.fstype-wrong", where=where)
    case(guest + "-nofail-gone", guest, "usr-nofail-gone", rule="fstab.unresolved-source", where=where)
    case(guest + "-noauto", guest, "usr-noauto", rule=None if guest == "g1usr" else "fstab.option-hazard", where=None if guest == "g1usr" else where)
    case(guest + "-option", guest, "usr-option", rule="fstab.option-hazard", where=where)
    case(guest + "-slash", guest, "usr-slash", rule="fstab.syntax|init.missing" if guest == "g1usr" else None, where=where if guest == "g1usr" else None)
    case(guest + "-quoted", guest, "usr-quoted")
    # busybox' mount takes what it does not know for the driver's.
    case(guest + "-device-timeout", guest, "usr-device-timeout", rule="fstab.option-hazard" if guest == "g1usr" else None, where=where if guest == "g1usr" else None)
    case(guest + "-empty", guest, "usr-empty", rule="fs.wrong-type-or-missing|fstab.unresolved-source", where=where)
    case(guest + "-vda", guest, "usr-vda")
case("g1usr-vda-scsi", "g1usr", "usr-vda", "virtio-scsi", rule="fstab.unstable-device", where=USR["g1usr"])
case("g2usr-vda-scsi", "g2usr", "usr-vda", "virtio-scsi", rule="fstab.unstable-device", where=USR["g2usr"])
case("g1usr-broken", "g1usr", "usr-broken", rule="fs.ext4-errors", where="disk 0 partition 2")
case("initrd-mount-gone", "g1", "initrd-mount-gone", rule="fstab.unresolved-source", where=F2)
case("initrd-mount-gone-dracut", "g2", "initrd-mount-gone", rule="fstab.unresolved-source", where="/etc/fstab:4")
case("initrd-mount-nofail-dracut", "g2", "initrd-mount-nofail")
case("initrd-mount-short-dracut", "g2", "initrd-mount-short", rule="fstab.unresolved-source", where="/etc/fstab:4")
case("initrd-mount-type-dracut", "g2", "initrd-mount-type", rule="fstab.fstype-wrong", where="/etc/fstab:4")
case("initrd-mount-tmpfs-dracut", "g2", "initrd-mount-tmpfs")
EXT4 = "fs.ext4-errors"
case("root-broken", "g1", "root-broken", rule=EXT4, where="disk 0 partition 1")
case("root-broken-dracut", "g7", "root-broken", rule=EXT4, where="disk 0 partition 2")
case("root-broken-unmarked", "g1", "root-broken-unmarked")
case("root-broken-lightly", "g1", "root-broken-lightly")
case("root-broken-skipped", "g1", "root-broken-skipped")
case("root-broken-skipped-dracut", "g7", "root-broken-skipped")
case("root-broken-forced", "g1", "root-broken-forced", rule=EXT4, where="disk 0 partition 1")
case("root-broken-repaired", "g1", "root-broken-repaired")
case("root-broken-repaired-dracut", "g7", "root-broken-repaired")
case("fsck-forced", "g1", "fsck-forced")
case("fsck-forced-dracut", "g7", "fsck-forced")
FEATURE = "kernel.fs-feature-unsupported"
case("root-compat-unknown", "g1", "root-compat-unknown", rule=FEATURE + "|fs.ext4-errors", where="disk 0 partition 1")
case("root-ro-compat-unknown", "g1", "root-ro-compat-unknown", rule=FEATURE, where="disk 0 partition 1")
case("root-ro-compat-unknown-dracut", "g7", "root-ro-compat-unknown", rule=FEATURE, where="disk 0 partition 2")
case("root-incompat-unknown", "g1", "root-incompat-unknown", rule=FEATURE + "|grub.fs-unreadable", where="disk 0 partition 1")
case("root-journal-gone", "g1", "root-journal-gone")
case("root-journal-gone-dracut", "g7", "root-journal-gone")
case("xfs-needs-repair", "g2", "xfs-needs-repair", rule="fs.xfs-corrupt|" + FEATURE, where="centos/root")
case("xfs-root-crc", "g2", "xfs-root-crc", rule="fs.xfs-corrupt", where="centos/root")
case("data-broken", "g8data", "data-broken", rule=EXT4, where="data/files")
case("data-broken-unchecked", "g8data", "data-broken-unchecked")
case("data-compat-unknown", "g8data", "data-compat-unknown", rule=FEATURE + "|fs.ext4-errors", where="data/files")
case("data-incompat-unknown", "g8data", "data-incompat-unknown", rule=FEATURE, where="data/files")
case("data-ro-compat-unknown", "g8data", "data-ro-compat-unknown", rule=FEATURE, where="data/files")
case("data-gone", "g8data", disks=[0], rule="fstab.unresolved-source|lvm.pv-missing", where=F2)
# SeaBIOS starts the first hard disk, and no other.
case("data-first", "g8data", disks=[1, 0], rule="mbr.signature-missing", where="disk 0 of the machine is the data disk")
case("data-nofail-gone", "g8data", "data-nofail", disks=[0])
case("data-by-uuid", "g8data", "data-by-uuid")
# initramfs-tools puts the rules for events into its image, dracut activates what its command line names: the root's settings count
# for what comes after that.
for name in ("filter", "global-filter", "no-events", "auto-list", "volume-list", "devices-other"):
    case("data-" + name, "g8data", "data-" + name)
case("data-filter-scsi", "g8data", "data-filter", "virtio-scsi")
LVM_OFF = "lvm.activation-disabled"
case("g9data-virtio", "g9data")
case("g9data-gone", "g9data", disks=[0], rule="fstab.unresolved-source|lvm.pv-missing", where="/etc/fstab:4")
case("data-filter-dracut", "g9data", "data-filter", rule="lvm.filter-excludes", where="/etc/lvm/lvm.conf filter")
case("data-global-filter-dracut", "g9data", "data-global-filter", rule="lvm.filter-excludes", where="/etc/lvm/lvm.conf global_filter")
case("data-no-events-dracut", "g9data", "data-no-events", rule=LVM_OFF, where="/etc/lvm/lvm.conf event_activation")
case("data-auto-list-dracut", "g9data", "data-auto-list", rule=LVM_OFF, where="/etc/lvm/lvm.conf auto_activation_volume_list")
case("data-volume-list-dracut", "g9data", "data-volume-list", rule=LVM_OFF, where="/etc/lvm/lvm.conf volume_list")
case("data-devices-other-dracut", "g9data", "data-devices-other", rule="lvm.devices-file-excludes", where="/etc/lvm/devices/system.devices")
case("data-label", "g8data", "data-label-zero", rule="lvm.pv-missing", where="disk 1, byte 512")
LOOP = "systemd.offline-update-loop"
case("update", "g1", "update")
case("update-dracut", "g2", "update")
case("update-stuck", "g1", "update-stuck", rule=LOOP, where="/system-update")
case("update-fails", "g1", "update-fails", rule=LOOP, where="/system-update")
case("update-single", "g1", "update-single")
case("home-zero", "g7", "home-zero", rule="fs.wrong-type-or-missing", where="disk 0 partition 3")
case("home-incompat-unknown", "g7", "home-incompat-unknown", rule=FEATURE, where="disk 0 partition 3")
case("home-broken", "g7", "home-broken", rule=EXT4, where="disk 0 partition 3")
case("home-no-auto", "g7", "home-no-auto")
case("gpt-auto-off", "g7", "gpt-auto-off")
case("root-missing-gpt", "g7", "root-missing", rule="cmdline.root-unresolved", where="/boot/grub/grub.cfg:99 no root=")
case("machine-id-uninitialized", "g1", "machine-id-uninitialized")
case("machine-id-empty", "g1", "machine-id-empty")
case("machine-id-gone-dracut", "g2", "machine-id-gone")
case("group-empty", "g1", "group-empty", rule="systemd.unit-broken", where="/etc/group is empty, and /etc/gshadow is not")
case("shadow-gone", "g1", "shadow-gone")
case("ssh", "g7", "ssh")
case("ssh-keys-gone", "g7", "ssh-keys-gone", rule="tpl.ssh-hostkeys|systemd.unit-broken", where="/etc/ssh")
case("root-of-nothing", "g1", "root-of-nothing", rule="cmdline.root-unresolved|cmdline.root-bare-device", where="/boot/grub/grub.cfg:99 root=/dev/vda")
case("grub-fallback", "g1", "grub-fallback", rule="cmdline.debug-leftover", where="/boot/grub/grub.cfg")

# Cases whose real boot differed from the first prediction, and what was learnt from each; the simulator was changed after it.
CORRECTED = {
    "b8uefi": "grub-rescue was told: OVMF writes a good copy of the GPT over a bad one before GRUB reads it",
    "initrd-half-dracut": "dracut-emergency was told: a program runs only with its loader and libraries, which come behind the cut",
    "initrd-cut-end": "login was told: of a file with several names the last one in the archive brings the content",
    "b22-systemd": "another place was named: /sbin/init is a link, and the file behind it is empty",
    "resume-gone-dracut": "login was told: dracut gives up on resume=, systemd's generator in the image does not",
    "no-rd-lvm": "dracut-emergency was told: dracut's test whether any volume is named is never true, and it activates all",
    "md-superblock": "login was told: an array without one of its members runs degraded",
    "grub-linux-mod": "login was told: GRUB's linux command is a module of its own",
    "shim-list-stale": "reboot-loop was told: shim's fallback program shows for 500 seconds what it did not find before it resets",
    "selinux-not-enforced": "login was told: with SELinux in the kernel and no policy systemd cannot label its sockets",
    "selinux-off": "login was told: a kernel built without that switch passes selinux=0 over",
    "selinux-permissive": "login was told: as for the one that is not enforced",
    "fstab-root-uuid": "login was told: mount(8) looks for the tag when it mounts / anew, and / stays read-only",
    "fstab-empty": "login was told: nothing makes / writable without a line for it",
    "fstab-bind": "emergency was told: systemd makes the directory that a bind mount is to show",
    "fstab-esp-option": "login was told: a driver refuses an option that it does not know",
    "modules-gone": "another cause was named: the modules that the initramfs has loaded stay loaded",
    "g5luks-sata": "another cause was named: what a crypttab opens lies on a disk without a driver",
}

# Three later sets, told with the program as it was before each was booted: the number of cases, those told otherwise, and why.
SETS = [
    ("units, crypttab, more of fstab, of the command line and of disks", 92, [
        (("default-masked", "multi-user-gone", "target-missing", "mask-basic", "mask-local-fs", "mask-data", "mask-by-word", "mask-udevd-esp",
          "unit-mount-overrides", "unit-mount-required", "service-gone", "service-gone-sysinit", "service-gone-required", "service-local-fs",
          "service-user-gone", "dbus-gone"), "units were not examined beyond the link of the default target"),
        (("crypttab-asks", "crypttab-key", "crypttab-key-wrong", "crypttab-key-gone"), "what crypttab opens after the root was not examined"),
        (("libc-empty",), "only the loader of init was looked for, not its libraries"),
        (("os-release-gone", "mount-points-gone", "mount-points-gone-dracut"), "what an initramfs wants of a root file system besides init"),
        (("fstab-nfs", "fstab-off", "fstab-tmpfs-option", "fstab-requires-unit", "fstab-on-file", "fstab-swapfile"), "mounts without a device were taken to work"),
        (("root-missing", "root-missing-dracut", "rootflags-bogus", "break", "rd-break", "rd-md-gone"), "words of the command line that were not read"),
        (("blacklist-word", "blacklist-word-dracut", "rd-driver-blacklist", "blacklist-in-image", "install-in-image"), "blacklists were not read"),
        (("lvm-volume-list",), "volume_list was not read"),
        (("disk-shrunk", "disk-shrunk-little"), "the kernel compares the length of a file system with its device"),
        (("twice-lvm", "twice-btrfs"), "identities that are there twice"),
    ]),
    ("the same kinds", 40, [
        (("mask-dbus-socket",), "a service that its socket starts is started without it, and fails"),
        (("mask-emergency",), "without emergency.target nothing stops the boot"),
        (("fstab-overlay", "fstab-swap-on-root", "fstab-gone"), "folders of an overlay, the type of swap, no fstab at all"),
        (("blacklist-xfs",), "a file system's driver is asked for by its alias as well"),
        (("lib-link-gone", "bin-link-gone", "systemd-not-executable-dracut"), "what a shell and mount(8) need in their turn"),
        (("twice-el",), "as before; the program had not been changed yet"),
    ]),
    ("the same kinds again", 22, [
        (("home-subvolid",), "only the names of subvolumes were compared, not their numbers"),
        (("mask-udev-trigger",), "without it udev announces none of the devices that were there before"),
        (("disk-quarter",), "the initramfs lies behind the end of the disk; GRUB starts the kernel without it"),
    ]),
    ("/usr and other mounts of the initramfs, checks, features, updates before the boot, types of partitions, data volumes", 92, [
        (("g1usr-uuid-gone", "g1usr-type-wrong", "g1usr-nofail-gone", "g1usr-option", "g1usr-slash", "g1usr-empty", "g1usr-vda-scsi", "g2usr-type-wrong",
          "g2usr-nofail-gone", "g2usr-noauto", "g2usr-option", "initrd-mount-type-dracut"), "what an initramfs mounts besides the root was not examined"),
        (("g1usr-device-timeout",), "busybox' mount passes words for systemd on to the driver, which refuses"),
        (("g2usr-uuid-gone", "g2usr-empty", "g2usr-vda-scsi", "initrd-mount-gone-dracut"),
         "after the wait for a device dracut's systemd stops its emergency shell and waits anew, without end"),
        (("g1usr-broken", "root-broken", "root-broken-dracut", "root-broken-forced", "root-compat-unknown", "data-broken", "data-compat-unknown", "home-broken"),
         "what e2fsck -a comes to was not examined"),
        (("root-ro-compat-unknown", "root-ro-compat-unknown-dracut", "xfs-needs-repair", "xfs-root-crc", "data-incompat-unknown", "data-ro-compat-unknown",
          "home-incompat-unknown"), "file systems that the kernel's driver does not take"),
        (("update-stuck", "update-fails"), "updates before the boot"),
        (("home-zero",), "what is mounted by the type of its partition"),
        (("root-missing-gpt",), "without a variable of the loader systemd finds no root by its type"),
        (("data-first",), "SeaBIOS starts the first hard disk, and no other"),
        (("data-label",), "another cause was named: the label of a physical volume"),
        (("group-empty",), "systemd-sysusers does not make a group that /etc/gshadow has"),
        (("grub-fallback",), "GRUB 2.06 tries the fallback also where the last line of an entry hides that it failed"),
    ]),
    ("a volume group whose activation the root file system's settings decide", 8, []),
]
