//! The socket that a VM is controlled by: only one process answers at it, and only its user asks.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, fchmod, flock};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::causes::chain;
use crate::diagnostic::{Code, Diagnostic};

/// How many connections wait to be taken.
const BACKLOG: i32 = 16;

/// Why there is no socket to control the VM by.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another VM answers there.
    #[error("a VM that runs is controlled by {}", .0.display())]
    Live(PathBuf),
    /// The path is taken by something that ccvm did not make.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The host does not let us.
    #[error("cannot {operation} {}", path.display())]
    Host {
        /// What for.
        operation: &'static str,
        /// The socket, or its folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl From<SocketError> for Diagnostic {
    fn from(error: SocketError) -> Self {
        let help = match &error {
            SocketError::Live(path) => {
                format!("`ccvm ctl {} status` tells about it", path.display())
            }
            SocketError::NotASocket(_) => "give the socket a name of its own".to_owned(),
            SocketError::Host { .. } => {
                "the folder must exist, and this user must be able to write to it".to_owned()
            }
        };
        Self::error(Code::ControlSocket, chain(&error)).with_help(help)
    }
}

/// A socket that listens. When this goes, so does its name.
#[derive(Debug)]
pub struct ControlSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the name: another process may have put its own there since.
    identity: Option<(u64, u64)>,
}

impl ControlSocket {
    /// Listens at `path`, mode 0600 from the start. What a process that was killed has left there is
    /// replaced.
    ///
    /// # Errors
    /// When a process listens there already, when something else has the name, or the host refuses.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |operation| {
            move |source| SocketError::Host {
                operation,
                path: path.to_owned(),
                source,
            }
        };
        // Two that find the same leftover must not both replace it.
        let _turn = lock_folder(path)?;
        remove_leftover(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|errno| failed("make the socket")(errno.into()))?;
        // Linux makes the name with the mode of the socket, less the umask (net/unix/af_unix.c).
        fchmod(&socket, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| failed("set the mode of")(errno.into()))?;
        SocketAddrUnix::new(path)
            .and_then(|address| rustix::net::bind(&socket, &address))
            .map_err(|errno| failed("bind")(errno.into()))?;
        rustix::net::listen(&socket, BACKLOG).map_err(|errno| failed("listen at")(errno.into()))?;
        Ok(Self {
            listener: socket.into(),
            path: path.to_owned(),
            identity: identity(path),
        })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if self.identity.is_some() && self.identity == identity(&self.path) {
            // It is gone already, or stays for the next run to replace.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Waits for its turn among those who bind sockets in the folder of `path`.
fn lock_folder(path: &Path) -> Result<fs::File, SocketError> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let folder = parent.unwrap_or(Path::new("."));
    fs::File::open(folder)
        .and_then(|file| {
            flock(&file, FlockOperation::LockExclusive)?;
            Ok(file)
        })
        .map_err(|source| SocketError::Host {
            operation: "open the folder",
            path: folder.to_owned(),
            source,
        })
}

/// Removes a socket at which nobody listens any more.
fn remove_leftover(path: &Path) -> Result<(), SocketError> {
    let failed = |source| SocketError::Host {
        operation: "replace",
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
        Ok(_) => Err(SocketError::Live(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_its_user_may_open_it_and_it_goes_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vm.sock");
        let socket = ControlSocket::bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_live_socket_is_left_alone_and_a_leftover_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vm.sock");
        let first = ControlSocket::bind(&path).unwrap();
        let refused = ControlSocket::bind(&path).unwrap_err();
        assert!(matches!(refused, SocketError::Live(_)), "{refused}");
        // As after SIGKILL: the listener is gone, its name is not.
        let name = std::mem::ManuallyDrop::new(first);
        drop(name.listener.try_clone());
        rustix::net::shutdown(&name.listener, rustix::net::Shutdown::Both).unwrap();
        let second = ControlSocket::bind(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        drop(second);
    }

    #[test]
    fn another_file_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        fs::write(&path, "keep").unwrap();
        let refused = ControlSocket::bind(&path).unwrap_err();
        assert!(matches!(refused, SocketError::NotASocket(_)), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "keep");
    }

    #[test]
    fn a_name_that_somebody_else_has_taken_over_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vm.sock");
        let first = ControlSocket::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = ControlSocket::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
    }
}
