#!/bin/bash
# Compares our btrfs reader with the kernel's mount, over profiles, checksums, compression and subvolumes.
# Needs root for loop mounts, btrfs-progs, python3. Prints a table: case, judge, verdict.
# usage: btrfs.sh [CASE...]
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
work=$(mktemp -d "${TMPDIR:-/tmp}/btrfs-oracle.XXXXXX")
loops=()
detach() {
    mountpoint -q "$work/mnt" && umount "$work/mnt"
    for loop in "${loops[@]}"; do losetup -d "$loop" 2>/dev/null; done
    loops=()
}
trap 'detach; rm -rf "$work"' EXIT
mkdir "$work/mnt"
cargo build -q --manifest-path "$root/Cargo.toml" -p guestmend-filesystem-btrfs --examples || exit 2
tree=$target/debug/examples/btrfs_tree
failed=0

verdict() { # case judge rc [note]
    [ "$3" = 0 ] && local word=ok || { local word=FAIL; failed=1; }
    printf '%-12s %-44s %s%s\n' "$1" "$2" "$word" "${4:+  ($4)}"
}
attach() {
    local image
    loops=()
    for image in "${images[@]}"; do loops+=("$(losetup -f --show "$image")"); done
    btrfs device scan "${loops[@]}" >/dev/null
}
with_mount() { # options command...
    local options=$1 rc
    shift
    attach
    mount -o "$options" "${loops[0]}" "$work/mnt" && "$@"
    rc=$?
    detach
    return $rc
}
# Placeholders of subvolumes that a snapshot lacks are as old as the look at them.
normalize() { awk -F'\t' -v OFS='\t' '$9==2{$8="now"}1' | LC_ALL=C sort; }
same_trees() { # case mount-options our-option
    with_mount "$2" python3 "$here/tree.py" list "$work/mnt" 2>"$work/err" | normalize >"$work/kernel"
    "$tree" ${3:+"$3"} "${images[@]}" 2>"$work/err" | normalize >"$work/ours"
    cmp -s "$work/kernel" "$work/ours" && [ -s "$work/ours" ]
    local rc=$?
    verdict "$1" "tree as the kernel shows it, -o $2" $rc "$(wc -l <"$work/ours") files"
    if [ $rc != 0 ]; then tail -2 "$work/err"; diff "$work/kernel" "$work/ours" | cut -c1-300 | head -6; fi
    grep problem "$work/err"
}
fill() {
    local m=$work/mnt
    python3 "$here/tree.py" make "$m" || return 1
    mkdir -p "$m/packed"
    python3 - "$m/packed" <<'P'
import os, random, sys
rng = random.Random(7)
words = [rng.randbytes(rng.randrange(3, 12)) for _ in range(300)]
def text(n):
    out = b""
    while len(out) < n: out += b"".join(rng.choice(words) for _ in range(2000))
    return out[:n]
for n in (1, 100, 1500, 2040, 3000, 4096, 5000, 131072, 131073, 1000000, 9000001):
    open(f"{sys.argv[1]}/text{n}", "wb").write(text(n))
    open(f"{sys.argv[1]}/zero{n}", "wb").write(bytes(n))
path = f"{sys.argv[1]}/patched"
open(path, "wb").write(text(3000000)); os.sync()
with open(path, "r+b") as f:
    for at in range(5000, 2900000, 190000):
        f.seek(at); f.write(text(9000)); f.flush(); os.fsync(f.fileno())
P
    [ $? = 0 ] || return 1
    sync
    btrfs subvolume create "$m/@" >/dev/null && cp -r "$m/links" "$m/packed" "$m/@/" &&
    btrfs subvolume create "$m/@/var" >/dev/null && echo log >"$m/@/var/log" &&
    mkdir -p "$m/@/deep/er" && btrfs subvolume create "$m/@/deep/er/sub" >/dev/null && echo x >"$m/@/deep/er/sub/file" &&
    btrfs subvolume snapshot "$m/@" "$m/snap" >/dev/null && btrfs subvolume snapshot -r "$m/@" "$m/snap-ro" >/dev/null &&
    echo changed >"$m/@/packed/text100" && rm "$m/@/packed/text3000" && echo new >"$m/snap/new" &&
    cp --reflink=always "$m/packed/patched" "$m/@/reflinked" &&
    touch "$m/nocow" && chattr +C "$m/nocow" && head -c 300000 /dev/urandom >"$m/nocow" &&
    fallocate -p -o 65536 -l 65536 "$m/packed/patched" && fallocate -l 900000 "$m/reserved" && sync
}

