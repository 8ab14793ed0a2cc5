//! The boot of one installed system on one machine.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use guest::Guest;
use storage::{DeviceNames, Firmware, Hardware, NodeId, Presence, Storage};

use crate::stages::default_target::Plans;
use crate::stages::devices::Devices;
use crate::stages::drivers::Drivers;
use crate::stages::kernel::{Cache, Kernel};
use crate::stages::selinux::{self, Unruled};
use crate::stages::{
    Next, Step, cause, default_target, firmware, grub, init, initramfs, kernel, local_fs, lvm, stage,
};
use crate::trace::{BootTrace, Cause, Outcome, Stage, StageName, Verdict};

/// Follows boots of the systems on one set of disks. What was read for one machine is kept for the next.
pub struct Simulator<'a> {
    storage: &'a Storage,
    cache: Cache,
    starts: Mutex<Vec<(StartKey, Arc<Start>)>>,
    plans: Plans,
}

/// What decides how far the loader gets: the system, the firmware, the drives in its order. Their bus does not.
type StartKey = (Option<NodeId>, Firmware, Vec<Option<usize>>, Vec<usize>);

/// The stages before the kernel runs, and what they come to.
struct Start {
    stages: Vec<Stage>,
    next: Next<Kernel>,
}

impl<'a> Simulator<'a> {
    /// For what was found on the disks.
    pub fn new(storage: &'a Storage) -> Self {
        Self { storage, cache: Cache::default(), starts: Mutex::default(), plans: Plans::default() }
    }

    /// Follows the boot of `guest` on `hardware`.
    ///
    /// Where a stage before the root file system cannot be told, the boot is followed from there on, and the outcome is what
    /// comes if those stages do their part.
    ///
    /// Without a system, as when the disk that holds it cannot be read, the boot is followed to where it ends.
    pub fn run(&self, guest: Option<&Guest>, hardware: &Hardware) -> BootTrace {
        let firmware = hardware.firmware.unwrap_or_else(|| firmware::made_for(self.storage, hardware));
        let mut trace = BootTrace {
            hardware: hardware.clone(),
            firmware,
            guest: guest.map(|guest| guest.root),
            stages: Vec::new(),
            outcome: Outcome::Login,
            cause: None,
            failing_lines: Vec::new(),
            delay: Duration::ZERO,
        };
        let start = self.start(guest, hardware, firmware);
        trace.stages.extend(start.stages.iter().cloned());
        let kernel = match &start.next {
            Next::Goes(kernel) => Some(kernel),
            Next::Stops(stop) => {
                trace.outcome = stop.outcome;
                trace.cause.clone_from(&stop.cause);
                return trace;
            }
            Next::Unknown => None,
        };
        let (kernel, guest) = match (kernel, guest) {
            (Some(kernel), guest) => (kernel, guest),
            (None, Some(guest)) => {
                self.follow_from_root(guest, hardware, firmware, &mut trace);
                return trace;
            }
            (None, None) => {
                trace.outcome = Outcome::Unknown;
                return trace;
            }
        };
        let root = initramfs::run(self.storage, guest, hardware, firmware, kernel);
        let root = take(&mut trace, root);
        let Some(guest) = guest else {
            if trace.cause.is_none() {
                trace.outcome = Outcome::Unknown;
            }
            return trace;
        };
        let active = root.as_ref().map(|root| root.active.clone());
        let init = root.and_then(|root| take(&mut trace, init::run(guest, kernel, root.kind, &self.plans)));
        if trace.cause.is_some() {
            return trace;
        }
        let towards = match init {
            Some(init) => init.towards,
            // Where it cannot be told which device is the root, systemd is taken to start from it all the same.
            None => self.plans.towards(guest, &kernel.loaded.arguments, init::DEFAULT_TARGET),
        };
        let towards = towards.as_deref();
        let drivers = Drivers::on_root(kernel, guest);
        let mut devices = self.devices(guest, hardware, firmware, &drivers, active);
        // What the initramfs has assembled keeps its name.
        if let Some(unpacked) = kernel.initramfs.as_deref() {
            unpacked.number_arrays(&mut devices);
        }
        local_fs::run(self.storage, guest, &mut devices, &drivers, Some(kernel), towards, &mut trace);
        default_target::run(guest, Some(kernel), towards, &mut trace);
        self.judge_arrays(guest, hardware, &mut trace);
        if trace.outcome == Outcome::Login
            && let Some(Unruled::Degrades(cause, summary)) =
                selinux::without_policy(guest, kernel, init::INIT)
        {
            trace.stages.push(stage(StageName::Init, Verdict::Fail, summary));
            (trace.outcome, trace.cause) = (Outcome::Degraded, Some(cause));
        }
        trace
    }

