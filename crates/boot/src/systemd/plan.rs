//! The jobs that systemd makes for a target, and which of them fail.
//!
//! `transaction_add_job_and_dependencies` of `src/core/transaction.c`: a unit that cannot be loaded ends the adding of jobs for
//! those that require it, and is passed over by those that only want it. What was added before stays: such a unit is started
//! without what it wants. Everything is found by work lists, so that no chain of units is too deep.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use filesystem::FileSystem;
use filesystem::path::{PathError, resolve};

use super::condition::{self, Holds};
use super::load::{Loaded, Units};
use super::program::{self, Users};
use super::ssh;
use super::unit::{Place, Pull, Unit};
use crate::unit_name::unit_name_from_path;

/// Units that are looked at; a large desktop has some five hundred.
const MAX_UNITS: usize = 2000;
/// Bytes that all of them may take, and what they pull in: some ten times what a large system has.
const MAX_WEIGHT: usize = 32 << 20;
const MAX_PULLS: usize = 50_000;
/// Paths that one unit needs to be mounted, and names in one of them.
const MAX_PATHS: usize = 32;
const MAX_DEPTH: usize = 64;
const EMERGENCY: &str = "emergency.target";
/// Units in a cycle that are named.
const MAX_NAMED: usize = 6;

/// Why a unit is not started, or fails: the unit where it begins, the line, and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) unit: String,
    pub(crate) place: Place,
    pub(crate) reason: String,
}

/// Why systemd cannot go for its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The target itself is not there, or masked.
    Target(Broken),
    /// What it requires.
    Required(Broken),
}

struct Node {
    unit: Arc<Unit>,
    pulls: Vec<(Pull, String)>,
}

/// What systemd sets out to start.
pub(crate) struct Plan {
    /// The target's own name.
    pub(crate) target: String,
    pub(crate) refusal: Option<Refusal>,
    /// Whether emergency mode can be started.
    has_emergency: bool,
    jobs: BTreeMap<String, Node>,
    /// What is pulled in and is not started.
    refused: BTreeMap<String, Broken>,
}

/// What goes wrong while the jobs run.
#[derive(Default)]
pub(crate) struct Failures {
    /// Units that fail themselves.
    pub(crate) own: BTreeMap<String, Broken>,
    /// Units that are not started for it, and those that fail themselves, with where it began.
    pub(crate) all: BTreeMap<String, Broken>,
    /// Units of which the running machine decides whether they fail.
    pub(crate) unsure: Vec<Broken>,
}

impl Plan {
    /// For a target, with all that it pulls in.
    pub(crate) fn new(units: &Units<'_>, fs: &dyn FileSystem, target: &str) -> Self {
        let mut nodes: BTreeMap<String, Node> = BTreeMap::new();
        let mut refused: BTreeMap<String, Broken> = BTreeMap::new();
        // Aliases, with the names of what they lead to.
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        let has_generators = units.has_other_generators();
        let mut todo = VecDeque::from([(target.to_owned(), Place::whole(""))]);
        let (mut weight, mut count) = (0, 0);
        while let Some((name, asked)) = todo.pop_front().filter(|_| weight < MAX_WEIGHT && count < MAX_PULLS)
        {
            if names.contains_key(&name) || names.len() >= MAX_UNITS {
                continue;
            }
            let unit = match units.load(&name) {
                Loaded::Unit(unit) => unit,
                Loaded::Missing(_) if is_made_while_running(&name, fs, has_generators) => continue,
                Loaded::Missing(leads_to) => {
                    // What is to blame is the line that asks for it.
                    let reason = "there is no such unit";
                    refuse(&mut refused, &mut names, name.clone(), asked, reason);
                    if let Some(broken) = refused.get_mut(&name) {
                        broken.unit = leads_to;
                    }
                    continue;
                }
                Loaded::Masked(place) => {
                    refuse(&mut refused, &mut names, name, place, "it is masked");
                    continue;
                }
                Loaded::Refused(place, reason) => {
                    refuse(&mut refused, &mut names, name, place, &reason);
                    continue;
                }
            };
            names.insert(name, unit.name.clone());
            if nodes.contains_key(&unit.name) {
                continue;
            }
            names.insert(unit.name.clone(), unit.name.clone());
            weight += unit.weight();
            let mut pulls = unit.pulls();
            pulls.extend(
                mounts_for(&unit, units).into_iter().map(|name| (Pull::Requires, name, unit.place.clone())),
            );
            todo.extend(pulls.iter().map(|(_, name, place)| (name.clone(), place.clone())));
            count += pulls.len();
            let pulls = pulls.into_iter().map(|(pull, name, _)| (pull, name)).collect();
            nodes.insert(unit.name.clone(), Node { unit, pulls });
        }
        for node in nodes.values_mut() {
            for (_, name) in &mut node.pulls {
                if let Some(own) = names.get(name) {
                    name.clone_from(own);
                }
            }
        }
        let own = names.get(target).cloned().unwrap_or_else(|| target.to_owned());
        let is_loaded = nodes.contains_key(&own);
        spread(&nodes, &mut refused);
        let refusal = refused.get(&own).map(|why| match is_loaded {
            true => Refusal::Required(why.clone()),
            false => Refusal::Target(why.clone()),
        });
        let jobs = reachable(nodes, &refused, &own);
        let is_loaded = |name: &str| matches!(units.load(name), Loaded::Unit(_));
        let has_emergency = is_loaded(EMERGENCY) && is_loaded("emergency.service");
        Self { target: own, refusal, has_emergency, jobs, refused }
    }

