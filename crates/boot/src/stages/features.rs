//! Whether the kernel's driver takes a file system: by the features that it uses, and by its superblock.
//!
//! Linux `fs/ext4/super.c`, `ext4_feature_set_ok`; `fs/xfs/xfs_sb.c`, `xfs_validate_sb_read` and `xfs_validate_sb_write`. A feature
//! is known to a kernel from the release on that brought it, unless the distributor carries changes of its own.

use filesystem::Error;
use storage::Node;

use super::drivers::Drivers;

/// Why it is not taken.
pub(super) enum Refusal {
    /// Not at all: the rule, and the reason.
    Mount(&'static str, String),
    /// Not to be written.
    Write(&'static str, String),
}

const RULE: &str = "kernel.fs-feature-unsupported";

/// Features of the format that forbid mounting to who does not know them, with the release that brought them.
const INCOMPATIBLE: [(&str, &str, (u32, u32)); 14] = [
    ("ext4", "mmp", (3, 0)),
    ("ext4", "inline_data", (3, 8)),
    ("ext4", "encrypt", (4, 1)),
    ("ext4", "metadata_csum_seed", (4, 4)),
    ("ext4", "ea_inode", (4, 13)),
    ("ext4", "large_dir", (4, 13)),
    ("ext4", "casefold", (5, 2)),
    ("xfs", "sparse", (4, 2)),
    ("xfs", "metauuid", (4, 3)),
    ("xfs", "bigtime", (5, 10)),
    ("xfs", "nrext64", (5, 19)),
    ("xfs", "exchange", (6, 10)),
    ("xfs", "parent", (6, 10)),
    ("xfs", "metadir", (6, 13)),
];

/// Those that forbid writing.
const READ_ONLY: [(&str, &str, (u32, u32)); 10] = [
    ("ext4", "bigalloc", (3, 2)),
    ("ext4", "metadata_csum", (3, 5)),
    ("ext4", "quota", (3, 6)),
    ("ext4", "project", (4, 5)),
    ("ext4", "verity", (5, 4)),
    ("ext4", "orphan_present", (5, 15)),
    ("xfs", "finobt", (3, 16)),
    ("xfs", "rmapbt", (4, 8)),
    ("xfs", "reflink", (4, 9)),
    ("xfs", "inobtcount", (5, 10)),
];

/// Why the driver does not take a file system, if it does not.
pub(super) fn refused(node: &Node, drivers: &Drivers<'_>) -> Option<Refusal> {
    let kind = node.content_type()?;
    let is_ext = matches!(kind, "ext2" | "ext3" | "ext4");
    if !is_ext && kind != "xfs" {
        return None;
    }
    let path = &node.path;
    let view = match node.boot_loader_view() {
        Ok(view) => view,
        Err(error) => {
            return match error.as_ref() {
                // A bit without a name is one that no kernel knows either, as of this writing.
                Error::Unsupported { feature, .. }
                    if feature.contains("FEATURE_") || feature.contains("bit ") =>
                {
                    Some(Refusal::Mount(RULE, format!("{path} uses {feature}, which no kernel knows")))
                }
                Error::Corrupt(_) => {
                    let rule = if is_ext { "fs.ext4-errors" } else { "fs.xfs-corrupt" };
                    Some(Refusal::Mount(rule, format!("{path}: {error}")))
                }
                _ => None,
            };
        }
    };
    let release = drivers.release().and_then(version);
    let family = if is_ext { "ext4" } else { "xfs" };
    for feature in &view.fs.info().features {
        if feature == "needsrepair" && !is_ext {
            let reason = format!("{path} is marked as needing xfs_repair, and is not mounted before");
            return Some(Refusal::Mount("fs.xfs-corrupt", reason));
        }
        if feature.starts_with("FEATURE_R") || feature.starts_with("bit ") {
            return Some(Refusal::Write(RULE, format!("{path} uses {feature}, which no kernel knows")));
        }
        let since = |table: &[(&str, &str, (u32, u32))]| {
            let found = table.iter().find(|(kind, name, _)| *kind == family && name == feature)?;
            release.is_some_and(|release| release < found.2).then_some(found.2)
        };
        let reason = |(major, minor): (u32, u32)| {
            let release = drivers.release().unwrap_or_default();
            format!("{path} uses {feature}, which came with Linux {major}.{minor}, and this is {release}")
        };
        if let Some(brought) = since(&INCOMPATIBLE) {
            return Some(Refusal::Mount(RULE, reason(brought)));
        }
        if let Some(brought) = since(&READ_ONLY) {
            return Some(Refusal::Write(RULE, reason(brought)));
        }
    }
    None
}

/// `6.1.0-56-cloud-amd64` as (6, 1). `None` where newer features were carried to older kernels: Red Hat, SUSE, Amazon.
fn version(release: &str) -> Option<(u32, u32)> {
    let is_backported = [".el", ".amzn", ".fc", "-default", "uek"].iter().any(|mark| release.contains(mark));
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let found = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    (!is_backported).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        assert_eq!(version("6.1.0-56-cloud-amd64"), Some((6, 1)));
        assert_eq!(version("5.15.0"), Some((5, 15)));
        assert_eq!(version("3.10.0-1160.el7.x86_64"), None);
        assert_eq!(version("linux"), None);
    }
}
