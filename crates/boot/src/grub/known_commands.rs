//! The commands that exist, from the `command.lst` of GRUB 2.06 (i386-pc, x86_64-efi), the kernel's own, and those
//! that Fedora, Red Hat, Debian and SUSE add.

/// Whether any common build has a command of this name.
pub fn is_known_command(name: &str) -> bool {
    COMMANDS.split_ascii_whitespace().any(|known| known == name)
}

const COMMANDS: &str = "\
acpi all_functional_test background_image cat cpuid crc cryptomount drivemap echo \
extract_syslinux_entries_configfile extract_syslinux_entries_source file functional_test gettext halt hashsum \
hdparm hello help hexdump inb inl inw keystatus kfreebsd knetbsd kopenbsd list_env load_env loopback ls lsacpi \
lspci md5sum menuentry pcidump plan9 probe rdmsr read_byte read_dword read_word regexp save_env search sendkey \
serial setpci sha1sum sha256sum sha512sum sleep smbios submenu syslinux_configfile syslinux_source terminfo \
test_blockarg testspeed tr trust verify_detached xnu_splash zfskey . 915resolution [ appleloader authenticate \
background_color backtrace badram blocklist boot break cbmemc chainloader clear cmosclean cmosdump cmosset \
cmostest cmp configfile continue coreboot_boottime cutmem date distrust dump efiemu_loadcore efiemu_prepare \
efiemu_unload eval exit export extract_entries_configfile extract_entries_source \
extract_legacy_entries_configfile extract_legacy_entries_source fakebios false fix_video freedos fwsetup gdbstub \
gdbstub_break gdbstub_stop gptsync hexdump_random hwmatch initrd initrd16 initrdefi keymap kfreebsd_loadenv \
kfreebsd_module kfreebsd_module_elf knetbsd_module knetbsd_module_elf kopenbsd_ramdisk legacy_check_password \
legacy_configfile legacy_initrd legacy_initrd_nounzip legacy_kernel legacy_password legacy_source linux linux16 \
linuxefi list_trusted loadbios loadfont lsapm lscoreboot lsefi lsefimmap lsefisystab lsfonts lsmmap lsmod lssal \
macppcbless mactelbless module module2 multiboot multiboot2 nativedisk net_add_addr net_add_dns net_add_route \
net_bootp net_bootp6 net_del_addr net_del_dns net_del_route net_dhcp net_get_dhcp_option net_ipv6_autoconf \
net_ls_addr net_ls_cards net_ls_dns net_ls_routes net_nslookup normal normal_exit ntldr outb outl outw parttool \
password password_pbkdf2 play pxechainloader read reboot return rmmod search.file search.fs_label \
search.fs_uuid setparams shift source terminal_input terminal_output test testload time true truecrypt usb \
vbeinfo vbetest videoinfo videotest write_byte write_dword write_word wrmsr xnu_devprop_load xnu_kernel \
xnu_kernel64 xnu_kext xnu_kextdir xnu_mkext xnu_ramdisk xnu_resume xnu_uuid zfs-bootfs zfsinfo \
set unset insmod devicetree module_verify show_menu \
blscfg bls_import increment decrement version connectefi lsefisystab blsuki uki efivar reset_boot \
cryptocheck read_random tpm2_key_protector_init tpm2_key_protector_clear \
btrfs-mount-subvol btrfs-list-subvols btrfs-get-default-subvol btrfs-info net_bootp4 net_dhcp6 \
xen_hypervisor xen_module xen_initrd xen_linux getenv setenv rdrand";

/// The module that brings a command, as `command.lst` says: without its file the command fails. Those of more than one
/// name by build and platform are not asked for.
pub(super) fn module_of(command: &str) -> Option<&'static str> {
    Some(match command {
        "linux" | "initrd" => "linux",
        "linux16" | "initrd16" => "linux16",
        "search" => "search",
        "test" | "[" => "test",
        "load_env" | "save_env" | "list_env" => "loadenv",
        "configfile" | "source" | "." => "configfile",
        "blscfg" => "blscfg",
        "chainloader" => "chain",
        "probe" => "probe",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert!(is_known_command("linux") && is_known_command("[") && is_known_command("."));
        assert!(!is_known_command("load_video") && !is_known_command("lin") && !is_known_command(""));
    }
}