    /// A system whose mounts lie on an array that lacks members comes up, and is degraded.
    fn judge_arrays(&self, guest: &Guest, hardware: &Hardware, trace: &mut BootTrace) {
        let disks: Vec<usize> = hardware.slots.iter().filter_map(|slot| slot.disk).collect();
        let presence = self.storage.presence(&disks);
        let is_degraded = |id: &NodeId| presence.get(id.0) == Some(&Presence::Degraded);
        let mut nodes = guest.mounts.iter().map(|mount| mount.node).chain([guest.root]);
        let Some(node) = nodes.find(is_degraded).filter(|_| trace.outcome == Outcome::Login) else { return };
        let path = &self.storage.node(node).path;
        let summary = format!("{path} lies on an array that lacks a member");
        trace.stages.push(stage(StageName::LocalFileSystems, Verdict::Fail, summary));
        trace.outcome = Outcome::Degraded;
        trace.cause = Some(cause("md.degraded-or-missing", "mdadm: DegradedArray event"));
    }

    fn devices(
        &self,
        guest: &Guest,
        hardware: &Hardware,
        firmware: Firmware,
        drivers: &Drivers<'_>,
        active: Option<BTreeSet<NodeId>>,
    ) -> Devices<'a> {
        let mut devices = Devices::new(self.storage, hardware, firmware, drivers);
        if let Ok(text) = guest.read("/etc/crypttab", 1 << 20) {
            devices.add_crypttab(&String::from_utf8_lossy(&text));
        }
        for path in ["/etc/mdadm/mdadm.conf", "/etc/mdadm.conf"] {
            if let Ok(text) = guest.read(path, 1 << 20) {
                devices.add_mdadm_conf(&String::from_utf8_lossy(&text), path.to_owned());
                break;
            }
        }
        if self.storage.groups.is_empty() {
            return devices;
        }
        // Where the initramfs is not known, it is taken to have activated what it can.
        let active = active.unwrap_or_else(|| lvm::made(self.storage, &devices));
        let settings = lvm::Settings::of_root(guest);
        settings.block_on_root(self.storage, guest, hardware, &active, &mut devices);
        devices
    }

    /// Firmware, loader, configuration, kernel.
    fn start(&self, guest: Option<&Guest>, hardware: &Hardware, firmware: Firmware) -> Arc<Start> {
        let key = (guest.map(|guest| guest.root), firmware, hardware.drives(), hardware.boot_order());
        let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, start)) = starts.iter().find(|(known, _)| *known == key) {
            return start.clone();
        }
        let step = firmware::start(self.storage, hardware, firmware)
            .then(|loader| grub::run(self.storage, guest, hardware, &loader))
            .then(|loaded| kernel::run(self.storage, guest, loaded, &self.cache));
        let start = Arc::new(Start { stages: step.stages, next: step.next });
        starts.push((key, start.clone()));
        start
    }

    /// From the root file system on, when nothing before can be told.
    fn follow_from_root(
        &self,
        guest: &Guest,
        hardware: &Hardware,
        firmware: Firmware,
        trace: &mut BootTrace,
    ) {
        for name in [StageName::Firmware, StageName::Loader, StageName::LoaderConfig, StageName::Kernel] {
            if !trace.stages.iter().any(|stage| stage.name == name) {
                trace.stages.push(stage(name, Verdict::Unknown, "not examined"));
            }
        }
        let names = DeviceNames::new(self.storage, hardware);
        let path = &self.storage.node(guest.root).path;
        // The name that says most comes last: by-uuid sorts before mapper, kernel names after both.
        let name = names
            .of(guest.root)
            .find(|name| name.starts_with("/dev/mapper/"))
            .or_else(|| names.of(guest.root).last());
        let Some(name) = name else {
            let summary = format!("{path} cannot be assembled from the disks of this machine");
            let symptom = format!("the initramfs waits for {path}, then gives up");
            trace.stages.push(stage(StageName::Root, Verdict::Fail, summary));
            trace.outcome = Outcome::DracutEmergency;
            trace.cause =
                Some(Cause { rule: "lvm.pv-missing", file: String::new(), line: None, unit: None, symptom });
            return;
        };
        trace.stages.push(stage(StageName::Root, Verdict::Pass, format!("{path} is {name}")));
        let drivers = Drivers::all();
        let mut devices = self.devices(guest, hardware, firmware, &drivers, None);
        let towards = self.plans.towards(guest, &[], init::DEFAULT_TARGET);
        local_fs::run(self.storage, guest, &mut devices, &drivers, None, towards.as_deref(), trace);
        default_target::run(guest, None, towards.as_deref(), trace);
        self.judge_arrays(guest, hardware, trace);
    }
}

/// Puts a step on record; what the next one starts from, if there is a next one.
fn take<T>(trace: &mut BootTrace, step: Step<T>) -> Option<T> {
    trace.stages.extend(step.stages);
    match step.next {
        Next::Goes(next) => Some(next),
        Next::Stops(stop) => {
            trace.outcome = stop.outcome;
            trace.cause = stop.cause;
            None
        }
        Next::Unknown => None,
    }
}
