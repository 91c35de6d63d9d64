//! What a start costs, beside other VMMs: the same kernel, initrd, memory and host, one after the other.
//!
//! The programs of the others are not ours to install: whoever measures names their files. They must need no
//! shared libraries, for the emulated host has none.
#![expect(clippy::print_stdout, reason = "the figures go to standard output")]

use std::fs;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};

use crate::bed::Bed;
use crate::case::Host;
use crate::image::Archive;
use crate::machine::{HostKernel, Script};
use crate::prepare::Prepared;

/// A VMM that ccvm is compared with, and its program on this machine.
#[derive(Debug, Clone)]
pub struct Peer {
    vmm: Vmm,
    program: PathBuf,
}

impl FromStr for Peer {
    type Err = anyhow::Error;

    /// `NAME=FILE`.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, program) = text
            .split_once('=')
            .with_context(|| format!("`{text}` is not NAME=FILE"))?;
        let vmm = OTHERS
            .into_iter()
            .find(|vmm| vmm.name() == name)
            .ok_or_else(|| {
                let known: Vec<_> = OTHERS.iter().map(|vmm| vmm.name()).collect();
                anyhow!("`{name}` is none of {}", known.join(", "))
            })?;
        Ok(Self {
            vmm,
            program: program.into(),
        })
    }
}

/// Who starts the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vmm {
    Ccvm,
    CloudHypervisor,
    Firecracker,
    Kvmtool,
}

const OTHERS: [Vmm; 3] = [Vmm::CloudHypervisor, Vmm::Firecracker, Vmm::Kvmtool];

/// What each guest is told.
const CMDLINE: &str = "console=ttyS0 panic=-1 quiet";
/// Its memory, in MiB.
const MEMORY: u32 = 256;

impl Vmm {
    const fn name(self) -> &'static str {
        match self {
            Self::Ccvm => "ccvm",
            Self::CloudHypervisor => "cloud-hypervisor",
            Self::Firecracker => "firecracker",
            Self::Kvmtool => "kvmtool",
        }
    }

    /// The command that starts the guest, with its console on standard output. Firecracker takes unpacked
    /// kernels only.
    fn command(self, ccvm: &str, files: &str) -> String {
        let own = self.name();
        let initrd = format!("{files}/{INITRD}");
        match self {
            Self::Ccvm => format!(
                "{ccvm} run --kernel {files}/kernel --initrd {initrd} --memory {MEMORY}MiB \
                 --cmdline '{CMDLINE}'"
            ),
            Self::CloudHypervisor => format!(
                "{files}/{own} --kernel {files}/kernel --initramfs {initrd} --cpus boot=1 \
                 --memory size={MEMORY}M --cmdline '{CMDLINE}' --serial tty --console off"
            ),
            Self::Firecracker => {
                let config = format!(
                    r#"{{"boot-source":{{"kernel_image_path":"{files}/kernel.converted","initrd_path":"{initrd}","boot_args":"{CMDLINE}"}},"machine-config":{{"vcpu_count":1,"mem_size_mib":{MEMORY}}},"drives":[]}}"#
                );
                format!(
                    "sh -c \"echo '{}' >/run/firecracker.json; \
                     exec {files}/{own} --no-api --config-file /run/firecracker.json\"",
                    config.replace('"', "\\\"")
                )
            }
            Self::Kvmtool => format!(
                "{files}/{own} run --kernel {files}/kernel --initrd {initrd} --cpus 1 \
                 --mem {MEMORY} --console serial --params '{CMDLINE}' --name peer"
            ),
        }
    }
}

/// The file with the guest's first program, which says that it is there and does nothing more.
const INITRD: &str = "peers.cpio";
const INIT: &[u8] = b"#!/bin/busybox sh\necho @@init\nexec /bin/busybox sleep 100000\n";

/// Boots the host and prints what a start of each VMM costs.
///
/// # Errors
/// When a program cannot be read or a guest does not get to its first program.
pub fn figures(prepared: &Prepared, peers: &[Peer]) -> anyhow::Result<()> {
    let mut files = vec![(INITRD.to_owned(), initrd(prepared)?)];
    for peer in peers {
        let program = fs::read(&peer.program)
            .with_context(|| format!("cannot read {}", peer.program.display()))?;
        files.push((peer.vmm.name().to_owned(), program));
    }
    let mut bed = Bed::boot_with(prepared, HostKernel::Distribution, files)?;
    let mut host = bed.host(false);
    host.machine
        .read("mount -t tracefs none /sys/kernel/tracing")?;
    println!(
        "\nFrom exec to the guest's first program: Debian {}, {MEMORY} MiB, one vCPU, a serial console",
        prepared.guest.version
    );
    println!("                     exits: ports  memory   other    seconds  own memory  threads");
    let all = [Vmm::Ccvm]
        .into_iter()
        .chain(peers.iter().map(|peer| peer.vmm));
    for vmm in all {
        println!("  {:18} {}", vmm.name(), measure(&mut host, vmm)?);
    }
    Ok(())
}

