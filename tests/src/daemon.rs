//! Programs that run on the host beside a guest.

use crate::case::Host;

/// A daemon that serves a device. It ends with its connection, or when it is told to.
#[derive(Debug)]
pub(crate) struct Daemon {
    program: &'static str,
    /// Where it listens.
    pub(crate) socket: String,
}

impl Daemon {
    /// Starts `program`, which is to listen at `/run/PROGRAM.socket`.
    fn start(host: &mut Host<'_>, program: &'static str, arguments: &str) -> anyhow::Result<Self> {
        Self::start_by(host, "", program, arguments)
    }

    /// As [`Self::start`], by way of another command.
    fn start_by(
        host: &mut Host<'_>,
        by: &str,
        program: &'static str,
        arguments: &str,
    ) -> anyhow::Result<Self> {
        host.require(program)?;
        let socket = format!("/run/{program}.socket");
        host.machine.read(&format!(
            "rm -f {socket}; {by} {program} {arguments} >/run/{program}.log 2>&1 &\n\
             echo $! >/run/{program}.pid\n\
             for _ in $(seq 100); do [ -S {socket} ] && exit; sleep 0.1; done\n\
             cat /run/{program}.log; exit 1"
        ))?;
        Ok(Self { program, socket })
    }

    /// Serves `file` as a disk with so many queues, by QEMU's daemon.
    pub(crate) fn disk(host: &mut Host<'_>, file: &str, queues: u32) -> anyhow::Result<Self> {
        Self::start(
            host,
            "qemu-storage-daemon",
            &format!(
                "--blockdev driver=file,node-name=served,filename={file},discard=unmap \
                 --export type=vhost-user-blk,id=export,node-name=served,writable=on,\
                 num-queues={queues},\
                 addr.type=unix,addr.path=/run/qemu-storage-daemon.socket"
            ),
        )
    }

    /// Serves a folder.
    pub(crate) fn folder(host: &mut Host<'_>, folder: &str) -> anyhow::Result<Self> {
        Self::start(
            host,
            "virtiofsd",
            &format!("--socket-path /run/virtiofsd.socket --shared-dir {folder} --sandbox none"),
        )
    }

    /// Serves a network in which the guest is 10.0.3.2 and the host is the gateway, 10.0.3.1.
    pub(crate) fn network(host: &mut Host<'_>) -> anyhow::Result<Self> {
        // It makes another folder its root, which it cannot where that is the kernel's first, nor by chroot.
        let jail = "mkdir -p /run/jail && mount -o rbind / /run/jail && cd /run/jail \
                    && mount --move . / && exec chroot . \"$@\"";
        Self::start_by(
            host,
            &format!("unshare -m sh -c '{jail}' jail"),
            "passt",
            "--vhost-user --foreground --runas 0 --socket /run/passt.socket \
             --address 10.0.3.2 --netmask 24 --gateway 10.0.3.1 --ipv4-only",
        )
    }

    /// Ends it, if it has not ended by itself.
    pub(crate) fn end(self, host: &mut Host<'_>) -> anyhow::Result<()> {
        let Self { program, socket } = self;
        host.machine
            .read(&format!(
                "kill $(cat /run/{program}.pid) 2>/dev/null; rm -f {socket}; true"
            ))
            .map(drop)
    }
}
