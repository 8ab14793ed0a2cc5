"""Breakages of what the initramfs mounts besides the root, of checks at boot, of updates before the boot, of what is mounted by
its type alone, and of volume groups that the root file system's own settings activate. Imported by faults.py.
"""
import os, re, shutil

from disk import chroot, shell
from faults import FAULTS, GONE, ROOT, all_of, command_line, fault, fstab, mask, removed, rewrite, with_unit

USR = re.compile(r"(?m)^(UUID=\S+) /usr (\S+) (\S+) (.*)$")


def usr(change):
    """Changes the line of /usr: (source, type, options, rest) in and out."""
    return lambda m: m.edit("/etc/fstab", lambda text: USR.sub(lambda found: change(*found.groups()), text))


def data_volume(m):
    """The one of g8data: the whole second disk is a physical volume."""
    disk = m.disks[1]
    return disk, disk.logical_volume((0, disk.size), "data", "files")


def debugfs(part, *commands):
    """Damages an ext4 as its own debugger does, and has the kernel's mark of errors put on it where it is among the commands."""
    def change(m):
        disk, where = part(m)
        with disk.loop(where) as device:
            # Without -D the loop device would still show what was there before.
            for command in commands:
                shell("debugfs -w -R '%s' %s" % (command, device))
    return change


ROOT_PART = lambda m: (m.disk, m.root_part)
USR_PART = lambda m: (m.disk, m.usr_part)
HOME_PART = lambda m: (m.disk, m.home_part)
ERRORS = "ssv state 2"


def on_root(path, text):
    def change(m):
        with m.root() as folder:
            os.makedirs(os.path.dirname(folder + path), exist_ok=True)
            with open(folder + path, "w") as file:
                file.write(text)
    return change


def root_lvm_conf(section, text):
    """Words for lvm.conf of the root file system; the initramfs keeps the one it has."""
    return lambda m: m.edit("/etc/lvm/lvm.conf", lambda old: re.sub(r"(?m)^%s \{" % section, "%s {\n\t%s" % (section, text), old, count=1))


def update_link(m):
    with m.root() as folder:
        os.symlink("/var/lib/system-update", folder + "/system-update")


def no_auto(m):
    shell("sgdisk -A 3:set:63 %s" % m.disk.raw)


def ssh(m):
    """The server from Debian, with host keys that its package makes when it is installed."""
    with m.root() as folder:
        shutil.copy("/etc/resolv.conf", folder + "/etc/resolv.conf")
        with chroot(folder) as run:
            run("sh -c 'apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends openssh-server && apt-get clean'")
        os.unlink(folder + "/etc/resolv.conf")
        shell("rm -rf %s/var/lib/apt/lists/*" % folder)


def ssh_keys_gone(m):
    """What is done to a template, and in Debian nothing makes new ones."""
    with m.root() as folder:
        shell("rm %s/etc/ssh/ssh_host_*" % folder)


