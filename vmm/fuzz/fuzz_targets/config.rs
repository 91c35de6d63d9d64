//! Any text as a config: checked against a recorded host, and everything printed.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use vmm::check::Check;
use vmm::config::Source;
use vmm::plan::PlanOptions;
use vmm::report::{self, Report, Style};

const HOST: &str = include_str!("../../../tests/fixtures/hosts/qemu-virt.json");

fuzz_target!(|config: &str| {
    let Ok(facts) = vmm::host::from_json(HOST) else {
        return;
    };
    let source = Source::new("vm.toml", config);
    let check = Check::new(
        source,
        Path::new(""),
        Ok(facts.clone()),
        PlanOptions::default(),
    );
    let report = Report::new(&check, Some(&facts));
    let _ = report::text(&report, Style::Coloured);
    let _ = report::svg(&report);
    for file in &check.findings {
        let _ = report::findings(&file.diagnostics, file.source.as_ref(), Style::Plain);
    }
});
