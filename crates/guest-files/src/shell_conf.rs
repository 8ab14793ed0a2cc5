//! Configuration that a shell sources, one file after the other: dracut.conf(5), initramfs.conf(5), `/etc/default/grub`.
//!
//! `NAME=value` takes the place of what the files before have set, `NAME+=value` is put behind it. The lines are those
//! of [`crate::grub_default`]; what only a shell could tell has no value, and lines of other kinds set nothing.

use std::collections::BTreeMap;

use crate::grub_default::GrubDefault;

/// What all files together set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShellConf {
    variables: BTreeMap<String, Variable>,
}

/// One variable, and where it was set last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// The name.
    pub name: String,
    /// The value; `None` when only a shell could tell. Bytes that are not UTF-8 are replaced.
    pub value: Option<String>,
    /// The file of the last assignment.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
}

impl ShellConf {
    /// Takes the assignments of the next file; any bytes.
    pub fn source(&mut self, file: &str, bytes: &[u8]) {
        for assignment in GrubDefault::parse(bytes).assignments() {
            let value = assignment.value.as_deref().map(String::from_utf8_lossy);
            let before = self.variables.remove(&assignment.name).filter(|_| assignment.is_appended);
            let value = match (before, value) {
                (None, value) => value.map(std::borrow::Cow::into_owned),
                (Some(Variable { value: Some(before), .. }), Some(value)) => Some(before + &value),
                (Some(_), _) => None,
            };
            let name = assignment.name.clone();
            let variable =
                Variable { name: name.clone(), value, file: file.to_owned(), line: assignment.line };
            self.variables.insert(name, variable);
        }
    }

    /// The variables, by name.
    pub fn into_variables(self) -> Vec<Variable> {
        self.variables.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_files_replace_and_append() {
        let mut conf = ShellConf::default();
        conf.source(
            "/etc/dracut.conf",
            b"# comment\nhostonly=\"yes\"\nadd_drivers+=\" virtio_blk \"\nx=\"$(uname -r)\"\nif true; then\n",
        );
        conf.source(
            "/etc/dracut.conf.d/a.conf",
            b"add_drivers+=\" xfs \"\nhostonly=no\nx+=y\nempty=\nhostonly=auto",
        );
        let variables = conf.into_variables();
        let facts: Vec<_> = variables
            .iter()
            .map(|variable| (variable.name.as_str(), variable.value.as_deref(), variable.line))
            .collect();
        assert_eq!(
            facts,
            [
                ("add_drivers", Some(" virtio_blk  xfs "), 1),
                ("empty", Some(""), 4),
                ("hostonly", Some("auto"), 5),
                ("x", None, 3)
            ]
        );
        assert!(variables.iter().all(|variable| variable.file == "/etc/dracut.conf.d/a.conf"));
    }

    #[test]
    fn any_bytes() {
        let mut conf = ShellConf::default();
        let mut state = 7_u32;
        for _ in 0..2000 {
            let bytes: Vec<u8> = (0..60)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    b"a=+\"'\\$\n b#\0\xff=\n("[(state >> 24) as usize % 16]
                })
                .collect();
            conf.source("f", &bytes);
        }
        assert!(conf.into_variables().iter().all(|variable| variable.line > 0));
    }
}
