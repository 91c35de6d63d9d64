use std::os::unix::fs::FileExt;

use iommu::Visibility;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::*;

const BASE: u64 = 0x4000_0000;
const HIGH: u64 = 0x8000_0000;
const BIT: u8 = 35;

fn range(start: u64, bytes: u64) -> PageRange<Gpa> {
    PageRange::new(Gpa::new(start), bytes).unwrap()
}

/// Two DRAM ranges of 4 MiB each.
fn split() -> GuestRam {
    GuestRam::split(&[range(BASE, 4 << 20), range(HIGH, 4 << 20)], BIT).unwrap()
}

fn put(ram: &GuestRam, at: u64, value: u64) {
    ram.memory().write_obj(value, GuestAddress(at)).unwrap();
}

fn get(ram: &GuestRam, at: u64) -> u64 {
    ram.memory().read_obj(GuestAddress(at)).unwrap()
}

/// What the shared file holds for the first eight bytes of `page`: what a device sees.
fn shared(ram: &GuestRam, page: u64) -> u64 {
    let split = ram.aliased().unwrap();
    let mut bytes = [0; 8];
    let offset = if page < HIGH {
        page - BASE
    } else {
        page - HIGH + (4 << 20)
    };
    let file = std::fs::File::from(split.file.try_clone().unwrap());
    file.read_exact_at(&mut bytes, offset).unwrap();
    u64::from_le_bytes(bytes)
}

/// The permissions and the path of the mapping of `address`, as the kernel prints them.
fn mapping_of(address: u64) -> (String, String) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (start, end) = words.next().unwrap().split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        if (number(start)..number(end)).contains(&address) {
            let permissions = words.next().unwrap().to_owned();
            return (permissions, words.nth(3).unwrap_or_default().to_owned());
        }
    }
    panic!("{address:#x} is not mapped");
}

fn alias_permissions(ram: &GuestRam, page: u64) -> String {
    let alias = page | 1 << BIT;
    let slots = ram.slots();
    let mut slots = slots.iter();
    let slot = slots.find(|slot| (slot.guest..slot.guest + slot.bytes).contains(&alias));
    let slot = slot.unwrap();
    mapping_of(slot.host + alias - slot.guest).0
}

/// The bytes that the shared file occupies.
fn file_bytes(ram: &GuestRam) -> u64 {
    let file = &ram.aliased().unwrap().file;
    u64::try_from(rustix::fs::fstat(file).unwrap().st_blocks).unwrap() * 512
}

#[test]
fn plain_ram_is_one_aligned_slot_for_each_dram_range() {
    let dram = [range(BASE, 4 << 20), range(HIGH, 2 << 20)];
    let ram = GuestRam::plain(&dram, HostPages::Transparent).unwrap();
    let slots = ram.slots();
    assert_eq!(slots.len(), 2);
    assert!(slots.iter().all(|slot| slot.host % (2 << 20) == 0));
    assert_eq!((slots[1].guest, slots[1].bytes), (HIGH, 2 << 20));
    assert_eq!(
        ram.dma_address(range(BASE + 0x1000, 0x1000)),
        Some(slots[0].host + 0x1000)
    );
    assert_eq!(ram.dma_address(range(BASE, 5 << 20)), None);
    assert!(matches!(
        ram.share(range(BASE, 0x1000)),
        Err(ConvertError::NotConvertible { .. })
    ));
}

#[test]
fn split_ram_has_an_alias_slot_with_the_shared_bit() {
    let ram = split();
    let slots = ram.slots();
    let guests: Vec<u64> = slots.iter().map(|slot| slot.guest).collect();
    assert_eq!(guests, [BASE, HIGH, BASE | 1 << BIT, HIGH | 1 << BIT]);
    assert_eq!(slots[3].bytes, 4 << 20);
}

#[test]
fn dma_tables_map_a_page_in_the_state_that_it_is_in() {
    let plain = GuestRam::plain(&[range(BASE, 4 << 20)], HostPages::Transparent).unwrap();
    for (ram, page) in [(plain, BASE + 0x1000), (split(), HIGH + 0x1000)] {
        let host = ram.dma_view().unwrap().get_host_address(GuestAddress(page));
        let address = host.unwrap().expose_provenance() as u64;
        assert_eq!(Some(address), ram.dma_address(range(page, 0x1000)));
    }
    let ram = split();
    let page = range(HIGH, 0x1000);
    let host = ram.dma_address(page).unwrap();
    assert_eq!(mapping_of(host).1, "", "memory of this process");
    ram.share(page).unwrap();
    assert!(mapping_of(host).1.contains("guest-shared"));
    ram.unshare(page).unwrap();
    assert_eq!(mapping_of(host).1, "");
}

