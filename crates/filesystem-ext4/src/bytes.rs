//! Copying where one side may be shorter: structures grow with the revisions of the format.

/// Copies as many bytes as both have; the rest of `to` stays.
pub(crate) fn copy_common(to: &mut [u8], from: &[u8]) {
    let length = to.len().min(from.len());
    if let (Some(to), Some(from)) = (to.get_mut(..length), from.get(..length)) {
        to.copy_from_slice(from);
    }
}