# Every case: devices, size in MiB of each, mkfs options, mount options.
declare -A cases_of=(
    [default]="1 1200 -- rw"
    [noholes-off]="1 1200 -O^no-holes rw"
    [dup]="1 1500 -ddup_-mdup rw"
    [mixed]="1 1200 -M_-n4096 rw"
    [n64k]="1 1200 -n65536 rw"
    [n4k]="1 1200 -n4096 rw"
    [zlib]="1 1200 -- compress-force=zlib"
    [lzo]="1 1200 -- compress-force=lzo"
    [zstd]="1 1200 -- compress-force=zstd:9"
    [inline]="1 1200 -- max_inline=4095,compress=zstd"
    [xxhash]="1 1200 --csum_xxhash rw"
    [sha256]="1 1200 --csum_sha256 rw"
    [blake2]="1 1200 --csum_blake2 rw"
    [bgtree]="1 1200 -Oblock-group-tree rw"
    [raid0]="3 600 -draid0_-mraid0 compress=lzo"
    [raid1]="2 1200 -draid1_-mraid1 rw"
    [raid1c3]="3 1200 -draid1c3_-mraid1c3 rw"
    [raid1c4]="4 1200 -draid1c4_-mraid1c4 rw"
    [raid10]="4 800 -draid10_-mraid10 compress=zstd"
    [raid5]="3 800 -draid5_-mraid5 rw"
    [raid6]="4 800 -draid6_-mraid6 compress=zlib"
    [two-single]="2 700 -dsingle_-mraid1 rw"
)
cases=(default noholes-off dup mixed n64k n4k zlib lzo zstd inline xxhash sha256 blake2 bgtree raid0 raid1 raid1c3 raid1c4 raid10 raid5 raid6 two-single)
[ $# -gt 0 ] && cases=("$@")

for case in "${cases[@]}"; do
    read -r count size options mount <<<"${cases_of[$case]}"
    [ "$options" = -- ] && options=
    images=()
    for ((number = 0; number < count; number++)); do
        rm -f "$work/image$number"
        truncate -s "${size}M" "$work/image$number"
        images+=("$work/image$number")
    done
    # shellcheck disable=SC2086 # options are words
    mkfs.btrfs -q -f -L "label $case" ${options//_/ } "${images[@]}" >"$work/err" 2>&1 || { verdict "$case" mkfs.btrfs 1 "$(head -1 "$work/err")"; continue; }
    with_mount "$mount" fill 2>"$work/err" || { verdict "$case" "kernel makes a tree" 1 "$(head -1 "$work/err")"; continue; }
    same_trees "$case" ro
    same_trees "$case" ro,subvol=@ subvol=@
    same_trees "$case" ro,subvol=snap/packed/../../snap subvol=/snap
    with_mount ro btrfs subvolume list -puq "$work/mnt" | sed 's/top level/top/' |
        awk '{for(i=1;i<=NF;i++){if($i=="ID")id=$(i+1);if($i=="parent")p=$(i+1);if($i=="parent_uuid")q=$(i+1);if($i=="uuid")u=$(i+1);if($i=="path")n=$(i+1)}print id,p,q,u,n}' | sort >"$work/kernel"
    "$tree" subvolumes "${images[@]}" 2>"$work/err" | awk '$2!=5{print $2,$4,$6,$8,$10}' | sort >"$work/ours"
    cmp -s "$work/kernel" "$work/ours" && [ "$(wc -l <"$work/ours")" = 5 ]
    verdict "$case" "btrfs subvolume list" $? "$(wc -l <"$work/ours") subvolumes"
    diff "$work/kernel" "$work/ours"
    id=$("$tree" subvolumes "${images[@]}" 2>/dev/null | awk '/path snap /{print $2}')
    with_mount rw btrfs subvolume set-default "$id" "$work/mnt" && same_trees "$case" ro
    same_trees "$case" ro,subvolid=5 subvolid=5
    reversed=()
    for image in "${images[@]}"; do reversed=("$image" "${reversed[@]}"); done
    images=("${reversed[@]}")
    [ "$count" = 1 ] || same_trees "$case" ro,subvol=/ subvolid=0
    # Redundant profiles: half of the copies are damaged, then a device is away.
    case $case in
        dup | raid1* )
            python3 - "${images[0]}" "$case" <<'P'
import sys
with open(sys.argv[1], "r+b") as f:
    f.seek(0, 2); size = f.tell()
    # Every other MiB of what is not superblock; for DUP only the first half of a pair may go.
    if sys.argv[2] != "dup":
        for at in range(2 << 20, size, 2 << 20):
            if at != 64 << 20:
                f.seek(at); f.write(b"\xa5" * (1 << 20))
P
            if [ "$case" != dup ]; then
                cp "$work/ours" "$work/before"
                "$tree" subvolid=5 "${images[@]}" 2>"$work/err" | normalize >"$work/ours"
                cmp -s "$work/before" "$work/ours"
                verdict "$case" "the same with half of one device overwritten" $? "$(grep -c problem "$work/err") problems"
                "$tree" subvolid=5 "${images[@]:1}" 2>"$work/err" | normalize >"$work/ours"
                cmp -s "$work/before" "$work/ours"
                verdict "$case" "the same without that device" $? "$(grep problem "$work/err" | head -1)"
            fi
            ;;
    esac
done
exit $failed