    /// Whether a unit is started.
    pub(crate) fn starts(&self, name: &str) -> bool {
        self.jobs.contains_key(name)
    }

    /// A unit that is started.
    pub(crate) fn unit(&self, name: &str) -> Option<&Unit> {
        self.jobs.get(name).map(|node| &*node.unit)
    }

    /// Why a unit that is pulled in is not started.
    pub(crate) fn refused(&self, name: &str) -> Option<&Broken> {
        self.refused.get(name)
    }

    /// All units that are started.
    pub(crate) fn units(&self) -> impl Iterator<Item = &Unit> {
        self.jobs.values().map(|node| &*node.unit)
    }

    /// Whether the failure of `name` is the failure of `of`.
    pub(crate) fn is_required(&self, of: &str, name: &str) -> bool {
        self.jobs.get(of).is_some_and(|node| node.pulls.contains(&(Pull::Requires, name.to_owned())))
    }

    /// Whether the failure of a unit starts emergency mode.
    pub(crate) fn ends_in_emergency(&self, name: &str) -> bool {
        let Some(unit) = self.unit(name).filter(|_| self.has_emergency) else { return false };
        unit.all("Unit", "OnFailure")
            .iter()
            .any(|(value, _)| value.split_whitespace().any(|other| other == EMERGENCY))
    }

    /// The services that cannot run, and what they pull down.
    pub(crate) fn failures(
        &self,
        fs: &dyn FileSystem,
        words: &[String],
        is_other_disk: &dyn Fn(&str) -> bool,
    ) -> Failures {
        let mut failures = Failures::default();
        let users = Users::read(fs);
        for node in self.jobs.values().filter(|node| node.unit.kind() == "service" && !node.unit.is_generated)
        {
            let unit = &node.unit;
            // Started by its socket, which is not there to be handed over.
            let socket = unit.name.replace(".service", ".socket");
            let socket =
                self.refused.get(&socket).filter(|_| node.pulls.contains(&(Pull::Requires, socket.clone())));
            if let Some(broken) = socket {
                failures.own.insert(unit.name.clone(), broken.clone());
                failures.all.insert(unit.name.clone(), broken.clone());
                continue;
            }
            let failure = program::failure(unit, fs, &users, is_other_disk)
                .or_else(|| ssh::failure(unit, fs, self.jobs.keys().map(String::as_str)));
            let Some(failure) = failure else { continue };
            let broken = Broken { unit: unit.name.clone(), place: failure.place, reason: failure.reason };
            match condition::all(unit, fs, words) {
                Holds::No => {}
                Holds::Unknown => failures.unsure.push(broken),
                Holds::Yes => {
                    failures.own.insert(unit.name.clone(), broken.clone());
                    if failure.is_seen {
                        failures.all.insert(unit.name.clone(), broken);
                    }
                }
            }
        }
        // Mounts of the kernel's own file systems; those with a device are judged where it is looked for.
        if matches!(resolve(fs, b"/bin/mount"), Err(PathError::NotFound(_))) {
            let reason = "there is no program /bin/mount".to_owned();
            let mounts =
                self.jobs.values().filter(|node| node.unit.kind() == "mount" && !node.unit.is_generated);
            for unit in
                mounts.map(|node| &node.unit).filter(|unit| condition::all(unit, fs, words) == Holds::Yes)
            {
                let place = Place::whole("/bin/mount");
                let broken = Broken { unit: unit.name.clone(), place, reason: reason.clone() };
                failures.own.insert(unit.name.clone(), broken.clone());
                failures.all.insert(unit.name.clone(), broken);
            }
        }
        spread(&self.jobs, &mut failures.all);
        for (name, broken) in &failures.own {
            failures.all.entry(name.clone()).or_insert_with(|| broken.clone());
        }
        failures
    }

