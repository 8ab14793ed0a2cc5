//! Walking a tree in the order of its keys.
//!
//! Every step down is one level lower, and every block lies between the keys that its parent gives it, so a
//! walk ends: no block can be met twice.

use std::sync::Arc;

use ondisk::{Corrupt, Result};

use crate::key::Key;
use crate::node::{Item, Node};
use crate::space::{Expected, Space};
use crate::superblock::RootPlace;

/// A tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Root {
    pub(crate) id: u64,
    pub(crate) place: RootPlace,
}

impl Root {
    pub(crate) fn expected(&self) -> Expected {
        Expected {
            bytenr: self.place.bytenr,
            level: self.place.level,
            generation: self.place.generation,
            tree: self.id,
        }
    }
}

/// A place in a tree: the blocks from the root to a leaf, with a slot in each.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    space: &'a Space,
    tree: u64,
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    node: Arc<Node>,
    slot: usize,
    /// The key that everything in the node must be less than.
    end: Option<Key>,
}

impl<'a> Cursor<'a> {
    /// At the first item whose key is not less than `key`.
    pub(crate) fn seek(space: &'a Space, root: &Root, key: &Key) -> Result<Self> {
        let mut cursor = Self::descend(space, root, key)?;
        cursor.settle()?;
        Ok(cursor)
    }

    /// At the last item whose key is not more than `key`; `None` when all are more.
    pub(crate) fn seek_back(space: &'a Space, root: &Root, key: &Key) -> Result<Option<Self>> {
        let mut cursor = Self::descend(space, root, key)?;
        if cursor.item().is_some_and(|item| item.key == *key) {
            return Ok(Some(cursor));
        }
        let Some(last) = cursor.steps.last_mut() else { return Ok(None) };
        // A block's first key is its parent's, so only the leftmost leaf can lie behind `key` as a whole.
        let Some(slot) = last.slot.checked_sub(1) else { return Ok(None) };
        last.slot = slot;
        Ok(Some(cursor))
    }

    fn descend(space: &'a Space, root: &Root, key: &Key) -> Result<Self> {
        let node = space.node(&root.expected())?;
        let mut cursor = Self { space, tree: root.id, steps: Vec::new() };
        let slot = slot_for(&node, key);
        cursor.steps.push(Step { node, slot, end: None });
        while cursor.step_down(|node| slot_for(node, key))? {}
        Ok(cursor)
    }

    /// Enters the block that the last step's slot points to; false in a leaf.
    fn step_down(&mut self, choose: impl Fn(&Node) -> usize) -> Result<bool> {
        let Some(Step { node: parent, slot, end }) = self.steps.last() else { return Ok(false) };
        let Some(pointer) = parent.pointer(*slot) else { return Ok(false) };
        let Some(level) = parent.level.checked_sub(1) else { return Ok(false) };
        let end = parent.key(slot.saturating_add(1)).or(*end);
        let expected =
            Expected { bytenr: pointer.bytenr, level, generation: pointer.generation, tree: self.tree };
        let node = self.space.node(&expected)?;
        check_keys(&node, &pointer.key, end.as_ref())?;
        let slot = choose(&node);
        self.steps.push(Step { node, slot, end });
        Ok(true)
    }

    /// The item here; `None` behind the last.
    pub(crate) fn item(&self) -> Option<Item<'_>> {
        self.steps.last().and_then(|step| step.node.item(step.slot))
    }

    /// To the next item.
    pub(crate) fn advance(&mut self) -> Result<()> {
        if let Some(last) = self.steps.last_mut() {
            last.slot = last.slot.saturating_add(1);
        }
        self.settle()
    }

    /// Goes on to the next leaf when the slot is behind the last of this one.
    fn settle(&mut self) -> Result<()> {
        if self.steps.last().is_none_or(|step| step.slot < step.node.count()) {
            return Ok(());
        }
        while self.steps.pop().is_some() {
            let Some(parent) = self.steps.last_mut() else { return Ok(()) };
            parent.slot = parent.slot.saturating_add(1);
            if parent.slot < parent.node.count() {
                break;
            }
        }
        while self.step_down(|_| 0)? {}
        Ok(())
    }
}

/// In a leaf the first item not less than `key`; in a node the block that may hold `key`.
fn slot_for(node: &Node, key: &Key) -> usize {
    let slot = node.lower_bound(key);
    if node.level == 0 || node.key(slot) == Some(*key) { slot } else { slot.saturating_sub(1) }
}

fn check_keys(node: &Node, first: &Key, end: Option<&Key>) -> Result<(), Corrupt> {
    if node.key(0) != Some(*first) {
        let found = node.key(0).map_or_else(|| "none".to_owned(), |key| key.to_string());
        return Err(node.corrupt("first key", first.to_string(), found));
    }
    let last = node.key(node.count().saturating_sub(1));
    if let (Some(end), Some(last)) = (end, last)
        && last >= *end
    {
        return Err(node.corrupt("last key", format!("less than {end}"), last.to_string()));
    }
    Ok(())
}

/// Calls `visit` with every item from `from` up to the last whose key is at most `to`; stops when it says so.
pub(crate) fn for_each(
    space: &Space,
    root: &Root,
    (from, to): (Key, Key),
    mut visit: impl FnMut(Item<'_>) -> Result<std::ops::ControlFlow<()>>,
) -> Result<()> {
    let mut cursor = Cursor::seek(space, root, &from)?;
    while let Some(item) = cursor.item().filter(|item| item.key <= to) {
        if visit(item)?.is_break() {
            break;
        }
        cursor.advance()?;
    }
    Ok(())
}

/// What `decode` makes of the item with exactly this key.
pub(crate) fn with_item<T>(
    space: &Space,
    root: &Root,
    key: &Key,
    decode: impl FnOnce(Item<'_>) -> Result<T>,
) -> Result<Option<T>> {
    let cursor = Cursor::seek(space, root, key)?;
    cursor.item().filter(|item| item.key == *key).map(decode).transpose()
}
