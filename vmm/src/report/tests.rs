use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::check::{Check, FileFindings, Judgement};
use crate::config::Source;
use crate::host::HostFacts;
use crate::plan::PlanOptions;

const HOST: &str = include_str!("../../../tests/fixtures/hosts/qemu-virt.json");

/// Everything that a check of `config` prints.
fn printed(config: &str, facts: Result<HostFacts, FileFindings>) -> (Judgement, String) {
    let known = facts.as_ref().ok().cloned();
    let source = Source::new("vm.toml", config);
    let check = Check::new(source, Path::new(""), facts, PlanOptions::default());
    let report = Report::new(&check, known.as_ref());
    let mut all = text(&report, Style::Plain) + &svg(&report) + &unusable(&report, Style::Plain);
    for file in &check.findings {
        for style in [Style::Plain, Style::Coloured] {
            all += &findings(&file.diagnostics, file.source.as_ref(), style);
        }
    }
    (check.judgement(), all)
}

fn on_qemu(config: &str) -> (Judgement, String) {
    printed(config, Ok(crate::host::from_json(HOST).unwrap()))
}

/// A config in which every value is acceptable to the reader, though perhaps to no host.
fn understood() -> impl Strategy<Value = String> {
    let device = (0_u8..8, prop::option::of(24_u8..65), any::<bool>());
    (
        prop::sample::select(vec!["auto", "none", "emulated-realm", "cca", "snp"]),
        1_u32..513,
        1_u64..1 << 42,
        prop::collection::vec(device, 0..5),
    )
        .prop_map(|(platform, vcpus, memory, devices)| {
            let mut config = format!(
                "[vm]\nplatform = '{platform}'\nvcpus = {vcpus}\nmemory = '{} MiB'\n",
                memory * 2
            );
            for (slot, bits, translated) in devices {
                config += &format!("[[device]]\npci = '00:0{slot}.0'\n");
                config += &bits.map_or(String::new(), |bits| format!("dma-bits = {bits}\n"));
                config += if translated {
                    "dma = 'translated'\n"
                } else {
                    ""
                };
            }
            config
        })
}

/// An address, often one at an edge.
fn address() -> impl Strategy<Value = u64> {
    let near = (0_u32..64, -2_i64..3).prop_map(|(bit, by)| (1_u64 << bit).wrapping_add_signed(by));
    prop_oneof![near, any::<u64>(), Just(0), Just(u64::MAX)]
}

/// Host facts as JSON that a reader accepts, however unlikely the host.
fn facts() -> impl Strategy<Value = String> {
    let range = || (address(), address()).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let kind = prop::sample::select(vec!["mem32", "mem64", "mem64-prefetchable", "io"]);
    let bar = (0_u8..5, 2_u32..64, kind);
    let bits = || prop::option::of(1_u8..65);
    let device = (
        prop::collection::vec(range(), 0..4),
        prop::option::of(prop::collection::vec(range(), 0..4)),
        prop::collection::vec(bar, 0..3),
        (bits(), bits(), bits(), bits()),
    );
    let arch = prop::sample::select(vec![("aarch64", "ipa_bits_max"), ("x86_64", "phys_bits")]);
    (arch, bits(), prop::collection::vec(device, 0..4)).prop_map(|(arch, limit, devices)| {
        let list = |items: Vec<String>| format!("[{}]", items.join(","));
        let span = |(start, end): (u64, u64)| format!("\"start\":\"{start:#x}\",\"end\":\"{end:#x}\"");
        let number = |name: &str, bits: Option<u8>| {
            bits.map_or(String::new(), |bits| format!(",\"{name}\":{bits}"))
        };
        let devices = devices.into_iter().enumerate();
        let devices = devices.map(|(slot, (reserved, iova, bars, masks))| {
            let reserved = reserved.into_iter();
            let reserved = reserved.map(|range| format!("{{{},\"kind\":\"reserved\"}}", span(range)));
            let iova = iova.map_or(String::new(), |ranges| {
                let ranges = ranges.into_iter().map(|range| format!("{{{}}}", span(range)));
                format!(",\"iova_ranges\":{}", list(ranges.collect()))
            });
            let bars = bars.into_iter().map(|(index, size, kind)| {
                format!("{{\"index\":{index},\"size\":{},\"kind\":\"{kind}\"}}", 1_u64 << size)
            });
            format!(
                "{{\"pci\":\"00:0{slot}.0\",\"vendor\":\"0x1234\",\"device\":\"0x1\",\"class\":\"0x0\",\
                 \"group\":{slot},\"reserved_regions\":{}{iova},\"bars\":{}{}{}{}{}}}",
                list(reserved.collect()),
                list(bars.collect()),
                number("dma_mask_bits", masks.0),
                number("coherent_dma_mask_bits", masks.1),
                number("register_dma_bits", masks.2),
                number("tdisp_dma_bits", masks.3),
            )
        });
        format!(
            "{{\"schema\":1,\"arch\":\"{}\",\"kvm\":{{\"api\":12{}}},\"devices\":{}}}",
            arch.0,
            number(arch.1, limit),
            list(devices.collect()),
        )
    })
}

