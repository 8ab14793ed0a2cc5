#!/bin/bash
# Builds the lab's guests from Debian 12 packages, as root, without KVM, nbd, device-mapper or md on this host.
#
#   LAB=/folder build.sh            the two base trees and all guests that are not there yet
#   LAB=/folder build.sh g1 g4      these guests (again)
#
# $LAB/images/NAME.qcow2, 0.3 to 0.7 GB each; root has no password, the LUKS passphrase is `labpass`.
#   g1      BIOS, MBR, one ext4 root, initramfs-tools, fstab by UUID
#   g2      BIOS, MBR, XFS /boot (fstab: /dev/vda1) and LVM with XFS root and swap, dracut
#   g3      UEFI, GPT, ESP and ext4 root, fstab by PARTUUID
#   g4      BIOS, GPT, btrfs subvolumes @ and @home
#   g5luks  BIOS, ext4 /boot, LUKS1 root
#   g5md    BIOS, two disks, RAID 1 root (g5md-a, g5md-b)
#   g6el    g2 dressed as CentOS 7: grub2 paths, os-release, a BLS file
#   g1usr, g2usr  g1 and g2 with /usr on a partition of its own
#   g7      BIOS, GPT, ext4 root, dracut; /home and swap by the types of their partitions alone
#   g8data, g9data  g1 and g2 with a second disk that holds a volume group for /data
# File systems are made and filled on loop devices at byte offsets; only GRUB is installed in libguestfs' appliance.
set -euo pipefail
LAB=${LAB:-$HOME/guestmend-lab}
WORK=$LAB/work IMAGES=$LAB/images MOUNT=$LAB/work/mount
export LAB LIBGUESTFS_BACKEND=direct LIBGUESTFS_BACKEND_SETTINGS=force_tcg
here=$(dirname "$(readlink -f "$0")")
mkdir -p "$WORK" "$IMAGES" "$LAB/logs" "$LAB/tmp"
MIB=1048576

needs() {
  local missing=()
  for package in qemu-system-x86 qemu-utils ovmf mmdebstrap lvm2 xfsprogs btrfs-progs dosfstools mtools gdisk fdisk mdadm \
    cryptsetup-bin grub-pc-bin grub-efi-amd64-bin grub2-common libguestfs-tools zstd; do
    dpkg -s "$package" > /dev/null 2>&1 || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] || apt-get install -y --no-install-recommends "${missing[@]}"
}

loops=()
loop() { # FILE OFFSET LENGTH: a loop device in $device
  device=$(losetup -f --show -o "$2" --sizelimit "$3" "$1"); loops+=("$device")
}
clean() {
  umount -qR "$MOUNT" 2> /dev/null || true
  for device in "${loops[@]}"; do losetup -d "$device" 2> /dev/null || true; done
  loops=()
}
trap clean EXIT

