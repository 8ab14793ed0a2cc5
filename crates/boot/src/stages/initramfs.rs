//! The search for the root file system: drivers, volumes, names, and what each kind of initramfs waits for.
//!
//! dracut 059 (`modules.d/90lvm`, `95rootfs-block`, `99base`) and initramfs-tools 0.142 (`scripts/local`). dracut asks for a
//! finished queue, so that every device which a command line names keeps it from going on; initramfs-tools asks for the root
//! file system only.

use std::collections::BTreeSet;

use guest::Guest;
use guest_files::crypttab;
use storage::{Content, Firmware, Hardware, NodeId, NodeKind, Storage, kernel_disk_name, udev_node};

use super::checks::{Checked, Checks};
use super::devices::{Devices, Found, overhang};
use super::drivers::{Drivers, Lack};
use super::features::{self, Refusal};
use super::grub::GuestPlace;
use super::init::last;
use super::initrd_mounts::Early;
use super::kernel::{Kernel, Kind, Unpacked};
use super::{Next, Step, Stop, cause, local_fs, lvm, mount_options, stage, unsearched};
use crate::trace::{Cause, Outcome, StageName, Verdict};

/// What is there after the search.
pub(crate) struct Root {
    pub(crate) kind: Kind,
    /// The logical volumes that are active.
    pub(crate) active: BTreeSet<NodeId>,
}

/// The device that a specification of the command line stands for.
pub(super) fn device_of(spec: &str) -> String {
    let spec = spec.trim_matches('"').strip_prefix("block:").unwrap_or(spec.trim_matches('"'));
    udev_node(spec.as_bytes()).unwrap_or_else(|| spec.to_owned())
}

/// Looks for the root file system as the initramfs does.
pub(crate) fn run(
    storage: &Storage,
    guest: Option<&Guest>,
    hardware: &Hardware,
    firmware: Firmware,
    kernel: &Kernel,
) -> Step<Root> {
    let name = StageName::Root;
    if let Some(step) =
        kernel.initramfs.as_deref().and_then(|unpacked| unsearched::asked_to_stop(kernel, unpacked.kind))
    {
        return step;
    }
    let embedded =
        || kernel.initramfs.as_deref().filter(|unpacked| unpacked.kind == Kind::Dracut)?.embedded("root=");
    let Some(root) = last(kernel, "root=").or_else(embedded) else {
        return unsearched::rootless(storage, firmware, kernel);
    };
    let Some(unpacked) = kernel.initramfs.as_deref() else {
        return unsearched::without(storage, guest, hardware, firmware, kernel, &root);
    };
    let search = Search { storage, guest, hardware, kernel, unpacked, root };
    let drivers = Drivers::in_initramfs(kernel, unpacked);
    let mut devices = Devices::new(storage, hardware, firmware, &drivers);
    let mut step = match unpacked.kind {
        Kind::Dracut => search.dracut(&mut devices, &drivers),
        Kind::InitramfsTools => search.initramfs_tools(&mut devices, &drivers),
        Kind::Mkinitcpio => {
            Step::unknown(name, format!("{} is mkinitcpio's, which is not followed yet", unpacked.path))
        }
        Kind::Unknown => Step::unknown(name, format!("{} is of no kind that is known here", unpacked.path)),
    };
    if let (Some(guest), Next::Goes(root)) = (guest, &mut step.next) {
        root.active = lvm::active(storage, guest, unpacked, &devices);
    }
    if let Some(guest) = guest {
        let early = Early { storage, guest, kernel, unpacked, devices: &devices, drivers: &drivers };
        step = step.then(|root| early.mount(root));
    }
    // What was not unpacked is the reason for whatever is missing then.
    if let (Some(damage), Next::Stops(stop)) = (&unpacked.archive.damage, &mut step.next)
        && let Some(cause) = &mut stop.cause
    {
        (cause.rule, cause.file, cause.line) = ("initramfs.corrupt", unpacked.path.clone(), None);
        for stage in &mut step.stages {
            stage.summary = format!("{}: {}; {}", unpacked.path, damage.reason, stage.summary);
        }
    }
    step
}

