//! What a conversion and a lookup cost in bookkeeping, with hosts that do nothing: a guest of 1 TiB in
//! up to a million random extents, beside two naive ways of keeping its pages.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot be set up must stop, and its figures go to the terminal"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use iommu::table::HostError;
use iommu::{
    Access, AddressSpace, Alias, Binding, DmaTable, Gpa, Iova, PAGE_SIZE, PageFlip, PageRange,
    Reserved, SharedBit, Table, TableId, TableSpec, Visibility,
};
use rustix::time::{ClockId, clock_gettime};

const GUEST_PAGES: u64 = (1 << 40) / PAGE_SIZE;
const EXTENTS: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// Time on the processor, so that a busy machine measures the same.
struct OnCpu;

impl OnCpu {
    fn now() -> Duration {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        let seconds = Duration::from_secs(now.tv_sec.try_into().unwrap());
        seconds + Duration::from_nanos(now.tv_nsec.try_into().unwrap())
    }
}

impl Measurement for OnCpu {
    type Intermediate = Duration;
    type Value = Duration;
    fn start(&self) -> Duration {
        Self::now()
    }
    fn end(&self, start: Duration) -> Duration {
        Self::now() - start
    }
    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }
    fn zero(&self) -> Duration {
        Duration::ZERO
    }
    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }
    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// A host to which all is the same.
struct Idle;

impl DmaTable for Idle {
    fn map(&mut self, iova: PageRange<Iova>, gpa: Gpa, _: Access) -> Result<(), HostError> {
        black_box((iova, gpa));
        Ok(())
    }
    fn unmap(&mut self, iova: PageRange<Iova>) -> Result<(), HostError> {
        black_box(iova);
        Ok(())
    }
}

impl PageFlip for Idle {
    fn flip(&mut self, range: PageRange<Gpa>, _: Visibility) -> Result<(), HostError> {
        black_box(range);
        Ok(())
    }
    fn discard(&mut self, range: PageRange<Gpa>, _: Visibility) -> Result<(), HostError> {
        black_box(range);
        Ok(())
    }
}

/// A small generator of the same numbers in every run (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

struct Guest {
    space: AddressSpace<Idle>,
    tables: Vec<TableId>,
    random: Random,
}

impl Guest {
    /// A guest of 1 TiB whose pages fall into about this many extents, and both tables of its devices.
    fn new(extents: u64, tables: &[Table]) -> Self {
        let dram = PageRange::new(Gpa::new(0), GUEST_PAGES * PAGE_SIZE).unwrap();
        let bit = SharedBit::new(40).unwrap();
        let alias = Alias::SharedBit(bit);
        let space = AddressSpace::new([dram], Visibility::Private, alias).unwrap();
        let mut guest = Self {
            space,
            tables: Vec::new(),
            random: Random(0x9e37_79b9_7f4a_7c15),
        };
        for &table in tables {
            let spec = TableSpec {
                table,
                binding: Binding::Identity,
                reserved: Reserved::default(),
                reach: Iova::new(u64::MAX),
                entry_limit: None,
            };
            guest.tables.push(guest.space.attach(Idle, spec).unwrap());
        }
        // A shared stretch of at most half a stride in each stride, so that none touches another.
        let strides = extents / 2;
        let stride = GUEST_PAGES / strides;
        let mut order: Vec<u64> = (0..strides).collect();
        for at in (1..order.len()).rev() {
            let other = guest.random.below(at as u64 + 1);
            order.swap(at, usize::try_from(other).unwrap());
        }
        for number in order {
            let pages = 1 + guest.random.below(stride / 2);
            guest.convert(number * stride, pages, Visibility::Shared);
        }
        guest
    }

    fn convert(&mut self, page: u64, pages: u64, to: Visibility) {
        let start = Gpa::new(page * PAGE_SIZE);
        let request = self.space.request(start, pages * PAGE_SIZE, to).unwrap();
        black_box(self.space.convert(request, &mut Idle).unwrap());
    }

    /// A random page, and the state that it is not in.
    fn toggle(&mut self) -> (u64, Visibility) {
        let page = self.random.below(GUEST_PAGES);
        let state = self.space.states().at(Gpa::new(page * PAGE_SIZE));
        let shared = state == Some(iommu::PageState::Shared);
        let to = if shared {
            Visibility::Private
        } else {
            Visibility::Shared
        };
        (page, to)
    }
}

/// Each conversion cuts a mapping that stays cut, so the tables grow meanwhile: these figures are of
/// somewhat more extents than their names say.
fn conversion(c: &mut Criterion<OnCpu>) {
    let mut group = c.benchmark_group("convert 4 KiB there and back");
    let tables: [(&str, &[Table]); 3] = [
        ("no table", &[]),
        ("T0", &[Table::T0]),
        ("T0 and T1", &[Table::T0, Table::T1]),
    ];
    for (name, tables) in tables {
        for extents in EXTENTS {
            let mut guest = Guest::new(extents, tables);
            group.bench_function(BenchmarkId::new(name, extents), |b| {
                let guest = std::cell::RefCell::new(&mut guest);
                b.iter_batched(
                    || guest.borrow_mut().toggle(),
                    |(page, to)| {
                        let mut guest = guest.borrow_mut();
                        guest.convert(page, 1, to);
                        guest.convert(page, 1, to.other());
                    },
                    BatchSize::SmallInput,
                );
            });
        }
    }
    group.finish();
}

