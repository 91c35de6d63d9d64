//! Any text as host facts: read, and planned on for every kind of VM with every device.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use vmm::check::Check;
use vmm::config::Source;
use vmm::plan::PlanOptions;
use vmm::report::{self, Report, Style};

fuzz_target!(|facts: &str| {
    let Ok(facts) = vmm::host::from_json(facts) else {
        return;
    };
    for platform in ["none", "emulated-realm", "snp", "tdx"] {
        let mut config = format!("[vm]\nplatform = '{platform}'\nmemory = '1 GiB'\n");
        for device in facts.devices.iter().take(300) {
            config += &format!("[[device]]\npci = '{}'\n", device.pci);
        }
        let source = Source::new("vm.toml", config);
        let check = Check::new(
            source,
            Path::new(""),
            Ok(facts.clone()),
            PlanOptions::default(),
        );
        let report = Report::new(&check, Some(&facts));
        let _ = report::text(&report, Style::Plain);
        let _ = report::svg(&report);
    }
});