struct Search<'a> {
    storage: &'a Storage,
    guest: Option<&'a Guest>,
    hardware: &'a Hardware,
    kernel: &'a Kernel,
    unpacked: &'a Unpacked,
    root: (String, GuestPlace),
}

impl Search<'_> {
    fn cause_of_image(&self, rule: &'static str, symptom: &str) -> Cause {
        if rule == "modprobe.storage-blacklisted" {
            let drivers = Drivers::in_initramfs(self.kernel, self.unpacked);
            let place = self.hardware.slots.iter().find_map(|slot| match drivers.bus(slot.bus) {
                Err(Lack::Blacklisted(_, place)) => Some(place),
                _ => None,
            });
            if let Some(place) = place {
                return self.cause_of_blacklist(&place, symptom);
            }
        }
        // What is there twice is no fault of the image.
        let file = if rule == "id.duplicate" { String::new() } else { self.unpacked.path.clone() };
        Cause { file, ..cause(rule, symptom) }
    }

    /// A word of the command line, or a file of the image, that keeps a driver from being loaded.
    fn cause_of_blacklist(&self, place: &GuestPlace, symptom: &str) -> Cause {
        let rule = "modprobe.storage-blacklisted";
        let is_word = self.kernel.loaded.arguments.iter().any(|(_, at)| at == place);
        if is_word {
            place.cause(rule, symptom)
        } else {
            Cause { file: self.unpacked.path.clone(), ..cause(rule, symptom) }
        }
    }

    /// Drivers for the layers between disks and the root file system.
    fn layers(&self, id: NodeId, drivers: &Drivers<'_>) -> Result<(), Lack> {
        let mut todo = vec![id];
        let mut seen = BTreeSet::new();
        let kind = self.storage.node(id).content_type().unwrap_or_default();
        if matches!(kind, "ext4" | "xfs" | "btrfs" | "f2fs") {
            drivers.check(kind)?;
            // Where the kernel asks for the driver it goes by an alias; initramfs-tools asks by name.
            if self.unpacked.kind == Kind::Dracut {
                drivers.is_let(kind)?;
            }
        } else if matches!(kind, "ext2" | "ext3") {
            drivers.check(kind).or_else(|_| drivers.check("ext4"))?;
        }
        while let Some(id) = todo.pop() {
            if !seen.insert(id) {
                continue;
            }
            let node = self.storage.node(id);
            match &node.kind {
                NodeKind::LogicalVolume { .. } => drivers.check("dm_mod")?,
                NodeKind::Decrypted { .. } => drivers.check("dm_crypt")?,
                NodeKind::Array { level, .. } => drivers.check(match level.as_str() {
                    "raid4" | "raid5" | "raid6" => "raid456",
                    "linear" => "linear",
                    level => level,
                })?,
                NodeKind::Disk(_) | NodeKind::Partition(_) => {}
            }
            todo.extend(&node.parents);
        }
        Ok(())
    }

    /// Programs for the layers; the first that is missing.
    fn program_missing(&self, id: NodeId) -> Option<&'static str> {
        let is_below = |wanted: fn(&NodeKind) -> bool| {
            let mut todo = vec![id];
            let mut seen = BTreeSet::new();
            while let Some(id) = todo.pop() {
                if seen.insert(id) {
                    let node = self.storage.node(id);
                    if wanted(&node.kind) {
                        return true;
                    }
                    todo.extend(&node.parents);
                }
            }
            false
        };
        let is_encrypted = is_below(|kind| matches!(kind, NodeKind::Decrypted { .. }));
        let has_cryptsetup =
            ["cryptsetup", "systemd-cryptsetup"].iter().any(|name| self.unpacked.has_program(name))
                || self.unpacked.has("usr/lib/systemd/systemd-cryptsetup")
                || self.unpacked.has("lib/systemd/systemd-cryptsetup");
        if is_below(|kind| matches!(kind, NodeKind::LogicalVolume { .. }))
            && !self.unpacked.has_program("lvm")
        {
            Some("lvm")
        } else if is_below(|kind| matches!(kind, NodeKind::Array { .. }))
            && !self.unpacked.has_program("mdadm")
        {
            Some("mdadm")
        } else if is_encrypted && !has_cryptsetup {
            Some("cryptsetup")
        } else {
            None
        }
    }

    /// Whether a target can be mounted as root.
    fn mount(
        &self,
        id: NodeId,
        drivers: &Drivers<'_>,
        give_up: &dyn Fn(Cause, String) -> Step<Root>,
        kind: Kind,
    ) -> Step<Root> {
        let name = StageName::Root;
        let (spec, place) = &self.root;
        let symptom = format!("mounting {spec} on the root directory fails");
        match self.layers(id, drivers) {
            Ok(()) => {}
            Err(Lack::Unknown(reason)) => return Step::unknown(name, reason),
            Err(Lack::Blacklisted(module, place)) => {
                let summary = format!(
                    "{}:{} keeps {module} from being loaded, which the root file system needs",
                    place.file, place.line
                );
                return give_up(self.cause_of_blacklist(&place, &symptom), summary);
            }
            Err(Lack::Module(module) | Lack::NotInKernel(module)) => {
                let summary = format!(
                    "{} has no module {module}, which the root file system needs",
                    self.unpacked.path
                );
                return give_up(self.cause_of_image("initramfs.root-stack-missing", &symptom), summary);
            }
        }
        if let Some(program) = self.program_missing(id) {
            let summary =
                format!("{} has no program {program}, which the root file system needs", self.unpacked.path);
            return give_up(self.cause_of_image("initramfs.root-stack-missing", &symptom), summary);
        }
        let content = self.storage.node(id).content_type().unwrap_or("nothing known").to_owned();
        let refused = match features::refused(self.storage.node(id), drivers) {
            Some(Refusal::Mount(rule, reason)) => Some((rule, reason)),
            // Of the two words the last one counts.
            Some(Refusal::Write(rule, reason)) if !local_fs::is_read_only(self.kernel) => {
                Some((rule, reason))
            }
            _ => None,
        };
        if let Some((rule, reason)) = refused {
            return give_up(cause(rule, symptom), reason);
        }
        if self.guest.map(|guest| guest.root) != Some(id) {
            let node = self.storage.node(id);
            if matches!(node.content, Content::Unknown | Content::Noise) {
                let summary = format!("{}, which is {spec}, holds nothing that is known", node.path);
                return give_up(cause("fs.wrong-type-or-missing", symptom), summary);
            }
            if !matches!(node.content, Content::FileSystem { .. }) {
                let summary = format!("{spec} is {content}, which cannot be mounted");
                return give_up(place.cause("cmdline.root-unresolved", symptom), summary);
            }
            let path = &self.storage.node(id).path;
            let summary =
                format!("the boot loader starts what is on {path}, which {spec} is, and not this system");
            return Step::unknown(name, summary);
        }
        if let Some(reason) = overhang(self.storage, id) {
            return give_up(cause("part.out-of-bounds", symptom), reason);
        }
        match Checks::in_image(self.kernel, self.unpacked).of(self.storage.node(id)) {
            Checked::GoesOn => {}
            Checked::Stops(reason) => {
                let symptom = match kind {
                    Kind::Dracut => {
                        format!("Failed to start systemd-fsck-root.service - File System Check on {spec}")
                    }
                    _ => format!("The root filesystem on {spec} requires a manual fsck"),
                };
                return give_up(cause("fs.ext4-errors", symptom), reason);
            }
            Checked::Unknown(reason) => return Step::unknown(name, reason),
        }
        if let Some((kind, place)) = last(self.kernel, "rootfstype=")
            && !kind.split(',').any(|kind| kind == content || kind == "auto")
        {
            let summary = format!("rootfstype={kind}, and the root file system is {content}");
            return give_up(place.cause("cmdline.root-unresolved", symptom), summary);
        }
        if let Some((flags, place)) = last(self.kernel, "rootflags=")
            && let Some(subvolume) = flags.split(',').find_map(|flag| flag.strip_prefix("subvol="))
            && let Ok(found) = self.storage.node(id).subvolumes()
            && !found.iter().any(|known| known.path == subvolume.trim_matches('/').as_bytes())
        {
            let summary = format!("the root file system has no subvolume {subvolume}");
            return give_up(place.cause("fs.btrfs-incomplete", symptom), summary);
        }
        if let Some((flags, place)) = last(self.kernel, "rootflags=")
            && let Some(option) = mount_options::unknown(&content, flags.split(',').map(str::as_bytes))
        {
            let summary = format!("rootflags=: {content} knows no option {option}");
            return give_up(place.cause("cmdline.root-unresolved", symptom), summary);
        }
        // The system lies in a subvolume, and another one is mounted.
        let subvolume = self.guest.and_then(|guest| guest.mounts.first()?.subvolume.clone());
        let asks = |flag: &str| flag.starts_with("subvol=") || flag.starts_with("subvolid=");
        let is_asked = last(self.kernel, "rootflags=").is_some_and(|(flags, _)| flags.split(',').any(asks));
        if let Some(subvolume) = subvolume
            && !is_asked
        {
            let symptom = match kind {
                Kind::Dracut => {
                    "Failed to switch root: Specified switch root path '/sysroot' does not seem to be an OS tree."
                }
                _ => "No init found. Try passing init= bootarg.",
            };
            let summary =
                format!("the system is in the subvolume {subvolume}, and rootflags= does not ask for it");
            return give_up(self.kernel.loaded.place.cause("init.missing", symptom), summary);
        }
        Step::goes(
            name,
            format!("{spec} is {}", self.storage.node(id).path),
            Root { kind, active: BTreeSet::new() },
        )
    }

    fn initramfs_tools(&self, devices: &mut Devices<'_>, drivers: &Drivers<'_>) -> Step<Root> {
        let name = StageName::Root;
        let (spec, place) = &self.root;
        for file in ["cryptroot/crypttab", "etc/crypttab"] {
            if let Some(text) = self.unpacked.text(file) {
                devices.add_crypttab(&text);
            }
        }
        self.unpacked.number_arrays(devices);
        lvm::Settings::of_image(self.unpacked).block_in_image(
            self.storage,
            self.guest,
            self.hardware,
            devices,
        );
        let give_up =
            |cause: Cause, summary: String| Step::stops(name, Outcome::InitramfsShell, cause, summary);
        let alert = format!("ALERT!  {spec} does not exist.  Dropping to a shell!");
        match devices.find(&device_of(spec)) {
            Found::Node(id) => self.mount(id, drivers, &give_up, Kind::InitramfsTools),
            Found::Nothing(Some((rule, reason))) => give_up(self.cause_of_image(rule, &alert), reason),
            Found::Nothing(None) => {
                if let Some((rule, reason)) = devices.undriven_source() {
                    return give_up(self.cause_of_image(rule, &alert), reason);
                }
                self.locked(devices, &give_up).unwrap_or_else(|| match self.damaged_layer(&device_of(spec)) {
                    Some((rule, reason)) => give_up(cause(rule, alert), reason),
                    None => give_up(
                        place.cause(unresolved(spec), alert),
                        format!("nothing is {spec} on this machine"),
                    ),
                })
            }
            Found::Extra => give_up(
                place.cause(unresolved(spec), alert),
                format!("{spec} is a further disk without this content"),
            ),
            Found::Ambiguous => Step::unknown(name, format!("several devices claim {spec}")),
            Found::Unknown(reason) => Step::unknown(name, reason),
        }
    }

    /// What keeps an encrypted device closed that the image would open, once the root file system was not found.
    fn locked(
        &self,
        devices: &Devices<'_>,
        give_up: &dyn Fn(Cause, String) -> Step<Root>,
    ) -> Option<Step<Root>> {
        for file in ["cryptroot/crypttab", "etc/crypttab"] {
            let text = self.unpacked.text(file).unwrap_or_default();
            for entry in crypttab::parse(text.as_bytes()) {
                let Some(source) = udev_node(entry.source.as_bytes()) else { continue };
                let is_typed = entry.key.is_none();
                match devices.find(&source) {
                    Found::Node(id) if self.is_locked(id) => return Some(self.prompt(id, is_typed)),
                    Found::Nothing(None) => {
                        let summary = format!("nothing is {source}, which is to be opened first");
                        let symptom = format!("Waiting for encrypted source device {source}...");
                        return Some(give_up(cause("luks.header-or-key", symptom), summary));
                    }
                    _ => {}
                }
            }
        }
        None
    }

    fn is_locked(&self, id: NodeId) -> bool {
        matches!(&self.storage.node(id).content, Content::Encrypted(container) if container.locked.is_some())
    }

    /// A device that asks for its passphrase, since it was not given here.
    fn prompt(&self, id: NodeId, is_typed: bool) -> Step<Root> {
        let path = &self.storage.node(id).path;
        if !is_typed {
            return Step::unknown(StageName::Root, format!("{path} is opened by a key that was not given"));
        }
        let cause =
            Cause { file: "/etc/crypttab".into(), ..cause("luks.header-or-key", "Please unlock disk") };
        let summary = format!("{path} asks for its passphrase, which was not given");
        Step {
            stages: vec![stage(StageName::Root, Verdict::Fail, summary)],
            next: Next::Stops(Stop { outcome: Outcome::LuksPrompt, cause: Some(cause) }),
        }
    }

    /// A layer below a name that nothing has: members whose metadata are damaged, so that nothing claims them.
    fn damaged_layer(&self, device: &str) -> Option<(&'static str, String)> {
        let is_volume = last(self.kernel, "rd.lvm.lv=").is_some() || device.starts_with("/dev/mapper/");
        let unclaimed = self
            .storage
            .iter()
            .find(|(_, node)| matches!(node.content, Content::PhysicalVolume { group: None, .. }));
        if let (true, Some((_, node))) = (is_volume, unclaimed) {
            let reason = format!("{} is a physical volume without readable metadata", node.path);
            return Some(("lvm.metadata-damaged", reason));
        }
        if is_volume && self.storage.pvs.is_empty() {
            return Some(("lvm.pv-missing", "no disk holds a physical volume".into()));
        }
        let is_raid = |node: &storage::Node| matches!(&node.kind, NodeKind::Partition(found) if found.type_id.eq_ignore_ascii_case("fd"));
        let raid = self.storage.iter().find(|(_, node)| is_raid(node) && node.content_type().is_none());
        raid.map(|(_, node)| ("md.degraded-or-missing", format!("{} is no member of an array", node.path)))
    }

    fn dracut(&self, devices: &mut Devices<'_>, drivers: &Drivers<'_>) -> Step<Root> {
        let name = StageName::Root;
        let (spec, place) = &self.root;
        let arguments = self.dracut_arguments();
        let has = |key: &str| arguments.iter().any(|(argument, _)| argument.starts_with(key));
        self.unpacked.number_arrays(devices);
        lvm::Settings::of_image(self.unpacked).block_in_image(
            self.storage,
            self.guest,
            self.hardware,
            devices,
        );
        if let Some(text) = self.unpacked.text("etc/crypttab") {
            devices.add_crypttab(&text);
        }
        let is_auto =
            arguments.iter().any(|(argument, _)| matches!(argument.as_str(), "rd.auto" | "rd.auto=1"));
        // dracut means to activate nothing without any of these; the test for that (`-z "$LV_DEVS"` of a string that always
        // holds a blank) is never true, and everything is activated.
        let is_lvm_off = arguments.iter().any(|(word, _)| matches!(word.as_str(), "rd.lvm=0" | "rd.lvm=no"));
        let names_lvm = has("rd.lvm.lv=") || has("rd.lvm.vg=");
        for (id, node) in self.storage.iter().filter(|_| is_lvm_off || names_lvm) {
            let NodeKind::LogicalVolume { group, name, .. } = &node.kind else { continue };
            let keys = [format!("rd.lvm.lv={group}/{name}"), format!("rd.lvm.vg={group}")];
            if is_lvm_off {
                let reason = "the command line has rd.lvm=0, so that no volume is activated";
                devices.block(id, "cmdline.root-unresolved", reason);
            } else if !arguments.iter().any(|(argument, _)| keys.contains(argument)) {
                let reason = format!("no rd.lvm.lv= names {group}/{name}");
                devices.block(id, "cmdline.rd-device-missing", reason);
            }
        }
        if !is_auto && !has("rd.md.uuid=") {
            for (id, node) in self.storage.iter() {
                if matches!(node.kind, NodeKind::Array { .. }) {
                    devices.block(id, "cmdline.rd-device-missing", "no rd.md.uuid= names the array");
                }
            }
        }
        let give_up =
            |cause: Cause, summary: String| Step::stops(name, Outcome::DracutEmergency, cause, summary);
        // The root first, as its absence is what the person reads about first.
        let mut waits: Vec<(String, &'static str, GuestPlace)> =
            vec![(device_of(spec), unresolved(spec), place.clone())];
        for (argument, place) in &arguments {
            if let Some(volume) = argument.strip_prefix("rd.lvm.lv=") {
                waits.push((format!("/dev/{volume}"), "cmdline.rd-device-missing", place.clone()));
            }
        }
        waits.extend(
            self.embedded_waits()
                .into_iter()
                .map(|(device, file)| (device, "initramfs.stale-wait-device", GuestPlace { file, line: 1 })),
        );
        for (argument, place) in &arguments {
            let Some(uuid) = argument.strip_prefix("rd.luks.uuid=") else { continue };
            let uuid = uuid.trim_start_matches("luks-");
            let found = self.storage.iter().find(|(_, node)| {
                matches!(node.content, Content::Encrypted(_))
                    && node.uuid().is_some_and(|found| found.starts_with(uuid))
            });
            if let Some((id, _)) = found.filter(|(id, _)| self.is_locked(*id)) {
                return self.prompt(id, true);
            }
            if found.is_none() {
                let warning = format!("Warning: crypto LUKS UUID {uuid} not found");
                let summary = format!("nothing encrypted has the UUID {uuid}");
                return give_up(place.cause("cmdline.rd-device-missing", warning), summary);
            }
        }
        for (argument, place) in &arguments {
            let Some(uuid) = argument.strip_prefix("rd.md.uuid=") else { continue };
            let digits = |text: &str| {
                text.chars().filter(char::is_ascii_hexdigit).collect::<String>().to_ascii_lowercase()
            };
            let is_it = |node: &storage::Node| matches!(&node.kind, NodeKind::Array { uuid: found, .. } if digits(found) == digits(uuid));
            if !self.storage.iter().any(|(_, node)| is_it(node)) {
                let warning = format!("Warning: \"/dev/disk/by-id/md-uuid-{uuid}\" does not exist");
                let summary = format!("no array has the UUID {uuid}");
                return give_up(place.cause("cmdline.rd-device-missing", warning), summary);
            }
        }
        let mut root = None;
        for (device, rule, place) in waits {
            let warning = format!("Warning: \"{device}\" does not exist");
            match devices.find(&device) {
                Found::Node(id) => {
                    root.get_or_insert(id);
                }
                Found::Nothing(Some((rule, reason))) => {
                    let mut cause = self.cause_of_image(rule, &warning);
                    if rule.starts_with("cmdline.") {
                        (cause.file, cause.line) = (place.file, Some(place.line));
                    }
                    return give_up(cause, reason);
                }
                Found::Nothing(None) => {
                    if let Some((rule, reason)) = devices.undriven_source() {
                        return give_up(self.cause_of_image(rule, &warning), reason);
                    }
                    if let Some(step) = self.locked(devices, &give_up) {
                        return step;
                    }
                    return match self.damaged_layer(&device) {
                        Some((rule, reason)) => give_up(cause(rule, warning), reason),
                        None => give_up(
                            place.cause(rule, warning),
                            format!("nothing is {device} on this machine"),
                        ),
                    };
                }
                Found::Extra => {
                    return give_up(
                        place.cause(rule, warning),
                        format!("{device} is a further disk without this content"),
                    );
                }
                Found::Ambiguous => return Step::unknown(name, format!("several devices claim {device}")),
                Found::Unknown(reason) => return Step::unknown(name, reason),
            }
        }
        if let Some(step) = self.stale_resume(devices) {
            return step;
        }
        match root {
            Some(id) => self.mount(id, drivers, &give_up, Kind::Dracut),
            None => Step::unknown(name, "no root file system was looked for"),
        }
    }

    /// systemd's generator in the image lets the root wait for the device of `resume=`; dracut's reload of systemd takes the
    /// limit off that wait.
    fn stale_resume(&self, devices: &Devices<'_>) -> Option<Step<Root>> {
        let (spec, place) = last(self.kernel, "resume=")?;
        let generator = "lib/systemd/system-generators/systemd-hibernate-resume-generator";
        let has_generator = self.unpacked.has(generator) || self.unpacked.has(&format!("usr/{generator}"));
        let is_off = self.kernel.loaded.arguments.iter().any(|(argument, _)| argument == "noresume");
        let device = device_of(&spec);
        let is_missing = matches!(devices.find(&device), Found::Nothing(_));
        (has_generator && !is_off && is_missing).then(|| {
            let symptom = format!("A start job is running for {device} / no limit");
            let summary = format!("systemd waits without end for {device}, which no disk provides");
            Step::stops(StageName::Root, Outcome::Hang, place.cause("cmdline.resume-stale", symptom), summary)
        })
    }

    /// The command line with what the image adds to it.
    fn dracut_arguments(&self) -> Vec<(String, GuestPlace)> {
        let mut all = self.kernel.loaded.arguments.clone();
        all.extend(self.unpacked.embedded_arguments());
        all
    }

    /// Devices that scripts in the image wait for, with the script.
    fn embedded_waits(&self) -> Vec<(String, String)> {
        let mut waits = Vec::new();
        for folder in ["usr/lib/dracut/hooks/initqueue/finished", "var/lib/dracut/hooks/initqueue/finished"] {
            for (path, entry) in self.unpacked.archive.below(folder.as_bytes()) {
                let text = String::from_utf8_lossy(entry.content.as_deref().unwrap_or_default()).into_owned();
                let device = text.split_once("[ -e \"").and_then(|(_, rest)| rest.split_once('"'));
                if let Some((device, _)) = device {
                    let file = format!("{}:{}", self.unpacked.path, String::from_utf8_lossy(path));
                    waits.push((device.replace("\\x2f", "/"), file));
                }
            }
        }
        waits
    }
}

/// The rule for a root that is not there.
fn unresolved(spec: &str) -> &'static str {
    if kernel_disk_name(spec).is_some() { "cmdline.root-bare-device" } else { "cmdline.root-unresolved" }
}
