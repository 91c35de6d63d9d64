//! What the RMM answers.

use super::{Failure, Outcome};
use crate::machine::Machine;
use crate::report;
use crate::rsi::function::*;
use crate::rsi::{EMPTY, GRANULE, Granule, INCOMPLETE, INPUT, NOT_SUPPORTED};
use crate::rsi::{RAM, Realm, STATE, SUCCESS, rsi};

static BUFFER: Granule = Granule::new();

/// Every bad argument gets the error code that an RMM gives for it.
pub fn errors(machine: &Machine<'_>, realm: Realm) -> Outcome {
    let half = realm.shared_bit();
    let buffer = BUFFER.address();
    let shared = machine.free_memory(GRANULE).ok_or("no free memory")?;
    realm.set(shared, shared + GRANULE, EMPTY)?;
    let dram = machine.dram().next().ok_or("no memory")?;
    // Devices are below memory, and none is here.
    let outside = 0;
    let cases: &[(&str, u64, &[u64], u64)] = &[
        ("version 1.0", VERSION, &[0x10000], SUCCESS),
        ("version 0.9", VERSION, &[9], INPUT),
        ("version 2.0", VERSION, &[0x20000], INPUT),
        ("features", FEATURES, &[0], SUCCESS),
        ("config", REALM_CONFIG, &[buffer], SUCCESS),
        ("config, misaligned", REALM_CONFIG, &[buffer + 8], INPUT),
        ("config, alias", REALM_CONFIG, &[buffer | half], INPUT),
        ("config, shared page", REALM_CONFIG, &[shared], INPUT),
        ("config, no memory", REALM_CONFIG, &[outside], INPUT),
        ("get", IPA_STATE_GET, &[dram.start, dram.end], SUCCESS),
        (
            "get, empty",
            IPA_STATE_GET,
            &[dram.start, dram.start],
            INPUT,
        ),
        (
            "get, backwards",
            IPA_STATE_GET,
            &[dram.end, dram.start],
            INPUT,
        ),
        (
            "get, misaligned",
            IPA_STATE_GET,
            &[dram.start + 1, dram.end],
            INPUT,
        ),
        (
            "get, alias",
            IPA_STATE_GET,
            &[dram.start | half, dram.end | half],
            INPUT,
        ),
        (
            "get, beyond",
            IPA_STATE_GET,
            &[dram.start, half + GRANULE],
            INPUT,
        ),
        (
            "set, bad state",
            IPA_STATE_SET,
            &[dram.start, dram.end, 2, 0],
            INPUT,
        ),
        (
            "set, empty",
            IPA_STATE_SET,
            &[dram.start, dram.start, RAM, 0],
            INPUT,
        ),
        (
            "set, misaligned",
            IPA_STATE_SET,
            &[shared, shared + 1, RAM, 0],
            INPUT,
        ),
        (
            "set, alias",
            IPA_STATE_SET,
            &[shared | half, (shared | half) + GRANULE, RAM, 0],
            INPUT,
        ),
        (
            "set, beyond",
            IPA_STATE_SET,
            &[half - GRANULE, half + GRANULE, EMPTY, 0],
            INPUT,
        ),
        (
            "set, overflow",
            IPA_STATE_SET,
            &[0, u64::MAX, EMPTY, 0],
            INPUT,
        ),
        ("measurement", MEASUREMENT_READ, &[4], SUCCESS),
        ("measurement 5", MEASUREMENT_READ, &[5], INPUT),
        ("extend the initial", MEASUREMENT_EXTEND, &[0, 8], INPUT),
        ("extend 5", MEASUREMENT_EXTEND, &[5, 8], INPUT),
        ("extend by 65 bytes", MEASUREMENT_EXTEND, &[1, 65], INPUT),
        ("extend", MEASUREMENT_EXTEND, &[1, 64], SUCCESS),
        ("token before init", TOKEN_CONTINUE, &[buffer, 0, 64], STATE),
        ("token init", TOKEN_INIT, &[1, 2, 3, 4, 5, 6, 7, 8], SUCCESS),
        (
            "token, misaligned",
            TOKEN_CONTINUE,
            &[buffer + 8, 0, 64],
            INPUT,
        ),
        (
            "token, shared page",
            TOKEN_CONTINUE,
            &[shared, 0, 64],
            INPUT,
        ),
        (
            "token, too long",
            TOKEN_CONTINUE,
            &[buffer, 8, GRANULE],
            INPUT,
        ),
        (
            "token, no room",
            TOKEN_CONTINUE,
            &[buffer, 0, 0],
            INCOMPLETE,
        ),
        ("host call", HOST_CALL, &[buffer], SUCCESS),
        ("host call, misaligned", HOST_CALL, &[buffer + 128], INPUT),
        ("host call, shared page", HOST_CALL, &[shared], INPUT),
        ("a function of 1.1", 0x9d, &[0], NOT_SUPPORTED),
        ("no function", 0xaf, &[0], NOT_SUPPORTED),
    ];
    let mut wrong = 0;
    for &(name, function, arguments, expected) in cases {
        let mut registers = [0; 10];
        registers[..arguments.len()].copy_from_slice(arguments);
        let status = rsi(function, registers)[0];
        if status != expected {
            report!("wrong={name}: {status:#x}, not {expected:#x}");
            wrong += 1;
        }
    }
    report!("cases={}", cases.len());
    host_refuses(realm, outside)?;
    match wrong {
        0 => Ok(()),
        _ => Err("an answer is not the RMM's".into()),
    }
}

