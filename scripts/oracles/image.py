#!/usr/bin/env python3
"""Compares our reading, checking and writing of disk images with QEMU's, over every variant that qemu-img makes.

Usage: scripts/oracles/image.py [FAMILY]     qcow2, vmdk, vhd, vhdx, vdi, raw; default all; needs qemu-img and qemu-io

read:   sha256 of `guestmend image convert --to raw` against `qemu-img convert -O raw`
check:  the verdict of `guestmend image check` against the exit code of `qemu-img check` (- where QEMU has none)
write:  our conversion, judged by `qemu-img compare` and `qemu-img check`

Prints a table; exit 1 when a row differs that is not explained in it.
"""
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Where we differ from QEMU on purpose.
EXPLAINED = {
    "vmdk zeroed grains": "grains that `write -z` gave up are space that nothing uses; QEMU does not look for it",
    "dfvfs/fat-differential.vhd.xz": "QEMU does not read the parents of VHD images; we do",
}
SECRET = "secret,id=s0,data=abc"
HEAD = ["path", "role", "fam"]

# name: (family, format, shell commands that make FILE from base.raw or odd.raw). {f} is the file.
CONVERT = "qemu-img convert -f raw -O {fmt} {options} {base} {f}"


def variants():
    def convert(name, fmt, options="", base="base.raw", extension=None):
        line = CONVERT.format(fmt=fmt, options=options, base=base, f="{f}")
        return name, fmt, extension or fmt, [line]

    rows = [convert("qcow2 v2", "qcow2", "-o compat=0.10"), convert("qcow2 v3", "qcow2")]
    for size in ("512", "1k", "4k", "16k", "256k", "1M", "2M"):
        rows.append(convert(f"qcow2 clusters {size}", "qcow2", f"-o cluster_size={size}"))
    rows.append(convert("qcow2 v2 clusters 512, odd size", "qcow2", "-o compat=0.10,cluster_size=512", "odd.raw"))
    for bits in (1, 2, 4, 8, 32, 64):
        rows.append(convert(f"qcow2 refcounts {bits} bit", "qcow2", f"-o refcount_bits={bits}"))
    rows.append(convert("qcow2 lazy refcounts", "qcow2", "-o lazy_refcounts=on"))
    for kind in ("zlib", "zstd"):
        for size in ("4k", "64k", "2M"):
            rows.append(convert(f"qcow2 {kind} {size}", "qcow2", f"-c -o compression_type={kind},cluster_size={size}"))
    rows.append(convert("qcow2 zlib 512", "qcow2", "-c -o cluster_size=512"))
    rows.append(convert("qcow2 v2 zlib", "qcow2", "-c -o compat=0.10"))
    for size in ("16k", "64k", "2M"):
        rows.append(convert(f"qcow2 extended L2 {size}", "qcow2", f"-o extended_l2=on,cluster_size={size}"))
    rows.append(convert("qcow2 extended L2 zlib", "qcow2", "-c -o extended_l2=on,cluster_size=128k"))
    parts = ["write -P 0x11 0 2k", "write -P 0x22 70k 6k", "write -z 72k 2k", "write -P 0x33 1M 64k", "write -z 1030k 4k",
             "discard 1040k 8k", "write -P 0x44 5M 3M", "write -z -u 6M 512k"]
    rows.append(("qcow2 subclusters in part", "qcow2", "qcow2",
                 ["qemu-img create -q -f qcow2 -o extended_l2=on {f} 64M", io("qcow2", parts)]))
    rows.append(convert("qcow2 data file", "qcow2", "-o data_file={f}.data"))
    rows.append(convert("qcow2 raw data file", "qcow2", "-o data_file={f}.data,data_file_raw=on"))
    for mode in ("metadata", "falloc", "full"):
        rows.append(convert(f"qcow2 preallocation {mode}", "qcow2", f"-o preallocation={mode}"))
    rows.append(convert("qcow2 odd size", "qcow2", "", "odd.raw"))
    rows.append(convert("qcow2 LUKS", "qcow2",
                        f"--object {SECRET} -o encrypt.format=luks,encrypt.key-secret=s0,encrypt.iter-time=20"))
    rows.append(convert("qcow2 AES", "qcow2", f"--object {SECRET} -o encrypt.format=aes,encrypt.key-secret=s0"))
    zero = ["write -z 1M 1M", "write -z -u 3M 1M", "discard 5M 1M", "write -P 0xaa 10M 3k"]
    rows.append(("qcow2 zero clusters", "qcow2", "qcow2", [CONVERT.format(fmt="qcow2", options="", base="base.raw", f="{f}"), io("qcow2", zero)]))
    rows.append(("qcow2 v2 discarded", "qcow2", "qcow2", [
        CONVERT.format(fmt="qcow2", options="-o compat=0.10", base="base.raw", f="{f}"), io("qcow2", ["write -z 1M 1M", "discard 5M 1M"])]))
    over = ["write -P 0x55 1M 100k", "write -z 8M 1M", "write -P 0x66 30M 1M"]
    rows.append(("qcow2 on raw", "qcow2", "qcow2", ["qemu-img create -q -f qcow2 -b base.raw -F raw {f}", io("qcow2", over)]))
    rows.append(("qcow2 on qcow2 on raw", "qcow2", "qcow2", [
        "qemu-img create -q -f qcow2 -b base.raw -F raw {f}.below", io("qcow2", over, "{f}.below"),
        "qemu-img create -q -f qcow2 -b {f}.below -F qcow2 -o extended_l2=on,cluster_size=128k {f}", io("qcow2", ["write -P 0x77 1050k 20k"])]))
    rows.append(("qcow2 on a shorter raw", "qcow2", "qcow2", [
        "qemu-img create -q -f qcow2 -b odd.raw -F raw {f} 48M", io("qcow2", ["write -P 0x79 30M 5k"])]))
    rows.append(("qcow2 with snapshots", "qcow2", "qcow2", [
        CONVERT.format(fmt="qcow2", options="", base="base.raw", f="{f}"), "qemu-img snapshot -c s1 {f}", io("qcow2", ["write -P 0x99 2M 1M"]),
        "qemu-img snapshot -c s2 {f}", io("qcow2", ["write -P 0x9a 3M 1M"])]))
    rows.append(("qcow2 with a bitmap", "qcow2", "qcow2", [
        CONVERT.format(fmt="qcow2", options="", base="base.raw", f="{f}"), "qemu-img bitmap --add {f} b0"]))

    for kind in ("monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"):
        rows.append(convert(f"vmdk {kind}", "vmdk", f"-o subformat={kind}"))
        rows.append(convert(f"vmdk {kind}, odd size", "vmdk", f"-o subformat={kind}", "odd.raw"))
    rows.append(convert("vmdk hwversion 6, lsilogic", "vmdk", "-o hwversion=6,adapter_type=lsilogic"))
    rows.append(("vmdk zeroed grains", "vmdk", "vmdk", [
        CONVERT.format(fmt="vmdk", options="-o zeroed_grain=on", base="base.raw", f="{f}"), io("vmdk", ["write -z 1M 1M", "write -P 1 5M 3k"])]))
    rows.append(("vmdk 5 GiB in extents", "vmdk", "vmdk", ["qemu-img create -q -f vmdk -o subformat=twoGbMaxExtentSparse {f} 5G"]
                 + [io("vmdk", [f"write -P 0x5a {at} 1M"]) for at in ("0", "2046M", "2047M", "2048M", "4095M", "5119M")]))
    rows.append(("vmdk child and parent", "vmdk", "vmdk", [
        CONVERT.format(fmt="vmdk", options="", base="base.raw", f="{f}.parent.vmdk"),
        "qemu-img create -q -f vmdk -b {f}.parent.vmdk -F vmdk {f}", io("vmdk", ["write -P 0x42 1M 300k"])]))

    for kind in ("dynamic", "fixed"):
        rows.append(convert(f"vhd {kind}", "vpc", f"-o subformat={kind},force_size=on", extension="vhd"))
        rows.append(convert(f"vhd {kind}, size by geometry", "vpc", f"-o subformat={kind}", extension="vhd"))
        rows.append(convert(f"vhd {kind}, odd size", "vpc", f"-o subformat={kind},force_size=on", "odd.raw", "vhd"))
        rows.append(convert(f"vhdx {kind}", "vhdx", f"-o subformat={kind}"))
        rows.append(convert(f"vhdx {kind}, odd size", "vhdx", f"-o subformat={kind}", "odd.raw"))
    for size in ("1M", "16M", "32M", "256M"):
        rows.append(convert(f"vhdx blocks {size}", "vhdx", f"-o block_size={size}"))
    rows.append(convert("vhdx without zero state", "vhdx", "-o block_state_zero=off"))
    rows.append(convert("vhdx log 2M", "vhdx", "-o log_size=2M"))
    rows.append(convert("vdi dynamic", "vdi"))
    rows.append(convert("vdi static", "vdi", "-o static=on"))
    rows.append(convert("vdi odd size", "vdi", "", "odd.raw"))
    return rows


