#!/bin/bash
# Compares our recovery of a log with that of a kernel in a guest: version 4, which newer kernels do not have, and
# guests that die in the middle of their work (sysrq b). Prints a table: case, judge, verdict.
# Needs root (packages as in in-guest.py). usage: xfs-log-guest.sh [--keep DIR]
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
work=$(mktemp -d "${TMPDIR:-/tmp}/xfs-log-guest.XXXXXX")
trap 'rm -rf "$work"' EXIT
keep=
[ "${1:-}" = --keep ] && keep=$2
cargo build -q --release --manifest-path "$root/Cargo.toml" -p guestmend-filesystem-xfs --examples || exit 2
tree=$target/release/examples/xfs_tree
replay=$target/release/examples/xfs_replay
failed=0
images=0
verdict() { # case judge rc [note]
    [ "$3" = 0 ] && local word=ok || { local word=FAIL; failed=1; }
    printf '%-22s %-34s %s%s\n' "$1" "$2" "$word" "${4:+  ($4)}"
}
old="-m crc=0,finobt=0,reflink=0,rmapbt=0,bigtime=0,inobtcount=0"
names=(v4 v4-1k v4-512 v4-log1 v4-no-lazy v4-4kn v5-rmapbt v5-1k)
options=("$old -n ftype=0" "$old -n ftype=1 -b size=1024" "$old -n ftype=0 -b size=512 -i size=256" "$old -l version=1"
    "$old -i attr=1,projid32bit=0 -l lazy-count=0" "$old -s size=4096" "-m rmapbt=1" "-b size=1024 -m reflink=1 -l su=32k")
