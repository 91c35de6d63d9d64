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

proptest! {
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
