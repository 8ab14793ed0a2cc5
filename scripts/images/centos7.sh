#!/bin/bash
# Makes test-images/guest/centos7-*: the founding story on small disks. Needs root (loop mounts); running the
# tests does not. Debian packages: lvm2 xfsprogs e2fsprogs fdisk qemu-utils attr cpio.
#
#   disk: MBR; p1 /boot; p2 PV of VG centos with linear LVs swap and root
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
out=$here/test-images/guest
work=$(mktemp -d)
mnt=$work/mnt
mkdir -p "$out" "$mnt"
loops=()
cleanup() {
  umount -q "$mnt/boot" "$mnt" 2>/dev/null || true
  for loop in "${loops[@]}"; do losetup -d "$loop" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT

boot_uuid=6f1c77a0-0b2d-4c3e-9a51-0c7de1000001
root_uuid=6f1c77a0-0b2d-4c3e-9a51-0c7de1000002
swap_uuid=6f1c77a0-0b2d-4c3e-9a51-0c7de1000003
kernel=3.10.0-1160.el7.x86_64

attach() { # FILE OFFSET SIZE -> loop device
  losetup -f --show -o "$2" --sizelimit "$3" "$1"
}

lvm_quiet() { # LOOP COMMAND...: LVM without device-mapper, udev or host configuration
  local loop=$1; shift
  lvm "$@" --driverloaded n --config "
    devices { filter=[\"a|^$loop\$|\",\"r|.*|\"] obtain_device_list_from_udev=0 external_device_info_source=\"none\"
              use_devicesfile=0 }
    global { activation=0 use_lvmpolld=0 } backup { backup=0 archive=0 }" >/dev/null 2>"$work/lvm.err" ||
    { cat "$work/lvm.err"; exit 1; }
}

file() { # PATH MODE LABEL: content from standard input
  mkdir -p "$(dirname "$mnt$1")"
  cat >"$mnt$1"
  chmod "$2" "$mnt$1"
  setfattr -n security.selinux -v "system_u:object_r:$3:s0" "$mnt$1"
}

kernel_image() { # a bzImage as far as its header goes: magic, version, and a body to fill the promised size
  python3 - "$kernel" <<'P'
import struct, sys
image = bytearray(17 * 512 + 4096)
image[0x1f1] = 15                                     # setup_sects
struct.pack_into('<I', image, 0x1f4, 4096 // 16)      # syssize
image[0x1fe:0x200] = b'\x55\xaa'
image[0x202:0x206] = b'HdrS'
struct.pack_into('<H', image, 0x206, 0x020c)
struct.pack_into('<H', image, 0x20e, 0x400)           # kernel_version - 0x200
version = (sys.argv[1] + ' (builder@example) #1 SMP\0').encode()
image[0x600:0x600 + len(version)] = version
sys.stdout.buffer.write(image)
P
}

initramfs() { # a gzipped newc archive with dracut's marker and this guest's lvm.conf
  mkdir -p "$work/initrd/etc/lvm" "$work/initrd/usr/lib/dracut"
  echo 'dracut-033-572.el7' >"$work/initrd/usr/lib/dracut/dracut-033-572.el7"
  echo 'devices { dir = "/dev" }' >"$work/initrd/etc/lvm/lvm.conf"
  (cd "$work/initrd" && find . | LC_ALL=C sort | cpio --quiet --reproducible -o -H newc | gzip -9n)
}

tree() { # FSTYPE BOOT-SOURCE
  mkdir -p "$mnt"/{boot/grub2,etc/lvm/{archive,backup},dev,proc,sys,run,tmp,usr/{bin,lib/systemd,sbin},var}
  ln -s usr/bin "$mnt/bin"; ln -s usr/sbin "$mnt/sbin"; ln -s usr/lib "$mnt/lib"
  printf 'stub\n' | file /usr/lib/systemd/systemd 0755 init_exec_t
  ln -s ../lib/systemd/systemd "$mnt/usr/sbin/init"
  file /usr/lib/os-release 0644 lib_t <<'F'
NAME="CentOS Linux"
VERSION="7 (Core)"
ID="centos"
ID_LIKE="rhel fedora"
VERSION_ID="7"
PRETTY_NAME="CentOS Linux 7 (Core)"
F
  ln -s ../usr/lib/os-release "$mnt/etc/os-release"
  echo 'web01.example' | file /etc/hostname 0644 hostname_etc_t
  file /etc/fstab 0644 etc_t <<F

#
# /etc/fstab
# Created by anaconda on Tue Mar 12 09:14:02 2019
#
# Accessible filesystems, by reference, are maintained under '/dev/disk'
# See man pages fstab(5), findfs(8), mount(8) and/or blkid(8) for more info
#
/dev/mapper/centos-root /                       $1     defaults        0 0
$2 /boot                   $1     defaults        0 0
/dev/mapper/centos-swap swap                    swap    defaults        0 0
F
  kernel_image | file "/boot/vmlinuz-$kernel" 0755 boot_t
  initramfs | file "/boot/initramfs-$kernel.img" 0600 boot_t
  file /boot/grub2/grub.cfg 0600 boot_t <<F
set default="\${saved_entry}"
load_env
insmod part_msdos
insmod $([ "$1" = ext4 ] && echo ext2 || echo xfs)
set root='hd0,msdos1'
search --no-floppy --fs-uuid --set=root $boot_uuid
menuentry 'CentOS Linux ($kernel) 7 (Core)' --class centos {
	linux16 /vmlinuz-$kernel root=/dev/mapper/centos-root ro rd.lvm.lv=centos/root rd.lvm.lv=centos/swap
	initrd16 /initramfs-$kernel.img
}
F
  { printf '# GRUB Environment Block\nsaved_entry=CentOS Linux (%s) 7 (Core)\n' "$kernel"
    head -c 1024 /dev/zero | tr '\0' '#'; } | head -c 1024 | file /boot/grub2/grubenv 0644 boot_t
}

make() { # NAME FSTYPE BOOT-SOURCE
  local disk=$work/$1.raw boot pv root swap start
  truncate -s 512M "$disk"
  printf 'label: dos\nlabel-id: 0x000c7de1\nstart=2048, size=96M, type=83, bootable\ntype=8e\n' | sfdisk -q "$disk"
  local p2=$(( (2048 + 96 * 2048) * 512 ))
  pv=$(attach "$disk" "$p2" $((512 * 1048576 - p2))); loops+=("$pv")
  lvm_quiet "$pv" pvcreate "$pv"
  lvm_quiet "$pv" vgcreate centos "$pv"
  lvm_quiet "$pv" lvcreate -an -Zn -Wn -n swap -l 4 centos
  lvm_quiet "$pv" lvcreate -an -Zn -Wn -n root -l 64 centos
  # pe_start is 1 MiB and extents are 4 MiB, LVM's defaults; swap took the first four.
  start=$((p2 + 1048576))
  swap=$(attach "$disk" "$start" $((16 * 1048576))); loops+=("$swap")
  root=$(attach "$disk" $((start + 16 * 1048576)) $((256 * 1048576))); loops+=("$root")
  boot=$(attach "$disk" 1048576 $((96 * 1048576))); loops+=("$boot")
  mkswap -q -U "$swap_uuid" "$swap" >/dev/null
  case $2 in
    xfs) # as CentOS 7 makes them: v5, no finobt, nothing newer
      local el7=(-q --unsupported -m crc=1,finobt=0,reflink=0,bigtime=0,inobtcount=0,rmapbt=0 -i sparse=0)
      mkfs.xfs "${el7[@]}" -m "uuid=$boot_uuid" "$boot"
      mkfs.xfs "${el7[@]}" -m "uuid=$root_uuid" "$root" ;;
    ext4)
      local el7=(-q -O ^metadata_csum,^64bit,^orphan_file -E lazy_itable_init=0)
      mkfs.ext4 "${el7[@]}" -U "$boot_uuid" "$boot"
      mkfs.ext4 "${el7[@]}" -U "$root_uuid" "$root" ;;
  esac
  mount "$root" "$mnt"; mkdir "$mnt/boot"; mount "$boot" "$mnt/boot"
  tree "$2" "$3"
  dd if="$disk" bs=512 skip=$((p2 / 512)) count=2048 status=none | tr '\0' '\n' | sed -n '/^centos {/,/^# Generated/p' |
    tail -n 60 | file /etc/lvm/backup/centos 0600 lvm_metadata_t
  file /etc/lvm/archive/centos_00000-1.vg 0600 lvm_metadata_t <"$mnt/etc/lvm/backup/centos"
  umount "$mnt/boot" "$mnt"
  for loop in "${loops[@]}"; do losetup -d "$loop"; done; loops=()
  qemu-img convert -c -O qcow2 "$disk" "$out/$1.qcow2"
  if [ "$1" = centos7-vda ]; then
    qemu-img convert -O vmdk -o subformat=streamOptimized "$disk" "$out/$1.vmdk"
    qemu-img convert -O vhdx -o subformat=dynamic,block_size=1M "$disk" "$work/$1.vhdx"
    xz -6e -T1 -c "$work/$1.vhdx" >"$out/$1.vhdx.xz"
  fi
  rm "$disk"
}

make centos7-vda xfs /dev/vda1
make centos7-vda-ext4 ext4 /dev/vda1
make centos7-uuid xfs "UUID=$boot_uuid"
{
  echo "# How these images were made: scripts/images/centos7.sh, with"
  for tool in "mkfs.xfs -V" "lvm version" "qemu-img --version"; do echo "#   $($tool 2>&1 | head -1)"; done
  echo "#   $(mke2fs -V 2>&1 | head -1)"
  (cd "$out" && sha256sum centos7-* | sed -E 's/^([0-9a-f]+)  (.*)$/[[image]]\nname = "\2"\nsha256 = "\1"\n/')
} >"$out/centos7.toml"
ls -la "$out"
