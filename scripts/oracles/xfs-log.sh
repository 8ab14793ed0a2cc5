#!/bin/bash
# Compares our recovery of a log with the kernel's. Makes file systems, changes them at random, shuts them down
# in the middle (xfs_io shutdown, with and without the log flushed), and compares: what the kernel shows after
# its recovery; what we show after ours; what the kernel shows of the image with our recovery written to it, and
# what it says about the log; xfs_repair -n on that, and once more after the kernel had it.
# Needs root for loop mounts, xfsprogs, python3. Prints a table: case, judge, verdict.
# usage: xfs-log.sh [--keep DIR] [CASE...]
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
work=$(mktemp -d "${TMPDIR:-/tmp}/xfs-log.XXXXXX")
trap 'mountpoint -q "$work/mnt" && umount "$work/mnt"; rm -rf "$work"' EXIT
mkdir "$work/mnt"
keep=
[ "${1:-}" = --keep ] && keep=$2 && shift 2
cargo build -q --release --manifest-path "$root/Cargo.toml" -p guestmend-filesystem-xfs --examples || exit 2
tree=$target/release/examples/xfs_tree
replay=$target/release/examples/xfs_replay
failed=0
images=0

verdict() { # case judge rc [note]
    [ "$3" = 0 ] && local word=ok || { local word=FAIL; failed=1; }
    printf '%-22s %-34s %s%s\n' "$1" "$2" "$word" "${4:+  ($4)}"
}
kernel_list() { # image out
    mount -o loop "$1" "$work/mnt" || return 1
    python3 "$here/tree.py" list "$work/mnt" | LC_ALL=C sort >"$2"
    umount "$work/mnt"
}
# What the kernel and we make of a dirty image; the kernel is the one below, or in a guest for version 4.
judge() { # case image
    local case=$1 image=$2 said rc state
    images=$((images + 1))
    [ -n "$keep" ] && cp --sparse=always "$image" "$keep/$case.img"
    cp --sparse=always "$image" "$work/ours"
    if ! kernel_list "$image" "$work/kernel.list"; then
        verdict "$case" "kernel recovers" 1
        return
    fi
    said=$("$replay" "$work/ours" 2>&1)
    rc=$?
    verdict "$case" "we recover" $rc "$said"
    [ $rc = 0 ] || { cp --sparse=always "$work/ours" "$work/refused-$case"; return; }
    "$tree" "$work/ours" 2>"$work/err" | LC_ALL=C sort >"$work/ours.list"
    cmp -s "$work/kernel.list" "$work/ours.list"
    verdict "$case" "tree as the kernel shows it" $? "$(wc -l <"$work/ours.list") files"
    state=$(xfs_logprint -t "$work/ours" 2>/dev/null | sed -n 's/.*state: <\(.*\)>.*/\1/p')
    xfs_repair -n -f "$work/ours" >"$work/repair" 2>&1
    rc=$?
    if grep -q "problem: log: freeing" "$work/err"; then
        verdict "$case" "log left to the kernel's duties" 0 "$(sed -n 's/problem: log: //p' "$work/err"), xfs_repair -n $rc"
    else
        verdict "$case" "xfs_repair -n" $rc "$state"
        [ $rc = 0 ] || grep -v -e '^Phase' -e '^ *- ' -e geometry -e 'Repair may' -e 'the image and' -e '^No modify' "$work/repair" | head -20
    fi
    kernel_list "$work/ours" "$work/again.list" && cmp -s "$work/kernel.list" "$work/again.list"
    verdict "$case" "kernel's tree of our recovery" $?
    xfs_repair -n -f "$work/ours" >"$work/repair" 2>&1
    rc=$?
    verdict "$case" "xfs_repair -n after that mount" $rc
    [ $rc = 0 ] || grep -v -e '^Phase' -e '^ *- ' -e geometry -e 'Repair may' -e 'the image and' -e '^No modify' "$work/repair" | head -20
}
make() { # case mkfs-options megabytes seed operations shutdown-flags [--quiet]
    local image=$work/image pid
    rm -f "$image"
    truncate -s "$3M" "$image"
    # shellcheck disable=SC2086 # options are words
    mkfs.xfs --unsupported -q $2 "$image" >/dev/null 2>&1 || { verdict "$1" mkfs.xfs 1; return; }
    mount -o loop "$image" "$work/mnt" || { verdict "$1" mount 1; return; }
    if [ "$6" = early ]; then
        timeout 60 python3 "$here/xfs-churn.py" "$work/mnt" "$4" "$5" 2>"$work/churn.err" &
        pid=$!
        sleep "0.$((RANDOM % 90 + 10))"
        xfs_io -x -c shutdown "$work/mnt"
        wait "$pid"
    else
        # shellcheck disable=SC2086 # no word or one
        timeout 60 python3 "$here/xfs-churn.py" "$work/mnt" "$4" "$5" $7 xfs_io -x -c "shutdown $6" "$work/mnt" 2>"$work/churn.err"
    fi
    umount "$work/mnt"
    judge "$1" "$image"
}

declare -A options=(
    [default]="" [1k]="-b size=1024" [small-log]="-l size=6m" [rmapbt]="-m rmapbt=1" [nrext64]="-i nrext64=1 -m rmapbt=1"
    [el7]="-m crc=1,finobt=0,reflink=0,bigtime=0 -i sparse=0" [stripes]="-l su=32k,size=8m" [4kn]="-s size=4096"
    [large-stripe]="-l su=256k,size=24m" [64k-dirs]="-n size=65536" [2k-inodes]="-i size=2048" [8-ags]="-d agcount=8"
)
cases=(default 1k small-log rmapbt nrext64 el7 stripes 4kn large-stripe 64k-dirs 2k-inodes 8-ags)
[ $# -gt 0 ] && cases=("$@")
seed=${SEED:-0}
for case in "${cases[@]}"; do
    for run in "200,,--quiet" "700,-f,--quiet" "6000,early," "1500,," "1500,,--quiet"; do
        seed=$((seed + 1))
        IFS=, read -r operations flags quiet <<<"$run"
        make "$case-$seed" "${options[$case]}" 200 "$seed" "$operations" "$flags" "$quiet"
    done
done
echo "$images dirty images"
exit $failed