    /// Units that wait for each other, some of them: systemd gives one of them up.
    pub(crate) fn cycle(&self) -> Option<Vec<String>> {
        // Who comes after whom.
        let mut after: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let words = |node: &Node| -> BTreeSet<String> {
            let values = node.unit.all("Unit", "After");
            let words = values.iter().flat_map(|(value, _)| value.split_whitespace());
            words.chain(after_by_default(&node.unit).iter().copied()).map(str::to_owned).collect()
        };
        let own_after: BTreeMap<&str, BTreeSet<String>> =
            self.jobs.iter().map(|(name, node)| (name.as_str(), words(node))).collect();
        let known = |name: &str| self.jobs.get_key_value(name).map(|(name, _)| name.as_str());
        for (name, node) in &self.jobs {
            for (other, is_after) in orders(&node.unit, &node.pulls, &self.jobs, &own_after) {
                let Some(other) = known(&other) else { continue };
                let (late, early) = if is_after { (name.as_str(), other) } else { (other, name.as_str()) };
                after.entry(late).or_default().insert(early);
            }
        }
        // Whoever waits for nobody is done; what is left waits for each other, or behind such.
        let mut left: BTreeSet<&str> = self.jobs.keys().map(String::as_str).collect();
        let mut waits: BTreeMap<&str, usize> =
            left.iter().map(|name| (*name, after.get(name).map_or(0, BTreeSet::len))).collect();
        let mut before: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (late, early) in &after {
            for early in early {
                before.entry(early).or_default().push(late);
            }
        }
        let mut ready: Vec<&str> =
            waits.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect();
        while let Some(name) = ready.pop() {
            left.remove(name);
            for late in before.get(name).into_iter().flatten() {
                if let Some(count) = waits.get_mut(late) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        ready.push(late);
                    }
                }
            }
        }
        // From any of them, back along those that are left, until one comes again.
        let mut at = *left.first()?;
        let mut way: Vec<&str> = Vec::new();
        while !way.contains(&at) && way.len() < MAX_UNITS {
            way.push(at);
            at = *after.get(at)?.iter().find(|early| left.contains(**early))?;
        }
        let start = way.iter().position(|name| *name == at)?;
        Some(way[start..].iter().take(MAX_NAMED).map(|name| (*name).to_owned()).collect())
    }
}

/// Units that are there without a file: devices, slices, scopes, services of `/etc/init.d`, and what programs write that are
/// not known here.
fn is_made_while_running(name: &str, fs: &dyn FileSystem, has_generators: bool) -> bool {
    let Some((stem, kind)) = name.rsplit_once('.') else { return false };
    match kind {
        "device" | "slice" | "scope" => true,
        "mount" if stem == "-" => true,
        "mount" | "swap" | "socket" | "service" if has_generators => true,
        "service" => resolve(fs, format!("/etc/init.d/{stem}").as_bytes()).is_ok(),
        _ => false,
    }
}

fn refuse(
    refused: &mut BTreeMap<String, Broken>,
    names: &mut BTreeMap<String, String>,
    name: String,
    place: Place,
    reason: &str,
) {
    names.insert(name.clone(), name.clone());
    refused.insert(name.clone(), Broken { unit: name, place, reason: reason.to_owned() });
}

