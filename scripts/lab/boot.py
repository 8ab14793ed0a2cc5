#!/usr/bin/env python3
"""Boots disks in QEMU (TCG, no network) on throw-away overlays and says how far the guest got.

    boot.py DISK... [--bus virtio-blk|virtio-scsi|sata|ide|nvme|pvscsi|lsi53c895a|lsisas|megasas] [--firmware bios|uefi] [--first N]
            [--send REGEX=TEXT] [--check] [--log FILE]

The images are never written. `--first N` puts N blank disks before the guest's own; the firmware still boots
the guest's first disk. The result is JSON: outcome (the words of docs/architecture.md), evidence (the line that
shows the state), cause (the line that names the reason), seconds, and the versions the console told.

COM1 is the guest's serial console (GRUB, kernel, getty). What the BIOS writes on the text screen ("No bootable
device", "grub rescue>") never reaches COM1: SeaBIOS mirrors it to COM2 when `etc/sercon-port` says so.
"""
import argparse, json, os, re, select, shutil, subprocess, sys, tempfile, time

LAB = os.environ.get("LAB", os.path.expanduser("~/guestmend-lab"))
OVMF = "/usr/share/OVMF/OVMF_%s_4M.fd"

# QEMU's name of the controller.
SCSI = {"pvscsi": "pvscsi", "lsi53c895a": "lsi53c895a", "lsisas": "mptsas1068", "megasas": "megasas"}

# What the console shows in each outcome. Where several match, the first listed wins.
OUTCOMES = [(name, re.compile(pattern, re.M)) for name, pattern in [
    ("kernel-panic", r"Kernel panic - not syncing.*"),
    ("dracut-emergency", r"^(Entering emergency mode\. Exit the shell to continue\.|Generating \"/run/initramfs/rdsosreport\.txt\").*"),
    ("initramfs-shell", r"^\(initramfs\)"),
    ("shell-as-init", r"^(/bin/)?sh: 0: can't access tty.*"),
    ("emergency", r"^.*(You are in emergency mode|Cannot open access to console, the root account is locked).*"),
    ("rescue", r"^.*You are in rescue mode.*"),
    ("systemd-freeze", r"^.*systemd\[1\]: .*Freezing.*|^.*\[!!!!!!\].*"),
    ("login", r"^[A-Za-z0-9._-]+ login: ?"),
    # The serial line's getty is missing where a slow host made dev-ttyS0.device time out.
    ("login", r"^.*Reached target .*multi-user\.target.*"),
    ("luks-prompt", r"^.*Please (unlock|enter passphrase for) disk .*"),
    ("grub-rescue", r"^(grub rescue>|Entering rescue mode\.\.\.).*"),
    ("grub-prompt", r"^\s*(grub>|.*Minimal BASH-like line editing is supported).*"),
    ("grub-error", r"^.*Failed to boot both default and fallback entries.*|^.*(GRUB )?(Geom|Hard Disk|Read) Error.*"
                   r"|^.*Press any key to continue\.\.\..*"),
    ("no-bootable-device", r"^.*(No bootable device|No bootable option or device was found|UEFI Interactive Shell v|not a bootable disk).*"),
    # A wait without end, as x-systemd.device-timeout=0 makes it; dracut's own is cut short by rd.retry.
    ("hang", r"^.*A start job is running for .* / no limit\)"),
]]
# GRUB waits 10 s (on a busy host many more) after "Press any key" and then boots what it has; firmware tries the next disk. So these
# outcomes count only when nothing further happened for so long.
PATIENCE = {"grub-error": 70, "no-bootable-device": 12, "luks-prompt": 12, "hang": 150}
BEFORE_KERNEL = {"grub-rescue", "grub-prompt", "grub-error", "no-bootable-device"}
STAGES = [(name, re.compile(pattern, re.M)) for name, pattern in [
    ("firmware", r"SeaBIOS|BdsDxe|UEFI firmware"),
    ("bootdisk", r"Booting from|BdsDxe: starting"),
    ("grub", r"GRUB loading|Welcome to GRUB|GNU GRUB|^GRUB"),
    ("kernel", r"Linux version \d"),
    ("initramfs", r"Loading, please wait|Begin: |running in initrd|dracut-"),
    ("userspace", r"Welcome to .*(Debian GNU/Linux|CentOS Linux) [0-9]+ \(|Switching root"),
]]
# The line that names the cause, most telling first.
CAUSES = [re.compile(pattern) for pattern in [
    r"ALERT!.*", r"Timed out waiting for device(?!.*ttyS0).*", r"Kernel panic - not syncing.*",
    r"WARNING: .*(mda header|[Cc]hecksum).*|Volume group .* not found.*|.*devices file.*|.*Couldn't find device.*",
    r"Warning: \"?/dev/\S+ does not exist.*", r".*dracut.*Could not boot.*",
    r"^error: (?!no suitable video|no video).*", r".*(Superblock.*(bad|corrupt)|Invalid superblock|[Bb]ad magic).*",
    r".*(Boot failed|No bootable device|No bootable option|failed to load Boot).*",
    r".*(unknown filesystem type|wrong fs type|bad option|Unrecognized mount option|Unknown parameter).*",
    r".*Failed to (load|isolate|start|mount|execute|run) .*", r".*Please unlock disk.*", r".*\[(FAILED|DEPEND)\].*",
]]
VERSIONS = {
    "seabios": re.compile(r"SeaBIOS \(version ([^)]+)\)"), "kernel": re.compile(r"Linux version (\S+)"),
    "grub": re.compile(r"GNU GRUB\s+version ([\w.~+-]+)"), "systemd": re.compile(r"systemd(?:\[1\]:)? (?:systemd )?(\d+[\w.~+-]*) running in system mode"),
    "dracut": re.compile(r"(dracut-\d+[\w.~+-]*)"),
}
ANSI = re.compile(rb"\x1b\[[0-9;?=<>]*[ -/]*[@-~]|\x1b[()][A-Z0-9]|\x1b[=>78cDEHM]|\x0f|\x0e")


