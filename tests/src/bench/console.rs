//! How fast the virtio console carries what a guest says and hears, beside QEMU's.

use crate::bench::peer;
use crate::bench::turns::{self, Facts, Figure};
use crate::case::{Guest, Host, Platform, within};
use crate::guest::Step;
use crate::machine::Script;

const STEPS: [Step; 1] = [Step::HvcRate];

const FIGURES: [Figure; 2] = [
    Figure {
        name: "guest to host, KiB/s, 4 KiB at a time",
        fact: "spoken_kib_s",
    },
    Figure {
        name: "host to guest, KiB/s",
        fact: "heard_kib_s",
    },
];

/// A pipe with what is typed.
const KEYS: &str = "/run/keys";
/// What comes by the serial port, and by ccvm's console too.
const SCREEN: &str = "/run/screen";
/// What comes by QEMU's virtio console.
const HVC: &str = "/run/hvc";

/// Prints them.
pub(super) fn figures(host: &mut Host<'_>) -> anyhow::Result<()> {
    let contenders = peer::both(by_ccvm, by_qemu);
    let what = "a virtio console, of which the host has one end in a pipe and one in a file";
    turns::table(host, what, &FIGURES, &contenders)
}

fn by_ccvm(host: &mut Host<'_>) -> anyhow::Result<Facts> {
    let guest = Guest {
        emulated: vec!["[console]\ndevice = \"virtio\"".to_owned()],
        ..Guest::debian(Platform::None, &STEPS)
    };
    let command = host.run_command(&guest)?;
    typed_at(host, &guest, &format!("{command} <{KEYS}"))
}

fn by_qemu(host: &mut Host<'_>) -> anyhow::Result<Facts> {
    let device = format!(
        "-chardev file,id=hvc,path={HVC},input-path={KEYS} \
         -device virtio-serial-pci -device virtconsole,chardev=hvc"
    );
    let command = peer::command(host, &STEPS, &device)?;
    let guest = Guest::debian(Platform::None, &STEPS);
    typed_at(host, &guest, &format!("{command} </dev/null"))
}

/// Runs a guest, types without end once it listens, and drops all that it says but its facts.
fn typed_at(host: &mut Host<'_>, guest: &Guest, command: &str) -> anyhow::Result<Facts> {
    let run = within(200, &format!("{command} >{SCREEN}"));
    let script = format!(
        "rm -f {KEYS} {HVC}; mkfifo {KEYS}; exec 3<>{KEYS}; : >{SCREEN}\n\
         ( until tail -c 1000 {SCREEN} | grep -q 'hvc_ready=1'; do sleep 0.2; done\n\
         exec cat /dev/zero >&3 ) & typist=$!\n\
         ( {run} ); status=$?\n\
         kill $typist; sed -n 's/.*@@ /@@ /p' {SCREEN}; exit $status"
    );
    let run = host.boot_by(guest, &Script::boot(script))?;
    run.expect_status(0)?;
    Ok(run.facts)
}