/// The mount units of the paths that a unit needs, where such units are.
fn mounts_for(unit: &Unit, units: &Units<'_>) -> Vec<String> {
    let mut paths: Vec<String> = unit
        .all("Unit", "RequiresMountsFor")
        .into_iter()
        .flat_map(|(value, _)| value.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    if unit.kind() == "mount"
        && !unit.is_generated
        && let Some((path, _)) = unit.last("Mount", "Where")
    {
        paths.extend(path.rsplit_once('/').map(|(parent, _)| parent.to_owned()));
    }
    let mut found = Vec::new();
    for path in paths.into_iter().take(MAX_PATHS) {
        for (at, _) in path.match_indices('/').skip(1).take(MAX_DEPTH).chain([(path.len(), "")]) {
            let name = unit_name_from_path(&path[..at], "mount");
            if name != unit.name && !found.contains(&name) && matches!(units.load(&name), Loaded::Unit(_)) {
                found.push(name);
            }
        }
    }
    found
}

/// Takes what requires something broken with it.
fn spread(nodes: &BTreeMap<String, Node>, broken: &mut BTreeMap<String, Broken>) {
    let mut requiring: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, node) in nodes {
        for (_, other) in node.pulls.iter().filter(|(pull, _)| *pull == Pull::Requires) {
            requiring.entry(other).or_default().push(name);
        }
    }
    let mut todo: Vec<String> = broken.keys().cloned().collect();
    while let Some(name) = todo.pop() {
        let Some(why) = broken.get(&name).cloned() else { continue };
        for other in requiring.get(name.as_str()).into_iter().flatten() {
            if !broken.contains_key(*other) {
                broken.insert((*other).to_owned(), why.clone());
                todo.push((*other).to_owned());
            }
        }
    }
}

/// What is pulled in. Of a unit that lacks what it requires, what it wants is not; of what it requires, it is chance whether
/// something comes before the one that is missing, and all is taken to.
fn reachable(
    mut nodes: BTreeMap<String, Node>,
    refused: &BTreeMap<String, Broken>,
    target: &str,
) -> BTreeMap<String, Node> {
    let mut jobs = BTreeMap::new();
    let mut todo = vec![target.to_owned()];
    while let Some(name) = todo.pop() {
        let Some((name, node)) = nodes.remove_entry(&name) else { continue };
        let is_whole = !refused.contains_key(&name);
        let pulls = node.pulls.iter().filter(|(pull, _)| is_whole || *pull == Pull::Requires);
        todo.extend(pulls.map(|(_, name)| name.clone()));
        jobs.insert(name, node);
    }
    jobs
}

/// What units of a kind come after unless they say otherwise.
fn after_by_default(unit: &Unit) -> &'static [&'static str] {
    match unit.kind() {
        _ if !unit.has_default_dependencies() || unit.is_generated => &[],
        "service" => &["sysinit.target", "basic.target"],
        "socket" | "timer" | "path" => &["sysinit.target"],
        _ => &[],
    }
}

/// The units that one comes after (true) or before (false): its own words, and what its kind has by default.
fn orders(
    unit: &Unit,
    pulls: &[(Pull, String)],
    jobs: &BTreeMap<String, Node>,
    own_after: &BTreeMap<&str, BTreeSet<String>>,
) -> Vec<(String, bool)> {
    let mut orders = Vec::new();
    for (key, is_after) in [("After", true), ("Before", false)] {
        for (value, _) in unit.all("Unit", key) {
            orders.extend(value.split_whitespace().map(|name| (name.to_owned(), is_after)));
        }
    }
    orders.extend(after_by_default(unit).iter().map(|name| ((*name).to_owned(), true)));
    let mut add = |name: &str, is_after: bool| orders.push((name.to_owned(), is_after));
    let has_default = unit.has_default_dependencies() && !unit.is_generated;
    match unit.kind() {
        "socket" if has_default => add("sockets.target", false),
        "timer" if has_default => add("timers.target", false),
        "path" if has_default => add("paths.target", false),
        "mount" if unit.has_default_dependencies() => {
            add("local-fs-pre.target", true);
            // Those that a target of the network pulls in come before that one instead.
            if jobs
                .get("local-fs.target")
                .is_some_and(|node| node.pulls.iter().any(|(_, name)| *name == unit.name))
            {
                add("local-fs.target", false);
            }
        }
        // A target comes after what it pulls in, unless one of the two says no, or it is to come before: so `sysinit.target` pulls in
        // services that come after it (`unit_add_default_target_dependency` of `src/core/unit.c`).
        "target" if unit.has_default_dependencies() => {
            for (_, name) in pulls {
                let Some(other) = jobs.get(name) else { continue };
                let is_turned = own_after.get(name.as_str()).is_some_and(|after| after.contains(&unit.name));
                if other.unit.has_default_dependencies() && !is_turned {
                    add(name, true);
                }
            }
        }
        _ => {}
    }
    orders
}

