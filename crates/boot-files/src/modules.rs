//! The indexes that depmod(8) writes beside a kernel's modules: which module needs which, and what is built in.
//!
//! modules.dep(5), modprobe(8). Names compare with `-` and `_` equal. The text forms are read; depmod writes the binary forms,
//! which modprobe prefers, from the same facts.

use std::collections::{BTreeMap, BTreeSet};

/// Modules that the indexes of any real kernel name; the rest of longer files is passed over.
const MAX_MODULES: usize = 200_000;
/// Modules that one needs, of which real ones have some twenty.
const MAX_NEEDS: usize = 100;
/// Modules that one wishes for on either side; real ones have three.
const MAX_WISHES: usize = 8;
/// Modules that are loaded for one.
const MAX_ORDER: usize = 1000;

/// What a kernel can load, and what it need not.
#[derive(Debug, Clone, Default)]
pub struct Modules {
    modules: BTreeMap<String, Module>,
    builtin: BTreeSet<String>,
    /// What is wanted before a module, and after it.
    soft: BTreeMap<String, [Vec<String>; 2]>,
    /// Other names without wildcards; several modules may have the same.
    names: BTreeMap<String, Vec<String>>,
}

/// A line of `modules.dep`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Below the directory of the kernel's modules: `kernel/drivers/block/virtio_blk.ko.xz`.
    pub path: String,
    /// Names of all modules that must be loaded first, the last one first.
    pub needs: Vec<String>,
}

/// Why a module cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// No index names it.
    NotListed(String),
    /// The index names it and its file is not there; the path is below the modules' directory.
    NoFile(String),
}

impl Modules {
    /// From the contents of `modules.dep`, `modules.builtin`, `modules.alias` and `modules.softdep`, each empty when it is not there.
    pub fn parse(dep: &[u8], builtin: &[u8], alias: &[u8], softdep: &[u8]) -> Self {
        let mut found = Self::default();
        for line in lines(alias).take(MAX_MODULES) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let ["alias", name, module] = words.as_slice() else { continue };
            let module = module_name(module);
            // Those with wildcards are what devices are called.
            if !name.contains(['*', '?', '[']) {
                found.names.entry(name.replace('-', "_")).or_default().push(module);
            }
        }
        for line in lines(dep).take(MAX_MODULES) {
            let Some((path, needs)) = line.split_once(':') else { continue };
            let needs = needs.split_whitespace().take(MAX_NEEDS).map(module_name).collect();
            found.modules.insert(module_name(path), Module { path: path.trim().to_owned(), needs });
        }
        found.builtin = lines(builtin).take(MAX_MODULES).map(module_name).collect();
        for line in lines(softdep).take(MAX_MODULES) {
            let mut words = line.split_whitespace();
            let (Some("softdep"), Some(name)) = (words.next(), words.next()) else { continue };
            let [before, after] = found.soft.entry(module_name(name)).or_default();
            let mut list = None;
            for word in words {
                match (word, &mut list) {
                    ("pre:", _) => list = Some(&mut *before),
                    ("post:", _) => list = Some(&mut *after),
                    (word, Some(list)) => list.push(module_name(word)),
                    (_, None) => {}
                }
            }
        }
        found
    }

    /// Whether no index names anything: the kernel has no modules, or they were not found.
    pub fn is_empty(&self) -> bool {
        self.modules.is_empty() && self.builtin.is_empty()
    }

    /// Whether the kernel has it without loading anything.
    pub fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(&module_name(name))
    }

    /// The line of `modules.dep` for a module.
    pub fn get(&self, name: &str) -> Option<&Module> {
        self.modules.get(&module_name(name))
    }

    /// Names in `modules.dep`, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.modules.keys().map(String::as_str)
    }

    /// What modprobe would load for `name`, in this order, where `has_file` knows the paths that are there. Built-in modules need
    /// nothing. What is only wanted (`softdep`) is among them where it can be had.
    ///
    /// # Errors
    /// [`Missing`]: the first module that cannot be loaded.
    pub fn load_order(&self, name: &str, has_file: &dyn Fn(&str) -> bool) -> Result<Vec<&Module>, Missing> {
        let mut order = Vec::new();
        self.load(&module_name(name), has_file, &mut order, &mut BTreeSet::new())?;
        Ok(order)
    }

    fn load<'a>(
        &'a self,
        name: &str,
        has_file: &dyn Fn(&str) -> bool,
        order: &mut Vec<&'a Module>,
        seen: &mut BTreeSet<String>,
    ) -> Result<(), Missing> {
        if self.builtin.contains(name) || !seen.insert(name.to_owned()) {
            return Ok(());
        }
        for (member, module) in self.chain(name)? {
            let soft = self.soft.get(member);
            let [before, after] = soft.map_or([&[][..], &[]], |[before, after]| [before, after]);
            self.push_wanted(before, has_file, order, seen);
            push(module, has_file, order)?;
            self.push_wanted(after, has_file, order, seen);
        }
        Ok(())
    }

    /// What would be nice to have: of each all that it needs, or nothing. What a wish wishes for itself decides no boot.
    fn push_wanted<'a>(
        &'a self,
        wanted: &'a [String],
        has_file: &dyn Fn(&str) -> bool,
        order: &mut Vec<&'a Module>,
        seen: &mut BTreeSet<String>,
    ) {
        for name in wanted.iter().flat_map(|soft| self.named(soft)).take(MAX_WISHES) {
            let before = order.len();
            if seen.insert(name.to_owned()) && self.push_all(name, has_file, order).is_err() {
                order.truncate(before);
            }
        }
    }

    fn push_all<'a>(
        &'a self,
        name: &str,
        has_file: &dyn Fn(&str) -> bool,
        order: &mut Vec<&'a Module>,
    ) -> Result<(), Missing> {
        if self.builtin.contains(name) {
            return Ok(());
        }
        self.chain(name)?.into_iter().try_for_each(|(_, module)| push(module, has_file, order))
    }

    /// A module behind all that it needs; the lines of the index are complete, so that theirs stand there, too.
    fn chain<'a>(&'a self, name: &str) -> Result<Vec<(&'a str, &'a Module)>, Missing> {
        let get =
            |name: &str| self.modules.get_key_value(name).ok_or_else(|| Missing::NotListed(name.to_owned()));
        let (name, module) = get(name)?;
        let mut chain = Vec::new();
        for need in module.needs.iter().rev() {
            let (need, found) = get(need)?;
            chain.push((need.as_str(), found));
        }
        chain.push((name, module));
        Ok(chain)
    }

    /// The modules of this name or alias. An alias comes before what is built in, as `crc32` is both.
    fn named<'a>(&'a self, name: &'a str) -> Vec<&'a str> {
        if self.modules.contains_key(name) {
            return vec![name];
        }
        self.names.get(name).into_iter().flatten().map(String::as_str).collect()
    }
}

