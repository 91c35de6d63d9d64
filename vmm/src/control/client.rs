//! The other end of the control socket.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::protocol::{Request, Response};

/// The longest response that is read, in bytes.
const LONGEST: u64 = 64 << 20;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no VM answers at {path}")]
    Connect {
        /// The socket.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The conversation broke off.
    #[error("the VM does not answer")]
    Broken(#[source] io::Error),
    /// It ended without an answer.
    #[error("the VM has ended without an answer")]
    Ended,
    /// What came is no response of this version.
    #[error("the answer is none of this version of ccvm")]
    NotAResponse(#[source] serde_json::Error),
}

/// A connection to a running VM.
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the VM that is controlled by the socket at `path`.
    ///
    /// # Errors
    /// When nobody listens there, or this user may not ask.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let connected = UnixStream::connect(path).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        });
        let stream = connected.map_err(|source| ClientError::Connect {
            path: path.display().to_string(),
            source,
        })?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Sends a request and waits for its response.
    ///
    /// # Errors
    /// When none comes, or one that is not understood.
    pub fn ask(&mut self, request: &Request) -> Result<Response, ClientError> {
        let mut line = serde_json::to_vec(request)
            .map_err(|error| ClientError::Broken(io::Error::other(error)))?;
        line.push(b'\n');
        let stream = self.stream.get_mut();
        stream.write_all(&line).map_err(ClientError::Broken)?;
        let mut answer = Vec::new();
        let mut limited = (&mut self.stream).take(LONGEST);
        let read = limited.read_until(b'\n', &mut answer);
        match read.map_err(ClientError::Broken)? {
            0 => Err(ClientError::Ended),
            _ => serde_json::from_slice(&answer).map_err(ClientError::NotAResponse),
        }
    }
}
