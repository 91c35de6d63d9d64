//! What an emulated network card delivers to a guest, beside the host's own loopback, and beside QEMU's.

use crate::bench::peer::{self, CCVM, QEMU, REALM};
use crate::bench::serving::{self, FIGURES, TCP};
use crate::bench::turns::{self, Contender, Facts};
use crate::case::{Guest, Host, Platform};
use crate::cases::virtio_net::MAC;
use crate::guest::Step;
use crate::operator::Operator;

const STEPS: [Step; 2] = [Step::UserNet, Step::VirtioRate];

/// What the host does: the tap comes with the VMM.
const TAP: &str = "until [ -e /sys/class/net/tap0 ]; do sleep 0.2; done\n\
    ifconfig tap0 10.0.3.1 netmask 255.255.255.0 up";

/// Prints them.
pub(super) fn figures(host: &mut Host<'_>) -> anyhow::Result<()> {
    let contenders = [
        Contender {
            name: "the host to itself, by loopback",
            measure: serving::by_loopback,
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
    let what = "an emulated network card on a tap, TCP, one pair of queues";
    serving::at(host, TCP, |host| {
        turns::table(host, what, &FIGURES, &contenders)
    })
}

fn by_ccvm(host: &mut Host<'_>, platform: Platform) -> anyhow::Result<Facts> {
    let guest = Guest {
        emulated: vec![format!("[[net]]\ntap = \"tap0\"\nmac = \"{MAC}\"")],
        ..Guest::debian(platform, &STEPS)
    };
    let run = host.boot_beside(&guest, &Operator::new("@@ init=1", TAP))?;
    run.expect_status(0)?;
    Ok(run.facts)
}

/// By a thread of QEMU's, as ccvm does it, and not by the kernel's vhost-net.
fn by_qemu(host: &mut Host<'_>) -> anyhow::Result<Facts> {
    let card = format!(
        "-netdev tap,id=net,ifname=tap0,script=no,downscript=no,vhost=off \
         -device virtio-net-pci,netdev=net,mac={MAC},romfile="
    );
    let command = peer::command(host, &STEPS, &card)?;
    let guest = Guest::debian(Platform::None, &STEPS);
    let run = host.run_beside(&guest, &command, &Operator::new("@@ init=1", TAP))?;
    run.expect_status(0)?;
    Ok(run.facts)
}