fn push<'a>(
    module: &'a Module,
    has_file: &dyn Fn(&str) -> bool,
    order: &mut Vec<&'a Module>,
) -> Result<(), Missing> {
    if order.iter().any(|loaded| loaded.path == module.path) {
        return Ok(());
    }
    if order.len() >= MAX_ORDER || !has_file(&module.path) {
        return Err(Missing::NoFile(module.path.clone()));
    }
    order.push(module);
    Ok(())
}

/// The name of a module from its name or path: without directories and `.ko`, `-` as `_`.
pub fn module_name(path: &str) -> String {
    let file = path.trim().rsplit('/').next().unwrap_or_default();
    let stem = file.find(".ko").map_or(file, |end| &file[..end]);
    stem.replace('-', "_")
}

fn lines(text: &[u8]) -> impl Iterator<Item = &str> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;

    const DEP: &[u8] = b"kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko\n\
kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko\n\
kernel/drivers/virtio/virtio_ring.ko:\n\
kernel/fs/xfs/xfs.ko.xz: kernel/lib/libcrc32c.ko.xz\n\
kernel/lib/libcrc32c.ko.xz:\n\
kernel/crypto/crc32c-intel.ko:\n";

    fn modules() -> Modules {
        let alias = b"alias crc32c crc32c_intel
alias pci:v00001AF4d*sv*sd* virtio_pci
alias x?[0-3]y z
";
        let soft = b"# Soft
softdep libcrc32c pre: crc32c absent
";
        Modules::parse(
            DEP,
            b"kernel/fs/ext4/ext4.ko
",
            alias,
            soft,
        )
    }

    fn order<'a>(modules: &'a Modules, name: &str, absent: &str) -> Result<Vec<&'a str>, Missing> {
        let order = modules.load_order(name, &|path| path != absent)?;
        Ok(order.into_iter().map(|module| module.path.as_str()).collect())
    }

    #[test]
    fn order_and_what_is_missing() {
        let modules = modules();
        let virtio = order(&modules, "virtio-blk", "").unwrap();
        assert_eq!(
            virtio,
            [
                "kernel/drivers/virtio/virtio_ring.ko",
                "kernel/drivers/virtio/virtio.ko",
                "kernel/drivers/block/virtio_blk.ko"
            ]
        );
        let missing = order(&modules, "virtio_blk", "kernel/drivers/virtio/virtio.ko");
        assert_eq!(missing, Err(Missing::NoFile("kernel/drivers/virtio/virtio.ko".into())));
        assert_eq!(order(&modules, "nvme", ""), Err(Missing::NotListed("nvme".into())));
        assert_eq!(order(&modules, "ext4", ""), Ok(vec![]));
        let xfs = ["kernel/crypto/crc32c-intel.ko", "kernel/lib/libcrc32c.ko.xz", "kernel/fs/xfs/xfs.ko.xz"];
        assert_eq!(order(&modules, "xfs", "").unwrap(), xfs);
        assert_eq!(order(&modules, "xfs", "kernel/crypto/crc32c-intel.ko").unwrap(), xfs[1..]);
    }

    /// Every module needs and wishes for very many others.
    #[test]
    fn an_index_without_measure_ends() {
        let names: Vec<String> = (0..3000).map(|index| format!("m{index}.ko")).collect();
        let rotated = |at: usize, by: usize| -> String {
            (1..by).map(|step| names[(at + step * 7) % names.len()].as_str()).collect::<Vec<_>>().join(" ")
        };
        let dep: String = (0..3000).map(|at| format!("{}: {}\n", names[at], rotated(at, 400))).collect();
        let soft: String = (0..3000)
            .map(|at| format!("softdep m{at} pre: {}\n", rotated(at, 40).replace(".ko", "")))
            .collect();
        let modules = Modules::parse(dep.as_bytes(), b"", b"", soft.as_bytes());
        assert!(modules.load_order("m0", &|_| true).is_ok_and(|order| order.len() <= MAX_ORDER));
    }

    #[test]
    fn modules_that_need_each_other_end() {
        let modules =
            Modules::parse(b"a.ko: b.ko\nb.ko: a.ko\n", b"", b"", b"softdep a pre: b\nsoftdep b pre: a\n");
        assert_eq!(order(&modules, "a", "").unwrap(), ["b.ko", "a.ko"]);
    }

    /// Every module of every kernel on this machine, against modprobe.
    #[test]
    fn modprobe_agrees() {
        let kernels: Vec<_> = std::fs::read_dir("/lib/modules").into_iter().flatten().flatten().collect();
        let mut compared = 0;
        for kernel in kernels.iter().filter(|kernel| kernel.path().join("modules.dep").exists()) {
            let read = |name: &str| std::fs::read(kernel.path().join(name)).unwrap_or_default();
            let [dep, builtin, alias, soft] =
                ["modules.dep", "modules.builtin", "modules.alias", "modules.softdep"].map(read);
            let modules = Modules::parse(&dep, &builtin, &alias, &soft);
            let release = kernel.file_name();
            // All of them take minutes in a debug build; one in nine is a sample that changes with the kernel.
            for name in modules.names().step_by(9) {
                // An empty folder of configuration, for only the indexes are compared.
                let said = Command::new("modprobe")
                    .args(["--show-depends", "-C", "/var/empty", "-S"])
                    .arg(&release)
                    .arg(name)
                    .output();
                let Ok(said) = said else {
                    println!("skipped: modprobe is not installed");
                    return;
                };
                let said = String::from_utf8_lossy(&said.stdout).into_owned();
                let mut theirs: Vec<&str> = said
                    .lines()
                    .filter_map(|line| line.strip_prefix("insmod "))
                    .filter_map(|path| path.split_once("/kernel/").map(|(_, path)| path.trim()))
                    .collect();
                // It says some twice.
                let mut seen = BTreeSet::new();
                theirs.retain(|path| seen.insert(*path));
                let ours = modules.load_order(name, &|path| Path::new(&kernel.path()).join(path).exists());
                let ours: Vec<&str> = ours
                    .unwrap_or_default()
                    .into_iter()
                    .map(|module| module.path.strip_prefix("kernel/").unwrap_or(&module.path))
                    .collect();
                assert_eq!(ours, theirs, "{name}");
                compared += 1;
            }
        }
        println!(
            "{compared} modules compared{}",
            if compared == 0 { ", skipped: no kernel here" } else { "" }
        );
    }
}