for name, change in {
    "ssh": ssh,
    "ssh-keys-gone": all_of(ssh, ssh_keys_gone),
    # /usr, which has to be there before the system's own init runs.
    "usr-uuid-gone": usr(lambda source, kind, options, rest: "UUID=%s /usr %s %s %s" % (GONE, kind, options, rest)),
    "usr-line-gone": usr(lambda *_: "# no /usr"),
    "usr-type-wrong": usr(lambda source, kind, options, rest: "%s /usr %s %s %s" % (source, "xfs" if kind == "ext4" else "ext4", options, rest)),
    "usr-nofail-gone": usr(lambda source, kind, options, rest: "UUID=%s /usr %s nofail %s" % (GONE, kind, rest)),
    "usr-noauto": usr(lambda source, kind, options, rest: "%s /usr %s noauto %s" % (source, kind, rest)),
    "usr-option": usr(lambda source, kind, options, rest: "%s /usr %s bogus=1 %s" % (source, kind, rest)),
    "usr-device-timeout": usr(lambda source, kind, options, rest: "%s /usr %s defaults,x-systemd.device-timeout=30 %s" % (source, kind, rest)),
    "usr-vda": usr(lambda source, kind, options, rest: "/dev/vda%d /usr %s %s %s" % (2 if kind == "ext4" else 3, kind, options, rest)),
    "usr-slash": usr(lambda source, kind, options, rest: "%s /usr/ %s %s %s" % (source, kind, options, rest)),
    "usr-quoted": usr(lambda source, kind, options, rest: '%s="%s" /usr %s %s %s' % (*source.split("="), kind, options, rest)),
    "usr-empty": lambda m: m.disk.zero(m.usr_part[0], 1 << 20),
    "usr-broken": debugfs(USR_PART, "clri sbin", ERRORS),
    # What an initramfs of systemd mounts as well.
    "initrd-mount-gone": fstab("UUID=%s /data ext4 x-initrd.mount 0 2" % GONE),
    "initrd-mount-nofail": fstab("UUID=%s /data ext4 x-initrd.mount,nofail 0 2" % GONE),
    "initrd-mount-short": fstab("UUID=%s /data ext4 x-initrd.mount,x-systemd.device-timeout=5 0 2" % GONE),
    "initrd-mount-type": fstab("LABEL=boot /data ext4 x-initrd.mount 0 0"),
    "initrd-mount-tmpfs": fstab("tmpfs /mnt tmpfs x-initrd.mount 0 0"),
    # Checks.
    "root-broken": debugfs(ROOT_PART, "clri var/lib/dpkg", ERRORS),
    "root-broken-unmarked": debugfs(ROOT_PART, "clri var/lib/dpkg"),
    "root-broken-lightly": debugfs(ROOT_PART, "clri etc/motd", ERRORS),
    "root-broken-skipped": all_of(debugfs(ROOT_PART, "clri var/lib/dpkg", ERRORS), command_line(lambda line: line + " fsck.mode=skip")),
    "root-broken-forced": all_of(debugfs(ROOT_PART, "clri var/lib/dpkg"), command_line(lambda line: line + " fsck.mode=force")),
    "root-broken-repaired": all_of(debugfs(ROOT_PART, "clri var/lib/dpkg", ERRORS), command_line(lambda line: line + " fsck.repair=yes")),
    "fsck-forced": command_line(lambda line: line + " fsck.mode=force"),
    "root-compat-unknown": debugfs(ROOT_PART, "feature +FEATURE_C30"),
    "root-ro-compat-unknown": debugfs(ROOT_PART, "feature +FEATURE_R30"),
    "root-incompat-unknown": debugfs(ROOT_PART, "feature +FEATURE_I30"),
    "root-journal-gone": debugfs(ROOT_PART, "clri <8>"),
    "data-broken": debugfs(data_volume, "clri <2>", ERRORS),
    "data-broken-unchecked": all_of(debugfs(data_volume, "clri <11>", ERRORS), lambda m: m.edit("/etc/fstab", lambda text: text.replace("defaults 0 2", "defaults 0 0"))),
    "data-compat-unknown": debugfs(data_volume, "feature +FEATURE_C30"),
    "data-incompat-unknown": debugfs(data_volume, "feature +FEATURE_I30"),
    "data-ro-compat-unknown": debugfs(data_volume, "feature +FEATURE_R30"),
    # The volume group that udev activates after the root was mounted.
    "data-filter": root_lvm_conf("devices", 'filter = [ "r|/dev/vdb|" ]'),
    "data-global-filter": root_lvm_conf("devices", 'global_filter = [ "a|^/dev/vda|", "r|.*|" ]'),
    "data-no-events": root_lvm_conf("global", "event_activation = 0"),
    "data-auto-list": root_lvm_conf("activation", 'auto_activation_volume_list = [ "other" ]'),
    "data-volume-list": root_lvm_conf("activation", 'volume_list = [ "other" ]'),
    "data-devices-other": all_of(root_lvm_conf("devices", "use_devicesfile = 1"),
                                 on_root("/etc/lvm/devices/system.devices", "VERSION=1.1.1\nIDTYPE=devname IDNAME=/dev/vdc DEVNAME=/dev/vdc PVID=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n")),
    "data-label-zero": lambda m: m.disks[1].zero(512, 512),
    "data-nofail": lambda m: m.edit("/etc/fstab", lambda text: text.replace("/data ext4 defaults", "/data ext4 nofail")),
    "data-by-uuid": lambda m: m.edit("/etc/fstab", lambda text: text.replace("/dev/mapper/data-files", "UUID=88888888-aaaa-4bbb-8ccc-000000000008")),
    # Updates that were put off to the next boot.
    "update": update_link,
    "update-stuck": all_of(update_link, mask("system-update-cleanup.service")),
    "update-fails": all_of(update_link, with_unit("agent.service", "[Unit]\nDefaultDependencies=no\nRequires=sysinit.target\nAfter=sysinit.target\nBefore=system-update.target\n"
                                                  "FailureAction=reboot-force\n[Service]\nType=oneshot\nExecStart=/usr/local/bin/no-such-program\n", "system-update.target.wants")),
    "update-single": all_of(update_link, command_line(lambda line: line + " systemd.unit=multi-user.target")),
    # What systemd mounts by the types of partitions alone.
    "home-zero": lambda m: m.disk.zero(m.home_part[0], 1 << 20),
    "home-incompat-unknown": debugfs(HOME_PART, "feature +FEATURE_I30"),
    "home-broken": debugfs(HOME_PART, "clri <2>", ERRORS),
    "home-no-auto": no_auto,
    "gpt-auto-off": all_of(debugfs(HOME_PART, "feature +FEATURE_I30"), command_line(lambda line: line + " systemd.gpt_auto=0")),
    # First boots, users.
    "machine-id-uninitialized": on_root("/etc/machine-id", "uninitialized\n"),
    "machine-id-empty": on_root("/etc/machine-id", ""),
    "group-empty": on_root("/etc/group", ""),
    "shadow-gone": removed("/etc/shadow"),
    "root-of-nothing": command_line(lambda line: re.sub(ROOT, "root=/dev/vda", line)),
    "grub-fallback": lambda m: m.grub_cfg(lambda text: re.sub(r"(?m)^(\tlinux\t)\S+", r"\1/boot/nothing", text, count=1).replace("set timeout=1\n", 'set timeout=1\nset fallback="1"\n', 1)),
}.items():
    FAULTS[name] = change


@fault
def xfs_needs_repair(m):
    """The mark that xfs_repair takes away when it is done."""
    with m.disk.loop(m.root_part) as device:
        shell("xfs_db -x -c 'sb 0' -c 'write features_incompat 0x1b' %s" % device)


@fault
def xfs_root_crc(m):
    """A byte of the superblock's summary counters, and not of its checksum."""
    at = m.root_part[0] + 128
    m.disk.write(at, bytes([m.disk.read(at, 1)[0] ^ 1]))
