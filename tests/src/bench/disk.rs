//! What an assigned disk delivers to a guest, beside the same disk in the hands of the host.

use crate::bench::turns::{self, Contender, Facts, Figure};
use crate::case::{Guest, Host, Platform};
use crate::devices::Role;
use crate::guest::{Program, Step};
use crate::machine::Script;
use crate::operator::Operator;

const DISK: Role = Role::Nvme;
const RATE: &str = include_str!("../guest/steps/rate.sh");

/// What is measured of what is like a disk.
pub(super) const FIGURES: [Figure; 4] = [
    Figure {
        name: "reads of 1 MiB, KiB/s",
        fact: "read_1m_kib_s",
    },
    Figure {
        name: "writes of 1 MiB, KiB/s",
        fact: "write_1m_kib_s",
    },
    Figure {
        name: "a read of 4 KiB, µs",
        fact: "read_4k_us",
    },
    Figure {
        name: "a write of 4 KiB, µs",
        fact: "write_4k_us",
    },
];

/// Prints them.
pub(super) fn figures(host: &mut Host<'_>) -> anyhow::Result<()> {
    let contenders = [
        Contender {
            name: "the host itself",
            measure: by_the_host,
        },
        Contender {
            name: "a plain VM",
            measure: in_a_plain_vm,
        },
        Contender {
            name: "a Realm, by swiotlb, T0 in force",
            measure: |host| in_a_realm(host, Table::T0),
        },
        Contender {
            name: "a Realm, by swiotlb, T1 in force",
            measure: |host| in_a_realm(host, Table::T1),
        },
    ];
    let what = "an assigned NVMe disk, past the page cache";
    turns::table(host, what, &FIGURES, &contenders)
}

/// The host itself, to which the disk goes.
pub(super) fn by_the_host(host: &mut Host<'_>) -> anyhow::Result<Facts> {
    host.unbind(&[DISK])?;
    let script = format!(
        "disk=/dev/nvme0n1; for _ in $(seq 100); do [ -b $disk ] && break; sleep 0.1; done\n\
         say() {{ echo \"@@ $*\"; }}\n{RATE}"
    );
    let output = host.machine.run(&Script::boot(script))?;
    Ok(Program::debian(&[]).facts(&output.text))
}

fn guest(platform: Platform, steps: &[Step]) -> Guest {
    Guest {
        devices: vec![(DISK, Some(36))],
        ..Guest::debian(platform, steps)
    }
}

fn in_a_plain_vm(host: &mut Host<'_>) -> anyhow::Result<Facts> {
    host.bind(&[DISK])?;
    let run = host.boot(&guest(Platform::None, &[Step::Disk, Step::Rate]))?;
    run.expect_status(0)?;
    Ok(run.facts)
}

/// What a disk has for its DMA.
#[derive(Debug, Clone, Copy)]
enum Table {
    /// Shared memory.
    T0,
    /// All memory, once it is accepted.
    T1,
}

fn in_a_realm(host: &mut Host<'_>, table: Table) -> anyhow::Result<Facts> {
    host.bind(&[DISK])?;
    let guest = guest(Platform::Realm, &[Step::Disk, Step::Hold, Step::Rate]);
    let accept = match table {
        Table::T0 => String::new(),
        Table::T1 => {
            let device = host.address(DISK)?;
            format!("ctl tdi lock {device} && ctl tdi start {device} && ")
        }
    };
    let does = format!("{accept}echo @@ goes_on=1");
    let run = host.boot_beside(&guest, &Operator::new("@@ holding=1", &does))?;
    run.expect("goes_on", "1")?;
    run.expect_status(0)?;
    Ok(run.facts)
}
