//! The ring of commands: the only one is how many pairs of rings are in use.

use vm_memory::GuestMemory;
use zerocopy::{FromBytes, IntoBytes};

use super::wire::{CLASS_MQ, SET_PAIRS, SetPairs, ack};
use crate::virtio::ring::{RingError, Turn};

/// Answers the commands in the ring. `set_pairs` is given a number from 1 to `most`, and says whether
/// that many pairs are in use now.
pub(super) fn serve<M: GuestMemory>(
    turn: &mut Turn<'_, M>,
    most: u16,
    mut set_pairs: impl FnMut(u16) -> bool,
) -> Result<(), RingError> {
    while let Some(chain) = turn.take()? {
        let mut bytes = [0; size_of::<SetPairs>()];
        let whole = turn.read(&chain, 0, &mut bytes) == bytes.len();
        // Without a place for the answer nothing is done: the guest would not learn of it.
        if !turn.has_room(&chain, 1) {
            turn.complete(chain, &[])?;
            continue;
        }
        let pairs = pairs(&bytes).filter(|pairs| whole && (1..=most).contains(pairs));
        let answer = match pairs.is_some_and(&mut set_pairs) {
            true => ack::OK,
            false => ack::ERR,
        };
        turn.complete(chain, answer.as_bytes())?;
    }
    Ok(())
}

fn pairs(command: &[u8]) -> Option<u16> {
    let command = SetPairs::read_from_bytes(command).ok()?;
    let known = (command.class, command.command) == (CLASS_MQ, SET_PAIRS);
    known.then(|| command.pairs.get())
}
