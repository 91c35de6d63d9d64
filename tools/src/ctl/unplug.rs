//! Waiting until a device has left its VM.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use vmm::control::protocol::{Answer, Command, Request, Response, UnplugState, Unplugged};
use vmm::control::{Client, ClientError};
use vmm::diagnostic::Code;

/// How often the VM is asked whether it is gone.
const PERIOD: Duration = Duration::from_millis(100);

/// How often it is asked to unplug it: a guest that is giving it up does not hear of that.
const AGAIN: Duration = Duration::from_secs(10);

/// What has become of a device that its VM has asked the guest for.
pub(super) enum Waited {
    /// As `response` says.
    Done,
    /// The guest has not given it up in time; the words for an operator.
    InVain(String),
}

/// Waits up to `seconds` for what `response`, the answer to `unplug`, says is asked of a guest; it then says that it
/// has happened.
pub(super) fn wait(
    socket: &Path,
    unplug: &Command,
    response: &mut Response,
    seconds: u32,
) -> Result<Waited, ClientError> {
    let Answer::Unplug(unplugged) = &mut response.answer else {
        return Ok(Waited::Done);
    };
    let deadline = Instant::now() + Duration::from_secs(seconds.into());
    let mut asked = Instant::now();
    while unplugged.state != UnplugState::Gone && seconds > 0 {
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
            return Ok(Waited::InVain(in_vain(unplugged, seconds)));
        } else if asked.elapsed() >= AGAIN {
            asked = Instant::now();
            let again = Client::connect(socket)?.ask(&Request::new(unplug.clone()))?;
            // It may have gone just now, and is then unknown.
            if let Answer::Unplug(again) = again.answer {
                unplugged.state = again.state;
            }
        } else {
            thread::sleep(PERIOD);
        }
    }
    Ok(Waited::Done)
}

fn in_vain(unplugged: &Unplugged, seconds: u32) -> String {
    let (code, pci) = (Code::NotUnplugged, unplugged.pci);
    let why = match unplugged.state {
        UnplugState::Leaving => "its driver is at it, and may still be done",
        UnplugState::Asked | UnplugState::Gone => "nothing shows that it has heard",
    };
    format!(
        "{code}: the guest has not given up {pci} within {seconds} s: {why} (`unplug --force` takes it)"
    )
}
