//! What devices that daemons of the host serve deliver to a guest, beside QEMU with the same daemons.

use crate::bench::disk;
use crate::bench::peer::{self, SHARED_MEMORY};
use crate::bench::serving::{self, TCP};
use crate::bench::turns::{self, Facts};
use crate::case::{Host, Platform};
use crate::daemon::Daemon;
use crate::guest::Step;

/// Whose guest it is.
#[derive(Debug, Clone, Copy)]
enum Vmm {
    Ccvm,
    Qemu,
}

/// A kind of device: who serves it, how each VMM has it, and what the guest does with it.
struct Kind {
    serve: fn(&mut Host<'_>) -> anyhow::Result<Daemon>,
    /// Of ccvm's table, without the socket.
    table: &'static str,
    /// Of QEMU's device, with its socket as `daemon`.
    device: &'static str,
    steps: &'static [Step],
}

const DISK: Kind = Kind {
    serve: |host| Daemon::disk(host, "/run/served", 1),
    table: "kind = \"block\"",
    device: "vhost-user-blk-pci,chardev=daemon,num-queues=1",
    steps: &[Step::Find, Step::Rate],
};

const FOLDER: Kind = Kind {
    serve: |host| Daemon::folder(host, "/run/shared"),
    table: "kind = \"fs\"\ntag = \"shared\"",
    device: "vhost-user-fs-pci,chardev=daemon,tag=shared",
    steps: &[Step::Mount, Step::Rate],
};

const NETWORK: Kind = Kind {
    serve: Daemon::network,
    table: "kind = \"net\"\nmac = \"02:00:00:00:00:2b\"",
    device: "virtio-net-pci,netdev=net,mac=02:00:00:00:00:2b,romfile= \
             -netdev vhost-user,id=net,chardev=daemon",
    steps: &[Step::UserNet, Step::VirtioRate],
};

/// Prints those of a disk that QEMU's daemon serves from a file in the host's memory.
pub(super) fn disk(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.machine
        .read("head -c 16777216 /dev/urandom >/run/served")?;
    let what = "a disk that `qemu-storage-daemon` serves from memory";
    let contenders = peer::both(
        |host| measure(host, Vmm::Ccvm, &DISK),
        |host| measure(host, Vmm::Qemu, &DISK),
    );
    turns::table(host, what, &disk::FIGURES, &contenders)
}

/// Prints those of a file that virtiofsd serves from the host's memory.
pub(super) fn folder(host: &mut Host<'_>) -> anyhow::Result<()> {
    host.machine
        .read("mkdir -p /run/shared; head -c 16777216 /dev/urandom >/run/shared/file")?;
    let what = "a file that `virtiofsd` serves from memory, `O_DIRECT`";
    let contenders = peer::both(
        |host| measure(host, Vmm::Ccvm, &FOLDER),
        |host| measure(host, Vmm::Qemu, &FOLDER),
    );
    turns::table(host, what, &disk::FIGURES, &contenders)
}

/// Prints those of a network card that passt serves.
pub(super) fn network(host: &mut Host<'_>) -> anyhow::Result<()> {
    let what = "a network card that `passt` serves, TCP";
    let contenders = peer::both(
        |host| measure(host, Vmm::Ccvm, &NETWORK),
        |host| measure(host, Vmm::Qemu, &NETWORK),
    );
    serving::at(host, TCP, |host| {
        host.machine.read("ifconfig lo 127.0.0.1 up")?;
        turns::table(host, what, &serving::FIGURES, &contenders)
    })
}

fn measure(host: &mut Host<'_>, vmm: Vmm, kind: &Kind) -> anyhow::Result<Facts> {
    let daemon = (kind.serve)(host)?;
    let Kind { table, device, .. } = kind;
    let socket = &daemon.socket;
    let facts = match vmm {
        Vmm::Ccvm => {
            let table = format!("[[vhost-user]]\nsocket = \"{socket}\"\n{table}");
            peer::by_ccvm(host, Platform::None, kind.steps, &table)
        }
        Vmm::Qemu => {
            let device =
                format!("{SHARED_MEMORY} -chardev socket,id=daemon,path={socket} -device {device}");
            peer::by_qemu(host, kind.steps, &device)
        }
    };
    daemon.end(host)?;
    facts
}