#[test]
fn dram_in_the_shared_half_or_out_of_order_is_refused() {
    let dram = [range(BASE, 4 << 20)];
    assert!(matches!(GuestRam::split(&dram, 30), Err(RamError::Layout)));
    let overlap = [range(BASE, 4 << 20), range(BASE + (2 << 20), 4 << 20)];
    assert!(matches!(
        GuestRam::plain(&overlap, HostPages::Transparent),
        Err(RamError::Layout)
    ));
}

#[test]
fn guest_ram_asks_for_huge_pages_and_gets_them_where_the_host_has_them() {
    let ram = GuestRam::plain(&[range(BASE, 16 << 20)], HostPages::Transparent).unwrap();
    for page in (0..16 << 20).step_by(0x1000) {
        put(&ram, BASE + page, 1);
    }
    let start = format!("{:x}-", ram.slots()[0].host);
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let entry = smaps
        .lines()
        .skip_while(|line| !line.starts_with(&start))
        .take_while(|line| !line.starts_with("VmFlags"));
    let huge = entry
        .filter_map(|line| line.strip_prefix("AnonHugePages:"))
        .next()
        .unwrap();
    let knob = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    let never = knob.map_or(true, |text| text.contains("[never]"));
    assert_eq!(huge.trim() == "0 kB", never, "{huge}");
}

/// Which pages of the host's pool are free, of one size.
fn free_in_pool(kib: u32) -> u64 {
    let folder = format!("/sys/kernel/mm/hugepages/hugepages-{kib}kB");
    let read = |file: &str| {
        let text = std::fs::read_to_string(format!("{folder}/{file}")).unwrap_or_default();
        text.trim().parse::<u64>().unwrap_or(0)
    };
    let more = read("nr_overcommit_hugepages").saturating_sub(read("surplus_hugepages"));
    read("free_hugepages").saturating_sub(read("resv_hugepages")) + more
}

/// The figure of an entry of the mapping at `start`, in KiB.
fn figure(start: u64, name: &str) -> u64 {
    let start = format!("{start:x}-");
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut entry = smaps.lines().skip_while(|line| !line.starts_with(&start));
    let value = entry.find_map(|line| line.strip_prefix(name)).unwrap();
    let value = value.trim_start_matches(':').trim().trim_end_matches(" kB");
    value.parse().unwrap()
}

#[test]
fn pages_of_the_pool_are_used_where_there_are_enough_and_else_refused() {
    let dram = [range(BASE, 8 << 20)];
    let made = GuestRam::plain(&dram, HostPages::Huge2M);
    if free_in_pool(2048) < 4 {
        let Err(error) = made else {
            panic!("there are no huge pages, and here they are");
        };
        assert!(matches!(error, RamError::Pool { .. }), "{error}");
        return;
    }
    let ram = made.unwrap();
    put(&ram, BASE + 0x1000, 7);
    let slot = ram.slots()[0];
    assert_eq!(figure(slot.host, "KernelPageSize"), 2048);
    assert_eq!(get(&ram, BASE + 0x1000), 7);
}

#[test]
fn ranges_that_are_no_whole_huge_pages_are_refused() {
    let odd = [range(BASE, 3 << 20)];
    for pages in [HostPages::Huge2M, HostPages::Huge1G] {
        let made = GuestRam::plain(&odd, pages);
        assert!(matches!(made, Err(RamError::Pool { .. })));
    }
}

#[test]
fn filled_ram_is_there_and_keeps_what_it_holds() {
    let dram = [range(BASE, 300 << 20), range(HIGH, 2 << 20)];
    let ram = GuestRam::plain(&dram, HostPages::Transparent).unwrap();
    put(&ram, BASE + 0x1000, 7);
    let threads = std::num::NonZero::new(3).unwrap();
    let mut heard = Vec::new();
    ram.populate(threads, &mut |populated| heard.push(populated))
        .unwrap();
    for slot in ram.slots() {
        assert_eq!(figure(slot.host, "Rss") << 10, slot.bytes);
    }
    assert_eq!(get(&ram, BASE + 0x1000), 7);
    let all = 302 << 20;
    assert_eq!(heard[0], Populated { done: 0, all });
    assert_eq!(heard.last(), Some(&Populated { done: all, all }));
    assert!(heard.is_sorted_by_key(|populated| populated.done));
}

