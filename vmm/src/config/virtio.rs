//! `[[net]]`, `[[vhost-user]]`, `[vsock]`, `[rng]` and `[console]`.

use std::num::NonZeroU16;
use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;

use super::keys::Table;
use super::reader::{Reported, Section};
use super::sections::Sections;
use super::spec::{
    ConsoleChoice, DaemonKind, DaemonSpec, FsTag, MacAddress, NetSource, NetSpec, RngSpec,
    VirtioSpec, VsockSpec,
};
use super::values;
use crate::diagnostic::{Code, Diagnostic, Place};

const CONSOLES: [(&str, ConsoleChoice); 2] = [
    ("serial", ConsoleChoice::Serial),
    ("virtio", ConsoleChoice::Virtio),
];

/// What a daemon can serve, by its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DaemonWord {
    Block,
    Net,
    Fs,
}

const DAEMONS: [(&str, DaemonWord); 3] = [
    ("block", DaemonWord::Block),
    ("net", DaemonWord::Net),
    ("fs", DaemonWord::Fs),
];

/// The most pairs of queues of an interface: each costs a thread.
const MOST_PAIRS: u32 = 8;
/// The most queues of a disk that a daemon serves.
const MOST_QUEUES: u32 = 16;
/// Context ids below are the host's (0 to 2), and the highest is nobody's.
const CIDS: std::ops::RangeInclusive<u32> = 3..=u32::MAX - 1;
/// Descriptors below are ccvm's terminal.
const DESCRIPTORS: std::ops::RangeInclusive<u32> = 3..=u16::MAX as u32;

