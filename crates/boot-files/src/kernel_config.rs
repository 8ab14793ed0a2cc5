//! The configuration that a kernel was built with: `/boot/config-RELEASE`.

/// The value of one option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// `=y`, or another value than `m`: it is in the kernel.
    BuiltIn,
    /// `=m`.
    Module,
    /// `is not set`, or not named in a file that names others.
    Off,
}

/// A parsed configuration.
#[derive(Debug, Clone, Default)]
pub struct KernelConfig {
    text: Vec<u8>,
}

impl KernelConfig {
    /// Keeps the text; `None` when it names no option.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let has_option = text.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"CONFIG_"));
        has_option.then(|| Self { text: text.to_vec() })
    }

    /// The value of an option with its full name: `CONFIG_SATA_AHCI`.
    pub fn get(&self, option: &str) -> Setting {
        match self.value(option) {
            Some(b"m") => Setting::Module,
            Some(b"n" | b"") | None => Setting::Off,
            Some(_) => Setting::BuiltIn,
        }
    }

    /// The text of an option that is a string: `CONFIG_LSM`.
    pub fn text(&self, option: &str) -> Option<&str> {
        std::str::from_utf8(self.value(option)?.strip_prefix(b"\"")?.strip_suffix(b"\"")?).ok()
    }

    fn value(&self, option: &str) -> Option<&[u8]> {
        self.text
            .split(|byte| *byte == b'\n')
            .find_map(|line| line.strip_prefix(option.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings() {
        let config = KernelConfig::parse(
            b"# c\nCONFIG_A=y\nCONFIG_AB=m\n# CONFIG_C is not set\nCONFIG_D=64\nCONFIG_S=\"a,b\"\n",
        )
        .unwrap();
        let all = ["CONFIG_A", "CONFIG_AB", "CONFIG_C", "CONFIG_D", "CONFIG_E"].map(|name| config.get(name));
        use Setting::{BuiltIn, Module, Off};
        assert_eq!(all, [BuiltIn, Module, Off, BuiltIn, Off]);
        assert_eq!((config.text("CONFIG_S"), config.text("CONFIG_D")), (Some("a,b"), None));
        assert!(KernelConfig::parse(b"nothing").is_none());
    }
}
