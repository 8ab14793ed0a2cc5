//! One fault, one file, one name.
//!
//! `src/fstab/unstable_device.rs` is `fstab.unstable-device` on screen, in JSON and in `explain`. A rule reads
//! what was found and reports; it never writes. What it proposes is data: [`repair::Fix`].

mod case;
pub mod cmdline;
pub mod esp;
mod finding;
pub mod fs;
pub mod fstab;
pub mod fw;
pub mod gpt;
pub mod grub;
pub mod id;
pub mod img;
pub mod init;
pub mod initramfs;
pub mod kernel;
mod kernel_arguments;
pub mod luks;
pub mod lvm;
pub mod mbr;
pub mod md;
pub mod modprobe;
pub mod part;
pub mod rootfs;
pub mod selinux;
mod stopped;
pub mod systemd;

pub use case::{Case, GuestFile};
pub use finding::{Finding, Line, Place, Severity, Spot};
pub use stopped::Cure;

use boot::BootTrace;
use guest::Guest;
use storage::Storage;

/// One fault that is looked for.
#[derive(Debug)]
pub struct Rule {
    /// `group.name`; names the fault, not the remedy.
    pub id: &'static str,
    /// One line: what is wrong.
    pub summary: &'static str,
    /// The manual page, in Markdown, with the headings "What happens", "Why", "Fix", "References".
    pub manual: &'static str,
    /// How it is found.
    pub check: Check,
}

/// How a fault is found.
#[derive(Debug)]
pub enum Check {
    /// By looking at one system.
    System(fn(&Case<'_>, &mut Vec<Finding>)),
    /// By following its boots: it is there where a boot ends because of it. With it, what finds the cure.
    Boot(Option<Cure>),
}

/// Every rule, sorted by id.
pub static RULES: &[&Rule] = &[
    &cmdline::debug_leftover::RULE,
    &cmdline::rd_device_missing::RULE,
    &cmdline::resume_stale::RULE,
    &cmdline::root_bare_device::RULE,
    &cmdline::root_unresolved::RULE,
    &esp::fallback_csv_broken::RULE,
    &esp::fs_damaged_or_full::RULE,
    &esp::loader_pair_broken::RULE,
    &esp::no_fallback_loader::RULE,
    &fs::btrfs_incomplete::RULE,
    &fs::ext4_errors::RULE,
    &fs::wrong_type_or_missing::RULE,
    &fs::xfs_corrupt::RULE,
    &fstab::fstype_wrong::RULE,
    &fstab::mountpoint_or_bind_invalid::RULE,
    &fstab::option_hazard::RULE,
    &fstab::root_mismatch::RULE,
    &fstab::swap_missing::RULE,
    &fstab::syntax::RULE,
    &fstab::unresolved_source::RULE,
    &fstab::unstable_device::RULE,
    &fw::no_boot_path::RULE,
    &gpt::primary_invalid::RULE,
    &grub::boot_to_core::RULE,
    &grub::cfg_missing::RULE,
    &grub::cfg_search_stale::RULE,
    &grub::cfg_syntax::RULE,
    &grub::core_damaged::RULE,
    &grub::core_lacks_module::RULE,
    &grub::core_prefix_unresolvable::RULE,
    &grub::default_unresolved::RULE,
    &grub::entry_file_missing::RULE,
    &grub::fs_unreadable::RULE,
    &grub::modules_missing::RULE,
    &grub::no_initrd::RULE,
    &id::duplicate::RULE,
    &img::chain_broken::RULE,
    &img::corrupt_flag::RULE,
    &img::format_vs_definition::RULE,
    &init::missing::RULE,
    &initramfs::compression_unsupported::RULE,
    &initramfs::corrupt::RULE,
    &initramfs::missing_driver::RULE,
    &initramfs::root_stack_missing::RULE,
    &initramfs::stale_wait_device::RULE,
    &kernel::bus_driver_unavailable::RULE,
    &kernel::fs_feature_unsupported::RULE,
    &kernel::image_invalid::RULE,
    &kernel::modules_missing::RULE,
    &luks::crypttab_unresolved::RULE,
    &luks::header_or_key::RULE,
    &lvm::activation_disabled::RULE,
    &lvm::devices_file_excludes::RULE,
    &lvm::filter_excludes::RULE,
    &lvm::metadata_damaged::RULE,
    &lvm::pv_missing::RULE,
    &mbr::boot_code_unusable::RULE,
    &mbr::signature_missing::RULE,
    &md::conf_stale::RULE,
    &md::degraded_or_missing::RULE,
    &modprobe::storage_blacklisted::RULE,
    &part::out_of_bounds::RULE,
    &rootfs::libs_missing::RULE,
    &rootfs::mount_points_missing::RULE,
    &selinux::config_invalid::RULE,
    &systemd::default_target_broken::RULE,
    &systemd::offline_update_loop::RULE,
    &systemd::unit_broken::RULE,
];

/// The rule with this id.
pub fn find(id: &str) -> Option<&'static Rule> {
    RULES.iter().copied().find(|rule| rule.id == id)
}

/// Runs every rule over every system. `boots` holds the simulated boots of all systems, in any order.
pub fn judge(storage: &Storage, guests: &[Guest], boots: &[BootTrace]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for guest in guests {
        let case = Case::new(storage, guest, boots);
        let known = findings.len();
        for rule in RULES {
            match rule.check {
                Check::System(check) => check(&case, &mut findings),
                Check::Boot(cure) => stopped::report(rule, cure, &case, &mut findings),
            }
        }
        for rule in RULES.iter().filter(|rule| matches!(rule.check, Check::System(_))) {
            stopped::report_unseen(rule, &case, &mut findings, known);
        }
    }
    stopped::report_without_system(RULES, storage, boots, &mut findings);
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_every_manual_is_whole() {
        assert!(RULES.windows(2).all(|pair| pair[0].id < pair[1].id));
        for rule in RULES {
            let (group, name) = rule.id.split_once('.').unwrap();
            let file = format!("{}/src/{group}/{}.rs", env!("CARGO_MANIFEST_DIR"), name.replace('-', "_"));
            assert!(std::path::Path::new(&file).exists(), "{file}");
            for heading in ["## What happens", "## Why", "## Fix", "## References"] {
                assert!(rule.manual.contains(heading), "{}: {heading}", rule.id);
            }
            assert!(!rule.summary.ends_with('.'));
            assert!(std::ptr::eq(find(rule.id).unwrap(), *rule));
        }
    }

    #[test]
    fn every_rule_file_is_in_the_list() {
        let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let names = |folder: &std::path::Path| -> Vec<std::path::PathBuf> {
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
        };
        let files: Vec<_> =
            names(&source).iter().filter(|path| path.is_dir()).flat_map(|path| names(path)).collect();
        let count = files.iter().filter(|path| !path.ends_with("mod.rs")).count();
        assert_eq!(count, RULES.len());
    }
}
