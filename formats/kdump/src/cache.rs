//! Things that may be needed again, found by number: bounded, shared by threads.

use std::sync::{Mutex, PoisonError};

/// A slot for each number modulo their count; each has a lock of its own, and the newest value stays.
pub(crate) struct Cache<T> {
    slots: Box<[Slot<T>]>,
}

/// A value with its number.
type Slot<T> = Mutex<Option<(u64, T)>>;

impl<T> Cache<T> {
    pub(crate) fn new(count: u64) -> Self {
        Self { slots: (0..count.max(1)).map(|_| Mutex::default()).collect() }
    }

    /// How many values with successive numbers it holds.
    pub(crate) fn capacity(&self) -> u64 {
        self.slots.len() as u64
    }

    fn slot(&self, number: u64) -> &Slot<T> {
        let index = usize::try_from(number % self.capacity()).expect("a remainder of a usize");
        &self.slots[index]
    }

    /// What `look` finds in a value; `None` if the value is not here. The slot is locked meanwhile.
    pub(crate) fn get<R>(&self, number: u64, look: impl FnOnce(&T) -> R) -> Option<R> {
        let slot = self.slot(number).lock().unwrap_or_else(PoisonError::into_inner);
        slot.as_ref().filter(|(found, _)| *found == number).map(|(_, value)| look(value))
    }

    /// Keeps a value, and gives back the one whose place it takes.
    pub(crate) fn put(&self, number: u64, value: T) -> Option<T> {
        let mut slot = self.slot(number).lock().unwrap_or_else(PoisonError::into_inner);
        slot.replace((number, value)).map(|(_, old)| old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_value_of_a_slot_is_kept() {
        let cache = Cache::new(4);
        assert_eq!(cache.get(7, |value: &&str| *value), None);
        assert_eq!(cache.put(7, "old"), None);
        assert_eq!(cache.get(7, |value| value.len()), Some(3));
        assert_eq!(cache.put(7 + 4, "new"), Some("old"));
        assert_eq!((cache.get(7, |value| *value), cache.get(11, |value| *value)), (None, Some("new")));
    }
}
