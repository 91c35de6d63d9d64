//! `plug` and `unplug`: devices that come and go while the VM runs.

use std::path::Path;

use super::controlled::Controlled;
use super::protocol::{ErrorCode, Failure, Plugged, UnplugState, Unplugged};
use crate::assign::Unplugging;
use crate::config::spec::{DeviceSpec, DmaMode};
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::host;
use crate::host::facts::PciAddress;
use crate::launch::SYSFS;

/// A device that is to come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) pci: PciAddress,
    pub(super) slot: Option<u8>,
    pub(super) dma_bits: Option<u8>,
}

impl Controlled {
    /// Has a device come, if the plan holds with it.
    pub(super) fn plug(&mut self, wanted: Wanted) -> Result<Plugged, Failure> {
        let Wanted {
            pci,
            slot,
            dma_bits,
        } = wanted;
        let range = DeviceSpec::DMA_BITS;
        if let Some(bits) = dma_bits.filter(|bits| !range.contains(bits)) {
            let (least, most) = (range.start(), range.end());
            let message = format!("`dma_bits` is {bits}, and must be from {least} to {most}");
            return Err(Failure::new(ErrorCode::InvalidArgument, message));
        }
        let refused = |findings: &[Diagnostic]| refusal(pci, findings);
        let mut attached = self.devices.attached();
        if attached.has(pci) {
            let message = format!("{pci} is assigned to this VM already");
            return Err(refused(&[Diagnostic::error(
                Code::DuplicateDevice,
                message,
            )]));
        }
        let port = attached.free_slot(slot);
        let port = port.map_err(|finding| refused(&[finding]))?;
        let device = DeviceSpec {
            pci,
            dma_bits,
            dma: DmaMode::Direct,
        };
        let admitted = self.plan.admit(&device, &port, &host::read());
        let admitted = admitted.map_err(|findings| refused(&findings))?;
        for warning in &admitted.warnings {
            tracing::warn!("{warning}");
        }
        let plugged = attached.plug(&admitted, &port, Path::new(SYSFS));
        plugged.map_err(|finding| refused(&[finding]))?;
        Ok(Plugged {
            pci,
            guest: port.card.to_string(),
            slot: port.number,
            warnings: admitted.warnings.iter().map(sentence).collect(),
        })
    }

    /// Asks the guest for a device, or takes it whatever the guest does with it.
    pub(super) fn unplug(&mut self, name: &str, force: bool) -> Result<Unplugged, Failure> {
        let device = self.devices.find(name)?;
        let mut attached = self.devices.attached();
        let unplugging = match force {
            true => attached.tear_out(device.guest),
            false => attached.unplug(device.guest),
        };
        let unplugging = unplugging.map_err(|error| {
            let code = Code::NotUnplugged;
            let message = format!("{code}: {} does not leave: {error}", device.host);
            Failure::new(ErrorCode::WrongState, message)
        })?;
        Ok(Unplugged {
            pci: device.host,
            state: match unplugging {
                Unplugging::Asked => UnplugState::Asked,
                Unplugging::Leaving => UnplugState::Leaving,
                Unplugging::Gone => UnplugState::Gone,
            },
        })
    }

    /// Gives back to the host what the guest has given up.
    pub(super) fn take_back(&mut self) {
        self.devices.attached().take_back();
    }
}

/// Why a device does not come, by everything that forbids it.
fn refusal(pci: PciAddress, findings: &[Diagnostic]) -> Failure {
    let errors = findings.iter();
    let errors = errors.filter(|finding| finding.severity == Severity::Error);
    let reasons: Vec<String> = errors.map(sentence).collect();
    let code = Code::PlugRefused;
    let message = format!(
        "{code}: {pci} cannot come to this VM: {}",
        reasons.join("; ")
    );
    Failure::new(ErrorCode::Refused, message)
}

/// A finding with what would help, in one line.
fn sentence(finding: &Diagnostic) -> String {
    match &finding.help {
        Some(help) => format!("{finding} ({help})"),
        None => finding.to_string(),
    }
}
