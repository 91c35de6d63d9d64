//! The two ends of a socket between a guest and its host.

use std::io::{self, Write as _};
use std::net::Shutdown;
use std::thread;

use anyhow::{Context as _, bail};
use vsock::{VMADDR_CID_ANY, VsockListener, VsockStream};

/// Takes one connection, and sends back what comes in.
pub(crate) fn echo(port: u32) -> anyhow::Result<()> {
    let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port);
    let (mut stream, peer) = listener.context("cannot listen")?.accept()?;
    println!("peer={}", peer.cid());
    let mut back = stream.try_clone()?;
    io::copy(&mut stream, &mut back)?;
    back.shutdown(Shutdown::Write)?;
    Ok(())
}

/// Sends standard input, while what comes back goes to standard output.
pub(crate) fn send(cid: u32, port: u32) -> anyhow::Result<()> {
    let stream = VsockStream::connect_with_cid_port(cid, port).context("cannot connect")?;
    let mut out = stream.try_clone()?;
    let sender = thread::spawn(move || {
        io::copy(&mut io::stdin().lock(), &mut out)?;
        out.shutdown(Shutdown::Write)
    });
    let mut stdout = io::stdout().lock();
    io::copy(&mut { stream }, &mut stdout)?;
    stdout.flush()?;
    match sender.join() {
        Ok(sent) => Ok(sent?),
        Err(_) => bail!("the sender has panicked"),
    }
}
