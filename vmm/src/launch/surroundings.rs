//! Who a VM is launched for.

use std::sync::Arc;

use kvm::ram::Populated;

use crate::run::Screen;

/// What a launch shows its operator.
pub struct Surroundings<'a> {
    /// Where the console goes.
    pub screen: &'a Arc<Screen>,
    /// Hears how far guest memory is filled, where that is asked for.
    pub progress: &'a mut dyn FnMut(Populated),
}
