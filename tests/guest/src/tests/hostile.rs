//! A guest that asks its IOMMU for what it must not get: every answer is the one that the specification
//! wants, nothing breaks, and a good request works after each bad one.

mod chains;
#[cfg(target_arch = "aarch64")]
mod conversions;
mod requests;
mod rings;

use super::Outcome;
use crate::edu::Edu;
use crate::machine::Machine;
use crate::memory::{Shared, Spare};
use crate::report;
use crate::viommu::{Answer, BATCH, Request, Viommu, access, answer};

const OK: Answer = Answer::Status(answer::OK);
/// The domain of the endpoint.
const DOMAIN: u32 = 1;
/// Where the good mapping is, and where one can be tried.
const MAPPED: u64 = 0x10_0000;
const FREE: u64 = 0x20_0000;
const PAGE: u64 = 0x1000;

/// The IOMMU, one device behind it, and shared pages to map.
struct Rig<'a> {
    machine: &'a Machine<'a>,
    viommu: Viommu,
    edu: Edu,
    pages: Shared,
    /// A private page, where there are such.
    private: Option<u64>,
    cases: usize,
    wrong: usize,
}

impl<'a> Rig<'a> {
    fn new(machine: &'a Machine<'a>) -> Result<Self, super::Failure> {
        let mut spare = Spare::of(machine);
        let edu = Edu::find(machine)?;
        let pages = spare.share(machine, 16)?;
        let private = spare.take(2 * PAGE, PAGE)?.start;
        let viommu = Viommu::find(machine, &mut spare)?;
        Ok(Self {
            machine,
            viommu,
            edu,
            pages,
            private: machine.realm.map(|_| private),
            cases: 0,
            wrong: 0,
        })
    }

    /// The endpoint in its domain, with four pages mapped.
    fn set_up(&mut self) -> Result<(), &'static str> {
        self.viommu.restart()?;
        let attach = Request::attach(DOMAIN, self.edu.endpoint, 0);
        let map = Request::map(DOMAIN, MAPPED, 4 * PAGE, self.pages.page(0), access::BOTH);
        match [attach, map].map(|request| self.viommu.ask(&request)) {
            [OK, OK] => Ok(()),
            _ => Err("a good request is refused"),
        }
    }

    /// Compares an answer with what it must be.
    fn expect(&mut self, name: &str, answer: Answer, expected: Answer) {
        self.cases += 1;
        if answer != expected {
            self.wrong += 1;
            report!("wrong={name}: {answer:x?}, not {expected:x?}");
        }
    }

    fn finish(&self) -> Outcome {
        report!("cases={}", self.cases);
        match self.wrong {
            0 => Ok(()),
            _ => Err("an answer is not the one that it must be".into()),
        }
    }

    /// Whether mapping and unmapping a page works.
    fn still_works(&mut self, after: &str) {
        let map = Request::map(DOMAIN, FREE, PAGE, self.pages.page(8), access::BOTH);
        let unmap = Request::unmap(DOMAIN, FREE, PAGE);
        let answers = [map, unmap].map(|request| self.viommu.ask(&request));
        if answers != [OK; 2] {
            self.wrong += 1;
            report!("wrong=a good request after {after}: {answers:x?}");
        }
    }
}

/// Maps pages one by one until there is no room, and unmaps them all at once.
pub fn exhaust(machine: &Machine<'_>) -> Outcome {
    const FIRST: u64 = 0x4000_0000;
    const MOST: u64 = 1 << 20;
    let mut rig = Rig::new(machine)?;
    rig.set_up()?;
    let target = rig.pages.page(8);
    let mut mapped = 0;
    loop {
        let requests: [Request; BATCH] = core::array::from_fn(|number| {
            let virt = FIRST + (mapped + number as u64) * PAGE;
            Request::map(DOMAIN, virt, PAGE, target, access::BOTH)
        });
        let done = rig.viommu.ask_all(&requests, answer::OK) as u64;
        mapped += done;
        if done < BATCH as u64 {
            break;
        }
        if mapped > MOST {
            return Err("there is no limit on mappings".into());
        }
    }
    report!("mappings={mapped}");
    let more = Request::map(DOMAIN, FIRST + mapped * PAGE, PAGE, target, access::BOTH);
    let answer = rig.viommu.ask(&more);
    rig.expect(
        "one mapping too many",
        answer,
        Answer::Status(answer::NO_MEMORY),
    );
    let unmap = Request::unmap(DOMAIN, FIRST, mapped * PAGE);
    let answer = rig.viommu.ask(&unmap);
    rig.expect("UNMAP of all of them", answer, OK);
    rig.still_works("too many mappings");
    rig.edu.read(MAPPED)?;
    rig.finish()
}

/// All of it.
pub fn run(machine: &Machine<'_>) -> Outcome {
    let mut rig = Rig::new(machine)?;
    requests::run(&mut rig)?;
    chains::run(&mut rig)?;
    rings::run(&mut rig)?;
    #[cfg(target_arch = "aarch64")]
    conversions::run(&mut rig)?;
    rig.finish()
}