#[cfg(test)]
mod tests {
    use filesystem::MemoryFs;

    use super::*;

    fn plan(files: &[(&str, &str)]) -> (Plan, MemoryFs) {
        let fs = files.iter().fold(MemoryFs::new(), |fs, (name, text)| match text.strip_prefix("-> ") {
            Some(target) => fs.symlink(&format!("/etc/systemd/system/{name}"), target),
            None => fs.file(&format!("/usr/lib/systemd/system/{name}"), *text),
        });
        let fs = fs.file("/bin/mount", "#!");
        (Plan::new(&Units::new(&fs), &fs, "default.target"), fs)
    }

    const MULTI_USER: &str = "[Unit]\nRequires=basic.target\nAfter=basic.target\n";
    const BASIC: &str = "[Unit]\nRequires=sysinit.target\nAfter=sysinit.target\n";
    const SYSINIT: &str = "[Unit]\nWants=local-fs.target\nAfter=local-fs.target\n";
    const LOCAL_FS: &str = "[Unit]\nDefaultDependencies=no\nRequires=data.mount\nWants=remount.service\nOnFailure=emergency.target\n";
    const MOUNT: &str = "[Mount]\nWhat=/dev/vdb\nWhere=/data\n";
    const REMOUNT: &str = "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/remount\n";

