//! A conversation over a real socket, with a VM that has memory and no vCPUs.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use devices::pci::Bdf;
use devices::virtio::QueueCounters;
use kvm::ram::HostPages;
use tempfile::TempDir;

use super::protocol::{Answer, Command, ErrorCode, PageStateName, Request, Response, RunState};
use super::*;
use crate::check::Check;
use crate::convert::Pages;
use crate::emulate::{Counted, CountedKind};
use crate::plan::{PlanOptions, VmPlan};
use crate::power_button::PowerButton;
use crate::run::{EndOfRun, Ending, Gate, Pause};
use crate::stats::Stats;

const CONFIG: &str = "[vm]\nplatform = \"emulated-realm\"\nmemory = \"64 MiB\"\n";

fn plan(folder: &TempDir) -> VmPlan {
    let config = folder.path().join("vm.toml");
    std::fs::write(&config, CONFIG).unwrap();
    let host = include_str!("../../../tests/fixtures/hosts/qemu-virt.json");
    let facts = crate::host::from_json(host).unwrap();
    let options = PlanOptions {
        override_ipa_bits: None,
    };
    let check = Check::of_file(&config, Ok(facts), options);
    check.outcome.unwrap().plan().unwrap().clone()
}

/// A disk of two queues, of which the second was notified.
fn a_disk() -> Counted {
    let second = QueueCounters::default();
    second.notified(3);
    Counted {
        guest: Bdf::new(0, 2, 0).unwrap(),
        kind: CountedKind::Disk,
        queues: vec![QueueCounters::default(), second],
    }
}

struct Rig {
    end: Arc<EndOfRun>,
    presses: Arc<AtomicU32>,
    folder: TempDir,
    _thread: ControlThread,
}

impl Rig {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plan = plan(&folder);
        let end = Arc::new(EndOfRun::new().unwrap());
        let presses = Arc::<AtomicU32>::default();
        let stats = Stats::since(Instant::now());
        stats.exits.mmio_read.add_one();
        stats.exits.mmio_read.add_one();
        let vm = Controlled {
            pages: Arc::new(Pages::new(&plan, HostPages::Transparent).unwrap()),
            plan,
            stats: Arc::new(stats),
            pause: Pause::new(Arc::<Gate>::default(), 0, Box::new(|| {})),
            button: PowerButton::new({
                let presses = Arc::clone(&presses);
                move || {
                    presses.fetch_add(1, Ordering::Relaxed);
                }
            }),
            devices: ControlledDevices::none(),
            emulated: vec![a_disk()],
            faults: crate::fault_watch::FaultTally::default(),
            end: Arc::clone(&end),
        };
        let socket = ControlSocket::bind(&folder.path().join("vm.sock")).unwrap();
        let thread = ControlThread::start(socket, vm).unwrap();
        Self {
            end,
            presses,
            folder,
            _thread: thread,
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("vm.sock")
    }

    fn ask(&self, command: Command) -> Answer {
        let mut client = Client::connect(&self.path()).unwrap();
        client.ask(&Request::new(command)).unwrap().answer
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.end.end(Ending::Quit);
    }
}

fn read_answer(from: &mut BufReader<UnixStream>) -> Answer {
    let mut line = String::new();
    from.read_line(&mut line).unwrap();
    serde_json::from_str::<Response>(&line).unwrap().answer
}

fn code(answer: &Answer) -> Option<ErrorCode> {
    match answer {
        Answer::Error(failure) => Some(failure.code),
        _ => None,
    }
}

#[test]
fn a_vm_tells_what_it_is_and_what_its_pages_are() {
    let rig = Rig::start();
    let Answer::Status(status) = rig.ask(Command::Status {}) else {
        panic!("no status");
    };
    assert_eq!(status.memory, 64 << 20);
    assert_eq!(status.state, RunState::Running);
    let Answer::Map(map) = rig.ask(Command::Map {
        device: None,
        from: None,
        limit: Some(1),
    }) else {
        panic!("no map");
    };
    let extent = map.states.extents[0];
    assert_eq!(
        (extent.size, extent.state),
        (64 << 20, PageStateName::Private)
    );
    assert_eq!(map.states.left_out, 0);
    let Answer::Verify(verification) = rig.ask(Command::Verify {}) else {
        panic!("no verification");
    };
    assert!(verification.clean && verification.tables.is_empty());
}

#[test]
fn counters_are_told_as_they_are() {
    let rig = Rig::start();
    let Answer::Metrics(metrics) = rig.ask(Command::Metrics {}) else {
        panic!("no metrics");
    };
    assert_eq!((metrics.memory, metrics.vcpus), (64 << 20, 1));
    assert_eq!((metrics.exits.mmio_read, metrics.exits.hypercall), (2, 0));
    assert_eq!(metrics.conversions.shared_pages, 0);
    assert_eq!((metrics.devices.len(), metrics.fault_log_gaps), (0, None));
    let [disk] = &metrics.emulated[..] else {
        panic!("{:?}", metrics.emulated);
    };
    assert_eq!(
        (disk.guest.as_str(), disk.kind),
        ("00:02.0", CountedKind::Disk)
    );
    let notified: Vec<u64> = disk
        .queues
        .iter()
        .map(|queue| queue.notifications)
        .collect();
    assert_eq!(notified, [0, 3]);
}

