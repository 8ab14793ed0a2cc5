#!/bin/bash
# Compares our readers of read-only formats with others: squashfs with the kernel's mount, ISO 9660 with
# that of a kernel in a guest (scripts/oracles/in-guest.py), as this one may lack it.
# Needs root for device nodes and loop mounts, squashfs-tools, xorriso, genisoimage, python3, and what in-guest.py needs.
# Prints a table: case, judge, verdict.   usage: readonly.sh [CASE...]
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
work=$(mktemp -d "${TMPDIR:-/tmp}/readonly-oracle.XXXXXX")
unmount() { mountpoint -q "$work/mnt" && umount "$work/mnt"; }
trap 'unmount; rm -rf "$work"' EXIT
mkdir "$work/mnt" "$work/tree"
failed=0

verdict() { # case judge rc [note]
    [ "$3" = 0 ] && local word=ok || { local word=FAIL; failed=1; }
    printf '%-16s %-44s %s%s\n' "$1" "$2" "$word" "${4:+  ($4)}"
}
# Numbers of inodes are each reader's own; sorted by path.
normalize() { awk -F'\t' -v OFS='\t' '{$9="-"}1' | LC_ALL=C sort; }

# A file system of its own, as some attributes fit in few: XFS in a file.
truncate -s 1G "$work/xfs"
mkfs.xfs -q "$work/xfs" && mount -o loop "$work/xfs" "$work/tree" || exit 2
trap 'unmount; umount "$work/tree"; rm -rf "$work"' EXIT
python3 "$here/tree.py" make "$work/tree" || exit 2
rm "$work/tree/files/huge"   # 4 TiB of zeros to read
mksquash() { # options...
    rm -f "$work/image"
    mksquashfs "$work/tree" "$work/image" -noappend -quiet -no-progress "$@" >"$work/err" 2>&1
}
squashfs() { # case options...
    local case=$1
    shift
    mksquash "$@" || { verdict "$case" mksquashfs 1 "$(head -1 "$work/err")"; return; }
    mount -o loop,ro -t squashfs "$work/image" "$work/mnt" || { verdict "$case" "kernel mounts" 1; return; }
    python3 "$here/tree.py" list "$work/mnt" 2>"$work/err" | normalize >"$work/theirs"
    unmount
    "$target/debug/examples/squashfs_tree" "$work/image" 2>"$work/err" | normalize >"$work/ours"
    cmp -s "$work/theirs" "$work/ours" && [ "$(wc -l <"$work/ours")" -gt 19000 ]
    local rc=$?
    verdict "$case" "tree as the kernel shows it" $rc "$(wc -l <"$work/ours") files"
    if [ $rc != 0 ]; then tail -2 "$work/err"; diff "$work/theirs" "$work/ours" | cut -c1-300 | head -6; fi
    grep problem "$work/err"
}
cargo build -q --manifest-path "$root/Cargo.toml" -p guestmend-filesystem-squashfs --example squashfs_tree || exit 2