/// Memory cannot be had where there is none: the call succeeds, the host's response is no.
fn host_refuses(realm: Realm, outside: u64) -> Outcome {
    let [status, reached, response, ..] = rsi(IPA_STATE_SET, [outside, outside + GRANULE, RAM, 0]);
    if (status, reached, response) != (SUCCESS, outside, 1) {
        return Err("the host gave memory where there is none".into());
    }
    if realm.get(outside, outside + GRANULE)? != (EMPTY, outside + GRANULE) {
        return Err("there is memory where there is none".into());
    }
    Ok(())
}

/// A token arrives whole and begins as a CCA token does.
pub fn attestation(realm: Realm) -> Outcome {
    const PIECE: u64 = 1000;
    let [status, bound, ..] = rsi(TOKEN_INIT, [realm.ipa_bits; 8]);
    if status != SUCCESS {
        return Err("no token".into());
    }
    let mut bytes = 0;
    let mut pieces = 0;
    loop {
        let [status, written, ..] = rsi(TOKEN_CONTINUE, [BUFFER.address(), 96, PIECE]);
        if pieces == 0 {
            begins_as_a_token()?;
        }
        bytes += written;
        pieces += 1;
        match status {
            SUCCESS => break,
            INCOMPLETE if written == PIECE && bytes <= bound => {}
            _ => return Err("a token does not end as it should".into()),
        }
    }
    report!("token_bytes={bytes}");
    report!("token_pieces={pieces}");
    Ok(())
}

/// Reports what was measured before this guest ran.
pub fn measurement(_: Realm) -> Outcome {
    let [status, first, second, third, fourth, rest @ ..] = rsi(MEASUREMENT_READ, [0]);
    if status != SUCCESS {
        return Err("there is no initial measurement".into());
    }
    if rest[..4] != [0; 4] {
        return Err("a SHA-256 digest has more than 32 bytes".into());
    }
    // The first byte of the digest is in the lowest bits of the first register.
    let [a, b, c, d] = [first, second, third, fourth].map(u64::swap_bytes);
    report!("initial_measurement={a:016x}{b:016x}{c:016x}{d:016x}");
    Ok(())
}

/// Tag 399 and a map of two.
fn begins_as_a_token() -> Result<(), Failure> {
    let first = [0, 1, 2, 3].map(|offset| BUFFER.byte(96 + offset));
    match first {
        [0xd9, 0x01, 0x8f, 0xa2] => Ok(()),
        _ => Err("this is no CCA token".into()),
    }
}