fn contiguous(c: &mut Criterion<OnCpu>) {
    let mut group = c.benchmark_group("convert a contiguous range there and back");
    for (name, pages) in [("4 KiB", 1), ("2 MiB", 512), ("1 GiB", 1 << 18)] {
        let mut guest = Guest::new(2, &[Table::T0, Table::T1]);
        group.throughput(Throughput::Bytes(pages * PAGE_SIZE));
        group.bench_function(BenchmarkId::new("by extent", name), |b| {
            b.iter(|| {
                guest.convert(0, GUEST_PAGES, Visibility::Private);
                guest.convert(1 << 20, pages, Visibility::Shared);
            });
        });
        let mut bitmap = Bitmap::new();
        group.bench_function(BenchmarkId::new("naive bitmap", name), |b| {
            b.iter(|| {
                black_box(bitmap.convert(1 << 20, pages, true));
                black_box(bitmap.convert(1 << 20, pages, false));
            });
        });
        let mut tree = Tree::default();
        group.bench_function(BenchmarkId::new("naive BTreeMap of pages", name), |b| {
            b.iter(|| {
                black_box(tree.convert(1 << 20, pages, true));
                black_box(tree.convert(1 << 20, pages, false));
            });
        });
    }
    group.finish();
}

fn lookup(c: &mut Criterion<OnCpu>) {
    let mut group = c.benchmark_group("look up a random page");
    for extents in EXTENTS {
        let mut guest = Guest::new(extents, &[Table::T0, Table::T1]);
        let mut random = Random(7);
        group.bench_function(BenchmarkId::new("state", extents), |b| {
            b.iter(|| {
                let page = random.below(GUEST_PAGES);
                black_box(guest.space.states().at(Gpa::new(page * PAGE_SIZE)))
            });
        });
        let t1 = guest.tables[1];
        group.bench_function(BenchmarkId::new("T1", extents), |b| {
            b.iter(|| {
                let page = random.below(GUEST_PAGES);
                black_box(
                    guest
                        .space
                        .mapped(t1)
                        .unwrap()
                        .at(Iova::new(page * PAGE_SIZE)),
                )
            });
        });
        guest.tables.clear();
    }
    let bitmap = Bitmap::new();
    let mut random = Random(7);
    group.bench_function("naive bitmap", |b| {
        b.iter(|| black_box(bitmap.is_shared(random.below(GUEST_PAGES))));
    });
    let mut tree = Tree::default();
    for _ in 0..1_000_000 {
        let page = random.below(GUEST_PAGES);
        tree.convert(page, 1, true);
    }
    group.bench_function("naive BTreeMap of 1,000,000 shared pages", |b| {
        b.iter(|| black_box(tree.0.contains_key(&random.below(GUEST_PAGES))));
    });
    group.finish();
}

/// One bit a page.
struct Bitmap(Vec<u64>);

impl Bitmap {
    fn new() -> Self {
        Self(vec![0; usize::try_from(GUEST_PAGES / 64).unwrap()])
    }

    fn is_shared(&self, page: u64) -> bool {
        self.0[usize::try_from(page / 64).unwrap()] & (1 << (page % 64)) != 0
    }

    /// Sets the bits page by page and returns how many changed: the edits of each table.
    fn convert(&mut self, page: u64, pages: u64, shared: bool) -> u64 {
        let mut changed = 0;
        for page in page..page + pages {
            if self.is_shared(page) != shared {
                self.0[usize::try_from(page / 64).unwrap()] ^= 1 << (page % 64);
                changed += 1;
            }
        }
        changed
    }
}

/// One entry for each shared page.
#[derive(Default)]
struct Tree(BTreeMap<u64, u64>);

impl Tree {
    fn convert(&mut self, page: u64, pages: u64, shared: bool) -> u64 {
        let mut changed = 0;
        for page in page..page + pages {
            let was = match shared {
                true => self.0.insert(page, page).is_some(),
                false => self.0.remove(&page).is_some(),
            };
            changed += u64::from(was != shared);
        }
        changed
    }
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * PAGE_SIZE
}

/// Prints what a million extents take; criterion measures only time.
fn memory(_: &mut Criterion<OnCpu>) {
    for (name, tables) in [
        ("page states", &[][..]),
        ("page states and T0", &[Table::T0][..]),
        ("page states, T0 and T1", &[Table::T0, Table::T1][..]),
    ] {
        let before = resident();
        let guest = Guest::new(1_000_000, tables);
        let extents = guest.space.states().extent_count() as u64;
        let bytes = resident().saturating_sub(before);
        println!(
            "memory: {name}: {} bytes per extent ({extents} extents)",
            bytes / extents
        );
    }
}

/// What `verify` costs: the copy for which conversions wait, and the comparison for which they do not.
fn verify(criterion: &mut Criterion<OnCpu>) {
    let mut group = criterion.benchmark_group("verify T1");
    group.sample_size(10);
    for extents in EXTENTS {
        let guest = Guest::new(extents, &[Table::T1]);
        let table = guest.tables[0];
        group.bench_function(BenchmarkId::new("snapshot", extents), |bencher| {
            bencher.iter(|| guest.space.snapshot(table));
        });
        let snapshot = guest.space.snapshot(table).unwrap();
        assert_eq!(snapshot.verify(), []);
        group.bench_function(BenchmarkId::new("compare", extents), |bencher| {
            bencher.iter(|| snapshot.verify());
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(OnCpu);
    targets = memory, conversion, contiguous, lookup, verify
}
criterion_main!(benches);