fn initrd(prepared: &Prepared) -> anyhow::Result<Vec<u8>> {
    let busybox = fs::read(&prepared.guest.busybox).context("cannot read busybox")?;
    Ok(Archive::new()
        .folder("bin")
        .folder("dev")
        .character_device("dev/console", 5, 1)
        .program("bin/busybox", &busybox)
        .program("init", INIT)
        .finish())
}

/// Starts a guest, waits for its first program, and asks the kernel what happened.
fn measure(host: &mut Host<'_>, vmm: Vmm) -> anyhow::Result<Cost> {
    let command = vmm.command(&host.ccvm, &host.files);
    let script = SCRIPT.replace("COMMAND", &command);
    let output = host.machine.run(&Script {
        text: script,
        limit: Duration::from_secs(200),
    })?;
    let cost = Cost::read(&output.text);
    cost.with_context(|| format!("{} gave {}: {}", vmm.name(), output.status, output.text))
}

/// Counts each return of `KVM_RUN` by its reason (`kvm_userspace_exit`, include/trace/events/kvm.h). What is smaller
/// than the guest's memory is the VMM's own.
const SCRIPT: &str = r#"
event=/sys/kernel/tracing/events/kvm/kvm_userspace_exit
uptime() { cut -d' ' -f1 /proc/uptime; }
echo 'hist:keys=reason' >$event/trigger
echo "from=$(uptime)"
COMMAND </dev/null >/run/peer.log 2>&1 &
process=$!
count=0
until grep -q @@init /run/peer.log || [ $count -ge 1200 ]; do usleep 100000; count=$((count + 1)); done
echo "to=$(uptime)"
sed -n 's/^{ reason: *\([0-9]*\) *} hitcount: *\([0-9]*\)/exits_\1=\2/p' $event/hist
echo "threads=$(ls /proc/$process/task | wc -l)"
awk '/^[0-9a-f]+-[0-9a-f]+ / { guest = 0 } /^Size:/ { guest = $2 >= 131072 } /^Rss:/ && !guest { sum += $2 } END { print "own=" sum }' /proc/$process/smaps
kill -KILL $process
wait $process 2>/dev/null
echo '!hist:keys=reason' >$event/trigger
grep -q @@init /run/peer.log || { tail -n 20 /run/peer.log; exit 1; }
"#;

/// What a start costs.
#[derive(Debug, PartialEq)]
struct Cost {
    ports: u64,
    memory: u64,
    other: u64,
    seconds: f64,
    own_kib: u64,
    threads: u64,
}

impl Cost {
    /// Reads what the script prints.
    fn read(text: &str) -> anyhow::Result<Self> {
        const PORTS: &str = "2";
        const MEMORY: &str = "6";
        let (mut ports, mut memory, mut other) = (0, 0, 0);
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            if let Some(reason) = key.strip_prefix("exits_") {
                let count: u64 = value.parse().context("no count of exits")?;
                match reason {
                    PORTS => ports += count,
                    MEMORY => memory += count,
                    _ => other += count,
                }
            }
        }
        if ports + memory + other == 0 {
            bail!("the host's kernel counted no exit");
        }
        Ok(Self {
            ports,
            memory,
            other,
            seconds: value::<f64>(text, "to")? - value::<f64>(text, "from")?,
            own_kib: value(text, "own")?,
            threads: value(text, "threads")?,
        })
    }
}

fn value<T: FromStr>(text: &str, key: &str) -> anyhow::Result<T> {
    let mut values = text.lines().filter_map(|line| line.split_once('='));
    let (_, value) = values
        .find(|(name, _)| *name == key)
        .with_context(|| format!("no {key}"))?;
    value.parse().map_err(|_| anyhow!("{key}={value}"))
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            ports,
            memory,
            other,
            seconds,
            own_kib,
            threads,
        } = self;
        write!(
            f,
            "{ports:>13} {memory:>7} {other:>7} {seconds:>8.1} s {own_kib:>7} KiB {threads:>8}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_says_of_a_start_is_read() {
        let text = "from=10.50\nto=12.25\nexits_2=586\nexits_6=3\nexits_5=1\nthreads=2\nown=4300\n";
        let cost = Cost::read(text).unwrap();
        let expected = Cost {
            ports: 586,
            memory: 3,
            other: 1,
            seconds: 1.75,
            own_kib: 4300,
            threads: 2,
        };
        assert_eq!(cost, expected);
        assert!(Cost::read("from=1\nto=2\nthreads=1\nown=1\n").is_err());
    }

    #[test]
    fn a_peer_is_named_with_its_file() {
        let peer: Peer = "kvmtool=/opt/lkvm".parse().unwrap();
        assert_eq!(peer.vmm, Vmm::Kvmtool);
        for wrong in ["kvmtool", "qemu2=/bin/true", "ccvm=/bin/ccvm"] {
            assert!(wrong.parse::<Peer>().is_err(), "{wrong}");
        }
    }
}
