//! What an emulated disk delivers to a guest, beside the host's own use of what is behind it, and beside QEMU's.

use crate::bench::disk;
use crate::bench::peer::{self, CCVM, QEMU, REALM};
use crate::bench::turns::{self, Contender, Facts};
use crate::case::{Host, Platform};
use crate::guest::Step;

const STEPS: [Step; 2] = [Step::Find, Step::Rate];

/// Prints them.
pub(super) fn figures(host: &mut Host<'_>) -> anyhow::Result<()> {
    let contenders = [
        Contender {
            name: "the host itself",
            // Leaves the disk with the host.
            measure: disk::by_the_host,
        },
        Contender {
            name: CCVM,
            measure: |host| by_ccvm(host, Platform::None),
        },
        Contender {
            name: QEMU,
            measure: by_qemu,
        },
        Contender {
            name: REALM,
            measure: |host| by_ccvm(host, Platform::Realm),
        },
    ];
    let what = "an emulated disk on the host's NVMe disk, `O_DIRECT`, one program";
    turns::table(host, what, &disk::FIGURES, &contenders)
}

fn by_ccvm(host: &mut Host<'_>, platform: Platform) -> anyhow::Result<Facts> {
    peer::by_ccvm(host, platform, &STEPS, "[[disk]]\npath = \"/dev/nvme0n1\"")
}

/// As whoever wants speed from QEMU sets it up: no page cache, Linux's asynchronous I/O, a thread for the disk.
fn by_qemu(host: &mut Host<'_>) -> anyhow::Result<Facts> {
    const DISK: &str = "-object iothread,id=disk -blockdev driver=host_device,node-name=disk,\
        filename=/dev/nvme0n1,cache.direct=on,aio=native \
        -device virtio-blk-pci,drive=disk,iothread=disk";
    peer::by_qemu(host, &STEPS, DISK)
}
