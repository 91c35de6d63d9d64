//! How this VM keeps pages from its host: what a test asks of every platform in the same way.
//!
//! ```text
//! platform       asked by                  unit     a shared page is at   a converted page holds
//! none           nothing, all are shared   -        its address           -
//! Realm          RSI_IPA_STATE_SET         4 KiB    address | top bit     zeros
//! pKVM           MEM_SHARE, MEM_UNSHARE    a page   its address           what it held
//! sw-protected   KVM_HC_MAP_GPA_RANGE      4 KiB    its address           zeros
//! ```

#[cfg(target_arch = "x86_64")]
use crate::arch::hypercall;
#[cfg(target_arch = "aarch64")]
use crate::arch::pkvm::Pkvm;
use crate::machine::{Machine, Range};
#[cfg(target_arch = "aarch64")]
use crate::rsi::{EMPTY, RAM, Realm};
use crate::rsi::{GRANULE, Refused};

/// Who sees a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// The guest alone.
    Private,
    /// Its host and its devices, too.
    Shared,
}

/// What a page holds after its state has changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Zeros.
    Fresh,
    /// What it held before.
    Kept,
}

/// The way in which it is done.
#[derive(Clone, Copy)]
pub enum Isolation {
    /// There is none: every page is shared, for good.
    None,
    /// The RMM, or who plays it.
    #[cfg(target_arch = "aarch64")]
    Realm(Realm),
    /// The hypervisor of pKVM.
    #[cfg(target_arch = "aarch64")]
    Pkvm(Pkvm),
    /// KVM's memory attributes.
    #[cfg(target_arch = "x86_64")]
    SwProtected,
}

impl Isolation {
    /// What this machine has.
    #[cfg(target_arch = "aarch64")]
    pub fn of(machine: &Machine<'_>) -> Self {
        match (machine.realm, Pkvm::find(machine.platform)) {
            (Some(realm), _) => Self::Realm(realm),
            (None, Some(pkvm)) => Self::Pkvm(pkvm),
            (None, None) => Self::None,
        }
    }

    /// What this machine has.
    #[cfg(target_arch = "x86_64")]
    pub fn of(_: &Machine<'_>) -> Self {
        match hypercall::maps_gpa_ranges() {
            true => Self::SwProtected,
            false => Self::None,
        }
    }

    /// What kind of VM a guest takes this for.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            #[cfg(target_arch = "aarch64")]
            Self::Realm(_) => "realm",
            #[cfg(target_arch = "aarch64")]
            Self::Pkvm(_) => "pkvm",
            #[cfg(target_arch = "x86_64")]
            Self::SwProtected => "sw-protected",
        }
    }

    /// Whether pages have a state that can change.
    pub fn converts(self) -> bool {
        !matches!(self, Self::None)
    }

    /// The state of memory when the guest starts.
    pub fn first_state(self) -> State {
        match self {
            Self::None => State::Shared,
            #[cfg(target_arch = "aarch64")]
            Self::Realm(_) | Self::Pkvm(_) => State::Private,
            #[cfg(target_arch = "x86_64")]
            Self::SwProtected => State::Shared,
        }
    }

    /// What a page holds after its state has changed.
    pub fn content(self) -> Content {
        match self {
            Self::None => Content::Kept,
            #[cfg(target_arch = "aarch64")]
            Self::Realm(_) => Content::Fresh,
            #[cfg(target_arch = "aarch64")]
            Self::Pkvm(_) => Content::Kept,
            #[cfg(target_arch = "x86_64")]
            Self::SwProtected => Content::Fresh,
        }
    }

    /// Bytes of the smallest unit of a state.
    pub fn granule(self) -> u64 {
        match self {
            #[cfg(target_arch = "aarch64")]
            Self::Pkvm(pkvm) => pkvm.granule(),
            _ => GRANULE,
        }
    }

    /// Whether a page that is in a state already can be asked to be in it.
    pub fn repeats(self) -> bool {
        match self {
            #[cfg(target_arch = "aarch64")]
            Self::Pkvm(_) => false,
            _ => true,
        }
    }

    /// Brings all of `range` into a state: whole granules, which are all in the other state where the
    /// platform does not [repeat](Self::repeats).
    pub fn set(self, range: Range, state: State) -> Result<(), Refused> {
        let shared = state == State::Shared;
        match self {
            // There is nobody to ask.
            Self::None if shared => Ok(()),
            Self::None => Err(Refused {
                status: u64::MAX,
                reached: range.start,
            }),
            #[cfg(target_arch = "aarch64")]
            Self::Realm(realm) => {
                realm.set(range.start, range.end, if shared { EMPTY } else { RAM })
            }
            #[cfg(target_arch = "aarch64")]
            Self::Pkvm(pkvm) => {
                let mut granules = (range.start..range.end).step_by(pkvm.granule() as usize);
                granules.try_for_each(|reached| match pkvm.set(reached, shared) {
                    0 => Ok(()),
                    status => Err(Refused { status, reached }),
                })
            }
            #[cfg(target_arch = "x86_64")]
            Self::SwProtected => {
                let pages = range.bytes() / hypercall::PAGE;
                match hypercall::map_gpa_range(range.start, pages, !shared) {
                    0 => Ok(()),
                    status => Err(Refused {
                        status: status.cast_unsigned(),
                        reached: range.start,
                    }),
                }
            }
        }
    }

    /// A call to whom it would ask that changes nothing: to ccvm in a Realm, else to the host's kernel or
    /// hypervisor.
    pub fn idle(self, page: u64) -> Result<(), Refused> {
        match self {
            Self::None => Ok(()),
            #[cfg(target_arch = "aarch64")]
            Self::Realm(realm) => realm.get(page, page + GRANULE).map(drop),
            #[cfg(target_arch = "aarch64")]
            Self::Pkvm(pkvm) => {
                pkvm.idle();
                Ok(())
            }
            #[cfg(target_arch = "x86_64")]
            Self::SwProtected => {
                // There is no such call.
                hypercall::call(u64::MAX, [page, 0, 0]);
                Ok(())
            }
        }
    }
}
