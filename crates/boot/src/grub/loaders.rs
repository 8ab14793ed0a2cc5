//! `linux`, `initrd`, `chainloader` and their like.

use std::sync::Arc;

use super::error::{ErrorCode, GrubError};
use super::expand::Arg;
use super::interpreter::{Call, Fail, Machine};
use super::report::{Argument, End, FileName, LinuxLoad, Load};
use super::state::{Loaded, OK, Status};
use super::value::Value;
use super::world::{Answer, Platform, Version};

impl Machine<'_> {
    pub(super) fn linux(&mut self, call: &Call<'_>) -> Status {
        let Some((kernel, arguments)) = call.args.split_first() else {
            return self.error(&call.origin, GrubError::bad_argument("filename expected"));
        };
        let opened = self.load_file(kernel, true);
        let kernel = match opened {
            Ok(kernel) => kernel,
            Err(Fail::Error(error)) => {
                self.state.loaded = Loaded::Nothing;
                return self.error(&call.origin, error);
            }
            Err(Fail::Unknown(unknown)) => {
                // Whether it loads is not known; that it is what would load, is.
                self.state.loaded = Loaded::Unknown(unknown.clone());
                return Status::Unknown(unknown);
            }
        };
        let load = LinuxLoad {
            command: call.name.clone(),
            kernel,
            arguments: arguments.iter().map(argument).collect(),
            initrds: Vec::new(),
            origin: call.origin.clone(),
        };
        self.state.loaded = Loaded::This(Arc::new(Load::Linux(load)));
        OK
    }

    pub(super) fn initrd(&mut self, call: &Call<'_>) -> Status {
        if call.args.is_empty() {
            return self.error(&call.origin, GrubError::bad_argument("filename expected"));
        }
        let mut load = match &self.state.loaded {
            Loaded::This(load) => match &**load {
                Load::Linux(linux) if self.belong_together(&linux.command, &call.name) => linux.clone(),
                _ => return self.error(&call.origin, GrubError::kernel_first()),
            },
            Loaded::Nothing => return self.error(&call.origin, GrubError::kernel_first()),
            Loaded::Unknown(unknown) => return Status::Unknown(unknown.clone()),
        };
        let mut initrds = Vec::new();
        for arg in &call.args {
            // `newc:PATH:FILE` puts a file into an archive of its own.
            let file = match arg.value.known().and_then(|value| value.strip_prefix(b"newc:")) {
                Some(rest) => {
                    let at = rest.iter().position(|byte| *byte == b':').map_or(0, |at| at + 1);
                    Arg { value: Value::from(&rest[at..]), ..arg.clone() }
                }
                None => arg.clone(),
            };
            match self.load_file(&file, false) {
                Ok(file) => initrds.push(file),
                Err(Fail::Error(error)) => return self.error(&call.origin, error),
                Err(Fail::Unknown(unknown)) => {
                    self.state.loaded = Loaded::Unknown(unknown.clone());
                    return Status::Unknown(unknown);
                }
            }
        }
        load.initrds = initrds;
        self.state.loaded = Loaded::This(Arc::new(Load::Linux(load)));
        OK
    }

    /// Each loader has its own commands; on EFI newer and Red Hat's builds have one loader for all names.
    fn belong_together(&self, linux: &str, initrd: &str) -> bool {
        let suffix = |name: &str, base: &str| name.strip_prefix(base).unwrap_or_default().to_owned();
        let (one, two) = (suffix(linux, "linux"), suffix(initrd, "initrd"));
        let release = self.setup.release;
        let is_one_loader = release.is_red_hat || release.version >= Version::V2_12;
        one == two || self.setup.platform == Platform::Efi && is_one_loader && one != "16" && two != "16"
    }

    fn load_file(&mut self, arg: &Arg, is_kernel: bool) -> Result<FileName, Fail> {
        let (device, path, size, damage) = self.open(&arg.value, &arg.origin)?;
        if let Some(error) = damage {
            return Err(error.into());
        }
        if is_kernel && size == 0 {
            return Err(GrubError::premature_end(arg.value.known().unwrap_or_default()).into());
        }
        let device = Value::from(device.as_str());
        Ok(FileName { device, path: Value::from(path), size: Some(size), origin: arg.origin.clone() })
    }

    pub(super) fn chainloader(&mut self, call: &Call<'_>) -> Status {
        let args: Vec<&Arg> = call
            .args
            .iter()
            .skip_while(|arg| arg.value.known().is_some_and(|value| value.starts_with(b"-")))
            .collect();
        let Some((file, arguments)) = args.split_first() else {
            return self.error(&call.origin, GrubError::bad_argument("filename expected"));
        };
        match self.boot_sector_or_file(file) {
            Ok(file) => {
                let arguments = arguments.iter().map(|arg| argument(arg)).collect();
                let load = Load::Chain { file, arguments, origin: call.origin.clone() };
                self.state.loaded = Loaded::This(Arc::new(load));
                OK
            }
            Err(fail) => self.load_failed(call, fail),
        }
    }

    /// `multiboot`, `ntldr`, `xnu_kernel`: something else starts.
    pub(super) fn other_loader(&mut self, call: &Call<'_>) -> Status {
        let names_file = |arg: &&Arg| arg.value.known().is_none_or(|value| !value.starts_with(b"-"));
        let file = match call.args.iter().find(names_file) {
            None => None,
            Some(arg) => match self.boot_sector_or_file(arg) {
                Ok(file) => Some(file),
                Err(fail) => return self.load_failed(call, fail),
            },
        };
        let load = Load::Other { command: call.name.clone(), file, origin: call.origin.clone() };
        self.state.loaded = Loaded::This(Arc::new(load));
        OK
    }

    fn load_failed(&mut self, call: &Call<'_>, fail: Fail) -> Status {
        self.state.loaded = match &fail {
            Fail::Error(_) => Loaded::Nothing,
            Fail::Unknown(unknown) => Loaded::Unknown(unknown.clone()),
        };
        self.fail(&call.origin, fail)
    }

    fn boot_sector_or_file(&mut self, arg: &Arg) -> Result<FileName, Fail> {
        let (device, path) = self.split_name(&arg.value, &arg.origin)?;
        let is_block_list = path.first().is_some_and(|byte| *byte == b'+' || byte.is_ascii_digit());
        if !is_block_list {
            return self.load_file(arg, false);
        }
        match self.world.device(&device) {
            Answer::Known(Ok(())) => {}
            Answer::Known(Err(error)) => return Err(error.into()),
            Answer::Unknown(reason) => return Err(self.unknown(&arg.origin, reason).into()),
        }
        let device = Value::from(device.as_str());
        Ok(FileName { device, path: Value::from(path), size: None, origin: arg.origin.clone() })
    }

    pub(super) fn boot(&mut self, call: &Call<'_>) -> Status {
        match self.state.loaded.clone() {
            Loaded::This(load) => {
                self.state.end = Some(End::Boots(Box::new((*load).clone())));
                OK
            }
            Loaded::Nothing => {
                let text = "you need to load the kernel first";
                self.error(&call.origin, GrubError::new(ErrorCode::NoKernel, text))
            }
            Loaded::Unknown(unknown) => self.lose(unknown),
        }
    }
}

fn argument(arg: &Arg) -> Argument {
    Argument { value: arg.value.clone(), origin: arg.origin.clone(), variable: arg.variable.clone() }
}
