//! The settings of an installed system, a line for each thing that it has.

use std::io::{self, Write};

use guest::{CloudInit, Kernel, Mdadm, Settings};
use guest_files::crypttab::Entry;
use guest_files::shell_conf::Variable;

use super::{Style, plain};

/// Of `/etc/default/grub`, what decides which entry starts and how; the JSON has the others.
const GRUB: [&str; 8] = [
    "GRUB_DEFAULT",
    "GRUB_TIMEOUT",
    "GRUB_CMDLINE_LINUX",
    "GRUB_CMDLINE_LINUX_DEFAULT",
    "GRUB_DISABLE_LINUX_UUID",
    "GRUB_ENABLE_BLSCFG",
    "GRUB_ENABLE_CRYPTODISK",
    "GRUB_PRELOAD_MODULES",
];
const INITRAMFS_TOOLS: [&str; 3] = ["MODULES", "COMPRESS", "RESUME"];

pub(super) fn print(out: &mut dyn Write, settings: &Settings, style: Style) -> io::Result<()> {
    let all = |variables: &[Variable]| assignments(variables.iter());
    let some = |variables: &[Variable], names: &[&str]| {
        let in_order = names.iter().flat_map(|name| variables.iter().find(|variable| variable.name == *name));
        assignments(in_order)
    };
    let lines = [
        ("default target", settings.default_target.as_ref().map(|target| word(&target.unit))),
        ("kernels", list(&settings.kernels, kernel)),
        ("GRUB", some(&settings.grub, &GRUB)),
        ("dracut", all(&settings.dracut)),
        ("initramfs-tools", some(&settings.initramfs_tools, &INITRAMFS_TOOLS)),
        ("SELinux", list(&settings.selinux, |variable| word(variable.value.as_deref().unwrap_or_default()))),
        ("cloud-init", settings.cloud_init.as_ref().map(cloud_init)),
        ("arrays", settings.mdadm.as_ref().and_then(arrays)),
        ("crypttab", list(&settings.crypttab, volume)),
    ];
    for (label, line) in lines {
        if let Some(line) = line {
            writeln!(out, "   {} {line}", style.dim(&format!("{label}:")))?;
        }
    }
    Ok(())
}