declare -A options_of=(
    [gzip]="-comp gzip" [xz]="-comp xz" [xz-bcj]="-comp xz -Xbcj x86,arm -b 1M" [lz4]="-comp lz4" [lz4-hc]="-comp lz4 -Xhc"
    [zstd]="-comp zstd" [zstd-22]="-comp zstd -Xcompression-level 22 -b 1M" [blocks-4k]="-b 4096" [blocks-1m]="-b 1M"
    [no-fragments]="-no-fragments" [always-fragments]="-always-use-fragments -b 64K" [stored]="-noI -noD -noF -noX"
    [no-xattrs]="-no-xattrs" [not-exportable]="-no-exports" [no-duplicates]="-no-duplicates" [one-owner]="-all-root"
)
squashes=(gzip xz xz-bcj lz4 lz4-hc zstd zstd-22 blocks-4k blocks-1m no-fragments always-fragments stored no-xattrs not-exportable no-duplicates one-owner)
discs=(rock-ridge rock-ridge-joliet relocated joliet plain plain-long many)
cases=("${squashes[@]}" "${discs[@]}")
[ $# -gt 0 ] && cases=("$@")
chosen=()
for case in "${cases[@]}"; do
    if [ -n "${options_of[$case]+set}" ]; then
        # shellcheck disable=SC2086 # options are words
        squashfs "$case" ${options_of[$case]}
    else
        chosen+=("$case")
    fi
done
[ ${#chosen[@]} = 0 ] && exit $failed

# ISO 9660. Long targets and many equal beginnings are more than the makers can take.
cargo build -q --manifest-path "$root/Cargo.toml" -p guestmend-filesystem-iso9660 --example iso9660_tree || exit 2
disc=$work/disc
mkdir -p "$disc/files" "$disc/links" "$disc/nodes" "$disc/a/b/c/d/e/f/g/h/i/j/k" "$disc/few" "$disc/UPPER.DIR"
for size in 0 1 2047 2048 2049 1000003; do cp "$work/tree/files/size${size/204[789]/4096}" "$disc/files/n$size" 2>/dev/null; truncate -s "$size" "$disc/files/n$size"; done
ln "$disc/files/n1" "$disc/links/hard"
number=0
for link in x ../files/n1 /etc/passwd ./a/../b//c / .. "$(printf 'long%.0s' $(seq 50))" "$(printf 'part/%.0s' $(seq 50))end"; do
    ln -s "$link" "$disc/links/to$((++number))"
done
mkfifo "$disc/nodes/fifo"; mknod "$disc/nodes/char" c 4 65; mknod "$disc/nodes/block" b 8 17
chmod 4751 "$disc/files/n1"; chown 1000:100000 "$disc/files/n2047"; touch -d @1 "$disc/files/n2048"; touch -d '2036-01-02 03:04:05' "$disc/files/n2049"
for name in "Ümlaut with blanks" "$(printf 'n%.0s' $(seq 240))" "$(printf 'odd\344')" MixedCase.Txt two.dots.tar.gz 'semi;colon' noext; do echo "$name" >"$disc/few/$name"; done
echo deep >"$disc/a/b/c/d/e/f/g/h/i/j/k/file"
mkdir "$work/simple"; cp -r "$disc/files" "$disc/UPPER.DIR" "$work/simple/"; mkdir "$work/simple/few"
cp "$disc/few/"{MixedCase.Txt,noext,two.dots.tar.gz} "$work/simple/few/"
for number in $(seq 300); do echo "$number" >"$work/simple/few/f$number.txt"; done
mkdir "$work/many"
(cd "$work/many" && for number in $(seq 5000); do echo "$number" >"entry-$number-with-a-name-of-some-length"; done)
make_disc() {
    case $1 in
        rock-ridge) xorriso -as mkisofs -quiet -R -V Label -o "$2" "$disc" ;;
        rock-ridge-joliet) xorriso -as mkisofs -quiet -R -J -joliet-long -V 'A label of some length' -o "$2" "$disc" ;;
        relocated) genisoimage -quiet -R -o "$2" "$disc" ;;
        joliet) genisoimage -quiet -J -joliet-long -V 'Mixed Case' -input-charset utf-8 -o "$2" "$work/simple" ;;
        plain) genisoimage -quiet -o "$2" "$work/simple" ;;
        plain-long) genisoimage -quiet -iso-level 3 -l -allow-lowercase -o "$2" "$work/simple" ;;
        many) xorriso -as mkisofs -quiet -R -o "$2" "$work/many" ;;
    esac
}
cat >"$work/script" <<'S'
for disk in /dev/vd?; do
  mount -t iso9660 -o ro,utf8 $disk /mnt || { echo "no mount $disk"; continue; }
  cd /mnt
  blkid -p -o export $disk | sed "s|^|blkid $disk |"
  /sbin/find . -printf "$disk\t%p\t%y\t%m\t%n\t%U\t%G\t%s\t%Ts\t%l\n" | cat
  /sbin/find . -type f -exec /sbin/sha256sum {} + | sed "s|^|hash $disk |"
  /sbin/find . \( -type b -o -type c \) -exec /sbin/stat -c "node $disk %t:%T %n" {} +
  cd /; umount /mnt