#[test]
fn split_ram_is_filled_where_it_is_private() {
    let ram = split();
    let threads = std::num::NonZero::<usize>::MIN;
    ram.populate(threads, &mut |_| {}).unwrap();
    assert_eq!(figure(ram.slots()[0].host, "Rss"), 4 << 10);
    assert_eq!(file_bytes(&ram), 0, "nothing is shared yet");
    ram.share(range(BASE, 0x1000)).unwrap();
}

#[test]
fn a_shared_page_is_one_page_at_both_addresses() {
    let ram = split();
    let page = HIGH + 0x5000;
    put(&ram, page, 7);
    assert_eq!(alias_permissions(&ram, page), "---p");
    ram.share(range(page, 0x1000)).unwrap();
    assert_eq!(get(&ram, page), 0, "a shared page starts empty");
    put(&ram, page, 8);
    assert_eq!(shared(&ram, page), 8);
    assert_eq!(alias_permissions(&ram, page), "rw-s");
    assert_eq!(alias_permissions(&ram, page + 0x1000), "---p");
    let low = ram.slots()[1].host + 0x5000;
    assert_eq!(mapping_of(low).1, "/memfd:guest-shared");
}

#[test]
fn a_page_that_is_private_again_leaves_nothing_behind() {
    let ram = split();
    let pages = range(BASE, 2 << 20);
    ram.share(pages).unwrap();
    put(&ram, BASE, 9);
    put(&ram, BASE + 0x10_0000, 9);
    assert!(file_bytes(&ram) > 0);
    ram.unshare(pages).unwrap();
    assert_eq!(get(&ram, BASE), 0);
    assert_eq!(shared(&ram, BASE), 0);
    assert_eq!(file_bytes(&ram), 0);
    assert_eq!(alias_permissions(&ram, BASE), "---p");
    ram.share(pages).unwrap();
    assert_eq!(get(&ram, BASE + 0x10_0000), 0);
}

#[test]
fn a_range_over_two_adjacent_dram_ranges_is_converted_whole() {
    let next = BASE + (4 << 20);
    let ram = GuestRam::split(&[range(BASE, 4 << 20), range(next, 4 << 20)], BIT).unwrap();
    ram.share(range(next - 0x2000, 0x4000)).unwrap();
    put(&ram, next - 0x1000, 1);
    put(&ram, next, 2);
    assert_eq!(alias_permissions(&ram, next - 0x1000), "rw-s");
    assert_eq!(alias_permissions(&ram, next), "rw-s");
    assert!(matches!(
        split().share(range(BASE + (3 << 20), 2 << 20)),
        Err(ConvertError::NotConvertible { .. })
    ));
}

#[test]
fn a_clone_of_the_memory_outlives_the_ram() {
    let ram = split();
    let memory = ram.memory().clone();
    drop(ram);
    memory.write_obj(3u64, GuestAddress(BASE)).unwrap();
    assert_eq!(memory.read_obj::<u64>(GuestAddress(BASE)).unwrap(), 3);
    let region = memory.find_region(GuestAddress(BASE)).unwrap();
    assert!(
        region
            .get_slice(vm_memory::MemoryRegionAddress(4 << 20), 1)
            .is_err()
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Against a plain array: what each page holds, and whether the device sees it.
    #[test]
    fn conversions_agree_with_a_naive_model(
        steps in prop::collection::vec((0u64..16, 1u64..8, any::<bool>()), 1..24),
    ) {
        let ram = split();
        let mut model = [(false, 0u64); 24];
        for (step, &(first, pages, share)) in steps.iter().enumerate() {
            for page in first..first + pages {
                let is_shared = model[usize::try_from(page).unwrap()].0;
                if is_shared != share {
                    let one = range(BASE + page * 0x1000, 0x1000);
                    if share { ram.share(one) } else { ram.unshare(one) }.unwrap();
                    model[usize::try_from(page).unwrap()] = (share, 0);
                }
            }
            let at = usize::try_from(first).unwrap();
            model[at].1 = step as u64 + 1;
            put(&ram, BASE + first * 0x1000, model[at].1);
        }
        for (page, &(is_shared, value)) in model.iter().enumerate() {
            let gpa = BASE + page as u64 * 0x1000;
            prop_assert_eq!(get(&ram, gpa), value);
            prop_assert_eq!(shared(&ram, gpa), if is_shared { value } else { 0 });
            let expected = if is_shared { "rw-s" } else { "---p" };
            prop_assert_eq!(alias_permissions(&ram, gpa), expected);
        }
    }
}

#[test]
fn plain_ram_in_files_is_what_whoever_has_them_sees() {
    let dram = [range(BASE, 4 << 20), range(HIGH, 2 << 20)];
    let ram = GuestRam::in_files(&dram, HostPages::Transparent).unwrap();
    put(&ram, BASE + 0x3000, 7);
    put(&ram, HIGH + 0x5000, 9);
    let parts = ram.file_parts();
    assert_eq!(parts.len(), 2);
    for (part, (at, value)) in parts.iter().zip([(0x3000, 7), (0x5000, 9)]) {
        let file = std::fs::File::from(part.file.try_clone_to_owned().unwrap());
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).unwrap();
        assert_eq!(u64::from_le_bytes(bytes), value);
    }
    assert_eq!(parts[1].slot, ram.slots()[1]);
    let own = GuestRam::plain(&dram, HostPages::Transparent).unwrap();
    assert!(own.file_parts().is_empty() && split().file_parts().is_empty());
}

