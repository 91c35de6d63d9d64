//! Devices whose rings the host's kernel or another process serves.
//!
//! ```text
//!   guest ─► doorbell ───────────────────────────► kernel, daemon ─► rings, buffers in guest memory
//!     └─ ready ─► VhostDevice ─► Served::start ─► where the rings are ┘
//! ```
//! Whoever serves them has all of guest memory, without regard to what the guest shares: that is for
//! plain VMs only (decision 0018).

mod hang_up;
mod rings;
mod user;
mod vsock;

use std::io;
use std::sync::{Arc, Mutex};

use devices::pci::SharedFunction;
use devices::virtio::vhost::{Block, FileSystem, Kind, Net, VhostDevice, Vsock};

use super::net::mac;
use super::site::Site;
use super::{EmulateError, EmulatedDevices};
use crate::causes::chain;
use crate::config::spec::{DaemonKind, DaemonSpec, VsockSpec};
use crate::diagnostic::{Code, Diagnostic, Place};

use hang_up::HangUp;
use rings::{Served, Server};
use user::{Daemon, UserError};
use vsock::{KernelVsock, VsockError};

/// Sockets between guest and host.
pub(super) fn vsock(
    devices: &mut EmulatedDevices,
    spec: VsockSpec,
    site: &Site<'_>,
) -> Result<SharedFunction, EmulateError> {
    let kernel = KernelVsock::open(spec.cid, site.pages.ram());
    let kernel = kernel.map_err(|error| EmulateError::host(diagnose_vsock(&error)))?;
    let kind = Vsock::new(spec.cid, kernel.offered());
    put(devices, "the socket device", (kind, kernel), site)
}

/// What another process serves: the table with this index in the config.
pub(super) fn daemon(
    devices: &mut EmulatedDevices,
    spec: &DaemonSpec,
    index: usize,
    site: &Site<'_>,
) -> Result<SharedFunction, EmulateError> {
    let refused = |error: UserError| EmulateError::host(diagnose_daemon(&error, index));
    let connect = |rings: u16| Daemon::connect(&spec.socket, rings.into(), site.pages.ram());
    let what = spec.socket.display().to_string();
    match &spec.kind {
        DaemonKind::Block { queues } => {
            let mut daemon = connect(queues.get()).map_err(refused)?;
            let config = daemon.config().map_err(refused)?;
            let kind = Block::new(config, queues.get(), daemon.offered());
            put(devices, &what, (kind, daemon), site)
        }
        DaemonKind::Net { mac: asked } => {
            let mac = mac(*asked).map_err(EmulateError::host)?;
            let daemon = connect(2).map_err(refused)?;
            let kind = Net::new(mac.bytes(), daemon.offered());
            put(devices, &what, (kind, daemon), site)
        }
        DaemonKind::Fs { tag } => {
            let daemon = connect(2).map_err(refused)?;
            let kind = FileSystem::new(tag.as_str(), daemon.offered());
            put(devices, &what, (kind, daemon), site)
        }
    }
}

/// Makes the function of a device of some kind, served by somebody.
fn put<K: Kind + 'static, S: Server + 'static>(
    devices: &mut EmulatedDevices,
    what: &str,
    (kind, server): (K, S),
    site: &Site<'_>,
) -> Result<SharedFunction, EmulateError> {
    let doorbells = site.doorbells(kind.served())?;
    let served = Served::new(server, doorbells.events()?).map_err(EmulateError::Worker)?;
    let connection = served.connection().map_err(EmulateError::Worker)?;
    let function = site.function(what, VhostDevice::new(kind, served), doorbells)?;
    let function = Arc::new(Mutex::new(function));
    if let Some(connection) = connection {
        let watch = HangUp::new(connection, what, function.clone());
        devices.watches.push(Box::new(watch));
    }
    Ok(devices.keep(function))
}

fn diagnose_vsock(error: &VsockError) -> Diagnostic {
    let (code, help) = match error {
        VsockError::Open(source) if source.kind() == io::ErrorKind::PermissionDenied => (
            Code::VsockMissing,
            "give ccvm's user access to /dev/vhost-vsock",
        ),
        VsockError::Open(_) => (
            Code::VsockMissing,
            "load the kernel module: `modprobe vhost_vsock`",
        ),
        VsockError::InUse(_) => (Code::VsockInUse, "use another `cid`"),
        VsockError::Refused { .. } => (Code::VsockMissing, "leave `[vsock]` out"),
    };
    let finding = Diagnostic::error(code, chain(error)).with_help(help);
    finding.on(Place::Vsock)
}

fn diagnose_daemon(error: &UserError, index: usize) -> Diagnostic {
    let (code, help) = match error {
        UserError::Connect { .. } => (
            Code::DaemonUnreachable,
            "start the daemon before the VM, with this socket",
        ),
        UserError::Queues { .. } => (Code::DaemonUnfit, "start the daemon with more queues"),
        UserError::Lacks { .. } | UserError::Refused { .. } => (
            Code::DaemonUnfit,
            "use a daemon for this `kind` of device, of a newer version",
        ),
    };
    let finding = Diagnostic::error(code, chain(error)).with_help(help);
    finding.on(Place::VhostUser(index))
}