proptest! {
    #[test]
    fn any_facts_that_are_read_can_be_planned_on_and_printed(
        facts in facts(),
        config in understood(),
    ) {
        // Two BARs in one register are refused, and the like.
        let Ok(facts) = crate::host::from_json(&facts) else {
            return Ok(());
        };
        let (judgement, printed) = printed(&config, Ok(facts));
        prop_assert!(judgement != Judgement::Rejected || printed.contains("error[CCVM"));
    }

    #[test]
    fn any_text_for_a_config_is_answered_with_findings(config in any::<String>()) {
        let (judgement, printed) = on_qemu(&config);
        prop_assert_eq!(judgement, Judgement::Unusable);
        prop_assert!(printed.contains("CCVM02"));
    }

    #[test]
    fn findings_can_be_shown_in_any_text(
        text in any::<String>(),
        start in 0_usize..64,
        length in 0_usize..64,
    ) {
        let finding = crate::diagnostic::Diagnostic::error(
            crate::diagnostic::Code::InvalidValue,
            text.clone(),
        );
        let finding = finding.with_help(text.clone()).at(start..start + length);
        let source = Source::new("x", text);
        let shown = findings(&[finding], Some(&source), Style::Plain);
        prop_assert!(shown.contains("CCVM0203"));
    }

    #[test]
    fn a_config_that_is_understood_gets_a_verdict_and_a_map(config in understood()) {
        let (judgement, printed) = on_qemu(&config);
        match judgement {
            Judgement::Accepted => prop_assert!(printed.contains("address space")),
            Judgement::Rejected => prop_assert!(printed.contains("error[CCVM")),
            // The only thing wrong with such a config: a device that it names twice.
            Judgement::Unusable => prop_assert!(printed.contains("CCVM0205")),
        }
    }

    #[test]
    fn a_picture_is_well_formed_and_its_labels_do_not_touch(config in understood()) {
        let (_, printed) = on_qemu(&config);
        let labels = labels(&printed);
        for (index, (x, y)) in labels.iter().enumerate() {
            let close = |other: &(u32, u32)| other.0 == *x && other.1.abs_diff(*y) < 12;
            prop_assert!(!labels[index + 1..].iter().any(close), "{x} {y}: {printed}");
        }
    }
}

/// Where the text elements of a picture stand.
fn labels(svg: &str) -> Vec<(u32, u32)> {
    let texts = svg.lines().filter(|line| line.starts_with("<text "));
    texts
        .map(|text| {
            let number = |name: &str| {
                let (_, rest) = text.split_once(&format!(" {name}=\"")).unwrap();
                rest.split_once('"').unwrap().0.parse().unwrap()
            };
            (number("x"), number("y"))
        })
        .collect()
}
