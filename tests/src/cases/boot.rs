//! An unmodified Debian kernel boots, as a plain VM and as a Realm.

use anyhow::ensure;

use crate::case::{Case, Guest, Host, Platform, Run};
use crate::guest::{End, Program, Step};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "debian_boots_in_a_plain_vm_and_powers_off",
        needs: &[],
        run: plain,
    },
    Case {
        name: "debian_boots_in_a_plain_vm_with_2_vcpus_and_reboots",
        needs: &[],
        run: plain_smp,
    },
    Case {
        name: "debian_boots_as_a_realm_and_uses_rsi_and_swiotlb",
        needs: &[],
        run: realm,
    },
    Case {
        name: "debian_boots_as_a_realm_with_2_vcpus_and_its_panic_is_a_reboot",
        needs: &[],
        run: realm_smp,
    },
];

/// What `ccvm run` says of a guest that powered itself off.
const POWERED_OFF: i32 = 0;
/// What it says of a guest that asked for a reset.
const REBOOTED: i32 = 3;

fn plain(host: &mut Host<'_>) -> anyhow::Result<()> {
    let program = Program::Debian {
        kernel: "Image.gz",
        steps: vec![Step::Facts],
        end: End::PowerOff,
    };
    let run = host.boot(&Guest::new(Platform::None, program))?;
    run.expect_status(POWERED_OFF)?;
    run.expect("cpus", "1")?;
    run.expect("rsi", "")?;
    has_memory(&run)
}

fn plain_smp(host: &mut Host<'_>) -> anyhow::Result<()> {
    let run = host.boot(&smp(Platform::None, End::Reboot))?;
    run.expect("cpus", "2")?;
    run.expect("end", "reboot")?;
    run.expect_status(REBOOTED)?;
    has_memory(&run)
}

fn realm(host: &mut Host<'_>) -> anyhow::Result<()> {
    let run = host.boot(&Guest::debian(Platform::Realm, &[Step::Facts, Step::Token]))?;
    run.expect_status(POWERED_OFF)?;
    run.expect("cpus", "1")?;
    is_a_realm(&run)?;
    run.expect("token_provider", "arm_cca_guest")?;
    run.expect("token_has_challenge", "1")
}

fn realm_smp(host: &mut Host<'_>) -> anyhow::Result<()> {
    let run = host.boot(&smp(Platform::Realm, End::Crash))?;
    run.expect("cpus", "2")?;
    run.expect("end", "crash")?;
    // Debian's kernel has no pvpanic driver: told to reboot on a panic, it just asks for a reset.
    run.expect_status(REBOOTED)?;
    is_a_realm(&run)
}

fn smp(platform: Platform, end: End) -> Guest {
    let program = Program::Debian {
        kernel: "Image",
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
