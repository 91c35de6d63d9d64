//! An unmodified Debian kernel boots, as a plain VM and as a Realm.

use anyhow::ensure;

use crate::arch::{ARM64, EVERY, X86_64};
use crate::case::{Case, Guest, Host, Platform, Run};
use crate::guest::{End, Kernel, Program, Step};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "debian_boots_in_a_plain_vm_and_powers_off",
        on: EVERY,
        needs: &[],
        run: plain,
    },
    Case {
        name: "debian_boots_in_a_plain_vm_with_4_vcpus_and_reboots",
        on: EVERY,
        needs: &[],
        run: plain_smp,
    },
    Case {
        name: "debian_boots_as_a_realm_and_uses_rsi_and_swiotlb",
        on: ARM64,
        needs: &[],
        run: realm,
    },
    Case {
        name: "debian_boots_as_a_realm_with_2_vcpus_and_its_panic_is_a_reboot",
        on: ARM64,
        needs: &[],
        run: realm_smp,
    },
    Case {
        name: "a_panic_in_a_plain_vm_is_a_reboot",
        on: X86_64,
        needs: &[],
        run: plain_panic,
    },
    Case {
        name: "a_panic_of_a_guest_that_has_a_driver_to_tell_it_is_a_crash",
        on: X86_64,
        needs: &[],
        run: told_panic,
    },
    Case {
        name: "a_guest_that_has_just_taken_an_exception_reaches_a_device",
        on: X86_64,
        needs: &[],
        run: after_exception,
    },
];

/// What `ccvm run` says of a guest that powered itself off.
const POWERED_OFF: i32 = 0;
/// What it says of a guest that asked for a reset.
const REBOOTED: i32 = 3;
/// What it says of a guest that told it of a panic.
const CRASHED: i32 = 4;

fn plain(host: &mut Host<'_>) -> anyhow::Result<()> {
    let program = Program::Debian {
        kernel: Kernel::Converted,
        steps: vec![Step::Facts],
        end: End::PowerOff,
    };
    let run = host.boot(&Guest::new(Platform::None, program))?;
    run.expect_status(POWERED_OFF)?;
    run.expect("cpus", "1")?;
    run.expect("rsi", "")?;
    run.expect("encryption", "")?;
    has_memory(&run)
}

fn plain_smp(host: &mut Host<'_>) -> anyhow::Result<()> {
    let guest = Guest {
        vcpus: 4,
        ..smp(Platform::None, End::Reboot)
    };
    let run = host.boot(&guest)?;
    run.expect("cpus", "4")?;
    run.expect("end", "reboot")?;
    run.expect_status(REBOOTED)?;
    has_memory(&run)
}

fn plain_panic(host: &mut Host<'_>) -> anyhow::Result<()> {
    let run = host.boot(&smp(Platform::None, End::Crash))?;
    run.expect("end", "crash")?;
    run.expect_status(REBOOTED)
}

fn told_panic(host: &mut Host<'_>) -> anyhow::Result<()> {
    let program = Program::Debian {
        kernel: Kernel::Packaged,
        steps: vec![Step::PanicNotifier],
        end: End::Crash,
    };
    let run = host.boot(&Guest::new(Platform::None, program))?;
    run.expect("panic_notifier", "0")?;
    run.expect("end", "crash")?;
    run.expect_status(CRASHED)?;
    ensure!(run.stats["ending"] == "crash", "{}", run.stats);
    Ok(())
}

fn realm(host: &mut Host<'_>) -> anyhow::Result<()> {
    let guest = Guest::debian(Platform::Realm, &[Step::Facts, Step::Token]);
    let foretold = host.foretell(&guest)?;
    let run = host.boot(&guest)?;
    run.expect_status(POWERED_OFF)?;
    run.expect("cpus", "1")?;
    is_a_realm(&run)?;
    run.expect("token_provider", "arm_cca_guest")?;
    run.expect("token_has_challenge", "1")?;
    run.expect("token_initial_measurement", &foretold)
}

fn realm_smp(host: &mut Host<'_>) -> anyhow::Result<()> {
    let run = host.boot(&smp(Platform::Realm, End::Crash))?;
    run.expect("cpus", "2")?;
    run.expect("end", "crash")?;
    // Debian's kernel for arm64 has no pvpanic driver: told to reboot on a panic, it just asks for a reset.
    run.expect_status(REBOOTED)?;
    is_a_realm(&run)
}

fn smp(platform: Platform, end: End) -> Guest {
    let program = Program::Debian {
        kernel: Kernel::Packaged,
        steps: vec![Step::Facts],
        end,
    };
    Guest {
        vcpus: 2,
        ..Guest::new(platform, program)
    }
}

fn has_memory(run: &Run) -> anyhow::Result<()> {
    let memory = run.number("memory_kib")?;
    ensure!(
        (400_000..524_288).contains(&memory),
        "a guest of 512 MiB has {memory} KiB"
    );
    Ok(())
}

fn is_a_realm(run: &Run) -> anyhow::Result<()> {
    has_memory(run)?;
    run.expect("rsi", "1.0")?;
    // Its slots have 2 KiB; ccvm counts pages of 4 KiB.
    let swiotlb_pages = run.number("swiotlb_slots")? / 2;
    ensure!(swiotlb_pages > 0, "the guest has no swiotlb");
    let (shared, private) = (
        run.converted("shared_pages")?,
        run.converted("private_pages")?,
    );
    ensure!(
        shared >= private + swiotlb_pages,
        "{shared} pages were shared and {private} made private, but swiotlb has {swiotlb_pages}"
    );
    ensure!(
        run.converted("refused")? == 0,
        "conversions were refused: {}",
        run.stats
    );
    Ok(())
}

/// KVM delivers the exception itself, and in an emulated host takes what is left of it for one on its way.
fn after_exception(host: &mut Host<'_>) -> anyhow::Result<()> {
    let program = Program::Payload("exception-then-device");
    let run = host.boot(&Guest {
        emulated: vec!["[rng]".to_owned()],
        ..Guest::new(Platform::None, program)
    })?;
    run.expect("result", "pass")?;
    run.expect_status(POWERED_OFF)
}