/// Text of an image on one line.
fn word(text: &str) -> String {
    plain(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn list<T>(items: &[T], show: impl Fn(&T) -> String) -> Option<String> {
    let shown: Vec<String> = items.iter().map(show).collect();
    (!shown.is_empty()).then(|| shown.join(", "))
}

/// `NAME=value`, quoted where it has blanks.
fn assignments<'a>(variables: impl Iterator<Item = &'a Variable>) -> Option<String> {
    let shown: Vec<String> = variables
        .map(|variable| match variable.value.as_deref().map(word) {
            Some(value) if value.contains(' ') => format!("{}=\"{value}\"", plain(&variable.name)),
            Some(value) => format!("{}={value}", plain(&variable.name)),
            None => format!("{}=(known to a shell)", plain(&variable.name)),
        })
        .collect();
    (!shown.is_empty()).then(|| shown.join(" "))
}

fn kernel(kernel: &Kernel) -> String {
    let parts = [
        (kernel.image.is_some(), "no image"),
        (kernel.initramfs.is_some(), "no initramfs"),
        (kernel.has_modules, "no modules"),
    ];
    let missing: Vec<&str> = parts.iter().filter(|(is_there, _)| !is_there).map(|(_, word)| *word).collect();
    let release = word(&kernel.release);
    if missing.is_empty() { release } else { format!("{release} ({})", missing.join(", ")) }
}

fn cloud_init(found: &CloudInit) -> String {
    let mut facts = Vec::new();
    if found.is_disabled {
        facts.push("disabled".into());
    }
    let sources = found.datasources.as_ref().and_then(|sources| list(&sources.names, |name| word(name)));
    facts.extend(sources.map(|sources| format!("datasources {sources}")));
    let instance = found.instance_id.as_deref().or_else(|| found.instance.as_deref()?.rsplit('/').next());
    facts.push(instance.map_or_else(|| "never run".into(), |id| format!("last instance {}", word(id))));
    facts.extend(found.seeds.iter().map(|seed| format!("seed {}", word(seed))));
    facts.join("; ")
}

fn arrays(mdadm: &Mdadm) -> Option<String> {
    list(&mdadm.conf.arrays, |array| {
        let device = array.device.as_deref().or(array.name.as_deref()).map(word);
        let uuid = array.uuid.as_deref().map(|uuid| format!("UUID={}", word(uuid)));
        let shown: Vec<String> = device.into_iter().chain(uuid).collect();
        if shown.is_empty() { "unnamed".into() } else { shown.join(" ") }
    })
}

fn volume(entry: &Entry) -> String {
    let options: Vec<String> = entry.options.iter().map(|option| word(option)).collect();
    let options = if options.is_empty() { String::new() } else { format!(" ({})", options.join(",")) };
    format!("{} from {}{options}", word(&entry.name), word(&entry.source))
}

#[cfg(test)]
mod tests {
    use guest::{Datasources, DefaultTarget};
    use guest_files::mdadm_conf::MdadmConf;
    use guest_files::{crypttab, shell_conf::ShellConf};

    use super::*;
    use crate::cli::args::Color;

    fn check(settings: &Settings, expected: &str) {
        let mut out = Vec::new();
        print(&mut out, settings, Style::stdout(Color::Never)).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_line_for_each_thing_that_is_there() {
        check(&Settings::default(), "");
        let variables = |text: &str| {
            let mut conf = ShellConf::default();
            conf.source("f", text.as_bytes());
            conf.into_variables()
        };
        let kernel =
            Kernel { release: "6.1".into(), has_modules: true, image: Some("i".into()), initramfs: None };
        let settings = Settings {
            default_target: Some(DefaultTarget { unit: "a\u{1b}\nb.target".into(), file: "f".into() }),
            kernels: vec![
                Kernel { initramfs: Some("j".into()), ..kernel.clone() },
                Kernel { has_modules: false, image: None, ..kernel },
            ],
            grub: variables("GRUB_X=y\nGRUB_CMDLINE_LINUX=\"a b\"\nGRUB_TIMEOUT=\"$x\"\nGRUB_DEFAULT=0\n"),
            dracut: variables("add_drivers+=\" x \"\nhostonly=no"),
            initramfs_tools: variables("KEYMAP=n\nRESUME=\nMODULES=most"),
            selinux: variables("SELINUX=enforcing\nSELINUXTYPE=targeted"),
            cloud_init: Some(CloudInit {
                is_disabled: true,
                datasources: Some(Datasources {
                    names: vec!["NoCloud".into(), "None".into()],
                    file: "f".into(),
                    line: 1,
                }),
                instance: Some("/var/lib/cloud/instances/iid-1".into()),
                ..CloudInit::default()
            }),
            mdadm: Some(Mdadm {
                file: "f".into(),
                conf: MdadmConf::parse(b"ARRAY /dev/md0 UUID=1\nARRAY name=x:1\nARRAY"),
            }),
            crypttab: crypttab::parse(b"root UUID=1 none luks,discard\nx /dev/vdb"),
            problems: Vec::new(),
        };
        check(
            &settings,
            "   default target: a\\u{1b} b.target
   kernels: 6.1, 6.1 (no image, no initramfs, no modules)
   GRUB: GRUB_DEFAULT=0 GRUB_TIMEOUT=(known to a shell) GRUB_CMDLINE_LINUX=\"a b\"
   dracut: add_drivers=x hostonly=no
   initramfs-tools: MODULES=most RESUME=
   SELinux: enforcing, targeted
   cloud-init: disabled; datasources NoCloud, None; last instance iid-1
   arrays: /dev/md0 UUID=1, x:1, unnamed
   crypttab: root from UUID=1 (luks,discard), x from /dev/vdb
",
        );
    }
}
