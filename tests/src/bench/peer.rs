//! ccvm, and QEMU in its place: the same guest, disk and tap, on the same emulated arm64 host.

use crate::bench::turns::{Contender, Facts, Measure};
use crate::case::{Guest, Host, Platform, within};
use crate::guest::{End, Step, cmdline};
use crate::machine::Script;

/// How both are called.
pub(super) const CCVM: &str = "a plain VM";
pub(super) const QEMU: &str = "a plain VM of QEMU's";
/// What else runs by ccvm.
pub(super) const REALM: &str = "a Realm, by swiotlb";

/// QEMU's arguments for memory that a daemon can have, too.
pub(super) const SHARED_MEMORY: &str =
    "-object memory-backend-memfd,id=ram,size=512M,share=on -machine memory-backend=ram";

/// Both, where nothing else has the figures.
pub(super) const fn both(by_ccvm: Measure, by_qemu: Measure) -> [Contender; 2] {
    [
        Contender {
            name: CCVM,
            measure: by_ccvm,
        },
        Contender {
            name: QEMU,
            measure: by_qemu,
        },
    ]
}

/// What a guest that does `steps` finds, with a device by this table of ccvm's config.
pub(super) fn by_ccvm(
    host: &mut Host<'_>,
    platform: Platform,
    steps: &[Step],
    table: &str,
) -> anyhow::Result<Facts> {
    let guest = Guest {
        emulated: vec![table.to_owned()],
        ..Guest::debian(platform, steps)
    };
    let run = host.boot(&guest)?;
    run.expect_status(0)?;
    Ok(run.facts)
}

/// What the same guest finds with a device by these arguments of QEMU's.
pub(super) fn by_qemu(host: &mut Host<'_>, steps: &[Step], device: &str) -> anyhow::Result<Facts> {
    let command = command(host, steps, device)?;
    let guest = Guest::debian(Platform::None, steps);
    let run = host.boot_by(&guest, &Script::boot(within(200, &command)))?;
    run.expect_status(0)?;
    Ok(run.facts)
}

/// The command by which QEMU runs a guest of 512 MiB with one processor that does `steps`, on KVM, with a device
/// by these arguments and no others.
pub(super) fn command(host: &mut Host<'_>, steps: &[Step], device: &str) -> anyhow::Result<String> {
    const PROGRAM: &str = "qemu-system-aarch64";
    host.require(PROGRAM)?;
    let files = &host.files;
    // The board has a PL011.
    let cmdline = cmdline("ttyAMA0", steps, End::PowerOff);
    Ok(format!(
        "{PROGRAM} -machine virt,gic-version=3 -accel kvm -cpu host -smp 1 -m 512M \
         -nodefaults -no-user-config -display none -monitor none -serial stdio \
         -kernel {files}/kernel -initrd {files}/guest.cpio -append '{cmdline}' {device}"
    ))
}
