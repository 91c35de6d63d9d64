//! What taking guest memory from the host costs before the guest runs: `cargo bench -p kvm`.
//!
//! 8 GiB, or what `CCVM_BENCH_GIB` says: without prefault, and filled by 1 and more threads.
#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on has failed"
)]

use std::hint::black_box;
use std::num::NonZero;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use iommu::{Gpa, PageRange};
use kvm::ram::{GuestRam, HostPages};

const DRAM: u64 = 1 << 30;

fn ram(gib: u64) -> GuestRam {
    let range = PageRange::new(Gpa::new(DRAM), gib << 30).unwrap();
    GuestRam::plain(&[range], HostPages::Transparent).unwrap()
}

/// Giving the memory back is not part of a start.
fn timed(times: u64, gib: u64, take: impl Fn(&GuestRam)) -> Duration {
    let mut took = Duration::ZERO;
    for _ in 0..times {
        let begun = Instant::now();
        let ram = ram(gib);
        take(&ram);
        took += begun.elapsed();
        drop(black_box(ram));
    }
    took
}

fn benches(criterion: &mut Criterion) {
    let asked = std::env::var("CCVM_BENCH_GIB").ok();
    let gib = asked.and_then(|gib| gib.parse().ok()).unwrap_or(8);
    let mut group = criterion.benchmark_group(format!("guest RAM of {gib} GiB"));
    group.sample_size(10);
    group.measurement_time(Duration::from_secs(1));
    group.warm_up_time(Duration::from_millis(1));
    group.bench_function("as it is touched", |bencher| {
        bencher.iter_custom(|times| timed(times, gib, |_| {}));
    });
    let most = std::thread::available_parallelism().map_or(1, NonZero::get);
    for threads in [1, 2, most].into_iter().filter(|threads| *threads <= most) {
        let id = BenchmarkId::new("filled by threads", threads);
        let threads = NonZero::new(threads).unwrap();
        group.bench_with_input(id, &threads, |bencher, &threads| {
            bencher.iter_custom(|times| {
                timed(times, gib, |ram| {
                    ram.populate(threads, &mut |_| {}).unwrap()
                })
            });
        });
        if threads.get() == most {
            break;
        }
    }
    group.finish();
}

criterion_group!(populate, benches);
criterion_main!(populate);
