//! The emulator process that plays the host.

use std::fs::{self, File};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// What to boot and with which devices.
#[derive(Debug)]
pub(super) struct Qemu<'a> {
    /// The host's kernel.
    pub(super) kernel: &'a Path,
    /// The host's first file system.
    pub(super) initrd: &'a Path,
    /// Arguments that add devices.
    pub(super) devices: &'a [String],
    /// A folder for the socket and the logs.
    pub(super) folder: &'a Path,
}

impl Qemu<'_> {
    /// Starts the emulator and waits for it to open the agent's port.
    pub(super) fn start(&self) -> anyhow::Result<(Running, UnixStream)> {
        let socket = self.folder.join("agent");
        let listener = UnixListener::bind(&socket)
            .with_context(|| format!("cannot listen on {}", socket.display()))?;
        listener
            .set_nonblocking(true)
            .context("cannot set up the agent's socket")?;
        let log = self.folder.join("qemu.log");
        let output =
            File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output
            .try_clone()
            .context("cannot share the emulator's log")?;
        let child = Command::new("qemu-system-aarch64")
            .args(self.arguments(&socket))
            .args(self.devices)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .context("cannot start qemu-system-aarch64")?;
        let mut running = Running { child, log };
        let port = running.accept(&listener)?;
        Ok((running, port))
    }

    fn arguments(&self, socket: &Path) -> Vec<String> {
        let console = self.folder.join("console.log");
        [
            (
                "-machine",
                "virt,virtualization=on,gic-version=3,iommu=smmuv3".to_owned(),
            ),
            // With SVE, code that ccvm loads into a running guest's memory was seen stale.
            ("-cpu", "max,sve=off,sme=off,pauth=off".to_owned()),
            ("-accel", "tcg,thread=multi".to_owned()),
            ("-smp", "2".to_owned()),
            ("-m", "4G".to_owned()),
            ("-display", "none".to_owned()),
            ("-serial", format!("file:{}", console.display())),
            ("-kernel", self.kernel.display().to_string()),
            ("-initrd", self.initrd.display().to_string()),
            ("-append", "console=ttyAMA0 panic=-1 quiet".to_owned()),
            (
                "-chardev",
                format!("socket,id=agent,path={}", socket.display()),
            ),
            ("-device", "virtio-serial-pci,addr=0x1".to_owned()),
            (
                "-device",
                "virtserialport,chardev=agent,name=agent".to_owned(),
            ),
        ]
        .into_iter()
        .flat_map(|(option, value)| [option.to_owned(), value])
        .chain(["-nodefaults", "-no-user-config", "-no-reboot"].map(str::to_owned))
        .collect()
    }
}

/// A running emulator; dropping it ends it.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    fn accept(&mut self, listener: &UnixListener) -> anyhow::Result<UnixStream> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Ok((port, _)) = listener.accept() {
                port.set_nonblocking(false)
                    .context("cannot set up the agent's port")?;
                return Ok(port);
            }
            let ended = self
                .child
                .try_wait()
                .context("cannot ask for the emulator's state")?;
            if ended.is_some() || Instant::now() > deadline {
                let words = fs::read_to_string(&self.log).unwrap_or_default();
                bail!("qemu-system-aarch64 did not start: {}", words.trim());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
