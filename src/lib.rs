//! guestmend: offline guest-disk repair.
