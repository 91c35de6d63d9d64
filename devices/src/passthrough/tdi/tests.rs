use proptest::prelude::*;

use super::*;

const REQUESTS: [Event; 8] = [
    Event::Lock,
    Event::Start,
    Event::Stop,
    Event::GetState,
    Event::GetReport,
    Event::BindPeer,
    Event::UnbindPeer,
    Event::SetMmioAttribute,
];

/// The table of the specification, row by row: one letter for each state after, in the order of
/// [`TdiState::ALL`], or `-` where the request is refused.
const ROWS: [(Event, &str); 18] = [
    (Event::Lock, "L---"),
    (Event::Start, "-R--"),
    (Event::Stop, "UUUU"),
    (Event::GetState, "ULRE"),
    (Event::GetReport, "-LR-"),
    (Event::BindPeer, "--R-"),
    (Event::UnbindPeer, "--R-"),
    (Event::SetMmioAttribute, "--R-"),
    (Event::Incident(Incident::ConfigChanged), "UEEE"),
    (Event::Incident(Incident::RequesterIdChanged), "UEEE"),
    (Event::Incident(Incident::FunctionReset), "UEEE"),
    (Event::Incident(Incident::ConventionalReset), "UUUU"),
    (Event::Incident(Incident::StreamInsecure), "UEEE"),
    (Event::Incident(Incident::SessionEnded), "UEEE"),
    (Event::Incident(Incident::CorruptedData), "UEEE"),
    (Event::Incident(Incident::FailedRead), "UEEE"),
    (Event::Incident(Incident::UntrustedTranslation), "UEEE"),
    (Event::Incident(Incident::Scrubbed), "ULRU"),
];

fn letter(state: Option<TdiState>) -> char {
    match state {
        None => '-',
        Some(TdiState::Unlocked) => 'U',
        Some(TdiState::Locked) => 'L',
        Some(TdiState::Run) => 'R',
        Some(TdiState::Error) => 'E',
    }
}

#[test]
fn every_event_in_every_state_leads_to_where_the_specification_says() {
    let events = REQUESTS
        .into_iter()
        .chain(Incident::ALL.map(Event::Incident));
    for event in events {
        let rows: Vec<_> = ROWS.iter().filter(|(row, _)| *row == event).collect();
        assert_eq!(rows.len(), 1, "{event:?}");
        let after = TdiState::ALL.map(|state| letter(state.after(event)));
        assert_eq!(after.iter().collect::<String>(), rows[0].1, "{event:?}");
    }
    assert_eq!(ROWS.len(), REQUESTS.len() + Incident::ALL.len());
}

#[test]
fn states_have_the_numbers_of_the_wire() {
    assert_eq!(TdiState::ALL.map(|state| state as u8), [0, 1, 2, 3]);
}

fn nonce(seed: u8) -> Nonce {
    Nonce([seed; Nonce::BYTES])
}

#[test]
fn a_nonce_starts_the_interface_once() {
    let mut tdi = Tdi::default();
    tdi.lock(nonce(1)).unwrap();
    assert_eq!(tdi.start(&nonce(2)), Err(Refusal::InvalidNonce));
    assert_eq!(tdi.state(), TdiState::Locked);
    tdi.start(&nonce(1)).unwrap();
    let running = Refusal::InvalidInterfaceState(TdiState::Run);
    assert_eq!(tdi.start(&nonce(1)), Err(running));
    tdi.take(Event::Stop).unwrap();
    tdi.lock(nonce(3)).unwrap();
    assert_eq!(tdi.start(&nonce(1)), Err(Refusal::InvalidNonce));
}

#[test]
fn a_refused_request_changes_nothing() {
    let mut tdi = Tdi::default();
    tdi.lock(nonce(1)).unwrap();
    let before = tdi;
    let locked = Refusal::InvalidInterfaceState(TdiState::Locked);
    assert_eq!(tdi.lock(nonce(2)), Err(locked));
    assert_eq!(tdi.take(Event::BindPeer), Err(locked));
    assert_eq!(tdi, before);
    assert_eq!(locked.code(), 4);
}

/// What a test does to an interface.
#[derive(Debug, Clone, Copy)]
enum Act {
    Lock(u8),
    Start(u8),
    Take(Event),
}

fn act() -> impl Strategy<Value = Act> {
    let event = prop_oneof![
        prop::sample::select(&REQUESTS[2..]),
        prop::sample::select(&Incident::ALL[..]).prop_map(Event::Incident),
    ];
    prop_oneof![
        3 => (0..3_u8).prop_map(Act::Lock),
        3 => (0..3_u8).prop_map(Act::Start),
        2 => event.prop_map(Act::Take),
    ]
}

/// An interface as three plain facts, with the rules of the specification as sentences.
#[derive(Debug, Default, PartialEq)]
struct Naive {
    locked_with: Option<u8>,
    started: bool,
    failed: bool,
}

impl Naive {
    fn act(&mut self, act: Act) -> bool {
        let locked = self.locked_with.is_some() || self.started;
        match act {
            Act::Lock(nonce) if !locked && !self.failed => self.locked_with = Some(nonce),
            Act::Start(nonce) if self.locked_with == Some(nonce) => {
                self.locked_with = None;
                self.started = true;
            }
            Act::Lock(_) | Act::Start(_) => return false,
            Act::Take(Event::Stop | Event::Incident(Incident::ConventionalReset)) => {
                *self = Self::default();
            }
            Act::Take(Event::Incident(Incident::Scrubbed)) => self.failed = false,
            Act::Take(Event::Incident(_)) if locked => {
                *self = Self {
                    failed: true,
                    ..Self::default()
                }
            }
            Act::Take(Event::Incident(_) | Event::GetState) => {}
            Act::Take(Event::GetReport) => return locked,
            Act::Take(_) => return self.started,
        }
        true
    }

    fn state(&self) -> TdiState {
        match (self.locked_with, self.started, self.failed) {
            (_, _, true) => TdiState::Error,
            (_, true, _) => TdiState::Run,
            (Some(_), ..) => TdiState::Locked,
            (None, ..) => TdiState::Unlocked,
        }
    }
}

proptest! {
    #[test]
    fn any_history_ends_where_the_naive_model_does(acts in prop::collection::vec(act(), 0..60)) {
        let mut tdi = Tdi::default();
        let mut naive = Naive::default();
        for act in acts {
            let done = match act {
                Act::Lock(seed) => tdi.lock(nonce(seed)),
                Act::Start(seed) => tdi.start(&nonce(seed)),
                Act::Take(event) => tdi.take(event),
            };
            prop_assert_eq!(done.is_ok(), naive.act(act), "{:?}", act);
            prop_assert_eq!(tdi.state(), naive.state());
            prop_assert_eq!(tdi.nonce, naive.locked_with.map(nonce));
        }
    }
}