def io(fmt, commands, file="{f}"):
    return ["qemu-io", "-f", fmt, *[word for command in commands for word in ("-c", command)], file]


def targets():
    yield "raw", "raw", []
    for size in (512, 4096, 65536, 2 << 20):
        yield f"qcow2 clusters {size}", "qcow2", ["--cluster-size", str(size)]
    for kind in ("monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"):
        yield f"vmdk {kind}", "vmdk", ["--subformat", kind]
    for fmt in ("vhd", "vhdx"):
        for kind in ("dynamic", "fixed"):
            yield f"{fmt} {kind}", fmt, ["--subformat", kind]
    for size in (1 << 20, 256 << 20):
        yield f"vhdx blocks {size >> 20}M", "vhdx", ["--cluster-size", str(size)]
    for kind in ("dynamic", "static"):
        yield f"vdi {kind}", "vdi", ["--subformat", kind]


def content(path, size, seed):
    """Noise, text, holes and lonely sectors; the same bytes for the same seed."""
    rng = random.Random(seed)
    with open(path, "wb") as file:
        file.truncate(size)
        at = 0
        while at < size:
            length = min(rng.choice([512, 1024, 4096, 20480, 65536, 131072, 1 << 20, 3 << 20]), size - at)
            kind = rng.random()
            file.seek(at)
            if kind < 0.35:
                pass
            elif kind < 0.7:
                file.write(rng.randbytes(length))
            elif kind < 0.85:
                text = b"line %d: the quick brown fox jumps over the lazy dog\n" % at
                file.write((text * (length // len(text) + 1))[:length])
            else:
                for sector in range(0, length, 512):
                    if rng.random() < 0.3:
                        file.seek(at + sector)
                        file.write(rng.randbytes(min(512, length - sector)))
            at += length


def run(command, **more):
    words = command if isinstance(command, list) else command.split()
    return subprocess.run(words, capture_output=True, text=True, **more)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def source(fmt, name, file):
    if "LUKS" in name or "AES" in name:
        kind = "luks" if "LUKS" in name else "aes"
        return f"--object {SECRET} --image-opts driver=qcow2,encrypt.format={kind},encrypt.key-secret=s0,file.filename={file}"
    return f"-f {fmt} {file}"


def compare_read(tool, name, fmt, file):
    """Verdict of reading, verdict of checking."""
    theirs = run(f"qemu-img convert {source(fmt, name, file)} -O raw theirs.raw")
    ours = run([tool, "image", "convert", "--passphrase-file", "key", "--to", "raw", file, "ours.raw"])
    if theirs.returncode:
        return "not made: " + theirs.stderr.strip().split("\n")[0], "-"
    if ours.returncode:
        read = "REFUSED: " + ours.stderr.strip()
    else:
        read = "same" if sha256("ours.raw") == sha256("theirs.raw") else "DIFFERS"
    for left in ("ours.raw", "theirs.raw"):
        Path(left).unlink(missing_ok=True)
    report = run([tool, "image", "check", "--output", "json", file])
    verdict = json.loads(report.stdout)["verdict"] if report.stdout else "FAILED " + report.stderr.strip()
    judged = run(f"qemu-img check {source(fmt, name, file)}").returncode
    expected = {0: "sound", 2: "damaged", 3: "leaks"}.get(judged)
    if expected is None:
        return read, f"{verdict} (-)"
    return read, verdict if verdict == expected else f"DIFFERS: {verdict}, QEMU says {expected}"


def compare_write(tool, fmt, options, extension):
    file = f"written.{extension}"
    ours = run([tool, "image", "convert", "base.raw", file, "--to", fmt, *options])
    if ours.returncode:
        return "REFUSED: " + ours.stderr.strip()
    name = {"vhd": "vpc"}.get(fmt, fmt)
    same = run(f"qemu-img compare -f raw -F {name} base.raw {file}")
    checked = run(f"qemu-img check -f {name} {file}")
    if same.returncode:
        return "DIFFERS: " + (same.stdout + same.stderr).strip()
    if checked.returncode not in (0, 63):
        return "UNSOUND: " + (checked.stdout + checked.stderr).strip()
    again = run([tool, "image", "check", file])
    return "same, sound" if again.returncode == 0 else "WE SAY: " + again.stdout.strip()


def compare_corpus(tool, corpus):
    """The samples of other projects, against QEMU where it opens them; returns rows that are not explained."""
    failed = 0
    with open(corpus / "MANIFEST.tsv") as manifest:
        rows = [dict(zip(HEAD, line.rstrip("\n").split("\t"))) for line in manifest if not line.startswith("path\t")]
    rows = [row for row in rows if row["fam"] in ("qcow2", "vmdk", "vhd", "vhdx") and row["role"] == "data"]
    for row in rows:
        # Chains lie in one folder, under the names that they call each other by.
        path = Path(row["path"])
        file = Path("corpus") / path.parent / (path.stem if path.suffix in (".xz", ".gz", ".bz2", ".zst") else path.name)
        file.parent.mkdir(parents=True, exist_ok=True)
        run([sys.executable, str(corpus / "unpack.py"), str(corpus / path), str(file)])
        row["file"] = str(file)
    print(f"\n{'sample of another project':<58} ours")
    for row in rows:
        fmt = {"vhd": "vpc"}.get(row["fam"], row["fam"])
        ours = run([tool, "image", "convert", "--to", "raw", row["file"], "ours.raw"])
        theirs = run(["qemu-img", "convert", "-f", fmt, "-O", "raw", row["file"], "theirs.raw"])
        why = ours.stderr.strip().removeprefix("guestmend: ")[-150:]
        if ours.returncode and theirs.returncode:
            verdict = "refused, as by QEMU: " + why
        elif ours.returncode:
            verdict, failed = "REFUSED: " + why, failed + 1
        elif theirs.returncode:
            verdict = "read; QEMU: " + theirs.stderr.strip().split(": ")[-1]
        elif sha256("ours.raw") == sha256("theirs.raw"):
            verdict = "same"
        elif row["path"] in EXPLAINED:
            verdict = "differs: " + EXPLAINED[row["path"]]
        else:
            verdict, failed = "DIFFERS", failed + 1
        for left in ("ours.raw", "theirs.raw"):
            Path(left).unlink(missing_ok=True)
        print(f"{row['path']:<58} {verdict}", flush=True)
    shutil.rmtree("corpus")
    return failed


def main():
    family = sys.argv[1] if len(sys.argv) > 1 else ""
    for program in ("qemu-img", "qemu-io"):
        if not shutil.which(program):
            print(f"skipped: {program} is not installed")
            return 0
    subprocess.run(["cargo", "build", "--release", "--quiet", "--manifest-path", ROOT / "Cargo.toml"], check=True)
    tool = str(Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/guestmend")
    failed = 0
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        content("base.raw", 32 << 20, 1)
        content("odd.raw", (5 << 20) + 13 * 512, 2)
        Path("key").write_text("abc")
        print(f"{'variant':<36} {'read':<10} check")
        for name, fmt, extension, commands in variants():
            if not name.startswith(family):
                continue
            file = "disk." + extension
            for command in commands:
                words = command if isinstance(command, list) else command.split()
                run([word.format(f=file) for word in words])
            read, check = compare_read(tool, name, fmt, file)
            failed += read not in ("same",) and not read.startswith("not made")
            if check.startswith("DIFFERS") and name in EXPLAINED:
                check = f"{check.removeprefix('DIFFERS: ')}: {EXPLAINED[name]}"
            failed += check.startswith(("DIFFERS", "FAILED"))
            print(f"{name:<36} {read:<10} {check}", flush=True)
            for left in Path(".").glob("disk*"):
                left.unlink()
        print(f"\n{'written by us':<36} judged by qemu-img")
        for name, fmt, options in targets():
            if not name.startswith(family):
                continue
            verdict = compare_write(tool, fmt, options, fmt)
            failed += verdict != "same, sound"
            print(f"{name:<36} {verdict}", flush=True)
            for left in Path(".").glob("written*"):
                left.unlink()
        corpus = Path(os.environ.get("GUESTMEND_CORPUS", ROOT.parent / "shared/corpus")).resolve()
        if not family and corpus.is_dir():
            failed += compare_corpus(tool, corpus)
        elif not family:
            print(f"skipped: no corpus at {corpus}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
