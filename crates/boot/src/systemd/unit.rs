//! One unit: the assignments of its file and drop-ins, and what they say.

use std::sync::Arc;

use guest_files::unit_file::Assignment;

use crate::trace::Cause;

/// A line of a guest's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: Arc<str>,
    /// From 1; 0 where it is the file as a whole, or a link.
    pub(crate) line: usize,
}

impl Place {
    pub(crate) fn whole(file: &str) -> Self {
        Self { file: file.into(), line: 0 }
    }

    pub(crate) fn cause(&self, rule: &'static str, unit: &str, symptom: String) -> Cause {
        Cause {
            rule,
            file: self.file.to_string(),
            line: (self.line > 0).then_some(self.line),
            unit: Some(unit.to_owned()),
            symptom,
        }
    }
}

/// A unit as it is loaded.
#[derive(Debug, Clone)]
pub(crate) struct Unit {
    /// With its instance, without aliases: `getty@tty1.service`.
    pub(crate) name: String,
    /// Its file, or what a generator makes it of.
    pub(crate) place: Place,
    /// Whether a generator makes it.
    pub(crate) is_generated: bool,
    settings: Vec<(Arc<str>, Assignment)>,
    /// Folders `NAME.wants` and `NAME.requires` name these.
    links: Vec<(Pull, String, Place)>,
}

/// How a unit pulls another one in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pull {
    /// `Requires=`, `BindsTo=`: without it there is no job, and its failure is ours.
    Requires,
    /// `Wants=`, `Upholds=`.
    Wants,
}

impl Unit {
    pub(crate) fn new(name: &str, place: Place, is_generated: bool) -> Self {
        Self { name: name.to_owned(), place, is_generated, settings: Vec::new(), links: Vec::new() }
    }

    /// Adds the assignments of a file; later ones count more.
    pub(crate) fn add(&mut self, file: &str, assignments: Vec<Assignment>) {
        let file: Arc<str> = file.into();
        self.settings.extend(assignments.into_iter().map(|found| (file.clone(), found)));
    }

    pub(crate) fn link(&mut self, pull: Pull, other: String, place: Place) {
        self.links.push((pull, other, place));
    }

    /// Bytes that it takes, about.
    pub(super) fn weight(&self) -> usize {
        let words = |found: &Assignment| found.section.len() + found.key.len() + found.value.len();
        self.settings.iter().map(|(_, found)| words(found) + 128).sum::<usize>() + self.links.len() * 128
    }

    /// `service`, `mount`.
    pub(crate) fn kind(&self) -> &str {
        self.name.rsplit_once('.').map_or("", |(_, kind)| kind)
    }

    /// The values of a key that grows, an empty one clearing those before; dependencies cannot be cleared, systemd.unit(5).
    pub(crate) fn all(&self, section: &str, key: &str) -> Vec<(String, Place)> {
        let mut values = Vec::new();
        let is_dependency = section == "Unit" && !key.starts_with("Condition");
        for (file, found) in &self.settings {
            if found.section != section || found.key != key {
                continue;
            }
            if found.value.is_empty() {
                if !is_dependency {
                    values.clear();
                }
            } else {
                values.push((self.expanded(&found.value), Place { file: file.clone(), line: found.line }));
            }
        }
        values
    }

    /// The words of a list of units.
    fn names(&self, section: &str, key: &str) -> Vec<(String, Place)> {
        let each = |(value, place): (String, Place)| {
            value.split_whitespace().map(|word| (word.to_owned(), place.clone())).collect::<Vec<_>>()
        };
        self.all(section, key).into_iter().flat_map(each).collect()
    }

    /// The last value of a key.
    pub(crate) fn last(&self, section: &str, key: &str) -> Option<(String, Place)> {
        self.all(section, key).pop()
    }

