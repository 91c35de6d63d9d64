//! Waiting until a device has left its VM.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use vmm::control::protocol::{Answer, Command, Request, Response, UnplugState};
use vmm::control::{Client, ClientError};
use vmm::diagnostic::Code;

/// How often the VM is asked.
const PERIOD: Duration = Duration::from_millis(100);

/// What has become of a device that its VM has asked the guest for.
pub(super) enum Waited {
    /// As `response` says.
    Done,
    /// The guest has not given it up in time; the words for an operator.
    InVain(String),
}

/// Waits up to `seconds` for what `response` says is asked of a guest; it then says that it has happened.
pub(super) fn wait(
    socket: &Path,
    response: &mut Response,
    seconds: u32,
) -> Result<Waited, ClientError> {
    let Answer::Unplug(unplugged) = &mut response.answer else {
        return Ok(Waited::Done);
    };
    let deadline = Instant::now() + Duration::from_secs(seconds.into());
    while unplugged.state == UnplugState::Asked && seconds > 0 {
        let devices = Client::connect(socket)?.ask(&Request::new(Command::Devices {}))?;
        let Answer::Devices(devices) = devices.answer else {
            break;
        };
        if devices
            .list
            .iter()
            .all(|device| device.pci != unplugged.pci)
        {
            unplugged.state = UnplugState::Gone;
        } else if Instant::now() >= deadline {
            let (code, pci) = (Code::NotUnplugged, unplugged.pci);
            return Ok(Waited::InVain(format!(
                "{code}: the guest has not given up {pci} within {seconds} s (it may still do so; `unplug --force` takes it)"
            )));
        } else {
            thread::sleep(PERIOD);
        }
    }
    Ok(Waited::Done)
}