/// Stands for a guest_memfd: an ordinary file takes the same calls.
fn private_file(bytes: u64) -> OwnedFd {
    memory_file("guest-private", bytes).unwrap()
}

#[test]
fn private_ram_frees_one_form_and_leaves_the_other() {
    for shared in [SharedForm::Anonymous, SharedForm::SmallPages] {
        frees_one_form(shared);
    }
}

fn frees_one_form(shared: SharedForm) {
    let dram = [range(BASE, 2 << 20), range(HIGH, 2 << 20)];
    let private = vec![private_file(2 << 20), private_file(2 << 20)];
    let behind = std::fs::File::from(private[1].try_clone().unwrap());
    behind.write_all_at(&[0x5a; 0x2000], 0x1000).unwrap();
    let ram = GuestRam::with_private(&dram, private, shared).unwrap();
    assert_eq!(ram.slots().len(), 2, "no alias slots");
    assert!(
        ram.slots()
            .iter()
            .all(|slot| ram.guest_memfd_at(*slot).is_some())
    );
    let of = |file: &std::fs::File, at| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        byte[0]
    };
    put(&ram, HIGH + 0x1000, 1);
    put(&ram, HIGH + 0x2000, 2);
    ram.discard(range(HIGH + 0x1000, 0x1000), Visibility::Private)
        .unwrap();
    assert_eq!((of(&behind, 0x1000), of(&behind, 0x2000)), (0, 0x5a));
    assert_eq!(get(&ram, HIGH + 0x1000), 1, "the shared form is as it was");
    ram.discard(range(HIGH + 0x2000, 0x1000), Visibility::Shared)
        .unwrap();
    assert_eq!((get(&ram, HIGH + 0x1000), get(&ram, HIGH + 0x2000)), (1, 0));
    assert_eq!(of(&behind, 0x2000), 0x5a, "the private form is as it was");
    let beyond = range(HIGH + (1 << 20), 2 << 20);
    for refused in [
        ram.discard(beyond, Visibility::Shared),
        ram.share(range(HIGH, 0x1000)),
        split().discard(range(HIGH, 0x1000), Visibility::Shared),
    ] {
        assert!(matches!(refused, Err(ConvertError::NotConvertible { .. })));
    }
    assert!(matches!(
        GuestRam::with_private(&dram, vec![private_file(2 << 20)], shared),
        Err(RamError::Layout)
    ));
}

#[test]
fn a_shared_form_of_small_pages_has_no_others() {
    let dram = [range(BASE, 4 << 20)];
    let permissions = |shared| {
        let private = vec![private_file(4 << 20)];
        let ram = GuestRam::with_private(&dram, private, shared).unwrap();
        put(&ram, BASE + 0x1000, 1);
        mapping_of(ram.slots()[0].host)
    };
    // A page of such a mapping can be written whenever it is there.
    let (small, file) = permissions(SharedForm::SmallPages);
    assert_eq!(small, "rw-s");
    assert!(file.contains("guest-shared"), "{file}");
    let (anonymous, _) = permissions(SharedForm::Anonymous);
    assert_eq!(anonymous, "rw-p");
}

#[test]
fn memory_of_a_freed_shared_page_goes_back_to_the_host() {
    let dram = [range(BASE, 2 << 20)];
    let private = vec![private_file(2 << 20)];
    let ram = GuestRam::with_private(&dram, private, SharedForm::SmallPages).unwrap();
    let taken = || {
        let Form::Private(files) = &ram.form else {
            panic!("it has no private form");
        };
        files.shared_blocks()
    };
    put(&ram, BASE + 0x1000, 1);
    put(&ram, BASE + 0x2000, 1);
    assert_eq!(taken(), 2 * 4096 / 512);
    ram.discard(range(BASE + 0x1000, 0x1000), Visibility::Shared)
        .unwrap();
    assert_eq!(taken(), 4096 / 512);
}