churn='
churn() { # folder number
    cd $1; r=$2
    i=0
    while [ $i -lt $3 ]; do
        i=$((i + 1)); r=$(((r * 1103515245 + 12345) % 2147483648)); k=$((r / 65536 % 14))
        d=d$((r / 7 % 5)); [ -d $d ] || mkdir $d
        case $k in
        0 | 1 | 2) head -c $((r / 3 % 9000)) /dev/urandom > $d/f$i ;;
        3) mkdir -p $d/sub$i ;;
        4) for f in $d/f*; do rm -f $f; break; done ;;
        5) for f in $d/f*; do mv $f d$((i % 3)) 2>/dev/null; break; done ;;
        6) for f in $d/f*; do ln $f $d/hard$i 2>/dev/null; break; done ;;
        7) ln -s $(head -c $((r / 5 % 500 + 1)) /dev/zero | tr "\\0" s) $d/link$i ;;
        8) for f in $d/f*; do : > $f; break; done ;;
        9) j=0; mkdir -p wide; while [ $j -lt 15 ]; do mkfifo wide/fifo-$i-$j-nnnnnnnnnnnnnnnnnnnnnnnnnn; j=$((j + 1)); done ;;
        10) mknod $d/dev$i c 4 $i ;;
        11) for f in $d/f*; do chmod 600 $f; chown $i:$i $f; dd if=/dev/urandom of=$f bs=3000 seek=$((i % 9)) count=2 conv=notrunc 2>/dev/null; break; done ;;
        12) j=0; while [ $j -lt 30 ]; do dd if=/dev/zero of=$d/pieces$i bs=1024 seek=$((j * 20)) count=1 conv=notrunc,fsync 2>/dev/null; j=$((j + 3)); done ;;
        13) rm -rf $d/sub* ;;
        esac
    done
    cd /
}
'
list='
list() { # device
    mount -t xfs $1 /mnt || { echo "no mount"; return; }
    cd /mnt
    /sbin/find . -printf "L %p %m %n %U %G %s %T@ %i %y -%l\n"
    /sbin/find . -type f -print0 | xargs -r -0 /sbin/sha256sum
    cd /; umount /mnt
}
'
# Sizes of folders differ in what they mean; sockets and the like have no content.
normal() { awk '/^L /{if ($10 == "d") $7 = 0; print; next} /^[0-9a-f]{64} /{print "H", $1, $2}' "$1" | LC_ALL=C sort; }
ours() {
    "$tree" "$1" 2>"$work/err" | awk -F'\t' '{
        kind = $2 == "-" ? "f" : $2
        print "L", $1, sprintf("%o", strtonum("0" $3)), $4, $5, $6, $7, $8 "0", $9, kind, "-" ($12 == "-" ? "" : $12)
        if (kind == "f") print "H", $11, $1
    }' | LC_ALL=C sort
}
for round in "shutdown" "shutdown -f" "kill"; do
    disks=() script=$churn
    for number in "${!names[@]}"; do
        image=$work/${names[$number]}
        rm -f "$image"
        truncate -s 96M "$image"
        # shellcheck disable=SC2086 # options are words
        mkfs.xfs --unsupported -q ${options[$number]} "$image" >/dev/null 2>&1 || verdict "${names[$number]}" mkfs.xfs 1
        disks+=(--disk "$image:raw")
        letter=$(printf "\\x$(printf %x $((97 + number)))")
        script+="mkdir -p /m$number; mount -t xfs /dev/vd$letter /m$number || echo no mount"$'\n'
        script+="churn /m$number $((number + ${#round} * 77)) 50"$'\n'
    done
    for number in "${!names[@]}"; do
        script+="churn /m$number $((number + 5)) 30"$'\n'
        [ "$round" = kill ] || script+="xfs_io -x -c '$round' /m$number"$'\n'
    done
    [ "$round" = kill ] && script+="sync; churn /m0 5 20; churn /m6 7 20; churn /m7 9 20; sleep 1; sync -f /m1; echo b > /proc/sysrq-trigger; sleep 9"
    python3 "$here/in-guest.py" "${disks[@]}" --timeout 200 - <<<"$script" >"$work/said" 2>&1
    disks=() script=$list
    for number in "${!names[@]}"; do
        image=$work/${names[$number]}
        images=$((images + 1))
        [ -n "$keep" ] && cp --sparse=always "$image" "$keep/${names[$number]}-${round// /}.img"
        cp --sparse=always "$image" "$image.ours"
        said=$("$replay" "$image.ours" 2>&1)
        verdict "${names[$number]} ${round#shutdown }" "we recover" $? "$said"
        ours "$image.ours" >"$image.ours.list"
        note=$(sed -n 's/problem: log: //p' "$work/err")
        if [ -z "$note" ]; then
            xfs_repair -n -f "$image.ours" >"$work/repair" 2>&1
            verdict "${names[$number]} ${round#shutdown }" "xfs_repair -n" $?
            grep -v -e '^Phase' -e '^ *- ' -e geometry -e 'Repair may' -e 'the image and' -e '^No modify' "$work/repair" | head
        else
            verdict "${names[$number]} ${round#shutdown }" "log left to the kernel's duties" 0 "$note"
        fi
        letter=$(printf "\\x$(printf %x $((97 + 2 * number)))")
        next=$(printf "\\x$(printf %x $((98 + 2 * number)))")
        disks+=(--disk "$image:raw" --disk "$image.ours:raw")
        script+="echo \"@ $number kernel\"; list /dev/vd$letter; echo \"@ $number again\"; list /dev/vd$next"$'\n'
    done
    python3 "$here/in-guest.py" "${disks[@]}" --timeout 280 - <<<"$script" >"$work/said" 2>&1
    awk -v work="$work" '/^@ /{out = work "/list-" $2 "-" $3; printf "" > out; next} out {print > out}' "$work/said"
    for number in "${!names[@]}"; do
        image=$work/${names[$number]}
        for kind in kernel again; do
            normal "$work/list-$number-$kind" >"$work/sorted" && mv "$work/sorted" "$work/list-$number-$kind"
        done
        cmp -s "$image.ours.list" "$work/list-$number-kernel"
        verdict "${names[$number]} ${round#shutdown }" "tree as the kernel shows it" $? "$(wc -l <"$image.ours.list") files"
        cmp -s "$work/list-$number-again" "$work/list-$number-kernel"
        verdict "${names[$number]} ${round#shutdown }" "kernel's tree of our recovery" $?
        xfs_repair -n -f "$image.ours" >"$work/repair" 2>&1
        verdict "${names[$number]} ${round#shutdown }" "xfs_repair -n after that mount" $?
    done
    [ -n "$keep" ] && cp "$work/said" "$keep/said-${round// /}"
done
echo "$images dirty images"
exit $failed
