//! `esp.fallback-csv-broken`

use crate::{Check, Rule};

/// shim's fallback program finds no usable list of loaders.
pub static RULE: Rule = Rule {
    id: "esp.fallback-csv-broken",
    summary: "shim's fallback program has no loader that it could start",
    manual: "\
# esp.fallback-csv-broken

## What happens
`Reset System`: the machine starts again, and again, before any menu is shown. Or `LoadImage failed: Not Found` with the path
of the program, for more than eight minutes, and then the same.

## Why
A firmware that remembers no boot entries (a new or copied machine) starts `\\EFI\\BOOT\\BOOTX64.EFI`. Where that is shim and
`fbx64.efi` lies beside it, shim starts that, which makes boot entries from the lists `\\EFI\\*\\BOOTX64.CSV`: UTF-16LE with a
byte order mark, a line `program,label,arguments,comment` for each. There is no list, no line in it, or its program is not there.

## Fix
Nothing is proposed. Reinstall the vendor's package of shim, which brings loader and list; or remove `fbx64.efi` where
`grubx64.efi` lies beside shim.

## References
shim `fallback.c`, `README.fallback`.
",
    check: Check::Boot(None),
};
