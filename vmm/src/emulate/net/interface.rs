//! A tap interface as the host shows it, and what would help when it cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use kvm::tap::{TapError, TapName};

use crate::causes::chain;
use crate::config::spec::{NetSource, NetSpec};
use crate::diagnostic::{Code, Diagnostic, Place};

const INTERFACES: &str = "/sys/class/net";

/// Flags of an interface, in `flags` and in `tun_flags`.
const IFF_UP: u32 = 1;
const IFF_TAP: u32 = 2;
const IFF_MULTI_QUEUE: u32 = 0x100;

/// What can be told of an interface before a run: nothing is made.
#[must_use]
pub fn look_at_interface(spec: &NetSpec, index: usize) -> Vec<Diagnostic> {
    look(Path::new(INTERFACES), spec, index)
}

fn look(interfaces: &Path, spec: &NetSpec, index: usize) -> Vec<Diagnostic> {
    let NetSource::Tap(name) = &spec.source else {
        // The descriptor is that of a run.
        return Vec::new();
    };
    let folder = interfaces.join(name.as_str());
    if !folder.exists() {
        // A run makes it.
        return Vec::new();
    }
    let place = Place::Net(index, None);
    let several = spec.queues.get() > 1;
    let fits = number(&folder.join("tun_flags"))
        .is_some_and(|flags| flags & IFF_TAP != 0 && (!several || flags & IFF_MULTI_QUEUE != 0));
    if !fits {
        return vec![diagnose(&TapError::Kind(name.clone()), spec, place)];
    }
    match is_down(&folder) {
        true => vec![down(name).on(place)],
        false => Vec::new(),
    }
}

/// Says in the log that an interface is down.
pub(super) fn warn_if_down(name: &TapName) {
    if is_down(&Path::new(INTERFACES).join(name.as_str())) {
        let Diagnostic { message, help, .. } = down(name);
        tracing::warn!("{message}: {}", help.unwrap_or_default());
    }
}

fn is_down(folder: &Path) -> bool {
    number(&folder.join("flags")).is_some_and(|flags| flags & IFF_UP == 0)
}

fn down(name: &TapName) -> Diagnostic {
    let message = format!("the tap interface {name} is down");
    Diagnostic::warning(Code::TapDown, message).with_help(format!("`ip link set {name} up`"))
}

/// The longest payload of a frame, in bytes.
pub(super) fn mtu(name: &TapName) -> Option<u16> {
    let path: PathBuf = [INTERFACES, name.as_str(), "mtu"].iter().collect();
    let text = std::fs::read_to_string(path).ok()?;
    text.trim().parse().ok()
}

/// A number as the kernel prints flags.
fn number(path: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(path).ok()?;
    u32::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
}

/// What would help against `error`.
pub(super) fn diagnose(error: &TapError, spec: &NetSpec, place: Place) -> Diagnostic {
    let several = match spec.queues.get() {
        1 => "",
        _ => " multi_queue",
    };
    let make = |name: &TapName| {
        format!("`ip tuntap add dev {name} mode tap{several} vnet_hdr user USER`, as root")
    };
    let (code, help) = match error {
        TapError::Open(source) if source.kind() == io::ErrorKind::PermissionDenied => (
            Code::TapDenied,
            "give ccvm's user access to /dev/net/tun, or hand over a tap by `fd`".to_owned(),
        ),
        TapError::Open(_) => (
            Code::TapMissing,
            "load the kernel module: `modprobe tun`".to_owned(),
        ),
        TapError::Permission(name) => {
            let help = format!("make it for ccvm's user beforehand: {}", make(name));
            (Code::TapDenied, help)
        }
        TapError::Busy(_) => (
            Code::TapInUse,
            "use another interface, or end what has this one".to_owned(),
        ),
        TapError::Kind(name) => {
            let help = format!(
                "use the name of another one, or make it anew: {}",
                make(name)
            );
            (Code::NotATap, help)
        }
        TapError::NotATap { .. } => (
            Code::NotATap,
            "start ccvm with the descriptor of a tap interface under this number".to_owned(),
        ),
        TapError::NoHeader { .. } => (
            Code::NotATap,
            "make the interface with IFF_VNET_HDR".to_owned(),
        ),
        TapError::Attach { .. } | TapError::Setup { .. } => {
            let finding = Diagnostic::error(Code::NotATap, chain(error));
            return finding.on(place);
        }
    };
    Diagnostic::error(code, chain(error))
        .with_help(help)
        .on(place)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::num::NonZeroU16;

    use super::*;

    fn spec(queues: u16) -> NetSpec {
        NetSpec {
            source: NetSource::Tap("tap0".parse().unwrap()),
            mac: None,
            queues: NonZeroU16::new(queues).unwrap(),
        }
    }

    fn codes(files: &[(&str, &str)], queues: u16) -> Vec<Code> {
        let interfaces = tempfile::tempdir().unwrap();
        let folder = interfaces.path().join("tap0");
        if !files.is_empty() {
            fs::create_dir(&folder).unwrap();
        }
        for (name, content) in files {
            fs::write(folder.join(name), content).unwrap();
        }
        let found = look(interfaces.path(), &spec(queues), 0);
        assert!(found.iter().all(|finding| finding.help.is_some()));
        found.into_iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn what_the_host_shows_of_an_interface_tells_whether_it_can_be_used() {
        let up = ("flags", "0x1003\n");
        assert_eq!(codes(&[], 1), []);
        assert_eq!(codes(&[("tun_flags", "0x5002\n"), up], 1), []);
        assert_eq!(codes(&[("tun_flags", "0x5102\n"), up], 4), []);
        assert_eq!(codes(&[("tun_flags", "0x5002\n"), up], 2), [Code::NotATap]);
        assert_eq!(codes(&[("tun_flags", "0x5001\n"), up], 1), [Code::NotATap]);
        assert_eq!(codes(&[up], 1), [Code::NotATap], "no tap at all");
        let down = ("flags", "0x1002\n");
        assert_eq!(
            codes(&[("tun_flags", "0x5002\n"), down], 1),
            [Code::TapDown]
        );
    }

    #[test]
    fn every_refusal_comes_with_what_would_help() {
        let name: TapName = "tap0".parse().unwrap();
        let refused = |kind: io::ErrorKind| TapError::Open(kind.into());
        for (error, code) in [
            (refused(io::ErrorKind::PermissionDenied), Code::TapDenied),
            (refused(io::ErrorKind::NotFound), Code::TapMissing),
            (TapError::Permission(name.clone()), Code::TapDenied),
            (TapError::Busy(name.clone()), Code::TapInUse),
            (TapError::Kind(name), Code::NotATap),
        ] {
            let finding = diagnose(&error, &spec(2), Place::Net(0, None));
            assert_eq!(finding.code, code);
            assert!(finding.help.is_some_and(|help| !help.is_empty()));
        }
    }
}
