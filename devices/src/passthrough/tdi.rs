//! The TDISP state machine of an interface (PCI Express Base 6.x, chapter 11.2), as a pure table.
//!
//! ```text
//!             LOCK               START (nonce)
//!  ┌──────────┐ ───> ┌────────┐ ─────────────> ┌─────┐
//!  │ UNLOCKED │      │ LOCKED │                │ RUN │
//!  └──────────┘ <─── └────────┘                └─────┘
//!    ^  ^     STOP     │    STOP, conventional  │  │
//!    │  └──────────────┼──── reset ─────────────┘  │
//!    │ STOP, reset,    │                           │
//!    │ scrubbed  ┌─────v─┐                         │
//!    └────────── │ ERROR │ <───────────────────────┘
//!                └───────┘   whatever breaks what was locked
//! ```
//! "Locked" below means LOCKED or RUN; ERROR counts as unlocked: nothing is protected any more.

mod report;
#[cfg(test)]
mod tests;

pub use report::{InterfaceInfo, InterfaceReport, MmioAttributes, MmioRange};

/// The state of an interface, numbered as `TDI_STATE` in a `GET_DEVICE_INTERFACE_STATE` response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TdiState {
    /// Its configuration may change; no private page is in its reach.
    Unlocked = 0,
    /// Its configuration is as reported until it is stopped or fails.
    Locked = 1,
    /// The guest has accepted it: it reaches private pages.
    Run = 2,
    /// Its configuration has changed while it was locked. It has to be stopped.
    Error = 3,
}

/// What happens to an interface. Requests come from the TSM and can be refused; the rest just happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// `LOCK_INTERFACE_REQUEST`.
    Lock,
    /// `START_INTERFACE_REQUEST` with the nonce of the lock.
    Start,
    /// `STOP_INTERFACE_REQUEST`.
    Stop,
    /// `GET_DEVICE_INTERFACE_STATE`.
    GetState,
    /// `GET_DEVICE_INTERFACE_REPORT`.
    GetReport,
    /// `BIND_P2P_STREAM_REQUEST`.
    BindPeer,
    /// `UNBIND_P2P_STREAM_REQUEST`.
    UnbindPeer,
    /// `SET_MMIO_ATTRIBUTE_REQUEST`.
    SetMmioAttribute,
    /// Something befalls it.
    Incident(Incident),
}

/// What befalls an interface, whether anybody wants it or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Incident {
    /// A configuration register of table 11-2 has changed.
    ConfigChanged,
    /// The function has another requester id: its bus number has changed.
    RequesterIdChanged,
    /// A function-level reset of the function, or of the physical one that it belongs to.
    FunctionReset,
    /// A conventional reset: hot, warm or cold. All data of the guest goes with it.
    ConventionalReset,
    /// A bound IDE stream has become insecure.
    StreamInsecure,
    /// The SPDM session by which the TSM talks to the device is over.
    SessionEnded,
    /// Data arrived poisoned or failed its integrity check, and could not be recovered.
    CorruptedData,
    /// A read of its own came back unsupported, aborted or not at all, and could not be recovered:
    /// what an IOMMU fault looks like to the device.
    FailedRead,
    /// A translation completed without the T bit.
    UntrustedTranslation,
    /// It has failed and has by itself cleared all data of the guest.
    Scrubbed,
}

impl Incident {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::ConfigChanged,
        Self::RequesterIdChanged,
        Self::FunctionReset,
        Self::ConventionalReset,
        Self::StreamInsecure,
        Self::SessionEnded,
        Self::CorruptedData,
        Self::FailedRead,
        Self::UntrustedTranslation,
        Self::Scrubbed,
    ];
}