base() { # NAME PACKAGES: a Debian tree as $WORK/NAME.tar, without documentation
  [ -e "$WORK/$1.tar" ] && return
  local packages=systemd,systemd-sysv,udev,dbus,util-linux,util-linux-extra,login,passwd,kmod,e2fsprogs,xfsprogs,btrfs-progs,dosfstools,lvm2
  packages=$packages,mdadm,cryptsetup,grub-common,grub2-common,grub-pc-bin,grub-efi-amd64-bin,fdisk,gdisk,procps,less,zstd,mount,iproute2,busybox
  mmdebstrap --variant=minbase --mode=root --include="$packages,linux-image-cloud-amd64,$2" --aptopt='Apt::Install-Recommends "0"' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/info/*' --dpkgopt='path-exclude=/usr/share/grub/*.pf2' bookworm "$WORK/$1.tar"
  # faults.py and run.py look into the tree: GRUB's modules, the versions of packages.
  rm -rf "${WORK:?}/$1"; mkdir "$WORK/$1"; tar -C "$WORK/$1" --numeric-owner --xattrs -xpf "$WORK/$1.tar"
}

fill() { # BASE HOST TERMINAL COMMAND-LINE: the tree in $MOUNT, with what every guest has in common
  tar -C "$MOUNT" --numeric-owner --xattrs -xpf "$WORK/$1.tar"
  rm -f "$MOUNT"/var/cache/apt/archives/*.deb "$MOUNT"/var/lib/apt/lists/*_* "$MOUNT"/var/cache/apt/*.bin "$MOUNT"/etc/resolv.conf
  rm -f "$MOUNT"/etc/systemd/system/timers.target.wants/*
  echo "$2" > "$MOUNT/etc/hostname"
  sed -i 's/^root:[^:]*:/root::/' "$MOUNT/etc/shadow"
  # A machine waits 90 s for a missing device; that long is only a waste of time here. 20 s is too short under TCG.
  mkdir -p "$MOUNT/etc/systemd/system.conf.d"
  printf '[Manager]\nDefaultDeviceTimeoutSec=45s\n' > "$MOUNT/etc/systemd/system.conf.d/lab.conf"
  ln -sf /lib/systemd/system/multi-user.target "$MOUNT/etc/systemd/system/default.target"
  if [ "$1" = base-deb ]; then
    mkdir -p "$MOUNT/etc/initramfs-tools/conf.d"
    echo RESUME=none > "$MOUNT/etc/initramfs-tools/conf.d/resume"
  fi
  printf '%s\n' GRUB_DEFAULT=saved GRUB_TIMEOUT=1 GRUB_DISTRIBUTOR=Debian 'GRUB_CMDLINE_LINUX_DEFAULT=""' \
    "GRUB_CMDLINE_LINUX=\"console=ttyS0,115200 systemd.journald.forward_to_console=0 $4\"" "GRUB_TERMINAL=\"$3\"" \
    'GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"' GRUB_DISABLE_OS_PROBER=true GRUB_DISABLE_SUBMENU=y > "$MOUNT/etc/default/grub"
  echo "0123456789abcdef0123456789abcd$(printf %s "$2" | cksum | tail -c 3 | head -c 2)" > "$MOUNT/etc/machine-id"
}

in_chroot() { # COMMAND...: in $MOUNT, with what dracut and update-initramfs look for
  mount -t proc proc "$MOUNT/proc"; mount -t sysfs sys "$MOUNT/sys"; mount --bind /dev "$MOUNT/dev"
  chroot "$MOUNT" "$@" || true
  umount "$MOUNT/proc" "$MOUNT/sys" "$MOUNT/dev"
}

dracut_conf() { # an initramfs for any machine, and no other generator's settings
  mkdir -p "$MOUNT/etc/dracut.conf.d"
  printf '%s\n' 'hostonly="no"' 'hostonly_cmdline="no"' 'add_dracutmodules+=" lvm dm "' 'add_drivers+=" xfs virtio_blk virtio_scsi virtio_pci ata_piix dm_mod "' \
    'compress="zstd"' 'omit_dracutmodules+=" plymouth network nfs iscsi multipath "' > "$MOUNT/etc/dracut.conf.d/lab.conf"
  rm -rf "$MOUNT/etc/initramfs-tools"
}

# GRUB in the appliance. A script there sees kernel names, and the appliance's own disk may be sda: the guest's disks
# are found by the labels /dev/disk/guestfs/a and b instead.
grub() { # "COMMANDS THAT MOUNT" SCRIPT RAW...
  local mounts=$1 script=$2 drives=() label=a
  shift 2
  for raw in "$@"; do drives+=(add-drive "$raw" "format:raw" "label:$label" :); label=b; done
  # shellcheck disable=SC2086 # the commands are words
  guestfish --keys-from-stdin "${drives[@]}" run : $mounts : sh "a=\$(readlink -f /dev/disk/guestfs/a); b=\$(readlink -f /dev/disk/guestfs/b || true); set -e
    $script
    update-grub && grub-editenv /boot/grub/grubenv create"
}

finish() { # NAME
  qemu-img convert -O qcow2 "$WORK/$1.raw" "$IMAGES/$1.qcow2.new"
  mv "$IMAGES/$1.qcow2.new" "$IMAGES/$1.qcow2"
  rm "$WORK/$1.raw"
}

partition() { # RAW NUMBER: sets $offset and $length in bytes
  read -r offset length < <(sfdisk -J "$1" | python3 -c 'import json, sys
part = json.load(sys.stdin)["partitiontable"]["partitions"][int(sys.argv[1]) - 1]
print(part["start"] * 512, part["size"] * 512)' "$2")
}

g1() {
  local raw=$WORK/g1.raw uuid=11111111-aaaa-4bbb-8ccc-000000000001
  truncate -s 2G "$raw"; echo -e 'label: dos\nstart=2048, type=83, bootable' | sfdisk -q "$raw"
  partition "$raw" 1; loop "$raw" "$offset" "$length"
  mkfs.ext4 -q -U $uuid -L root "$device"; mount "$device" "$MOUNT"
  fill base-deb g1 "serial console" ""
  echo "UUID=$uuid / ext4 errors=remount-ro 0 1" > "$MOUNT/etc/fstab"
  in_chroot update-initramfs -u -k all
  clean
  grub "mount /dev/sda1 /" 'grub-install --target=i386-pc $a' "$raw"
  finish g1
}

g2() {
  local raw=$WORK/g2.raw boot root
  truncate -s 2560M "$raw"; echo -e 'label: dos\nstart=2048, size=320M, type=83, bootable\ntype=8e' | sfdisk -q "$raw"
  guestfish add-drive "$raw" format:raw : run : pvcreate /dev/sda2 : vgcreate centos /dev/sda2 : lvcreate swap centos 128 : lvcreate root centos 1900 : mkswap /dev/centos/swap
  read -r offset length < <(cd "$here" && python3 -c 'import sys, disk
d = disk.Disk("'"$raw"'"); d.__enter__(); print(*d.logical_volume(d.partitions()[1], "centos", "root")); d.__exit__()')
  loop "$raw" "$offset" "$length"; root=$device
  partition "$raw" 1; loop "$raw" "$offset" "$length"; boot=$device
  mkfs.xfs -q -f -L root -m uuid=22222222-aaaa-4bbb-8ccc-000000000002 "$root"; mkfs.xfs -q -f -L boot -m uuid=22222222-aaaa-4bbb-8ccc-0000000000b2 "$boot"
  mount "$root" "$MOUNT"; mkdir "$MOUNT/boot"; mount "$boot" "$MOUNT/boot"
  fill base-dracut g2 "serial console" "rd.lvm.lv=centos/root rd.lvm.lv=centos/swap rd.retry=25"
  # The fault of the founding story sleeps here: /boot by its device name.
  printf '/dev/mapper/centos-root / xfs defaults 0 0\n/dev/vda1 /boot xfs defaults 0 0\n/dev/mapper/centos-swap swap swap defaults 0 0\n' > "$MOUNT/etc/fstab"
  dracut_conf
  local kernel; kernel=$(basename "$MOUNT"/boot/vmlinuz-*); kernel=${kernel#vmlinuz-}
  in_chroot dracut -q --force --kver "$kernel" "/boot/initrd.img-$kernel"
  clean
  grub "mount /dev/centos/root / : mount /dev/sda1 /boot" 'grub-install --target=i386-pc $a; vgcfgbackup' "$raw"
  finish g2
}

g3() {
  local raw=$WORK/g3.raw
  truncate -s 2G "$raw"
  sgdisk -n1:2048:+100M -t1:ef00 -c1:ESP -n2:0:0 -t2:8304 -c2:root -u1:33333333-aaaa-4bbb-8ccc-0000000000e1 -u2:33333333-aaaa-4bbb-8ccc-0000000000e2 "$raw" > /dev/null
  partition "$raw" 1; loop "$raw" "$offset" "$length"; mkfs.fat -F32 -n ESP -i 3333EEEE "$device" > /dev/null
  partition "$raw" 2; loop "$raw" "$offset" "$length"
  mkfs.ext4 -q -U 33333333-aaaa-4bbb-8ccc-000000000003 -L root "$device"; mount "$device" "$MOUNT"
  fill base-deb g3 console ""
  mkdir -p "$MOUNT/boot/efi"
  printf 'PARTUUID=33333333-aaaa-4bbb-8ccc-0000000000e2 / ext4 errors=remount-ro 0 1\nUUID=3333-EEEE /boot/efi vfat umask=0077 0 1\n' > "$MOUNT/etc/fstab"
  clean
  grub "mount /dev/sda2 / : mount /dev/sda1 /boot/efi" 'grub-install --target=x86_64-efi --efi-directory=/boot/efi --no-nvram --bootloader-id=debian
    mkdir -p /boot/efi/EFI/BOOT; cp /boot/efi/EFI/debian/grubx64.efi /boot/efi/EFI/BOOT/BOOTX64.EFI' "$raw"
  finish g3
}

g4() {
  local raw=$WORK/g4.raw uuid=44444444-aaaa-4bbb-8ccc-000000000004
  truncate -s 2G "$raw"; sgdisk -n1:2048:+1M -t1:ef02 -c1:bios -n2:0:0 -t2:8304 -c2:root "$raw" > /dev/null
  partition "$raw" 2; loop "$raw" "$offset" "$length"
  mkfs.btrfs -q -f -U $uuid -L root "$device"; mount -o compress=zstd "$device" "$MOUNT"
  btrfs -q subvolume create "$MOUNT/@"; btrfs -q subvolume create "$MOUNT/@home"; umount "$MOUNT"
  mount -o compress=zstd,subvol=@ "$device" "$MOUNT"; mkdir -p "$MOUNT/home"; mount -o compress=zstd,subvol=@home "$device" "$MOUNT/home"
  fill base-deb g4 "serial console" ""
  printf "UUID=$uuid / btrfs subvol=@,compress=zstd 0 0\nUUID=$uuid /home btrfs subvol=@home,compress=zstd 0 0\n" > "$MOUNT/etc/fstab"
  clean
  grub "mount-options subvol=@ /dev/sda2 /" 'grub-install --target=i386-pc $a' "$raw"
  finish g4
}

g5luks() {
  local raw=$WORK/g5luks.raw luks=$WORK/luks.img open=$WORK/luks.open daemon
  truncate -s 2G "$raw"; echo -e 'label: dos\nstart=2048, size=300M, type=83, bootable\ntype=83' | sfdisk -q "$raw"
  # QEMU's own LUKS driver writes the encrypted part: no dm-crypt here.
  qemu-img create -q --object secret,id=s,data=labpass -f luks -o key-secret=s,iter-time=10 "$luks" 1600M
  touch "$open"
  qemu-storage-daemon --object secret,id=s,data=labpass --blockdev driver=file,filename="$luks",node-name=f --blockdev driver=luks,key-secret=s,file=f,node-name=q \
    --export type=fuse,id=e,node-name=q,mountpoint="$open",writable=on & daemon=$!
  sleep 2
  loop "$open" 0 $((1600 * MIB)); local root=$device
  partition "$raw" 1; loop "$raw" "$offset" "$length"
  mkfs.ext4 -q -U 55555555-aaaa-4bbb-8ccc-000000000005 -L root "$root"; mkfs.ext4 -q -U 55555555-aaaa-4bbb-8ccc-0000000000b5 -L boot "$device"
  mount "$root" "$MOUNT"; mkdir "$MOUNT/boot"; mount "$device" "$MOUNT/boot"
  fill base-deb g5luks "serial console" ""
  printf '/dev/mapper/cryptroot / ext4 errors=remount-ro 0 1\nUUID=55555555-aaaa-4bbb-8ccc-0000000000b5 /boot ext4 defaults 0 2\n' > "$MOUNT/etc/fstab"
  echo "cryptroot UUID=$(cryptsetup luksUUID "$luks") none luks,initramfs" > "$MOUNT/etc/crypttab"
  in_chroot update-initramfs -u -k all
  clean; sync; kill $daemon; wait $daemon || true
  partition "$raw" 2; dd if="$luks" of="$raw" bs=1M seek=$((offset / MIB)) conv=notrunc,sparse status=none
  rm -f "$luks" "$open"
  grub "cryptsetup-open /dev/sda2 cryptroot : mount /dev/mapper/cryptroot / : mount /dev/sda1 /boot" 'grub-install --target=i386-pc $a' "$raw" <<< labpass
  finish g5luks
}

g5md() {
  local a=$WORK/g5md-a.raw b=$WORK/g5md-b.raw start size uuid
  truncate -s 2G "$a" "$b"
  for raw in "$a" "$b"; do echo -e 'label: dos\nstart=2048, type=fd, bootable' | sfdisk -q "$raw"; done
  guestfish add-drive "$a" format:raw label:a : add-drive "$b" format:raw label:b : run : \
    debug sh "mdadm --create /dev/md0 --assume-clean --run --metadata=1.2 --level=1 --raid-devices=2 --homehost=g5md --name=0 /dev/disk/guestfs/a1 /dev/disk/guestfs/b1" : \
    debug sh "mdadm --stop /dev/md0"
  partition "$a" 1; loop "$a" "$offset" "$length"
  mdadm --examine "$device" > "$WORK/examine"
  start=$(awk '/Data Offset/ {print $4}' "$WORK/examine"); size=$(awk '/Array Size/ {print $4}' "$WORK/examine"); uuid=$(awk '/Array UUID/ {print $4}' "$WORK/examine")
  clean
  loop "$a" $((MIB + start * 512)) $((size * 1024))
  mkfs.ext4 -q -U 55555555-aaaa-4bbb-8ccc-0000000000d5 -L root "$device"; mount "$device" "$MOUNT"
  fill base-deb g5md "serial console" ""
  echo "UUID=55555555-aaaa-4bbb-8ccc-0000000000d5 / ext4 errors=remount-ro 0 1" > "$MOUNT/etc/fstab"
  printf 'HOMEHOST <system>\nARRAY /dev/md/0 metadata=1.2 UUID=%s name=g5md:0\n' "$uuid" > "$MOUNT/etc/mdadm/mdadm.conf"
  in_chroot update-initramfs -u -k all
  clean
  # The second half of the mirror is a copy of the first's data.
  dd if="$a" of="$b" bs=1M skip=$((1 + start / 2048)) seek=$((1 + start / 2048)) conv=notrunc,sparse status=none
  grub "mount /dev/md127 /" 'grub-install --target=i386-pc $a; grub-install --target=i386-pc $b' "$a" "$b"
  finish g5md-a; finish g5md-b
}

g6el() { python3 "$here/dress-el7.py"; }
g1usr() { python3 "$here/split-usr.py" g1; }
g2usr() { python3 "$here/split-usr.py" g2; }

g7() {
  local raw=$WORK/g7.raw uuid=77777777-aaaa-4bbb-8ccc-000000000007
  truncate -s 2560M "$raw"
  sgdisk -n1:2048:+1M -t1:ef02 -n2:0:+1900M -t2:8304 -c2:root -n3:0:+200M -t3:8302 -c3:home -n4:0:0 -t4:8200 -c4:swap "$raw" > /dev/null
  partition "$raw" 3; loop "$raw" "$offset" "$length"; mkfs.ext4 -q -U 77777777-aaaa-4bbb-8ccc-0000000000a7 -L home "$device"
  partition "$raw" 4; loop "$raw" "$offset" "$length"; mkswap -q -U 77777777-aaaa-4bbb-8ccc-0000000000b7 "$device"
  partition "$raw" 2; loop "$raw" "$offset" "$length"
  mkfs.ext4 -q -U $uuid -L root "$device"; mount "$device" "$MOUNT"
  fill base-dracut g7 "serial console" "rd.retry=25"
  echo "UUID=$uuid / ext4 errors=remount-ro 0 1" > "$MOUNT/etc/fstab"
  dracut_conf
  local kernel; kernel=$(basename "$MOUNT"/boot/vmlinuz-*); kernel=${kernel#vmlinuz-}
  in_chroot dracut -q --force --kver "$kernel" "/boot/initrd.img-$kernel"
  clean
  grub "mount /dev/sda2 /" 'grub-install --target=i386-pc $a' "$raw"
  finish g7
}

g8data() { data g8data g1; }
g9data() { data g9data g2; }

data() { # NAME OF: another guest with a second disk, which is a physical volume
  local raw=$WORK/$1-b.raw made=$WORK/$1-a.qcow2
  truncate -s 256M "$raw"
  guestfish add-drive "$raw" format:raw : run : pvcreate /dev/sda : vgcreate data /dev/sda : lvcreate files data 128 : mkfs ext4 /dev/data/files : set-uuid /dev/data/files 88888888-aaaa-4bbb-8ccc-000000000008
  qemu-img create -q -f qcow2 -F qcow2 -b "$IMAGES/$2.qcow2" "$made"
  (cd "$here" && python3 -c 'import sys, disk, faults
name, made, of = sys.argv[1:]
with disk.Disk(made) as opened, faults.Machine(of, [opened]).root() as root:
    open(root + "/etc/fstab", "a").write("/dev/mapper/data-files /data ext4 defaults 0 2\n")
    open(root + "/etc/hostname", "w").write(name + "\n")' "$1" "$made" "$2")
  qemu-img convert -O qcow2 "$made" "$IMAGES/$1-a.qcow2"
  rm "$made"
  finish "$1-b"
}

needs
mkdir -p "$MOUNT"
base base-deb initramfs-tools,cryptsetup-initramfs
base base-dracut dracut,dracut-core
if [ $# = 0 ]; then
  for guest in g1 g2 g3 g4 g5luks g5md g6el g1usr g2usr g7 g8data g9data; do
    [ -e "$IMAGES/$guest.qcow2" ] || [ -e "$IMAGES/$guest-a.qcow2" ] || set -- "$@" $guest
  done
fi
for guest in "$@"; do
  rm -f "$WORK/$guest"*.raw
  "$guest"
  echo "$guest: built"
done
