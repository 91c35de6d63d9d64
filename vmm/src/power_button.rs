//! The power button of a VM: it asks the guest to turn itself off, by what its architecture has for it.

/// Presses the button.
type Press = Box<dyn Fn() + Send>;

/// A button. What the guest does when it is pressed is up to the guest.
pub struct PowerButton(Press);

impl PowerButton {
    /// The button that `press` presses.
    #[must_use]
    pub fn new(press: impl Fn() + Send + 'static) -> Self {
        Self(Box::new(press))
    }

    /// Presses it, and lets it go when the guest has seen it.
    pub fn press(&self) {
        (self.0)();
    }
}
