//! A lock for two processors.

use core::cell::UnsafeCell;
use core::hint;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

/// What only one processor looks at at a time.
pub struct Spin<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: whoever has the lock is the only one with the value.
unsafe impl<T: Send> Sync for Spin<T> {}

/// The value, until this is dropped.
pub struct Held<'a, T>(&'a Spin<T>);

impl<T> Spin<T> {
    /// A value that nobody looks at.
    pub const fn new(value: T) -> Self {
        Self {
            taken: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits for the value.
    pub fn lock(&self) -> Held<'_, T> {
        loop {
            if let Some(held) = self.try_lock() {
                return held;
            }
            hint::spin_loop();
        }
    }

    /// The value, where nobody has it.
    pub fn try_lock(&self) -> Option<Held<'_, T>> {
        let free = !self.taken.swap(true, Ordering::Acquire);
        free.then_some(Held(self))
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this processor has the lock.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this processor has the lock.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        self.0.taken.store(false, Ordering::Release);
    }
}