impl TdiState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Unlocked, Self::Locked, Self::Run, Self::Error];

    /// The table: the state after an event, or `None` where the request is refused with
    /// `INVALID_INTERFACE_STATE` and nothing changes.
    #[must_use]
    pub const fn after(self, event: Event) -> Option<Self> {
        use Event as E;
        use Incident as I;
        Some(match (self, event) {
            (Self::Unlocked, E::Lock) => Self::Locked,
            (Self::Locked, E::Start) => Self::Run,
            (_, E::Stop) => Self::Unlocked,
            (_, E::GetState) => self,
            (Self::Locked | Self::Run, E::GetReport) => self,
            (Self::Run, E::BindPeer | E::UnbindPeer | E::SetMmioAttribute) => self,
            (_, E::Incident(I::ConventionalReset)) => Self::Unlocked,
            (Self::Error, E::Incident(I::Scrubbed)) => Self::Unlocked,
            (_, E::Incident(I::Scrubbed)) => self,
            (Self::Locked | Self::Run, E::Incident(_)) => Self::Error,
            (Self::Unlocked | Self::Error, E::Incident(_)) => self,
            (
                _,
                E::Lock
                | E::Start
                | E::GetReport
                | E::BindPeer
                | E::UnbindPeer
                | E::SetMmioAttribute,
            ) => return None,
        })
    }

    /// Whether the configuration must not change: LOCKED or RUN.
    #[must_use]
    pub const fn is_locked(self) -> bool {
        matches!(self, Self::Locked | Self::Run)
    }

    /// Its name in the specification.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unlocked => "CONFIG_UNLOCKED",
            Self::Locked => "CONFIG_LOCKED",
            Self::Run => "RUN",
            Self::Error => "ERROR",
        }
    }
}

/// What binds a start to the lock that came before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonce(pub [u8; Self::BYTES]);

impl Nonce {
    /// Bytes of a nonce.
    pub const BYTES: usize = 32;
}

/// Why a request is refused, as the `ERROR_CODE` of a `TDISP_ERROR` response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request is not for this state.
    #[error("the interface is in state {}", .0.name())]
    InvalidInterfaceState(TdiState),
    /// The nonce is not the one of the last lock, or has been used.
    #[error("the nonce is not that of the last lock")]
    InvalidNonce,
    /// The configuration cannot be locked as it is.
    #[error("two base address registers of the device overlap")]
    InvalidDeviceConfiguration,
}

impl Refusal {
    /// The number of the code.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::InvalidInterfaceState(_) => 0x0004,
            Self::InvalidNonce => 0x0102,
            Self::InvalidDeviceConfiguration => 0x0104,
        }
    }
}

/// An interface: its state, and the nonce of its lock while it has not been used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tdi {
    state: TdiState,
    nonce: Option<Nonce>,
}

impl Default for Tdi {
    fn default() -> Self {
        Self {
            state: TdiState::Unlocked,
            nonce: None,
        }
    }
}

impl Tdi {
    /// Its state.
    #[must_use]
    pub const fn state(&self) -> TdiState {
        self.state
    }

    /// Locks it. `nonce` is fresh: never used before, not to be guessed.
    ///
    /// # Errors
    /// When it is not unlocked.
    pub fn lock(&mut self, nonce: Nonce) -> Result<(), Refusal> {
        self.take(Event::Lock)?;
        self.nonce = Some(nonce);
        Ok(())
    }

    /// Starts it: the guest trusts it from now on. The nonce cannot be used again.
    ///
    /// # Errors
    /// When it is not locked, or the nonce is another one; a wrong nonce uses nothing up.
    pub fn start(&mut self, nonce: &Nonce) -> Result<(), Refusal> {
        self.state
            .after(Event::Start)
            .ok_or(Refusal::InvalidInterfaceState(self.state))?;
        if self.nonce.as_ref() != Some(nonce) {
            return Err(Refusal::InvalidNonce);
        }
        self.take(Event::Start)?;
        self.nonce = None;
        Ok(())
    }

    /// Takes an event that needs no more than the state.
    ///
    /// # Errors
    /// When it is a request that is not for this state.
    pub fn take(&mut self, event: Event) -> Result<(), Refusal> {
        let after = self.state.after(event);
        self.state = after.ok_or(Refusal::InvalidInterfaceState(self.state))?;
        if !self.state.is_locked() {
            self.nonce = None;
        }
        Ok(())
    }

    /// Takes what befalls it.
    pub fn suffer(&mut self, incident: Incident) {
        // The table refuses no incident.
        let _never_refused = self.take(Event::Incident(incident));
    }
}
