#!/bin/bash
# Makes test-images/filesystem/xfs-log-*.img.zst: file systems that were shut down in the middle of changes, and
# the tree that the kernel shows after its own recovery. Needs root for loop mounts; version 4 is made in a guest
# (scripts/oracles/in-guest.py). Writes the images and their descriptions.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$here/../../test-images/filesystem
work=$(mktemp -d)
trap 'mountpoint -q "$work/mnt" && umount "$work/mnt"; rm -rf "$work"' EXIT
mkdir "$work/mnt"

# The changes, in a shell that a guest has too; $1 is the folder, $2 how often to go round.
cat >"$work/changes" <<'S'
cd "$1"
mkdir var home home/deep home/deep/er
for n in 1 2 3 4 5 6 7 8 9 10 11 12; do
    head -c $((n * n * 90)) /dev/zero | tr "\0" "$n" > home/file$n
    ln -s "target-$n-$(head -c $((n * 40)) /dev/zero | tr "\0" t)" home/link$n
done
sync
round=0
while [ $round -lt "$2" ]; do
    round=$((round + 1))
    mkdir -p var/d$((round % 7)) var/d$((round % 7))/sub$round
    echo "round $round" > var/d$((round % 7))/f$round
    mkfifo "var/fifo-$round-with-a-name-that-takes-some-room"
    [ $((round % 3)) = 0 ] && mv var/d$((round % 7))/f$round home/deep/moved$round
    [ $((round % 5)) = 0 ] && rm -f var/fifo-$((round - 4))-*
    [ $((round % 11)) = 0 ] && ln home/file5 home/deep/er/hard$round
    [ $((round % 13)) = 0 ] && rm -rf var/d$((round % 7))
done
rm home/file1 home/link2
mv home/file2 home/deep/er/file-two
: > home/file3
head -c 20000 /dev/zero | tr "\0" x >> home/file4
mknod home/device c 4 65
chmod 4751 home/file6; chown 1000:1001 home/file6
ln -s "/a/longer/$(head -c 900 /dev/zero | tr "\0" s)" home/link-new
S

describe() { # name mkfs-options what
    local name=$1
    cp "$work/img" "$work/recovered"
    echo "--- $name: $(xfs_logprint -t "$work/img" 2>/dev/null | grep -o 'state: .*')"
    if [ -f "$work/tree" ]; then
        cp "$work/tree" "$work/list"
    else
        mount -o loop "$work/recovered" "$work/mnt"
        python3 "$here/../oracles/tree.py" list "$work/mnt" | LC_ALL=C sort >"$work/list"
        umount "$work/mnt"
    fi
    zstd -19 -q -f "$work/img" -o "$out/$name.img.zst"
    {
        echo "# $3"
        echo "recipe = \"scripts/images/xfs-log.sh, mkfs.xfs $2\""
        echo "tools = \"$(mkfs.xfs -V), Linux $4\""
        echo "sha256 = \"$(sha256sum <"$work/img" | cut -d' ' -f1)\""
        echo "# As the kernel shows it after its recovery; the columns are those of scripts/oracles/tree.py."
        echo "tree = '''"
        cat "$work/list"
        echo "'''"
    } >"$out/$name.img.toml"
    ls -l "$out/$name.img.zst"
}
fresh() { # mkfs-options
    rm -f "$work/img" "$work/tree"
    truncate -s 34M "$work/img"
    # shellcheck disable=SC2086 # options are words
    mkfs.xfs --unsupported -q -d agcount=2 $1 "$work/img" >/dev/null 2>&1
    # One file that is in its place before the log is used.
    [ "${2:-}" = guest ] && return
    mount -o loop "$work/img" "$work/mnt"
    mkdir "$work/mnt/etc"
    echo "UUID=0 / xfs defaults 0 0" >"$work/mnt/etc/fstab"
    umount "$work/mnt"
}

fresh "-m rmapbt=1 -L log"
mount -o loop "$work/img" "$work/mnt"
sh "$work/changes" "$work/mnt" 60
python3 - "$work/mnt" <<'P'
import os, sys
os.chdir(sys.argv[1])
for number in range(30):
    os.setxattr("home/file7", "user.number-%02d" % number, b"%d" % number * 20)
os.setxattr("home/file8", "security.selinux", b"system_u:object_r:etc_t:s0\0")
os.setxattr("home/file8", "user.large", b"0123456789abcdef" * 300)
with open("home/pieces", "wb") as file:
    for number in range(40):
        file.seek(number * 9000)
        file.write(b"%d" % number)
        file.flush()
        os.fsync(file.fileno())