def clean(raw):
    text = ANSI.sub(b"", raw).replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\0", b"")
    return text.decode("utf-8", "replace")


def image_format(path):
    info = subprocess.run(["qemu-img", "info", "--output=json", "-U", path], capture_output=True, text=True)
    if info.returncode:
        raise OSError(info.stderr.strip().splitlines()[-1])
    return json.loads(info.stdout)["format"]


def overlay(image, path):
    made = subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", image_format(image), "-b", os.path.abspath(image), path],
                          capture_output=True, text=True)
    if made.returncode:
        raise OSError(made.stderr.strip().splitlines()[-1])
    return path


def command(disks, bus, firmware, folder):
    """QEMU's command line; `disks` are (file, format, boot order)."""
    machine = "pc" if bus == "ide" or (firmware == "bios" and bus in ("virtio-blk", "virtio-scsi")) else "q35"
    line = ["qemu-system-x86_64", "-machine", machine, "-accel", "tcg,thread=multi", "-cpu", "Nehalem", "-smp", "2", "-m", "1024",
            "-nodefaults", "-vga", "none", "-display", "none", "-nic", "none", "-no-reboot",
            "-chardev", "stdio,id=s0,signal=off", "-serial", "chardev:s0",
            "-chardev", "file,id=s1,path=" + folder + "/bios.log", "-serial", "chardev:s1"]
    if firmware == "bios":
        with open(folder + "/sercon", "wb") as port:
            port.write(b"\xf8\x02")  # 0x2f8, COM2
        line += ["-fw_cfg", "name=etc/sercon-port,file=" + folder + "/sercon"]
    else:
        if not os.path.exists(folder + "/vars.fd"):
            shutil.copy(OVMF % "VARS", folder + "/vars.fd")  # empty NVRAM, as on a new machine
        line += ["-drive", "if=pflash,format=raw,readonly=on,file=" + OVMF % "CODE", "-drive", "if=pflash,format=raw,file=" + folder + "/vars.fd"]
    if bus == "virtio-scsi":
        line += ["-device", "virtio-scsi-pci,id=scsi0,addr=0x5"]
    elif bus in SCSI:
        line += ["-device", SCSI[bus] + ",id=scsi0,addr=0x5"]
    for i, (file, kind, order) in enumerate(disks):
        device = {"virtio-blk": "virtio-blk-pci,drive=d%d,addr=0x%x" % (i, 5 + i), "virtio-scsi": "scsi-hd,drive=d%d,bus=scsi0.0,scsi-id=%d" % (i, i),
                  "sata": "ide-hd,drive=d%d,bus=ide.%d" % (i, i), "ide": "ide-hd,drive=d%d,bus=ide.%d,unit=%d" % (i, i // 2, i % 2),
                  "nvme": "nvme,drive=d%d,serial=lab%d,addr=0x%x" % (i, i, 5 + i)}.get(bus, "scsi-hd,drive=d%d,bus=scsi0.0,scsi-id=%d" % (i, i))
        line += ["-drive", "if=none,id=d%d,format=%s,file=%s,cache=unsafe" % (i, kind, file), "-device", "%s,bootindex=%d" % (device, order)]
    return line


class Console:
    """QEMU's two serial lines, read as they come."""

    def __init__(self, line, folder, log):
        self.bios_log, self.log, self.raw, self.errors = folder + "/bios.log", open(log, "ab"), b"", open(folder + "/errors", "w+b")
        self.process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.text, self.bios, self.last = "", "", time.time()

    def read(self, wait=0.5):
        if select.select([self.process.stdout], [], [], wait)[0]:
            chunk = self.process.stdout.read() or b""
            if chunk:
                self.raw += chunk
                self.log.write(chunk)
                self.log.flush()
                self.text, self.last = clean(self.raw), time.time()
            else:
                time.sleep(wait)
        try:
            bios = clean(open(self.bios_log, "rb").read())
        except OSError:
            bios = ""
        if len(bios) > len(self.bios):
            self.bios, self.last = bios, time.time()

    def type(self, text):
        try:
            self.process.stdin.write(text.encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            pass

    def wait_for(self, pattern, seconds, start=0):
        end = time.time() + seconds
        while time.time() < end and self.process.poll() is None:
            self.read()
            found = re.search(pattern, self.text[start:], re.M | re.S)
            if found:
                return found
        return None

    def close(self):
        if self.log.closed:
            return
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.write(b"\n===== BIOS text screen\n" + self.bios.encode())
        self.log.close()


def watch(console, timeout, idle, send):
    """Reads until the outcome is clear: (outcome, evidence, stages)."""
    start, stages, waiting, typed = time.time(), {}, None, set()
    while True:
        console.read()
        now, both = time.time(), console.bios + "\n" + console.text
        for name, pattern in STAGES:
            if name not in stages and pattern.search(both):
                stages[name] = round(now - start, 1)
        for pattern, text in send:
            if pattern not in typed and re.search(pattern, console.text, re.M):
                typed.add(pattern)
                time.sleep(1)
                console.type(text + "\n")
        found = None
        for name, pattern in OUTCOMES:
            if (name in BEFORE_KERNEL and "kernel" in stages) or (name == "luks-prompt" and send):
                continue
            match = pattern.search(console.text) or pattern.search(console.bios)
            if match:
                found = name, match.group(0).strip()
                break
        patience = 30 if found and "multi-user" in found[1] else PATIENCE.get(found[0], 0) if found else 0
        if found and found[0] == "luks-prompt" and "userspace" in stages:
            patience = 60  # who only wants the volume goes on beside the prompt
        if patience:
            if not waiting or waiting[0] != (found[0], patience):
                waiting = (found[0], patience), now
            if now - waiting[1] > patience:
                return *found, stages
        elif found:
            return *found, stages
        if console.process.poll() is not None:
            console.read()
            errors = open(console.errors.name, "rb").read().decode("utf-8", "replace").strip()
            if errors and not console.raw:
                return "image-error", errors.splitlines()[-1], stages
            lines = [line for line in both.splitlines() if line.strip()]
            return "reboot-loop", "reset after: " + (lines[-1].strip() if lines else ""), stages
        early = not set(stages) & {"grub", "kernel", "initramfs", "userspace"}
        if now - start > timeout or now - console.last > (40 if early else idle):
            if found:
                return *found, stages
            lines = [line for line in both.splitlines() if line.strip()]
            return "hang", "silent after: " + (lines[-1].strip() if lines else ""), stages


def cause(text, outcome, evidence):
    if outcome == "login":
        return ""
    for pattern in CAUSES:
        for line in text.splitlines():
            match = pattern.search(line.strip())
            if match:
                return match.group(0)[:200]
    return evidence


CHECKS = {
    "state": "timeout 100 systemctl is-system-running --wait",
    "failed": "systemctl --failed --plain --no-legend --no-pager | cut -d' ' -f1 | tr '\\n' ' '",
    "root": "findmnt -no OPTIONS / | cut -d, -f1",
    "arrays": "grep -os '\\[[U_]*\\]' /proc/mdstat | tr '\\n' ' '",
    "mounts": "findmnt -rno TARGET,SOURCE -t ext4,xfs,btrfs,vfat | tr '\\n' ';'",
}


def inspect(console):
    """Logs in and asks systemd how it is: a login prompt alone is not health."""
    console.type("root\n")
    if not console.wait_for(r"^root@[^\n]*[#$] ", 60):
        return {}
    answers = {}
    for name, command_line in CHECKS.items():
        start = len(console.text)
        console.type("echo A''A:$(%s):Z''Z\n" % command_line)
        found = console.wait_for(r"AA:(.*?):ZZ", 150, start)
        if found:
            answers[name] = found.group(1).strip()
    return answers


def boot(disks, bus="virtio-blk", firmware="bios", first=0, send=(), timeout=420, idle=100, check=False, log=os.devnull):
    result = {"outcome": None, "evidence": "", "cause": "", "seconds": 0}
    os.makedirs(LAB + "/tmp", exist_ok=True)
    folder, console = tempfile.mkdtemp(prefix="boot.", dir=LAB + "/tmp"), None
    try:
        drives = []
        for i in range(first):
            with open(folder + "/blank%d" % i, "wb") as blank:
                blank.truncate(64 << 20)
            drives.append((blank.name, "raw", 20 + i))
        try:
            for i, disk in enumerate(disks):
                drives.append((overlay(disk, folder + "/disk%d.qcow2" % i), "qcow2", 1 + i))
        except OSError as error:
            result.update(outcome="image-error", evidence=str(error), cause=str(error))
            return result
        start = time.time()
        if log != os.devnull:
            open(log, "w").close()
        for _ in range(2):
            console = Console(command(drives, bus, firmware, folder), folder, log)
            outcome, evidence, stages = watch(console, timeout, idle, send)
            if outcome != "reboot-loop":
                break
            # One reset is no loop: an update before the boot, for one, ends in it. What the second boot comes to counts.
            result["resets"] = result.get("resets", 0) + 1
            console.close()
        result.update(outcome=outcome, evidence=evidence[:200], seconds=round(time.time() - start), stages=stages)
        if outcome not in ("login", "luks-prompt"):
            console.wait_for(r"\Z.", 2)  # the lines that come with the last one
        result["cause"] = cause(console.bios + "\n" + console.text, outcome, result["evidence"])
        result["versions"] = {name: found.group(1) for name, pattern in VERSIONS.items() if (found := pattern.search(console.bios + "\n" + console.text))}
        # Guest time runs on while a busy host lets the guest wait: then devices that are there time out as well.
        result["slow"] = bool(re.search(r"Timed out waiting for device.*ttyS0", console.text))
        if outcome == "login" and "multi-user" not in evidence and check:
            result["inspected"] = inspect(console)
        return result
    finally:
        if console:
            console.close()
        shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("disks", nargs="+")
    parser.add_argument("--bus", default="virtio-blk", choices=["virtio-blk", "virtio-scsi", "sata", "ide", "nvme", *SCSI])
    parser.add_argument("--firmware", default="bios", choices=["bios", "uefi"])
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--send", action="append", default=[])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--log", default=os.devnull)
    a = parser.parse_args()
    result = boot(a.disks, a.bus, a.firmware, a.first, [tuple(s.split("=", 1)) for s in a.send], check=a.check, log=a.log)
    print(json.dumps(result, indent=1))
    return 0 if result["outcome"] == "login" else 1


if __name__ == "__main__":
    sys.exit(main())