done | base64 | sed 's/^/B /'
S
disks=() made=()
for case in "${chosen[@]}"; do
    make_disc "$case" "$work/$case.iso" >"$work/err" 2>&1 || { verdict "$case" "makes an image" 1 "$(tail -1 "$work/err")"; continue; }
    made+=("$case") disks+=(--disk "$work/$case.iso:raw")
done
"$here/in-guest.py" --timeout 900 "${disks[@]}" "$work/script" >"$work/kernel" || { tail -5 "$work/kernel"; exit 2; }
for index in "${!made[@]}"; do
    case=${made[$index]}
    "$target/debug/examples/iso9660_tree" "$work/$case.iso" >"$work/ours" 2>"$work/err"
    python3 - "$work" "/dev/vd$(printf '%b' "\\x$(printf '%x' $((97 + index)))")" "$case" <<'P'
import ast, base64, re, sys
work, disk, case = sys.argv[1:]
theirs, hashes, nodes, blkid = {}, {}, {}, {}
# What is not UTF-8 would not come through as it is.
lines = [line.strip() for line in open(work + "/kernel", "rb") if line.startswith(b"B ")]
for line in base64.b64decode(b"".join(line[2:] for line in lines)).split(b"\n"):
    if line.startswith(disk.encode() + b"\t"):
        _, path, *rest = line.split(b"\t")
        theirs[path] = rest
    elif line.startswith(b"hash %s " % disk.encode()):
        digest, path = line.split(b" ", 2)[2].split(b"  ", 1)
        hashes[path] = digest
    elif line.startswith(b"node %s " % disk.encode()):
        _, _, number, path = line.split(b" ", 3)
        nodes[path] = tuple(int(part, 16) for part in number.split(b":"))
    elif line.startswith(b"blkid %s " % disk.encode()) and b"=" in line:
        key, value = line.split(b" ", 2)[2].split(b"=", 1)
        blkid[key] = re.sub(rb"\\(.)", rb"\1", value)
unescape = lambda text: ast.literal_eval("b'" + text.replace("'", "\\'") + "'") if "'" in text else ast.literal_eval('b"' + text.replace('\\"', '"').replace('"', '\\"') + '"')
one, two = [], []
for path, (kind, mode, links, uid, gid, size, time, target) in theirs.items():
    size = b"0" if kind == b"d" else size
    one.append((path, kind, int(mode, 8), int(links), int(uid), int(gid), int(size), int(time), target, hashes.get(path), nodes.get(path)))
letters = {"-": b"f"}
for line in open(work + "/ours"):
    path, kind, mode, links, uid, gid, size, time, _, device, digest, target, _ = line.rstrip("\n").split("\t")
    path = unescape(path)
    number = tuple(map(int, device.split(":"))) if kind in "bc" else None
    two.append((path, letters.get(kind, kind.encode()), int(mode, 8), int(links), int(uid), int(gid), int(size), int(time.split(".")[0]),
                b"" if target == "-" else unescape(target), digest.encode() if kind == "-" else None, number))
same = sorted(one) == sorted(two) and len(one) > 20
print("%-16s %-44s %s  (%d files)" % (case, "tree as isofs in a guest shows it", "ok" if same else "FAIL", len(one)))
for entry in sorted(set(one) ^ set(two))[:8]:
    print("   ", "theirs" if entry in one else "ours  ", str(entry)[:250])
said = open(work + "/err").read()
got = re.search(r'uuid: (?:Some\("(.*?)"\)|None), label: (?:Some\(\[(.*?)\]\)|None)', said)
label = bytes(map(int, got.group(2).split(", "))) if got and got.group(2) else None
right = got and (got.group(1) or "").encode() == blkid.get(b"UUID", b"") and (label or b"") == blkid.get(b"LABEL", b"")
print("%-16s %-44s %s  (%s)" % (case, "UUID and label of blkid", "ok" if right else "FAIL", blkid.get(b"LABEL", b"").decode()))
if not right: print("   ", said[:200], blkid)
if "problem" in said: print("   ", said[:300])
sys.exit(not (same and right))
P
    [ $? = 0 ] || failed=1
done
exit $failed