P
sleep 1
xfs_io -x -c 'shutdown -f' "$work/mnt"
umount "$work/mnt"
describe xfs-log-v5 "-m rmapbt=1" "Version 5 with a reverse map: files, folders, links, attributes, a fragmented file." "$(uname -r)"

fresh "-m reflink=1 -l su=4k"
mount -o loop "$work/img" "$work/mnt"
sh "$work/changes" "$work/mnt" 30
python3 - "$work/mnt" <<'P'
import fcntl, os, subprocess, sys
os.chdir(sys.argv[1])
with open("home/file9", "r+b") as first, open("home/shared", "wb") as second:
    fcntl.ioctl(second.fileno(), 0x40049409, first.fileno())
with open("home/shared", "r+b") as file:
    file.write(b"own" * 1000)
    os.fsync(file.fileno())
held = [open("home/file%d" % number) for number in (10, 11, 12)]
for number in (10, 11, 12):
    os.unlink("home/file%d" % number)
subprocess.run(["xfs_io", "-x", "-c", "shutdown -f", "."], check=True)
P
umount "$work/mnt"
describe xfs-log-open "-m reflink=1 -l su=4k" "Version 5 with a log stripe of 4 KiB, shared blocks, and files that were removed while they were open." "$(uname -r)"

fresh "-b size=1024 -m reflink=0 -i sparse=1"
mount -o loop,logbsize=256k "$work/img" "$work/mnt"
sh "$work/changes" "$work/mnt" 30
# Around the log.
python3 - "$work/mnt" <<'P'
import os, sys
os.chdir(sys.argv[1])
for turn in range(30):
    for number in range(120):
        os.mkdir("turn%d" % number)
    for number in range(120):
        os.rmdir("turn%d" % number)
    os.sync()
for number in range(300):
    os.mknod("var/entry-%d-%s" % (number, "m" * (number % 30)), 0o600 | 0o010000)
for number in range(0, 300, 3):
    os.unlink("var/entry-%d-%s" % (number, "m" * (number % 30)))
P
sleep 1
xfs_io -x -c 'shutdown -f' "$work/mnt"
umount "$work/mnt"
describe xfs-log-1k "-b size=1024 -m reflink=0 -i sparse=1" "Version 5 with blocks of 1 KiB and records of up to 256 KiB." "$(uname -r)"

fresh "-m crc=0,finobt=0,reflink=0,rmapbt=0,bigtime=0,inobtcount=0 -n ftype=0" guest
{ cat "$work/changes"; echo 'cd /; xfs_io -x -c "shutdown -f" /mnt'; } >"$work/script"
{ echo 'm() { mount -t xfs /dev/vda /mnt; }; m; mkdir /mnt/etc; echo "UUID=0 / xfs" > /mnt/etc/fstab; umount /mnt; m; set -- /mnt 40'; cat "$work/script"; } |
    python3 "$here/../oracles/in-guest.py" --disk "$work/img:raw" -
cp "$work/img" "$work/again"
python3 "$here/../oracles/in-guest.py" --disk "$work/again:raw" - >"$work/said" <<'S'
mount -t xfs /dev/vda /mnt; cd /mnt
find . | while read -r p; do
    l=-; c=-; t=-; s=$(/sbin/stat -c %s "$p"); d=0:0
    if [ -L "$p" ]; then l=l; t=$(readlink "$p")
    elif [ -d "$p" ]; then l=d; s=0
    elif [ -p "$p" ]; then l=p
    elif [ -c "$p" ]; then l=c; d=4:65
    else c=$(sha256sum < "$p" | cut -c1-64); fi
    m=$(/sbin/stat -c %a "$p"); while [ ${#m} -lt 4 ]; do m=0$m; done
    printf 'L%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n' "$p" $l $m "$(/sbin/stat -c '%h	%u	%g' "$p")" "$s" "$(/sbin/stat -c %.9Y "$p")" "$(/sbin/stat -c %i "$p")" $d "$c" "$t"
done
S
sed -n 's/^L//p' "$work/said" | LC_ALL=C sort >"$work/tree"
describe xfs-log-v4 "-m crc=0,finobt=0,reflink=0 -n ftype=0" "Version 4 without kinds in folders." "6.1 in a guest"
