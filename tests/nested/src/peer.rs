//! Two ends that measure the way between them, by TCP or by a socket between a guest and its host.
//!
//! ```text
//!   who measures                        peer
//!     connects, one byte: a wish   ──▶
//!     Take:  bytes for a while     ──▶  reads them; when all are there, one byte back
//!     Give:  reads for a while     ◀──  bytes until the connection ends
//!     Echo:  a byte, and again     ◀─▶  the same byte
//! ```

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use vsock::{VMADDR_CID_ANY, VsockListener, VsockStream};

use crate::rate::micros;
use crate::timing::{self, Rate};

const PIECE: usize = 64 << 10;
/// How long a peer may take to be there.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the peer is to do.
#[derive(Debug, Clone, Copy)]
enum Wish {
    Take,
    Give,
    Echo,
}

impl Wish {
    const fn byte(self) -> u8 {
        match self {
            Self::Take => b't',
            Self::Give => b'g',
            Self::Echo => b'e',
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Take, Self::Give, Self::Echo]
            .into_iter()
            .find(|wish| wish.byte() == byte)
    }
}

/// A connection.
trait Stream: Read + Write + Send {
    /// Says that nothing more comes from here.
    fn finish(&self) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn finish(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Stream for VsockStream {
    fn finish(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// Serves whoever connects to `tcp:PORT` or `vsock:PORT`, without end.
pub(crate) fn serve(place: &str) -> anyhow::Result<()> {
    match place.split_once(':') {
        Some(("tcp", port)) => {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port.parse()?))?;
            for stream in listener.incoming() {
                let stream = stream?;
                stream.set_nodelay(true)?;
                answer_apart(stream);
            }
        }
        Some(("vsock", port)) => {
            let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port.parse()?)?;
            for stream in listener.incoming() {
                answer_apart(stream?);
            }
        }
        _ => bail!("`{place}` is neither tcp:PORT nor vsock:PORT"),
    }
    Ok(())
}

/// The other end may be gone at any time.
fn answer_apart(stream: impl Stream + 'static) {
    thread::spawn(move || {
        if let Err(error) = answer(stream) {
            println!("ended={error}");
        }
    });
}

fn answer(mut stream: impl Stream) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    match Wish::from_byte(byte[0]) {
        Some(Wish::Take) => {
            while stream.read(&mut piece)? > 0 {}
            stream.write_all(&byte)
        }
        Some(Wish::Give) => loop {
            stream.write_all(&piece)?;
        },
        Some(Wish::Echo) => {
            while stream.read(&mut byte)? > 0 {
                stream.write_all(&byte)?;
            }
            Ok(())
        }
        None => Err(ErrorKind::InvalidData.into()),
    }
}

/// Reports what a peer at `tcp:ADDRESS:PORT` or `vsock:CID:PORT` takes and gives, in KiB per second, and how long
/// a byte takes to it and back, in microseconds.
pub(crate) fn measure(place: &str) -> anyhow::Result<()> {
    let mut piece = vec![0; PIECE];
    send(place, &piece, timing::WARM_UP)?;
    let sent = send(place, &piece, timing::MEASURED)?;
    let received = receive(place, &mut piece)?;
    let echo = echo(place)?;
    println!(
        "sent_kib_s={:.2} received_kib_s={:.2} echo_us={:.2}",
        sent.kib_per_second(),
        received.kib_per_second(),
        micros(echo.each())
    );
    Ok(())
}

/// Sends for so long, and waits until the peer has all of it.
fn send(place: &str, piece: &[u8], time: Duration) -> anyhow::Result<Rate> {
    let mut stream = connect(place, Wish::Take)?;
    let mut sent = timing::repeat(time, || Ok(stream.write(piece)?))?;
    sent.took += timing::of(|| {
        stream.finish()?;
        Ok(stream.read_exact(&mut [0])?)
    })?;
    Ok(sent)
}

fn receive(place: &str, piece: &mut [u8]) -> anyhow::Result<Rate> {
    let mut stream = connect(place, Wish::Give)?;
    timing::rate(|| {
        let bytes = stream.read(piece)?;
        ensure!(bytes > 0, "the peer gives no more");
        Ok(bytes)
    })
}

fn echo(place: &str) -> anyhow::Result<Rate> {
    let mut stream = connect(place, Wish::Echo)?;
    timing::rate(|| {
        stream.write_all(&[0])?;
        stream.read_exact(&mut [0])?;
        Ok(1)
    })
}

fn connect(place: &str, wish: Wish) -> anyhow::Result<Box<dyn Stream>> {
    let deadline = Instant::now() + PATIENCE;
    let mut stream = loop {
        match try_connect(place) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(200)),
        }
    };
    stream.write_all(&[wish.byte()])?;
    Ok(stream)
}

fn try_connect(place: &str) -> anyhow::Result<Box<dyn Stream>> {
    let cannot = || format!("cannot connect to {place}");
    match place.split_once(':') {
        Some(("tcp", address)) => {
            let stream = TcpStream::connect(address).with_context(cannot)?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream))
        }
        Some(("vsock", address)) => {
            let (cid, port) = address.split_once(':').context("no port")?;
            let stream = VsockStream::connect_with_cid_port(cid.parse()?, port.parse()?);
            Ok(Box::new(stream.with_context(cannot)?))
        }
        _ => bail!("`{place}` is neither tcp:ADDRESS:PORT nor vsock:CID:PORT"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    impl Stream for UnixStream {
        fn finish(&self) -> io::Result<()> {
            self.shutdown(Shutdown::Write)
        }
    }

    /// Asks a peer for something, sends it `bytes`, and returns what comes until both are through.
    fn ask(wish: u8, bytes: &[u8]) -> (Vec<u8>, io::Result<()>) {
        let (mut here, there) = UnixStream::pair().unwrap();
        let peer = thread::spawn(move || answer(there));
        here.write_all(&[wish]).unwrap();
        here.write_all(bytes).unwrap();
        here.finish().unwrap();
        let mut back = Vec::new();
        here.read_to_end(&mut back).unwrap();
        (back, peer.join().unwrap())
    }

    #[test]
    fn a_peer_takes_all_and_then_says_so_once() {
        let (back, end) = ask(Wish::Take.byte(), &vec![0; 3 * PIECE]);
        assert_eq!(back.len(), 1);
        end.unwrap();
    }

    #[test]
    fn a_peer_echoes_every_byte() {
        let (back, end) = ask(Wish::Echo.byte(), b"abc");
        assert_eq!(back, b"abc");
        end.unwrap();
    }

    #[test]
    fn a_peer_gives_until_nobody_takes() {
        let (mut here, there) = UnixStream::pair().unwrap();
        let peer = thread::spawn(move || answer(there));
        here.write_all(&[Wish::Give.byte()]).unwrap();
        here.read_exact(&mut vec![1; 2 * PIECE]).unwrap();
        drop(here);
        assert!(peer.join().unwrap().is_err());
    }

    #[test]
    fn an_unknown_wish_ends_the_connection() {
        let (back, end) = ask(b'?', &[]);
        assert!(back.is_empty());
        assert_eq!(end.unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