#[test]
fn pause_and_resume_show_in_the_status() {
    let rig = Rig::start();
    let state = || match rig.ask(Command::Status {}) {
        Answer::Status(status) => status.state,
        other => panic!("{other:?}"),
    };
    rig.ask(Command::Pause {});
    assert_eq!(state(), RunState::Paused);
    rig.ask(Command::Resume {});
    assert_eq!(state(), RunState::Running);
}

#[test]
fn the_power_button_is_pressed_once_for_each_request_and_ends_nothing_by_itself() {
    let rig = Rig::start();
    for _ in 0..2 {
        let answer = rig.ask(Command::Powerbutton {});
        assert!(matches!(answer, Answer::Powerbutton(_)));
    }
    assert_eq!(rig.presses.load(Ordering::Relaxed), 2);
    assert_eq!(rig.end.ending(), None);
}

#[test]
fn stop_is_answered_and_ends_the_run() {
    let rig = Rig::start();
    assert!(matches!(rig.ask(Command::Stop {}), Answer::Stop(_)));
    assert_eq!(rig.end.ending(), Some(&Ending::Stopped));
}

#[test]
fn a_device_that_is_not_there_is_named() {
    let rig = Rig::start();
    let answer = rig.ask(Command::Tdi {
        action: protocol::TdiAction::Lock,
        device: "00:01.0".to_owned(),
    });
    assert_eq!(code(&answer), Some(ErrorCode::NoSuchDevice));
}

#[test]
fn requests_are_answered_in_order_whether_or_not_more_will_come() {
    let rig = Rig::start();
    let mut stream = UnixStream::connect(rig.path()).unwrap();
    stream
        .write_all(b"nonsense\n{\"version\":1,\"command\":\"status\"}\n{\"version\":1,\"comm")
        .unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answers = BufReader::new(stream);
    assert_eq!(code(&read_answer(&mut answers)), Some(ErrorCode::Malformed));
    assert!(matches!(read_answer(&mut answers), Answer::Status(_)));
    assert_eq!(
        answers.read_to_end(&mut Vec::new()).unwrap(),
        0,
        "half a line is no request"
    );
}

#[test]
fn a_line_without_end_is_refused_and_the_connection_closed() {
    let rig = Rig::start();
    let mut stream = UnixStream::connect(rig.path()).unwrap();
    stream.write_all(&[b'x'; 5000]).unwrap();
    let mut answers = BufReader::new(stream);
    assert_eq!(code(&read_answer(&mut answers)), Some(ErrorCode::Malformed));
    // Closed with input unread: the peer sees the end, or that.
    let _ = answers.read_to_end(&mut Vec::new());
}

#[test]
fn one_who_asks_too_often_at_a_time_is_turned_away_and_may_come_back() {
    let rig = Rig::start();
    let connect = || UnixStream::connect(rig.path()).unwrap();
    let mut open: Vec<UnixStream> = (0..16).map(|_| connect()).collect();
    let mut refused = BufReader::new(connect());
    assert_eq!(
        code(&read_answer(&mut refused)),
        Some(ErrorCode::TooManyConnections)
    );
    open.clear();
    // The server hears of the ends in its own time.
    let mut client = loop {
        let mut client = Client::connect(&rig.path()).unwrap();
        match client.ask(&Request::new(Command::Status {})) {
            Ok(Response {
                answer: Answer::Status(_),
                ..
            }) => break client,
            _ => std::thread::yield_now(),
        }
    };
    assert!(client.ask(&Request::new(Command::Status {})).is_ok());
}

#[test]
fn nobody_answers_after_the_run() {
    let rig = Rig::start();
    let path = rig.path();
    drop(rig);
    assert!(matches!(
        Client::connect(&path),
        Err(ClientError::Connect { .. })
    ));
    assert!(!Path::exists(&path));
}

#[test]
fn a_vm_without_slots_takes_no_device_and_says_what_it_takes() {
    let rig = Rig::start();
    let plug = |dma_bits| Command::Plug {
        device: "0000:00:04.0".parse().unwrap(),
        slot: None,
        dma_bits,
    };
    let Answer::Error(failure) = rig.ask(plug(None)) else {
        panic!("it came");
    };
    assert_eq!(failure.code, ErrorCode::Refused);
    let reason = "CCVM0560: 0000:00:04.0 cannot come to this VM: CCVM0562: the VM has no slots";
    assert!(failure.message.starts_with(reason), "{}", failure.message);
    let answer = rig.ask(plug(Some(23)));
    assert_eq!(code(&answer), Some(ErrorCode::InvalidArgument));
    let unplug = Command::Unplug {
        device: "01:00.0".to_owned(),
        force: true,
    };
    assert_eq!(code(&rig.ask(unplug)), Some(ErrorCode::NoSuchDevice));
}