    /// Whether a key says yes, as systemd reads it.
    fn is(&self, section: &str, key: &str, default: bool) -> bool {
        match self.last(section, key) {
            Some((value, _)) => {
                matches!(value.to_ascii_lowercase().as_str(), "1" | "yes" | "y" | "true" | "t" | "on")
            }
            None => default,
        }
    }

    /// Whether systemd adds what most units have.
    pub(crate) fn has_default_dependencies(&self) -> bool {
        self.is("Unit", "DefaultDependencies", true)
    }

    /// What it pulls in, its own words first, then links, then what every unit of its kind has.
    pub(crate) fn pulls(&self) -> Vec<(Pull, String, Place)> {
        let mut pulls = Vec::new();
        for (key, pull) in [
            ("Requires", Pull::Requires),
            ("BindsTo", Pull::Requires),
            ("Wants", Pull::Wants),
            ("Upholds", Pull::Wants),
        ] {
            pulls.extend(self.names("Unit", key).into_iter().map(|(name, place)| (pull, name, place)));
        }
        pulls.extend(self.links.iter().cloned());
        if self.kind() == "service" {
            let sockets = self.names("Service", "Sockets");
            pulls.extend(sockets.into_iter().map(|(name, place)| (Pull::Wants, name, place)));
            if self.last("Service", "BusName").is_some() {
                pulls.push((Pull::Requires, "dbus.socket".into(), self.place.clone()));
            }
        }
        if self.has_default_dependencies()
            && matches!(self.kind(), "service" | "socket" | "timer" | "path")
            && !self.is_generated
        {
            pulls.push((Pull::Requires, "sysinit.target".into(), self.place.clone()));
        }
        pulls
    }

    /// Specifiers, as far as units of a system use them in names and programs: systemd.unit(5), "Specifiers".
    fn expanded(&self, value: &str) -> String {
        if !value.contains('%') {
            return value.to_owned();
        }
        let stem = self.name.rsplit_once('.').map_or(self.name.as_str(), |(stem, _)| stem);
        let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
        let mut text = String::new();
        let mut chars = value.chars();
        while let Some(next) = chars.next() {
            match (next, next == '%') {
                (_, true) => match chars.next() {
                    Some('i' | 'I') => text.push_str(instance),
                    Some('n') => text.push_str(&self.name),
                    Some('N') => text.push_str(stem),
                    Some('p' | 'P') => text.push_str(prefix),
                    Some('%') => text.push('%'),
                    Some(other) => text.extend(['%', other]),
                    None => text.push('%'),
                },
                (other, false) => text.push(other),
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(name: &str, text: &str) -> Unit {
        let mut unit = Unit::new(name, Place::whole("/a"), false);
        unit.add("/a", guest_files::unit_file::parse(text.as_bytes()));
        unit
    }

    #[test]
    fn lists_grow_and_all_but_dependencies_are_cleared() {
        let text = "[Unit]\nWants=b.service\nWants=\nWants=c.service\nDefaultDependencies=no\n\
                    [Service]\nExecStart=/a\nExecStart=\nExecStart=/b\n";
        let found = unit("a.service", text);
        let names: Vec<String> = found.pulls().into_iter().map(|(_, name, _)| name).collect();
        assert_eq!(names, ["b.service", "c.service"]);
        let programs: Vec<String> =
            found.all("Service", "ExecStart").into_iter().map(|(value, _)| value).collect();
        assert_eq!(programs, ["/b"]);
    }

    #[test]
    fn services_need_what_every_service_needs() {
        let found = unit("a@x-1.service", "[Unit]\nBindsTo=dev-%i.device\n[Service]\nBusName=org.x\n");
        let pulls: Vec<(Pull, String)> =
            found.pulls().into_iter().map(|(pull, name, _)| (pull, name)).collect();
        let needs = |name: &str| (Pull::Requires, name.to_owned());
        assert_eq!(pulls, [needs("dev-x-1.device"), needs("dbus.socket"), needs("sysinit.target")]);
    }
}