    fn usual<'a>(more: &[(&'a str, &'a str)]) -> (Plan, MemoryFs) {
        let mut files = vec![
            ("default.target", "-> /lib/systemd/system/multi-user.target"),
            ("multi-user.target", MULTI_USER),
            ("basic.target", BASIC),
            ("sysinit.target", SYSINIT),
            ("local-fs.target", LOCAL_FS),
            ("data.mount", MOUNT),
            ("remount.service", REMOUNT),
        ];
        files.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
        files.extend(more);
        plan(&files)
    }

    #[test]
    fn everything_that_is_pulled_in_is_started() {
        let (plan, _) = usual(&[]);
        assert_eq!((plan.target.as_str(), &plan.refusal), ("multi-user.target", &None));
        for name in ["multi-user.target", "sysinit.target", "data.mount", "remount.service"] {
            assert!(plan.starts(name), "{name}");
        }
        assert!(plan.is_required("local-fs.target", "data.mount"));
        // There is no such target here that could be started.
        assert!(!plan.ends_in_emergency("local-fs.target"));
        assert!(!plan.is_required("local-fs.target", "remount.service"));
        assert_eq!(plan.cycle(), None);
    }

    #[test]
    fn a_target_with_a_masked_mount_is_started_without_what_it_wants() {
        let (plan, _) = usual(&[("data.mount", "-> /dev/null")]);
        assert!(plan.starts("sysinit.target") && plan.starts("local-fs.target"));
        assert!(!plan.starts("remount.service"));
        let why = plan.refused("local-fs.target").unwrap();
        assert_eq!((why.unit.as_str(), why.reason.as_str()), ("data.mount", "it is masked"));
    }

    #[test]
    fn a_target_without_what_it_requires_is_refused() {
        let (plan, _) = usual(&[("basic.target", "-> /dev/null")]);
        let Some(Refusal::Required(why)) = &plan.refusal else { panic!() };
        assert_eq!(&*why.place.file, "/etc/systemd/system/basic.target");
        let (plan, _) = usual(&[("default.target", "-> /lib/systemd/system/gone.target")]);
        assert!(matches!(&plan.refusal, Some(Refusal::Target(why)) if why.unit == "gone.target"));
    }

    #[test]
    fn failures_spread_by_requirement_alone() {
        let failing = "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/gone\n";
        let (plan, fs) = usual(&[("remount.service", failing)]);
        let failures = plan.failures(&fs, &[], &|_| false);
        assert_eq!(failures.all.keys().collect::<Vec<_>>(), ["remount.service"]);
        let (plan, fs) =
            usual(&[("remount.service", failing), ("sysinit.target", "[Unit]\nRequires=remount.service\n")]);
        let failures = plan.failures(&fs, &[], &|_| false);
        assert_eq!(
            failures.all.keys().collect::<Vec<_>>(),
            ["basic.target", "multi-user.target", "remount.service", "sysinit.target"]
        );
        // A simple service has been started before anybody looks for its program.
        let simple = failing.replace("Type=oneshot\n", "");
        let (plan, fs) = usual(&[
            ("remount.service", simple.as_str()),
            ("sysinit.target", "[Unit]\nRequires=remount.service\n"),
        ]);
        assert_eq!(plan.failures(&fs, &[], &|_| false).all.len(), 1);
    }

    #[test]
    fn a_service_without_its_socket_fails() {
        let service =
            "[Unit]\nDefaultDependencies=no\nRequires=remount.socket\n[Service]\nExecStart=/remount\n";
        let (plan, fs) = usual(&[("remount.service", service), ("remount.socket", "-> /dev/null")]);
        let failures = plan.failures(&fs, &[], &|_| false);
        assert_eq!(failures.own["remount.service"].unit, "remount.socket");
    }

    #[test]
    fn cycles() {
        let (plan, _) =
            usual(&[("remount.service", "[Unit]\nBefore=local-fs.target\n[Service]\nExecStart=/remount\n")]);
        let cycle = plan.cycle().unwrap();
        assert!(
            cycle.contains(&"remount.service".to_owned()) && cycle.contains(&"local-fs.target".to_owned()),
            "{cycle:?}"
        );
        // What sysinit.target pulls in may come after it.
        let late = "[Service]\nExecStart=/remount\n";
        let (plan, _) = usual(&[
            ("sysinit.target", "[Unit]\nWants=late.service local-fs.target\n"),
            ("late.service", late),
        ]);
        assert!(plan.starts("late.service"));
        assert_eq!(plan.cycle(), None);
    }

    /// One file under many names, which wants them all and a thousand more: what it pulls in is counted, not walked for each.
    #[test]
    fn one_file_under_many_names_is_bounded() {
        let wants: String = (0..100).map(|number| format!("u{number}.target ")).collect();
        let gone: String = (0..1000).map(|number| format!("gone{number}.target ")).collect();
        let mut fs = MemoryFs::new()
            .file("/usr/lib/systemd/system/u0.target", format!("[Unit]\nWants={wants}\nWants={gone}\n"))
            .symlink("/usr/lib/systemd/system/default.target", "u0.target");
        for number in 1..100 {
            let name = format!("/usr/lib/systemd/system/u{number}.target");
            fs = fs.link(&name, "/usr/lib/systemd/system/u0.target");
        }
        let plan = Plan::new(&Units::new(&fs), &fs, "default.target");
        assert!((40..60).contains(&plan.jobs.len()), "{}", plan.jobs.len());
        assert!(plan.cycle().is_some());
        drop(plan.failures(&fs, &[], &|_| false));
    }

    #[test]
    fn a_long_chain_is_no_deep_stack() {
        let files: Vec<(String, String)> = (0..20_000)
            .map(|number| (format!("u{number}.target"), format!("[Unit]\nRequires=u{}.target\n", number + 1)))
            .collect();
        let mut all: Vec<(&str, &str)> =
            files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        all.push(("default.target", "-> u0.target"));
        let (plan, _) = plan(&all);
        assert!(plan.jobs.len() <= MAX_UNITS);
        assert_eq!(plan.cycle(), None);
    }
}
