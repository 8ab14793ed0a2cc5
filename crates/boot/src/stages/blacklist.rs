//! Modules that are there and are not loaded: modprobe.d(5), and the words of the command line for it.
//!
//! udev loads a driver by an alias of the device; a `blacklist` has that passed over, and `install` runs a command in its place.
//! Who asks for a module by its own name gets it all the same, and so does a module that another one needs.

use std::collections::BTreeMap;

use super::grub::GuestPlace;

/// Words of the command line that list modules, divided by commas: of kmod, of the kernel, of dracut.
const WORDS: [&str; 3] = ["modprobe.blacklist=", "module_blacklist=", "rd.driver.blacklist="];

/// What is not loaded, with the line that says so.
#[derive(Default)]
pub(super) struct Blacklist {
    places: BTreeMap<String, GuestPlace>,
}

impl Blacklist {
    /// Of the command line.
    pub(super) fn of_words(arguments: &[(String, GuestPlace)]) -> Self {
        let mut places = BTreeMap::new();
        for (word, place) in arguments {
            let lists = WORDS.iter().filter_map(|key| word.strip_prefix(key));
            for module in lists.flat_map(|list| list.split(',')) {
                places.insert(module.replace('-', "_"), place.clone());
            }
        }
        Self { places }
    }

    /// Adds a file of `modprobe.d`.
    pub(super) fn add(&mut self, text: &str, file: &str) {
        for (line, text) in (1..).zip(text.lines()) {
            let mut words = text.split_whitespace();
            let (command, module) = (words.next(), words.next());
            let is_off = match command {
                Some("blacklist") => true,
                Some("install") => {
                    let program = words.next().unwrap_or_default();
                    matches!(program.rsplit('/').next(), Some("true" | "false" | ":"))
                }
                _ => false,
            };
            if let (true, Some(module)) = (is_off, module) {
                let place = GuestPlace { file: file.to_owned(), line };
                self.places.entry(module.replace('-', "_")).or_insert(place);
            }
        }
    }

    /// Where a module is kept from being loaded.
    pub(super) fn place_of(&self, module: &str) -> Option<&GuestPlace> {
        self.places.get(module)
    }
}

/// Modules that the initramfs asks for by name: dracut's `rd.driver.pre=`, initramfs-tools' `conf/modules`.
pub(super) fn asked_by_name(arguments: &[(String, GuestPlace)], list: Option<&str>) -> Vec<String> {
    let words = arguments.iter().filter_map(|(word, _)| word.strip_prefix("rd.driver.pre="));
    let named = words.flat_map(|list| list.split(','));
    let listed = list.into_iter().flat_map(str::lines).filter_map(|line| line.split_whitespace().next());
    named
        .chain(listed.filter(|module| !module.starts_with('#')))
        .map(|module| module.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_files() {
        let place = GuestPlace { file: "/boot/grub/grub.cfg".into(), line: 9 };
        let words =
            [("modprobe.blacklist=a,b-c".to_owned(), place.clone()), ("rd.driver.pre=b_c".to_owned(), place)];
        let mut list = Blacklist::of_words(&words);
        list.add(
            "# x\nblacklist d\ninstall e /bin/false\ninstall f /sbin/modprobe g\noptions h x=1\nblacklist\n",
            "/etc/x",
        );
        for (module, line) in
            [("a", Some(9)), ("b_c", Some(9)), ("d", Some(2)), ("e", Some(3)), ("f", None), ("h", None)]
        {
            assert_eq!(list.place_of(module).map(|place| place.line), line, "{module}");
        }
        assert_eq!(asked_by_name(&words, Some("# a\nvirtio-blk x=1\n\n")), ["b_c", "virtio_blk"]);
    }
}
