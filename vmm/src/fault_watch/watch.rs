//! Reading the kernel's log on the event loop.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;

use devices::pci::Bdf;
use devices::rate_limit::RateLimit;
use event_manager::{EventOps, Events, MutEventSubscriber};
use rustix::fs::OFlags;
use rustix::io::Errno;
use vmm_sys_util::epoll::EventSet;

use super::line::{self, Line};
use super::record::kernel_text;
use super::{Access, FaultTally, HostFault};
use crate::host::facts::PciAddress;

/// The kernel's log, a record at a time.
const LOG: &str = "/dev/kmsg";

/// Longer than any record.
const RECORD_BYTES: usize = 8192;

/// Records that are read before other events have their turn.
const MOST_AT_A_TIME: usize = 256;

/// A device that faults again and again does not fill ccvm's own log.
static REFUSED: RateLimit = RateLimit::per_second(1);

/// Where the guest sees a device of the host, if the VM has it now.
type GuestOf = Box<dyn Fn(PciAddress) -> Option<Bdf>>;

/// What hears of each fault of an assigned device, with its place on the guest's bus.
type OnFault = Box<dyn FnMut(Bdf, HostFault)>;

/// The faults of a VM's assigned devices, from now on.
pub struct FaultWatch {
    log: File,
    guest_of: GuestOf,
    tally: FaultTally,
    /// A fault of which the next record may tell more.
    began: Option<HostFault>,
    on_fault: OnFault,
}

impl FaultWatch {
    /// Listens from the end of the kernel's log on. `None` where it cannot be read, which the tally
    /// and ccvm's log say.
    #[must_use]
    pub fn open(guest_of: GuestOf, tally: FaultTally, on_fault: OnFault) -> Option<Self> {
        match open_at_end() {
            Ok(log) => Some(Self {
                log,
                guest_of,
                tally,
                began: None,
                on_fault,
            }),
            Err(error) => {
                tracing::warn!("DMA faults of assigned devices are not seen: {LOG}: {error}");
                tally.go_deaf(format!("{LOG}: {error}"));
                None
            }
        }
    }

    /// Reads what there is, within bounds.
    fn read(&mut self) -> Result<(), Errno> {
        let mut record = [0; RECORD_BYTES];
        for _ in 0..MOST_AT_A_TIME {
            match rustix::io::read(self.log.as_fd(), &mut record) {
                Ok(bytes) => self.hear(record.get(..bytes).unwrap_or_default()),
                // The next read goes on with the oldest record that is left.
                Err(Errno::PIPE) => self.tally.lose(),
                Err(Errno::AGAIN) => {
                    self.finish();
                    return Ok(());
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn hear(&mut self, record: &[u8]) {
        match kernel_text(record).and_then(line::read) {
            Some(Line::Tried(access)) => {
                if let Some(fault) = &mut self.began {
                    fault.access = access;
                }
                self.finish();
            }
            Some(Line::Began(fault)) => {
                self.finish();
                self.began = Some(fault);
            }
            Some(Line::Fault(fault)) => {
                self.finish();
                self.tell(fault);
            }
            None => {}
        }
    }

    /// Nothing more will be said of the fault that began.
    fn finish(&mut self) {
        if let Some(fault) = self.began.take() {
            self.tell(fault);
        }
    }

    fn tell(&mut self, fault: HostFault) {
        let host = fault.device;
        let Some(guest) = (self.guest_of)(host) else {
            return;
        };
        self.tally.add(fault);
        if let Some(skipped) = REFUSED.permit() {
            let what = match fault.access {
                Access::Read => "read",
                Access::Write => "write",
                Access::Unknown => "access",
            };
            let address = fault.address;
            tracing::warn!(
                skipped,
                "{host}: the host's IOMMU refused its {what} at {address:#x}"
            );
        }
        (self.on_fault)(guest, fault);
    }
}

fn open_at_end() -> io::Result<File> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let mut log = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(LOG)?;
    log.seek(SeekFrom::End(0))?;
    Ok(log)
}

impl MutEventSubscriber for FaultWatch {
    fn process(&mut self, _: Events, ops: &mut EventOps<'_>) {
        if let Err(errno) = self.read() {
            tracing::warn!("DMA faults of assigned devices are no longer seen: {LOG}: {errno}");
            self.tally.go_deaf(format!("{LOG}: {errno}"));
            let _ = ops.remove(Events::new(&self.log, EventSet::IN));
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = ops.add(Events::new(&self.log, EventSet::IN)) {
            tracing::warn!(?error, "DMA faults of assigned devices are not seen");
            self.tally.go_deaf(format!("{LOG}: {error:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    fn record(text: &str) -> Vec<u8> {
        format!("3,1,2,-;{text}\n").into_bytes()
    }

    fn event(client: &str, iova: u64) -> Vec<u8> {
        record(&format!(
            "arm-smmu-v3 s: event: F_TRANSLATION client: {client} sid: 0x10 ssid: 0x0 iova: \
             {iova:#x} ipa: 0x0"
        ))
    }

    #[test]
    fn faults_of_assigned_devices_are_counted_and_passed_on_with_what_was_tried() {
        let host: PciAddress = "0000:00:02.0".parse().unwrap();
        let guest = Bdf::new(0, 1, 0).unwrap();
        let heard = Rc::new(RefCell::new(Vec::new()));
        let tally = FaultTally::default();
        let sink = Rc::clone(&heard);
        let mut watch = FaultWatch {
            log: tempfile::tempfile().unwrap(),
            guest_of: Box::new(move |device| (device == host).then_some(guest)),
            tally: tally.clone(),
            began: None,
            on_fault: Box::new(move |guest, fault| sink.borrow_mut().push((guest, fault))),
        };
        watch.hear(&event("0000:00:02.0", 0x1000));
        watch.hear(&record(
            "arm-smmu-v3 s: unpriv data write s1 \"x\" stag: 0x0",
        ));
        watch.hear(&event("0000:00:03.0", 0x2000));
        watch.hear(&event("0000:00:02.0", 0x3000));
        assert_eq!(tally.of(host).count, 1, "more may be said of the last one");
        watch.finish();
        let seen: Vec<_> = heard
            .borrow()
            .iter()
            .map(|(at, fault)| (*at, fault.address, fault.access))
            .collect();
        let expected = [
            (guest, 0x1000, Access::Write),
            (guest, 0x3000, Access::Unknown),
        ];
        assert_eq!(seen, expected);
        assert_eq!(tally.of(host).count, 2);
        assert_eq!(tally.of(host).last.unwrap().address, 0x3000);
    }
}