impl Sections<'_> {
    /// The emulated devices in `root` that are not disks. Those that are not understood are left out.
    pub(super) fn virtio(&mut self, root: &Section<'_>) -> VirtioSpec {
        let nets = root.raw("net");
        let daemons = root.raw("vhost-user");
        VirtioSpec {
            nets: nets.map_or_else(Vec::new, |raw| self.list(Table::Net, raw, Self::net)),
            daemons: daemons.map_or_else(Vec::new, |raw| {
                self.list(Table::VhostUser, raw, Self::daemon)
            }),
            vsock: root.raw("vsock").and_then(|raw| self.vsock(raw).ok()),
            rng: root.raw("rng").and_then(|raw| self.rng(raw).ok()),
            console: root
                .raw("console")
                .and_then(|raw| self.console(raw).ok())
                .unwrap_or_default(),
        }
    }

    fn net(&mut self, raw: &Spanned<DeValue<'_>>, before: &[NetSpec]) -> Option<NetSpec> {
        let net = self.table(Table::Net, raw).ok()?;
        let findings = &mut self.findings;
        let tap = net.optional("tap", findings, values::tap_name);
        let fd = net.optional("fd", findings, |v| values::integer(v, DESCRIPTORS));
        let mac = net.optional("mac", findings, values::mac_address);
        let queues = net.optional("queues", findings, |v| values::integer(v, 1..=MOST_PAIRS));
        let (tap, fd, mac, queues) = (tap.ok()?, fd.ok()?, mac.ok()?, queues.ok()?);
        let (source, span) = match (tap, fd) {
            (Some(tap), None) => (NetSource::Tap(tap.value), tap.span),
            (None, Some(fd)) => {
                let number = u16::try_from(fd.value).ok()?;
                (NetSource::Descriptor(number), fd.span)
            }
            (None, None) => {
                let message = "`[[net]]` has neither `tap` nor `fd`";
                let finding = Diagnostic::error(Code::MissingKey, message);
                let help = "add `tap = \"tap0\"`, or `fd` for a tap that ccvm is started with";
                self.findings.push(finding.with_help(help).at(net.header()));
                return None;
            }
            (Some(_), Some(fd)) => {
                let message = "`[[net]]` has both `tap` and `fd`";
                let finding = Diagnostic::error(Code::InvalidValue, message);
                self.findings
                    .push(finding.with_help("remove one of them").at(fd.span));
                return None;
            }
        };
        if let (NetSource::Descriptor(_), Some(queues)) = (&source, &queues)
            && queues.value > 1
        {
            let message = format!("`queues` is {}, and `fd` is one queue", queues.value);
            let finding = Diagnostic::error(Code::InvalidValue, message);
            self.findings.push(finding.at(queues.span.clone()));
            return None;
        }
        if let Some(twin) = before.iter().position(|other| other.source == source) {
            self.findings.push(self.same_interface(&source, span, twin));
            return None;
        }
        let index = before.len();
        let at = |key| Place::Net(index, Some(key));
        self.locations.record(Place::Net(index, None), span);
        let queues = self.keep(at("queues"), queues);
        let queues = queues.and_then(|queues| u16::try_from(queues).ok());
        Some(NetSpec {
            source,
            mac: self.keep(at("mac"), mac),
            queues: queues.and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN),
        })
    }

    fn same_interface(&self, source: &NetSource, span: Range<usize>, twin: usize) -> Diagnostic {
        let message = format!("two network devices have {source}");
        let finding = Diagnostic::error(Code::TapInUse, message)
            .with_help("remove one of the two tables")
            .at(span);
        match self.locations.span(Place::Net(twin, None)) {
            Some(first) => finding.related(first, "used here first"),
            None => finding,
        }
    }

    fn daemon(&mut self, raw: &Spanned<DeValue<'_>>, before: &[DaemonSpec]) -> Option<DaemonSpec> {
        let daemon = self.table(Table::VhostUser, raw).ok()?;
        let findings = &mut self.findings;
        let socket = daemon.required("socket", "\"/run/disk.sock\"", findings, values::path);
        let kind = daemon.required("kind", "\"block\"", findings, |v| {
            values::one_of(v, &DAEMONS)
        });
        let queues = daemon.optional("queues", findings, |v| values::integer(v, 1..=MOST_QUEUES));
        let mac = daemon.optional("mac", findings, values::mac_address);
        let tag = daemon.optional("tag", findings, values::fs_tag);
        let (socket, kind) = (socket.ok()?, kind.ok()?);
        let (queues, mac, tag) = (queues.ok()?, mac.ok()?, tag.ok()?);
        // Each key belongs to one kind.
        let keys = [
            (
                "queues",
                DaemonWord::Block,
                queues.as_ref().map(|v| v.span.clone()),
            ),
            ("mac", DaemonWord::Net, mac.as_ref().map(|v| v.span.clone())),
            ("tag", DaemonWord::Fs, tag.as_ref().map(|v| v.span.clone())),
        ];
        for (key, word, span) in keys {
            let Some(span) = span.filter(|_| word != kind.value) else {
                continue;
            };
            let name = |word| DAEMONS.iter().find(|(_, other)| *other == word);
            let name = name(word).map_or("", |(name, _)| name);
            let message = format!("`{key}` is only for `kind = \"{name}\"`");
            let finding = Diagnostic::error(Code::InvalidValue, message);
            self.findings.push(finding.at(span));
            return None;
        }
        let queues = queues.and_then(|queues| u16::try_from(queues.value).ok());
        let kind = match kind.value {
            DaemonWord::Block => DaemonKind::Block {
                queues: queues.and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN),
            },
            DaemonWord::Net => DaemonKind::Net {
                mac: mac.map(|mac| mac.value),
            },
            DaemonWord::Fs => DaemonKind::Fs {
                tag: self.tag(&daemon, tag.map(|tag| tag.value))?,
            },
        };
        let index = before.len();
        let path = self.base.join(&socket.value);
        self.locations.record(Place::VhostUser(index), socket.span);
        Some(DaemonSpec { socket: path, kind })
    }

    fn tag(&mut self, daemon: &Section<'_>, tag: Option<FsTag>) -> Option<FsTag> {
        if tag.is_none() {
            let message = "`[[vhost-user]]` has no `tag`";
            let finding = Diagnostic::error(Code::MissingKey, message);
            let help = "add `tag = \"share\"`: the guest mounts the file system by it";
            self.findings
                .push(finding.with_help(help).at(daemon.header()));
        }
        tag
    }

    fn vsock(&mut self, raw: &Spanned<DeValue<'_>>) -> Result<VsockSpec, Reported> {
        let vsock = self.table(Table::Vsock, raw)?;
        let cid = vsock.required("cid", "3", &mut self.findings, |v| values::integer(v, CIDS));
        let cid = self.keep_one(Place::Vsock, cid?);
        Ok(VsockSpec { cid })
    }

    fn rng(&mut self, raw: &Spanned<DeValue<'_>>) -> Result<RngSpec, Reported> {
        let rng = self.table(Table::Rng, raw)?;
        self.locations.record(Place::Rng, rng.header());
        Ok(RngSpec)
    }

    fn console(&mut self, raw: &Spanned<DeValue<'_>>) -> Result<ConsoleChoice, Reported> {
        let console = self.table(Table::Console, raw)?;
        self.locations.record(Place::Console, console.header());
        let device = console.optional("device", &mut self.findings, |v| {
            values::one_of(v, &CONSOLES)
        });
        Ok(self.keep(Place::Console, device?).unwrap_or_default())
    }
}

/// What is wanted of a network address, for the text of a value.
pub(super) fn mac_help() -> String {
    let example = MacAddress::local([2, 0, 0, 0, 0, 1]).bytes();
    let example = example.map(|byte| format!("{byte:02x}")).join(":");
    format!("write six pairs of hexadecimal digits, such as \"{example}\"")
}
